package upload

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// slot is the right to upload one file. Nothing is stored of it before it is used: the token in the URL says it all, signed.
type slot struct {
	ID      string `json:"i"`
	Account string `json:"a"` // bare JID
	Size    int64  `json:"s"`
	Type    string `json:"t,omitempty"` // empty: the client announced none
	Bucket  Bucket `json:"b,omitempty"`
	Before  int64  `json:"x,omitempty"` // Unix seconds: the file's end, as the client has set it
	Granted int64  `json:"g"`           // Unix microseconds: the slot's beginning
	Expires int64  `json:"e"`           // Unix seconds: the slot's end
}

// idLength is the length of an id: at least 128 bits in base32.
const idLength = 26

// newID is unguessable: whoever knows it may read the file.
func newID() string { return rand.Text() }

// validID reports whether s has the form of an id. Nothing else gets to the database or the disk.
func validID(s string) bool {
	if len(s) != idLength {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'A' || c > 'Z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}

// maxToken bounds a token in bytes. chosen: an account with the longest JID (RFC 7622 §3.1) in base64, and what else is in it.
const maxToken = 8 << 10

var (
	errToken   = errors.New("no slot of this server")
	errExpired = errors.New("the slot has expired")

	base64url = base64.RawURLEncoding
)

// seal makes the token of a slot.
func (m *Module) seal(s slot) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic("upload: " + err.Error()) // strings and numbers
	}
	body := base64url.EncodeToString(b)
	return body + "." + m.sign(body)
}

// open returns the slot that a token is for, if it is one of ours and has not expired.
func (m *Module) open(token string, now time.Time) (s slot, err error) {
	body, mac, ok := strings.Cut(token, ".")
	if !ok || len(token) > maxToken {
		return slot{}, errToken
	}
	// What was signed is compared as it is written: decoding passes over line breaks, and a token has one spelling.
	if !hmac.Equal([]byte(mac), []byte(m.sign(body))) {
		return slot{}, errToken
	}
	b, err := base64url.DecodeString(body)
	if err != nil {
		return slot{}, errToken
	}
	if err := json.Unmarshal(b, &s); err != nil || !validID(s.ID) {
		return slot{}, errToken
	}
	if now.Unix() >= s.Expires {
		return slot{}, errExpired
	}
	return s, nil
}

// sign is the signature of a token's body, in base64. The key is for slots only; the word keeps it apart from whatever else it may ever sign.
func (m *Module) sign(body string) string {
	h := hmac.New(sha256.New, m.key)
	h.Write([]byte("slot\x00" + body))
	return base64url.EncodeToString(h.Sum(nil))
}
