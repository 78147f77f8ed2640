package mam_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/xmpp"
	"balcony/xmpp/xmpptest"
)

// body and id are what a client sees of a message that it gets.
func seen(e *xmpp.Element) (body, id string, delayed bool) {
	for _, c := range e.Children {
		switch c.Local {
		case "body":
			body = c.Text
		case "stanza-id":
			for _, a := range c.Attrs {
				if a.Name == "id" {
					id = a.Value
				}
			}
		case "delay":
			delayed = true
		}
	}
	return body, id, delayed
}

// messages are those that a client gets until its ping is answered.
func messages(t *testing.T, c *xmpptest.Client) (bodies, ids []string) {
	t.Helper()
	c.Send("<iq type='get' id='until'><ping xmlns='urn:xmpp:ping'/></iq>")
	for {
		e := c.Read()
		if e.Local == "iq" {
			return bodies, ids
		}
		if e.Local != "message" {
			continue
		}
		body, id, delayed := seen(e)
		if !delayed {
			body += " live"
		}
		bodies, ids = append(bodies, body), append(ids, id)
	}
}

func send(c *xmpptest.Client, to string, bodies ...string) {
	for _, b := range bodies {
		c.Send(fmt.Sprintf("<message to='%s' type='chat' id='%s'><body>%s</body></message>", to, b, b))
	}
	c.Sync()
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, ",") != strings.Join(want, ",") {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// archived are the ids of an account's archive, by its owner's client.
func archived(t *testing.T, c *xmpptest.Client) (ids []string) {
	t.Helper()
	c.Send("<iq type='set' id='all'><query xmlns='urn:xmpp:mam:2'/></iq>")
	for {
		e := c.Read()
		if e.Local == "iq" {
			return ids
		}
		for _, r := range e.Children {
			for _, a := range r.Attrs {
				if r.Local == "result" && a.Name == "id" {
					ids = append(ids, a.Value)
				}
			}
		}
	}
}

// XEP-0160 and XEP-0313 §6.1.1: what waited for the account comes when it is available, stamped, once, and with the ids of the archive. The limits of
// the spool do not hold where the archive keeps the messages.
func TestSpoolOfTheArchive(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive), xmpptest.Config(func(c *config.Config) { c.Limits.OfflineMessages = 2 }))
	romeo := srv.Client("romeo@localhost/orchard")
	srv.Account("juliet@localhost")
	var want []string
	for i := range 120 {
		want = append(want, fmt.Sprint(i))
	}
	send(romeo, "juliet@localhost", want...)
	if n := srv.Offline("juliet@localhost"); n != 0 {
		t.Errorf("%d messages are kept twice", n)
	}
	juliet := srv.Client("juliet@localhost/balcony")
	juliet.Send("<presence/>")
	got, ids := messages(t, juliet)
	same(t, "first session", got, want...)
	same(t, "ids", ids[:50], archived(t, juliet)...)
	juliet.Close()
	send(romeo, "juliet@localhost", "later")
	juliet = srv.Client("juliet@localhost/chamber")
	juliet.Send("<presence/>")
	got, _ = messages(t, juliet)
	same(t, "second session", got, "later")
	send(romeo, "juliet@localhost", "now")
	got, _ = messages(t, juliet)
	same(t, "live", got, "now live")
}

// A client that reads the archive before it becomes available does not get from the spool what it read, but what came since; another client gets
// what nobody has got.
func TestReadersOfTheArchive(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive))
	romeo := srv.Client("romeo@localhost/orchard")
	srv.Account("juliet@localhost")
	send(romeo, "juliet@localhost", "1", "2", "3")
	reader := srv.Client("juliet@localhost/reader")
	reader.Send("<iq type='set' id='last'><query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>1</max><before/></set></query></iq>")
	reader.Read()
	reader.Read()
	send(romeo, "juliet@localhost", "4")
	reader.Send("<presence/>")
	got, _ := messages(t, reader)
	same(t, "the reader", got, "4")
	reader.Close()
	other := srv.Client("juliet@localhost/other")
	other.Send("<presence/>")
	got, _ = messages(t, other)
	same(t, "another client", got, "1", "2")
	other.Close()
	third := srv.Client("juliet@localhost/third")
	third.Send("<presence/>")
	got, _ = messages(t, third)
	same(t, "a third", got)
}

