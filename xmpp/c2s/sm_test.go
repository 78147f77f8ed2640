package c2s_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/xmpp"
	"balcony/xmpp/xmpptest"
)

const sm = "urn:xmpp:sm:3"

// enable turns stream management on and returns the SM-ID.
func enable(t *testing.T, c *xmpptest.Client) string {
	t.Helper()
	c.Send("<enable xmlns='" + sm + "' resume='true'/>")
	e := c.Read()
	if e.Local != "enabled" || e.Space != sm {
		t.Fatalf("enable: %s", e)
	}
	return attr(e, "id")
}

func attr(e *xmpp.Element, name string) string {
	for _, a := range e.Attrs {
		if a.Name == name {
			return a.Value
		}
	}
	return ""
}

// resume logs in and asks for a session; it returns the answer.
func resume(t *testing.T, srv *xmpptest.Server, account, id string, h int) (*xmpptest.Client, *xmpp.Element) {
	t.Helper()
	c, features := srv.Login(account)
	if !strings.Contains(features.String(), sm) {
		t.Fatalf("no stream management in %s", features)
	}
	c.Write(fmt.Sprintf("<resume xmlns='%s' previd='%s' h='%d'/>", sm, id, h))
	return c, c.Element()
}

// XEP-0198 §3 and §4: enabling, counting, asking and answering.
func TestManagementAcks(t *testing.T) {
	srv := xmpptest.New(t)
	c := srv.Client("romeo@localhost/orchard")
	c.Send("<enable xmlns='" + sm + "' resume='true' max='60'/>")
	c.Expect("<enabled xmlns='" + sm + "' id='{any}' resume='true' max='60'/>")
	c.Send("<r xmlns='" + sm + "'/>")
	c.Expect("<a xmlns='" + sm + "' h='0'/>")
	c.Send("<iq type='get' id='1' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq><message to='nobody@localhost' type='headline'/><r xmlns='" + sm + "'/>")
	c.Expect("<iq type='result' id='1' from='localhost' to='romeo@localhost/orchard'/>")
	c.Expect("<r xmlns='" + sm + "'/>")
	c.Expect("<a xmlns='" + sm + "' h='2'/>")
	c.Send("<a xmlns='" + sm + "' h='1'/><r xmlns='" + sm + "'/>")
	c.Expect("<a xmlns='" + sm + "' h='2'/>")
	// §3: a second attempt ends the stream.
	c.Send("<enable xmlns='" + sm + "'/>")
	c.ExpectClose("<policy-violation xmlns='" + streams + "'/>")
}

// XEP-0198 §7, example 13: more was acknowledged than was sent.
func TestManagementTooHigh(t *testing.T) {
	srv := xmpptest.New(t)
	c := srv.Client("romeo@localhost/orchard")
	enable(t, c)
	c.Send("<a xmlns='" + sm + "' h='10'/>")
	c.Expect("<stream:error><undefined-condition xmlns='" + streams + "'/><text xmlns='" + streams + "' xml:lang='en'>You acknowledged 10 stanzas, but I only sent you 0 so far.</text>" +
		"<handled-count-too-high xmlns='" + sm + "' h='10' send-count='0'/></stream:error>")
}

// XEP-0198 §3 and §5: what is asked for at the wrong time fails and leaves the stream as it is.
func TestManagementOrder(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("romeo@localhost")
	c, _ := srv.Login("romeo@localhost")
	const unexpected = "<failed xmlns='" + sm + "'><unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
	c.Write("<enable xmlns='" + sm + "'/>")
	c.ExpectElement(unexpected)
	c.Write("<resume xmlns='" + sm + "' previd='unknown' h='0'/>")
	c.ExpectElement("<failed xmlns='" + sm + "'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>")
	c.Bind("orchard")
	c.Send("<r xmlns='" + sm + "'/>")
	c.Expect(unexpected)
	c.Send("<resume xmlns='" + sm + "' previd='unknown' h='0'/>")
	c.Expect(unexpected)
	c.ExpectNothing()
}

