package auth

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// RFC 5802 §7. A first message that is refused for its grammar is refused before anything is looked up.
func TestMalformedClientFirst(t *testing.T) {
	tests := []struct{ name, message string }{
		{"empty", ""},
		{"only a flag", "n"},
		{"no second comma", "n,n=user"},
		{"no gs2-header", "n=user,r=abc"},
		{"unknown flag", "x,,n=user,r=abc"},
		{"upper case flag", "N,,n=user,r=abc"},
		{"empty flag", ",,n=user,r=abc"},
		{"flag with a value", "n=,,n=user,r=abc"},
		{"GS2 flag for non-standard mechanisms", "F,n,,n=user,r=abc"},
		{"security layer of later versions", "q,,n=user,r=abc"},
		{"channel binding without a name", "p=,,n=user,r=abc"},
		{"channel binding without equals sign", "p,,n=user,r=abc"},
		{"channel binding with a bad name", "p=tls_exporter,,n=user,r=abc"},
		{"space before the flag", " n,,n=user,r=abc"},
		{"authzid without a=", "n,user@example.org,n=user,r=abc"},
		{"empty authzid attribute", "n,a=,n=user,r=abc"},
		{"authzid with a bad escape", "n,a=us=er,n=user,r=abc"},
		{"upper case A", "n,A=user@example.org,n=user,r=abc"},
		{"nothing after the header", "n,,"},
		{"no nonce", "n,,n=user"},
		{"no user name", "n,,r=abc"},
		{"nonce before the user name", "n,,r=abc,n=user"},
		{"upper case attribute", "n,,N=user,r=abc"},
		{"empty user name", "n,,n=,r=abc"},
		{"escape of nothing", "n,,n=us=er,r=abc"},
		{"escape at the end", "n,,n=user=,r=abc"},
		{"escape cut short", "n,,n=user=2,r=abc"},
		{"escape of another character", "n,,n=user=20,r=abc"},
		{"lower case escape", "n,,n=user=2c,r=abc"},
		{"double equals sign", "n,,n==3D=,r=abc"},
		{"empty nonce", "n,,n=user,r="},
		{"nonce with a space", "n,,n=user,r=a b"},
		{"nonce that is not ASCII", "n,,n=user,r=é"},
		{"nonce with a control character", "n,,n=user,r=a\x7fb"},
		{"NUL in the user name", "n,,n=us\x00er,r=abc"},
		{"NUL at the end", "n,,n=user,r=abc\x00"},
		{"not UTF-8", "n,,n=us\xffer,r=abc"},
		{"overlong UTF-8", "n,,n=us\xc0\xafer,r=abc"},
		{"surrogate", "n,,n=us\xed\xa0\x80er,r=abc"},
		{"comma at the end", "n,,n=user,r=abc,"},
		{"mandatory extension first", "n,,m=x,n=user,r=abc"},
		{"mandatory extension last", "n,,n=user,r=abc,m=x"},
		{"empty mandatory extension", "n,,m=,n=user,r=abc"},
		{"extension without a value", "n,,n=user,r=abc,x="},
		{"extension without a name", "n,,n=user,r=abc,=x"},
		{"extension with a digit for a name", "n,,n=user,r=abc,1=x"},
		{"extension with a long name", "n,,n=user,r=abc,xy=z"},
		{"extension before the nonce", "n,,n=user,x=y,r=abc"},
		{"second nonce", "n,,n=user,r=abc,r=def"},
		{"second user name", "n,,n=user,r=abc,n=juliet"},
		{"proof too early", "n,,n=user,r=abc,p=AAAA"},
		{"salt of the server", "n,,n=user,r=abc,s=AAAA"},
		{"too long", "n,,n=user,r=" + strings.Repeat("a", maxMessage)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, store := newTest(t)
			e := start(t, a, "SCRAM-SHA-256", secured)
			_, _, err := e.Step(t.Context(), []byte(tt.message), true)
			condition(t, err, "malformed-request")
			if len(store.calls) > 0 {
				t.Errorf("asked the store: %v", store.calls)
			}
			if _, _, err := e.Step(t.Context(), []byte("n,,n=user,r=abc"), true); err == nil {
				t.Error("the exchange went on after its failure")
			}
		})
	}
}

