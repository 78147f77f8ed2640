package mam

import (
	"strings"
	"unicode"

	"balcony/xmpp"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// What is looked at of a message and of a query for a full-text search (XEP-0431).
const (
	maxIndexed = 64 << 10 // bytes of a text. chosen: more than people write
	maxWords   = 1000     // different words of a message. chosen: the same
	maxWord    = 32       // letters of a word; of a longer one the first are compared. chosen: words end before, keys and hashes do not
	maxSearch  = 1 << 10  // bytes of a query. chosen: a long sentence
	maxTerms   = 16       // words of a query. chosen: the same
)

// Term is what a search asks of a message: one of its words.
type Term struct {
	Word   string // as Words has them
	Begins bool   // a word that begins with it will do
}

// In reports whether one of the words is the one that is looked for.
func (t Term) In(words []string) bool {
	for _, w := range words {
		if w == t.Word || t.Begins && strings.HasPrefix(w, t.Word) {
			return true
		}
	}
	return false
}

// Terms are the words of a query, each once; ok is false when there is none, or more than a query may have.
func Terms(text string) (terms []Term, ok bool) {
	if len(text) > maxSearch {
		return nil, false
	}
	seen := make(map[Term]bool)
	split(text, func(word string, begins bool) bool {
		t := Term{Word: word, Begins: begins}
		if !seen[t] {
			seen[t] = true
			terms = append(terms, t)
		}
		return len(terms) <= maxTerms
	}, true)
	return terms, len(terms) > 0 && len(terms) <= maxTerms
}

// Words are the different words by which a message is found: of its bodies and subjects, in the order of the text, none with a character that is no
// letter, digit, mark or symbol. An encrypted message has none: its body is a text for clients that cannot read it.
func Words(s *xmpp.Stanza) (words []string) {
	fallback := false
	for _, c := range s.Spans() {
		switch c.Space {
		case "urn:xmpp:omemo:2", "eu.siacs.conversations.axolotl", "urn:xmpp:openpgp:0", "jabber:x:encrypted", "urn:xmpp:eme:0": // XEP-0384, XEP-0373, XEP-0027, XEP-0380
			return nil
		}
		fallback = fallback || c.Space == nsFallback
	}
	var instead map[string]bool
	if fallback {
		instead = fallbacks(s)
	}
	seen := make(map[string]bool)
	for _, c := range s.Children() {
		if c.Space != "" || c.Local != "body" && c.Local != "subject" || instead[c.Local] {
			continue
		}
		text := c.Text()
		if strings.HasPrefix(text, "?OTR") { // XEP-0364
			continue
		}
		if len(text) > maxIndexed {
			text = strings.ToValidUTF8(text[:maxIndexed], "") // not half a letter
		}
		split(text, func(word string, _ bool) bool {
			if !seen[word] {
				seen[word] = true
				words = append(words, word)
			}
			return len(words) < maxWords
		}, false)
	}
	return words
}

const nsFallback = "urn:xmpp:fallback:0" // XEP-0428

// fallbacks are the texts of a message that stand as a whole for something that old clients do not know: XEP-0428 §2.
func fallbacks(s *xmpp.Stanza) map[string]bool {
	instead := make(map[string]bool)
	for _, c := range s.Children() {
		if c.Space != nsFallback || c.Local != "fallback" {
			continue
		}
		var f struct {
			Bodies []struct {
				Start *string `xml:"start,attr"`
			} `xml:"urn:xmpp:fallback:0 body"`
			Subjects []struct {
				Start *string `xml:"start,attr"`
			} `xml:"urn:xmpp:fallback:0 subject"`
		}
		if c.Decode(&f) != nil {
			continue
		}
		if len(f.Bodies)+len(f.Subjects) == 0 {
			instead["body"], instead["subject"] = true, true
		}
		for _, p := range f.Bodies {
			instead["body"] = instead["body"] || p.Start == nil
		}
		for _, p := range f.Subjects {
			instead["subject"] = instead["subject"] || p.Start == nil
		}
	}
	return instead
}

// split calls each for the words of a text until it returns false. Case, accents and forms of letters that mean the same make no difference. Scripts that
// write no spaces have a word for every two letters that stand together, and for the last of them alone; a query has the latter only where there is no other.
// A symbol, such as an emoji, is a word. begins reports whether a longer word may be meant: everything but words of one or two letters.
func split(text string, each func(word string, begins bool) bool, query bool) {
	run := make([]rune, 0, maxWord) // the word so far
	dense := false                  // it is of a script without spaces
	end := func() bool {
		if len(run) == 0 {
			return true
		}
		w := run
		run = run[:0]
		if !dense {
			return each(string(w[:min(len(w), maxWord)]), len(w) > 2 || w[0] >= broad)
		}
		for i := range len(w) - 1 {
			if !each(string(w[i:i+2]), false) {
				return false
			}
		}
		if query && len(w) > 1 {
			return true
		}
		return each(string(w[len(w)-1:]), true)
	}
	for _, r := range fold(text) {
		switch {
		case unicode.In(r, unicode.Letter, unicode.Number, unicode.Mark):
			d := unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar)
			if len(run) > 0 && d != dense && !unicode.Is(unicode.Mark, r) && !end() {
				return
			}
			if len(run) == 0 {
				dense = d
			}
			if dense || len(run) < maxWord {
				run = append(run, r)
			}
		case unicode.Is(unicode.So, r):
			if !end() || !each(string(r), false) {
				return
			}
		default:
			if !end() {
				return
			}
		}
	}
	end()
}

// broad is the first character of the scripts of which one letter is mostly a syllable or a word. chosen: Thai, and what follows it in Unicode.
const broad = 0x0e00

// fold makes texts equal that differ in case, in accents, or in forms of the same letters.
func fold(text string) string {
	ascii := true
	for i := range len(text) {
		ascii = ascii && text[i] < 0x80
	}
	if ascii {
		return strings.ToLower(text)
	}
	text = cases.Fold().String(norm.NFKD.String(text))
	text = strings.Map(func(r rune) rune {
		// Accents; points of Hebrew and Arabic, which are mostly left out; what joins emoji. Other marks are vowels.
		switch {
		case r >= 0x0300 && r <= 0x036f, r >= 0x0591 && r <= 0x05c7, r >= 0x064b && r <= 0x065f, r == 0x0670, r == 0x0640, r >= 0xfe00 && r <= 0xfe0f, r == 0x200d:
			return -1
		}
		return r
	}, text)
	return norm.NFKC.String(text)
}
