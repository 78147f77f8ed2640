package carbons_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/xmpp"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

const sm = "urn:xmpp:sm:3"

// managed enables stream management and returns the SM-ID. <r/> of the server are read with the stanza before.
func managed(t *testing.T, c *xmpptest.Client) string {
	t.Helper()
	c.Send("<enable xmlns='" + sm + "' resume='true'/>")
	return c.Read().Attr("id")
}

// resume takes up a session on a new connection: h stanzas were read.
func resume(t *testing.T, srv *xmpptest.Server, before *xmpptest.Client, id string, h int) *xmpptest.Client {
	t.Helper()
	c, _ := srv.Login(before.JID.Bare().String())
	c.Write(fmt.Sprintf("<resume xmlns='%s' previd='%s' h='%d'/>", sm, id, h))
	if e := c.Element(); e.Local != "resumed" {
		t.Fatalf("resume: %s", e)
	}
	c.Resumed(before)
	return c
}

// end ends the session of a client from the server's side, as a timeout of its resumption does.
func end(srv *xmpptest.Server, c *xmpptest.Client) {
	for _, s := range srv.Sessions(c.JID.Bare()) {
		if s.JID().Equal(c.JID) {
			s.Close(streamerr.Error{Err: "connection-timeout"})
		}
	}
	c.Disconnect()
	srv.Eventually("the end of "+c.JID.String(), func() bool {
		for _, s := range srv.Sessions(c.JID.Bare()) {
			if s.JID().Equal(c.JID) {
				return false
			}
		}
		return true
	})
}

// chat is a message of juliet's to one of romeo's addresses.
func chat(to, id string) string {
	return message("juliet@localhost/balcony", to, "chat", id, "<body>"+id+"</body>")
}

func copyOf(c *xmpptest.Client, to, id string) string {
	return carbon(c, "received", "juliet@localhost/balcony", to, "chat", id, "<body>"+id+"</body>")
}

// A session that waits for its client gets its copies when that is back: once, in order with the messages that were its own. Carbons are still on.
func TestCopiesWaitForResumption(t *testing.T) {
	srv := xmpptest.New(t)
	desk, phone, juliet := srv.Client("romeo@localhost/desk"), srv.Client("romeo@localhost/phone"), srv.Client("juliet@localhost/balcony")
	enable(phone)
	id := managed(t, phone)
	online(desk)
	phone.Send("<presence/>")
	phone.Read()
	phone.Expect("<r xmlns='" + sm + "'/>")
	phone.Read() // desk's presence
	phone.Disconnect()
	for n := range 6 {
		to := []string{"romeo@localhost/desk", "romeo@localhost/phone", "romeo@localhost"}[n%3]
		juliet.Send(chat(to, fmt.Sprint(n)))
	}
	juliet.Sync()
	desk.Discard()
	desk.Send(message("", "juliet@localhost/balcony", "chat", "6", body))
	juliet.Expect(message("romeo@localhost/desk", "juliet@localhost/balcony", "chat", "6", body))
	phone = resume(t, srv, phone, id, 2)
	for n := range 6 {
		switch n % 3 {
		case 0:
			phone.Expect(copyOf(phone, "romeo@localhost/desk", fmt.Sprint(n)))
		case 1:
			phone.Expect(chat("romeo@localhost/phone", fmt.Sprint(n)))
		default:
			phone.Expect(chat("romeo@localhost", fmt.Sprint(n)))
		}
	}
	phone.Expect(carbon(phone, "sent", "romeo@localhost/desk", "juliet@localhost/balcony", "chat", "6", body))
	phone.Expect("<r xmlns='" + sm + "'/>")
	phone.Send("<a xmlns='" + sm + "' h='9'/>")
	juliet.Send(chat("romeo@localhost/desk", "7"))
	phone.Expect(copyOf(phone, "romeo@localhost/desk", "7"))
	phone.Expect("<r xmlns='" + sm + "'/>")
	phone.Send("<a xmlns='" + sm + "' h='10'/>")
	phone.ExpectNothing()
}