func TestClientFirst(t *testing.T) {
	tests := []struct {
		message string
		want    clientFirst
	}{
		{"n,,n=user,r=abc", clientFirst{header: "n,,", name: "user", nonce: "abc", bare: "n=user,r=abc"}},
		{"y,,n=user,r=abc", clientFirst{header: "y,,", believesNone: true, name: "user", nonce: "abc", bare: "n=user,r=abc"}},
		{"p=tls-server-end-point,a=user@example.org,n=user,r=abc", clientFirst{
			header: "p=tls-server-end-point,a=user@example.org,", binding: "tls-server-end-point", authzid: "user@example.org",
			name: "user", nonce: "abc", bare: "n=user,r=abc",
		}},
		// RFC 5802 §5.1: "=2C" and "=3D", once and not twice.
		{"n,a==3D=2C,n==3D2C=2C=3D,r=a=b", clientFirst{header: "n,a==3D=2C,", authzid: "=,", name: "=2C,=", nonce: "a=b", bare: "n==3D2C=2C=3D,r=a=b"}},
		{"n,,n=жанна,r=!~", clientFirst{header: "n,,", name: "жанна", nonce: "!~", bare: "n=жанна,r=!~"}},
		// RFC 5802 §5.1: unknown optional extensions MUST be ignored, and they are part of what is signed.
		{"n,,n=user,r=abc,x=1,Y=ü==,M=z", clientFirst{header: "n,,", name: "user", nonce: "abc", bare: "n=user,r=abc,x=1,Y=ü==,M=z"}},
	}
	for _, tt := range tests {
		got, err := parseClientFirst(tt.message)
		if err != nil {
			t.Errorf("%q: %v", tt.message, err)
		}
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(clientFirst{})); diff != "" {
			t.Errorf("%q:\n%s", tt.message, diff)
		}
	}
}

