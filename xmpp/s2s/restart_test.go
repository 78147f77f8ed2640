package s2s_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/storage"
	"balcony/xmpp"
	"balcony/xmpp/s2s/s2stest"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
	_ "modernc.org/sqlite"
)

// TestRestart: what waits for another server when this one stops is sent after the next start, once and in order; what the other one has is not sent again.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	data := t.TempDir()
	kept := func(c *config.Config) { c.Data, c.Storage.DSN = data, "" }
	a, b := w.server("a.test", kept), w.server("b.test")
	line := s2stest.NewCable(t, b.Addr("s2s"))
	w.dns.Server("b.test", line.Addr())
	w.found("a.test", a)
	romeo, juliet := a.Client("romeo@a.test/orchard"), b.Client("juliet@b.test/balcony")
	juliet.Online()
	romeo.Send("<message to='juliet@b.test' type='chat' id='m0'/>")
	expect(juliet, "message", "m0")
	a.Eventually("the acknowledgement", func() bool {
		list, err := a.Federation().Streams(context.Background())
		return err == nil && len(list) == 1 && list[0].SM == "resumable" && list[0].Unacked == 0
	})
	line.Unplug()
	for i := range 20 {
		romeo.Send(fmt.Sprintf("<message to='juliet@b.test' type='chat' id='m%d'/>", i+1))
	}
	romeo.Send("<presence to='juliet@b.test' type='subscribe' id='s'/>")
	romeo.Sync()
	ctx, cancel := context.WithTimeout(context.Background(), xmpptest.Patience)
	defer cancel()
	if err := a.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	line.Plug()
	w.server("a.test", kept)
	for i := range 20 {
		if e := juliet.Read(); e.Attr("id") != fmt.Sprintf("m%d", i+1) {
			t.Fatalf("got %s, want m%d", e, i+1)
		}
	}
	if e := juliet.Read(); e.Attr("type") != "subscribe" {
		t.Errorf("got %s", e)
	}
	juliet.ExpectNothing()
}

// TestUnsentOfACrash: what the store holds when the server starts is sent on in order, with the time at which it was sent; what is too old, or for
// nobody, goes back to its sender, and nothing stays in the store.
func TestUnsentOfACrash(t *testing.T) {
	w := newWorld(t)
	data := t.TempDir()
	kept := func(c *config.Config) { c.Data, c.Storage.DSN = data, "" }
	a, b := w.server("a.test", kept), w.server("b.test")
	w.found("a.test", a)
	w.found("b.test", b)
	a.Account("romeo@a.test")
	juliet := b.Client("juliet@b.test/balcony")
	juliet.Online()
	ctx, cancel := context.WithTimeout(context.Background(), xmpptest.Patience)
	defer cancel()
	if err := a.Stop(ctx); err != nil {
		t.Fatal(err)
	}

	// What a process leaves that is killed.
	db, err := storage.Open(ctx, storage.Config{Driver: "sqlite"}, data, storage.DefaultLimits(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	leave := func(id, to string, since time.Time) {
		s := xmpp.New(xmpp.Message, "chat", jid.MustParse(to), jid.MustParse("romeo@a.test/orchard"), xmpp.El("", "body").Say(id))
		s.ID = id
		if _, c := db.AppendUnsent(s, since); c.Wait(ctx) != nil {
			t.Fatal(c.Wait(ctx))
		}
	}
	leave("old", "juliet@b.test", at.Add(-100*time.Hour))
	leave("m1", "juliet@b.test", at)
	leave("nobody", "juliet@nowhere.test", at)
	leave("m2", "juliet@b.test", at)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	a = w.server("a.test", kept, func(c *config.Config) { c.Limits.ServerQueueTime = config.Duration(3 * time.Second) })
	w.found("a.test", a)
	for _, id := range []string{"m1", "m2"} {
		m := juliet.Read()
		stamp := ""
		for _, c := range m.Children {
			if c.Local == "delay" && c.Attr("from") == "a.test" {
				stamp = c.Attr("stamp")
			}
			if c.Local == "again" {
				t.Errorf("the mark of servers goes on to clients: %s", m)
			}
		}
		if m.Attr("id") != id || !strings.HasPrefix(stamp, at.UTC().Format("2006-01-02T15:04:05.000")) {
			t.Errorf("got %s, want %s with its time", m, id)
		}
	}
	a.Eventually("an empty store", func() bool {
		list, err := a.DB().Unsent(ctx, 0, 10)
		return err == nil && len(list) == 0
	})
	// TestUndelivered has what senders are told who are there.
	for _, condition := range []string{"remote-server-not-found", "remote-server-timeout"} {
		if n := counted(t, a, "balcony_s2s_undelivered_total", condition); n != 1 {
			t.Errorf("%v stanzas went back with %s", n, condition)
		}
	}
	juliet.ExpectNothing()
}

// counted is the value of a counter with one label.
func counted(t *testing.T, s *xmpptest.Server, name, label string) float64 {
	t.Helper()
	all, err := s.Metrics().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetValue() == label {
					return m.GetCounter().GetValue()
				}
			}
		}
	}
	return 0
}

