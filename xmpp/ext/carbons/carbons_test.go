package carbons_test

import (
	"fmt"
	"strings"
	"testing"

	"balcony/xmpp/xmpptest"
)

func TestTranscripts(t *testing.T) { xmpptest.Transcripts(t, "testdata/*.txt") }

// enable turns carbons on.
func enable(c *xmpptest.Client) {
	c.Send("<iq type='set' id='carbons'><enable xmlns='urn:xmpp:carbons:2'/></iq>")
	c.Expect(fmt.Sprintf("<iq type='result' id='carbons' from='%s' to='%s'/>", c.JID.Bare(), c.JID))
}

// online makes a session available whose account has others.
func online(c *xmpptest.Client) {
	c.Send("<presence/>")
	c.Discard()
}

// attrs writes attributes and leaves empty ones out.
func attrs(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(&b, " %s='%s'", pairs[i], pairs[i+1])
		}
	}
	return b.String()
}

// message is a message; carbon is what a session gets for it.
func message(from, to, typ, id, content string) string {
	return "<message" + attrs("from", from, "to", to, "type", typ, "id", id) + ">" + content + "</message>"
}

func carbon(session *xmpptest.Client, direction, from, to, typ, id, content string) string {
	inner := strings.Replace(message(from, to, typ, id, content), "<message", "<message xmlns='jabber:client'", 1)
	return message(session.JID.Bare().String(), session.JID.String(), typ, "",
		"<"+direction+" xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>"+inner+"</forwarded></"+direction+">")
}

const (
	state     = "<composing xmlns='http://jabber.org/protocol/chatstates'/>"
	request   = "<request xmlns='urn:xmpp:receipts'/>"
	receipt   = "<received xmlns='urn:xmpp:receipts' id='x'/>"
	markable  = "<markable xmlns='urn:xmpp:chat-markers:0'/>"
	displayed = "<displayed xmlns='urn:xmpp:chat-markers:0' id='x'/>"
	direct    = "<x xmlns='jabber:x:conference' jid='darkcave@macbeth.shakespeare.lit'/>"
	mediated  = "<x xmlns='http://jabber.org/protocol/muc#user'><invite to='hecate@localhost'/></x>"
	decline   = "<x xmlns='http://jabber.org/protocol/muc#user'><decline to='hecate@localhost'/></x>"
	occupant  = "<x xmlns='http://jabber.org/protocol/muc#user'/>"
	private   = "<private xmlns='urn:xmpp:carbons:2'/>"
	noCopy    = "<no-copy xmlns='urn:xmpp:hints'/>"
	propose   = "<propose xmlns='urn:xmpp:jingle-message:0' id='x'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose><store xmlns='urn:xmpp:hints'/>"
	failed    = "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
	body      = "<body>hi</body>"
	encrypted = "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/></encrypted><store xmlns='urn:xmpp:hints'/>"
)