// What ends with a session is no copy any more. Nobody gets twice what another session has; what nobody has is kept, as it was sent.
func TestSessionsEndWithTheirCopies(t *testing.T) {
	srv := xmpptest.New(t)
	desk, phone, juliet := srv.Client("romeo@localhost/desk"), srv.Client("romeo@localhost/phone"), srv.Client("juliet@localhost/balcony")
	for _, c := range []*xmpptest.Client{desk, phone} {
		enable(c)
		managed(t, c)
		c.Send("<presence/>")
	}
	desk.Discard()
	phone.Discard()
	// Phone has a copy that it does not acknowledge, and copies of what desk has sent.
	juliet.Send(chat("romeo@localhost/desk", "1"))
	desk.Send(message("", "juliet@localhost/balcony", "chat", "2", body))
	juliet.Read()
	juliet.Sync()
	desk.Discard()
	end(srv, phone)
	desk.Read() // phone's presence
	desk.ExpectNothing()
	if n := srv.Offline("romeo@localhost"); n != 0 {
		t.Fatalf("%d messages in the spool", n)
	}
	end(srv, desk) // nor does desk acknowledge it
	srv.Eventually("the spool", func() bool { return srv.Offline("romeo@localhost") == 1 })
	srv.EmptySpool("romeo@localhost")

	// Desk has the message and another phone the copy: who ends first does not matter.
	for _, first := range []string{"desk", "phone"} {
		desk, phone := srv.Client("romeo@localhost/desk"), srv.Client("romeo@localhost/phone")
		for _, c := range []*xmpptest.Client{desk, phone} {
			enable(c)
			managed(t, c)
			c.Send("<presence/>")
			c.Discard()
			c.Disconnect()
		}
		juliet.Send(chat("romeo@localhost/desk", "3"))
		juliet.Sync()
		order := []*xmpptest.Client{desk, phone}
		if first == "phone" {
			order = []*xmpptest.Client{phone, desk}
		}
		end(srv, order[0])
		if n := srv.Offline("romeo@localhost"); n != 0 {
			t.Fatalf("%s has ended: %d messages in the spool", first, n)
		}
		end(srv, order[1])
		srv.Eventually("the spool", func() bool { return srv.Offline("romeo@localhost") == 1 })
		tablet := srv.Client("romeo@localhost/tablet")
		tablet.Online()
		e := tablet.Read()
		if s := e.String(); !strings.Contains(s, "<body>3</body>") || strings.Contains(s, "carbons") || e.Attr("to") != "romeo@localhost/desk" {
			t.Errorf("from the spool: %s", s)
		}
		tablet.ExpectNothing()
		tablet.Close()
		srv.Eventually("the spool", func() bool { return srv.Offline("romeo@localhost") == 0 })
	}
	juliet.ExpectNothing()
}

// A message that is delivered again is not copied again, and a resource with negative priority does not make up for the others.
func TestDeliveredAgain(t *testing.T) {
	srv := xmpptest.New(t)
	desk, log, juliet := srv.Client("romeo@localhost/desk"), srv.Client("romeo@localhost/log"), srv.Client("juliet@localhost/balcony")
	enable(log)
	log.Send("<presence><priority>-1</priority></presence>")
	managed(t, desk)
	desk.Send("<presence/>")
	desk.Discard()
	log.Discard()
	juliet.Send(chat("romeo@localhost/desk", "1"))
	log.Expect(copyOf(log, "romeo@localhost/desk", "1"))
	desk.Sync()
	end(srv, desk)
	srv.Eventually("the spool", func() bool { return srv.Offline("romeo@localhost") == 1 })
	log.Read() // desk's presence
	log.ExpectNothing()
	juliet.ExpectNothing()
}

// A session that is only connected and has enabled carbons reads what comes: nothing waits in the spool for it, but it does when the session ends
// without having read it.
func TestOnlyConnected(t *testing.T) {
	srv := xmpptest.New(t)
	phone, juliet := srv.Client("romeo@localhost/phone"), srv.Client("juliet@localhost/balcony")
	enable(phone)
	managed(t, phone)
	juliet.Send(chat("romeo@localhost", "1"))
	phone.Expect(copyOf(phone, "romeo@localhost", "1"))
	phone.Expect("<r xmlns='" + sm + "'/>")
	juliet.ExpectNothing()
	if n := srv.Offline("romeo@localhost"); n != 0 {
		t.Errorf("%d messages in the spool", n)
	}
	end(srv, phone)
	srv.Eventually("the spool", func() bool { return srv.Offline("romeo@localhost") == 1 })
}

// XEP-0386 §2.2: carbons are on when the resource is bound.
func TestBind2(t *testing.T) {
	srv := xmpptest.New(t)
	desk, juliet := srv.Client("romeo@localhost/desk"), srv.Client("juliet@localhost/balcony")
	online(desk)
	for _, asked := range []bool{true, false} {
		inside := ""
		if asked {
			inside = "<enable xmlns='urn:xmpp:carbons:2'/>"
		}
		c := srv.Dial()
		c.Open("localhost")
		c.StartTLS(nil)
		if _, features := c.Open("localhost"); !strings.Contains(features.String(), "<feature var='urn:xmpp:carbons:2'/>") {
			t.Errorf("features: %s", features)
		}
		c.Write("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>" + base64.StdEncoding.EncodeToString([]byte("\x00romeo\x00romeo")) +
			"</initial-response><bind xmlns='urn:xmpp:bind:0'>" + inside + "</bind></authenticate>")
		success := c.Element()
		c.Element()
		for _, e := range success.Children {
			if e.Local == "authorization-identifier" {
				c.JID = jid.MustParse(e.Text)
			}
		}
		c.Start()
		juliet.Send(chat("romeo@localhost/desk", "1"))
		desk.Read()
		if asked {
			c.Expect(copyOf(c, "romeo@localhost/desk", "1"))
		}
		c.ExpectNothing()
	}
}

