package auth

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/text/secure/precis"
	"pgregory.net/rapid"
)

func TestPreparePassword(t *testing.T) {
	tests := []struct{ name, in, want string }{ // want "": refused
		{"ASCII", "Correct Horse battery-staple 0!~", "Correct Horse battery-staple 0!~"},
		{"spaces are kept", " two  spaces ", " two  spaces "},
		// RFC 4013 §3
		{"RFC 4013 example 1", "I\u00adX", "IX"},
		{"RFC 4013 example 2", "user", "user"},
		{"RFC 4013 example 3", "USER", "USER"},
		{"RFC 4013 example 4", "\u00aa", "a"},
		{"RFC 4013 example 5", "\u2168", "IX"},
		{"RFC 4013 example 6", "\u0007", ""},
		{"RFC 4013 example 7, which RFC 8265 allows", "\u0627\u0031", "\u0627\u0031"},
		// RFC 5802 §3: code points whose NFC and NFKC differ.
		{"vulgar fraction", "\u00bd", "1\u20442"},
		{"acute accent", "\u00b4", " \u0301"},
		// RFC 8265 §4.3
		{"RFC 8265 example 15", "πßå", "πßå"},
		{"RFC 8265 example 16", "Jack of ♦s", "Jack of ♦s"},
		{"RFC 8265 example 17", "foo\u1680bar", "foo bar"},
		{"RFC 8265 example 18", "", ""},
		{"RFC 8265 example 19", "my cat is a \u0009by", ""},
		{"no-break space", "a\u00a0b", "a b"},
		{"decomposed", "e\u0301", "é"},
		{"younger than Unicode 3.2", "🙂", "🙂"},
		{"emoji with a variation selector", "❤\ufe0f", "❤"},
		{"only what is mapped to nothing", "\u00ad\u200d", ""},
		{"NUL", "a\x00", ""},
		{"newline", "a\n", ""},
		{"private use", "a\ue000", ""},
		{"not a character", "a\ufdd0", ""},
		{"tag character", "a\U000e0041", ""},
		{"not UTF-8", "a\xff", ""},
		{"surrogate", "a\xed\xa0\x80", ""},
		{"longest", strings.Repeat("ü", maxPassword/2), strings.Repeat("ü", maxPassword/2)},
		{"too long", strings.Repeat("a", maxPassword+1), ""},
	}
	for _, tt := range tests {
		got, err := preparePassword(tt.in)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s: %q, %v; want %q", tt.name, got, err, tt.want)
		}
		if err != nil && !errors.Is(err, ErrPassword) {
			t.Errorf("%s: %v does not wrap ErrPassword", tt.name, err)
		}
		if err != nil && tt.in != "" && strings.Contains(err.Error(), tt.in) {
			t.Errorf("%s: the error tells the password: %v", tt.name, err)
		}
	}
}

// Clients prepare with SASLprep, with OpaqueString or not at all, and may do so before PLAIN, too: what comes out does not depend on it.
func TestPreparingPasswordsAgain(t *testing.T) {
	character := rapid.OneOf(
		rapid.Rune(),
		rapid.SampledFrom([]rune("aé½²ﬁｕ\u00a0\u0301\u0308\u00b4😀שא1가각\u1100\u1161")),
		rapid.RuneFrom([]rune{'a', 'ü', 'я', 'あ', '가', '漢', 'א'}),
	)
	rapid.Check(t, func(t *rapid.T) {
		password := rapid.StringOfN(character, 1, 20, 200).Draw(t, "password")
		prepared, err := preparePassword(password)
		if err != nil {
			return
		}
		if again, err := preparePassword(prepared); err != nil || again != prepared {
			t.Fatalf("%+q is prepared to %+q, and that to %+q, %v", password, prepared, again, err)
		}
		if opaque, err := precis.OpaqueString.String(prepared); err != nil || opaque != prepared {
			t.Fatalf("%+q is prepared to %+q, which OpaqueString makes %+q, %v", password, prepared, opaque, err)
		}
		if opaque, err := precis.OpaqueString.String(password); err == nil {
			if again, err := preparePassword(opaque); err != nil || again != prepared {
				t.Fatalf("%+q is prepared to %+q, after OpaqueString to %+q, %v", password, prepared, again, err)
			}
		}
	})
}

// A client of either kind logs in with passwords of all living scripts.
func TestLoginsOfAllKindsOfClients(t *testing.T) {
	for _, password := range []string{"pencil", "Bleistift-für-Übermut", "карандаш", "مداد", "עיפרון", "鉛筆", "えんぴつ", "연필", "ดินสอ", "पेंसिल"} {
		a, store := newTest(t)
		verifiers, err := MakeVerifiers(password, MinIterations)
		if err != nil {
			t.Fatalf("%s: %v", password, err)
		}
		store.accounts["user@example.org"].verifiers = verifiers
		opaque, err := precis.OpaqueString.String(password)
		if err != nil {
			t.Fatal(err)
		}
		for _, sent := range []string{password, opaque} {
			condition(t, (&client{mechanism: "SCRAM-SHA-256", user: testUser, password: sent}).run(t, start(t, a, "SCRAM-SHA-256", secured)), "")
			_, _, err := start(t, a, "PLAIN", secured).Step(t.Context(), plainMessage("", testUser, sent), true)
			condition(t, err, "")
		}
	}
	// Compatibility characters: the RFC's clients with SCRAM, all with PLAIN.
	a, store := newTest(t)
	verifiers, err := MakeVerifiers("½ｕ", MinIterations)
	if err != nil {
		t.Fatal(err)
	}
	store.accounts["user@example.org"].verifiers = verifiers
	condition(t, (&client{mechanism: "SCRAM-SHA-1", user: testUser, password: "1\u20442u"}).run(t, start(t, a, "SCRAM-SHA-1", secured)), "")
	for _, sent := range []string{"½ｕ", "1\u20442u"} {
		_, _, err := start(t, a, "PLAIN", secured).Step(t.Context(), plainMessage("", testUser, sent), true)
		condition(t, err, "")
	}
}
