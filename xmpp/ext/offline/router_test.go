package offline_test

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"balcony/storage"
	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/ext/offline"
	"balcony/xmpp/router"

	"github.com/prometheus/client_golang/prometheus"
	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

// host is a router with the spool and a database, and sessions without connections.
type host struct {
	*router.Router
	t     testing.TB
	db    *storage.DB
	store *store
}

// store is the database, with things that a test makes happen to it.
type store struct {
	*storage.DB
	mu         sync.Mutex
	gate       chan struct{} // appends wait until it is closed; nil: they do not
	appendErr  error
	readErr    error
	removeErr  error
	hang       chan struct{} // the next read tells it, and does not return before its context is done
	unreadable map[int64]bool
	appended   chan struct{} // hears of every append; may be nil
	reads      []string
}

func (s *store) read(name string) { s.set(func(s *store) { s.reads = append(s.reads, name) }) }

func (s *store) SpoolState(ctx context.Context, account jid.JID) (offline.State, error) {
	s.read("SpoolState")
	return s.DB.SpoolState(ctx, account)
}

func (s *store) Waiting(ctx context.Context, account jid.JID, in offline.Span, limit int) ([]offline.Entry, error) {
	s.read("Waiting")
	return s.DB.Waiting(ctx, account, in, limit)
}

func (s *store) AppendOffline(ctx context.Context, account jid.JID, stamp time.Time, st *xmpp.Stanza) *xmpp.Commit {
	s.mu.Lock()
	gate, err := s.gate, s.appendErr
	s.mu.Unlock()
	if s.appended != nil {
		s.appended <- struct{}{}
	}
	if err != nil {
		c := new(xmpp.Commit)
		c.Complete(err)
		return c
	}
	if gate == nil {
		return s.DB.AppendOffline(ctx, account, stamp, st)
	}
	c, next := new(xmpp.Commit), make(chan struct{})
	s.set(func(s *store) { s.gate = next }) // appends keep their order
	go func() {
		<-gate
		s.DB.AppendOffline(ctx, account, stamp, st).Then(c.Complete)
		close(next)
	}()
	return c
}