// RFC 5802 §7. Each case changes a client-final-message that would be right.
func TestMalformedClientFinal(t *testing.T) {
	cut := func(s, from, to string) string { // replaces what is from the first "from" to before the next comma, or the end
		i := strings.Index(s, from)
		j := strings.IndexByte(s[i:], ',')
		if j < 0 {
			return s[:i] + to
		}
		return s[:i] + to + s[i+j:]
	}
	tests := []struct {
		name, want string
		change     func(string) string
	}{
		{"unchanged", "", func(s string) string { return s }},
		{"extension that is not signed", "not-authorized", func(s string) string { return strings.Replace(s, ",p=", ",x=y,p=", 1) }},

		{"empty", "malformed-request", func(string) string { return "" }},
		{"no proof", "malformed-request", func(s string) string { return s[:strings.Index(s, ",p=")] }},
		{"empty proof", "malformed-request", func(s string) string { return cut(s, "p=", "p=") }},
		{"something after the proof", "malformed-request", func(s string) string { return s + ",x=y" }},
		{"comma after the proof", "malformed-request", func(s string) string { return s + "," }},
		{"newline after the proof", "malformed-request", func(s string) string { return s + "\n" }},
		{"newline in the proof", "malformed-request", func(s string) string { return strings.Replace(s, ",p=", ",p=\n", 1) }},
		{"proof cut short", "malformed-request", func(s string) string {
			return cut(s, "p=", "p="+base64.StdEncoding.EncodeToString(make([]byte, 31)))
		}},
		{"proof with one byte more", "malformed-request", func(s string) string {
			return cut(s, "p=", "p="+base64.StdEncoding.EncodeToString(make([]byte, 33)))
		}},
		{"proof of another hash", "malformed-request", func(s string) string {
			return cut(s, "p=", "p="+base64.StdEncoding.EncodeToString(make([]byte, 20)))
		}},
		{"proof without padding", "malformed-request", func(s string) string { return strings.TrimRight(s, "=") + "A" }},
		{"proof with bits in the padding", "malformed-request", func(s string) string {
			return cut(s, "p=", "p="+strings.Repeat("A", 42)+"B=")
		}},
		{"proof in the alphabet for URLs", "malformed-request", func(s string) string { return cut(s, "p=", "p=-_"+strings.Repeat("A", 41)+"=") }},
		{"no channel binding", "malformed-request", func(s string) string { return s[strings.Index(s, "r="):] }},
		{"empty channel binding", "malformed-request", func(s string) string { return cut(s, "c=", "c=") }},
		{"channel binding that is not base64", "malformed-request", func(s string) string { return cut(s, "c=", "c=biw") }},
		{"nonce before the channel binding", "malformed-request", func(s string) string {
			i := strings.Index(s, ",r=")
			j := strings.Index(s, ",p=")
			return s[i+1:j] + "," + s[:i] + s[j:]
		}},
		{"no nonce", "malformed-request", func(s string) string { return strings.Replace(cut(s, "r=", ""), ",,", ",", 1) }},
		{"empty nonce", "malformed-request", func(s string) string { return cut(s, "r=", "r=") }},
		{"mandatory extension first", "malformed-request", func(s string) string { return "m=x," + s }},
		{"mandatory extension last", "malformed-request", func(s string) string { return strings.Replace(s, ",p=", ",m=x,p=", 1) }},
		{"attribute of SCRAM as an extension", "malformed-request", func(s string) string { return strings.Replace(s, ",p=", ",n=juliet,p=", 1) }},
		{"extension without a value", "malformed-request", func(s string) string { return strings.Replace(s, ",p=", ",x=,p=", 1) }},
		{"NUL", "malformed-request", func(s string) string { return strings.Replace(s, ",p=", ",x=\x00,p=", 1) }},
		{"not UTF-8", "malformed-request", func(s string) string { return strings.Replace(s, ",p=", ",x=\xff,p=", 1) }},
		{"too long", "malformed-request", func(s string) string {
			return strings.Replace(s, ",p=", ",x="+strings.Repeat("y", maxMessage)+",p=", 1)
		}},

		{"proof of zeros", "not-authorized", func(s string) string { return cut(s, "p=", "p="+base64.StdEncoding.EncodeToString(make([]byte, 32))) }},
		{"one bit of the proof", "not-authorized", func(s string) string {
			i := strings.Index(s, "p=") + 2
			c := byte('A')
			if s[i] == 'A' {
				c = 'B'
			}
			return s[:i] + string(c) + s[i+1:]
		}},
		{"channel binding of another flag", "not-authorized", func(s string) string { return cut(s, "c=", "c=eSws") }},
		{"channel binding with more data", "not-authorized", func(s string) string { return cut(s, "c=", "c=biwsAA==") }},
		{"only the client's nonce", "not-authorized", func(s string) string { return cut(s, "r=", "r=fyko+d2lbbFgONRv9qkxdawL") }},
		{"nonce cut short", "not-authorized", func(s string) string {
			i := strings.Index(s, ",p=")
			return s[:i-1] + s[i:]
		}},
		{"nonce with one character more", "not-authorized", func(s string) string { return strings.Replace(s, ",p=", "A,p=", 1) }},
		{"nonce in another case", "not-authorized", func(s string) string { return strings.Replace(s, "r=fyko", "r=Fyko", 1) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, _ := newTest(t)
			e := start(t, a, "SCRAM-SHA-256", secured)
			c := &client{mechanism: "SCRAM-SHA-256", user: testUser, password: testPassword}
			challenge, _, err := e.Step(t.Context(), []byte(c.first()), true)
			condition(t, err, "")
			final, err := c.final(string(challenge))
			if err != nil {
				t.Fatal(err)
			}
			challenge, done, err := e.Step(t.Context(), []byte(tt.change(final)), true)
			condition(t, err, tt.want)
			if done != (tt.want == "") || (challenge != nil) != done {
				t.Errorf("challenge %q, done %t", challenge, done)
			}
			if !done && e.Account().String() != "" {
				t.Errorf("the exchange failed and has the account %s", e.Account())
			}
		})
	}
}

