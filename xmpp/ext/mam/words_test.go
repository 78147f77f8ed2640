package mam_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"balcony/xmpp"
	"balcony/xmpp/ext/mam"
	"balcony/xmpp/stream"
)

func parse(t testing.TB, payload string) *xmpp.Stanza {
	t.Helper()
	s, err := stream.Parse([]byte("<message>"+payload+"</message>"), stream.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What of a message is found, and what is not: nothing of an encrypted one, nor what stands there for clients that know no better (XEP-0428).
func TestWords(t *testing.T) {
	for _, c := range []struct{ payload, want string }{
		{"", ""},
		{"<body/>", ""},
		{"<body>Wherefore art thou, wherefore?</body>", "wherefore art thou"},
		{"<body>one</body><body xml:lang='de'>eins</body><subject>Zahl</subject>", "one eins zahl"},
		{"<body>a &amp; b&#x301; <![CDATA[<c>]]></body>", "a b c"},
		{"<body>Ångström’s naïve ﬁle №5</body>", "angstrom s naive file no5"},
		{"<body>Ελλάδος ΟΔΌΣ</body>", "ελλαδοσ οδοσ"},
		{"<body>شُكْرًا</body>", "شكرا"},
		{"<body>日本語の本</body>", "日本 本語 語の の本 本"},
		{"<body>本</body>", "本"},
		{"<body>XMPP協議v2</body>", "xmpp 協議 議 v2"},
		{"<body>한국어 학교에서</body>", "한국어 학교에서"},
		{"<body>ok👍🏽👍</body>", "ok 👍"},
		{"<body>x_y-z.example@host</body>", "x y z example host"},
		{"<body>" + strings.Repeat("long", 100) + " end</body>", strings.Repeat("long", 8) + " end"},
		{"<body>?OTRv2? secret</body>", ""},
		{"<x xmlns='urn:x'><body>inside</body></x>", ""},
		{"<body>OMEMO fallback</body><encrypted xmlns='eu.siacs.conversations.axolotl'/>", ""},
		{"<encrypted xmlns='urn:xmpp:omemo:2'/><body>OMEMO fallback</body>", ""},
		{"<body>fallback</body><openpgp xmlns='urn:xmpp:openpgp:0'>x</openpgp>", ""},
		{"<body>fallback</body><x xmlns='jabber:x:encrypted'>x</x>", ""},
		{"<body>fallback</body><encryption xmlns='urn:xmpp:eme:0' namespace='urn:x'/>", ""},
		{"<body>/me retracted</body><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:message-retract:1'/>", ""},
		{"<body>fallback</body><subject>real</subject><fallback xmlns='urn:xmpp:fallback:0' for='urn:x'><body/></fallback>", "real"},
		{"<body>real</body><subject>fallback</subject><fallback xmlns='urn:xmpp:fallback:0' for='urn:x'><subject/></fallback>", "real"},
		{"<body>&gt; quoted\nreal</body><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='9'/></fallback>", "quoted real"},
	} {
		if got := strings.Join(mam.Words(parse(t, c.payload)), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.payload, got, c.want)
		}
	}
	var many strings.Builder
	for i := range 5000 {
		fmt.Fprint(&many, i, " ")
	}
	if n := len(mam.Words(parse(t, "<body>"+many.String()+"</body>"))); n != 1000 {
		t.Errorf("%d words of a long message", n)
	}
}

// What a query asks for: every word of it, short ones as they are and others also as the beginning of a word.
func TestTerms(t *testing.T) {
	for _, c := range []struct {
		text, want string
		bad        bool
	}{
		{text: "Rose", want: "rose*"},
		{text: "a by any", want: "a by any*"},
		{text: "rose ROSE rosé", want: "rose*"},
		{text: "名前", want: "名前"},
		{text: "名", want: "名*"},
		{text: "日本語", want: "日本 本語"},
		{text: "학교", want: "학교*"},
		{text: "👍", want: "👍"},
		{text: `"rose" AND (juliet OR *) NEAR/2 -x`, want: "rose* and* juliet* or near* 2 x"},
		{text: "", bad: true},
		{text: " \n", bad: true},
		{text: "?!*\"'", bad: true},
		{text: strings.Repeat("a", 1025), bad: true},
		{text: "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", want: "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16"},
		{text: "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17", bad: true},
	} {
		terms, ok := mam.Terms(c.text)
		var got []string
		for _, one := range terms {
			w := one.Word
			if one.Begins {
				w += "*"
			}
			got = append(got, w)
		}
		if ok == c.bad || ok && strings.Join(got, " ") != c.want {
			t.Errorf("%q: %q, %t", c.text, got, ok)
		}
	}
}

// Whatever is written: words have no character that means something to a database, and a message is found by its own text.
func FuzzWords(f *testing.F) {
	for _, s := range []string{"Hello, world", "日本語 한국어 ไทย", "e\u0301 \u0301 _'\"*:", "\ufdfa ﷺ 👨‍👩‍👧 🇩🇪", "ß ẞ İ ı", "a\u0e33b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := stream.Parse(xmpp.El("", "message").Add(xmpp.El("", "body").Say(text)).AppendTo(nil, ""), stream.DefaultLimits())
		if err != nil {
			return // no text of XML
		}
		words := mam.Words(s)
		for i, w := range words {
			if w == "" || !utf8.ValidString(w) || slices.Contains(words[:i], w) {
				t.Fatalf("word %q of %q", w, text)
			}
			for _, r := range w {
				if !unicode.In(r, unicode.Letter, unicode.Number, unicode.Mark, unicode.So) {
					t.Fatalf("word %q of %q has %U", w, text, r)
				}
			}
		}
		terms, ok := mam.Terms(text)
		if strings.HasPrefix(text, "?OTR") || !ok || !utf8.ValidString(text) {
			return
		}
		for _, one := range terms {
			if !one.In(words) {
				t.Fatalf("%q is not found by its %q: %q", text, one.Word, words)
			}
		}
	})
}
