package s2s

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/router"

	"github.com/prometheus/client_golang/prometheus"
	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

// shelf is a store in memory.
type shelf struct {
	Store
	mu   sync.Mutex
	last int64                  // guarded by mu
	rows map[int64]*xmpp.Stanza // guarded by mu
}

func (s *shelf) AppendUnsent(st *xmpp.Stanza, _ time.Time) (int64, *xmpp.Commit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	s.rows[s.last] = st
	c := new(xmpp.Commit)
	c.Complete(nil)
	return s.last, c
}

// nobody has an account.
type nobody struct{}

func (nobody) AccountExists(context.Context, jid.JID) (bool, error) { return false, nil }

// loose is a server with a router and without a network.
func loose() *Server {
	s := bare()
	s.store = &shelf{rows: make(map[int64]*xmpp.Stanza)}
	s.router = router.New(router.DefaultConfig(), nobody{}, router.NewMetrics(prometheus.NewRegistry()), s.log)
	s.router.SetHosts(map[string]router.Host{"a.test": {}})
	s.metrics = newMetrics(prometheus.NewRegistry(), s)
	s.work = s.ctx
	return s
}

// deaf is a connection whose peer takes everything and says nothing.
func deaf(t *testing.T, s *Server, p pair) *conn {
	a, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Dial("tcp", a.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), tcp.Close() })
	cfg := s.config.Load()
	c := &conn{server: s, cfg: cfg, sock: &socket{TCPConn: tcp.(*net.TCPConn)}, outgoing: true, log: slog.New(slog.DiscardHandler), done: make(chan struct{}),
		domains: p, proven: map[pair]Method{p: External}}
	c.out = newWriter(tcp, func(error) {}, func() {})
	c.out.trust()
	s.open[c] = struct{}{}
	return c
}

func numbered(from, n int) (list []*xmpp.Stanza) {
	for i := range n {
		s := xmpp.New(xmpp.Message, "chat", jid.MustParse("juliet@b.test"), jid.MustParse("romeo@a.test/orchard"), xmpp.El("", "body").Say("x"))
		s.ID = fmt.Sprint(from + i)
		list = append(list, s)
	}
	return list
}

func ids(list []*item) (all []string) {
	for _, it := range list {
		all = append(all, it.stanza.ID)
	}
	return all
}

// TestNothingOvertakes: a stream ends while it carries stanzas, others are sent at each moment of that, and the peer opens another stream at each moment: what
// goes over it is in the order in which it was sent.
func TestNothingOvertakes(t *testing.T) {
	for name, managed := range map[string]bool{"stream management": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			for range 50 {
				s, p := loose(), pair{"a.test", "b.test"}
				s.closing = true // nobody dials
				l := s.link(p)
				old := deaf(t, s, p)
				if managed {
					old.session = &session{conn: old, confirmed: true}
				}
				if !l.attach(old, nil) {
					t.Fatal("the link does not take the connection")
				}
				for _, st := range numbered(0, 20) {
					if err := s.Send(t.Context(), st); err != nil {
						t.Fatal(err)
					}
				}
				next := deaf(t, s, p)
				next.session = &session{conn: next, confirmed: true}
				var wg sync.WaitGroup
				start := make(chan struct{})
				wg.Go(func() {
					<-start
					for _, st := range numbered(20, 20) {
						if err := s.Send(t.Context(), st); err != nil {
							t.Error(err)
						}
					}
				})
				wg.Go(func() {
					<-start
					for !l.attach(next, nil) { // the peer is quick
						runtime.Gosched()
					}
				})
				close(start)
				s.lost(old, net.ErrClosed)
				wg.Wait()
				l.pump(next)
				next.session.mu.Lock()
				got := ids(next.session.unacked)
				next.session.mu.Unlock()
				if len(got) != 40 {
					t.Fatalf("%d stanzas were sent, want 40: %v", len(got), got)
				}
				for i, id := range got {
					if id != fmt.Sprint(i) {
						t.Fatalf("sent: %v", got)
					}
				}
				next.out.stop()
			}
		})
	}
}

// TestDetachIsOneStep: what a connection has not brought to the peer is in front of its link in the moment in which the link is free for another one. That is what keeps the order;
// the moment between the two was too short for a test to meet it.
func TestDetachIsOneStep(t *testing.T) {
	s, p := loose(), pair{"a.test", "b.test"}
	l := s.link(p)
	c := &conn{server: s}
	var back []*item
	for _, st := range numbered(0, 3) {
		back = append(back, &item{stanza: st})
	}
	l.conn = c
	l.queue = []*item{{stanza: numbered(3, 1)[0]}}
	l.bytes = l.queue[0].stanza.Size()
	seen := make(chan []string)
	l.mu.Lock()
	go func() { // the first moment in which somebody sees the link free
		for {
			l.mu.Lock()
			if l.conn == nil {
				seen <- ids(l.queue)
				l.mu.Unlock()
				return
			}
			l.mu.Unlock()
			runtime.Gosched()
		}
	}()
	l.mu.Unlock()
	l.detach(c, nil, back)
	if got := <-seen; fmt.Sprint(got) != "[0 1 2 3]" {
		t.Errorf("a free link has %v", got)
	}
	sum := 0
	for _, it := range l.queue {
		sum += it.stanza.Size()
	}
	if l.bytes != sum {
		t.Errorf("%d bytes are counted, %d wait", l.bytes, sum)
	}
}

