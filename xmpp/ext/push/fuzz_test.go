package push_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"testing"

	"balcony/xmpp"
	"balcony/xmpp/ext/push"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// Whatever is in an <enable/>: a stanza error, or a registration within its bounds whose options are one well-formed form that reads the same
// again.
func FuzzEnable(f *testing.F) {
	f.Add("<enable xmlns='urn:xmpp:push:0' jid='push-5.client.example' node='yxs32uqsflafdk3iuqo'/>")
	f.Add("<enable xmlns='urn:xmpp:push:0' jid='push-5.client.example' node='yxs32uqsflafdk3iuqo'><x xmlns='jabber:x:data' type='submit'>" +
		"<field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field><field var='secret'><value>e&lt;1</value></field></x></enable>")
	f.Add("<p:enable xmlns:p='urn:xmpp:push:0' jid='a@b/c'><d:x xmlns:d='jabber:x:data'><d:field var='FORM_TYPE' type='hidden'>" +
		"<d:value>http://jabber.org/protocol/pubsub#publish-options</d:value></d:field><d:field><d:value/><d:value>\n</d:value></d:field></d:x></p:enable>")
	f.Add("<enable jid=' ' node='&#9;'/>")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := stream.Parse([]byte("<iq type='set' id='1'>"+text+"</iq>"), stream.DefaultLimits())
		if err != nil || len(s.Spans()) == 0 {
			return
		}
		r, err := push.ReadEnable(s)
		if err != nil {
			var e stanza.Error
			if !errors.As(err, &e) {
				t.Fatalf("%v", err)
			}
			return
		}
		if r.Service.Equal(jid.JID{}) || len(r.Node) > push.MaxNode || len(r.Options) > push.MaxOptions {
			t.Fatalf("%+v", r)
		}
		if r.Options == nil {
			return
		}
		d := xml.NewDecoder(bytes.NewReader(r.Options))
		el, err := xmpp.ReadElement(d)
		if err != nil || el.Space != "jabber:x:data" || el.Local != "x" {
			t.Fatalf("%s: %v", r.Options, err)
		}
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			t.Fatalf("%s: more than one element", r.Options)
		}
		again, err := stream.Parse([]byte("<iq type='set' id='1'><enable xmlns='urn:xmpp:push:0' jid='p.example'>"+string(r.Options)+"</enable></iq>"), stream.DefaultLimits())
		if err != nil {
			t.Fatalf("%s: %v", r.Options, err)
		}
		if same, err := push.ReadEnable(again); err != nil || !bytes.Equal(same.Options, r.Options) {
			t.Fatalf("%s\nreads as\n%s, %v", r.Options, same.Options, err)
		}
	})
}

// Whatever a carbon copy or a notice contains, it is looked at without harm.
func FuzzNews(f *testing.F) {
	for _, s := range []string{
		"<body>x</body>",
		"<received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='a@b/c'><body>x</body></message></forwarded></received>",
		"<x xmlns='http://jabber.org/protocol/muc#user'><invite/></x>",
		"<encrypted xmlns='urn:xmpp:omemo:2'><payload/></encrypted>",
	} {
		f.Add(s, true)
		f.Add(s, false)
	}
	m := push.New(push.Config{Body: true}, nil, nil)
	f.Fuzz(func(t *testing.T, text string, own bool) {
		s, err := stream.Parse([]byte("<message>"+text+"</message>"), stream.DefaultLimits())
		if err != nil {
			return
		}
		from := juliet
		if own {
			from = user
		}
		_, body := m.NewsOf(s.With(user, from), user)
		if len(body) > 1024 {
			t.Fatalf("a body of %d bytes", len(body))
		}
	})
}
