// Package stream turns bytes into stanzas and back: the validating scanner, its limits, stream headers, features and errors (RFC 6120
// §4, §8, §11). It does no I/O.
package stream

import (
	"bytes"
	"errors"
	"math"

	streamerr "mellium.im/xmpp/stream"

	"balcony/xmpp"
)

// ErrMore is what Next returns when it needs more bytes.
var ErrMore = errors.New("stream: more bytes needed")

// Header is a stream header (RFC 6120 §4.7), its addresses as strings that were not parsed yet.
type Header struct {
	To, From, ID, Version, Lang string

	Content string // content namespace: jabber:client, jabber:server or jabber:component:accept
	Prefix  string // of the stream element: "stream", or "" when its namespace is the default one (RFC 6120 §4.8.2)
}

// EventKind is the kind of an Event.
type EventKind uint8

// The events of a stream.
const (
	Open    EventKind = iota + 1 // Header is set
	Stanzas                      // Stanza is set
	Nonzas                       // Element is set: a nonza, or a first-level child that is no stanza in the content namespace
	Close                        // the peer closed its stream; what follows is ignored
)

// Event is what Next found.
type Event struct {
	Kind    EventKind
	Header  *Header
	Stanza  *xmpp.Stanza
	Element *Nonza

	// A stanza whose to or from is no JID has the zero JID there, and here what was sent: RFC 6120 §8.3.3.8 wants jid-malformed.
	BadTo, BadFrom bool
	RawTo, RawFrom string // set only with BadTo, BadFrom
}

// state is how far a stream has come.
type state uint8

const (
	prolog state = iota // before its header
	opened
	closed
)

// Where an XML declaration is allowed (XML 1.0 §2.8).
type declared uint8

const (
	atStart   declared = iota // as the very first thing
	atRestart                 // also behind whitespace, which belongs to the stream before (RFC 6120 §11.7)
	notNow
)

// Decoder decodes one direction of a stream. It is incremental: the same bytes give the same events and errors in any pieces. While it
// holds no bytes of an unfinished element it holds no buffer. It is not safe for use by more than one goroutine at a time. Its errors are
// stream errors (mellium.im/xmpp/stream.Error):
//
//   - not-well-formed: XML 1.0 and Namespaces in XML are violated (RFC 6120 §4.9.3.13, §11.3)
//   - restricted-xml: a comment, processing instruction, document type declaration or entity reference (§4.9.3.18, §11.1)
//   - unsupported-encoding: no UTF-8 (§4.9.3.22, §11.6)
//   - invalid-namespace: of the stream or its content (§4.9.3.10, §4.8.1, §4.8.3)
//   - bad-namespace-prefix: a stream prefix other than "stream", or a prefix for the content namespace (§4.9.3.2, §4.8.5)
//   - bad-format: character data between stanzas, a root that is not <stream/> (§4.9.3.1)
//   - policy-violation: a limit (§4.9.3.14)
//
// What RFC 6120 leaves to the meaning of a well-formed element is the caller's: unsupported-stanza-type, not-authorized, invalid-xml …
type Decoder struct {
	content string // the content namespace that this stream must have
	limits  Limits
	state   state
	decl    declared
	err     error
	single  bool // ParseElement: nothing but one element, with any namespace
	body    bool // ParseBody: the header is <body/>

	selfClosed bool         // the header was an empty tag
	name       []byte       // of the stream element, as its end tag must have it
	def        []byte       // the default namespace of the header; nil without one
	header     []headerBind // the header's prefixes

	s    *scanner // nil while no bytes are held
	jids jidCache
}

// NewDecoder makes a decoder for a stream of that content namespace (RFC 6120 §4.8.2).
func NewDecoder(content string, l Limits) *Decoder { return &Decoder{content: content, limits: l} }

// SetLimits changes the limits from the next top-level element on.
func (d *Decoder) SetLimits(l Limits) { d.limits = l }

// Reset makes the decoder expect a new stream header, as after SASL (RFC 6120 §4.3.3, §6.4.6). Buffered bytes are kept. Call it only
// between two events. A decoder that has failed stays failed.
func (d *Decoder) Reset() {
	d.state, d.decl, d.selfClosed = prolog, atRestart, false
	d.name, d.def, d.header = nil, nil, nil
}

// Opened reports whether the current stream's header was read: an error before that is sent only after an own header (RFC 6120
// §4.9.1.2).
func (d *Decoder) Opened() bool { return d.state != prolog }

