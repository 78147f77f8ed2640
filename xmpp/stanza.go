// Package xmpp holds the words that every part of the server shares: the stanza, the delivery, the session as modules see it, the
// module and its registry. It does no I/O.
package xmpp

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"slices"
	"sync/atomic"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// Namespaces of RFC 6120 that more than one package writes.
const (
	NSClient   = "jabber:client"                        // RFC 6120 §4.8.2
	NSServer   = "jabber:server"                        // RFC 6120 §4.8.2
	NSStanzas  = "urn:ietf:params:xml:ns:xmpp-stanzas"  // RFC 6120 §8.3.2
	NSStream   = "http://etherx.jabber.org/streams"     // RFC 6120 §4.8.1
	NSStreams  = "urn:ietf:params:xml:ns:xmpp-streams"  // RFC 6120 §4.9.2
	NSDelay    = "urn:xmpp:delay"                       // XEP-0203 §2
	nsForward  = "urn:xmpp:forward:0"                   // XEP-0297 §3
	NSXML      = "http://www.w3.org/XML/1998/namespace" // bound to the prefix xml
	maxErrText = 1024                                   // chosen: a text for people, far below a stanza
)

// Kind is the kind of a stanza (RFC 6120 §8.2).
type Kind uint8

// The three kinds of stanza.
const (
	Message Kind = iota + 1
	Presence
	IQ
)

// String returns the local name of the stanza element.
func (k Kind) String() string {
	switch k {
	case Message:
		return "message"
	case Presence:
		return "presence"
	case IQ:
		return "iq"
	}
	return "unknown"
}

// NoNamespace is the Space of an element that is in no namespace at all (an empty xmlns). It is no namespace name that XML can carry.
const NoNamespace = "\x01"

// Span is one direct child of a stanza: its expanded name and where it lies in the payload.
// Space is empty for the content namespace of the stream (jabber:client or jabber:server), NoNamespace for none.
type Span struct {
	Space, Local string
	Start, End   int
}

// Stanza is a stanza that a scanner has validated, or that the server itself made. Its fields and bytes are read-only once it
// is routed; the With… methods return a changed copy that shares the bytes. It does not refer to any connection's buffer, so it
// may be kept.
type Stanza struct {
	Kind Kind
	Type string  // the type attribute as sent; empty when absent
	To   jid.JID // the zero JID when absent
	From jid.JID // the zero JID when absent
	ID   string
	Lang string // xml:lang

	// Row is the stored message that has this stanza's bytes, 0 while none has.
	Row int64
	// Order is the place of this copy among the messages that are kept for the account it goes to, 0 for a copy that is not kept. What a session gives
	// to its client, or a module puts into another stanza for it, keeps the number: with it the message counts as received
	// (Registry.Received).
	Order int64

	extra   []byte // other attributes and namespace declarations of the start tag, each with a leading space
	payload []byte // everything between start and end tag, as received
	index   []Span
	copies  *atomic.Int32 // of a message that went to several sessions: how many may still reach theirs

	original *Stanza // of a message that Forward has made: what it carries
}

// NewStanza makes a stanza from parts that are already well-formed and namespace-correct: head's exported fields, the start tag's
// other attributes and declarations (each with a leading space), the payload bytes and the spans of the payload's direct
// children. It takes ownership of the slices. Only the stream scanner and storage call it.
func NewStanza(head Stanza, extra, payload []byte, index []Span) *Stanza {
	head.extra, head.payload, head.index = extra, payload, index
	return &head
}

// New makes a stanza of the server's own with the given children.
func New(kind Kind, typ string, to, from jid.JID, children ...*Element) *Stanza {
	s := &Stanza{Kind: kind, Type: typ, To: to, From: from}
	for _, c := range children {
		s.appendElement(c)
	}
	return s
}

