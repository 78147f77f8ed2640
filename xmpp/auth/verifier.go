package auth

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"
	"strings"

	"mellium.im/xmpp/jid"
)

// scramHash is one hash of the SCRAM family, with the mechanism that is named after it.
type scramHash struct {
	name string // of the mechanism without -PLUS
	size int    // of the hash, in bytes
	new  func() hash.Hash
}

// hashes are those that an account has verifiers for, strongest first. RFC 6120 §13.8.1 makes SHA-1 mandatory, whose known weakness
// (collisions) does not touch HMAC.
var hashes = []*scramHash{
	{"SCRAM-SHA-512", sha512.Size, sha512.New}, // draft-melnikov-scram-sha-512
	{"SCRAM-SHA-256", sha256.Size, sha256.New}, // RFC 7677
	{"SCRAM-SHA-1", sha1.Size, sha1.New},       // RFC 5802
}

// hashOf returns the hash of a SCRAM mechanism, with or without -PLUS, nil when it is not one of ours.
func hashOf(mechanism string) *scramHash {
	name := strings.TrimSuffix(mechanism, plus)
	for _, h := range hashes {
		if h.name == name {
			return h
		}
	}
	return nil
}

// saltSize is in bytes. XEP-0438 §6.2: at least 16.
const saltSize = 16

// derivation is how a salted password is made of a prepared one.
type derivation func(h *scramHash, password string, salt []byte, iterations int) ([]byte, error)

// deriveKey is Hi of RFC 5802 §2.2.
func deriveKey(h *scramHash, password string, salt []byte, iterations int) ([]byte, error) {
	return pbkdf2.Key(h.new, password, salt, iterations, h.size)
}

// mac is HMAC of RFC 5802 §2.2.
func (h *scramHash) mac(key []byte, parts ...string) []byte {
	m := hmac.New(h.new, key)
	for _, p := range parts {
		m.Write([]byte(p)) // never fails
	}
	return m.Sum(nil)
}

// sum is H of RFC 5802 §2.2.
func (h *scramHash) sum(b []byte) []byte {
	s := h.new()
	s.Write(b) // never fails
	return s.Sum(nil)
}

// verifier makes the verifier of a salted password: RFC 5802 §3.
func (h *scramHash) verifier(salted, salt []byte, iterations int) Verifier {
	return Verifier{
		Mechanism:  h.name,
		Salt:       salt,
		Iterations: iterations,
		StoredKey:  h.sum(h.mac(salted, "Client Key")),
		ServerKey:  h.mac(salted, "Server Key"),
	}
}

// MakeVerifiers makes the verifiers of a password, one for each hash, each with a salt of its own (XEP-0438 §6.2). It costs a PBKDF2 of
// that many iterations for each. The error tells what is wrong with the password, without a part of it, or that iterations is less
// than MinIterations.
func MakeVerifiers(password string, iterations int) ([]Verifier, error) {
	prepared, err := preparePassword(password)
	if err != nil {
		return nil, err
	}
	return makeVerifiers(deriveKey, prepared, iterations)
}

func makeVerifiers(derive derivation, prepared string, iterations int) ([]Verifier, error) {
	if iterations < MinIterations {
		return nil, fmt.Errorf("%d iterations, fewer than %d", iterations, MinIterations)
	}
	all := make([]Verifier, 0, len(hashes))
	for _, h := range hashes {
		salt := make([]byte, saltSize)
		rand.Read(salt) // never fails
		salted, err := derive(h, prepared, salt, iterations)
		if err != nil {
			return nil, fmt.Errorf("derive key for %s: %w", h.name, err)
		}
		all = append(all, h.verifier(salted, salt, iterations))
	}
	return all, nil
}

// ErrMechanism is for a verifier of a mechanism that this server does not have.
var ErrMechanism = errors.New("unknown mechanism")

// maxIterations and maxSalt bound verifiers that were made elsewhere. chosen: a login takes clients seconds then.
const (
	maxIterations = 10_000_000
	maxSalt       = 1024
)

// Check reports what is wrong with a verifier that was made elsewhere: ErrMechanism, or sizes that cannot be.
func (v Verifier) Check() error {
	h := hashOf(v.Mechanism)
	switch {
	case h == nil || h.name != v.Mechanism:
		return ErrMechanism
	case v.Iterations < MinIterations || v.Iterations > maxIterations:
		return fmt.Errorf("%d iterations, not from %d to %d", v.Iterations, MinIterations, maxIterations)
	case len(v.Salt) == 0 || len(v.Salt) > maxSalt:
		return fmt.Errorf("a salt of %d bytes", len(v.Salt))
	case len(v.StoredKey) != h.size || len(v.ServerKey) != h.size:
		return fmt.Errorf("keys of %d and %d bytes, not %d", len(v.StoredKey), len(v.ServerKey), h.size)
	}
	return nil
}

// matches reports whether key is the ClientKey that v was made of: RFC 5802 §3.
func (h *scramHash) matches(v Verifier, key []byte) bool {
	return subtle.ConstantTimeCompare(h.sum(key), v.StoredKey) == 1
}

// pick returns the verifier for h among those of an account.
func (h *scramHash) pick(all []Verifier) (Verifier, bool) {
	for _, v := range all {
		// A row that could not be a verifier is none: nothing may be computed with it.
		if v.Mechanism == h.name && len(v.Salt) > 0 && v.Iterations > 0 && len(v.StoredKey) == h.size && len(v.ServerKey) == h.size {
			return v, true
		}
	}
	return Verifier{}, false
}

// fake is the verifier that an account seems to have which does not exist, or has none for h: the same at every try, and like that of a
// new account. (Accounts whose password is older than a change of Config.Iterations can be told from it.) RFC 6120 §6.5.10 wants no
// difference between wrong credentials and an unknown account. Nobody knows a password for it, and none is accepted.
func (a *Authenticator) fake(h *scramHash, account jid.JID) Verifier {
	seed := hashes[0].mac(a.secret, h.name, "\x00", account.String())
	return Verifier{
		Mechanism:  h.name,
		Salt:       seed[:saltSize],
		Iterations: a.cfg.Iterations,
		StoredKey:  h.mac(seed[saltSize:], "StoredKey"),
		ServerKey:  h.mac(seed[saltSize:], "ServerKey"),
	}
}
