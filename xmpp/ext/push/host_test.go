package push_test

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"log/slog"
	"sort"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"balcony/storage"
	"balcony/xmpp"
	"balcony/xmpp/ext/offline"
	"balcony/xmpp/ext/push"
	"balcony/xmpp/router"
	"balcony/xmpp/stream"

	"github.com/prometheus/client_golang/prometheus"
	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

var (
	user   = jid.MustParse("user@example.com")
	juliet = jid.MustParse("juliet@capulet.example/balcony")
)

// host is a router with the module, the spool and a database in memory, and push services at other domains. Everything in it is inside of a
// synctest bubble.
type host struct {
	*router.Router
	t      *testing.T
	db     *storage.DB
	module *push.Module
	stop   func()

	mu sync.Mutex
	// Guarded by mu.
	answer func(*xmpp.Stanza) *xmpp.Stanza // of the push services; nil result: none
	sent   []*xmpp.Stanza                  // requests to push services
	asleep map[xmpp.Session]bool           // sessions that cannot be reached
}

type setup struct {
	cfg    push.Config
	bounds push.Bounds
	noRun  bool // nobody takes the news
	reach  bool // the module is told which sessions sleep
}

func defaults() setup {
	return setup{cfg: push.DefaultConfig(), bounds: push.Bounds{Queue: 100, Devices: 100, InFlight: 20, PerService: 10, Failures: 16}}
}

// run runs a test in a bubble. options change its setup.
func run(t *testing.T, test func(*host), options ...func(*setup)) {
	t.Helper()
	s := defaults()
	for _, o := range options {
		o(&s)
	}
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.NewTextHandler(io.Discard, nil))
		db, err := storage.Open(context.Background(), storage.Config{Driver: "sqlite", DSN: ":memory:"}, "", storage.DefaultLimits(), log)
		if err != nil {
			t.Fatal(err)
		}
		r := router.New(router.DefaultConfig(), db, router.NewMetrics(prometheus.NewRegistry()), log)
		r.SetHosts(map[string]router.Host{"example.com": {}})
		h := &host{Router: r, t: t, db: db, asleep: make(map[xmpp.Session]bool),
			answer: func(s *xmpp.Stanza) *xmpp.Stanza { return s.Result(nil) }}
		r.SetRemote(h.remote)
		if err := db.CreateAccount(context.Background(), user, nil); err != nil {
			t.Fatal(err)
		}
		h.module = push.NewBounded(s.cfg, s.bounds, db, log)
		if s.reach {
			h.module.UseReachability(h)
		}
		h.module.Register(r.Registry())
		offline.New(db, log).Register(r.Registry())
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if !s.noRun {
				h.module.Run(ctx)
			}
		}()
		h.stop = func() { cancel(); <-ended }
		t.Cleanup(func() {
			h.stop()
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		test(h)
	})
}

func withConfig(f func(*push.Config)) func(*setup) { return func(s *setup) { f(&s.cfg) } }
func withBounds(f func(*push.Bounds)) func(*setup) { return func(s *setup) { f(&s.bounds) } }
func withReach(s *setup)                           { s.reach = true }

// Reachable is what the host tells the module.
func (h *host) Reachable(s xmpp.Session) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.asleep[s]
}

// remote stands for the other servers: domains of push services and those where senders live.
func (h *host) remote(_ context.Context, s *xmpp.Stanza) error {
	if s.Kind != xmpp.IQ {
		return nil
	}
	h.mu.Lock()
	h.sent = append(h.sent, s)
	answer := h.answer(s)
	h.mu.Unlock()
	if answer != nil {
		go h.Route(context.Background(), answer)
	}
	return nil
}

// services sets what push services answer.
func (h *host) services(answer func(*xmpp.Stanza) *xmpp.Stanza) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer = answer
}

// failing is an answer with that error.
func failing(typ, condition string) func(*xmpp.Stanza) *xmpp.Stanza {
	return func(s *xmpp.Stanza) *xmpp.Stanza {
		r := xmpp.New(xmpp.IQ, "error", s.From, s.To, xmpp.El("", "error", "type", typ).Add(
			xmpp.El(xmpp.NSStanzas, condition), xmpp.El(xmpp.NSStanzas, "text").Say("no")))
		r.ID = s.ID
		return r
	}
}

func silent(*xmpp.Stanza) *xmpp.Stanza { return nil }

// after lets d pass and everything happen that happens meanwhile; then it returns what push services were sent.
func (h *host) after(d time.Duration) []*xmpp.Stanza {
	h.t.Helper()
	time.Sleep(d) // in the bubble
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	sent := h.sent
	h.sent = nil
	return sent
}

// now is what was sent without waiting.
func (h *host) now() []*xmpp.Stanza { h.t.Helper(); return h.after(0) }

