package carbons_test

import (
	"context"
	"fmt"
	"testing"

	"balcony/xmpp/ext/mam"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
)

// A message of type normal to a resource that is gone: RFC 6121 §8.5.3.2.1 gives it to nobody, and wants silence or an error; XEP-0280 §7 copies it to every session that did
// not receive it; XEP-0313 §6.1 archives what was accepted. So it is copied and archived, or it is answered with an error and neither.
func TestGoneResourceIsArchivedWhenCopied(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Archive)
	romeo := srv.Client("romeo@localhost/orchard")
	const refused = "<message type='error' id='%d' from='juliet@localhost/gone' to='romeo@localhost/orchard'>%s<error type='cancel' code='503'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
	want := 0
	send := func(n int, copied ...*xmpptest.Client) {
		t.Helper()
		romeo.Send(fmt.Sprintf("<message to='juliet@localhost/gone' id='%d'><body>%d</body></message>", n, n))
		if len(copied) == 0 {
			romeo.Expect(fmt.Sprintf(refused, n, fmt.Sprintf("<body>%d</body>", n)))
		}
		romeo.ExpectNothing()
		if len(copied) > 0 {
			want++
		}
		page, err := srv.DB().QueryArchive(context.Background(), jid.MustParse("juliet@localhost"), mam.Query{Max: 100})
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Messages) != want {
			t.Fatalf("message %d: %d in the archive, want %d", n, len(page.Messages), want)
		}
		for _, c := range copied {
			c.Expect(fmt.Sprintf("<message from='juliet@localhost' to='%s'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>"+
				"<message xmlns='jabber:client' from='romeo@localhost/orchard' to='juliet@localhost/gone' id='%d'><body>%d</body><stanza-id xmlns='urn:xmpp:sid:0' by='juliet@localhost' id='%s'/></message></forwarded></received></message>",
				c.JID, n, n, page.Messages[want-1].ID))
		}
	}
	send(0)
	balcony := srv.Client("juliet@localhost/balcony")
	balcony.Online()
	send(1) // it has not enabled carbons
	balcony.ExpectNothing()
	enable(balcony)
	send(2, balcony)
	chamber := srv.Client("juliet@localhost/chamber")
	enable(chamber)
	send(3, balcony, chamber)
	// A session that ends has copies until it has told its end, which is after it has left the table: nothing shows when.
	chamber.Send("<iq type='set' id='off'><disable xmlns='urn:xmpp:carbons:2'/></iq>")
	chamber.Expect("<iq type='result' id='off' from='juliet@localhost' to='juliet@localhost/chamber'/>")
	chamber.Close()
	// A session with negative priority is not one that reads the account's messages.
	balcony.Send("<presence><priority>-1</priority></presence>")
	balcony.Sync()
	balcony.Discard()
	send(4)
	if e := balcony.Read(); e.Local != "message" {
		t.Errorf("not the copy for a logging client: %s", e)
	}
	// What is no message for other devices is answered with an error.
	romeo.Send("<message to='juliet@localhost/gone' id='5'><body>5</body><private xmlns='urn:xmpp:carbons:2'/></message>")
	romeo.Expect(fmt.Sprintf(refused, 5, "<body>5</body><private xmlns='urn:xmpp:carbons:2'/>"))
	send(6)
}
