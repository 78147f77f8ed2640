// Package stream turns bytes into stanzas and back: the validating scanner, its limits, stream headers, features and errors (RFC 6120
// §4, §8, §11). It does no I/O.
package stream

import (
	"errors"

	"balcony/xmpp"
)

// ErrMore is what Next returns when it needs more bytes.
var ErrMore = errors.New("stream: more bytes needed")

// Header is a stream header (RFC 6120 §4.7), its addresses as strings that were not parsed yet.
type Header struct {
	To, From, ID, Version, Lang string

	Content string // content namespace: jabber:client, jabber:server or jabber:component:accept
	Prefix  string // of the stream element, mostly "stream"; "" when its namespace is the default one
}

// EventKind is the kind of an Event.
type EventKind uint8

// The events of a stream.
const (
	Open    EventKind = iota + 1 // Header is set
	Stanzas                      // Stanza is set
	Nonzas                       // Element is set: a nonza, or a first-level child that is no stanza in the content namespace
	Close                        // the peer closed its stream
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

// Decoder decodes one direction of a stream. It is incremental: the same bytes give the same events and errors in any pieces. It is
// not safe for use by more than one goroutine at a time. Its errors are stream errors (mellium.im/xmpp/stream.Error).
type Decoder struct {
	content string
	limits  Limits
}

// NewDecoder makes a decoder for a stream of that content namespace (RFC 6120 §4.8.2).
func NewDecoder(content string, l Limits) *Decoder { return &Decoder{content: content, limits: l} }

// SetLimits changes the limits from the next top-level element on.
func (d *Decoder) SetLimits(l Limits) { d.limits = l }

// Reset makes the decoder expect a new stream header, as after STARTTLS and SASL (RFC 6120 §4.3.3). Buffered bytes are kept.
func (d *Decoder) Reset() {}

// Opened reports whether the current stream's header was read: an error before that is sent only after an own header (RFC 6120
// §4.9.1.2).
func (d *Decoder) Opened() bool { return false }

// Buffered is the number of bytes that were fed and not yet part of an event.
func (d *Decoder) Buffered() int { return 0 }

// Feed gives bytes to the decoder, which copies them: p may be reused at once.
func (d *Decoder) Feed(p []byte) {}

// Next returns the next event, ErrMore when more bytes are needed, or a stream error, after which it returns only that error.
func (d *Decoder) Next() (Event, error) { return Event{}, ErrMore }

// Parse reads b as one complete stanza in jabber:client outside of a stream.
func Parse(b []byte, l Limits) (*xmpp.Stanza, error) { return nil, ErrMore }

// ParseElement reads b as one complete element, a stanza too, in whose surroundings jabber:client is the default namespace.
func ParseElement(b []byte, l Limits) (*Nonza, error) { return nil, ErrMore }
