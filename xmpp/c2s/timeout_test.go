package c2s

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/router"
	"balcony/xmpp/stream"

	"github.com/prometheus/client_golang/prometheus"
	"mellium.im/xmpp/jid"
)

// everybody has an account, and every session that was saved is in memory.
type everybody struct {
	saved  []xmpp.SavedSession
	saving func() error // what happens while they are stored; nil: nothing
}

func (everybody) AccountExists(context.Context, jid.JID) (bool, error) { return true, nil }

func (e *everybody) SaveSessions(_ context.Context, s []xmpp.SavedSession) error {
	if e.saving != nil {
		if err := e.saving(); err != nil {
			return err
		}
	}
	e.saved = s
	return nil
}

func (e *everybody) TakeSessions(context.Context) ([]xmpp.SavedSession, error) {
	s := e.saved
	e.saved = nil
	return s, nil
}

// watched is a server that runs in a bubble, and what nobody took of what it sent back.
type watched struct {
	*Server
	store *everybody

	mu   sync.Mutex
	left []*xmpp.Stanza
}

func watch(t *testing.T, saved ...xmpp.SavedSession) *watched {
	t.Helper()
	w := &watched{store: &everybody{saved: saved}}
	r := router.New(router.DefaultConfig(), w.store, router.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	r.SetHosts(map[string]router.Host{"localhost": {}})
	r.Registry().Undelivered(func(_ context.Context, d *xmpp.Delivery) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.left = append(w.left, d.Stanza)
		return xmpp.ErrDrop
	})
	w.Server = New(DefaultConfig(), r, nil, nil, nil, w.store, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err := w.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *watched) online(account string) int {
	return len(w.router.Sessions(jid.MustParse(account)))
}

// A session waits for its client as long as it was promised, and not longer: then what it had not acknowledged goes on, with its first time, and the
// client learns how far the server had come. XEP-0198 §4 and §5.
func TestResumptionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		romeo := jid.MustParse("romeo@localhost")
		data := []byte(`{"id":"x","in":7,"acked":3,"max":300000000000,"times":["2026-11-25T22:00:00Z","2026-11-25T22:00:01Z"],"queue":[` +
			`"PG1lc3NhZ2UgdG89J3JvbWVvQGxvY2FsaG9zdCcgdHlwZT0nY2hhdCc+PGJvZHk+MTwvYm9keT48L21lc3NhZ2U+",` +
			`"PG1lc3NhZ2UgdG89J3JvbWVvQGxvY2FsaG9zdCcgdHlwZT0nY2hhdCc+PGJvZHk+MjwvYm9keT48L21lc3NhZ2U+"]}`)
		time.Sleep(time.Until(time.Date(2026, 11, 25, 23, 0, 0, 0, time.UTC)))
		w := watch(t, xmpp.SavedSession{Account: romeo, Resource: "orchard", Expires: time.Now().Add(-time.Hour), Data: data})
		time.Sleep(5*time.Minute - 2*time.Second) // the time that the server was down does not count
		synctest.Wait()
		if s, _, _ := w.managed("x", romeo); s == nil || w.online("romeo@localhost") != 1 {
			t.Fatal("the session has ended early")
		}
		if s, _, known := w.managed("x", jid.MustParse("juliet@localhost")); s != nil || known {
			t.Error("somebody else's session is known")
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if s, in, known := w.managed("x", romeo); s != nil || !known || in != 7 || w.online("romeo@localhost") != 0 {
			t.Errorf("after its time: %v, h=%d, known %v", s, in, known)
		}
		var got string
		for _, s := range w.left {
			got += s.String()
		}
		want := "<message to='romeo@localhost' type='chat'><body>1</body><delay xmlns='urn:xmpp:delay' from='localhost' stamp='2026-11-25T22:00:00.000Z'/></message>" +
			"<message to='romeo@localhost' type='chat'><body>2</body><delay xmlns='urn:xmpp:delay' from='localhost' stamp='2026-11-25T22:00:01.000Z'/></message>"
		if got != want {
			t.Errorf("sent on: %s\nwant %s", got, want)
		}
		if err := w.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if len(w.store.saved) != 0 {
			t.Error("a session that has ended is saved")
		}
	})
}

// A session that waits when the server stops is saved as it was restored, with the time that is left beginning anew.
func TestWaitingSessionIsSavedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := []byte(`{"id":"x","in":7,"acked":3,"max":300000000000}`)
		w := watch(t, xmpp.SavedSession{Account: jid.MustParse("romeo@localhost"), Resource: "orchard", Data: data})
		time.Sleep(4 * time.Minute)
		if err := w.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		w2 := watch(t, w.store.saved...)
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		if s, _, _ := w2.managed("x", jid.MustParse("romeo@localhost")); s == nil || s.sm.in != 7 || s.sm.queue.acked != 3 {
			t.Errorf("restored again: %v", s)
		}
		if err := w2.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// What arrives for a session while that is being saved is not taken by it: nobody would have it. And when it cannot be saved, what it had goes on.
