package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"mellium.im/xmpp/jid"
	"pgregory.net/rapid"
)

const testAgent = "d4565fa7-4d72-4749-b3d3-740edbf87770" // XEP-0388 §2.3

var testAccount = jid.MustParse(testUser + "@" + testDomain)

func TestParseUUID(t *testing.T) {
	tests := []struct {
		name, text string
		want       bool
	}{
		{"version 4", testAgent, true},
		{"capitals", strings.ToUpper(testAgent), true},
		{"another version", "d4565fa7-4d72-1749-b3d3-740edbf87770", true},
		{"none", "", false},
		{"without hyphens", strings.ReplaceAll(testAgent, "-", ""), false},
		{"hyphens elsewhere", "d4565fa74-d72-4749-b3d3-740edbf87770", false},
		{"no digits", "g4565fa7-4d72-4749-b3d3-740edbf87770", false},
		{"braces", "{" + testAgent + "}", false},
		{"URN", "urn:uuid:" + testAgent, false},
		{"too long", testAgent + "0", false},
		{"hyphens only", strings.Repeat("-", 36), false},
	}
	for _, tt := range tests {
		id, ok := parseUUID(tt.text)
		if ok != tt.want {
			t.Errorf("%s: %t", tt.name, ok)
		}
		if tt.name == "version 4" || tt.name == "capitals" {
			if hex.EncodeToString(id) != strings.ReplaceAll(testAgent, "-", "") {
				t.Errorf("%s: %x", tt.name, id)
			}
		}
	}
}

func TestClientID(t *testing.T) {
	id := ClientID(testAccount, testAgent)
	// Python: hashlib.sha256(b"balcony client\0user@example.org\0" + uuid.UUID(testAgent).bytes).hexdigest()[:32]
	if id != wantClientID {
		t.Errorf("client %s, want %s", id, wantClientID)
	}
	if got := ClientID(jid.MustParse("user@example.org/balcony"), strings.ToUpper(testAgent)); got != id {
		t.Errorf("another spelling is client %s", got)
	}
	for name, other := range map[string]string{
		"another account":    ClientID(jid.MustParse("juliet@example.org"), testAgent),
		"another domain":     ClientID(jid.MustParse("user@example.com"), testAgent),
		"another user agent": ClientID(testAccount, "d4565fa7-4d72-4749-b3d3-740edbf87771"),
	} {
		if other == id || len(other) != 32 {
			t.Errorf("%s: %q", name, other)
		}
	}
	if got := ClientID(testAccount, "phone"); got != "" {
		t.Errorf("what is no UUID is client %q", got)
	}
}

func TestAgentText(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"as it is", "Kiva's Phone", "Kiva's Phone"},
		{"nothing", "", ""},
		{"not ASCII", "Телефон 電話", "Телефон 電話"},
		{"lines", "\n a\tb \r\n c\u00a0d ", "a b c d"},
		{"escape sequences", "a\x1b[31mb\u009bc\x00\x07", "a[31mbc"},
		{"directions and invisible characters", "a\u202eb\u200bc\u00ad", "abc"},
		{"not UTF-8", "a\xffb", "ab"},
		{"too long", strings.Repeat("a", 200), strings.Repeat("a", 128)},
		{"too long by a part of a character", strings.Repeat("ä", 200) + "x", strings.Repeat("ä", 64)},
		{"cut within a character", "x" + strings.Repeat("ä", 200), "x" + strings.Repeat("ä", 63)},
		{"far too long", strings.Repeat(" ", 1<<20) + "a", ""},
	}
	for _, tt := range tests {
		if got := AgentText(tt.text); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		got := AgentText(rapid.OneOf(rapid.String(), rapid.StringOfN(rapid.Rune(), 100, 300, -1)).Draw(t, "text"))
		if len(got) > maxAgentText || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("%q", got)
		}
	})
}

