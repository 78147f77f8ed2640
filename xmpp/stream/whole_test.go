package stream

import (
	"errors"
	"strings"
	"testing"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

func describe(ev Event) string {
	if ev.Kind == Stanzas {
		return ev.Stanza.String()
	}
	return "{" + ev.Element.Space + "}" + ev.Element.Local
}

func TestMessages(t *testing.T) {
	var m Messages
	for _, tt := range []struct{ in, want string }{
		{`<message xmlns='jabber:client' to='a@b'><body>x</body></message>`, `<message to='a@b'><body>x</body></message>`},
		{`<iq id='1' type='get'><ping xmlns='urn:xmpp:ping'/></iq>`, `<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>`},
		{`<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='example.org' version='1.0'/>`, `{urn:ietf:params:xml:ns:xmpp-framing}open`},
		{`<?xml version='1.0'?><close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>`, `{urn:ietf:params:xml:ns:xmpp-framing}close`},
		{"<presence xmlns='jabber:client'/>\n", `<presence/>`},
	} {
		ev, err := m.Next([]byte(tt.in), DefaultLimits())
		if err != nil || describe(ev) != tt.want {
			t.Errorf("%s: %v, %v, want %s", tt.in, ev, err, tt.want)
		}
	}
	for _, tt := range []struct {
		in   string
		want streamerr.Error
	}{
		{"", streamerr.NotWellFormed},
		{" ", streamerr.NotWellFormed},
		{" <presence/>", streamerr.NotWellFormed}, // RFC 7395 §3.3.3: the first character MUST be '<'
		{"<presence/><presence/>", streamerr.NotWellFormed},
		{"<presence>", streamerr.NotWellFormed},
		{"</>", streamerr.NotWellFormed},
		{"</stream:stream>", streamerr.NotWellFormed},
		{"<stream:features/>", streamerr.NotWellFormed},
		{"<?xml version='1.0'?>", streamerr.NotWellFormed},
		{"<?xml version='1.0'", streamerr.NotWellFormed},
		{"<!DOCTYPE x><presence/>", streamerr.RestrictedXML},
		{"<?xml version='1.0' encoding='UTF-16'?><presence/>", streamerr.UnsupportedEncoding},
		{"<presence xmlns='jabber:server'/>", streamerr.InvalidNamespace},
		{"<message><body>\xff</body></message>", streamerr.UnsupportedEncoding},
		{"<message><body>" + strings.Repeat("x", 1000) + "</body></message>", streamerr.PolicyViolation},
	} {
		_, err := m.Next([]byte(tt.in), Limits{Bytes: 500, Depth: 8, Attributes: 8, Children: 8})
		if !errors.Is(err, tt.want) {
			t.Errorf("%.60q: %v, want %v", tt.in, err, tt.want)
		}
	}
}

const bodyTag = `<body rid='1' sid='s' xmlns='http://jabber.org/protocol/httpbind'`

func TestParseBody(t *testing.T) {
	b, err := ParseBody([]byte(`<body content='text/xml; charset=utf-8' rid='1573741820' to='example.org' xml:lang='en' xmpp:version='1.0'
		xmlns='http://jabber.org/protocol/httpbind' xmlns:xmpp='urn:xmpp:xbosh'/>`), DefaultLimits())
	if err != nil || len(b.Events) != 0 {
		t.Fatal(b, err)
	}
	for _, tt := range []struct{ space, local, want string }{
		{"", "rid", "1573741820"}, {"", "content", "text/xml; charset=utf-8"}, {xmpp.NSXML, "lang", "en"}, {"urn:xmpp:xbosh", "version", "1.0"},
	} {
		if got, ok := b.Attr(tt.space, tt.local); !ok || got != tt.want {
			t.Errorf("%s: %q, want %q", tt.local, got, tt.want)
		}
	}
	for _, absent := range [][2]string{{"", "version"}, {"", "xmlns"}, {"", "lang"}, {"", "xmpp"}, {"urn:xmpp:xbosh", "rid"}} {
		if v, ok := b.Attr(absent[0], absent[1]); ok {
			t.Errorf("%v: %q", absent, v)
		}
	}
	b, err = ParseBody([]byte(bodyTag+` xmlns:x='urn:x'>
		<message xmlns='jabber:client' to='a@b'><body>one</body><x:y/></message>
		<message to='a@b'><body>two</body></message>
		<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AA==</auth>
	</body>
`), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`<message to='a@b' xmlns:x='urn:x'><body>one</body><x:y/></message>`, `<message to='a@b'><body>two</body></message>`,
		`{urn:ietf:params:xml:ns:xmpp-sasl}auth`}
	for i, w := range want {
		if i >= len(b.Events) || describe(b.Events[i]) != w {
			t.Errorf("element %d of %d, want %s", i, len(b.Events), w)
		}
	}
	l := Limits{Bytes: 500, Depth: 8, Attributes: 8, Children: 3}
	for _, tt := range []struct {
		in   string
		want streamerr.Error
	}{
		{"", streamerr.NotWellFormed},
		{bodyTag + ">", streamerr.NotWellFormed},
		{bodyTag + "/>x", streamerr.NotWellFormed},
		{bodyTag + "/>" + bodyTag + "/>", streamerr.NotWellFormed},
		{bodyTag + "><presence/></body><presence/>", streamerr.NotWellFormed},
		{bodyTag + ">text</body>", streamerr.BadFormat}, // XEP-0124 §6: no character data in the wrapper
		{bodyTag + "><!-- x --></body>", streamerr.RestrictedXML},
		{bodyTag + "><presence></body>", streamerr.NotWellFormed},
		{"<body rid='1'/>", streamerr.InvalidNamespace},
		{"<head xmlns='http://jabber.org/protocol/httpbind'/>", streamerr.BadFormat},
		{"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>", streamerr.InvalidNamespace},
		{"<!DOCTYPE b [<!ENTITY a 'b'>]>" + bodyTag + "/>", streamerr.RestrictedXML},
		{bodyTag + "><a/><a/><a/><a/></body>", streamerr.PolicyViolation},
		{bodyTag + "><message><body>" + strings.Repeat("x", 1000) + "</body></message></body>", streamerr.PolicyViolation},
	} {
		if _, err := ParseBody([]byte(tt.in), l); !errors.Is(err, tt.want) {
			t.Errorf("%.60q: %v, want %v", tt.in, err, tt.want)
		}
	}
}

func TestStandalone(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{string(AppendFeatures(nil)), `<stream:features xmlns:stream='http://etherx.jabber.org/streams'/>`},
		{string(AppendFeatures(nil, xmpp.El("urn:x", "x"))), `<stream:features xmlns:stream='http://etherx.jabber.org/streams'><x xmlns='urn:x'/></stream:features>`},
		{string(AppendError(nil, streamerr.Conflict, nil)), `<stream:error xmlns:stream='http://etherx.jabber.org/streams'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>`},
	} {
		if got := string(Standalone([]byte(tt.in))); got != tt.want {
			t.Errorf("%s, want %s", got, tt.want)
		}
	}
	if got := string(Sent{Stanza: xmpp.New(xmpp.Presence, "", jid.MustParse("a@b"), jid.MustParse("c@d"))}.AppendTo(nil)); got != `<presence xmlns='jabber:client' to='a@b' from='c@d'/>` {
		t.Error(got)
	}
}

