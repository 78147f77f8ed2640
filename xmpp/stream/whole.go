package stream

import (
	"bytes"

	"balcony/xmpp"

	streamerr "mellium.im/xmpp/stream"
)

// Messages decodes elements that arrive whole, each as a document of its own: RFC 7395 §3.3.3. It is not safe for use by more than one
// goroutine at a time.
type Messages struct{ d Decoder }

// Next decodes b, which is one element that declares its namespaces; without a declaration it is in jabber:client, as many clients send
// stanzas. The error is a stream error, those of Decoder. b is not kept.
func (m *Messages) Next(b []byte, l Limits) (Event, error) {
	if len(b) == 0 || b[0] != '<' {
		return Event{}, streamerr.NotWellFormed // RFC 7395 §3.3.3: the first character MUST be '<'
	}
	n, f := declaration(b) // RFC 7395 §3.3.3: not recommended, and so not forbidden
	if f != none {
		if f == more {
			f = notWellFormed
		}
		return Event{}, f.err()
	}
	m.d.content, m.d.def, m.d.limits, m.d.state = xmpp.NSClient, clientNS, l, opened
	return m.d.one(b[n:])
}

var clientNS = []byte(xmpp.NSClient)

// NSBody is the namespace of the wrapper of XEP-0124.
const NSBody = "http://jabber.org/protocol/httpbind"

// Body is <body/> of XEP-0124: its attributes, and what is in it.
type Body struct {
	attrs  []bodyAttr
	Events []Event // stanzas and nonzas
}

type bodyAttr struct{ space, local, value string }

// Attr is the value of an attribute, by its expanded name; ok tells whether it is there.
func (b *Body) Attr(space, local string) (value string, ok bool) {
	for _, a := range b.attrs {
		if a.space == space && a.local == local {
			return a.value, true
		}
	}
	return "", false
}

// ParseBody decodes b as a <body/> (XEP-0124 §6) with the same scanner as any stream: the wrapper is the header, and what is in it are its
// elements, at most l.Children. An element that inherits the namespace of the wrapper is taken for one of jabber:client. The error is a stream error.
func ParseBody(b []byte, l Limits) (*Body, error) {
	d := Decoder{content: xmpp.NSClient, limits: l, body: true}
	d.s = scanners.Get().(*scanner)
	defer func() { d.s.release() }()
	d.s.buf = b
	var out *Body
	for {
		f := d.frame()
		if f == more {
			f = notWellFormed // it ends too early
		}
		if f != none {
			return nil, f.err()
		}
		switch d.s.kind {
		case Open:
			d.state = opened
			out = &Body{attrs: d.bodyAttrs(d.s.rest()[:d.s.pos])}
		case Close:
			// XEP-0124 §6: a single wrapper and nothing else. An empty tag has its end without any bytes.
			rest := d.s.rest()[d.s.pos:]
			if skipSpace(rest, 0) < len(rest) {
				return nil, notWellFormed.err()
			}
			return out, nil
		default:
			if len(out.Events) >= l.Children {
				return nil, tooManyChildren.err()
			}
			out.Events = append(out.Events, d.event())
		}
		d.s.begin(d.s.pos)
	}
}

// enterBody checks the start tag of the wrapper.
func (d *Decoder) enterBody(b, uri, local []byte) fault {
	if string(uri) != NSBody {
		return invalidNamespace
	}
	if string(local) != "body" {
		return badFormat
	}
	d.def = clientNS
	return d.keepHeader(b)
}

// bodyAttrs are the attributes of the wrapper without its declarations.
func (d *Decoder) bodyAttrs(b []byte) []bodyAttr {
	var attrs []bodyAttr
	for i := range d.s.attrs[:d.s.rootEnd] {
		a := &d.s.attrs[i]
		name := b[a.lo:a.hi]
		x := bodyAttr{local: string(name), value: value(b, a)}
		if a.colon >= 0 {
			prefix := b[a.lo:a.colon]
			x.local = string(b[a.colon+1 : a.hi])
			if string(prefix) == "xml" {
				x.space = xmpp.NSXML
			}
			for _, h := range d.header {
				if bytes.Equal(h.prefix, prefix) {
					x.space = string(h.uri)
				}
			}
			if x.space == "" {
				continue // a declaration
			}
		} else if string(name) == "xmlns" {
			continue
		}
		attrs = append(attrs, x)
	}
	return attrs
}

// ParseBodyStart decodes the start tag of a <body/> of which b has the beginning: whose session it belongs to says how much more may follow.
func ParseBodyStart(b []byte, l Limits) (*Body, error) {
	d := Decoder{content: xmpp.NSClient, limits: l, body: true}
	d.s = scanners.Get().(*scanner)
	defer func() { d.s.release() }()
	d.s.buf = b
	if f := d.frame(); f != none {
		if f == more {
			f = notWellFormed
		}
		return nil, f.err()
	}
	return &Body{attrs: d.bodyAttrs(d.s.rest()[:d.s.pos])}, nil
}
