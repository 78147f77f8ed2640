package roster_test

import (
	"encoding/xml"
	"strings"
	"testing"

	"balcony/roster"
	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// FuzzRosterSet gives the module roster sets with any content: it answers each, and whatever it accepts is within the limits and can be
// read back as it was pushed.
func FuzzRosterSet(f *testing.F) {
	for _, s := range []string{
		"<item jid='nurse@localhost' name='Nurse'><group>Servants</group></item>",
		"<item jid='nurse@localhost' subscription='remove'/>",
		"<item jid='nurse@localhost/kitchen'/>",
		"<item jid='juliet@localhost'/>",
		"<item/><item/>",
		"<item jid='a@b' name='&lt;&#9;'><group>&amp;</group><group> </group><x xmlns='y'/></item>text",
		"<y:item xmlns:y='jabber:iq:roster' jid='icq.localhost' approved='true' ask='subscribe'/>",
	} {
		f.Add(s)
	}
	w := newWorld(f)
	j := w.online("juliet@localhost/balcony")
	limits := roster.DefaultConfig()
	f.Fuzz(func(t *testing.T, item string) {
		e, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader("<query xmlns='jabber:iq:roster'>" + item + "</query>")))
		if err != nil {
			return // the scanner lets only well-formed XML through
		}
		s := xmpp.New(xmpp.IQ, "set", jid.MustParse("juliet@localhost"), j.s.JID(), e)
		s.ID = "s"
		w.t = t
		j.take()
		w.router.Handle(w.ctx, &xmpp.Outgoing{Stanza: s, Sender: j.s})
		answers := 0
		for _, got := range j.take() {
			if got.ID == "s" {
				answers++
				continue
			}
			q, ok := got.Child(roster.NS, "query")
			if !ok {
				t.Fatalf("got %s", got)
			}
			var v struct {
				Item struct {
					JID          string   `xml:"jid,attr"`
					Name         string   `xml:"name,attr"`
					Subscription string   `xml:"subscription,attr"`
					Groups       []string `xml:"group"`
				} `xml:"item"`
			}
			if err := q.Decode(&v); err != nil {
				t.Fatalf("%v: %s", err, got)
			}
			it := w.item("juliet@localhost", v.Item.JID)
			if v.Item.Subscription == "remove" {
				if it.Listed {
					t.Fatalf("%s is still there", v.Item.JID)
				}
				continue
			}
			if !it.Listed || it.Name != v.Item.Name || strings.Join(it.Groups, "|") != strings.Join(v.Item.Groups, "|") {
				t.Fatalf("pushed %+v, stored %+v", v.Item, it)
			}
			if len(it.Name) > limits.Name || len(it.Groups) > limits.Groups || it.Contact.Resourcepart() != "" {
				t.Fatalf("accepted %+v", it)
			}
		}
		if answers != 1 {
			t.Fatalf("%d answers", answers)
		}
	})
}

// FuzzRequest keeps subscription requests with any content for an offline account: each is shown at login with the same content.
func FuzzRequest(f *testing.F) {
	f.Add("<status>hi</status>", "id1")
	f.Add("<nick xmlns='http://jabber.org/protocol/nick'>R &amp; J</nick> <x:y xmlns:x='z' x:a='b'>c<d/>e</x:y>", "")
	f.Add("text", "'<>&\"")
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, children, id string) {
		e, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader("<presence>" + children + "</presence>")))
		if err != nil || len(children) > 4000 || len(id) > 1000 {
			return
		}
		for _, c := range e.Children {
			if c.Local == "" {
				return // character data between the children is not kept
			}
		}
		s := xmpp.New(xmpp.Presence, "subscribe", jid.MustParse("juliet@localhost"), jid.MustParse("romeo@example.net"), e.Children...)
		s.ID = id
		w.t = t
		w.account("juliet@localhost")
		w.router.Route(w.ctx, s)
		j := w.online("juliet@localhost/balcony")
		j.send("<presence type='unavailable'/>")
		j.take()
		j.send("<presence/>")
		got := j.take()
		if len(got) != 2 {
			t.Fatalf("%d stanzas, want the echo and the request", len(got))
		}
		want, have := elementOf(t, s.String()), elementOf(t, got[1].String())
		if why := differ(want, have); why != "" {
			t.Fatalf("kept %s\nas   %s\n%s", want, have, why)
		}
		j.send("<presence type='unsubscribed' to='romeo@example.net'/>")
		j.close()
		w.remote = nil
	})
}