// TestEverythingIsForgotten: whatever becomes of a stanza, its bytes do not count for ever, and its row goes.
func TestEverythingIsForgotten(t *testing.T) {
	for name, end := range map[string]func(s *Server, l *link, c *conn){
		"acknowledged": func(s *Server, l *link, c *conn) {
			had, ok := c.session.ack(10)
			if !ok {
				panic("the session does not take the acknowledgement")
			}
			s.done(had...)
			s.done(had...)
		},
		"given up": func(s *Server, l *link, c *conn) {
			s.closing = true
			s.lost(c, errSpare)
			l.lastUp, l.running = time.Time{}, true
			l.failed(net.ErrClosed)
		},
		"too late": func(s *Server, l *link, c *conn) {
			s.closing = true
			s.lost(c, errSpare)
			l.expire(time.Now().Add(time.Hour))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, p := loose(), pair{"a.test", "b.test"}
			l, c := s.link(p), deaf(t, s, p)
			c.session = &session{conn: c, confirmed: true}
			l.attach(c, nil)
			for _, st := range numbered(0, 10) {
				if err := s.Send(t.Context(), st); err != nil {
					t.Fatal(err)
				}
			}
			if n := s.pending.size(); n < 10 {
				t.Errorf("%d bytes count", n)
			}
			end(s, l, c)
			if n, rows := s.pending.size(), s.pending.rows(); n != 0 || len(rows) != 10 || len(s.pending.by) != 0 {
				t.Errorf("%d bytes count, %d rows go, %d senders are remembered", n, len(rows), len(s.pending.by))
			}
			c.out.stop()
		})
	}
}

// TestTotalIsBounded: many domains that are away cannot fill the memory, and one who writes to them not what others may have.
func TestTotalIsBounded(t *testing.T) {
	s := loose()
	s.closing = true
	cfg := DefaultConfig()
	cfg.QueueTotal = 80_000
	s.config.Store(&cfg)
	fill := func(from string) (sent int) {
		for i := range 1000 {
			st := numbered(i, 1)[0].With(jid.MustParse(fmt.Sprintf("juliet@b%d.test", i)), jid.MustParse(from))
			if err := s.Send(t.Context(), st); err != nil {
				if e, ok := xmpp.AsStanzaError(err); !ok || e.Stanza.Condition != "resource-constraint" || e.Stanza.Type != "wait" {
					t.Errorf("%v", err)
				}
				return sent
			}
			sent += st.Size()
		}
		return sent
	}
	sum := fill("flood@a.test/x")
	if sum > 10_000 || sum < 9_000 {
		t.Errorf("%d bytes of one sender wait", sum)
	}
	if n := fill("flood@a.test/y"); n > 0 {
		t.Errorf("%d more of another resource", n)
	}
	for i := range 20 {
		sum += fill(fmt.Sprintf("u%d@a.test/x", i))
	}
	if sum > 80_000 || sum < 70_000 {
		t.Errorf("%d bytes wait in all", sum)
	}
}

