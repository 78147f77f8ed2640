package mam_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"balcony/xmpp/ext/mam"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
)

func TestTranscripts(t *testing.T) {
	xmpptest.Transcripts(t, "testdata/*.txt", xmpptest.Config(xmpptest.Archive))
}

// texts are the bodies of everything in an archive.
func texts(t *testing.T, srv *xmpptest.Server, owner string) (list []string) {
	t.Helper()
	page, err := srv.DB().QueryArchive(context.Background(), jid.MustParse(owner), mam.Query{Max: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range page.Messages {
		_, rest, _ := strings.Cut(string(m.XML), "id='")
		id, _, _ := strings.Cut(rest, "'")
		list = append(list, id)
	}
	return list
}

// XEP-0313 §6.1.1, XEP-0334: what is archived, for sender and recipient alike.
func TestWhatIsArchived(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive))
	romeo, juliet := srv.Client("romeo@localhost/orchard"), srv.Client("juliet@localhost/balcony")
	juliet.Online()
	const hints = " xmlns='urn:xmpp:hints'/>"
	var want []string
	for i, c := range []struct {
		kept         bool
		typ, payload string
	}{
		{true, "chat", "<body>hi</body>"},
		{true, "normal", "<body>hi</body>"},
		{true, "", "<body>hi</body>"},
		{true, "", "<subject>hi</subject>"},
		{false, "headline", "<body>news</body>"},
		{true, "headline", "<body>news</body><store" + hints},
		{false, "error", "<body>hi</body><error type='cancel'/>"},
		{false, "chat", "<body>hi</body><no-store" + hints},
		{false, "chat", "<no-permanent-store" + hints + "<body>hi</body>"},
		{false, "chat", "<body>hi</body><store" + hints + "<no-store" + hints},
		{true, "chat", "<body>hi</body><no-copy" + hints},
		{false, "chat", "<composing xmlns='http://jabber.org/protocol/chatstates'/>"},
		{true, "chat", "<active xmlns='http://jabber.org/protocol/chatstates'/><body>hi</body>"},
		{true, "chat", "<x xmlns='urn:example'/><store" + hints},
		{false, "chat", "<x xmlns='urn:example'/>"},
		{true, "chat", "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>"},
		{false, "chat", "<markable xmlns='urn:xmpp:chat-markers:0'/>"},
		{true, "chat", "<received xmlns='urn:xmpp:receipts' id='1'/>"},
		{false, "chat", "<request xmlns='urn:xmpp:receipts'/>"},
		{true, "chat", "<encrypted xmlns='eu.siacs.conversations.axolotl'/>"},
		{true, "chat", "<encrypted xmlns='urn:xmpp:omemo:2'/>"},
		{true, "chat", "<openpgp xmlns='urn:xmpp:openpgp:0'>x</openpgp>"},
		{true, "chat", "<retract xmlns='urn:xmpp:message-retract:1' id='1'/>"},
		{true, "chat", "<reactions xmlns='urn:xmpp:reactions:0' id='1'/>"},
		{true, "chat", "<propose xmlns='urn:xmpp:jingle-message:0' id='1'/>"},
		{true, "normal", "<x xmlns='jabber:x:conference' jid='room@chat.localhost'/>"},
	} {
		id := fmt.Sprint("m", i)
		romeo.Send(fmt.Sprintf("<message to='juliet@localhost/balcony' id='%s' type='%s'>%s</message>", id, c.typ, c.payload))
		if c.kept {
			want = append(want, id)
		}
	}
	romeo.Sync()
	for _, owner := range []string{"romeo@localhost", "juliet@localhost"} {
		if got := texts(t, srv, owner); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s has %v\nwant %v", owner, got, want)
		}
	}
	romeo.Send("<message to='juliet@localhost/balcony' id='g' type='groupchat'><body>hi</body></message>")
	romeo.Sync()
	if got := texts(t, srv, "romeo@localhost"); got[len(got)-1] == "g" {
		t.Error("a message to a room is archived")
	}
}

// XEP-0313 §6.1: who refuses a message does not have it in the archive; the sender has what it sent.
func TestRefusedIsNotArchived(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive))
	srv.Account("juliet@localhost")
	juliet := srv.Client("juliet@localhost/balcony")
	juliet.Send("<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='tybalt@localhost'/></block></iq>")
	juliet.Sync()
	tybalt, romeo := srv.Client("tybalt@localhost/street"), srv.Client("romeo@localhost/orchard")
	tybalt.Send("<message to='juliet@localhost' id='1' type='chat'><body>boo</body></message>")
	romeo.Send("<message to='juliet@localhost/gone' id='2' type='normal'><body>nobody there</body></message>")
	romeo.Send("<message to='nobody@localhost' id='3' type='chat'><body>nobody at all</body></message>")
	tybalt.Sync()
	romeo.Sync()
	if got := texts(t, srv, "juliet@localhost"); got != nil {
		t.Errorf("juliet has %v", got)
	}
	if got := texts(t, srv, "romeo@localhost"); strings.Join(got, " ") != "2 3" {
		t.Errorf("romeo has %v", got)
	}
}

// Retention by age and count.
func TestTrim(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive))
	romeo := srv.Client("romeo@localhost/orchard")
	srv.Account("juliet@localhost")
	for i := range 30 {
		romeo.Send(fmt.Sprintf("<message to='juliet@localhost' id='%d' type='chat'><body>hi</body></message>", i))
	}
	romeo.Sync()
	for _, c := range []struct {
		cfg  mam.Config
		left int
	}{
		{mam.Config{Policy: mam.Policy{Keep: time.Hour}}, 30},
		{mam.Config{Policy: mam.Policy{Messages: 30}}, 30},
		{mam.Config{Policy: mam.Policy{Messages: 5}, Domains: map[string]mam.Policy{"localhost": {}}}, 30},
		{mam.Config{Domains: map[string]mam.Policy{"elsewhere.test": {Messages: 5}}}, 30},
		{mam.Config{Policy: mam.Policy{Messages: 12}}, 12},
		{mam.Config{Policy: mam.Policy{Messages: 20}, Domains: map[string]mam.Policy{"localhost": {Messages: 11}}}, 11},
		{mam.Config{Policy: mam.Policy{Keep: time.Nanosecond}}, 0},
	} {
		m := mam.NewForTest(c.cfg, srv.DB(), time.Now)
		if err := m.Trim(context.Background(), "localhost"); err != nil {
			t.Fatal(err)
		}
		for _, owner := range []string{"romeo@localhost", "juliet@localhost"} {
			if got := texts(t, srv, owner); len(got) != c.left {
				t.Errorf("%+v: %s has %d messages, want %d", c.cfg, owner, len(got), c.left)
			}
		}
	}
}
