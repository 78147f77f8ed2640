package auth

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"testing"
)

func decode64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The examples of the RFCs, to the byte.
func TestExamplesOfRFCs(t *testing.T) {
	tests := []struct {
		name, mechanism, salt                       string
		nonce                                       string // the server's part
		clientFirst, serverFirst, clientFinal, last string
	}{
		{
			"RFC 5802 §5", "SCRAM-SHA-1", "QSXCR+Q6sek8bf92", "3rfcNHYJY1ZVvWVs7j",
			"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
			"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
			"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
			"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
		},
		{
			"RFC 7677 §3", "SCRAM-SHA-256", "W22ZaJ0SNY7soEsUEjb6gQ==", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
			"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
			"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
			"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
			"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, store := newTest(t)
			h := hashOf(tt.mechanism)
			salt := decode64(t, tt.salt)
			salted, err := deriveKey(h, "pencil", salt, 4096)
			if err != nil {
				t.Fatal(err)
			}
			store.accounts["user@example.org"].verifiers = []Verifier{h.verifier(salted, salt, 4096)}
			e := start(t, a, tt.mechanism, secured)
			e.nonce, e.offer = []byte(tt.nonce), "" // the examples are older than XEP-0474
			challenge, done, err := e.Step(context.Background(), []byte(tt.clientFirst), true)
			if err != nil || done || string(challenge) != tt.serverFirst {
				t.Fatalf("first: %q, %t, %v; want %q", challenge, done, err, tt.serverFirst)
			}
			challenge, done, err = e.Step(context.Background(), []byte(tt.clientFinal), true)
			if err != nil || !done || string(challenge) != tt.last {
				t.Fatalf("final: %q, %t, %v; want %q", challenge, done, err, tt.last)
			}
			if got := e.Account().String(); got != "user@example.org" {
				t.Errorf("account %s", got)
			}
			if got := e.Mechanism(); got != tt.mechanism {
				t.Errorf("mechanism %s", got)
			}
		})
	}
}

// There is no published example of SCRAM-SHA-512. The expected keys come from another implementation: Python's hashlib.pbkdf2_hmac and
// hmac, for the password "pencil", the salt of RFC 7677 §3 and 4096 iterations.
func TestVerifierOfSHA512(t *testing.T) {
	h := hashOf("SCRAM-SHA-512")
	salt := decode64(t, "W22ZaJ0SNY7soEsUEjb6gQ==")
	salted, err := deriveKey(h, "pencil", salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	v := h.verifier(salted, salt, 4096)
	if got := hex.EncodeToString(v.StoredKey); got != storedKeySHA512 {
		t.Errorf("StoredKey %s, want %s", got, storedKeySHA512)
	}
	if got := hex.EncodeToString(v.ServerKey); got != serverKeySHA512 {
		t.Errorf("ServerKey %s, want %s", got, serverKeySHA512)
	}
}

const (
	storedKeySHA512 = "e8002e6f7d3ae446119b216933644dc2a2be7869eb918b8459b5e7d7d2ec12606aceef106825cd735170a675fd3611f684affad1dce3f43a0ee43bd590e1dbbe"
	serverKeySHA512 = "8d91db6230b5687874fe129bc7206e1858c3ae08e02934f57ac03b6b05a229c459d28ff46f5c9611e6c179256490215ec1ff759cb0df285db89af0f99e613aac"
)