// FuzzMessages: a message is understood as the same element in a stream would be.
func FuzzMessages(f *testing.F) {
	seeds(f, func(in string) { f.Add(strings.TrimPrefix(in, clientHeader)) })
	f.Add(`<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='example.org' version='1.0'/>`)
	f.Fuzz(func(t *testing.T, in string) {
		var m Messages
		ev, err := m.Next([]byte(in), DefaultLimits())
		if err != nil {
			return
		}
		if strings.HasPrefix(in, "<?xml") {
			in = in[strings.Index(in, "?>")+2:]
		}
		d := NewDecoder(xmpp.NSClient, DefaultLimits())
		d.Feed([]byte(clientHeader + in))
		if _, err := d.Next(); err != nil {
			t.Fatal(err)
		}
		same, err := d.Next()
		if err != nil || same.Kind != ev.Kind || describe(same) != describe(ev) {
			t.Fatalf("as a message %v, in a stream %v, %v", ev, same, err)
		}
	})
}

// FuzzBody: what is in a body is understood as the same elements in a stream would be, and no input exceeds the limits.
func FuzzBody(f *testing.F) {
	seeds(f, func(in string) { f.Add(bodyTag + ">" + strings.TrimPrefix(in, clientHeader) + "</body>") })
	f.Add(bodyTag + " xmpp:restart='true' xmlns:xmpp='urn:xmpp:xbosh'/>")
	f.Fuzz(func(t *testing.T, in string) {
		l := Limits{Bytes: 600, Depth: 6, Attributes: 6, Children: 6}
		b, err := ParseBody([]byte(in), l)
		if err != nil {
			var se streamerr.Error
			if !errors.As(err, &se) {
				t.Fatalf("%v is no stream error", err)
			}
			return
		}
		if len(b.Events) > l.Children {
			t.Fatalf("%d elements", len(b.Events))
		}
		for _, ev := range b.Events {
			switch ev.Kind {
			case Stanzas:
				if !ev.BadTo && !ev.BadFrom {
					checkStanza(t, ev.Stanza)
				}
			case Nonzas:
				checkNonza(t, ev.Element)
			default:
				t.Fatalf("event %v", ev)
			}
		}
	})
}
