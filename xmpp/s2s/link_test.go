package s2s

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// bare is a server without listeners, router and network.
func bare() *Server {
	s := &Server{log: slog.New(slog.DiscardHandler), open: make(map[*conn]struct{}), links: make(map[pair]*link), resumable: make(map[string]*session), kept: make(map[string]int), recent: newRecent()}
	cfg := DefaultConfig()
	s.config.Store(&cfg)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// TestAttachToEndedConnection: a domain that was proven while its connection ended does not keep what waits for it.
func TestAttachToEndedConnection(t *testing.T) {
	s := bare()
	l := s.link(pair{"a.test", "b.test"})
	c := &conn{server: s, reason: errClosed}
	if l.attach(c, nil) || l.conn != nil || len(c.links) != 0 {
		t.Errorf("stanzas would wait for a connection that has ended: %v, %v", l.conn, c.links)
	}
}

// TestBackoffIsKept: the delay grows from one stanza to the next, also when nothing comes in between.
func TestBackoffIsKept(t *testing.T) {
	s, p := bare(), pair{"a.test", "dead.test"}
	for i := range 12 {
		l := s.link(p)
		if l.fails != i {
			t.Fatalf("%d failures are remembered, want %d", l.fails, i)
		}
		l.failed(errors.New("nobody there"))
		s.check(l.until.Add(time.Second)) // nobody has sent anything to the domain meanwhile
	}
	l := s.link(p)
	if d := time.Until(l.until); d < lastDelay/3 {
		t.Errorf("the next attempt is in %s", d)
	}
	s.check(l.until.Add(2 * lastDelay))
	if n := len(s.links); n != 0 {
		t.Errorf("%d links are kept for ever", n)
	}
}

// TestDeadDomainsLeaveRoom: domains that were not there do not keep others out.
func TestDeadDomainsLeaveRoom(t *testing.T) {
	s := bare()
	for i := range maxLinks {
		s.links[pair{"a.test", string(rune(0x4E00 + i))}] = &link{server: s, fails: 1, until: time.Now().Add(time.Hour)}
	}
	if s.link(pair{"a.test", "b.test"}) == nil {
		t.Error("there is no room for another domain")
	}
	if n := len(s.links); n > maxLinks {
		t.Errorf("%d links", n)
	}
}

// TestStrangersAnswers: what a peer that has proven nothing asks for and does not read takes little memory.
func TestStrangersAnswers(t *testing.T) {
	here, there := net.Pipe()
	defer func() { _ = there.Close() }()
	w := newWriter(here, func(error) {}, func() {})
	taken := 0
	for w.add(entry{raw: make([]byte, 100)}) {
		if taken += 100; taken > 1<<20 {
			break
		}
	}
	if taken > 32<<10 {
		t.Errorf("%d bytes wait for a stranger", taken)
	}
	w.trust()
	if !w.add(entry{raw: make([]byte, 100)}) {
		t.Error("one that has proven a domain gets no more")
	}
	go func() { _, _ = io.Copy(io.Discard, there) }()
	_ = here.Close()
	w.stop()
}

// TestBudget: what a domain has sent counts over all of its streams, also over those that are closed.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b budgets
		const rate = 1000
		waits := func(of *budget, n int) time.Duration {
			before := time.Now()
			of.Wait(t.Context(), n, rate)
			return time.Since(before)
		}
		one, two := b.get("b.test"), b.get("b.test")
		if d := waits(one, 1000); d != 0 {
			t.Errorf("what is within the rate waits %s", d)
		}
		if d := waits(two, 1000); d != time.Second {
			t.Errorf("another stream of the domain waits %s", d)
		}
		if d := waits(b.get("c.test"), 1000); d != 0 {
			t.Errorf("another domain waits %s", d)
		}
		one.release()
		two.release()
		b.sweep(time.Now(), rate)
		again := b.get("b.test")
		if d := waits(again, 100); d != 100*time.Millisecond {
			t.Errorf("after it has come back it waits %s", d)
		}
		again.release()
		b.sweep(time.Now().Add(time.Second), rate)
		if len(b.by) != 1 { // c.test has a stream
			t.Errorf("%d domains are remembered", len(b.by))
		}
	})
}

// TestResumableOfOneDomain: a domain that leaves streams behind takes nothing from others.
func TestResumableOfOneDomain(t *testing.T) {
	s := bare()
	kept := 0
	for i := range 1000 {
		sess := &session{id: string(rune(0x4E00 + i)), domain: pair{"a.test", "evil.test"}}
		if s.keep(sess) {
			kept++
			if i%2 == 0 {
				s.drop(sess)
				kept--
			}
		}
	}
	if kept > 100 || kept < 4 || kept != len(s.resumable) {
		t.Errorf("%d sessions are kept", kept)
	}
}
