package roster_test

import (
	"context"
	"fmt"
	"testing"

	"balcony/roster"
	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

// stub is an outbox that does with a stanza what a real one does up to TLS: it encodes it.
type stub struct{ buf []byte }

func (s *stub) Enqueue(_ context.Context, st *xmpp.Stanza) bool {
	s.buf = st.AppendTo(s.buf[:0])
	return true
}

func (s *stub) Close(streamerr.Error) {}

// BenchmarkFanOut broadcasts presence to 200 contacts that are online; the figure is for one presence received.
func BenchmarkFanOut(b *testing.B) {
	const contacts = 200
	w := newWorld(b)
	presence := func(full string, out *stub) func() {
		j := jid.MustParse(full)
		s, err := w.router.Bind(w.ctx, j.Bare(), j.Resourcepart(), out)
		if err != nil {
			b.Fatal(err)
		}
		st := stanzaOf(b, "<presence><show>away</show><status>stepped away</status><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='http://psi-im.org' ver='q07IKJEyjvHSyhy//CH0CxmKi8w='/></presence>")
		st.From = j
		return func() { w.router.Handle(w.ctx, &xmpp.Outgoing{Stanza: st, Sender: s}) }
	}
	for i := range contacts {
		c := fmt.Sprintf("contact%03d@localhost", i)
		w.friends("juliet@localhost", c)
		presence(c+"/phone", new(stub))()
	}
	send := presence("juliet@localhost/balcony", new(stub))
	send()
	b.ReportAllocs()
	for b.Loop() {
		send()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/contacts, "ns/received")
}

// BenchmarkLogin is a roster get and initial presence of an account with 200 contacts, half of them online, and its end.
func BenchmarkLogin(b *testing.B) {
	w := newWorld(b)
	for i := range 200 {
		c := fmt.Sprintf("contact%03d@localhost", i)
		w.friends("juliet@localhost", c)
		if i%2 == 0 {
			w.bind(c + "/phone").send("<presence/>")
		}
	}
	get := stanzaOf(b, "<iq type='get' id='g'><query xmlns='"+roster.NS+"' ver=''/></iq>")
	get.From, get.To = jid.MustParse("juliet@localhost/balcony"), jid.MustParse("juliet@localhost")
	initial := stanzaOf(b, "<presence/>")
	initial.From = get.From
	b.ReportAllocs()
	for b.Loop() {
		s, err := w.router.Bind(w.ctx, get.To, "balcony", new(stub))
		if err != nil {
			b.Fatal(err)
		}
		w.router.Handle(w.ctx, &xmpp.Outgoing{Stanza: get, Sender: s})
		w.router.Handle(w.ctx, &xmpp.Outgoing{Stanza: initial, Sender: s})
		w.router.Unbind(w.ctx, s)
	}
}
