package roster_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"balcony/roster"
	"balcony/storage"
	"balcony/xmpp"
	"balcony/xmpp/router"

	"github.com/prometheus/client_golang/prometheus"
	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

// world is a router with the roster module on a database in memory; sessions are recorded instead of written to a socket.
type world struct {
	t      testing.TB
	ctx    context.Context
	db     *storage.DB
	store  *flaky
	router *router.Router
	roster *roster.Module

	mu     sync.Mutex
	remote []*xmpp.Stanza // guarded by mu: what went to other servers
}

type option func(*roster.Config, *storage.Limits)

func newWorld(t testing.TB, options ...option) *world {
	t.Helper()
	cfg, limits := roster.DefaultConfig(), storage.DefaultLimits()
	for _, o := range options {
		o(&cfg, &limits)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	w := &world{t: t, ctx: t.Context()}
	var err error
	w.db, err = storage.Open(w.ctx, storage.Config{Driver: "sqlite", DSN: ":memory:"}, "", limits, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.db.Close(); err != nil {
			t.Error(err)
		}
	})
	w.store = &flaky{Store: w.db}
	w.router = router.New(router.DefaultConfig(), w.db, router.NewMetrics(prometheus.NewRegistry()), log)
	w.router.SetHosts(map[string]router.Host{"localhost": {}})
	w.router.SetRemote(func(_ context.Context, s *xmpp.Stanza) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.remote = append(w.remote, s)
		return nil
	})
	w.roster = roster.New(cfg, w.store, log)
	w.roster.UseLast(w.db)
	w.roster.Register(w.router.Registry())
	w.router.SetSubscriptions(w.roster)
	return w
}

// flaky is the database with failures on demand, and a count of its calls.
type flaky struct {
	roster.Store
	mu    sync.Mutex
	calls int
	err   error // what every call fails with
	lost  bool  // UpdateItem writes, and then fails
}

var errDown = errors.New("database is down")

func (f *flaky) call() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	return f.err
}

func (f *flaky) fail(err error, lost bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, f.lost = err, lost
}

func (f *flaky) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *flaky) Roster(ctx context.Context, owner jid.JID) ([]roster.Item, int64, error) {
	if err := f.call(); err != nil {
		return nil, 0, err
	}
	return f.Store.Roster(ctx, owner)
}

func (f *flaky) RosterSince(ctx context.Context, owner jid.JID, v int64) ([]roster.Item, int64, bool, error) {
	if err := f.call(); err != nil {
		return nil, 0, false, err
	}
	return f.Store.RosterSince(ctx, owner, v)
}

func (f *flaky) RosterItem(ctx context.Context, owner, contact jid.JID) (roster.Item, bool, error) {
	if err := f.call(); err != nil {
		return roster.Item{}, false, err
	}
	return f.Store.RosterItem(ctx, owner, contact)
}

func (f *flaky) UpdateItem(ctx context.Context, owner, contact jid.JID, change func(*roster.Item) bool) (roster.Item, error) {
	err := f.call()
	f.mu.Lock()
	lost := f.lost
	f.mu.Unlock()
	if err != nil && !lost {
		return roster.Item{}, err
	}
	it, werr := f.Store.UpdateItem(ctx, owner, contact, change)
	if err != nil {
		return roster.Item{}, err
	}
	return it, werr
}

func (f *flaky) RosterOwners(ctx context.Context, contact jid.JID, after int64, limit int) ([]jid.JID, int64, error) {
	if err := f.call(); err != nil {
		return nil, 0, err
	}
	return f.Store.RosterOwners(ctx, contact, after, limit)
}

// client is a session and what it has received.
type client struct {
	w *world
	s *router.Session

	mu  sync.Mutex
	got []*xmpp.Stanza // guarded by mu
}

func (c *client) Enqueue(_ context.Context, s *xmpp.Stanza) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, s)
	return true
}

func (c *client) Close(streamerr.Error) {}

func (w *world) account(bare string) jid.JID {
	w.t.Helper()
	j := jid.MustParse(bare)
	if ok, err := w.db.AccountExists(w.ctx, j); err != nil {
		w.t.Fatal(err)
	} else if !ok {
		if err := w.db.CreateAccount(w.ctx, j, nil); err != nil {
			w.t.Fatal(err)
		}
	}
	return j
}

// bind makes a session; its account is made if it is not there.
func (w *world) bind(full string) *client {
	w.t.Helper()
	j := jid.MustParse(full)
	w.account(j.Bare().String())
	c := &client{w: w}
	s, err := w.router.Bind(w.ctx, j.Bare(), j.Resourcepart(), c)
	if err != nil {
		w.t.Fatalf("bind %s: %v", full, err)
	}
	c.s = s
	return c
}

// online is bind with a roster get and initial presence, without what they bring.
func (w *world) online(full string) *client {
	w.t.Helper()
	c := w.bind(full)
	c.send("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>", "<presence/>")
	c.take()
	return c
}

