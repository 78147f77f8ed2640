package stream

import (
	"bytes"
	"encoding/xml"
	"io"
	"testing"

	"balcony/xmpp"
)

const clientHeader = `<?xml version='1.0'?><stream:stream to='example.org' version='1.0' xml:lang='en' xmlns='jabber:client' ` +
	`xmlns:stream='http://etherx.jabber.org/streams'>`

// The stanzas of the benchmarks: what Conversations sends in a chat (430 bytes), a presence with capabilities, a roster request.
var benchStanzas = []struct{ name, xml string }{
	{"Message", `<message to='juliet@capulet.example' id='8b2b5f3e-6f0e-4b8e-9a53-0b1f3c0c9d11' type='chat'>` +
		`<body>Neither, fair saint, if either thee dislike. What man art thou that, thus bescreened in night, so stumblest on?</body>` +
		`<request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/>` +
		`<origin-id xmlns='urn:xmpp:sid:0' id='8b2b5f3e-6f0e-4b8e-9a53-0b1f3c0c9d11'/>` +
		`<active xmlns='http://jabber.org/protocol/chatstates'/></message>`},
	{"Presence", `<presence id='9sL1-4'><show>away</show><status>on the balcony</status><priority>5</priority>` +
		`<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='http://conversations.im' ver='QgayPKawpkPSDYmwT/WM94uAlu0='/>` +
		`<idle xmlns='urn:xmpp:idle:1' since='2026-01-01T00:00:00Z'/></presence>`},
	{"IQ", `<iq id='9sL1-2' type='get' to='capulet.example'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>`},
}

// scanOnly frames and validates all elements that were fed, without making stanzas of them.
func scanOnly(d *Decoder) (n int, f fault) {
	for {
		if f := d.frame(); f != none {
			d.settle()
			return n, f
		}
		d.s.begin(d.s.pos)
		n++
	}
}

func BenchmarkScan(b *testing.B) {
	for _, s := range benchStanzas {
		b.Run(s.name, func(b *testing.B) {
			d := open(b, xmpp.NSClient, clientHeader, DefaultLimits())
			in := []byte(s.xml)
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				d.Feed(in)
				if n, f := scanOnly(d); n != 1 || f != more {
					b.Fatal(n, f)
				}
			}
		})
	}
}

func BenchmarkDecodeStanza(b *testing.B) {
	for _, s := range benchStanzas {
		b.Run(s.name, func(b *testing.B) {
			d := open(b, xmpp.NSClient, clientHeader, DefaultLimits())
			in := []byte(s.xml)
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				d.Feed(in)
				if ev, err := d.Next(); err != nil || ev.Kind != Stanzas {
					b.Fatal(ev, err)
				}
				if _, err := d.Next(); err != ErrMore {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncodingXML(b *testing.B) {
	for _, s := range benchStanzas {
		b.Run(s.name, func(b *testing.B) {
			in := []byte(s.xml)
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				d := xml.NewDecoder(bytes.NewReader(in))
				for {
					if _, err := d.Token(); err == io.EOF {
						break
					} else if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