// Tokens have 256 random bits, and nothing of them is stored in a form that works without the id of the user agent.
func TestStoredTokens(t *testing.T) {
	a, _ := newTest(t)
	seen := map[string]bool{}
	for range 100 {
		token, stored := a.newToken(testAccount, UserAgent{ID: testAgent}, "HT-SHA-256-NONE", a.backoff.start)
		key, err := base64.RawURLEncoding.DecodeString(token.Secret)
		if err != nil || len(key) != 32 || len(stored.Salt) != 32 || len(stored.Sealed) != 32 {
			t.Fatalf("token %q, salt of %d and key of %d bytes", token.Secret, len(stored.Salt), len(stored.Sealed))
		}
		for _, b := range [][]byte{key, stored.Salt, stored.Sealed} {
			if seen[string(b)] {
				t.Fatal("the same bytes twice")
			}
			seen[string(b)] = true
		}
		open := func(agent string, account jid.JID, mechanism string) []byte {
			id, _ := parseUUID(agent)
			p := pad(id, account, mechanism, stored.Salt)
			for i := range p {
				p[i] ^= stored.Sealed[i]
			}
			return p
		}
		if !bytes.Equal(open(testAgent, testAccount, "HT-SHA-256-NONE"), key) {
			t.Fatal("the id of the user agent does not open it")
		}
		for name, other := range map[string][]byte{
			"nothing":           stored.Sealed,
			"no user agent":     open("", testAccount, "HT-SHA-256-NONE"),
			"another":           open("d4565fa7-4d72-4749-b3d3-740edbf87771", testAccount, "HT-SHA-256-NONE"),
			"another account":   open(testAgent, jid.MustParse("juliet@example.org"), "HT-SHA-256-NONE"),
			"another mechanism": open(testAgent, testAccount, "HT-SHA-256-EXPR"),
		} {
			if bytes.Equal(other, key) {
				t.Fatalf("%s opens it", name)
			}
		}
		if strings.Contains(stored.Client, strings.ReplaceAll(testAgent, "-", "")[:8]) {
			t.Fatal("the id of the user agent is stored")
		}
	}
}

// The pad is HKDF (RFC 5869), as another implementation computes it.
func TestPad(t *testing.T) {
	id, _ := parseUUID(testAgent)
	if got := hex.EncodeToString(pad(id, testAccount, "HT-SHA-256-EXPR", bytes.Repeat([]byte{7}, 32))); got != wantPad {
		t.Errorf("pad %s, want %s", got, wantPad)
	}
}

func TestTokensOfNoAccount(t *testing.T) {
	a, _ := newTest(t)
	nobody := jid.MustParse("nobody@example.org")
	if _, err := a.Tokens(t.Context(), nobody); !errors.Is(err, ErrNoAccount) {
		t.Errorf("list: %v", err)
	}
	if _, err := a.RevokeTokens(t.Context(), nobody, ""); !errors.Is(err, ErrNoAccount) {
		t.Errorf("revoke: %v", err)
	}
}

// From Python's hashlib and hmac; HKDF written out as in RFC 5869 §2.
const (
	wantClientID = "9d2749e9b9d4026c5cc2cef124044516"
	wantPad      = "9079930af9492408bfc42f1257a77e6cb7d0b0da6b94c0a43d7254d21af78917"
)

// The part of a resource that a client keeps: the same for the same client, and another one for every other client, account and server.
func TestResourceName(t *testing.T) {
	a, b := New(nil, bytes.Repeat([]byte{1}, 32), DefaultConfig()), New(nil, bytes.Repeat([]byte{2}, 32), DefaultConfig())
	romeo, juliet := jid.MustParse("romeo@localhost"), jid.MustParse("juliet@localhost")
	const id = "d4565fa7-4d72-4749-b3d3-740edbf87770"
	name := a.ResourceName(romeo, id)
	if len(name) != 12 || a.ResourceName(jid.MustParse("romeo@localhost/orchard"), strings.ToUpper(id)) != name {
		t.Errorf("%q, and %q for the same client", name, a.ResourceName(romeo, strings.ToUpper(id)))
	}
	seen := map[string]bool{name: true}
	for i, other := range []string{b.ResourceName(romeo, id), a.ResourceName(juliet, id), a.ResourceName(romeo, "d4565fa7-4d72-4749-b3d3-740edbf87771"), a.ResourceName(romeo, "phone"), a.ResourceName(romeo, "")} {
		if seen[other] || strings.Contains(other, id[:4]) {
			t.Errorf("%d: %q again", i, other)
		}
		seen[other] = true
	}
}
