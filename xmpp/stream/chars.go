package stream

import (
	"bytes"
	"unicode"
	"unicode/utf8"
)

// What a byte may be in each place where the scanner runs over plain bytes. Bytes from 0x80 on are in none: they go through char.
const (
	plainText  uint8 = 1 << iota // character data without '<', '&', '>'
	plainCDATA                   // the inside of a CDATA section without '>'
	plainValue                   // an attribute value without quotes, '<', '&' and the whitespace that is normalised
	nameByte                     // in a name, without ':'
	nameFirst                    // at the start of a name
	space                        // XML 1.0 [3] S
)

// class is the table of the above: XML 1.0 [2] Char, [4] NameStartChar and [4a] NameChar within ASCII.
var class = func() (t [256]uint8) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = plainText | plainCDATA | plainValue
	}
	for _, c := range []byte{'\t', '\n', '\r'} {
		t[c] = plainText | plainCDATA | space
	}
	t[' '] |= space
	t['<'] &^= plainText | plainValue
	t['&'] &^= plainText | plainValue
	t['>'] &^= plainText | plainCDATA
	t['\''] &^= plainValue
	t['"'] &^= plainValue
	for c := 'a'; c <= 'z'; c++ {
		t[c] |= nameByte | nameFirst
		t[c-'a'+'A'] |= nameByte | nameFirst
	}
	for c := '0'; c <= '9'; c++ {
		t[c] |= nameByte
	}
	t['_'] |= nameByte | nameFirst
	t['-'] |= nameByte
	t['.'] |= nameByte
	return t
}()

func isSpace(c byte) bool { return class[c]&space != 0 }

func skipSpace(b []byte, i int) int {
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	return i
}

// char checks the character of two or more bytes at b[i] and returns the index behind it.
func char(b []byte, i int) (int, fault) {
	r, n := utf8.DecodeRune(b[i:])
	if n > 1 && r != 0xFFFE && r != 0xFFFF { // XML 1.0 [2]; Go's decoder is as strict as RFC 3629 §3: no surrogate, no overlong form
		return i + n, none
	}
	if n > 1 {
		return i, notWellFormed
	}
	if !utf8.FullRune(b[i:]) {
		return i, more
	}
	return i, unsupportedEncoding // RFC 6120 §4.9.3.22
}

// name scans a QName (Namespaces in XML [7]) at b[i]. colon is the index of its colon, -1 without one.
func name(b []byte, i int) (end, colon int, f fault) {
	first := i
	colon = -1
	for i < len(b) {
		c := b[i]
		switch {
		case class[c]&nameByte != 0:
			if i == first && class[c]&nameFirst == 0 {
				return i, colon, notWellFormed
			}
			i++
		case c == ':':
			if i == first || colon >= 0 {
				return i, colon, notWellFormed
			}
			colon = i
			i++
			first = i
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && n == 1 {
				_, f := char(b, i)
				return i, colon, f
			}
			if !unicode.Is(nameStart, r) && (i == first || !unicode.Is(nameMore, r)) {
				return i, colon, notWellFormed
			}
			i += n
		default:
			if i == first {
				return i, colon, notWellFormed
			}
			return i, colon, none
		}
	}
	return i, colon, more
}

// maxReference bounds a reference in bytes. chosen: "&#x10FFFF;" has ten; leading zeros need no more than this.
const maxReference = 32

// reference checks the reference at b[i] == '&' and returns the index behind its semicolon.
func reference(b []byte, i int) (int, fault) {
	end := i + 1
	for ; ; end++ {
		switch {
		case end-i > maxReference:
			return i, notWellFormed
		case end == len(b):
			return i, more
		}
		c := b[end]
		if c == ';' {
			break
		}
		if c == '#' && end == i+1 {
			continue
		}
		if class[c]&nameByte == 0 && c != ':' && c < utf8.RuneSelf {
			return i, notWellFormed
		}
	}
	ref := b[i+1 : end]
	if len(ref) > 0 && ref[0] == '#' {
		if _, ok := charReference(ref[1:]); !ok {
			return i, notWellFormed // XML 1.0 §4.1: Legal Character
		}
		return end + 1, none
	}
	if predefined(ref) == 0 {
		if len(ref) == 0 || class[ref[0]]&nameFirst == 0 && ref[0] < utf8.RuneSelf {
			return i, notWellFormed
		}
		return i, restrictedXML // RFC 6120 §11.1: no entity but the predefined ones
	}
	return end + 1, none
}

// predefined is the character of a predefined entity (XML 1.0 §4.6), 0 for any other name.
func predefined(ref []byte) byte {
	switch string(ref) {
	case "amp":
		return '&'
	case "lt":
		return '<'
	case "gt":
		return '>'
	case "apos":
		return '\''
	case "quot":
		return '"'
	}
	return 0
}

// charReference is the character of what stands between "&#" and ";".
func charReference(ref []byte) (rune, bool) {
	base, digits := rune(10), ref
	if len(ref) > 0 && ref[0] == 'x' {
		base, digits = 16, ref[1:]
	}
	if len(digits) == 0 {
		return 0, false
	}
	var r rune
	for _, c := range digits {
		var v rune
		switch {
		case c >= '0' && c <= '9':
			v = rune(c - '0')
		case base == 16 && c >= 'a' && c <= 'f':
			v = rune(c-'a') + 10
		case base == 16 && c >= 'A' && c <= 'F':
			v = rune(c-'A') + 10
		default:
			return 0, false
		}
		if r = r*base + v; r > unicode.MaxRune {
			return 0, false
		}
	}
	return r, r == '\t' || r == '\n' || r == '\r' || r >= 0x20 && r != 0xFFFE && r != 0xFFFF && utf8.ValidRune(r)
}

// appendValue appends the value of an attribute from its validated source (XML 1.0 §2.11, §3.3.3).
func appendValue(dst, src []byte) []byte { return appendDecoded(dst, src, ' ', ' ') }

// appendCharData appends the text of validated character data without CDATA sections (XML 1.0 §2.11).
func appendCharData(dst, src []byte) []byte { return appendDecoded(dst, src, '\t', '\n') }

// appendCDATA appends the text of the inside of a CDATA section (XML 1.0 §2.11).
func appendCDATA(dst, src []byte) []byte {
	for i, c := range src {
		switch {
		case c == '\r':
			dst = append(dst, '\n')
		case c == '\n' && i > 0 && src[i-1] == '\r':
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// appendDecoded resolves references and line ends; tab and newline are what these two become when they are literal.
func appendDecoded(dst, src []byte, tab, newline byte) []byte {
	for i := 0; i < len(src); i++ {
		switch c := src[i]; c {
		case '\r':
			if i+1 < len(src) && src[i+1] == '\n' {
				i++
			}
			dst = append(dst, newline)
		case '\n':
			dst = append(dst, newline)
		case '\t':
			dst = append(dst, tab)
		case '&':
			ref := src[i+1 : i+bytes.IndexByte(src[i:], ';')]
			i += 1 + len(ref)
			if ref[0] == '#' {
				r, _ := charReference(ref[1:])
				dst = utf8.AppendRune(dst, r)
			} else {
				dst = append(dst, predefined(ref))
			}
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
