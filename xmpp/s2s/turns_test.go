package s2s

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"mellium.im/xmpp/jid"
)

// TestTurns: a sender has so many at a time, the others in order; who gives up leaves his place; others do not wait for him.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ts turns
		var leave []func()
		for range maxDials {
			l, err := ts.enter(t.Context(), "flood@a.test")
			if err != nil {
				t.Fatal(err)
			}
			leave = append(leave, l)
		}
		var order []int
		for i := range 3 {
			go func() {
				l, err := ts.enter(t.Context(), "flood@a.test")
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, i)
				l()
			}()
			synctest.Wait()
		}
		hurry, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := ts.enter(hurry, "flood@a.test"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one too many: %v", err)
		}
		l, err := ts.enter(t.Context(), "romeo@a.test")
		if err != nil {
			t.Fatalf("somebody else: %v", err)
		}
		l()
		for _, l := range leave {
			l()
			synctest.Wait()
		}
		if fmt.Sprint(order) != "[0 1 2]" {
			t.Errorf("turns in the order %v", order)
		}
		if len(ts.by) != 0 {
			t.Errorf("%d senders are remembered", len(ts.by))
		}
	})
}

// silentDNS is a resolver that answers nothing. It tells which domains were asked for, each once.
func silentDNS(t *testing.T) (addr string, asked <-chan string) {
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := make(chan string, 10_000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		seen := make(map[string]bool)
		for b := make([]byte, 4096); ; {
			n, _, err := l.ReadFrom(b)
			if err != nil {
				return
			}
			var m dns.Msg
			if m.Unpack(b[:n]) != nil || len(m.Question) == 0 {
				continue
			}
			labels := dns.SplitDomainName(m.Question[0].Name)
			if d := strings.Join(labels[max(0, len(labels)-2):], "."); !seen[d] {
				seen[d] = true
				c <- d
			}
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.LocalAddr().String(), c
}

// TestFloodOfDomains: who writes to very many domains that are silent is refused in the end, alone: a domain that waits for his turn is dialled at once for
// somebody else, and put off for nobody.
func TestFloodOfDomains(t *testing.T) {
	s := loose()
	addr, asked := silentDNS(t)
	cfg := DefaultConfig()
	cfg.DNS = addr
	s.config.Store(&cfg)
	const many = maxDials + maxWaitingDials + 50
	send := func(from string, i int) {
		st := numbered(i, 1)[0].With(jid.MustParse(fmt.Sprintf("x@d%d.test", i)), jid.MustParse(from))
		if err := s.Send(t.Context(), st); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	for i := range many {
		send("flood@a.test/x", i)
	}
	first := make(map[string]bool)
	for range maxDials {
		first[<-asked] = true
	}
	waits, n := "", -1
	for end := time.Now().Add(time.Minute); n < 0; {
		refused := 0
		for _, l := range s.all() {
			l.mu.Lock()
			switch {
			case l.fails > 0:
				t.Errorf("%s is put off for everybody", l.pair.remote)
			case !l.running && len(l.queue) == 0:
				refused++
			case l.stop != nil && !first[l.pair.remote]:
				waits = l.pair.remote
			}
			l.mu.Unlock()
		}
		if refused == 50 {
			_, _ = fmt.Sscanf(waits, "d%d.test", &n)
		}
		if time.Now().After(end) {
			t.Fatalf("%d were refused, want 50", refused)
		}
		time.Sleep(time.Millisecond)
	}
	send("romeo@a.test/orchard", n)
	select {
	case d := <-asked:
		if d != waits {
			t.Errorf("%s is dialled, not %s", d, waits)
		}
	case <-time.After(time.Minute):
		t.Error("a domain waits for the turn of somebody who floods")
	}
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.cancel()
	s.tasks.Wait()
}

// TestServerHasTurns: what the server itself sends does not wait for the turn of a sender whose stanzas wait for the same domain.
func TestServerHasTurns(t *testing.T) {
	s := loose()
	addr, asked := silentDNS(t)
	cfg := DefaultConfig()
	cfg.DNS = addr
	s.config.Store(&cfg)
	for range maxDials {
		leave, err := s.turns.enter(t.Context(), "flood@a.test")
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
	}
	for _, from := range []string{"flood@a.test/x", "a.test"} {
		if err := s.Send(t.Context(), numbered(0, 1)[0].With(jid.MustParse("x@d.test"), jid.MustParse(from))); err != nil {
			t.Fatal(err)
		}
		if from == "a.test" {
			break
		}
		l := s.link(pair{"a.test", "d.test"})
		for waits, end := false, time.Now().Add(time.Minute); !waits; time.Sleep(time.Millisecond) {
			l.mu.Lock()
			waits = l.stop != nil
			l.mu.Unlock()
			if time.Now().After(end) {
				t.Fatal("nobody waits for a turn")
			}
		}
	}
	select {
	case <-asked:
	case <-time.After(time.Minute):
		t.Error("the server waits for the turn of somebody who floods")
	}
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.cancel()
	s.tasks.Wait()
}
