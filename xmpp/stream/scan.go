package stream

import (
	"unicode/utf8"
)

// The scanner works on the bytes of one top-level element at a time, with offsets from its first byte, and in one pass: text is taken
// up to where the bytes end; a tag is parsed as a whole. A tag that is not complete yet is not parsed again and again as it drips in:
// seekEnd remembers how far its end was looked for, so the cost stays linear in the bytes for any chunking. The outcome depends on the
// bytes alone: a mistake in a tag is reported when the tag has ended.

// attr is an attribute of a start tag.
type attr struct {
	lo, colon, hi int32 // its name; colon is -1 without a prefix
	vlo, vhi      int32 // the source of its value
	ns            int32 // id of the prefix's namespace
	cooked        bool  // the value differs from its source: references, or whitespace to normalise
}

// elem is an element whose end tag is still to come.
type elem struct {
	lo, hi  int32 // its name in the start tag
	binds   int32 // how many bindings its parent has
	content bool  // in the content namespace by inheritance from the stanza
}

// kid is a direct child of a stanza.
type kid struct {
	lo, hi   int32 // the whole element
	nlo, nhi int32 // its local name
	ns       nsRef
}

// span is a range of bytes of the current element.
type span struct{ lo, hi int32 }

// scanner is what scanning an element needs. A decoder has one only while it has bytes: an idle stream holds none.
type scanner struct {
	buffer

	pos   int    // scanned so far
	seek  int    // beyond pos: how far the end of the tag at pos was looked for
	quote byte   // the quote that is open at seek, or 0
	cdata bool   // pos is inside a CDATA section
	max   Limits // of this element

	kind     EventKind
	root     elem
	rootNS   nsRef  // nsContent stands for the default namespace of the header
	attrs    []attr // of the top-level element up to rootEnd, then those of the tag that is being parsed
	rootEnd  int
	inner    span // between start and end tag of the top-level element
	open     []elem
	binds    []bind
	kids     []kid
	children int
	cuts     []span // declarations in the payload that say what holds anyway
	used     uint32 // the header's bindings that the element needs, a bit each
}

// begin forgets the element that was scanned last, whose n bytes are consumed.
func (s *scanner) begin(n int) {
	s.off += n
	s.pos, s.seek, s.quote, s.cdata, s.kind = 0, 0, 0, false, 0
	s.attrs, s.open, s.binds, s.kids, s.cuts = s.attrs[:0], s.open[:0], s.binds[:0], s.kids[:0], s.cuts[:0]
	s.rootEnd, s.children, s.used, s.inner = 0, 0, 0, span{}
}

// scan goes on with the top-level element that begins at b[0]. When it returns none the element, the stream header or the end of the
// stream is complete: s.kind says which, and s.pos is its length.
func (d *Decoder) scan(b []byte) fault {
	s := d.s
	if s.seek > s.pos && !s.seekEnd(b) {
		return more
	}
	i, f := s.pos, none
	for {
		if len(s.open) > 0 {
			if s.cdata {
				i, f = cdataSection(b, i)
				s.cdata = f != none
			}
			if f == none {
				i, f = text(b, i)
			}
			if f != none {
				s.pos = i
				return f
			}
		}
		if i+1 >= len(b) {
			s.pos = i
			return more
		}
		end := i
		switch b[i+1] {
		case '/':
			end, f = d.endTag(b, i)
		case '!':
			s.pos = i
			if f = cdataStart(b, i, d.state == opened && len(s.open) == 0); f != none {
				return f
			}
			if len(s.open) == 0 {
				return notWellFormed
			}
			i += len(cdataOpen)
			s.cdata = true
			continue
		case '?':
			s.pos = i
			return restrictedXML // RFC 6120 §11.1: no processing instructions
		default:
			end, f = d.startTag(b, i)
		}
		if f != none {
			s.pos = i
			if s.seek <= i {
				s.seek, s.quote = i+1, 0
			}
			if !s.seekEnd(b) {
				return more
			}
			if f == more {
				f = notWellFormed
			}
			return f
		}
		i = end
		if len(s.open) == 0 {
			s.pos = i
			return none
		}
	}
}

