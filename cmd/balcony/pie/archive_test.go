package pie_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/ext/mam"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
)

// XEP-0227 §4.11, the example, and what other servers write besides: whole seconds, a room's message, the ids of their archive, times that cannot be.
func TestForeignArchive(t *testing.T) {
	databases(t, func(t *testing.T, srv *xmpptest.Server) {
		ctx := context.Background()
		result := func(id, stamp, message string) string {
			return "<result xmlns='urn:xmpp:mam:2' id='" + id + "'><forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='" + stamp + "'/>" + message + "</forwarded></result>\n"
		}
		romeo := func(n int, more string) string {
			return fmt.Sprintf("<message xmlns='jabber:client' to='juliet@localhost/balcony' from='romeo@montague.lit/orchard' type='chat' id='%d'>%s</message>", n, more)
		}
		done, err := srv.Accounts().Import(ctx, strings.NewReader("<server-data xmlns='urn:xmpp:pie:0'><host jid='localhost'><user name='juliet' password='juliet'><archive xmlns='urn:xmpp:pie:0#mam'>"+
			result("0", "1469-07-21T00:32:29Z", romeo(0, ""))+
			result("28482-98726-73623", "2010-07-10T23:08:25Z", romeo(1, "<body>Call me but love, and I'll be new baptized; Henceforth I never will be Romeo.</body><stanza-id xmlns='urn:xmpp:sid:0' by='juliet@localhost' id='28482-98726-73623'/><stanza-id xmlns='urn:xmpp:sid:0' by='room@conference.localhost' id='r'/>"))+
			result("x", "2010-07-10T23:08:25Z", romeo(2, ""))+
			result("x", "2010-07-10T23:08:24Z", "<message xmlns='jabber:client' to='juliet@localhost' from='room@conference.localhost/nurse' type='groupchat'><body>all</body></message>")+
			result("5d398-28273-f7382", "2010-07-10T23:08:25Z", "<message xmlns='jabber:client' to='romeo@montague.lit/orchard' from='juliet@localhost/balcony' type='chat' id='3'><body>What man art thou</body></message>")+
			result("y", "2010-07-10T23:09:32Z", "<message xmlns='jabber:client' to='romeo@montague.lit' id='4'/>")+
			result("y", "2999-07-10T23:09:32Z", "<message xmlns='jabber:client' from='juliet@localhost' id='5'/>")+
			result("y", "2999-07-10T23:09:32Z", romeo(6, ""))+
			"</archive></user></host></server-data>"))
		must(t, err)
		for n, want := range []string{"1469", "a message of a room is not taken over", "2999", "2999"} {
			if n >= len(done.Warnings) || !strings.Contains(done.Warnings[n], want) || !strings.HasPrefix(done.Warnings[n], fmt.Sprintf("line %d: ", []int{1, 4, 7, 8}[n])) {
				t.Errorf("no %s in %q", want, done.Warnings)
			}
		}
		c := srv.Client("juliet@localhost/balcony")
		c.Send("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2' queryid='q'/></iq>")
		page, err := srv.DB().QueryArchive(ctx, juliet, mam.Query{Max: 10})
		must(t, err)
		if len(page.Messages) != 7 {
			t.Fatalf("%d messages", len(page.Messages))
		}
		got := ""
		for n, m := range page.Messages {
			got += fmt.Sprintf("%d %s %t; ", n, m.Stamp.Format("2006-01-02 15:04:05"), m.Sent)
			c.Expect(fmt.Sprintf("<message from='juliet@localhost' to='juliet@localhost/balcony'><result xmlns='urn:xmpp:mam:2' queryid='q' id='%s'><forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='%s'/>%s</forwarded></result></message>",
				m.ID, m.Stamp.Format("2006-01-02T15:04:05.000000Z"), strings.Replace(string(m.XML), "<message", "<message xmlns='jabber:client'", 1)))
		}
		today := page.Messages[5].Stamp
		if want := fmt.Sprintf("0 1970-01-01 00:00:00 false; 1 2010-07-10 23:08:25 false; 2 2010-07-10 23:08:25 false; 3 2010-07-10 23:08:25 true; 4 2010-07-10 23:09:32 true; 5 %s true; 6 %s false; ",
			today.Format("2006-01-02 15:04:05"), page.Messages[6].Stamp.Format("2006-01-02 15:04:05")); got != want || time.Since(today) > time.Hour {
			t.Errorf("%s, not %s", got, want)
		}
		if s := string(page.Messages[1].XML); strings.Contains(s, "28482") || !strings.Contains(s, "by='room@conference.localhost'") {
			t.Errorf("ids of another archive: %s", s)
		}
		// Nothing of it waits for the client.
		c.Expect("<iq type='result' id='q' from='juliet@localhost' to='juliet@localhost/balcony'><fin xmlns='urn:xmpp:mam:2' complete='true'><set xmlns='http://jabber.org/protocol/rsm'>" +
			"<first index='0'>" + page.Messages[0].ID + "</first><last>" + page.Messages[6].ID + "</last><count>7</count></set></fin></iq>")
		if n := len(spool(t, srv, juliet)); n != 0 {
			t.Errorf("%d wait", n)
		}
		// A query by time finds what was imported, and what comes now is behind it.
		page, err = srv.DB().QueryArchive(ctx, juliet, mam.Query{Max: 10, With: jid.MustParse("romeo@montague.lit"), Start: time.Date(2010, 7, 10, 23, 8, 25, 0, time.UTC), End: time.Date(2010, 7, 10, 23, 8, 25, 0, time.UTC)})
		if err != nil || len(page.Messages) != 3 {
			t.Errorf("%d messages of that second, %v", len(page.Messages), err)
		}
	})
}