func (s *Stanza) appendElement(e *Element) {
	start := len(s.payload)
	s.payload = e.AppendTo(slices.Grow(s.payload, e.about()), "")
	if e.Local != "" {
		s.index = append(s.index, Span{e.space(""), e.Local, start, len(s.payload)})
		return
	}
	space, local := rawName(s.payload[start:])
	s.index = append(s.index, Span{space, local, start, len(s.payload)})
}

// rawName is the expanded name of the first element in b.
func rawName(b []byte) (space, local string) {
	d := xml.NewDecoder(bytes.NewReader(b))
	for {
		t, err := d.Token()
		if err != nil {
			return "", ""
		}
		if se, ok := t.(xml.StartElement); ok {
			return se.Name.Space, se.Name.Local
		}
	}
}

// Shared returns a copy for a delivery to n sessions, which share a count of those that may still give it to their client.
func (s *Stanza) Shared(n int) *Stanza {
	c := *s
	c.copies = new(atomic.Int32)
	c.copies.Store(int32(n))
	return &c
}

// Kept returns a copy that says where storage has it: Row and Order.
func (s *Stanza) Kept(row, order int64) *Stanza {
	c := *s
	c.Row, c.Order = row, order
	return &c
}

// Copies is the count that Shared made, for what keeps deliveries beyond the process; nil for none.
func (s *Stanza) Copies() *atomic.Int32 { return s.copies }

// WithCopies returns a copy that shares a count, as Shared makes it.
func (s *Stanza) WithCopies(n *atomic.Int32) *Stanza {
	c := *s
	c.copies = n
	return &c
}

// Missed is called for a session that did not give the stanza to its client. It reports whether that was the last one: then nobody has it.
func (s *Stanza) Missed() bool { return s.copies == nil || s.copies.Add(-1) <= 0 }

// IsShared reports whether the stanza counts who may still give it to a client (Shared).
func (s *Stanza) IsShared() bool { return s.copies != nil }

// Forward returns a message of the same type, still without addresses, that carries a copy of the message s (XEP-0297 §3.1) inside of an element with
// that name: <local xmlns='space'><forwarded><message/></forwarded></local>. Both count as one message when s is shared.
func (s *Stanza) Forward(space, local string) *Stanza {
	b := make([]byte, 0, s.Size()+2*(len(local)+len(space))+64)
	b = append(append(b, '<'), local...)
	b = appendAttr(b, "xmlns", space)
	b = append(b, "><forwarded xmlns='"+nsForward+"'>"...)
	b = s.AppendStandalone(b) // XEP-0297 §4: else it would be in the namespace of <forwarded/>
	b = append(append(append(b, "</forwarded></"...), local...), '>')
	return &Stanza{Kind: s.Kind, Type: s.Type, Order: s.Order, payload: b, index: []Span{{space, local, 0, len(b)}}, copies: s.copies, original: s}
}

// Original is the message that s carries, when Forward has made s, and nil else.
func (s *Stanza) Original() *Stanza { return s.original }

// Size is about the number of bytes the stanza takes on the wire and in a queue.
func (s *Stanza) Size() int {
	return len(s.payload) + len(s.extra) + len(s.Type) + len(s.ID) + len(s.Lang) + jidSize(s.To) + jidSize(s.From) + 160
}

func jidSize(j jid.JID) int { return len(j.Localpart()) + len(j.Domainpart()) + len(j.Resourcepart()) }

// PayloadBytes are the bytes between start and end tag. Read-only.
func (s *Stanza) PayloadBytes() []byte { return s.payload }

// ExtraBytes are the other attributes and namespace declarations of the start tag. Read-only.
func (s *Stanza) ExtraBytes() []byte { return s.extra }

// Spans is the index of the direct children. Read-only.
func (s *Stanza) Spans() []Span { return s.index }

// Child is one direct child of a stanza.
type Child struct {
	Span
	s *Stanza
}

// Children returns the direct children in document order.
func (s *Stanza) Children() []Child {
	c := make([]Child, len(s.index))
	for i, sp := range s.index {
		c[i] = Child{sp, s}
	}
	return c
}