// A lost connection: contacts see nothing, what comes is kept, and the client has it in order and once when it is back. XEP-0198 §5.
func TestResume(t *testing.T) {
	srv := xmpptest.New(t)
	romeo := srv.Client("romeo@localhost/orchard")
	romeo.Online()
	juliet := srv.Client("juliet@localhost/balcony")
	id := enable(t, juliet)
	juliet.Send("<presence/>")
	juliet.Read() // own presence: 1
	juliet.Expect("<r xmlns='" + sm + "'/>")
	say := func(n int) {
		romeo.Send(fmt.Sprintf("<message to='juliet@localhost' type='chat'><body>%d</body></message>", n))
	}
	say(0)
	juliet.Expect("<message from='romeo@localhost/orchard' to='juliet@localhost' type='chat'><body>0</body></message>")
	juliet.Disconnect()
	for n := 1; n < 4; n++ {
		say(n)
	}
	romeo.ExpectNothing()
	// Another account cannot have it, with or without the right count.
	if _, e := resume(t, srv, "romeo@localhost", id, 0); e.Local != "failed" {
		t.Fatalf("another account: %s", e)
	}
	// The client got its presence, and says nothing of message 0: that comes again.
	back, e := resume(t, srv, "juliet@localhost", id, 1)
	if e.Local != "resumed" || attr(e, "h") != "1" || attr(e, "previd") != id {
		t.Fatalf("resume: %s", e)
	}
	back.Resumed(juliet)
	for n := range 4 {
		back.Expect(fmt.Sprintf("<message from='romeo@localhost/orchard' to='juliet@localhost' type='chat'><body>%d</body></message>", n))
	}
	back.Expect("<r xmlns='" + sm + "'/>")
	back.Send("<a xmlns='" + sm + "' h='5'/>")
	say(4)
	back.Expect("<message from='romeo@localhost/orchard' to='juliet@localhost' type='chat'><body>4</body></message>")
	back.Send("<message to='romeo@localhost/orchard' type='chat'><body>back</body></message>")
	romeo.Expect("<message from='juliet@localhost/balcony' to='romeo@localhost/orchard' type='chat'><body>back</body></message>")
	romeo.ExpectNothing()
	if n := srv.Offline("juliet@localhost"); n != 0 {
		t.Errorf("%d messages in the spool", n)
	}
}

// The old connection is still open when the client comes back: it is told of the conflict, and nothing is lost or doubled. XEP-0198 §5.
func TestResumeWhileConnected(t *testing.T) {
	srv := xmpptest.New(t)
	romeo := srv.Client("romeo@localhost/orchard")
	juliet := srv.Client("juliet@localhost/balcony")
	id := enable(t, juliet)
	romeo.Send("<message to='juliet@localhost/balcony' type='chat'><body>hi</body></message>")
	juliet.Expect("<message from='romeo@localhost/orchard' to='juliet@localhost/balcony' type='chat'><body>hi</body></message>")
	juliet.Expect("<r xmlns='" + sm + "'/>")
	back, e := resume(t, srv, "juliet@localhost", id, 1)
	if e.Local != "resumed" {
		t.Fatalf("resume: %s", e)
	}
	juliet.ExpectClose("<conflict xmlns='" + streams + "'/>")
	back.Resumed(juliet)
	back.ExpectNothing()
}

// Many resumptions at the same time: each takes the session from the one before, the last one has it, and no message is lost.
func TestResumeRace(t *testing.T) {
	srv := xmpptest.New(t)
	romeo := srv.Client("romeo@localhost/orchard")
	juliet := srv.Client("juliet@localhost/balcony")
	id := enable(t, juliet)
	juliet.Disconnect()
	const messages, clients = 50, 5
	for n := range messages {
		romeo.Send(fmt.Sprintf("<message to='juliet@localhost/balcony' type='chat' id='%d'/>", n))
	}
	romeo.Sync()
	all := make([]*xmpptest.Client, clients)
	for i := range all {
		all[i], _ = srv.Login("juliet@localhost")
	}
	var done sync.WaitGroup
	for _, c := range all {
		done.Go(func() { c.Write(fmt.Sprintf("<resume xmlns='%s' previd='%s' h='0'/>", sm, id)) })
	}
	done.Wait()
	whole := 0
	for _, c := range all {
		got := 0
		for {
			e, err := c.Next()
			if err != nil || e.Local == "error" {
				break
			}
			if e.Local == "message" {
				if attr(e, "id") != fmt.Sprint(got) {
					t.Fatalf("got %s, want %d", e, got)
				}
				got++
			}
			if got == messages && e.Local == "r" {
				whole++
				break
			}
		}
	}
	if whole == 0 {
		t.Fatal("no client has all messages")
	}
}

// A session that is not resumed in time ends: its contacts see it go, and what it had not acknowledged goes to the spool.
func TestResumeExpires(t *testing.T) {
	srv := xmpptest.New(t)
	romeo := srv.Client("romeo@localhost/orchard")
	juliet := srv.Client("juliet@localhost/balcony")
	juliet.Send("<enable xmlns='" + sm + "' resume='true' max='1'/>")
	e := juliet.Read()
	juliet.Send("<presence/>")
	juliet.Send("<presence to='romeo@localhost/orchard'/>")
	romeo.Expect("<presence from='juliet@localhost/balcony' to='romeo@localhost/orchard'/>")
	juliet.Sync()
	juliet.Disconnect()
	romeo.Send("<message to='juliet@localhost/balcony' type='chat'><body>hi</body></message>")
	romeo.Patient("<presence type='unavailable' from='juliet@localhost/balcony' to='romeo@localhost/orchard'/>")
	srv.Eventually("the spool", func() bool { return srv.Offline("juliet@localhost") == 1 })
	_, answer := resume(t, srv, "juliet@localhost", attr(e, "id"), 0)
	if answer.Local != "failed" || attr(answer, "h") != "3" {
		t.Fatalf("resume after the end: %s", answer)
	}
}