// TestAcknowledgedIsDurable: what goes to another server counts as handled when it is on the disk, also without an archive, and leaves the disk when the
// other server has it; chat states are not worth it.
func TestAcknowledgedIsDurable(t *testing.T) {
	w := newWorld(t)
	data := t.TempDir()
	a, b := w.server("a.test", func(c *config.Config) { c.Data, c.Storage.DSN, c.Archive.Enabled = data, "", false }), w.server("b.test")
	line := s2stest.NewCable(t, b.Addr("s2s"))
	w.dns.Server("b.test", line.Addr())
	w.found("a.test", a)
	romeo, juliet := a.Client("romeo@a.test/orchard"), b.Client("juliet@b.test/balcony")
	juliet.Online()
	romeo.Send("<message to='juliet@b.test' type='chat' id='m0'><body>0</body></message>") // the stream is open
	expect(juliet, "message", "m0")
	a.Eventually("the acknowledgement", func() bool {
		list, err := a.Federation().Streams(context.Background())
		return err == nil && len(list) == 1 && list[0].SM == "resumable" && list[0].Unacked == 0
	})
	line.Unplug()

	unlock := lockDatabase(t, data)
	romeo.Send("<enable xmlns='urn:xmpp:sm:3'/>")
	romeo.Expect("<enabled xmlns='urn:xmpp:sm:3'/>")
	romeo.Send("<message to='juliet@b.test' type='chat' id='m1'><body>1</body></message><message to='juliet@b.test' type='chat' id='c1'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>" +
		"<message to='juliet@b.test' type='chat' id='m2'><body>2</body></message><r xmlns='urn:xmpp:sm:3'/>")
	got := make(chan string)
	var free atomic.Bool
	go func() { got <- fmt.Sprint(romeo.Read(), free.Load()) }()
	juliet.Sync() // a round trip
	free.Store(true)
	unlock()
	if a := <-got; a != "<a xmlns='urn:xmpp:sm:3' h='3'/> true" {
		t.Errorf("got %s before the disk had it", a)
	}
	ctx, cancel := context.WithTimeout(context.Background(), xmpptest.Patience)
	defer cancel()
	var ids []string
	a.Eventually("m0 to be forgotten", func() bool {
		list, err := a.DB().Unsent(ctx, 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		ids = nil
		for _, u := range list {
			ids = append(ids, u.Stanza.ID)
		}
		return len(list) == 2
	})
	if fmt.Sprint(ids) != "[m1 m2]" {
		t.Errorf("stored: %v", ids)
	}
	line.Plug()
	for _, id := range []string{"m1", "c1", "m2"} {
		if m := juliet.Read(); m.Attr("id") != id {
			t.Errorf("got %s, want %s", m, id)
		}
	}
	a.Eventually("an empty store", func() bool {
		list, err := a.DB().Unsent(ctx, 0, 10)
		return err == nil && len(list) == 0
	})
}

// lockDatabase keeps a server from writing until unlock.
func lockDatabase(t *testing.T, data string) (unlock func()) {
	t.Helper()
	raw, err := sql.Open("sqlite", filepath.Join(data, "balcony.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	lock, err := raw.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, err = lock.ExecContext(context.Background(), "BEGIN IMMEDIATE"); err != nil; _, err = lock.ExecContext(context.Background(), "BEGIN IMMEDIATE") {
		if !strings.Contains(err.Error(), "locked") { // the server is writing
			t.Fatal(err)
		}
	}
	return func() {
		if _, err := lock.ExecContext(context.Background(), "ROLLBACK"); err != nil {
			t.Error(err)
		}
	}
}

// TestServerIsReadOn: the disk stands still: what another server sends is delivered, and read on, but acknowledged, and a request of the server itself
// answered, only when everything before it is durable.
func TestServerIsReadOn(t *testing.T) {
	w := newWorld(t)
	data := t.TempDir()
	b := w.server("b.test", func(c *config.Config) { c.Data, c.Storage.DSN, c.Archive.Enabled = data, "", true })
	juliet := b.Client("juliet@b.test/balcony")
	juliet.Online()
	cert := w.ca.Pair(s2stest.DNSNames("a.test"))
	a := knock(b, "a.test", "b.test", &cert)
	a.Write("<bidi xmlns='urn:xmpp:bidi'/>")
	a.external(t, "a.test", "b.test")
	a.Write("<enable xmlns='urn:xmpp:sm:3'/>")
	if e := a.Element(); e.Local != "enabled" {
		t.Fatalf("got %s", e)
	}
	message := func(id string) {
		t.Helper()
		a.Write("<message from='romeo@a.test/orchard' to='juliet@b.test/balcony' type='chat' id='" + id + "'><body>" + id + "</body></message><r xmlns='urn:xmpp:sm:3'/>")
		if m := juliet.Read(); m.Attr("id") != id {
			t.Fatalf("juliet got %s, want %s", m, id)
		}
	}
	message("0")
	if e := a.Element(); e.Local != "a" || e.Attr("h") != "1" {
		t.Fatalf("got %s", e)
	}
	unlock := lockDatabase(t, data)
	var free atomic.Bool
	type answer struct {
		text  string
		early bool
	}
	answers := make(chan answer, 10)
	go func() {
		for n := 0; n < 4; {
			e := a.Element()
			if e.Local == "r" {
				continue
			}
			n++
			answers <- answer{e.Local + e.Attr("h") + e.Attr("id"), !free.Load()}
		}
	}()
	message("1") // each is a read of its own
	message("2")
	a.Write("<iq from='a.test' to='b.test' type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq><r xmlns='urn:xmpp:sm:3'/>")
	juliet.Sync()
	free.Store(true)
	unlock()
	var got []string
	for range 4 {
		one := <-answers
		if one.early {
			t.Errorf("%s came before anything was durable", one.text)
		}
		got = append(got, one.text)
	}
	if fmt.Sprint(got) != "[a2 a3 iqp a4]" {
		t.Errorf("got %v", got)
	}
}