// XEP-0198: what a client has not acknowledged waits, and goes to the next.
func TestUnacknowledgedWaits(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive))
	romeo, juliet := srv.Client("romeo@localhost/orchard"), srv.Client("juliet@localhost/balcony")
	juliet.Online()
	juliet.Send("<enable xmlns='urn:xmpp:sm:3'/>")
	juliet.Expect("<enabled xmlns='urn:xmpp:sm:3'/>")
	send(romeo, "juliet@localhost", "1", "2", "3")
	for n := 0; n < 3; {
		if juliet.Read().Local == "message" {
			n++
		}
	}
	juliet.Send("<a xmlns='urn:xmpp:sm:3' h='1'/>")
	juliet.Close()
	next := srv.Client("juliet@localhost/chamber")
	next.Send("<presence/>")
	got, _ := messages(t, next)
	same(t, "the next session", got, "2", "3")
	if err := srv.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// A page of what is older brings nothing that has arrived since the last one: that comes when the client is available. So it is with the messages of
// one contact, and with a count.
func TestReadersOfAPartMissNothing(t *testing.T) {
	rsm := func(set string) string { return "<set xmlns='http://jabber.org/protocol/rsm'>" + set + "</set>" }
	form := func(field, value string) string {
		return "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field><field var='" + field + "'><value>" + value + "</value></field></x>"
	}
	for name, second := range map[string]func(id string) string{
		"older":   func(id string) string { return rsm("<before>" + id + "</before>") },
		"before":  func(id string) string { return form("before-id", id) },
		"ids":     func(id string) string { return form("ids", id) },
		"with":    func(string) string { return form("with", "nurse@localhost") },
		"end":     func(string) string { return form("end", "2020-01-01T00:00:00Z") },
		"a count": func(string) string { return rsm("<max>0</max>") },
	} {
		t.Run(name, func(t *testing.T) {
			srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive))
			romeo := srv.Client("romeo@localhost/orchard")
			srv.Account("juliet@localhost")
			send(romeo, "juliet@localhost", "1", "2", "3")
			reader := srv.Client("juliet@localhost/reader")
			query := func(what string) (last string) {
				reader.Send("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'>" + what + "</query></iq>")
				for e := reader.Read(); e.Local != "iq"; e = reader.Read() {
					for _, a := range e.Children[0].Attrs {
						if a.Name == "id" {
							last = a.Value
						}
					}
				}
				return last
			}
			id := query(rsm("<max>1</max><before/>"))
			send(romeo, "juliet@localhost", "4")
			query(second(id))
			reader.Send("<presence/>")
			got, _ := messages(t, reader)
			same(t, "the reader", got, "4")
		})
	}
}

// What a client has got from the archive does not come once more when the session ends that had it, and whose client never acknowledged it.
func TestFetchedComesNotAgain(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive))
	romeo, away := srv.Client("romeo@localhost/orchard"), srv.Client("juliet@localhost/away")
	away.Online()
	away.Send("<enable xmlns='urn:xmpp:sm:3'/>")
	away.Expect("<enabled xmlns='urn:xmpp:sm:3'/>")
	send(romeo, "juliet@localhost", "1", "2")
	reader := srv.Client("juliet@localhost/reader")
	archived(t, reader)
	reader.Send("<presence/>")
	got, _ := messages(t, reader)
	same(t, "the reader", got)
	away.Disconnect()
	srv.Eventually("the end of the other session", func() bool { return !srv.Available("juliet@localhost/away") })
	got, _ = messages(t, reader)
	same(t, "the reader, when the other session has ended", got)
}