// Without an archive on this server what waits in that of the document waits as other messages do.
func TestArchiveIsOff(t *testing.T) {
	srv := xmpptest.New(t)
	done, err := srv.Accounts().Import(context.Background(), strings.NewReader("<server-data xmlns='urn:xmpp:pie:0'><host jid='localhost'><user name='juliet' password='juliet'>"+
		"<archive xmlns='urn:xmpp:pie:0#mam'><result/></archive><offline-messages><archived xmlns='urn:balcony:pie:0'/>"+
		"<message xmlns='jabber:client' from='romeo@montague.lit/orchard' to='juliet@localhost' id='1'><body>hi</body><stanza-id xmlns='urn:xmpp:sid:0' by='juliet@localhost' id='x'/>"+
		"<delay xmlns='urn:xmpp:delay' from='localhost' stamp='2010-07-10T23:08:25Z'/></message></offline-messages></user></host></server-data>"))
	must(t, err)
	if len(done.Warnings) != 1 || !strings.Contains(done.Warnings[0], "<archive xmlns='urn:xmpp:pie:0#mam'> is not taken over") {
		t.Errorf("%q", done.Warnings)
	}
	c := srv.Client("juliet@localhost/balcony")
	c.Send("<presence/>")
	c.Expect("<presence from='juliet@localhost/balcony' to='juliet@localhost'/>")
	c.Expect("<message from='romeo@montague.lit/orchard' to='juliet@localhost' id='1'><body>hi</body><delay xmlns='urn:xmpp:delay' from='localhost' stamp='2010-07-10T23:08:25.000000Z'>Offline Storage</delay></message>")
}

// What waited when the account was exported is what a client gets after the import, also when the account has just been there; both are served by the same process.
func TestWaitingAfterImport(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Archive)
	ctx := context.Background()
	srv.Account("juliet@localhost")
	romeo := srv.Client("romeo@localhost/orchard")
	send := func(n int) {
		t.Helper()
		romeo.Send(fmt.Sprintf("<message to='juliet@localhost' type='chat' id='%d'><body>%d</body></message>", n, n))
		romeo.Sync()
	}
	for n := range 3 {
		send(n)
	}
	waiting := export(t, srv, juliet)
	if n := strings.Count(waiting, "b:waits='true'"); n != 3 || strings.Count(waiting, "Offline Storage") != 3 {
		t.Errorf("%d waiting in %s", n, waiting)
	}
	got := func(c *xmpptest.Client) {
		t.Helper()
		c.Send("<presence/>")
		c.Expect("<presence from='" + c.JID.String() + "' to='juliet@localhost'/>")
		page, err := srv.DB().QueryArchive(ctx, juliet, mam.Query{Max: 10})
		must(t, err)
		for n := range 3 {
			m := page.Messages[n]
			c.Expect(fmt.Sprintf("<message from='romeo@localhost/orchard' to='juliet@localhost' type='chat' id='%d'><body>%d</body><stanza-id xmlns='urn:xmpp:sid:0' by='juliet@localhost' id='%s'/>"+
				"<delay xmlns='urn:xmpp:delay' from='localhost' stamp='%s'>Offline Storage</delay></message>", n, n, m.ID, m.Stamp.Format("2006-01-02T15:04:05.000000Z")))
		}
		c.Sync()
	}
	c := srv.Client("juliet@localhost/balcony")
	got(c)
	c.Close()
	srv.Eventually("the end of the session", func() bool { return len(srv.Sessions(juliet)) == 0 })
	must(t, srv.Accounts().Delete(ctx, juliet))
	_, err := srv.Accounts().Import(ctx, strings.NewReader(waiting))
	must(t, err)
	got(srv.Client("juliet@localhost/chamber"))
}

