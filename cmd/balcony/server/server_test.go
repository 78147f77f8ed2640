package server_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/storage/storagetest/pgtest"
	"balcony/xmpp/xmpptest"

	"mellium.im/sasl"
	"mellium.im/xmpp/jid"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const streams = "urn:ietf:params:xml:ns:xmpp-streams"

// Several domains in one process: each with its own certificate, accounts and admins.
func TestDomains(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) {
		c.Domains = append(c.Domains, config.Domain{Name: "chat.test", Registration: config.Open, Admins: []string{"romeo@chat.test"}})
	}))
	for _, domain := range []string{"localhost", "chat.test"} {
		c := srv.Dial()
		c.Open(domain)
		c.StartTLS(&tls.Config{InsecureSkipVerify: true, ServerName: domain})
		leaf := c.Conn().(*tls.Conn).ConnectionState().PeerCertificates[0]
		if err := leaf.VerifyHostname(domain); err != nil {
			t.Errorf("%s: %v", domain, err)
		}
		_, features := c.Open(domain)
		if offers := strings.Contains(features.String(), "iq-register"); offers != (domain == "chat.test") {
			t.Errorf("%s offers registration: %v", domain, offers)
		}
	}
	// Direct TLS has SNI alone to go by.
	for _, domain := range []string{"localhost", "chat.test"} {
		tc, err := tls.Dial("tcp", srv.Addr("c2s_tls").String(), &tls.Config{InsecureSkipVerify: true, ServerName: domain, NextProtos: []string{"xmpp-client"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := tc.ConnectionState().PeerCertificates[0].VerifyHostname(domain); err != nil {
			t.Errorf("SNI %s: %v", domain, err)
		}
		_ = tc.Close()
	}
	// The same localpart is another account, and an admin of one domain is none of the other.
	a, b := srv.Client("romeo@localhost/x"), srv.Client("romeo@chat.test/x")
	a.Online()
	b.Online()
	a.Send("<message to='romeo@chat.test' type='chat'><body>who are you?</body></message>")
	b.Expect("<message from='romeo@localhost/x' to='romeo@chat.test' type='chat'><body>who are you?</body></message>")
	a.ExpectNothing()
	const list = "<iq type='get' id='l' to='%s'><query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/></iq>"
	for _, c := range []struct {
		c      *xmpptest.Client
		domain string
		admin  bool
	}{{a, "localhost", false}, {a, "chat.test", false}, {b, "localhost", false}, {b, "chat.test", true}} {
		c.c.Send(fmt.Sprintf(list, c.domain))
		if e := c.c.Read(); strings.Contains(e.String(), "admin#add-user") != c.admin {
			t.Errorf("%s at %s: %s, want admin %v", c.c.JID, c.domain, e, c.admin)
		}
	}
}

// An account that is deleted while it is online is gone at once: its sessions end, its contacts see it go, and a new one of that name has nothing
// of it.
func TestDeleteAccount(t *testing.T) {
	srv := xmpptest.New(t)
	romeo, juliet := srv.Client("romeo@localhost/x"), srv.Client("juliet@localhost/y")
	juliet.Roster()
	juliet.Online()
	romeo.Online()
	romeo.Send("<presence type='subscribe' to='juliet@localhost'/>")
	romeo.Sync()
	juliet.Send("<presence type='subscribed' to='romeo@localhost'/><presence type='subscribe' to='romeo@localhost'/>")
	juliet.Sync()
	romeo.Send("<presence type='subscribed' to='juliet@localhost'/>")
	romeo.Sync()
	juliet.Discard()
	romeo.Discard()
	if err := srv.Accounts().Delete(context.Background(), jid.MustParse("romeo@localhost")); err != nil {
		t.Fatal(err)
	}
	for {
		e := romeo.Read()
		if e.Local != "error" {
			continue // it may see its contacts' answers first
		}
		if e.Children[0].Local != "not-authorized" {
			t.Fatalf("romeo received %s", e)
		}
		break
	}
	gone := false
	srv.Eventually("juliet sees romeo go", func() bool {
		juliet.Send("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>")
		for {
			e := juliet.Read()
			gone = gone || e.Local == "presence" && strings.Contains(e.String(), "type='unavailable'")
			if e.Local == "iq" && strings.Contains(e.String(), "id='roster'") {
				return gone && !strings.Contains(e.String(), "subscription='both'")
			}
		}
	})
	again := srv.Client("romeo@localhost/x")
	again.Send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>")
	again.Expect("<iq type='result' id='r' to='{any}' from='romeo@localhost'><query xmlns='jabber:iq:roster' ver='{any}'/></iq>")
}

// A new password ends every session that the old one opened.
func TestPasswordChangeEndsSessions(t *testing.T) {
	srv := xmpptest.New(t)
	romeo := srv.Client("romeo@localhost/x")
	if err := srv.Accounts().SetPassword(context.Background(), jid.MustParse("romeo@localhost"), "rosaline"); err != nil {
		t.Fatal(err)
	}
	romeo.ExpectClose("<not-authorized xmlns='" + streams + "'/>")
}

// RFC 6120 §4.9.3.20: every stream is told, and a message that was accepted is not lost with the server.
func TestShutdown(t *testing.T) {
	srv := xmpptest.New(t)
	romeo := srv.Client("romeo@localhost/x")
	ctx, cancel := context.WithTimeout(context.Background(), xmpptest.Patience)
	defer cancel()
	if err := srv.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	romeo.ExpectClose("<system-shutdown xmlns='" + streams + "'/>")
}

// TestPostgres runs the main job on PostgreSQL: login, subscription, chat, offline.
func TestPostgres(t *testing.T) {
	dsn := pgtest.Start(t)
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) {
		c.Storage = config.Storage{Driver: config.Postgres, DSN: dsn}
	}))
	chat(t, srv)
}

