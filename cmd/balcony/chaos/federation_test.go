package chaos

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"balcony/storage/storagetest/pgtest"
	"balcony/xmpp/s2s/s2stest"
)

// serverOf is a server for a domain that finds another one at the end of a cable.
func serverOf(t *testing.T, domain, peer string, line *s2stest.Cable, more string) *server {
	text := strings.NewReplacer("s2s = []", `s2s = ["127.0.0.1:0"]`).Replace(configuration) + fmt.Sprintf(`
[[domain]]
name = %q

[s2s]
auth = "dialback"

[[s2s.peer]]
domain = %q
addresses = [%q]
`, domain, peer, line.Addr().String()) + more
	return configured(t, text)
}

// mailbox is what a client has got, by the ids of messages.
type mailbox struct {
	mu  sync.Mutex
	ids []string // guarded by mu
}

func (m *mailbox) all() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.ids)
}

// Promise 1 on the way to another server: SIGKILL at some moment while romeo writes to another domain over a network that breaks all the time. What he
// was told is handled arrives there, in his order; the other server, which lives, lets nothing through twice.
func TestKillOnTheWay(t *testing.T) {
	configurations := map[string]string{"archive": "", "without archive": "\n[archive]\nenabled = false\n"}
	if *long {
		configurations["PostgreSQL"] = fmt.Sprintf("\n[storage]\ndriver = \"postgres\"\ndsn = %q\n", pgtest.Start(t))
	}
	for name, more := range configurations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nowhere := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
			toA, toB := s2stest.NewCable(t, nowhere), s2stest.NewCable(t, nowhere)
			a, b := serverOf(t, "a.test", "b.test", toB, more), serverOf(t, "b.test", "a.test", toA, "")
			b.start()
			toB.Lead(b.s2s)
			b.addAccount("juliet@b.test")
			juliet := b.connectTo("b.test", "juliet", "balcony", false, 10*time.Minute)
			juliet.write("<presence/>")
			got := new(mailbox)
			go func() {
				for {
					e, err := juliet.next()
					if err != nil {
						return // the test is over
					}
					if e.Local == "message" && e.Attr("type") == "chat" {
						got.mu.Lock()
						got.ids = append(got.ids, e.Attr("id"))
						got.mu.Unlock()
					}
				}
			}()
			a.start()
			a.addAccount("romeo@a.test")
			rounds := 3
			if *long {
				rounds = 25
			}
			for round := range rounds {
				toA.Lead(a.s2s)
				acknowledged := a.killOnTheWay(round, func() { toA.Cut(); toB.Cut() })
				a.start()
				toA.Lead(a.s2s)
				missing := acknowledged
				for end := time.Now().Add(time.Minute); len(missing) > 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
					have := got.all()
					missing = slices.DeleteFunc(slices.Clone(acknowledged), func(id string) bool { return slices.Contains(have, id) })
				}
				if len(missing) > 0 {
					t.Fatalf("round %d: acknowledged, and not delivered: %v", round, missing)
				}
			}
			have := got.all()
			if d := doubled(have); d != "" {
				t.Errorf("%s came twice", d)
			}
			for round := range rounds {
				prefix := strconv.Itoa(round) + "-"
				of := slices.DeleteFunc(slices.Clone(have), func(id string) bool { return !strings.HasPrefix(id, prefix) })
				if !inOrder(of) {
					t.Errorf("round %d is not in order: %v", round, of)
				}
			}
		})
	}
}

// killOnTheWay kills the server while romeo writes to juliet@b.test, once it has acknowledged some messages; meanwhile the network is cut now and then. It
// returns what was acknowledged.
func (s *server) killOnTheWay(round int, cut func()) (acknowledged []string) {
	romeo := s.connectTo("a.test", "romeo", fmt.Sprint("orchard", round), true, time.Minute)
	sender := make(chan struct{})
	go func() {
		defer close(sender)
		for n := 0; ; n++ {
			if _, err := fmt.Fprintf(romeo.conn, "<message to='juliet@b.test' type='chat' id='%d-%d'><body>%d</body></message><r xmlns='%s'/>", round, n, n, nsSM); err != nil {
				return
			}
			if n%20 == 0 {
				time.Sleep(time.Millisecond) // the network breaks between messages, not behind them all
			}
		}
	}()
	stop := make(chan struct{})
	var cutting sync.WaitGroup
	cutting.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(20+rand.IntN(60)) * time.Millisecond):
				cut()
			}
		}
	})
	h, refused := 0, make(map[string]bool)
	read := func() bool {
		e, err := romeo.next()
		switch {
		case err != nil:
			return false
		case e.Local == "a":
			h, _ = strconv.Atoi(e.Attr("h"))
		case e.Local == "message" && e.Attr("type") == "error":
			refused[e.Attr("id")] = true
		}
		return true
	}
	for least := 200 + 50*round; h < least; {
		if !read() {
			s.t.Errorf("round %d: the stream ended with %d acknowledged", round, h)
			break
		}
	}
	close(stop)
	cutting.Wait()
	s.kill()
	for read() { // what was on its way
	}
	<-sender
	for n := range h {
		if id := fmt.Sprintf("%d-%d", round, n); !refused[id] {
			acknowledged = append(acknowledged, id)
		}
	}
	return acknowledged
}
