package stream

import (
	"encoding/xml"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// every calls f for each Unicode scalar value; with the race detector, which is slow and has nothing to find here, for few beyond 0xFFFF.
func every(f func(r rune)) {
	step := rune(1)
	for r := rune(0); r <= unicode.MaxRune; r += step {
		if utf8.ValidRune(r) {
			f(r)
		}
		if raceEnabled && r >= 0x10000 {
			step = 0xFF
		}
	}
}

// XML 1.0 [2].
func isChar(r rune) bool {
	return r == 0x9 || r == 0xA || r == 0xD || r >= 0x20 && r <= 0xD7FF || r >= 0xE000 && r <= 0xFFFD || r >= 0x10000 && r <= 0x10FFFF
}

// XML 1.0, fifth edition, [4] and [4a] without the colon.
func fifthEdition(r rune, first bool) bool {
	in := func(pairs ...rune) bool {
		for i := 0; i < len(pairs); i += 2 {
			if r >= pairs[i] && r <= pairs[i+1] {
				return true
			}
		}
		return false
	}
	if in('A', 'Z', '_', '_', 'a', 'z', 0xC0, 0xD6, 0xD8, 0xF6, 0xF8, 0x2FF, 0x370, 0x37D, 0x37F, 0x1FFF, 0x200C, 0x200D, 0x2070, 0x218F,
		0x2C00, 0x2FEF, 0x3001, 0xD7FF, 0xF900, 0xFDCF, 0xFDF0, 0xFFFD, 0x10000, 0xEFFFF) {
		return true
	}
	return !first && in('-', '-', '.', '.', '0', '9', 0xB7, 0xB7, 0x300, 0x36F, 0x203F, 0x2040)
}

// XML 1.0, fourth edition: the names that encoding/xml takes.
func fourthEdition(name string) bool {
	_, err := xml.NewDecoder(strings.NewReader("<" + name + "/>")).Token()
	return err == nil
}

func TestNameCharacters(t *testing.T) {
	takes := func(s string) bool {
		end, _, f := name([]byte(s+">"), 0)
		return f == none && end == len(s)
	}
	every(func(r rune) {
		if r == ':' {
			return
		}
		for _, first := range []bool{true, false} {
			s := string(r)
			if !first {
				s = "a" + s
			}
			want := fifthEdition(r, first)
			if want && r >= utf8.RuneSelf {
				want = fourthEdition(s)
			}
			if got := takes(s); got != want {
				t.Errorf("%U first=%v: %v, want %v", r, first, got, want)
			}
		}
	})
}

func TestCharacters(t *testing.T) {
	every(func(r rune) {
		want := isChar(r)
		c := string(r)
		if r != '<' && r != '&' {
			if i, f := text([]byte("<>"+c+"<"), 2); (f == none && i == 2+len(c)) != want {
				t.Errorf("%U in text: %v", r, f)
			}
			var a attr
			if i, f := attribute([]byte("a='"+c+"'"), 0, &a); (f == none && i == 4+len(c)) != want && r != '\'' {
				t.Errorf("%U in a value: %v", r, f)
			}
		}
		if i, f := cdataSection([]byte(cdataOpen+c+"]]>"), len(cdataOpen)); (f == none && i == len(cdataOpen)+len(c)+3) != want {
			t.Errorf("%U in CDATA: %v", r, f)
		}
		for _, format := range []string{"&#%d;", "&#x%x;", "&#x%X;", "&#000%d;"} {
			ref := fmt.Sprintf(format, r)
			if i, f := reference([]byte(ref), 0); (f == none && i == len(ref)) != want {
				t.Errorf("%s: %v", ref, f)
			}
			if want && string(appendCharData(nil, []byte(ref))) != c {
				t.Errorf("%s is %q", ref, appendCharData(nil, []byte(ref)))
			}
		}
	})
}

// RFC 3629 §3: every sequence of up to four bytes is taken exactly when Go's decoder takes it for a character of XML.
func TestUTF8(t *testing.T) {
	check := func(b ...byte) {
		r, n := utf8.DecodeRune(b)
		want := n == len(b) && n > 1 && isChar(r)
		if i, f := char(append(b, '<'), 0); (f == none && i == len(b)) != want {
			t.Errorf("% x: %d, %v", b, i, f)
		}
	}
	edges := []byte{0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBD, 0xBE, 0xBF, 0xC0, 0xFF}
	for a := 0x80; a <= 0xFF; a++ {
		check(byte(a))
		for _, b := range edges {
			check(byte(a), b)
			for _, c := range edges {
				check(byte(a), b, c)
				for _, e := range edges {
					check(byte(a), b, c, e)
				}
			}
		}
	}
}

// XML 1.0 §2.11 and §3.3.3.
func TestValues(t *testing.T) {
	for _, tt := range []struct{ in, value, text string }{
		{"a", "a", "a"},
		{"a\r\nb\rc\nd\te", "a b c d e", "a\nb\nc\nd\te"},
		{"\r\n\r\n", "  ", "\n\n"},
		{"\n\r", "  ", "\n\n"},
		{"&#13;&#10;&#9;", "\r\n\t", "\r\n\t"},
		{"&lt;&gt;&amp;&apos;&quot;", `<>&'"`, `<>&'"`},
		{"&#x1F48B;é", "\U0001f48bé", "\U0001f48bé"},
	} {
		if got := string(appendValue(nil, []byte(tt.in))); got != tt.value {
			t.Errorf("%q as value: %q, want %q", tt.in, got, tt.value)
		}
		if got := string(appendCharData(nil, []byte(tt.in))); got != tt.text {
			t.Errorf("%q as text: %q, want %q", tt.in, got, tt.text)
		}
	}
	if got := string(appendCDATA(nil, []byte("a\r\n&amp;\r\r\n\n"))); got != "a\n&amp;\n\n\n" {
		t.Errorf("CDATA: %q", got)
	}
}

func TestIntern(t *testing.T) {
	for _, w := range append([]string{"", "a", "unknown", "urn:x", strings.Repeat("x", 5000)}, words...) {
		if got := intern([]byte(w)); got != w {
			t.Errorf("%q became %q", w, got)
		}
	}
	known := []byte("http://jabber.org/protocol/chatstates")
	if n := testing.AllocsPerRun(100, func() { _ = intern(known) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
