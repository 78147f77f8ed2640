package pubsub_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"balcony/roster"
	"balcony/xmpp"
	"balcony/xmpp/ext/pubsub"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
)

// XEP-0163 §4.3.4: at the login of an account with a large roster the last item of each contact comes once, however slowly the client reads: together
// they are many times what a session may have in its queue and the system in its buffers.
func TestLoginWithALargeRoster(t *testing.T) {
	const contacts = 300
	srv := xmpptest.New(t)
	ctx := t.Context()
	juliet := srv.Account("juliet@localhost")
	payload := fmt.Appendf(nil, "<tune xmlns='%s'><title>%s</title></tune>", tune, bytes.Repeat([]byte("la"), 64<<10))
	from := make(map[string]int)
	for i := range contacts {
		c := jid.MustParse(fmt.Sprintf("contact%d@localhost", i))
		from[c.String()] = 0
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(srv.DB().CreateAccount(ctx, c, nil))
		must(srv.DB().CreatePubSubNode(ctx, c, pubsub.Node{Name: tune, Config: pubsub.DefaultConfig(), Creator: c, Created: time.Now()}))
		_, err := srv.DB().PublishPubSubItem(ctx, c, tune, pubsub.Item{ID: "current", Published: time.Now(), Payload: payload}, 1, false, time.Time{})
		must(err)
		_, err = srv.DB().UpdateItem(ctx, juliet, c, func(it *roster.Item) bool { it.To, it.Listed = true, true; return true })
		must(err)
		_, err = srv.DB().UpdateItem(ctx, c, juliet, func(it *roster.Item) bool { it.From, it.Listed = true, true; return true })
		must(err)
	}
	c, _ := srv.Login("juliet@localhost")
	c.Write("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>balcony</resource></bind></iq>")
	c.Element()
	c.Write("<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:c' ver='bWFkZSB1cA=='/></presence>")
	answer := func(e *xmpp.Element) bool {
		if e.Local != "iq" || e.Attr("type") != "get" {
			return false
		}
		c.Write("<iq type='result' id='" + e.Attr("id") + "' to='" + e.Attr("from") + "'><query xmlns='http://jabber.org/protocol/disco#info' node='urn:c#bWFkZSB1cA=='>" +
			"<identity category='client' type='pc'/><feature var='" + tune + "+notify'/></query></iq>")
		return true
	}
	for !answer(c.Element()) {
	}
	// Nobody reads what comes now; others are served.
	romeo := srv.Client("romeo@localhost/orchard")
	romeo.Send("<message to='juliet@localhost/balcony' id='meanwhile' type='chat'><body>hi</body></message>")
	romeo.Sync()
	left, met := contacts, false
	for left > 0 || !met {
		e := c.Element()
		switch {
		case e.Local == "message" && e.Attr("id") == "meanwhile":
			met = true
		case e.Local == "message":
			who := e.Attr("from")
			if n, known := from[who]; !known || n > 0 || !strings.Contains(e.String(), "<item id='current'>") {
				t.Fatalf("from %s, again or another: %.300s", who, e)
			}
			from[who]++
			left--
		}
	}
	c.Write("<iq type='get' id='ping' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
	for {
		e := c.Element()
		if e.Local == "iq" && e.Attr("id") == "ping" {
			break
		}
		if e.Local == "message" {
			t.Fatalf("one more: %.300s", e)
		}
	}
}