func (s *store) Offline(ctx context.Context, account jid.JID, after int64, limit int) ([]offline.Entry, error) {
	s.read("Offline")
	s.mu.Lock()
	err, hang, unreadable := s.readErr, s.hang, s.unreadable
	s.mu.Unlock()
	if hang != nil {
		hang <- struct{}{}
		<-ctx.Done()
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	entries, err := s.DB.Offline(ctx, account, after, limit)
	for i := range entries {
		if unreadable[entries[i].ID] {
			entries[i].Stanza = nil
		}
	}
	return entries, err
}

func (s *store) RemoveOffline(ctx context.Context, account jid.JID, upTo int64) error {
	s.mu.Lock()
	err := s.removeErr
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.DB.RemoveOffline(ctx, account, upTo)
}

func (s *store) set(f func(*store)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

var (
	romeo  = jid.MustParse("romeo@montague.net/orchard")
	juliet = jid.MustParse("juliet@capulet.com")
)

type option func(*host, *offline.Module)

// before registers another module's filters ahead of the spool's.
func before(f func(*xmpp.Registry)) option {
	return func(h *host, _ *offline.Module) { f(h.Registry()) }
}

func limits(messages int) func(*storage.Limits) {
	return func(l *storage.Limits) { l.OfflineMessages = messages }
}

func newHost(t testing.TB, change func(*storage.Limits), options ...option) *host {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	l := storage.DefaultLimits()
	if change != nil {
		change(&l)
	}
	db, err := storage.Open(t.Context(), storage.Config{Driver: "sqlite", DSN: ":memory:"}, "", l, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	h := &host{t: t, db: db, store: &store{DB: db}}
	for _, a := range []jid.JID{juliet, romeo.Bare()} {
		if err := db.CreateAccount(t.Context(), a, []auth.Verifier{{Mechanism: "SCRAM-SHA-1", Salt: []byte("x"), Iterations: 1, StoredKey: []byte("x"), ServerKey: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
	}
	return h.next(options...)
}

// next is the host of the next process, with the same database.
func (h *host) next(options ...option) *host {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	r := router.New(router.DefaultConfig(), h.db, router.NewMetrics(prometheus.NewRegistry()), log)
	r.SetHosts(map[string]router.Host{"capulet.com": {}, "montague.net": {}})
	h = &host{Router: r, t: h.t, db: h.db, store: h.store}
	m := offline.New(h.store, log)
	for _, o := range options {
		o(h, m)
	}
	m.Register(r.Registry())
	return h
}

// client is a session and what was written to it.
type client struct {
	h *host
	*router.Session

	mu      sync.Mutex
	queue   []*xmpp.Stanza // taken and not yet written
	got     []*xmpp.Stanza // written
	size    int            // of queue
	largest int            // that size ever was
	accept  int            // Enqueue refuses after so many; -1: never
	slow    bool           // nothing is written but by read
	away    bool           // its client may come back (XEP-0198)
	closed  string
	waiting chan struct{} // hears of every Written that waits; may be nil
	wake    chan struct{} // closed by read
}

// bind makes a session. It writes what it is given at once unless slow.
func (h *host) bind(account jid.JID, resource string, change ...func(*client)) *client {
	h.t.Helper()
	c := &client{h: h, accept: -1, wake: make(chan struct{})}
	for _, f := range change {
		f(c)
	}
	s, err := h.Bind(h.t.Context(), account, resource, c)
	if err != nil {
		h.t.Fatal(err)
	}
	c.Session = s
	return c
}

func (c *client) Enqueue(_ context.Context, s *xmpp.Stanza) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed != "" || c.accept == 0 {
		return false
	}
	c.accept--
	c.queue = append(c.queue, s)
	c.size += s.Size()
	c.largest = max(c.largest, c.size)
	if !c.slow {
		c.write()
	}
	return true
}

func (c *client) write() {
	c.got = append(c.got, c.queue...)
	c.queue, c.size = nil, 0
}

func (c *client) Close(reason streamerr.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = reason.Err
}

// Written waits for read.
func (c *client) Written(ctx context.Context) error {
	for {
		c.mu.Lock()
		done, ended, wake := len(c.queue) == 0, c.accept == 0 || c.away || c.closed != "", c.wake
		c.mu.Unlock()
		switch {
		case done:
			return nil
		case ended:
			return io.ErrClosedPipe
		}
		if c.waiting != nil {
			c.waiting <- struct{}{}
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// read makes a slow client read what is queued.
func (c *client) read() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write()
	close(c.wake)
	c.wake = make(chan struct{})
}

// handle is what the session's connection does with a stanza of its client.
func (c *client) handle(s *xmpp.Stanza) {
	var b xmpp.Batch
	ctx := xmpp.WithBatch(context.Background(), &b)
	c.h.Handle(ctx, &xmpp.Outgoing{Stanza: s, Sender: c.Session})
	b.End(ctx)
}

func (c *client) presence(children ...*xmpp.Element) {
	c.handle(xmpp.New(xmpp.Presence, "", jid.JID{}, c.JID(), children...))
}

// reading sends the presence of a slow client, which reads whenever it is waited for.
func (h *host) reading(c *client) {
	online := make(chan struct{})
	go func() {
		defer close(online)
		c.presence()
	}()
	for {
		select {
		case <-c.waiting:
			c.read()
		case <-online:
			return
		}
	}
}

func priority(p string) *xmpp.Element { return xmpp.El("", "priority").Say(p) }

// cut ends the session as a lost connection does: it leaves the table, and what it had not written comes back.
func (c *client) cut() {
	c.mu.Lock()
	c.closed = "lost"
	left := c.queue
	c.queue = nil
	c.mu.Unlock()
	c.h.Unbind(context.Background(), c.Session)
	for _, s := range left {
		c.h.Redeliver(context.Background(), c.Bare(), s)
	}
}

// messages are the bodies of the messages that were written.
func (c *client) messages() (bodies []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.got {
		if b, ok := s.Child("", "body"); ok && s.Kind == xmpp.Message {
			bodies = append(bodies, b.Text())
		}
	}
	return bodies
}

// errors are the error conditions that were written, with their types.
func (c *client) errors() (conditions []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.got {
		e, ok := s.Child("", "error")
		if !ok || s.Type != "error" {
			continue
		}
		el, err := e.Element()
		if err != nil {
			c.h.t.Fatal(err)
		}
		conditions = append(conditions, e.Attr("type")+" "+el.Children[0].Local)
	}
	return conditions
}

func text(body string) *xmpp.Stanza {
	return xmpp.New(xmpp.Message, "chat", juliet, romeo, xmpp.El("", "body").Say(body))
}

// send routes a message as its sender's connection does, and waits until it is stored if it is.
func (h *host) send(s *xmpp.Stanza) {
	var b xmpp.Batch
	ctx := xmpp.WithBatch(context.Background(), &b)
	h.Route(ctx, s)
	b.End(ctx)
}

// Eventually waits until ok, for what another goroutine does.
func (h *host) Eventually(ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			h.t.Fatal("it does not happen")
		}
	}
}

// spooled is the number of messages in juliet's spool.
func (h *host) spooled() int {
	h.t.Helper()
	n, err := h.db.CountOffline(context.Background(), juliet)
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}