// TestRepeated: a message that its own server sends again is compared with those that came; nothing else is.
func TestRepeated(t *testing.T) {
	r := newRecent()
	before, now := time.Now().Add(-time.Second), time.Now()
	st, sent := numbered(1, 1)[0], time.Now()
	again := func(st *xmpp.Stanza, at time.Time) *xmpp.Stanza {
		return (&item{stanza: st, since: at, again: true}).sent(at)
	}
	late := func(st *xmpp.Stanza, at time.Time) *xmpp.Stanza {
		return (&item{stanza: st, since: at}).sent(at.Add(time.Hour))
	}
	elsewhere := st.Append(xmpp.El(xmpp.NSDelay, "delay", "from", "elsewhere.test", "stamp", "2002-09-10T23:08:25Z"))
	nameless := *st
	nameless.ID = ""
	second, third := numbered(2, 1)[0], numbered(3, 1)[0]
	for _, c := range []struct {
		name string
		st   *xmpp.Stanza
		on   time.Time // beginning of the stream
		want bool
	}{
		{"the first", st, now, false},
		{"again", again(st, sent), now, true},
		{"again after the stream was lost once more", again(st, sent), now, true},
		{"another one with the same id and content", st, now, false},
		{"and late", late(st, sent.Add(time.Minute)), now, false},
		{"and late once more", late(st, sent.Add(time.Minute)), now, false},
		{"from elsewhere late", elsewhere, now, false},
		{"from elsewhere late, again", again(elsewhere, sent), now, true},
		{"to somebody else", again(st.WithTo(jid.MustParse("nurse@b.test")), sent), now, false},
		{"from somebody else", again(st.WithFrom(jid.MustParse("paris@a.test")), sent), now, false},
		{"without an id", again(&nameless, sent), now, false},
		{"without an id, again", again(&nameless, sent), now, false},
		// Neither of two with one id and content has come before.
		{"the second, again", again(second, sent), now, false},
		{"one like it, again", again(second, sent.Add(time.Millisecond)), now, false},
		{"one like it, again and again", again(second, sent.Add(time.Millisecond)), now, true},
		// The server was killed and begins anew, and its old stream still brings something.
		{"the third, again", again(third, sent), now, false},
		{"on the old stream", third, before, true},
		{"on the new stream", third, now, false},
	} {
		rest, got := r.repeated(c.st, c.on)
		if got != c.want {
			t.Errorf("%s: repeated: %t", c.name, got)
		}
		if rest.Has(nsAgain, "again") {
			t.Errorf("%s: the mark goes on to clients: %s", c.name, rest)
		}
	}
	for i := range 2*maxRecent + 10 {
		r.repeated(numbered(1000+i, 1)[0], now)
	}
	if n := len(r.now) + len(r.old); n > 2*maxRecent {
		t.Errorf("%d messages are remembered", n)
	}
}

// TestResumedSaysAgain: what a stream carried that may have come before it, from a process that was killed, still says so when that stream is resumed.
func TestResumedSaysAgain(t *testing.T) {
	here, there := net.Pipe()
	c := &conn{server: loose()}
	c.out = newWriter(here, func(error) {}, func() {})
	c.out.trust()
	list := numbered(0, 2)
	items := []*item{{stanza: list[0], since: time.Now(), row: 1, again: true}, {stanza: list[1], since: time.Now(), row: 2}}
	if err := c.again(&session{confirmed: true}, nil, items); err != nil {
		t.Fatal(err)
	}
	c.out.finish([]byte("end"))
	var text []byte
	for b := make([]byte, 4096); !strings.HasSuffix(string(text), "end"); {
		n, err := there.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, b[:n]...)
	}
	first, second, _ := strings.Cut(string(text), "</message>")
	if !strings.Contains(first, nsAgain) || strings.Contains(second, nsAgain) || !strings.Contains(second, "id='1'") {
		t.Errorf("sent: %s", text)
	}
	_, _ = here.Close(), there.Close()
	c.out.stop()
}

// half is a connection that breaks in the middle of a write.
type half struct{ net.Conn }

func (half) Write(b []byte) (int, error)      { return len(b) / 2, net.ErrClosed }
func (half) SetWriteDeadline(time.Time) error { return nil }

// TestHalfWritten: what was in the write that failed may have arrived; what was behind it has not.
func TestHalfWritten(t *testing.T) {
	failed := make(chan struct{})
	w := newWriter(half{}, func(error) { close(failed) }, func() {})
	w.trust()
	large := numbered(0, 1)[0].Append(xmpp.El("x", "x").Say(strings.Repeat("x", maxWrite)))
	for _, st := range []*xmpp.Stanza{large, large} {
		w.add(entry{item: &item{stanza: st}, stanza: st})
	}
	w.flush()
	<-failed
	left := w.stop()
	if len(left) != 2 || !left[0].again || left[1].again {
		t.Errorf("left: %d", len(left))
	}
}

// everybody has an account.
type everybody struct{}

func (everybody) AccountExists(context.Context, jid.JID) (bool, error) { return true, nil }

// inbox is a session's outbox that keeps what it gets.
type inbox struct {
	xmpp.Target
	got []*xmpp.Stanza
}

func (i *inbox) Enqueue(_ context.Context, s *xmpp.Stanza) bool {
	i.got = append(i.got, s)
	return true
}

func (*inbox) Close(streamerr.Error) {}

// full is a store that takes nothing, or fails later.
type full struct {
	shelf
	later bool
}

func (f *full) AppendUnsent(*xmpp.Stanza, time.Time) (int64, *xmpp.Commit) {
	c := new(xmpp.Commit)
	c.Complete(errors.New("the disk is full"))
	if f.later {
		return 1, c
	}
	return 0, c
}