// Child returns the first direct child with that expanded name; space is empty for the content namespace.
func (s *Stanza) Child(space, local string) (Child, bool) {
	for _, sp := range s.index {
		if sp.Local == local && sp.Space == space {
			return Child{sp, s}, true
		}
	}
	return Child{}, false
}

// Has reports whether there is a direct child with that expanded name.
func (s *Stanza) Has(space, local string) bool {
	_, ok := s.Child(space, local)
	return ok
}

// Payload returns the first direct child: for an IQ of type get or set the only one (RFC 6120 §8.2.3).
func (s *Stanza) Payload() (Child, bool) {
	if len(s.index) == 0 {
		return Child{}, false
	}
	return Child{s.index[0], s}, true
}

// XML are the child's bytes as received; prefixes may be declared on the stanza's start tag. Read-only.
func (c Child) XML() []byte { return c.s.payload[c.Start:c.End] }

// Standalone are the child's bytes as an element that means the same outside of its stanza.
func (c Child) Standalone() []byte {
	x := c.XML()
	if len(c.s.extra) == 0 && c.Space != "" && x[1+len(c.Local)] != ':' && bytes.HasPrefix(x[1:], []byte(c.Local)) {
		return x // without a prefix it declares its own default namespace, so nothing in it inherits another
	}
	e, err := c.Element()
	if err != nil {
		return c.XML()
	}
	return e.AppendTo(nil, "")
}

// Decoder returns a decoder whose next token is the child's start element.
func (c Child) Decoder() *xml.Decoder { return c.decoder("") }

// decoder is Decoder with content, if not empty, as the content namespace.
func (c Child) decoder(content string) *xml.Decoder {
	if content == "" && len(c.s.extra) == 0 {
		return xml.NewDecoder(bytes.NewReader(c.XML()))
	}
	var b bytes.Buffer
	b.WriteString("<x")
	b.Write(appendAttr(nil, "xmlns", content))
	b.Write(c.s.extra)
	b.WriteByte('>')
	b.Write(c.XML())
	b.WriteString("</x>")
	d := xml.NewDecoder(&b)
	if _, err := d.Token(); err != nil {
		return xml.NewDecoder(bytes.NewReader(nil))
	}
	return d
}

// Decode unmarshals the child with encoding/xml: for cold paths. Elements of the content namespace have the empty namespace.
func (c Child) Decode(v any) error {
	if err := c.Decoder().Decode(v); err != nil {
		return fmt.Errorf("decode %s: %w", c.Local, err)
	}
	return nil
}