// The whole table of XEP-0280 §6.1, for what is received and for what is sent, from and to full JIDs.
func TestEligible(t *testing.T) {
	srv := xmpptest.New(t)
	desk, phone, old := srv.Client("romeo@localhost/desk"), srv.Client("romeo@localhost/phone"), srv.Client("romeo@localhost/old")
	juliet := srv.Client("juliet@localhost/balcony")
	enable(phone)
	for _, c := range []*xmpptest.Client{desk, phone, old} {
		online(c)
	}
	desk.Discard()
	phone.Discard()
	for i, tt := range []struct {
		typ, content   string
		received, sent bool
	}{
		{"chat", body, true, true},
		{"chat", "", true, true},
		{"chat", state, true, true},
		{"chat", receipt, true, true},
		{"chat", displayed, true, true},
		{"chat", propose, true, true}, // XEP-0353 §3: always of type chat
		{"chat", encrypted, true, true},
		{"chat", "<any xmlns='urn:example'/>", true, true},
		{"chat", body + "<origin-id xmlns='urn:xmpp:sid:0' id='o'/>", true, true},
		{"chat", body + "<no-store xmlns='urn:xmpp:hints'/>", true, true}, // XEP-0334 §4.2 is about keeping
		{"", body, true, true},
		{"normal", body, true, true},
		{"strange", body, true, true}, // RFC 6121 §5.2.2: treated as normal
		{"", "", false, false},
		{"normal", "<subject>hi</subject>", false, false},
		{"normal", "<any xmlns='urn:example'/>", false, false},
		{"normal", "<body xmlns='urn:example'/>", false, false},
		{"normal", "<any xmlns='urn:example'><body xmlns='jabber:client'>hi</body></any>", false, false},
		{"normal", state, true, true},
		{"normal", request, true, true},
		{"normal", receipt, true, true},
		{"normal", markable, true, true},
		{"normal", displayed, true, true},
		{"headline", body, false, false},
		{"headline", receipt, true, true},
		{"groupchat", body, false, false},
		{"groupchat", body + request, false, false},
		{"groupchat", direct, false, false},
		{"error", failed, false, false}, // it answers nothing
		{"error", body + failed, false, false},
		{"error", receipt + failed, false, false},
		{"normal", direct, true, true},
		{"normal", mediated, true, true},
		{"headline", mediated, true, true},
		{"chat", body + occupant, false, true}, // private messages in rooms
		{"normal", body + occupant, false, true},
		{"normal", receipt + occupant, false, true},
		{"normal", occupant, false, false},
		{"normal", decline, false, false},
		{"chat", direct + occupant, false, true},
		{"chat", body + private, false, false},
		{"chat", body + noCopy, false, false},
		{"chat", body + private + noCopy, false, false},
		{"normal", body + private, false, false},
		{"normal", receipt + noCopy, false, false},
		{"normal", mediated + private, false, false},
		{"normal", direct + noCopy, false, false},
		{"chat", body + "<any xmlns='urn:example'>" + private + noCopy + "</any>", true, true}, // not the message's own
	} {
		id := fmt.Sprint("m", i)
		juliet.Send(message("", desk.JID.String(), tt.typ, id, tt.content))
		desk.Expect(message(juliet.JID.String(), desk.JID.String(), tt.typ, id, tt.content))
		if tt.received {
			phone.Expect(carbon(phone, "received", juliet.JID.String(), desk.JID.String(), tt.typ, id, tt.content))
		}
		desk.Send(message("", juliet.JID.String(), tt.typ, id, tt.content))
		juliet.Expect(message(desk.JID.String(), juliet.JID.String(), tt.typ, id, tt.content))
		if tt.sent {
			phone.Expect(carbon(phone, "sent", desk.JID.String(), juliet.JID.String(), tt.typ, id, tt.content))
		}
		phone.Sync()
		if e, ok := phone.Pending(); ok {
			t.Fatalf("%s %s: %s", tt.typ, tt.content, e)
		}
	}
	for _, c := range []*xmpptest.Client{desk, phone, old, juliet} {
		c.ExpectNothing()
	}
}

// XEP-0280 §6.1: an error is copied when it answers a message that was eligible, in both directions, whatever it repeats of that; §9 for private
// ones.
func TestErrorsOfEligibleMessages(t *testing.T) {
	srv := xmpptest.New(t)
	desk, phone := srv.Client("romeo@localhost/desk"), srv.Client("romeo@localhost/phone")
	juliet, nurse := srv.Client("juliet@localhost/balcony"), srv.Client("nurse@localhost/kitchen")
	enable(phone)
	online(desk)
	for i, tt := range []struct {
		typ, content string
		answer       string
		copied       bool
	}{
		{"chat", body, failed, true},
		{"chat", body, body + failed, true},
		{"normal", body, failed, true},
		{"chat", body, private + failed, false},
		{"chat", body + private, failed, false},
		{"headline", body, failed, false},
		{"groupchat", body, body + failed, false},
		{"chat", body + occupant, failed + occupant, true},
	} {
		id := fmt.Sprint("m", i)
		desk.Send(message("", juliet.JID.String(), tt.typ, id, tt.content))
		juliet.Read()
		nurse.Send(message("", desk.JID.String(), "error", id, tt.answer)) // not the one who was asked
		desk.Read()
		juliet.Send(message("", desk.JID.String(), "error", "other", tt.answer)) // another message
		desk.Read()
		phone.Discard()
		juliet.Send(message("", desk.JID.String(), "error", id, tt.answer))
		desk.Expect(message(juliet.JID.String(), desk.JID.String(), "error", id, tt.answer))
		if tt.copied {
			phone.Expect(carbon(phone, "received", juliet.JID.String(), desk.JID.String(), "error", id, tt.answer))
		}
		phone.ExpectNothing()
	}
	// What romeo's client answers to a message that it got.
	for i, tt := range []struct {
		typ, content string
		copied       bool
	}{{"chat", body, true}, {"headline", body, false}, {"chat", body + noCopy, false}} {
		id := fmt.Sprint("r", i)
		juliet.Send(message("", desk.JID.String(), tt.typ, id, tt.content))
		desk.Read()
		desk.Send(message("", nurse.JID.String(), "error", id, failed))
		nurse.Read()
		phone.Discard()
		desk.Send(message("", juliet.JID.String(), "error", id, failed))
		juliet.Read()
		if tt.copied {
			phone.Expect(carbon(phone, "sent", desk.JID.String(), juliet.JID.String(), "error", id, failed))
		}
		phone.ExpectNothing()
	}
	// The session that the error is for is gone: RFC 6121 §8.5.3.2.1 drops it, and the copy comes all the same.
	desk.Send(message("", "juliet@localhost/gone", "", "late", body))
	phone.Expect(carbon(phone, "sent", desk.JID.String(), "juliet@localhost/gone", "", "late", body))
	e := phone.Read().String()
	if !strings.Contains(e, "<received xmlns='urn:xmpp:carbons:2'") || !strings.Contains(e, "type='error'") || !strings.Contains(e, "service-unavailable") {
		t.Errorf("the server's error: %s", e)
	}
	desk.Discard()
	desk.Send(message("", juliet.JID.String(), "chat", "last", body))
	desk.Close()
	juliet.Read()
	juliet.Send(message("", "romeo@localhost/desk", "error", "last", failed))
	juliet.Sync()
	phone.Expect(carbon(phone, "sent", "romeo@localhost/desk", juliet.JID.String(), "chat", "last", body))
	phone.Expect(carbon(phone, "received", juliet.JID.String(), "romeo@localhost/desk", "error", "last", failed))
	phone.ExpectNothing()
	juliet.ExpectNothing()
}