// A client that closes its stream ends its session at once (XEP-0198 §8), and what it did not acknowledge is not lost.
func TestCloseManagedStream(t *testing.T) {
	srv := xmpptest.New(t)
	romeo := srv.Client("romeo@localhost/orchard")
	juliet := srv.Client("juliet@localhost/balcony")
	id := enable(t, juliet)
	romeo.Send("<message to='juliet@localhost/balcony' type='chat'><body>hi</body></message>")
	romeo.Sync()
	juliet.Close()
	srv.Eventually("the spool", func() bool { return srv.Offline("juliet@localhost") == 1 })
	if _, e := resume(t, srv, "juliet@localhost", id, 0); e.Local != "failed" {
		t.Fatalf("resume of a closed stream: %s", e)
	}
}

// A planned restart: sessions, counters, queues and presence go on in the next process, and contacts see nothing (design, promise 2).
func TestResumeAfterRestart(t *testing.T) {
	dir := t.TempDir()
	file := xmpptest.Config(func(c *config.Config) { c.Data, c.Storage.DSN = dir, "" })
	first := xmpptest.New(t, file)
	romeo, juliet := first.Client("romeo@localhost/orchard"), first.Client("juliet@localhost/balcony")
	romeoID, julietID := enable(t, romeo), enable(t, juliet)
	juliet.Roster()
	juliet.Expect("<r xmlns='" + sm + "'/>")
	juliet.Send("<presence><priority>5</priority></presence>")
	juliet.Read()
	juliet.Send("<presence to='romeo@localhost/orchard'/>")
	romeo.Expect("<presence from='juliet@localhost/balcony' to='romeo@localhost/orchard'/>")
	romeo.Expect("<r xmlns='" + sm + "'/>")
	juliet.Disconnect()
	for n := range 3 {
		romeo.Send(fmt.Sprintf("<message to='juliet@localhost' type='chat'><body>%d</body></message>", n))
	}
	romeo.Send("<r xmlns='" + sm + "'/>")
	romeo.Expect("<a xmlns='" + sm + "' h='3'/>")
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	romeo.ExpectClose("<system-shutdown xmlns='" + streams + "'/>")

	second := xmpptest.New(t, file)
	if !second.Available("juliet@localhost/balcony") {
		t.Fatal("juliet's presence is gone")
	}
	back, e := resume(t, second, "romeo@localhost", romeoID, 1)
	if e.Local != "resumed" || attr(e, "h") != "3" {
		t.Fatalf("romeo: %s", e)
	}
	back.Resumed(romeo)
	back.Send("<message to='juliet@localhost' type='chat'><body>3</body></message>")
	back.ExpectNothing() // no unavailable presence of juliet's
	j, e := resume(t, second, "juliet@localhost", julietID, 2)
	if e.Local != "resumed" || attr(e, "h") != "3" {
		t.Fatalf("juliet: %s", e)
	}
	j.Resumed(juliet)
	for n := range 4 {
		j.Expect(fmt.Sprintf("<message from='romeo@localhost/orchard' to='juliet@localhost' type='chat'><body>%d</body></message>", n))
	}
	j.Expect("<r xmlns='" + sm + "'/>")
	// What the modules keep went along: roster pushes, and who has to hear that juliet leaves.
	other := second.Client("juliet@localhost/phone")
	other.Send("<iq type='set' id='s'><query xmlns='jabber:iq:roster'><item jid='nurse@localhost'/></query></iq>")
	j.Expect("<iq type='set' id='{any}' to='juliet@localhost/balcony'><query xmlns='jabber:iq:roster' ver='{any}'><item jid='nurse@localhost' subscription='none'/></query></iq>")
	j.Send("<a xmlns='" + sm + "' h='7'/>") // roster, presence, four messages, push
	j.Close()
	back.Expect("<r xmlns='" + sm + "'/>") // from the ping above
	back.Expect("<presence type='unavailable' from='juliet@localhost/balcony' to='romeo@localhost/orchard'/>")
	if n := second.Offline("juliet@localhost"); n != 0 {
		t.Errorf("%d messages in the spool", n)
	}
}