func TestArrivesWhileSaved(t *testing.T) {
	for _, failure := range []error{nil, errors.New("disk full")} {
		synctest.Test(t, func(t *testing.T) {
			data := []byte(`{"id":"x","max":300000000000,"queue":["PG1lc3NhZ2UgdG89J3JvbWVvQGxvY2FsaG9zdCcgdHlwZT0nY2hhdCcgaWQ9JzEnLz4="]}`)
			w := watch(t, xmpp.SavedSession{Account: jid.MustParse("romeo@localhost"), Resource: "orchard", Data: data})
			w.store.saving = func() error {
				s := xmpp.New(xmpp.Message, "chat", jid.MustParse("romeo@localhost/orchard"), jid.MustParse("juliet@localhost/balcony"))
				s.ID = "2"
				w.router.Route(t.Context(), s)
				return failure
			}
			if err := w.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range w.left {
				got = append(got, s.ID)
			}
			slices.Sort(got) // without the gate of the spool they are in no order
			want := []string{"2"}
			if failure != nil {
				want = []string{"1", "2"}
			}
			if !slices.Equal(got, want) || len(w.store.saved) != 0 && failure != nil {
				t.Errorf("%v: sent on: %q, want %q; %d saved", failure, got, want, len(w.store.saved))
			}
		})
	}
}

// While the disk stands still a client is read on only so far: what it sends is in memory until it is durable.
// One more than the list holds is with the settler.
func TestUnsettledIsBounded(t *testing.T) {
	for name, c := range map[string]struct{ size, most int }{"large": {200 << 10, 2}, "small": {1, xmpp.MaxUnsettled + 2}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := watch(t)
				conn := &conn{server: w.Server, cfg: w.config.Load(), over: new(quiet), log: slog.New(slog.DiscardHandler), done: make(chan struct{}), account: jid.MustParse("romeo@localhost")}
				if err := conn.bindResource(t.Context(), "orchard", nil); err != nil {
					t.Fatal(err)
				}
				disk := new(xmpp.Commit)
				var read atomic.Int32
				go func() {
					for i := range 1000 {
						if i == 0 {
							xmpp.Await(xmpp.WithBatch(t.Context(), &conn.batch), disk, func(error) {})
						}
						conn.ackWanted = true
						read.Add(1)
						conn.submit(t.Context(), c.size)
					}
				}()
				synctest.Wait()
				if n := int(read.Load()); n > c.most {
					t.Errorf("%d reads while nothing is durable, want %d at most", n, c.most)
				}
				disk.Complete(nil)
				synctest.Wait()
				if n := read.Load(); n != 1000 {
					t.Errorf("%d reads in the end", n)
				}
				if err := w.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// quiet is a transport whose peer says nothing.
type quiet struct {
	stream.Transport
	mu    sync.Mutex
	sent  []stream.Sent
	woken bool
}

func (q *quiet) Send(s stream.Sent) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sent = append(q.sent, s)
	return nil
}
func (q *quiet) Flush() error       { return nil }
func (q *quiet) Ping()              {}
func (q *quiet) Begin(stream.Begin) {}
func (q *quiet) SetDeadline(t time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.woken = q.woken || !t.IsZero() && t.Before(time.Now())
	return nil
}

// A client that is silent is asked for a sign of life once, and its stream ends when it gives none: RFC 6120 §4.9.3.4, XEP-0199 §4.3.
func TestSilentClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		over := new(quiet)
		c := &conn{server: w.Server, cfg: w.config.Load(), over: over, log: slog.New(slog.DiscardHandler), done: make(chan struct{}), account: jid.MustParse("romeo@localhost")}
		if err := c.bindResource(t.Context(), "orchard", nil); err != nil {
			t.Fatal(err)
		}
		c.out.Load().unstall()
		c.touch()
		c.begun.Store(true)
		at := func(after time.Duration, pings int, ended bool) {
			t.Helper()
			time.Sleep(after)
			c.check(time.Now())
			over.mu.Lock()
			defer over.mu.Unlock()
			if len(over.sent) != pings || over.woken != ended || (c.ended() != nil) != ended {
				t.Errorf("after %s more: %d pings, woken %v, ended for %v; want %d and %v", after, len(over.sent), over.woken, c.ended(), pings, ended)
			}
		}
		at(c.cfg.PingAfter, 0, false)
		at(time.Second, 1, false)
		at(10*time.Second, 1, false) // asked once
		c.touch()                    // a sign of life
		at(c.cfg.PingAfter, 1, false)
		at(time.Second, 2, false)
		at(c.cfg.PingTimeout-time.Second, 2, false)
		at(time.Second, 2, true)
		if err := w.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