// A planned restart: carbons are on afterwards, and copies that waited are there.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	file := xmpptest.Config(func(c *config.Config) { c.Data, c.Storage.DSN = dir, "" })
	srv := xmpptest.New(t, file)
	desk, phone, juliet := srv.Client("romeo@localhost/desk"), srv.Client("romeo@localhost/phone"), srv.Client("juliet@localhost/balcony")
	enable(phone)
	deskID, phoneID := managed(t, desk), managed(t, phone)
	phone.Disconnect()
	deep := strings.Repeat("<d xmlns='urn:d'>", 60) + strings.Repeat("</d>", 60)
	juliet.Send(chat("romeo@localhost/desk", "1"))
	juliet.Send(message("", "romeo@localhost/desk", "chat", "2", deep))
	juliet.Sync()
	if err := srv.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	srv = xmpptest.New(t, file)
	juliet = srv.Client("juliet@localhost/balcony")
	desk, phone = resume(t, srv, desk, deskID, 0), resume(t, srv, phone, phoneID, 0)
	desk.Expect(chat("romeo@localhost/desk", "1"))
	desk.Read()
	desk.Expect("<r xmlns='" + sm + "'/>")
	phone.Expect(copyOf(phone, "romeo@localhost/desk", "1"))
	phone.Expect(carbon(phone, "received", "juliet@localhost/balcony", "romeo@localhost/desk", "chat", "2", deep))
	phone.Expect("<r xmlns='" + sm + "'/>")
	juliet.Send(chat("romeo@localhost/desk", "3"))
	phone.Expect(copyOf(phone, "romeo@localhost/desk", "3"))
	phone.ExpectNothing()
}

// XEP-0280 §12: what another server sends as a copy reaches nobody as one; the rest of the message does.
func TestForgedCopyOfARemoteServer(t *testing.T) {
	srv := xmpptest.New(t)
	desk := srv.Client("romeo@localhost/desk")
	forged := xmpp.El("urn:xmpp:carbons:2", "received").Add(xmpp.El("urn:xmpp:forward:0", "forwarded").Add(
		xmpp.El("jabber:client", "message", "from", "juliet@localhost").Add(xmpp.El("jabber:client", "body").Say("forged"))))
	from := jid.MustParse("tybalt@capulet.example/home")
	for _, to := range []jid.JID{desk.JID, desk.JID.Bare()} {
		if to.Resourcepart() == "" {
			desk.Online()
		}
		srv.Registry().Server.Route(t.Context(), xmpp.New(xmpp.Message, "chat", to, from, forged, xmpp.El("", "body").Say("hi"), xmpp.El("urn:xmpp:carbons:2", "sent"), xmpp.El("urn:xmpp:carbons:2", "private")))
		desk.Expect("<message type='chat' from='tybalt@capulet.example/home' to='" + to.String() + "'><body>hi</body><private xmlns='urn:xmpp:carbons:2'/></message>")
	}
	desk.ExpectNothing()
}

// A remote sender and a remote recipient: the rules are the same.
func TestRemotePeers(t *testing.T) {
	srv := xmpptest.New(t)
	desk, phone := srv.Client("romeo@localhost/desk"), srv.Client("romeo@localhost/phone")
	enable(phone)
	srv.Registry().Server.Route(t.Context(), xmpp.New(xmpp.Message, "chat", desk.JID, jid.MustParse("juliet@capulet.example/balcony"), xmpp.El("", "body").Say("hi")))
	desk.Expect(message("juliet@capulet.example/balcony", desk.JID.String(), "chat", "", body))
	phone.Expect(carbon(phone, "received", "juliet@capulet.example/balcony", desk.JID.String(), "chat", "", body))
	desk.Send(message("", "juliet@capulet.example", "chat", "1", body))
	phone.Expect(carbon(phone, "sent", desk.JID.String(), "juliet@capulet.example", "chat", "1", body))
	// Her server cannot be found, which is the answer to a message that was copied.
	if e := phone.Read().String(); !strings.Contains(e, "<received xmlns='urn:xmpp:carbons:2'") || !strings.Contains(e, "id='1'") || !strings.Contains(e, "<error") {
		t.Errorf("the error: %s", e)
	}
}