// A client that resumes its session right after a restart, and acknowledges there what it had got before, has it: nobody gets it again.
func TestAcknowledgedRightAfterRestart(t *testing.T) {
	dir := t.TempDir()
	file := xmpptest.Config(func(c *config.Config) { c.Data, c.Storage.DSN = dir, "" })
	first := xmpptest.New(t, file, xmpptest.Config(xmpptest.Archive))
	romeo, juliet := first.Client("romeo@localhost/orchard"), first.Client("juliet@localhost/balcony")
	juliet.Online()
	juliet.Send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	id := ""
	for _, a := range juliet.Read().Attrs {
		if a.Name == "id" {
			id = a.Value
		}
	}
	send(romeo, "juliet@localhost", "1")
	juliet.Read()
	juliet.Disconnect()
	if err := first.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	second := xmpptest.New(t, file, xmpptest.Config(xmpptest.Archive))
	back, _ := second.Login("juliet@localhost")
	back.Write("<resume xmlns='urn:xmpp:sm:3' previd='" + id + "' h='1'/>")
	if e := back.Element(); e.Local != "resumed" {
		t.Fatalf("resume: %s", e)
	}
	other := second.Client("juliet@localhost/other")
	other.Send("<presence/>")
	got, _ := messages(t, other)
	same(t, "another client", got)
}

// What one client of an account has got does not wait any more because the session of another, which outlives a restart, has it too.
func TestGotByAnotherBeforeRestart(t *testing.T) {
	dir := t.TempDir()
	file := xmpptest.Config(func(c *config.Config) { c.Data, c.Storage.DSN = dir, "" })
	srv := xmpptest.New(t, file, xmpptest.Config(xmpptest.Archive))
	romeo, desk, phone := srv.Client("romeo@localhost/orchard"), srv.Client("juliet@localhost/desk"), srv.Client("juliet@localhost/phone")
	phone.Send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	if e := phone.Read(); e.Local != "enabled" {
		t.Fatalf("enable: %s", e)
	}
	desk.Online()
	phone.Online()
	send(romeo, "juliet@localhost", "1")
	got, _ := messages(t, desk)
	same(t, "the desk", got, "1 live")
	phone.Disconnect()
	if err := srv.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	srv = xmpptest.New(t, file, xmpptest.Config(xmpptest.Archive))
	phone = srv.Client("juliet@localhost/phone") // which does not resume
	phone.Send("<presence/>")
	got, _ = messages(t, phone)
	same(t, "the phone", got)
	if err := srv.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	srv = xmpptest.New(t, file, xmpptest.Config(xmpptest.Archive))
	desk = srv.Client("juliet@localhost/desk")
	desk.Send("<presence/>")
	got, _ = messages(t, desk)
	same(t, "the desk, after another restart", got)
}

// What another client has read in the archive does not come back from the queue of a session that outlives a restart and is replaced then.
func TestReadInTheArchiveBeforeRestart(t *testing.T) {
	dir := t.TempDir()
	file := xmpptest.Config(func(c *config.Config) { c.Data, c.Storage.DSN = dir, "" })
	srv := xmpptest.New(t, file, xmpptest.Config(xmpptest.Archive))
	romeo, phone := srv.Client("romeo@localhost/orchard"), srv.Client("juliet@localhost/phone")
	phone.Send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	if e := phone.Read(); e.Local != "enabled" {
		t.Fatalf("enable: %s", e)
	}
	phone.Online()
	send(romeo, "juliet@localhost", "1")
	phone.Disconnect()
	desk := srv.Client("juliet@localhost/desk")
	archived(t, desk)
	desk.Sync()
	if err := srv.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	srv = xmpptest.New(t, file, xmpptest.Config(xmpptest.Archive))
	phone = srv.Client("juliet@localhost/phone") // which does not resume
	phone.Send("<presence/>")
	got, _ := messages(t, phone)
	same(t, "the phone", got)
}
