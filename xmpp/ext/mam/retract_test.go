package mam_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/ext/mam"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
)

// retracts are the ids of an account's archive, those of tombstones with the id of the retraction behind.
func retracts(t *testing.T, srv *xmpptest.Server, owner string) (list []string) {
	t.Helper()
	page, err := srv.DB().QueryArchive(context.Background(), jid.MustParse(owner), mam.Query{Max: 1000})
	if err != nil {
		t.Fatal(err)
	}
	between := func(s, from, to string) string {
		_, rest, _ := strings.Cut(s, from)
		id, _, _ := strings.Cut(rest, to)
		return id
	}
	for _, m := range page.Messages {
		xml := string(m.XML)
		id := between(xml, " id='", "'")
		if strings.Contains(xml, "<retracted") {
			id += "←" + between(xml, "<retracted xmlns='urn:xmpp:message-retract:1' id='", "'")
			if strings.Contains(xml, "secret") {
				t.Errorf("left in the archive of %s: %s", owner, xml)
			}
		}
		list = append(list, id)
	}
	return list
}

func retract(c *xmpptest.Client, to, typ, id, target, more string) {
	c.Send(fmt.Sprintf("<message to='%s' type='%s' id='%s'><retract xmlns='urn:xmpp:message-retract:1' id='%s'/>%s</message>", to, typ, id, target, more))
	c.Sync()
}

// XEP-0424 §5: only who has sent a message retracts it, from any resource, and it is the last message with the id.
func TestRetraction(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive))
	romeo, juliet, tybalt := srv.Client("romeo@localhost/orchard"), srv.Client("juliet@localhost/balcony"), srv.Client("tybalt@localhost/street")
	phone := srv.Client("romeo@localhost/phone")
	juliet.Online()
	say := func(c *xmpptest.Client, to, id, payload string) {
		c.Send(fmt.Sprintf("<message to='%s' type='chat' id='%s' xml:lang='secret'>%s<origin-id xmlns='urn:xmpp:sid:0' id='secret'/></message>", to, id, payload))
		c.Sync()
	}
	const body = "<body>secret</body>"
	say(romeo, "juliet@localhost/balcony", "same", body)
	say(romeo, "juliet@localhost", "same", body)
	say(romeo, "juliet@localhost", "a &amp; b", body)
	say(romeo, "juliet@localhost", "fixed", body+"<replace xmlns='urn:xmpp:message-correct:0' id='a &amp; b'/>")
	say(juliet, "romeo@localhost", "hers", body)
	say(romeo, "juliet@localhost", "kept", body)

	retract(tybalt, "juliet@localhost", "chat", "t1", "kept", "") // of somebody else
	retract(juliet, "romeo@localhost", "chat", "j1", "kept", "")  // of the other end
	retract(romeo, "juliet@localhost", "chat", "r1", "hers", "")
	retract(romeo, "tybalt@localhost", "chat", "r2", "kept", "")      // of another conversation
	retract(romeo, "juliet@localhost", "error", "r3", "kept", "")     // no retraction
	retract(romeo, "juliet@localhost", "chat", "", "kept", "")        // nothing to refer to
	retract(romeo, "juliet@localhost", "chat", "r4", "", "")          // of nothing
	retract(romeo, "juliet@localhost", "chat", "r5", "elsewhere", "") // of what there is not
	romeoHas, julietHas := retracts(t, srv, "romeo@localhost"), retracts(t, srv, "juliet@localhost")
	for _, list := range [][]string{romeoHas, julietHas} {
		if slices.ContainsFunc(list, func(s string) bool { return strings.Contains(s, "←") }) {
			t.Fatalf("retracted by who may not: %v", list)
		}
	}
	retract(phone, "juliet@localhost/balcony", "chat", "p1", "same", "")
	retract(romeo, "juliet@localhost", "chat", "r6", "a &amp; b", body)
	retract(romeo, "juliet@localhost", "chat", "r7", "r6", "")        // of a retraction
	retract(romeo, "juliet@localhost", "chat", "r8", "a &amp; b", "") // again
	for owner, before := range map[string][]string{"romeo@localhost": romeoHas, "juliet@localhost": julietHas} {
		want := slices.Clone(before)
		want[1], want[2], want[3] = "same←p1", "a &amp; b←r6", "fixed←r6"
		want = append(want, "p1", "r6", "r7", "r8")
		if got := retracts(t, srv, owner); !slices.Equal(got, want) {
			t.Errorf("%s has %v, want %v", owner, got, want)
		}
	}
}