// seekEnd looks for the end of the tag at pos from where it stopped looking.
func (s *scanner) seekEnd(b []byte) (found bool) {
	s.seek, s.quote, found = tagEnd(b, s.seek, s.quote)
	return found
}

// tagEnd is the index of the '>' of a tag, looked for from b[i] on, inside of quote if that is not 0. A '<' ends a tag too: it cannot be
// well-formed then. When there is none yet, i and quote are where to go on.
func tagEnd(b []byte, i int, quote byte) (int, byte, bool) {
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case c == '<':
			return i, quote, true
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '>':
			return i, quote, true
		case c == '\'' || c == '"':
			quote = c
		}
	}
	return i, quote, false
}

// text runs over character data from b[i] to the next '<'.
func text(b []byte, i int) (int, fault) {
	for {
		for i < len(b) && class[b[i]]&plainText != 0 {
			i++
		}
		if i >= len(b) {
			return i, more
		}
		f := none
		switch c := b[i]; {
		case c == '<':
			return i, none
		case c >= utf8.RuneSelf:
			i, f = char(b, i)
		case c == '&':
			i, f = reference(b, i)
		case c == '>' && !(b[i-1] == ']' && b[i-2] == ']'): // XML 1.0 §2.4: no "]]>"; a tag is before any text
			i++
		default:
			f = notWellFormed
		}
		if f != none {
			return i, f
		}
	}
}

const cdataOpen = "<![CDATA["

// cdataStart checks that b[i:] begins a CDATA section, the only thing that begins with "<!" and is allowed (RFC 6120 §11.1).
func cdataStart(b []byte, i int, between bool) fault {
	n := min(len(b)-i, len(cdataOpen))
	switch {
	case string(b[i:i+n]) != cdataOpen[:n]:
		return restrictedXML
	case n < len(cdataOpen):
		return more
	case between:
		return badFormat // character data between stanzas
	}
	return none
}

// cdataSection runs over the inside of a CDATA section to behind its end.
func cdataSection(b []byte, i int) (int, fault) {
	for {
		for i < len(b) && class[b[i]]&plainCDATA != 0 {
			i++
		}
		if i >= len(b) {
			return i, more
		}
		switch c := b[i]; {
		case c == '>':
			i++
			if b[i-2] == ']' && b[i-3] == ']' { // the opening ends in "A["
				return i, none
			}
		case c >= utf8.RuneSelf:
			var f fault
			if i, f = char(b, i); f != none {
				return i, f
			}
		default:
			return i, notWellFormed
		}
	}
}

// startTag parses the start tag at b[i] == '<' and returns the index behind it.
func (d *Decoder) startTag(b []byte, i int) (int, fault) {
	s := d.s
	start := i
	end, colon, f := name(b, i+1)
	if f != none {
		return i, f
	}
	e := elem{lo: int32(i + 1), hi: int32(end), binds: int32(len(s.binds))}
	qualified := colon >= 0 // a namespace is declared or used
	s.attrs = s.attrs[:s.rootEnd]
	i = end
	empty := false
	for {
		spaced := i < len(b) && isSpace(b[i])
		if spaced {
			i = skipSpace(b, i+1)
		}
		if i >= len(b) {
			return i, more
		}
		if b[i] == '>' {
			i++
			break
		}
		if b[i] == '/' {
			if i+1 >= len(b) {
				return i, more
			}
			if b[i+1] != '>' {
				return i, notWellFormed
			}
			i += 2
			empty = true
			break
		}
		if !spaced {
			return i, notWellFormed
		}
		if len(s.attrs)-s.rootEnd >= s.max.Attributes {
			return i, tooManyAttributes
		}
		s.attrs = append(s.attrs, attr{})
		a := &s.attrs[len(s.attrs)-1]
		if i, f = attribute(b, i, a); f != none {
			return i, f
		}
		if a.colon >= 0 || a.hi-a.lo == 5 && string(b[a.lo:a.hi]) == "xmlns" {
			qualified = true
		}
	}
	if f = s.unique(b); f != none {
		return start, f
	}
	if f = d.enter(b, start, colon, qualified, e, empty); f != none {
		return start, f
	}
	if empty {
		d.leave(i, i)
	} else if len(s.open) == 1 {
		s.inner = span{int32(i), int32(i)}
	}
	return i, none
}

