package client

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"sync"
)

// hashes are the SCRAM mechanisms the benchmark can use (RFC 5802, RFC 7677), without channel binding.
var hashes = map[string]func() hash.Hash{
	"SCRAM-SHA-1":   sha1.New,
	"SCRAM-SHA-256": sha256.New,
	"SCRAM-SHA-512": sha512.New,
}

// Keys are the keys of RFC 5802 §3 that follow from a password, a salt and an iteration count.
type Keys struct{ Client, Stored, Server []byte }

// DeriveKeys computes the keys for a mechanism of the table above; the costly part is PBKDF2.
func DeriveKeys(mechanism, password string, salt []byte, iterations int) (Keys, error) {
	h, ok := hashes[mechanism]
	if !ok {
		return Keys{}, fmt.Errorf("unknown mechanism %q", mechanism)
	}
	salted, err := pbkdf2.Key(h, password, salt, iterations, h().Size())
	if err != nil {
		return Keys{}, err
	}
	client := mac(h, salted, "Client Key")
	stored := h()
	stored.Write(client)
	return Keys{Client: client, Stored: stored.Sum(nil), Server: mac(h, salted, "Server Key")}, nil
}

func mac(h func() hash.Hash, key []byte, text string) []byte {
	m := hmac.New(h, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// KeyCache remembers derived keys, so that the driver pays PBKDF2 once for each salt. Safe for concurrent use.
type KeyCache struct{ m sync.Map }

func (c *KeyCache) keys(mechanism, password string, salt []byte, iterations int) (Keys, error) {
	id := mechanism + "\x00" + password + "\x00" + string(salt) + "\x00" + strconv.Itoa(iterations)
	if k, ok := c.m.Load(id); ok {
		return k.(Keys), nil
	}
	k, err := DeriveKeys(mechanism, password, salt, iterations)
	if err == nil {
		c.m.Store(id, k)
	}
	return k, err
}

// scram is one exchange of RFC 5802 §5 without channel binding.
type scram struct {
	mechanism, account, password string
	cache                        *KeyCache

	nonce, authMessage string
	keys               Keys
}

// first is the client-first-message. Account names of the benchmark need no escaping.
func (s *scram) first() string {
	var b [18]byte
	rand.Read(b[:])
	s.nonce = base64.StdEncoding.EncodeToString(b[:])
	return "n,,n=" + s.account + ",r=" + s.nonce
}

// final answers the server-first-message with the client-final-message.
func (s *scram) final(serverFirst string) (string, error) {
	nonce, rest, ok := strings.Cut(strings.TrimPrefix(serverFirst, "r="), ",s=")
	saltText, rest, ok2 := strings.Cut(rest, ",i=")
	countText, _, _ := strings.Cut(rest, ",")
	if !ok || !ok2 || !strings.HasPrefix(nonce, s.nonce) {
		return "", fmt.Errorf("bad SCRAM server-first-message %q", serverFirst)
	}
	salt, err := base64.StdEncoding.DecodeString(saltText)
	if err != nil {
		return "", fmt.Errorf("SCRAM salt: %w", err)
	}
	count, err := strconv.Atoi(countText)
	if err != nil || count < 1 {
		return "", fmt.Errorf("bad SCRAM iteration count %q", countText)
	}
	if s.keys, err = s.cache.keys(s.mechanism, s.password, salt, count); err != nil {
		return "", err
	}
	final := "c=biws,r=" + nonce
	s.authMessage = "n=" + s.account + ",r=" + s.nonce + "," + serverFirst + "," + final
	proof := mac(hashes[s.mechanism], s.keys.Stored, s.authMessage)
	subtle.XORBytes(proof, proof, s.keys.Client)
	return final + ",p=" + base64.StdEncoding.EncodeToString(proof), nil
}

// verify checks the server-final-message.
func (s *scram) verify(serverFinal string) error {
	sig, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(serverFinal, "v="))
	if err != nil {
		return fmt.Errorf("SCRAM server signature: %w", err)
	}
	if !bytes.Equal(sig, mac(hashes[s.mechanism], s.keys.Server, s.authMessage)) {
		return errors.New("wrong SCRAM server signature")
	}
	return nil
}
