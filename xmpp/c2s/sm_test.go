package c2s_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/xmpp"
	"balcony/xmpp/ext/mam"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
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
	return e.Attr("id")
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

// A client that does not count all that it gets (xmpp.js forgets the answers to its IQs) is not asked again and again.
func TestManagementClientThatMiscounts(t *testing.T) {
	srv := xmpptest.New(t)
	c := srv.Client("romeo@localhost/orchard")
	enable(t, c)
	for h := 1; h <= 2; h++ {
		c.Send("<iq type='get' id='1' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
		c.Expect("<iq type='result' id='1' from='localhost' to='romeo@localhost/orchard'/>")
		c.Expect("<r xmlns='" + sm + "'/>")
		c.Send("<a xmlns='" + sm + "' h='0'/><r xmlns='" + sm + "'/>")
		c.Expect(fmt.Sprintf("<a xmlns='"+sm+"' h='%d'/>", h))
	}
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
	if e.Local != "resumed" || e.Attr("h") != "1" || e.Attr("previd") != id {
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
				if e.Attr("id") != fmt.Sprint(got) {
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
	_, answer := resume(t, srv, "juliet@localhost", e.Attr("id"), 0)
	if answer.Local != "failed" || answer.Attr("h") != "3" {
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
	if e.Local != "resumed" || e.Attr("h") != "3" {
		t.Fatalf("romeo: %s", e)
	}
	back.Resumed(romeo)
	back.Send("<message to='juliet@localhost' type='chat'><body>3</body></message>")
	back.ExpectNothing() // no unavailable presence of juliet's
	j, e := resume(t, second, "juliet@localhost", julietID, 2)
	if e.Local != "resumed" || e.Attr("h") != "3" {
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

// The server stops while a session receives its spool: the client that resumes it after the restart gets the rest.
func TestSpoolGoesOnAfterRestart(t *testing.T) {
	dir := t.TempDir()
	file := []xmpptest.Option{xmpptest.Config(xmpptest.Archive), xmpptest.Config(func(c *config.Config) { c.Data, c.Storage.DSN = dir, "" })}
	first := xmpptest.New(t, file...)
	juliet := first.Client("juliet@localhost/balcony")
	id := enable(t, juliet)
	juliet.Send("<presence/>")
	juliet.Read()
	juliet.Expect("<r xmlns='" + sm + "'/>")
	juliet.Send("<a xmlns='" + sm + "' h='1'/>")
	juliet.Sync()
	juliet.Disconnect()
	// What no session has taken yet.
	owner, peer := jid.MustParse("juliet@localhost"), jid.MustParse("romeo@localhost/orchard")
	left := xmpp.New(xmpp.Message, "chat", owner, peer, xmpp.El("", "body").Say("the rest"))
	kept := first.DB().AppendMessage(t.Context(), mam.Item{Owner: owner, Peer: peer, Stanza: left, Stamp: time.Now(), Archived: true, Spool: true})
	if err := kept.Commit.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := xmpptest.New(t, file...)
	j, e := resume(t, second, "juliet@localhost", id, 2)
	if e.Local != "resumed" {
		t.Fatalf("resume: %s", e)
	}
	j.Resumed(juliet)
	j.Patient("<message from='romeo@localhost/orchard' to='juliet@localhost' type='chat'><body>the rest</body>" +
		"<stanza-id xmlns='urn:xmpp:sid:0' by='juliet@localhost' id='" + kept.ID + "'/>" +
		"<delay xmlns='urn:xmpp:delay' from='localhost' stamp='{any}'>Offline Storage</delay></message>")
}

// Across a restart: a message that another device has does not come again when the devices that were away never return.
func TestCopiesAfterRestart(t *testing.T) {
	dir := t.TempDir()
	file := xmpptest.Config(func(c *config.Config) { c.Data, c.Storage.DSN = dir, "" })
	first := xmpptest.New(t, file)
	romeo := first.Client("romeo@localhost/orchard")
	laptop, phone, watch := first.Client("juliet@localhost/laptop"), first.Client("juliet@localhost/phone"), first.Client("juliet@localhost/watch")
	for _, c := range []*xmpptest.Client{phone, watch} {
		c.Send("<enable xmlns='" + sm + "' resume='true' max='1'/>")
	}
	for _, c := range []*xmpptest.Client{laptop, phone, watch} {
		c.Send("<presence/>")
		c.Sync()
	}
	phone.Disconnect()
	watch.Disconnect()
	romeo.Send("<message to='juliet@localhost' type='chat'><body>hi</body></message>")
	romeo.Sync()
	laptop.Sync()
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	second := xmpptest.New(t, file)
	if n := len(second.Sessions(jid.MustParse("juliet@localhost"))); n != 2 {
		t.Fatalf("%d sessions after the restart", n)
	}
	laptop = second.Client("juliet@localhost/laptop")
	laptop.Send("<presence/>")
	second.Eventually("the end of the other sessions", func() bool { return len(second.Sessions(jid.MustParse("juliet@localhost"))) == 1 })
	laptop.Sync()
	for e, ok := laptop.Pending(); ok; e, ok = laptop.Pending() {
		if e.Local == "message" {
			t.Errorf("the message comes again: %s", e)
		}
	}
	if err := second.Stop(t.Context()); err != nil { // what they send back is done by then
		t.Fatal(err)
	}
	third := xmpptest.New(t, file)
	if n := third.Offline("juliet@localhost"); n != 0 {
		t.Errorf("%d messages in the spool", n)
	}
}

// The bound of the queue: a client that does not acknowledge loses its session, whether it is there or not, and what it did not acknowledge goes to
// the spool, in order.
func TestQueueBound(t *testing.T) {
	const bound = 20
	for _, connected := range []bool{true, false} {
		srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Limits.Unacknowledged = bound }))
		romeo, juliet := srv.Client("romeo@localhost/orchard"), srv.Client("juliet@localhost/balcony")
		id := enable(t, juliet)
		if !connected {
			juliet.Disconnect()
		}
		for n := range bound {
			romeo.Send(fmt.Sprintf("<message to='juliet@localhost/balcony' type='chat' id='%d'><body>hi</body></message>", n))
		}
		romeo.Sync()
		if n := srv.Offline("juliet@localhost"); n != 0 {
			t.Fatalf("%d messages in the spool before the bound", n)
		}
		for n := bound; n < bound+5; n++ {
			romeo.Send(fmt.Sprintf("<message to='juliet@localhost/balcony' type='chat' id='%d'><body>hi</body></message>", n))
		}
		if connected {
			for e := juliet.Read(); e.Local != "error"; e = juliet.Read() {
				if e.Local != "message" && e.Local != "r" {
					t.Fatalf("got %s", e)
				}
			}
		}
		srv.Eventually("the end of the session", func() bool { return len(srv.Sessions(jid.MustParse("juliet@localhost"))) == 0 })
		srv.Eventually("the spool", func() bool { return srv.Offline("juliet@localhost") == bound+5 })
		back, e := resume(t, srv, "juliet@localhost", id, 0)
		if e.Local != "failed" {
			t.Fatalf("resume after the bound: %s", e)
		}
		back.Bind("balcony")
		back.Send("<presence/>")
		for n := 0; n < bound+5; {
			if e := back.Read(); e.Local == "message" {
				if e.Attr("id") != fmt.Sprint(n) {
					t.Fatalf("got %s, want %d", e, n)
				}
				n++
			}
		}
		romeo.Sync()
	}
}

// Stanzas arrive while the session is lost, found again and taken over from a connection that is still open: each comes once and in order to a client that
// counts. XEP-0198 §5.
func TestResumeWhileStanzasArrive(t *testing.T) {
	srv := xmpptest.New(t)
	romeo, juliet := srv.Client("romeo@localhost/orchard"), srv.Client("juliet@localhost/balcony")
	id := enable(t, juliet)
	const messages = 400
	var sending sync.WaitGroup
	sending.Go(func() {
		for n := range messages {
			romeo.Send(fmt.Sprintf("<message to='juliet@localhost/balcony' type='chat' id='%d'><body>hi</body></message>", n))
		}
	})
	at, h, turns := juliet, 0, 0
	for h < messages {
		// Take a few, and lose the connection or leave it open.
		for n := 0; n < 17 && h < messages; {
			e := at.Read()
			switch e.Local {
			case "message":
				if e.Attr("id") != fmt.Sprint(h) {
					t.Fatalf("got %s, want %d", e, h)
				}
				h++
				n++
			case "r":
				at.Send(fmt.Sprintf("<a xmlns='%s' h='%d'/>", sm, h))
			default:
				t.Fatalf("got %s", e)
			}
		}
		if turns++; turns%2 == 0 {
			at.Disconnect()
		}
		next, e := resume(t, srv, "juliet@localhost", id, h)
		if e.Local != "resumed" {
			t.Fatalf("turn %d: %s", turns, e)
		}
		next.Resumed(at)
		at = next
	}
	sending.Wait()
	romeo.Sync()
	at.Send("<r xmlns='" + sm + "'/>")
	for e := at.Read(); e.Local != "a"; e = at.Read() {
		if e.Local != "r" {
			t.Errorf("more than was sent: %s", e)
		}
	}
}

// XEP-0198 §9.2: <resume/> and <bind/> in one request, both for a session that is unknown and for one whose numbers are no numbers.
func TestInlineResumptionFails(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("romeo@localhost")
	for resume, condition := range map[string]string{"h='0' previd='unknown'": "item-not-found", "h='x' previd='unknown'": "bad-request", "h='4294967296' previd='unknown'": "bad-request"} {
		c := tlsStream(srv)
		c.Write(plain("romeo", "romeo", "<resume xmlns='urn:xmpp:sm:3' "+resume+"/><bind xmlns='urn:xmpp:bind:0'><enable xmlns='urn:xmpp:sm:3'/></bind>"))
		e := c.Element()
		if f := child(e, "failed"); f == nil || child(f, condition) == nil || child(e, "bound") == nil || child(child(e, "bound"), "enabled") == nil {
			t.Errorf("%s: %s", resume, e)
		}
	}
}

// An h that is behind: an <a/> says nothing, a resumption fails and the client binds. XEP-0198 §4 and §5.
func TestLowerH(t *testing.T) {
	srv := xmpptest.New(t)
	romeo, juliet := srv.Client("romeo@localhost/orchard"), srv.Client("juliet@localhost/balcony")
	id := enable(t, juliet)
	for n := range 3 {
		romeo.Send(fmt.Sprintf("<message to='juliet@localhost/balcony' type='chat' id='%d'/>", n))
	}
	for n := 0; n < 3; {
		if juliet.Read().Local == "message" {
			n++
		}
	}
	juliet.Send("<a xmlns='" + sm + "' h='2'/><a xmlns='" + sm + "' h='1'/><r xmlns='" + sm + "'/>")
	for e := juliet.Read(); e.Local != "a"; e = juliet.Read() {
		if e.Local != "r" {
			t.Fatalf("got %s", e)
		}
	}
	juliet.Disconnect()
	back, e := resume(t, srv, "juliet@localhost", id, 1)
	if e.Local != "failed" || child(e, "item-not-found") == nil || e.Attr("h") != "0" {
		t.Fatalf("got %s", e)
	}
	back.Bind("balcony")
	if e := back.Read(); e.Local != "message" || e.Attr("id") != "2" {
		t.Errorf("got %s, want what had not been acknowledged", e)
	}
}

// The sessions of an account are counted (RFC 6120 §7.6.2.1), but one that waits for its client gives way to a client that is there.
func TestWaitingSessionGivesWay(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Limits.Resources = 2 }))
	first, second := srv.Client("romeo@localhost/first"), srv.Client("romeo@localhost/second")
	enable(t, second)
	refused := func() {
		t.Helper()
		c, _ := srv.Login("romeo@localhost")
		c.Write("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
		if e := c.Element(); e.Attr("type") != "error" || child(child(e, "error"), "resource-constraint") == nil {
			t.Fatalf("a third session: %s", e)
		}
	}
	refused()
	second.Disconnect()
	srv.Eventually("the loss of a connection", func() bool {
		list, _, err := srv.Accounts().Sessions(t.Context(), jid.MustParse("romeo@localhost"))
		return err == nil && !list[1].Connected
	})
	third := srv.Client("romeo@localhost/third")
	refused()
	first.Sync()
	third.Sync()
}

// What a session that nobody resumes had not acknowledged: XEP-0198 §4, "in the same way that it would treat a stanza sent to an unavailable resource"
// (RFC 6121 §8.5.3.2), but messages of type normal, which were accepted for a resource that was there (docs/decisions/0005).
func TestExpiryByKind(t *testing.T) {
	srv := xmpptest.New(t)
	romeo, juliet := srv.Client("romeo@localhost/orchard"), srv.Client("juliet@localhost/balcony")
	juliet.Send("<enable xmlns='" + sm + "' resume='true' max='1'/>")
	juliet.Read()
	juliet.Send("<presence to='romeo@localhost/orchard'/>")
	romeo.Read()
	juliet.Disconnect()
	romeo.Send("<presence to='juliet@localhost/balcony'/>" +
		"<iq type='get' id='asked' to='juliet@localhost/balcony'><query xmlns='jabber:iq:version'/></iq>" +
		"<iq type='result' id='answer' to='juliet@localhost/balcony'/>" +
		"<message type='headline' id='headline' to='juliet@localhost/balcony'><body>x</body></message>" +
		"<message type='error' id='error' to='juliet@localhost/balcony'><body>x</body></message>" +
		"<message type='groupchat' id='groupchat' to='juliet@localhost/balcony'><body>x</body></message>" +
		"<message type='chat' id='chat' to='juliet@localhost/balcony'><body>x</body></message>" +
		"<message id='normal' to='juliet@localhost/balcony'><body>x</body></message>" +
		"<message type='chat' id='state' to='juliet@localhost/balcony'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>")
	const unavailable = "<error type='cancel' code='503'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
	romeo.Sync()
	srv.Eventually("the end of the session", func() bool { return srv.Offline("juliet@localhost") == 2 })
	romeo.ExpectAll("<iq type='error' id='asked' from='juliet@localhost/balcony' to='romeo@localhost/orchard'><query xmlns='jabber:iq:version'/>"+unavailable+"</iq>",
		"<message type='error' id='groupchat' from='juliet@localhost/balcony' to='romeo@localhost/orchard'><body>x</body>"+unavailable+"</message>",
		"<presence type='unavailable' from='juliet@localhost/balcony' to='romeo@localhost/orchard'/>")
	romeo.ExpectNothing()
}

// A session that began with STARTTLS is resumed over direct TLS, after a restart that gave every listener another port.
func TestResumeOnAnotherListener(t *testing.T) {
	dir := t.TempDir()
	file := xmpptest.Config(func(c *config.Config) { c.Data, c.Storage.DSN = dir, "" })
	first := xmpptest.New(t, file)
	juliet := first.Client("juliet@localhost/balcony")
	id := enable(t, juliet)
	juliet.Send("<message to='juliet@localhost/balcony' type='chat' id='1'/>")
	juliet.Sync()
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := xmpptest.New(t, file)
	c := second.DialTLS()
	c.Open("localhost")
	c.Write(plain("juliet", "juliet", "<resume xmlns='"+sm+"' previd='"+id+"' h='0'/>"))
	e := c.Element()
	if r := child(e, "resumed"); r == nil || r.Attr("h") != "2" {
		t.Fatalf("got %s", e)
	}
	if e := c.Element(); e.Local != "message" || e.Attr("id") != "1" {
		t.Errorf("got %s", e)
	}
}

func TestTranscripts(t *testing.T) { xmpptest.Transcripts(t, "testdata/*.txt") }
