package blocking_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/xmpp"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
)

func TestTranscripts(t *testing.T) { xmpptest.Transcripts(t, "testdata/*.txt") }

const refused = "<error type='cancel' code='503'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"

// command sends a <block/> or <unblock/> and reads its result.
func command(c *xmpptest.Client, name string, entries ...string) {
	el := xmpp.El("urn:xmpp:blocking", name)
	for _, e := range entries {
		el.Add(xmpp.El("", "item", "jid", e))
	}
	c.Send("<iq type='set' id='cmd'>" + el.String() + "</iq>")
	c.Expect(fmt.Sprintf("<iq type='result' id='cmd' from='%s' to='%s'/>", c.JID.Bare(), c.JID))
}

// XEP-0191 §6 on the wire: whom an entry keeps away.
func TestEntriesKeepAwayWhomTheyName(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) {
		c.Domains = append(c.Domains, config.Domain{Name: "another.localhost", Registration: config.Closed})
	}))
	juliet := srv.Client("juliet@localhost/chamber")
	juliet.Online()
	home, work, nurse := srv.Client("romeo@another.localhost/home"), srv.Client("romeo@another.localhost/work"), srv.Client("nurse@another.localhost/kitchen")
	for _, tt := range []struct {
		entry             string
		home, work, nurse bool // delivered
	}{
		{"romeo@another.localhost/home", false, true, true},
		{"romeo@another.localhost", false, false, true},
		{"another.localhost", false, false, false},
		{"another.localhost/home", true, true, true},
		{"romeo@localhost", true, true, true},
		{"localhost/home", true, true, true},
	} {
		command(juliet, "block", tt.entry)
		for _, s := range []struct {
			c         *xmpptest.Client
			delivered bool
		}{{home, tt.home}, {work, tt.work}, {nurse, tt.nurse}} {
			s.c.Send("<message type='chat' id='m' to='juliet@localhost'><body>x</body></message>")
			if s.delivered {
				juliet.Expect(fmt.Sprintf("<message type='chat' id='m' to='juliet@localhost' from='%s'><body>x</body></message>", s.c.JID))
			} else {
				s.c.Expect(fmt.Sprintf("<message type='error' id='m' from='juliet@localhost' to='%s'><body>x</body>%s</message>", s.c.JID, refused))
			}
		}
		command(juliet, "unblock", tt.entry)
	}
	juliet.ExpectNothing()
}

// XEP-0191 §5: entries that cover the account itself, which the command refuses and an import may bring, keep nothing of its own from it.
func TestOwnAccountIsNeverBlocked(t *testing.T) {
	srv := xmpptest.New(t)
	if err := srv.DB().Block(t.Context(), srv.Account("juliet@localhost"), []jid.JID{jid.MustParse("juliet@localhost"), jid.MustParse("localhost")}); err != nil {
		t.Fatal(err)
	}
	juliet, balcony := srv.Client("juliet@localhost/chamber"), srv.Client("juliet@localhost/balcony")
	juliet.Send("<message to='juliet@localhost/balcony' id='m'><body>to myself</body></message>")
	balcony.Expect("<message from='juliet@localhost/chamber' to='juliet@localhost/balcony' id='m'><body>to myself</body></message>")
	command(juliet, "unblock", "localhost", "juliet@localhost") // the account answers, and the entries can be taken off
	juliet.Send("<iq type='get' id='l'><blocklist xmlns='urn:xmpp:blocking'/></iq>")
	juliet.Expect("<iq type='result' id='l' from='juliet@localhost' to='juliet@localhost/chamber'><blocklist xmlns='urn:xmpp:blocking'/></iq>")
}

func TestFullListRefusesAllOfARequest(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Limits.BlockedJIDs = 3 }))
	c := srv.Client("juliet@localhost/chamber")
	command(c, "block", "a@localhost", "b@localhost")
	const two = "<block xmlns='urn:xmpp:blocking'><item jid='c@localhost'/><item jid='d@localhost'/></block>"
	c.Send("<iq type='set' id='1'>" + two + "</iq>")
	c.Expect("<iq type='error' id='1' from='juliet@localhost' to='juliet@localhost/chamber'>" + two +
		"<error type='wait' code='500'><resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>")
	command(c, "block", "b@localhost", "c@localhost") // one of them is there already
	c.Send("<iq type='get' id='2'><blocklist xmlns='urn:xmpp:blocking'/></iq>")
	c.Expect("<iq type='result' id='2' from='juliet@localhost' to='juliet@localhost/chamber'><blocklist xmlns='urn:xmpp:blocking'>" +
		"<item jid='a@localhost'/><item jid='b@localhost'/><item jid='c@localhost'/></blocklist></iq>")
}

// A name that is registered again has nobody blocked, whatever is remembered of the account before it.
func TestNewAccountOfAnOldNameBlocksNobody(t *testing.T) {
	srv := xmpptest.New(t)
	juliet := srv.Client("juliet@localhost/chamber")
	command(juliet, "block", "romeo@localhost")
	romeo := srv.Client("romeo@localhost/orchard")
	for i := range 4 {
		// Messages read the list into memory again while the account is being deleted.
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 50 {
				romeo.Send("<message type='headline' to='juliet@localhost'><body>x</body></message>")
			}
		})
		err := srv.Accounts().Delete(context.Background(), jid.MustParse("juliet@localhost"))
		juliet.Disconnect()
		srv.Account("juliet@localhost")
		wg.Wait()
		if err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprintf("m%d", i)
		romeo.Send("<message type='chat' to='juliet@localhost' id='" + id + "'><body>welcome</body></message>")
		romeo.ExpectNothing() // taken for later, not refused
		juliet = srv.Client("juliet@localhost/chamber")
		juliet.Send("<presence/>")
		for {
			if e := juliet.Read(); e.Local == "message" && strings.Contains(e.String(), id) {
				break
			}
		}
		command(juliet, "block", "romeo@localhost")
	}
}
