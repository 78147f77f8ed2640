package auth

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzClientFirst(f *testing.F) {
	for _, s := range []string{
		"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL", "y,a=user@example.org,n=us=2Cer=3D,r=abc,x=y", "p=tls-exporter,,n=user,r=abc",
		"p=tls-server-end-point,a==3D,n=жанна,r=!~,m=x", "n,,m=x,n=user,r=abc", "n,,n=user=,r=", "\x00", "n,,n=\xff,r=abc",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, message string) {
		m, err := parseClientFirst(message)
		if err != nil {
			condition(t, err, "malformed-request")
			return
		}
		if m.header+m.bare != message {
			t.Fatalf("%q is not header %q and rest %q", message, m.header, m.bare)
		}
		// RFC 5802 §7, put together again.
		escape := strings.NewReplacer("=", "=3D", ",", "=2C")
		header := "n,"
		switch {
		case m.binding != "":
			header = "p=" + m.binding + ","
		case m.believesNone:
			header = "y,"
		}
		if m.authzid != "" {
			header += "a=" + escape.Replace(m.authzid)
		}
		if header+"," != m.header {
			t.Fatalf("header %q, put together again %q", m.header, header+",")
		}
		if bare := "n=" + escape.Replace(m.name) + ",r=" + m.nonce; m.bare != bare && !strings.HasPrefix(m.bare, bare+",") {
			t.Fatalf("rest %q, put together again %q", m.bare, bare)
		}
		if m.name == "" || m.nonce == "" || !utf8.ValidString(m.name) || strings.ContainsAny(m.nonce, ", \x00") {
			t.Fatalf("name %q, nonce %q", m.name, m.nonce)
		}
	})
}

func FuzzClientFinal(f *testing.F) {
	for _, s := range []string{
		"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
		"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
		"c=biws,r=abc,x=y,p=AAAA", "m=x,c=biws,r=abc,p=AAAA", "c=,r=,p=", ",,", "c=biws,r=abc,p=v0X8v3Bz2T0CJGbJQyF0X+HI4T\ns=",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, message string) {
		for _, h := range hashes {
			m, err := parseClientFinal(message, h.size)
			if err != nil {
				condition(t, err, "malformed-request")
				continue
			}
			if len(m.proof) != h.size || m.withoutProof+",p="+base64.StdEncoding.EncodeToString(m.proof) != message {
				t.Fatalf("%q is not %q and a proof of %d bytes", message, m.withoutProof, len(m.proof))
			}
			if bare := "c=" + m.binding + ",r=" + m.nonce; m.withoutProof != bare && !strings.HasPrefix(m.withoutProof, bare+",") {
				t.Fatalf("%q, put together again %q", m.withoutProof, bare)
			}
		}
	})
}

func FuzzPlain(f *testing.F) {
	for _, s := range []string{"\x00user\x00pencil", "user@example.org\x00user\x00pencil", "\x00\x00", "\x00user\x00wrong", "a\x00USER\x00pencil", "\x00us\xffer\x00x\x00"} {
		f.Add([]byte(s))
	}
	a, _ := newTest(f)
	a.derive = func(h *scramHash, password string, _ []byte, _ int) ([]byte, error) { // the hash itself is not what is tested
		return h.sum([]byte(password)), nil
	}
	h := hashes[0]
	a.store.(*memory).accounts["user@example.org"].verifiers = []Verifier{h.verifier(h.sum([]byte(testPassword)), []byte("salt"), 1)}
	f.Fuzz(func(t *testing.T, message []byte) {
		a.store.(*memory).calls = nil
		e := start(t, a, "PLAIN", secured)
		challenge, done, err := e.Step(t.Context(), message, true)
		if done != (err == nil) || challenge != nil {
			t.Fatalf("challenge %q, done %t, %v", challenge, done, err)
		}
		parts := strings.Split(string(message), "\x00")
		if done {
			if e.Account().String() != "user@example.org" || len(parts) != 3 {
				t.Fatalf("%q logged in as %s", message, e.Account())
			}
			if prepared, err := preparePassword(parts[2]); err != nil || prepared != testPassword {
				t.Fatalf("%q logged in with the password %q", message, parts[2])
			}
			return
		}
		var failure Failure
		if !errors.As(err, &failure) {
			t.Fatalf("%q: %v", message, err)
		}
		if len(parts) == 3 && len(parts[2]) > 12 && strings.Contains(err.Error(), parts[2]) {
			t.Fatalf("error tells the password: %v", err)
		}
	})
}

