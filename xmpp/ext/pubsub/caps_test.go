package pubsub_test

import (
	"testing"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/ext/pubsub"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
)

// presence is presence of a contact elsewhere for juliet@localhost.
func (w *world) presence(t *testing.T, from, typ, ver string) {
	t.Helper()
	s := xmpp.New(xmpp.Presence, typ, jid.MustParse("juliet@localhost"), jid.MustParse(from))
	if ver != "" {
		s = s.Append(element(t, "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:c' ver='"+ver+"'/>"))
	}
	d := &xmpp.Delivery{Account: jid.MustParse("juliet@localhost"), Key: "juliet@localhost", Stanza: s}
	for _, f := range w.reg.IncomingFilters {
		if err := f(t.Context(), d); err != nil {
			t.Fatalf("presence: %v", err)
		}
	}
}

func (w *world) publishes(t *testing.T, node, id string) {
	t.Helper()
	if got := w.request(t, "juliet@localhost/balcony", "juliet@localhost", "set", pubsub.NS,
		"<publish node='"+node+"'><item id='"+id+"'><tune xmlns='urn:x'/></item></publish>"); got == "" {
		t.Fatalf("publish: %s", got)
	}
}

// XEP-0115 §8.3: an answer that is not that of the client, with the same string to hash, must not take the interests of a client away from all others
// who have it: not with features in one another, as a form, as an identity, or in another namespace.
func TestCapsPoisoning(t *testing.T) {
	const (
		ver      = "8sCKWRVwQ8QGlHElneJtW2POoFA="
		identity = "<identity category='client' name='Exodus 0.9.1' type='pc'/>"
		tune     = "http://jabber.org/protocol/tune"
		rest     = "<feature var='http://jabber.org/protocol/disco#info'/><feature var='http://jabber.org/protocol/disco#items'/>"
		geoloc   = "<feature var='http://jabber.org/protocol/geoloc'/><feature var='http://jabber.org/protocol/geoloc+notify'/>"
	)
	for name, forged := range map[string]string{
		"in one feature": identity + rest + geoloc + "<feature var='" + tune + "&lt;" + tune + "+notify'/>",
		"as a form": identity + rest + geoloc + "<feature var='" + tune + "'/><x xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'><value>" +
			tune + "+notify</value></field></x>",
		"in an identity":       "<identity category='client' type='pc' name='Exodus 0.9.1&lt;http://jabber.org/protocol/disco#info&lt;http://jabber.org/protocol/disco#items&lt;http://jabber.org/protocol/geoloc&lt;http://jabber.org/protocol/geoloc+notify&lt;" + tune + "&lt;" + tune + "+notify'/>",
		"in another namespace": identity + rest + geoloc + "<feature var='" + tune + "'/><feature xmlns='urn:x' var='" + tune + "+notify'/>",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "juliet@localhost")
			w.from["juliet@localhost mallory@remote"] = true
			w.from["juliet@localhost romeo@remote"] = true
			answers := map[string]string{
				"mallory@remote/x": forged,
				"romeo@remote/x":   identity + rest + geoloc + "<feature var='" + tune + "'/><feature var='" + tune + "+notify'/>",
			}
			asked := make(chan struct{}, 10)
			w.ask = func(s *xmpp.Stanza) (*xmpp.Stanza, error) {
				asked <- struct{}{}
				return xmpp.New(xmpp.IQ, "result", s.From, s.To, element(t, "<query xmlns='http://jabber.org/protocol/disco#info'>"+answers[s.To.String()]+"</query>")), nil
			}
			w.publishes(t, tune, "a")
			w.presence(t, "mallory@remote/x", "", ver)
			<-asked
			w.presence(t, "romeo@remote/x", "", ver)
			for {
				if s := w.next(t); s.To.String() == "romeo@remote/x" {
					break
				}
			}
		})
	}
}

func (w *world) wait(t *testing.T, done <-chan struct{}, otherwise string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(xmpptest.Patience):
		t.Fatal(otherwise)
	}
}