// Buffered is the number of bytes that were fed and are not part of an event that Next has returned. When it is not 0 after <starttls/>,
// the peer sent plaintext that must not be taken for something said inside of TLS (RFC 6120 §5.3.3).
func (d *Decoder) Buffered() int {
	if d.s == nil {
		return 0
	}
	return len(d.s.rest())
}

// Feed gives bytes to the decoder, which copies them: p may be reused at once. What it holds is bounded by Limits.Bytes and by what was
// fed since Next returned ErrMore.
func (d *Decoder) Feed(p []byte) {
	if d.err != nil || d.state == closed {
		return
	}
	if d.s == nil {
		if d.state == opened {
			p = p[skipSpace(p, 0):] // RFC 6120 §4.6.1: a whitespace keepalive, which costs nothing
		}
		if len(p) == 0 {
			return
		}
		d.s = scanners.Get().(*scanner)
	}
	d.s.add(p)
}

// Next returns the next event, ErrMore when more bytes are needed, or a stream error, after which it returns only that error.
func (d *Decoder) Next() (Event, error) {
	if d.err != nil {
		return Event{}, d.err
	}
	switch f := d.frame(); f {
	case none:
		ev := d.event()
		d.s.begin(d.s.pos)
		return ev, nil
	case more:
		d.settle()
		return Event{}, ErrMore
	default:
		d.err = f.err()
		d.s.release()
		d.s = nil
		return Event{}, d.err
	}
}

// settle is called when all complete elements are consumed: it gives back what the rest does not need.
func (d *Decoder) settle() {
	switch {
	case d.s == nil:
	case d.state == closed || len(d.s.rest()) == 0:
		d.s.release()
		d.s = nil
	case d.s.off > 0:
		d.s.move(len(d.s.rest()))
	}
}

// frame finds the next complete top-level element, stream header or end of the stream: none and d.s.kind, with d.s.pos as its length.
func (d *Decoder) frame() fault {
	s := d.s
	if d.selfClosed { // Next has returned the header just now, so there is a scanner
		d.selfClosed = false
		s.kind = Close
		return none
	}
	if s == nil || d.state == closed {
		return more
	}
	if s.pos == 0 && s.seek == 0 {
		if f := d.between(); f != none {
			return f
		}
		s.max = d.limits
		s.max.Bytes = min(s.max.Bytes, math.MaxInt32) // offsets in an element are int32
	}
	b := s.rest()
	clipped := len(b) >= s.max.Bytes
	if clipped {
		b = b[:s.max.Bytes]
	}
	f := d.scan(b)
	if f == more && clipped {
		return tooManyBytes
	}
	return f
}

// between skips what may stand before an element and checks that one begins.
func (d *Decoder) between() fault {
	s := d.s
	if d.state == prolog && d.decl != notNow {
		if d.decl == atRestart {
			s.off += skipSpace(s.rest(), 0)
		}
		n, f := declaration(s.rest())
		if f != none {
			return f
		}
		d.decl = notNow
		s.off += n
	}
	s.off += skipSpace(s.rest(), 0) // RFC 6120 §11.7
	b := s.rest()
	if len(b) == 0 {
		return more
	}
	if b[0] == '<' {
		return none
	}
	f := none
	if b[0] >= 0x80 {
		_, f = char(b, 0)
	}
	switch {
	case f != none:
		return f
	case d.state == opened && (b[0] >= 0x80 || class[b[0]]&plainCDATA != 0):
		return badFormat // character data between stanzas
	}
	return notWellFormed
}

// event makes the event of the element that frame found.
func (d *Decoder) event() Event {
	s := d.s
	b := s.rest()[:s.pos]
	switch s.kind {
	case Open:
		d.state = opened
		return Event{Kind: Open, Header: d.openHeader(b)}
	case Close:
		d.state = closed
		return Event{Kind: Close}
	case Stanzas:
		return d.stanza(b)
	}
	return Event{Kind: Nonzas, Element: d.nonza(b)}
}

// maxDeclaration bounds an XML declaration in bytes. chosen: one with all of its parts has about 60.
const maxDeclaration = 256