// The database is gone and comes back: who is online goes on talking, what needs the database gets an error of type wait (never a loss
// without a word), logins fail for the time being, and afterwards everything works without a restart.
func TestDatabaseGoneAndBack(t *testing.T) {
	pg := pgtest.New(t, false)
	dsn := pg.Database(t)
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) {
		c.Storage = config.Storage{Driver: config.Postgres, DSN: dsn}
	}))
	romeo, juliet := srv.Client("romeo@localhost/x"), srv.Client("juliet@localhost/y")
	srv.Account("nurse@localhost")
	romeo.Online()
	juliet.Online()
	romeo.Send("<message to='nurse@localhost' type='chat'><body>before</body></message>")
	romeo.ExpectNothing()

	pg.Stop(t)
	romeo.Send("<message to='juliet@localhost' type='chat'><body>still here</body></message>")
	juliet.Expect("<message to='juliet@localhost' from='romeo@localhost/x' type='chat'><body>still here</body></message>")
	const wait = "<error type='wait' code='500'><internal-server-error xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
	romeo.Send("<message to='nurse@localhost' type='chat' id='m'><body>lost?</body></message>")
	romeo.Expect("<message from='nurse@localhost' to='romeo@localhost/x' type='error' id='m'><body>lost?</body>" + wait + "</message>")
	romeo.Send("<iq type='set' id='v'><vCard xmlns='vcard-temp'><FN>Romeo</FN></vCard></iq>")
	romeo.Expect("<iq type='error' id='v' from='romeo@localhost' to='romeo@localhost/x'><vCard xmlns='vcard-temp'><FN>Romeo</FN></vCard>" + wait + "</iq>")
	c := srv.Dial()
	c.Open("localhost")
	c.StartTLS(nil)
	c.Open("localhost")
	if err := c.Authenticate(sasl.ScramSha256, "nurse", "nurse"); err == nil || err.Error() != "temporary-auth-failure" {
		t.Fatalf("login without a database: %v", err)
	}

	pg.Start(t)
	srv.Eventually("the database is back", func() bool { return srv.Healthy(context.Background()) == nil })
	romeo.Send("<message to='nurse@localhost' type='chat' id='m'><body>after</body></message>")
	romeo.ExpectNothing()
	nurse := srv.Client("nurse@localhost/z")
	nurse.Online()
	for _, body := range []string{"before", "after"} {
		if e := nurse.Read(); !strings.Contains(e.String(), "<body>"+body+"</body>") {
			t.Fatalf("nurse received %s, want %s", e, body)
		}
	}
	nurse.ExpectNothing()
}

// TestSQLiteFile does the same on a file, as in service.
func TestSQLiteFile(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Storage.DSN = "" }))
	chat(t, srv)
}

func chat(t *testing.T, srv *xmpptest.Server) {
	t.Helper()
	romeo, juliet := srv.Client("romeo@localhost/x"), srv.Client("juliet@localhost/y")
	romeo.Online()
	juliet.Online()
	romeo.Roster()
	romeo.Send("<presence type='subscribe' to='juliet@localhost'/>")
	romeo.Expect("<iq type='set' id='{any}' to='romeo@localhost/x'><query xmlns='jabber:iq:roster' ver='{any}'><item jid='juliet@localhost' subscription='none' ask='subscribe'/></query></iq>")
	juliet.Expect("<presence type='subscribe' from='romeo@localhost' to='juliet@localhost'/>")
	juliet.Send("<presence type='subscribed' to='romeo@localhost'/>")
	romeo.Expect("<presence type='subscribed' from='juliet@localhost' to='romeo@localhost'/>")
	romeo.Expect("<iq type='set' id='{any}' to='romeo@localhost/x'><query xmlns='jabber:iq:roster' ver='{any}'><item jid='juliet@localhost' subscription='to'/></query></iq>")
	romeo.Expect("<presence from='juliet@localhost/y' to='romeo@localhost'/>")
	romeo.Send("<message to='juliet@localhost' type='chat'><body>hello</body></message>")
	juliet.Expect("<message to='juliet@localhost' from='romeo@localhost/x' type='chat'><body>hello</body></message>")
	juliet.Disconnect()
	romeo.Expect("<presence type='unavailable' from='juliet@localhost/y' to='romeo@localhost'/>")
	for n := range 3 {
		romeo.Send(fmt.Sprintf("<message to='juliet@localhost' type='chat'><body>%d</body></message>", n))
	}
	romeo.ExpectNothing()
	juliet = srv.Client("juliet@localhost/z")
	juliet.Online()
	for n := range 3 {
		juliet.Expect(fmt.Sprintf("<message to='juliet@localhost' from='romeo@localhost/x' type='chat'><body>%d</body>"+
			"<delay xmlns='urn:xmpp:delay' from='localhost' stamp='{any}'>{any}</delay></message>", n))
	}
	juliet.ExpectNothing()
	if n := srv.Offline("juliet@localhost"); n != 0 {
		t.Errorf("%d messages are still in the spool", n)
	}
}