// XEP-0280 §6.1, note 4: private messages in a room are copied to the sessions that are the same occupant.
func TestPrivateMessageInRoom(t *testing.T) {
	srv := xmpptest.New(t)
	desk, same, other, outside := srv.Client("romeo@localhost/desk"), srv.Client("romeo@localhost/same"), srv.Client("romeo@localhost/other"), srv.Client("romeo@localhost/outside")
	room := srv.Client("room@localhost/thirdwitch") // any address with resources does
	for _, c := range []*xmpptest.Client{same, other, outside} {
		enable(c)
	}
	for c, nick := range map[*xmpptest.Client]string{desk: "firstwitch", same: "firstwitch", other: "secondwitch"} {
		c.Send("<presence to='room@localhost/" + nick + "'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
		c.Discard()
	}
	room.Discard()
	content := body + occupant
	desk.Send(message("", room.JID.String(), "chat", "1", content))
	same.Expect(carbon(same, "sent", desk.JID.String(), room.JID.String(), "chat", "1", content))
	room.Read()
	other.ExpectNothing()
	outside.ExpectNothing()
	// A message to a contact with the same payload goes to all.
	juliet := srv.Client("juliet@localhost/balcony")
	desk.Send(message("", juliet.JID.String(), "chat", "2", content))
	for _, c := range []*xmpptest.Client{same, other, outside} {
		c.Expect(carbon(c, "sent", desk.JID.String(), juliet.JID.String(), "chat", "2", content))
	}
	// An ordinary one to the bare JID of the room's address, too.
	desk.Send(message("", "room@localhost", "", "3", mediated))
	for _, c := range []*xmpptest.Client{same, other, outside} {
		c.Expect(carbon(c, "sent", desk.JID.String(), "room@localhost", "", "3", mediated))
	}
}

// XEP-0191: what is blocked is not copied.
func TestBlocked(t *testing.T) {
	srv := xmpptest.New(t)
	desk, phone, juliet := srv.Client("romeo@localhost/desk"), srv.Client("romeo@localhost/phone"), srv.Client("juliet@localhost/balcony")
	enable(phone)
	desk.Send("<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='juliet@localhost'/></block></iq>")
	desk.Read()
	desk.Send(message("", juliet.JID.String(), "chat", "1", body))
	desk.Read() // refused
	juliet.Send(message("", desk.JID.String(), "chat", "2", body))
	juliet.Read() // refused
	phone.ExpectNothing()
	desk.ExpectNothing()
}

// What a message declares outside of its children holds in the copy.
func TestNamespacesOfCopies(t *testing.T) {
	srv := xmpptest.New(t)
	desk, phone, juliet := srv.Client("romeo@localhost/desk"), srv.Client("romeo@localhost/phone"), srv.Client("juliet@localhost/balcony")
	enable(phone)
	juliet.Send("<message xmlns:a='urn:a' a:b='c' xml:lang='de' to='romeo@localhost/desk' type='chat'><a:x><body>hallo &lt;&amp;&gt;</body></a:x><y xmlns=''><z/></y></message>")
	desk.Read()
	phone.Expect(`<message from='romeo@localhost' to='romeo@localhost/phone' type='chat'>
	  <received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>
	    <message xmlns='jabber:client' xmlns:a='urn:a' a:b='c' xml:lang='de' from='juliet@localhost/balcony' to='romeo@localhost/desk' type='chat'>
	      <a:x><body>hallo &lt;&amp;&gt;</body></a:x><y xmlns=''><z/></y>
	    </message>
	  </forwarded></received>
	</message>`)
}

// Everything on: disco (XEP-0280 §3).
func TestFeatures(t *testing.T) {
	srv := xmpptest.New(t)
	c := srv.Client("romeo@localhost/desk")
	c.Send("<iq type='get' id='d' to='localhost'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
	e := c.Read().String()
	for _, f := range []string{"urn:xmpp:carbons:2", "urn:xmpp:carbons:rules:0"} {
		if !strings.Contains(e, "<feature var='"+f+"'/>") {
			t.Errorf("no %s in %s", f, e)
		}
	}
}