// 10,000 messages through an import and an export: what is held in memory stays the same.
func TestLargeArchive(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Archive)
	ctx := context.Background()
	const n = 10_000
	var m memory
	began := time.Now()
	_, err := srv.Accounts().Import(ctx, m.reads(&messages{n: n}))
	must(t, err)
	t.Logf("import of %d messages: %s", n, time.Since(began))
	began = time.Now()
	must(t, srv.Accounts().Export(ctx, juliet, m.writes()))
	t.Logf("export: %s, %d bytes", time.Since(began), m.written)
	if m.written < n*1000 {
		t.Errorf("%d bytes were exported", m.written)
	}
	if m.grown > 4<<20 {
		t.Errorf("the heap has grown by %d bytes", m.grown)
	}
	page, err := srv.DB().QueryArchive(ctx, juliet, mam.Query{Max: 0, Count: 20_000})
	if err != nil || page.Count != n {
		t.Errorf("%d messages, %v", page.Count, err)
	}
	// Nobody else's queries for a time got slower.
	last, err := srv.DB().QueryArchive(ctx, juliet, mam.Query{Max: 1, Backward: true})
	must(t, err)
	if ahead := last.Messages[0].Order - last.Messages[0].Stamp.UnixMicro(); ahead > 1_000_000 {
		t.Errorf("an order is %d microseconds ahead of its stamp", ahead)
	}
}

// memory watches the heap while a document goes by.
type memory struct {
	first, grown uint64
	written      int
	steps        int
}

func (m *memory) look(n int) {
	m.written += n
	if m.steps++; m.steps%25 != 1 {
		return
	}
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	if m.first == 0 {
		m.first = s.HeapAlloc
	}
	m.grown = max(m.grown, s.HeapAlloc-min(m.first, s.HeapAlloc))
}

func (m *memory) reads(r io.Reader) io.Reader {
	return readFunc(func(b []byte) (int, error) {
		n, err := r.Read(b)
		m.look(0)
		return n, err
	})
}

func (m *memory) writes() io.Writer {
	return writeFunc(func(b []byte) (int, error) {
		m.look(len(b))
		return len(b), nil
	})
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(b []byte) (int, error) { return f(b) }

type writeFunc func([]byte) (int, error)

func (f writeFunc) Write(b []byte) (int, error) { return f(b) }

// messages is a document with an archive, a message each second but for the first half, which is of one.
type messages struct {
	n, at int
	rest  []byte
}

func (d *messages) Read(b []byte) (int, error) {
	for len(d.rest) == 0 {
		switch {
		case d.at == 0:
			d.rest = []byte("<server-data xmlns='urn:xmpp:pie:0'><host jid='localhost'><user name='juliet' password='p'><archive xmlns='urn:xmpp:pie:0#mam'>")
		case d.at <= d.n:
			s := xmpp.New(xmpp.Message, "chat", juliet, jid.MustParse("romeo@montague.lit/o"), xmpp.El("", "body").Say(strings.Repeat("x", 1000)))
			stamp := time.Date(2020, 1, 1, 0, 0, max(0, d.at-d.n/2), 0, time.UTC).Format(time.RFC3339)
			d.rest = fmt.Appendf(nil, "<result xmlns='urn:xmpp:mam:2' id='%d'><forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='%s'/>%s</forwarded></result>\n", d.at, stamp, s.AppendStandalone(nil))
		case d.at == d.n+1:
			d.rest = []byte("</archive></user></host></server-data>")
		default:
			return 0, io.EOF
		}
		d.at++
	}
	n := copy(b, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}