// declaration checks the XML declaration at the start of b and returns its length, 0 without one (XML 1.0 §2.8 [23]; RFC 6120 §11.5).
func declaration(b []byte) (int, fault) {
	const open = "<?xml"
	n := min(len(b), len(open))
	switch {
	case len(b) > 0 && (b[0] == 0 || b[0] >= 0xFE) || len(b) > 1 && b[0] == '<' && b[1] == 0:
		return 0, unsupportedEncoding // RFC 6120 §11.6: UTF-16 or UTF-32
	case string(b[:n]) != open[:n]:
		return 0, none
	case len(b) <= len(open):
		return 0, more
	case !isSpace(b[n]):
		return 0, restrictedXML // a processing instruction
	}
	end := bytes.Index(b[:min(len(b), maxDeclaration)], []byte("?>"))
	if end < 0 {
		if len(b) >= maxDeclaration {
			return 0, tooManyBytes
		}
		return 0, more
	}
	version, rest, ok := pseudoAttribute(b[len(open):end], "version")
	if !ok {
		return 0, notWellFormed
	}
	if string(version) != "1.0" {
		return 0, badFormat // RFC 6120 §11.8: XML 1.0 only
	}
	encoding, rest, ok := pseudoAttribute(rest, "encoding")
	if ok && !bytes.EqualFold(encoding, []byte("UTF-8")) {
		return 0, unsupportedEncoding // RFC 6120 §11.6
	}
	standalone, rest, ok := pseudoAttribute(rest, "standalone")
	if ok && string(standalone) != "yes" && string(standalone) != "no" {
		return 0, notWellFormed // RFC 6120 §11.5: either is ignored
	}
	if skipSpace(rest, 0) < len(rest) {
		return 0, notWellFormed
	}
	return end + len("?>"), none
}

// pseudoAttribute takes name='value' from the start of b; without it rest is b.
func pseudoAttribute(b []byte, name string) (value, rest []byte, ok bool) {
	i := skipSpace(b, 0)
	if i == 0 || !bytes.HasPrefix(b[i:], []byte(name)) {
		return nil, b, false
	}
	i = skipSpace(b, i+len(name))
	if i >= len(b) || b[i] != '=' {
		return nil, b, false
	}
	i = skipSpace(b, i+1)
	if i >= len(b) || b[i] != '\'' && b[i] != '"' {
		return nil, b, false
	}
	n := bytes.IndexByte(b[i+1:], b[i])
	if n < 0 {
		return nil, b, false
	}
	return b[i+1 : i+1+n], b[i+2+n:], true
}

// Parse reads b as one complete stanza in jabber:client outside of a stream: what storage kept, or a WebSocket message. The error is a
// stream error; improper-addressing (RFC 6120 §4.9.3.7) stands for a to or from that is no JID.
func Parse(b []byte, l Limits) (*xmpp.Stanza, error) { return stanza(parse(b, l, false)) }

// Parser is Parse for many stanzas of the same people, one after the other: it remembers their addresses.
type Parser struct{ d Decoder }

// NewParser makes a parser with limits for each stanza.
func NewParser(l Limits) *Parser { return &Parser{outside(l, false)} }

// Parse is Parse with the parser's limits.
func (p *Parser) Parse(b []byte) (*xmpp.Stanza, error) { return stanza(p.d.one(b)) }

func stanza(ev Event, err error) (*xmpp.Stanza, error) {
	switch {
	case err != nil:
		return nil, err
	case ev.Kind != Stanzas:
		return nil, streamerr.UnsupportedStanzaType
	case ev.BadTo || ev.BadFrom:
		return nil, streamerr.ImproperAddressing
	}
	return ev.Stanza, nil
}

// ParseElement reads b as one complete element, a stanza too; jabber:client is the default namespace around it.
func ParseElement(b []byte, l Limits) (*Nonza, error) {
	ev, err := parse(b, l, true)
	return ev.Element, err
}

func parse(b []byte, l Limits, single bool) (Event, error) {
	d := outside(l, single)
	return d.one(b)
}

// outside is the decoder for what comes outside of a stream.
func outside(l Limits, single bool) Decoder {
	return Decoder{content: xmpp.NSClient, def: []byte(xmpp.NSClient), limits: l, state: opened, single: single}
}

// one decodes b as one element.
func (d *Decoder) one(b []byte) (Event, error) {
	d.s = scanners.Get().(*scanner)
	defer func() { d.s.release(); d.s = nil }()
	d.s.buf = b[skipSpace(b, 0):]
	f := d.frame()
	if f == none && d.s.kind != Close && skipSpace(d.s.rest(), d.s.pos) < len(d.s.rest()) || f == more || d.s.kind == Close {
		f = notWellFormed // it ends too early or too late
	}
	if f != none {
		return Event{}, f.err()
	}
	return d.event(), nil
}