// attribute parses the attribute at b[i] and returns the index behind its closing quote.
func attribute(b []byte, i int, a *attr) (int, fault) {
	end, colon, f := name(b, i)
	if f != none {
		return i, f
	}
	a.lo, a.colon, a.hi = int32(i), int32(colon), int32(end)
	i = skipSpace(b, end)
	if i >= len(b) {
		return i, more
	}
	if b[i] != '=' {
		return i, notWellFormed
	}
	i = skipSpace(b, i+1)
	if i >= len(b) {
		return i, more
	}
	quote := b[i]
	if quote != '\'' && quote != '"' {
		return i, notWellFormed
	}
	i++
	a.vlo = int32(i)
	for {
		for i < len(b) && class[b[i]]&plainValue != 0 {
			i++
		}
		if i >= len(b) {
			return i, more
		}
		switch c := b[i]; {
		case c == quote:
			a.vhi = int32(i)
			return i + 1, none
		case c == '\'' || c == '"':
			i++
		case c == '&':
			a.cooked = true
			i, f = reference(b, i)
		case c >= utf8.RuneSelf:
			i, f = char(b, i)
		case isSpace(c):
			a.cooked = true
			i++
		default:
			f = notWellFormed // XML 1.0 §3.1: No < in Attribute Values; §2.2: Char
		}
		if f != none {
			return i, f
		}
	}
}

// unique checks that no attribute name of the tag comes twice (XML 1.0 §3.1: Unique Att Spec).
func (s *scanner) unique(b []byte) fault {
	attrs := s.attrs[s.rootEnd:]
	for i := 1; i < len(attrs); i++ {
		a := &attrs[i]
		for j := range attrs[:i] {
			if c := &attrs[j]; c.hi-c.lo == a.hi-a.lo && string(b[c.lo:c.hi]) == string(b[a.lo:a.hi]) {
				return notWellFormed
			}
		}
	}
	return none
}

// endTag checks the end tag at b[i] against the open element, or against the stream when none is open.
func (d *Decoder) endTag(b []byte, i int) (int, fault) {
	s := d.s
	want := d.name
	if n := len(s.open); n > 0 {
		want = b[s.open[n-1].lo:s.open[n-1].hi]
	} else if d.state != opened {
		return i, notWellFormed
	}
	end := i + 2 + len(want)
	if end >= len(b) {
		return i, more
	}
	if string(b[i+2:end]) != string(want) {
		return i, notWellFormed // XML 1.0 §3: Element Type Match
	}
	if b[end] != '>' {
		if end = skipSpace(b, end); end >= len(b) {
			return i, more
		}
		if b[end] != '>' {
			return i, notWellFormed
		}
	}
	if len(s.open) == 0 {
		s.kind = Close
		return end + 1, none
	}
	d.leave(i, end+1)
	return end + 1, none
}

// leave closes the innermost element, whose end tag is b[tag:end].
func (d *Decoder) leave(tag, end int) {
	s := d.s
	n := len(s.open) - 1
	if n < 0 { // the stream header: the stream is no element to wait for
		return
	}
	s.binds = s.binds[:s.open[n].binds]
	s.open = s.open[:n]
	switch n {
	case 0:
		s.inner.hi = max(s.inner.lo, int32(tag))
		if s.inner.lo == 0 { // an empty tag
			s.inner = span{int32(end), int32(end)}
		}
	case 1:
		if s.kind == Stanzas {
			s.kids[len(s.kids)-1].hi = int32(end)
		}
	}
}
