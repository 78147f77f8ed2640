package pubsub_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/xmpp"
	"balcony/xmpp/ext/pubsub"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
)

// Security promise 22: whoever gets the name of an account that was deleted has nothing of it, also of what is remembered of the nodes of others.
func TestNameOfADeletedAccount(t *testing.T) {
	srv := xmpptest.New(t)
	ask := func(c *xmpptest.Client, to, typ, ns, inside string) string {
		t.Helper()
		c.Send("<iq type='" + typ + "' id='q' to='" + to + "'><pubsub xmlns='" + ns + "'>" + inside + "</pubsub></iq>")
		for {
			if e := c.Read(); e.Local == "iq" {
				return e.String()
			}
		}
	}
	juliet, romeo := srv.Client("juliet@localhost/balcony"), srv.Client("romeo@localhost/orchard")
	const configuration = "<configure><x xmlns='jabber:x:data' type='submit'><field var='pubsub#access_model'><value>whitelist</value></field></x></configure>"
	for _, to := range []string{"juliet@localhost", "pubsub.localhost"} {
		for _, request := range []struct{ ns, inside string }{
			{pubsub.NS, "<create node='secret'/>" + configuration},
			{pubsub.NSOwner, "<affiliations node='secret'><affiliation jid='romeo@localhost' affiliation='member'/></affiliations>"},
			{pubsub.NS, "<publish node='secret'><item id='1'><x xmlns='urn:x'/></item></publish>"},
		} {
			if got := ask(juliet, to, "set", request.ns, request.inside); !strings.Contains(got, "type='result'") {
				t.Fatal(got)
			}
		}
	}
	if got := ask(romeo, "pubsub.localhost", "set", pubsub.NS, "<create node='his'/>"); !strings.Contains(got, "type='result'") {
		t.Fatal(got)
	}
	if got := ask(romeo, "pubsub.localhost", "set", pubsub.NS, "<publish node='his'><item id='1'><x xmlns='urn:x'/></item></publish>"); !strings.Contains(got, "type='result'") {
		t.Fatal(got)
	}
	read := func(c *xmpptest.Client, to string) string {
		return ask(c, to, "get", pubsub.NS, "<items node='secret'/>")
	}
	for _, to := range []string{"juliet@localhost", "pubsub.localhost"} {
		if got := read(romeo, to); !strings.Contains(got, "<item id='1'>") {
			t.Fatal(got)
		}
		ask(juliet, to, "set", pubsub.NS, "<publish node='secret'><item id='1'><x xmlns='urn:x'/></item></publish>") // for which its members are looked up
	}
	romeo.Close()
	srv.Eventually("the end of romeo", func() bool { return len(srv.Sessions(romeo.JID.Bare())) == 0 })
	if err := srv.Accounts().Delete(t.Context(), romeo.JID.Bare()); err != nil {
		t.Fatal(err)
	}
	another := srv.Client("romeo@localhost/orchard")
	for to, want := range map[string]string{"juliet@localhost": "<service-unavailable ", "pubsub.localhost": "<closed-node "} {
		if got := read(another, to); !strings.Contains(got, want) {
			t.Errorf("at %s: %s", to, got)
		}
	}
	if got := ask(another, "pubsub.localhost", "get", pubsub.NS, "<items node='his'/>"); !strings.Contains(got, "<item-not-found ") {
		t.Errorf("a node that he alone owned: %s", got)
	}
}