// Who does not get the retraction keeps the message: each archive is its owner's.
func TestRetractionThatIsRefused(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive))
	romeo, juliet := srv.Client("romeo@localhost/orchard"), srv.Client("juliet@localhost/balcony")
	send(romeo, "juliet@localhost", "threat")
	juliet.Send("<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='romeo@localhost'/></block></iq>")
	juliet.Sync()
	retract(romeo, "juliet@localhost", "chat", "r", "threat", "")
	if got := retracts(t, srv, "juliet@localhost"); !slices.Equal(got, []string{"threat"}) {
		t.Errorf("juliet has %v", got)
	}
	if got := retracts(t, srv, "romeo@localhost"); !slices.Equal(got, []string{"threat←r", "r"}) {
		t.Errorf("romeo has %v", got)
	}
}

// XEP-0424 §5: the occupants of a room have its bare JID in common. Those of a room elsewhere come through a component.
func TestRetractionInARoom(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive), xmpptest.Config(func(c *config.Config) {
		c.Components = append(c.Components, config.Component{Name: "rooms.localhost", Secret: "s3cret"})
	}))
	romeo := srv.Client("romeo@localhost/orchard")
	romeo.Online()
	rooms := srv.Component("rooms.localhost", "s3cret")
	const private = "<x xmlns='http://jabber.org/protocol/muc#user'/>"
	rooms.Send("<message from='verona@rooms.localhost/juliet' to='romeo@localhost/orchard' type='chat' id='1'><body>secret</body>" + private + "</message>")
	romeo.Read()
	rooms.Send("<message from='verona@rooms.localhost/tybalt' to='romeo@localhost/orchard' type='chat' id='2'><retract xmlns='urn:xmpp:message-retract:1' id='1'/></message>")
	romeo.Read()
	if got := retracts(t, srv, "romeo@localhost"); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("romeo has %v", got)
	}
	rooms.Send("<message from='verona@rooms.localhost/juliet' to='romeo@localhost/orchard' type='chat' id='3'><retract xmlns='urn:xmpp:message-retract:1' id='1'/>" + private + "</message>")
	romeo.Read()
	if got := retracts(t, srv, "romeo@localhost"); !slices.Equal(got, []string{"1←3", "2", "3"}) {
		t.Errorf("romeo has %v", got)
	}
}

// What was retracted before anybody got it is not delivered, with the archive and without.
func TestRetractionOfWhatWaits(t *testing.T) {
	for _, archive := range []bool{true, false} {
		t.Run(fmt.Sprint(archive), func(t *testing.T) {
			srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Archive.Enabled = archive }))
			romeo, tybalt := srv.Client("romeo@localhost/orchard"), srv.Client("tybalt@localhost/street")
			srv.Account("juliet@localhost")
			send(romeo, "juliet@localhost", "1", "2", "3")
			retract(tybalt, "juliet@localhost", "chat", "forged", "1", "<body>forged</body>")
			retract(romeo, "juliet@localhost", "chat", "r", "2", "<body>retraction</body>")
			juliet := srv.Client("juliet@localhost/balcony")
			juliet.Send("<presence/>")
			got, _ := messages(t, juliet)
			same(t, "juliet gets", got, "1", "3", "forged", "retraction")
		})
	}
}
