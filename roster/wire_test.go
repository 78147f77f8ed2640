package roster_test

import (
	"fmt"
	"strings"
	"testing"

	"balcony/roster"
	"balcony/xmpp"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
)

// The exchanges of RFC 6121 §2 to §4 on the wire.
func TestTranscripts(t *testing.T) { xmpptest.Transcripts(t, "testdata/*.txt") }

// RFC 6121 §2.6.1 and §3.4: both are advertised once the client has authenticated, and not before.
func TestStreamFeatures(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("juliet@localhost")
	want := []string{"{urn:xmpp:features:rosterver}ver", "{urn:xmpp:features:pre-approval}sub"}
	has := func(features *xmpp.Element, want string) bool {
		for _, f := range features.Children {
			if "{"+f.Space+"}"+f.Local == want {
				return true
			}
		}
		return false
	}
	c := srv.Dial()
	_, before := c.Open("localhost")
	_, after := srv.Login("juliet@localhost")
	for _, w := range want {
		if has(before, w) || !has(after, w) {
			t.Errorf("%s: before authentication %v, after %v", w, has(before, w), has(after, w))
		}
	}
}

// What others leave for an account is shown at login however much it is: a session is not ended for what it did not ask for. Together it
// is several times an outbox.
func TestLoginThatBringsMuch(t *testing.T) {
	srv := xmpptest.New(t)
	juliet := srv.Account("juliet@localhost")
	update := func(owner, contact jid.JID, change func(*roster.Item)) {
		t.Helper()
		_, err := srv.DB().UpdateItem(t.Context(), owner, contact, func(it *roster.Item) bool {
			change(it)
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	const items, requests, contacts = 1500, 300, 8
	for i := range items {
		update(juliet, jid.MustParse(fmt.Sprintf("item%d@localhost", i)), func(it *roster.Item) {
			it.Listed, it.Name = true, strings.Repeat("n", 1000)
		})
	}
	for i := range requests {
		update(juliet, jid.MustParse(fmt.Sprintf("stranger%d@localhost", i)), func(it *roster.Item) {
			it.In, it.Request = true, []byte("<presence type='subscribe'><status>"+strings.Repeat("r", 7000)+"</status></presence>")
		})
	}
	for i := range contacts {
		romeo := srv.Account(fmt.Sprintf("romeo%d@localhost", i))
		both := func(it *roster.Item) { it.To, it.From, it.Listed = true, true, true }
		update(juliet, romeo, both)
		update(romeo, juliet, both)
		r := srv.Client(romeo.String() + "/orchard")
		r.Send("<presence><status>" + strings.Repeat("p", 200_000) + "</status></presence>")
		r.Read()
	}
	c := srv.Client("juliet@localhost/balcony")
	c.Send("<iq type='get' id='g'><query xmlns='jabber:iq:roster'/></iq>")
	if n := len(c.Read().Children[0].Children); n != items+contacts {
		t.Errorf("%d items in the roster", n)
	}
	c.Online()
	for range contacts + requests {
		if e := c.Read(); e.Local != "presence" {
			t.Fatalf("got %s", e)
		}
	}
	c.ExpectNothing()
}

// A pre-approval (RFC 6121 §3.4) is for the account that had the name, not for whoever registers the name after its deletion.
func TestPreApprovalEndsWithTheAccount(t *testing.T) {
	srv := xmpptest.New(t)
	juliet := srv.Client("juliet@localhost/balcony")
	juliet.Online()
	romeo := srv.Account("romeo@localhost")
	juliet.Send("<presence type='subscribed' to='romeo@localhost'/>")
	juliet.Sync()
	if err := srv.Accounts().Delete(t.Context(), romeo); err != nil {
		t.Fatal(err)
	}
	mallory := srv.Client("romeo@localhost/mallory")
	mallory.Online()
	mallory.Send("<presence type='subscribe' to='juliet@localhost' id='s'/>")
	mallory.Sync()
	mallory.ExpectNothing()
	juliet.Expect("<presence type='subscribe' from='romeo@localhost' to='juliet@localhost' id='s'/>") // she is asked
}