// count checks how many notifications were sent.
func (h *host) count(what string, sent []*xmpp.Stanza, want int) {
	h.t.Helper()
	if len(sent) != want {
		h.t.Fatalf("%s: %d notifications, want %d", what, len(sent), want)
	}
}

// parse reads a stanza as from a stream.
func parse(t testing.TB, text string) *xmpp.Stanza {
	t.Helper()
	s, err := stream.Parse([]byte(text), stream.DefaultLimits())
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return s
}

// receive is a stanza that comes from another server.
func (h *host) receive(text string) {
	h.t.Helper()
	h.Route(context.Background(), parse(h.t, text))
}

// message is a chat message to the user with that body, from juliet.
func (h *host) message(body string) {
	h.t.Helper()
	s := xmpp.New(xmpp.Message, "chat", user, juliet, xmpp.El("", "body").Say(body))
	s.ID = body
	h.Route(context.Background(), s)
}

// client is a session and what was written to it.
type client struct {
	h *host
	*router.Session
	mu  sync.Mutex
	got []*xmpp.Stanza
}

func (h *host) bind(resource string) *client {
	h.t.Helper()
	c := &client{h: h}
	s, err := h.Bind(context.Background(), user, resource, c)
	if err != nil {
		h.t.Fatal(err)
	}
	c.Session = s
	return c
}

func (c *client) Enqueue(_ context.Context, s *xmpp.Stanza) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, s)
	return true
}

func (c *client) Close(streamerr.Error) {}

// Written: what was enqueued is written.
func (c *client) Written(context.Context) error { return nil }

// unbind ends the session.
func (c *client) unbind() { c.h.Unbind(context.Background(), c.Session) }

// sends is what the session's connection does with a stanza.
func (c *client) sends(text string) {
	c.h.t.Helper()
	s := parse(c.h.t, text)
	to := s.To
	if s.Kind == xmpp.IQ && to.Equal(jid.JID{}) {
		to = c.Bare()
	}
	c.h.Handle(context.Background(), &xmpp.Outgoing{Stanza: s.With(to, c.JID()), Sender: c.Session})
}

// last is the last stanza that was written.
func (c *client) last() *xmpp.Stanza {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.got) == 0 {
		c.h.t.Fatal("nothing was written")
	}
	return c.got[len(c.got)-1]
}

// succeeds sends a request and checks that the result is empty.
func (c *client) succeeds(text string) {
	c.h.t.Helper()
	c.sends(text)
	if r := c.last(); r.Kind != xmpp.IQ || r.Type != "result" || len(r.Spans()) != 0 {
		c.h.t.Fatalf("%s\nanswered with %s", text, r)
	}
}

// sleep makes a session one that cannot be reached.
func (c *client) sleep(asleep bool) {
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	c.h.asleep[c.Session] = asleep
}

const enable = "<iq type='set' id='x42'><enable xmlns='urn:xmpp:push:0' jid='push-5.client.example' node='yxs32uqsflafdk3iuqo'/></iq>"

// register enables push for a resource, which then goes offline.
func (h *host) register(resource string, requests ...string) {
	h.t.Helper()
	c := h.bind(resource)
	if len(requests) == 0 {
		requests = []string{enable}
	}
	for _, r := range requests {
		c.succeeds(r)
	}
	c.unbind()
	h.count("while push is enabled", h.now(), 0)
}

// registrations is how many the user has.
func (h *host) registrations() int {
	h.t.Helper()
	all, err := h.db.PushRegistrations(context.Background(), user)
	if err != nil {
		h.t.Fatal(err)
	}
	return len(all)
}

// same compares XML as XML: the order of attributes, prefixes and white space between elements do not count.
func same(t testing.TB, got *xmpp.Stanza, want string) {
	t.Helper()
	g, w := canonical(t, got.String()), canonical(t, want)
	if g != w {
		t.Errorf("got\n\t%s\nwant\n\t%s", g, w)
	}
}

// canonical writes XML in one way. The id is not compared, as it is random.
func canonical(t testing.TB, text string) string {
	t.Helper()
	var b strings.Builder
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			var attrs []string
			for _, a := range tok.Attr {
				if a.Name.Local != "xmlns" && (a.Name.Local != "id" || tok.Name.Local != "iq") {
					attrs = append(attrs, a.Name.Local+"="+a.Value)
				}
			}
			sort.Strings(attrs)
			b.WriteString("<{" + tok.Name.Space + "}" + tok.Name.Local + " " + strings.Join(attrs, " ") + ">")
		case xml.CharData:
			b.WriteString(strings.TrimSpace(string(tok)))
		case xml.EndElement:
			b.WriteString("</>")
		}
	}
}