// A message that was answered is not taken again: there is one try for each nonce.
func TestEachNonceIsUsedOnce(t *testing.T) {
	a, _ := newTest(t)
	e := start(t, a, "SCRAM-SHA-256", secured)
	c := &client{mechanism: "SCRAM-SHA-256", user: testUser, password: "wrong"}
	challenge, _, err := e.Step(t.Context(), []byte(c.first()), true)
	condition(t, err, "")
	wrong, err := c.final(string(challenge))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = e.Step(t.Context(), []byte(wrong), true)
	condition(t, err, "not-authorized")
	c.password = testPassword
	right, err := c.final(string(challenge))
	if err != nil {
		t.Fatal(err)
	}
	if _, done, err := e.Step(t.Context(), []byte(right), true); err == nil || done {
		t.Error("second try in one exchange")
	}
	// The recorded message of one exchange is worth nothing in the next.
	e = start(t, a, "SCRAM-SHA-256", secured)
	_, _, err = e.Step(t.Context(), []byte(c.first()), true)
	condition(t, err, "")
	_, _, err = e.Step(t.Context(), []byte(right), true)
	condition(t, err, "not-authorized")
}

// RFC 5802 §9 and our rule: at least 128 bits, fresh each time.
func TestServerNonce(t *testing.T) {
	a, _ := newTest(t)
	seen := make(map[string]bool)
	for range 50 {
		e := start(t, a, "SCRAM-SHA-256", secured)
		challenge, _, err := e.Step(t.Context(), []byte("n,,n=user,r=abc"), true)
		condition(t, err, "")
		nonce, _, _ := strings.Cut(strings.TrimPrefix(string(challenge), "r=abc"), ",")
		if bits := len(nonce) * 6; bits < 128 { // base64
			t.Fatalf("server nonce %q has %d bits", nonce, bits)
		}
		if seen[nonce] {
			t.Fatalf("server nonce %q twice", nonce)
		}
		seen[nonce] = true
	}
}

func TestDecodeBase64(t *testing.T) {
	tests := []struct {
		text, want string
		present    bool
		bad        bool
	}{
		{"", "", false, false},
		{"=", "", true, false}, // RFC 6120 §6.4.2
		{"AGp1bGlldAByMG0zMG15cjBtMzA=", "\x00juliet\x00r0m30myr0m30", true, false},
		{"YQ==", "a", true, false},
		{"YWI=", "ab", true, false},
		{"YWJj", "abc", true, false},
		{"==", "", false, true},
		{"YQ", "", false, true},
		{"YQ=", "", false, true},
		{"YQ===", "", false, true},
		{"YR==", "", false, true}, // RFC 6120 §6.3.5: padding bits are zero
		{"YWJj=", "", false, true},
		{"YWJj\n", "", false, true}, // RFC 4648 §3.1
		{"YW\r\nJj", "", false, true},
		{" YWJj", "", false, true},
		{"YW Jj", "", false, true},
		{"YWJ_", "", false, true},
		{"YWJ-", "", false, true},
		{"YQ==YQ==", "", false, true},
		{"é", "", false, true},
		{"YWJj\x00", "", false, true},
	}
	for _, tt := range tests {
		got, present, err := DecodeBase64(tt.text)
		if tt.bad {
			condition(t, err, "incorrect-encoding")
			continue
		}
		if err != nil || string(got) != tt.want || present != tt.present {
			t.Errorf("%q: %q, %t, %v; want %q, %t", tt.text, got, present, err, tt.want, tt.present)
		}
	}
}

// What a client escapes as RFC 5802 §5.1 says comes out as it was.
func TestNamesSurviveEscaping(t *testing.T) {
	escape := strings.NewReplacer(",", "=2C", "=", "=3D")
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringOfN(rapid.OneOf(rapid.SampledFrom([]rune(",=2CD3a")), rapid.Rune()), 1, 40, -1).Draw(t, "name")
		name = strings.ReplaceAll(name, "\x00", "0")
		f, err := parseClientFirst("n,a=" + escape.Replace(name) + ",n=" + escape.Replace(name) + ",r=abc")
		if err != nil {
			t.Fatal(err)
		}
		if f.name != name || f.authzid != name {
			t.Fatalf("%q became %q and %q", name, f.name, f.authzid)
		}
	})
}