// XEP-0352 and XEP-0357: an inactive or absent device is told of messages that others sent, of none that the user sent, and of no receipts, markers
// and chat states, whoever sent them.
func TestPushOfCopies(t *testing.T) {
	srv := xmpptest.New(t)
	service := srv.Client("push@localhost/service")
	desk, phone, juliet := srv.Client("romeo@localhost/desk"), srv.Client("romeo@localhost/phone"), srv.Client("juliet@localhost/balcony")
	online(desk)
	enable(phone)
	managed(t, phone)
	phone.Send("<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' jid='push@localhost/service' node='n'/></iq>")
	phone.Discard()
	phone.Disconnect()
	for i, content := range []string{body, state, receipt, displayed, markable + body, encrypted} {
		desk.Send(message("", "juliet@localhost/balcony", "chat", fmt.Sprint("s", i), content))
		desk.Send(message("", "romeo@localhost", "chat", fmt.Sprint("n", i), content))
	}
	for i, content := range []string{state, receipt, displayed, "<accept xmlns='urn:xmpp:jingle-message:0' id='x'/>"} {
		juliet.Send(message("", "romeo@localhost/desk", "chat", fmt.Sprint("j", i), content))
	}
	juliet.Send(message("", "romeo@localhost/desk", "groupchat", "g", body))
	service.ExpectNothing()
	juliet.Send(message("", "romeo@localhost/desk", "chat", "m", body))
	if e := service.Read().String(); !strings.Contains(e, "urn:xmpp:push:0") || !strings.Contains(e, "<value>1</value>") {
		t.Errorf("notification: %s", e)
	}
}

// What only a copy holds outlives a restart as well: the message is kept when the last session ends that could have read it.
func TestRestartKeepsWhoHasTheMessage(t *testing.T) {
	dir := t.TempDir()
	file := xmpptest.Config(func(c *config.Config) { c.Data, c.Storage.DSN = dir, "" })
	srv := xmpptest.New(t, file)
	desk, phone, juliet := srv.Client("romeo@localhost/desk"), srv.Client("romeo@localhost/phone"), srv.Client("juliet@localhost/balcony")
	enable(phone)
	managed(t, desk)
	managed(t, phone)
	juliet.Send(chat("romeo@localhost/desk", "1"))
	juliet.Sync()
	if err := srv.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	srv = xmpptest.New(t, file)
	end(srv, desk)
	if n := srv.Offline("romeo@localhost"); n != 0 {
		t.Fatalf("%d messages in the spool: phone has it", n)
	}
	end(srv, phone)
	srv.Eventually("the spool", func() bool { return srv.Offline("romeo@localhost") == 1 })
	tablet := srv.Client("romeo@localhost/tablet")
	tablet.Online()
	if s := tablet.Read().String(); !strings.Contains(s, "to='romeo@localhost/desk'") || strings.Contains(s, "carbons") {
		t.Errorf("from the spool: %s", s)
	}
}

// XEP-0313 §3.3 and XEP-0359: copies have the id that the message has in the account's archive, and the sender's own ids stay. A message that was
// read as a copy does not come again from the spool.
func TestArchivedMessages(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Archive)
	desk, phone, juliet := srv.Client("romeo@localhost/desk"), srv.Client("romeo@localhost/phone"), srv.Client("juliet@localhost/balcony")
	enable(phone)
	const origin = "<body>hi</body><origin-id xmlns='urn:xmpp:sid:0' id='o'/>"
	id := func(name string) string {
		return "<stanza-id xmlns='urn:xmpp:sid:0' by='romeo@localhost' id='{" + name + "}'/>"
	}
	juliet.Send(message("", "romeo@localhost/desk", "chat", "1", origin))
	phone.Expect(carbon(phone, "received", "juliet@localhost/balcony", "romeo@localhost/desk", "chat", "1", origin+id("one")))
	desk.Read()
	desk.Send(message("", "juliet@localhost/balcony", "chat", "2", origin))
	phone.Expect(carbon(phone, "sent", "romeo@localhost/desk", "juliet@localhost/balcony", "chat", "2", origin+id("two")))
	if s := juliet.Read().String(); strings.Contains(s, "by='romeo@localhost'") {
		t.Errorf("the recipient learns the sender's archive id: %s", s)
	}
	phone.Send("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>")
	one, two := phone.Read().Children[0], phone.Read().Children[0]
	phone.Read() // the end
	phone.Send("<iq type='get' id='same' to='romeo@localhost/phone'><x xmlns='urn:x' one='" + one.Attr("id") + "' two='" + two.Attr("id") + "'/></iq>")
	phone.Expect("<iq type='get' id='same' to='romeo@localhost/phone' from='romeo@localhost/phone'><x xmlns='urn:x' one='{one}' two='{two}'/></iq>")
	desk.Close()
	juliet.Send(message("", "romeo@localhost", "chat", "3", body)) // phone is only connected
	phone.Expect(carbon(phone, "received", "juliet@localhost/balcony", "romeo@localhost", "chat", "3", body+id("three")))
	phone.Sync()
	phone.Online()
	phone.ExpectNothing()
}