func (c *client) close() { c.w.router.Unbind(c.w.ctx, c.s) }

// send takes stanzas through the pipeline, stamped as c2s does.
func (c *client) send(texts ...string) {
	c.w.t.Helper()
	for _, text := range texts {
		s := stanzaOf(c.w.t, text)
		s.From = c.s.JID()
		if s.To.Equal(jid.JID{}) && s.Kind != xmpp.Presence {
			s.To = s.From.Bare()
		}
		c.w.router.Handle(c.w.ctx, &xmpp.Outgoing{Stanza: s, Sender: c.s})
	}
}

// arrives routes a stanza as if another server had sent it.
func (w *world) arrives(text string) {
	w.t.Helper()
	w.router.Route(w.ctx, stanzaOf(w.t, text))
}

func stanzaOf(t testing.TB, text string) *xmpp.Stanza {
	t.Helper()
	e := elementOf(t, text)
	kind := map[string]xmpp.Kind{"message": xmpp.Message, "presence": xmpp.Presence, "iq": xmpp.IQ}[e.Local]
	s := xmpp.New(kind, "", jid.JID{}, jid.JID{}, e.Children...)
	for _, a := range e.Attrs {
		switch a.Name {
		case "type":
			s.Type = a.Value
		case "id":
			s.ID = a.Value
		case "to":
			s.To = jid.MustParse(a.Value)
		case "from":
			s.From = jid.MustParse(a.Value)
		}
	}
	return s
}

func elementOf(t testing.TB, text string) *xmpp.Element {
	t.Helper()
	e, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader(text)))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return e
}

// take empties what the client has received.
func (c *client) take() []*xmpp.Stanza {
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.got
	c.got = nil
	return got
}

// gets compares everything that the client has received since the last time. An attribute value * matches any.
func (c *client) gets(wants ...string) {
	c.w.t.Helper()
	compare(c.w.t, c.s.JID().String(), c.take(), wants)
}

// sent compares everything that went to other servers since the last time, in any order.
func (w *world) sent(wants ...string) {
	w.t.Helper()
	w.mu.Lock()
	got := w.remote
	w.remote = nil
	w.mu.Unlock()
	slices.SortStableFunc(got, func(a, b *xmpp.Stanza) int { return strings.Compare(a.To.String(), b.To.String()) })
	compare(w.t, "other servers", got, wants)
}

func compare(t testing.TB, who string, got []*xmpp.Stanza, wants []string) {
	t.Helper()
	for i := range max(len(got), len(wants)) {
		switch {
		case i >= len(wants):
			t.Errorf("%s got\n\t%s\nwant nothing", who, got[i])
		case i >= len(got):
			t.Errorf("%s got nothing\nwant\n\t%s", who, wants[i])
		default:
			if why := differ(elementOf(t, wants[i]), elementOf(t, got[i].String())); why != "" {
				t.Errorf("%s got\n\t%s\nwant\n\t%s\n%s", who, got[i], wants[i], why)
			}
		}
	}
}

func differ(want, got *xmpp.Element) string {
	if want.Space != got.Space || want.Local != got.Local || len(want.Attrs) != len(got.Attrs) || len(want.Children) != len(got.Children) {
		return fmt.Sprintf("{%s}%s differs", want.Space, want.Local)
	}
	for _, a := range want.Attrs {
		i := slices.IndexFunc(got.Attrs, func(b xmpp.Attr) bool { return a.Name == b.Name })
		if i < 0 || a.Value != "*" && a.Value != got.Attrs[i].Value {
			return fmt.Sprintf("%s/@%s differs", want.Local, a.Name)
		}
	}
	if want.Text != got.Text {
		return fmt.Sprintf("%s: text differs", want.Local)
	}
	for i, c := range want.Children {
		if why := differ(c, got.Children[i]); why != "" {
			return why
		}
	}
	return ""
}

// item is the stored item of contact in the roster of owner.
func (w *world) item(owner, contact string) roster.Item {
	w.t.Helper()
	it, _, err := w.db.RosterItem(w.ctx, jid.MustParse(owner), jid.MustParse(contact))
	if err != nil {
		w.t.Fatal(err)
	}
	return it
}

// state stores a subscription.
func (w *world) state(owner, contact string, change func(*roster.Item)) {
	w.t.Helper()
	_, err := w.db.UpdateItem(w.ctx, w.account(owner), jid.MustParse(contact), func(it *roster.Item) bool {
		it.Listed = true
		change(it)
		return true
	})
	w.roster.Forget(w.account(owner))
	if err != nil {
		w.t.Fatal(err)
	}
}

// friends makes two local accounts contacts of each other.
func (w *world) friends(a, b string) {
	w.t.Helper()
	w.account(a)
	w.account(b)
	both := func(it *roster.Item) { it.To, it.From = true, true }
	w.state(a, b, both)
	w.state(b, a, both)
}