// What is changed behind the module, as by an import, takes nothing from accounts that are online.
func TestStoreForOthers(t *testing.T) {
	w := newWorld(t, "juliet@localhost", "nurse@localhost")
	w.from["juliet@localhost romeo@remote"] = true
	w.wantsTunes(t)
	w.publishes(t, tune, "1")
	w.presence(t, "romeo@remote/orchard", "", "bWFkZSB1cA==")
	w.next(t)
	nurse, juliet := jid.MustParse("nurse@localhost"), jid.MustParse("juliet@localhost")
	st := w.m.Store()
	for _, err := range []error{
		st.CreatePubSubNode(t.Context(), nurse, pubsub.Node{Name: tune, Config: pubsub.DefaultConfig(), Creator: nurse}),
		st.SetPubSubSubscription(t.Context(), nurse, tune, pubsub.Subscription{JID: juliet, State: pubsub.Subscribed}),
		st.SetPubSubAffiliation(t.Context(), juliet, tune, jid.MustParse("tybalt@remote"), pubsub.Outcast),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w.publishes(t, tune, "2")
	if got := w.next(t); got.To.String() != "romeo@remote/orchard" || !strings.Contains(got.String(), "<item id='2'>") {
		t.Errorf("romeo got %s", got)
	}
	w.from["juliet@localhost tybalt@remote"] = true
	if got := w.request(t, "tybalt@remote/x", "juliet@localhost", "get", pubsub.NS, "<items node='"+tune+"'/>"); got != "forbidden" {
		t.Errorf("an outcast: %s", got)
	}
}

// A planned restart: a session that waits for its client goes on hearing of what it wants (XEP-0163 §4.3.3), and its next presence is not its first.
func TestInterestAfterARestart(t *testing.T) {
	const sm = "urn:xmpp:sm:3"
	dir := t.TempDir()
	file := xmpptest.Config(func(c *config.Config) { c.Data, c.Storage.DSN = dir, "" })
	srv := xmpptest.New(t, file)
	phone := srv.Client("juliet@localhost/phone")
	read := 0
	// next skips what stream management says.
	next := func(c *xmpptest.Client) *xmpp.Element {
		t.Helper()
		for {
			if e := c.Read(); e.Space != sm {
				read++
				return e
			}
		}
	}
	publish := func(id string) {
		t.Helper()
		desk := srv.Client("juliet@localhost/desk")
		desk.Send("<iq type='set' id='p'><pubsub xmlns='" + pubsub.NS + "'><publish node='" + tune + "'><item id='" + id + "'><tune xmlns='" + tune + "'/></item></publish></pubsub></iq>")
		desk.Sync()
		desk.Close()
	}
	news := func(e *xmpp.Element, id string) {
		t.Helper()
		if e.Local != "message" || !strings.Contains(e.String(), "<item id='"+id+"'>") {
			t.Fatalf("not item %s: %s", id, e)
		}
	}
	publish("1")
	phone.Send("<enable xmlns='" + sm + "' resume='true'/>")
	session := phone.Read().Attr("id")
	const presence = "<presence>%s<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:c' ver='bWFkZSB1cA=='/></presence>"
	phone.Send(fmt.Sprintf(presence, ""))
	next(phone)
	phone.Send("<iq type='result' id='" + next(phone).Attr("id") + "' to='juliet@localhost'><query xmlns='http://jabber.org/protocol/disco#info' node='urn:c#bWFkZSB1cA=='>" +
		"<identity category='client' type='pc'/><feature var='" + tune + "+notify'/></query></iq>")
	news(next(phone), "1")
	phone.Disconnect()
	if err := srv.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	srv = xmpptest.New(t, file)
	publish("2")
	back, _ := srv.Login("juliet@localhost")
	back.Write(fmt.Sprintf("<resume xmlns='%s' previd='%s' h='%d'/>", sm, session, read))
	if e := back.Element(); e.Local != "resumed" {
		t.Fatal(e)
	}
	back.Resumed(phone)
	news(next(back), "2")
	back.Send(fmt.Sprintf(presence, "<show>away</show>"))
	if e := next(back); e.Local != "presence" {
		t.Errorf("not the presence: %s", e)
	}
	back.Send("<iq type='get' id='ping' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
	if e := next(back); e.Attr("id") != "ping" {
		t.Errorf("once more: %s", e)
	}
}

// What shares a node's data is told before the node goes, and can keep it.
func TestDoomed(t *testing.T) {
	w := newWorld(t, "juliet@localhost")
	w.publishes(t, tune, "1")
	there, keep := false, true
	w.m.Doomed(tune, func(ctx context.Context, account jid.JID) error {
		var err error
		if there, err = w.m.Has(ctx, account, tune); err == nil && keep {
			err = xmpp.ErrInternal
		}
		return err
	})
	remove := func() string {
		return w.request(t, "juliet@localhost/balcony", "juliet@localhost", "set", pubsub.NSOwner, "<delete node='"+tune+"'/>")
	}
	if got := remove(); got != "internal-server-error" || !there {
		t.Errorf("%s, %t", got, there)
	}
	if keep = false; remove() != "" || !there {
		t.Errorf("not removed, %t", there)
	}
	if is, err := w.m.Has(t.Context(), jid.MustParse("juliet@localhost"), tune); is || err != nil {
		t.Errorf("it is there: %t, %v", is, err)
	}
}