func FuzzDecodeBase64(f *testing.F) {
	for _, s := range []string{"", "=", "YQ==", "YWI=", "YWJj", "YR==", "YQ", "Y Q==", "YWJj\n", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		data, present, err := DecodeBase64(text)
		switch {
		case err != nil:
			condition(t, err, "incorrect-encoding")
		case present != (text != ""):
			t.Fatalf("%q: present %t", text, present)
		case text == "=" && len(data) == 0:
		case base64.StdEncoding.EncodeToString(data) != text:
			t.Fatalf("%q is not the one encoding of %q", text, data)
		}
	})
}

// A whole exchange with any two messages: it never panics, and nobody logs in.
func FuzzExchange(f *testing.F) {
	f.Add("SCRAM-SHA-256", "n,,n=user,r=abc", "c=biws,r=abc,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
	f.Add("SCRAM-SHA-1", "y,,n=user,r=abc", "c=eSws,r=abc,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=")
	f.Add("SCRAM-SHA-512", "n,a=user@example.org,n=USER,r=abc", "")
	f.Add("SCRAM-SHA-1-PLUS", "p=tls-exporter,,n=user,r=abc", "")
	a, store := newTest(f)
	f.Fuzz(func(t *testing.T, mechanism, first, final string) {
		store.calls = nil
		e, err := a.Start(t.Context(), testDomain, mechanism, secured, a.Mechanisms(secured))
		if err != nil {
			condition(t, err, "invalid-mechanism")
			return
		}
		if mechanism == "PLAIN" {
			return // FuzzPlain
		}
		if _, done, err := e.Step(t.Context(), []byte(first), true); err != nil || done {
			if done {
				t.Fatal("done after one message")
			}
			return
		}
		if _, done, err := e.Step(t.Context(), []byte(final), true); err == nil || done || e.Account().String() != "" {
			t.Fatalf("logged in as %s", e.Account())
		}
	})
}

// A hashed token in any message: it never panics, and only the right one logs in.
func FuzzInitiator(f *testing.F) {
	a, _ := newTest(f)
	token := issue(f, a, none, secured)
	right := initiator(testUser, token.Secret, nil)
	f.Add(right)
	f.Add(initiator("USER", token.Secret, nil))
	f.Add(initiator("nobody", token.Secret, nil))
	f.Add(initiator(testUser, "", nil))
	f.Add([]byte("user\x00\x00"))
	f.Add([]byte("\x00user"))
	f.Add([]byte("us\xffer\x00x"))
	f.Fuzz(func(t *testing.T, message []byte) {
		a.store.(*memory).calls = nil
		name, proof, err := parseHT(message)
		if err == nil && name+"\x00"+string(proof) != string(message) {
			t.Fatalf("%q is not %q and %q", message, name, proof)
		}
		e := sasl2(t, a, none, secured, Request{Agent: UserAgent{ID: testAgent}, Fast: &Fast{}})
		reply, done, stepErr := e.Step(t.Context(), message, true)
		var failure Failure
		switch {
		case done != (stepErr == nil) || done != (reply != nil) || done != (e.Account().String() != ""):
			t.Fatalf("done %t, %x, %v", done, reply, stepErr)
		case done:
			if string(proof) != string(right[len(testUser)+1:]) || !e.Account().Equal(testAccount) {
				t.Fatalf("%q logged in as %s", message, e.Account())
			}
		case !errors.As(stepErr, &failure):
			t.Fatalf("%q: %v", message, stepErr)
		case err != nil && failure.Condition != malformedRequest:
			t.Fatalf("%q: %v", message, stepErr)
		}
	})
}