// TestStoreFails: what cannot be stored is not silently less than promised: its sender gets an error, whether it was sent or not. What the other server has
// acknowledged by then has arrived.
func TestStoreFails(t *testing.T) {
	for _, c := range []struct {
		name         string
		later, acked bool
		errors, sent int
	}{{"nothing is taken", false, false, 1, 0}, {"the transaction fails", true, false, 1, 1}, {"the transaction fails after it has arrived", true, true, 0, 0}} {
		t.Run(c.name, func(t *testing.T) {
			s, p := loose(), pair{"a.test", "b.test"}
			s.router = router.New(router.DefaultConfig(), everybody{}, router.NewMetrics(prometheus.NewRegistry()), s.log)
			s.router.SetHosts(map[string]router.Host{"a.test": {}})
			s.router.SetRemote(s.Send)
			s.store = &full{later: c.later}
			romeo := new(inbox)
			if _, err := s.router.Bind(t.Context(), jid.MustParse("romeo@a.test"), "orchard", romeo); err != nil {
				t.Fatal(err)
			}
			l, conn := s.link(p), deaf(t, s, p)
			conn.session = &session{conn: conn, confirmed: true}
			l.attach(conn, nil)
			var b xmpp.Batch
			s.router.Route(xmpp.WithBatch(t.Context(), &b), numbered(1, 1)[0])
			b.Flush()
			if c.acked {
				had, _ := conn.session.ack(1)
				s.done(had...)
			}
			b.End(t.Context())
			if n := len(conn.session.unacked); n != c.sent {
				t.Errorf("%d stanzas are on their way, want %d", n, c.sent)
			}
			if len(romeo.got) != c.errors {
				t.Fatalf("romeo gets %v", romeo.got)
			}
			for _, e := range romeo.got {
				if child, ok := e.Child("", "error"); e.Type != "error" || e.ID != "1" || !ok || child.Attr("type") != "wait" || !strings.Contains(e.String(), "internal-server-error") {
					t.Errorf("romeo gets %s", e)
				}
			}
			if n := s.pending.size(); (n > 0) != (c.sent > 0) {
				t.Errorf("%d bytes count", n)
			}
			_ = conn.sock.Close()
			conn.out.stop()
		})
	}
}

// TestLasting: what survives a crash: decision 24.
func TestLasting(t *testing.T) {
	s := loose()
	romeo, full, juliet := jid.MustParse("romeo@a.test"), jid.MustParse("romeo@a.test/orchard"), jid.MustParse("juliet@b.test")
	body, composing := xmpp.El("", "body").Say("x"), xmpp.El(nsChatStates, "composing")
	for _, c := range []struct {
		kind     xmpp.Kind
		typ      string
		from     jid.JID
		children []*xmpp.Element
		want     bool
	}{
		{xmpp.Message, "chat", full, []*xmpp.Element{body}, true},
		{xmpp.Message, "", full, []*xmpp.Element{body}, true},
		{xmpp.Message, "groupchat", full, []*xmpp.Element{body}, true},
		{xmpp.Message, "normal", full, []*xmpp.Element{xmpp.El("urn:xmpp:receipts", "received", "id", "1")}, true},
		{xmpp.Message, "chat", full, []*xmpp.Element{body, composing}, true},
		{xmpp.Message, "chat", full, []*xmpp.Element{xmpp.El(nsHints, "no-permanent-store"), body}, true},
		{xmpp.Message, "chat", full, nil, true},
		{xmpp.Message, "chat", full, []*xmpp.Element{composing}, false},
		{xmpp.Message, "chat", full, []*xmpp.Element{composing, xmpp.El("", "thread").Say("t"), xmpp.El(nsHints, "no-copy")}, false},
		{xmpp.Message, "chat", full, []*xmpp.Element{body, xmpp.El(nsHints, "no-store")}, false},
		{xmpp.Message, "headline", romeo, []*xmpp.Element{body}, false},
		{xmpp.Message, "error", full, []*xmpp.Element{body}, false},
		{xmpp.Message, "chat", jid.MustParse("a.test"), []*xmpp.Element{body}, false},
		{xmpp.Message, "groupchat", jid.MustParse("room@muc.a.test/romeo"), []*xmpp.Element{body}, false},
		{xmpp.Presence, "subscribe", romeo, nil, true},
		{xmpp.Presence, "subscribed", romeo, nil, true},
		{xmpp.Presence, "unsubscribe", romeo, nil, true},
		{xmpp.Presence, "unsubscribed", romeo, nil, true},
		{xmpp.Presence, "", full, nil, false},
		{xmpp.Presence, "unavailable", full, nil, false},
		{xmpp.Presence, "probe", romeo, nil, false},
		{xmpp.IQ, "set", full, []*xmpp.Element{xmpp.El("x", "x")}, false},
	} {
		st := xmpp.New(c.kind, c.typ, juliet, c.from, c.children...)
		if got := s.lasting(st); got != c.want {
			t.Errorf("%s lasts: %t", st, got)
		}
	}
}