// Attr is the value of one of the child's attributes without a namespace, "" when absent.
func (c Child) Attr(name string) string {
	t, err := c.Decoder().Token()
	if err != nil {
		return ""
	}
	se, ok := t.(xml.StartElement)
	if !ok {
		return ""
	}
	for _, a := range se.Attr {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// Text is the child's character data without that of its children, for example of <body/>.
func (c Child) Text() string {
	var v struct {
		Text string `xml:",chardata"`
	}
	if c.Decode(&v) != nil {
		return ""
	}
	return v.Text
}

// With returns a copy with the two addresses replaced.
func (s *Stanza) With(to, from jid.JID) *Stanza {
	c := *s
	c.To, c.From = to, from
	return &c
}

// WithTo returns a copy with another to address.
func (s *Stanza) WithTo(to jid.JID) *Stanza { return s.With(to, s.From) }

// WithFrom returns a copy with another from address.
func (s *Stanza) WithFrom(from jid.JID) *Stanza { return s.With(s.To, from) }

// Append returns a copy with one more child at the end.
func (s *Stanza) Append(e *Element) *Stanza {
	c := *s
	c.payload = append(make([]byte, 0, len(s.payload)+128), s.payload...)
	c.index = append(make([]Span, 0, len(s.index)+1), s.index...)
	c.appendElement(e)
	return &c
}

// Without returns a copy that lacks the direct children for which cut is true, or s itself when there is none. cut is called once for
// each child, in order.
func (s *Stanza) Without(cut func(Span) bool) *Stanza {
	var c *Stanza
	at := 0
	for i, sp := range s.index {
		if cut(sp) {
			if c == nil {
				copied := *s
				c = &copied
				c.payload = make([]byte, 0, len(s.payload))
				c.index = append(make([]Span, 0, len(s.index)-1), s.index[:i]...)
			}
			c.payload = append(c.payload, s.payload[at:sp.Start]...)
			at = sp.End
			continue
		}
		if c != nil {
			c.payload = append(c.payload, s.payload[at:sp.End]...)
			at = sp.End
			c.index = append(c.index, Span{sp.Space, sp.Local, len(c.payload) - (sp.End - sp.Start), len(c.payload)})
		}
	}
	if c == nil {
		return s
	}
	c.payload = append(c.payload, s.payload[at:]...)
	return c
}

// AppendTo appends the stanza as it goes on a stream whose content namespace is the default namespace.
func (s *Stanza) AppendTo(b []byte) []byte { return s.appendTo(b, "") }

// AppendStandalone appends the stanza with jabber:client declared, as it goes where no stream header does (RFC 7395 §3.3.3, XEP-0206).
func (s *Stanza) AppendStandalone(b []byte) []byte { return s.appendTo(b, " xmlns='"+NSClient+"'") }

func (s *Stanza) appendTo(b []byte, declaration string) []byte {
	name := s.Kind.String()
	b = append(b, '<')
	b = append(b, name...)
	b = append(b, declaration...)
	b = appendJIDAttr(b, "to", s.To)
	b = appendJIDAttr(b, "from", s.From)
	b = appendAttr(b, "type", s.Type)
	b = appendAttr(b, "id", s.ID)
	b = appendAttr(b, "xml:lang", s.Lang)
	b = append(b, s.extra...)
	if len(s.payload) == 0 {
		return append(b, '/', '>')
	}
	b = append(b, '>')
	b = append(b, s.payload...)
	b = append(b, '<', '/')
	b = append(b, name...)
	return append(b, '>')
}

// String is the stanza as XML, for tests and traces.
func (s *Stanza) String() string { return string(s.AppendTo(nil)) }

// Result is the answer of type result to an IQ, with the addresses swapped; el may be nil (RFC 6120 §8.2.3).
func (s *Stanza) Result(el *Element) *Stanza {
	r := New(IQ, "result", s.From, s.To)
	r.ID = s.ID
	if el != nil {
		r.appendElement(el)
	}
	return r
}

// maxEcho bounds the original XML that an error repeats. chosen: people's messages fit, a flood of large stanzas is not doubled.
const maxEcho = 16 << 10

// Bounce is the error answer to s with the addresses swapped, or nil when s must not be answered with an error: RFC 6120 §8.3.1
// (errors) and §8.2.3 (results). It repeats the original children, as §8.3.1 allows, unless they are large.
func (s *Stanza) Bounce(err error) *Stanza {
	if s.Type == "error" || s.Kind == IQ && s.Type == "result" {
		return nil
	}
	r := &Stanza{Kind: s.Kind, Type: "error", To: s.From, From: s.To, ID: s.ID}
	if len(s.payload)+len(s.extra) <= maxEcho {
		r.extra, r.payload, r.index = s.extra, s.payload, s.index
	}
	return r.Append(ErrorElement(err))
}

// IsRequest reports whether s is an IQ that must be answered (RFC 6120 §8.2.3).
func (s *Stanza) IsRequest() bool { return s.Kind == IQ && (s.Type == "get" || s.Type == "set") }

// MessageType is the message's type with the default of RFC 6121 §5.2.2 for an absent or unknown one.
func (s *Stanza) MessageType() stanza.MessageType {
	switch t := stanza.MessageType(s.Type); t {
	case stanza.ChatMessage, stanza.ErrorMessage, stanza.GroupChatMessage, stanza.HeadlineMessage:
		return t
	}
	return stanza.NormalMessage
}
