// Package chaos ends connections and the server at random moments and reckons up what became of every message.
//
// The clients speak XEP-0198 over TLS through a proxy that cuts each connection after a random number of bytes; the server, the built program, is
// ended by SIGTERM, by SIGKILL, or by the one while it is busy with the other, and started again. Clients resume, or log in anew when they cannot,
// and send again what was not acknowledged. A message counts as acknowledged when the server's h has passed it. What must hold at the end: see check.
package chaos

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"balcony/storage/storagetest/pgtest"
)

var (
	long  = flag.Bool("long", false, "run until there were 60 cuts and 25 kills on each database")
	seed  = flag.Uint64("seed", 0, "of everything that is random but the scheduler; 0: another one each time")
	loud  = flag.Bool("loud", false, "print what the clients see")
	kills = flag.Bool("kills", true, "end the server by SIGKILL too")
)

func TestChaos(t *testing.T) {
	for _, db := range []struct {
		name string
		dsn  func(*testing.T) string
	}{
		{"SQLite", func(*testing.T) string { return "" }},
		{"PostgreSQL", func(t *testing.T) string { return pgtest.Start(t) }},
	} {
		t.Run(db.name, func(t *testing.T) {
			t.Parallel()
			plan := plan{cuts: 12, terms: 1, kills: 2, least: 2 * time.Second}
			if *long {
				plan.cuts, plan.terms, plan.kills = 60, 15, 25
			}
			if !*kills {
				plan.kills = 0
			}
			s := *seed
			if s == 0 {
				s = uint64(time.Now().UnixNano())
			}
			newRun(t, s, db.dsn(t)).play(plan)
		})
	}
}

// plan is what has to happen before a run may end.
type plan struct {
	cuts, terms, kills int
	least              time.Duration
}

// run is one run.
type run struct {
	t      *testing.T
	seed   uint64
	rnd    *rand.Rand
	server *server
	proxy  *proxy
	peers  []*peer

	mu     sync.Mutex
	sent   map[string]*message // guarded by mu
	faults []string            // guarded by mu
	killed []time.Time         // guarded by mu: SIGKILLs
}

// window is how long before a crash an acknowledgement must have been known to count. chosen: the server writes them down every second, and what is
// younger than the round before in the next one; later when the machine is busy.
const window = 5 * time.Second

// clock is a time as the server's log has it, to the millisecond.
func clock(t time.Time) string { return t.Format("15:04:05.000") }

// crashed is the first SIGKILL after t; a far time when there was none. It is called with mu held.
func (r *run) crashed(t time.Time) time.Time {
	for _, k := range r.killed {
		if k.After(t) {
			return k
		}
	}
	return t.Add(time.Hour)
}

// message is a message by its id.
type message struct {
	submissions  int // sessions on which it was sent
	acknowledged bool
}

func newRun(t *testing.T, seed uint64, dsn string) *run {
	p, err := newProxy(seed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	r := &run{t: t, seed: seed, rnd: rand.New(rand.NewPCG(seed, 2)), server: newServer(t, dsn), proxy: p, sent: make(map[string]*message)}
	r.server.start()
	p.setTarget(r.server.addr)
	for i := range 5 {
		account := fmt.Sprintf("a%d@localhost", i)
		r.server.addAccount(account)
		devices := 1
		if i == 4 {
			devices = 2
		}
		for n := range devices {
			reader := i == 2 || i == 3 || n == 1
			r.peers = append(r.peers, &peer{run: r, account: account, name: fmt.Sprintf("a%d.%d", i, n), agent: fmt.Sprintf("%08x-0000-4000-8000-%012x", i, n),
				rnd: rand.New(rand.NewPCG(seed, uint64(100+len(r.peers)))), reader: reader, shares: devices > 1, next: make(map[string]int), have: make(map[string]bool)})
		}
	}
	return r
}

func (r *run) debug(format string, args ...any) {
	if *loud {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
}

func (r *run) fault(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

func (r *run) crash() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.killed = append(r.killed, time.Now())
}

// wanted is called before a message is sent for the first time.
func (r *run) wanted(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent[id] = new(message)
}

// submitted is called for each session on which it is sent.
func (r *run) submitted(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent[id].submissions++
}

func (r *run) acknowledged(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent[id].acknowledged = true
}

// play has everybody talk while connections and the server end, until the plan is carried out, and then checks.
func (r *run) play(plan plan) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var clients, talk sync.WaitGroup
	for _, p := range r.peers {
		clients.Go(func() { p.live(ctx) })
	}
	if !r.settled(30 * time.Second) {
		r.t.Errorf("the clients did not log in")
	}
	talking, quiet := context.WithCancel(ctx)
	for _, p := range r.peers {
		talk.Go(func() { r.talk(talking, p) })
	}
	terms, killed := 0, 0
	began := time.Now()
	for time.Since(began) < plan.least || terms < plan.terms || killed < plan.kills || int(r.proxy.cuts.Load()) < plan.cuts {
		time.Sleep(time.Duration(100+r.rnd.IntN(700)) * time.Millisecond)
		if terms >= plan.terms && killed >= plan.kills {
			continue
		}
		kill := killed < plan.kills && (terms >= plan.terms || r.rnd.IntN(plan.terms+plan.kills) < plan.kills)
		switch {
		case kill && r.rnd.IntN(4) == 0:
			// While it saves its sessions, or a moment before or after.
			r.server.interrupt(time.Duration(r.rnd.IntN(200)) * time.Millisecond)
			killed++
		case kill:
			r.server.kill()
			killed++
		default:
			r.server.term()
			terms++
		}
		r.server.start()
		if kill {
			r.crash() // nobody reaches the new process yet, so what is known before comes from the old one
		}
		r.proxy.setTarget(r.server.addr)
	}
	quiet()
	talk.Wait()
	r.proxy.calm.Store(true)
	settled := r.settled(30 * time.Second)
	resumed, bound := 0, 0
	for _, p := range r.peers {
		p.mu.Lock()
		resumed, bound = resumed+p.resumed, bound+p.bound
		p.mu.Unlock()
	}
	sum := r.check()
	// What a client did not take when its connection was cut is tried again after some seconds.
	for end := time.Now().Add(20 * time.Second); sum.lost > 0 && time.Now().Before(end); sum = r.check() {
		r.settled(time.Second)
	}
	r.audit(&sum)
	cancel()
	clients.Wait()
	r.server.term()
	r.t.Logf("seed %d: %d cuts, %d times SIGTERM, %d times SIGKILL; sessions: %d resumed, %d new\n%s", r.seed, r.proxy.cuts.Load(), terms, killed, resumed, bound, sum)
	if !settled {
		r.t.Errorf("not everything was acknowledged or the clients are not back")
	}
	for _, k := range r.killed {
		r.debug("killed at %s", clock(k))
	}
	if len(sum.faults) > 0 {
		r.t.Errorf("run again with -seed %d:\n%s", r.seed, strings.Join(sum.faults, "\n"))
	}
}

// talk has a peer send to the others.
func (r *run) talk(ctx context.Context, p *peer) {
	for ctx.Err() == nil {
		to := fmt.Sprintf("a%d@localhost", p.draw(5))
		for range 1 + p.draw(5) {
			if to != p.account {
				p.say(to)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(10+p.draw(100)) * time.Millisecond):
		}
	}
}

// settled waits until all clients are online, everything is acknowledged and nothing has come for a while.
func (r *run) settled(limit time.Duration) bool {
	quiet, last := 0, -1
	for end := time.Now().Add(limit); time.Now().Before(end); {
		all, total := true, 0
		for _, p := range r.peers {
			p.poke()
			done, n := p.idle()
			all, total = all && done, total+n
		}
		if all && total == last {
			if quiet++; quiet >= 5 {
				return true
			}
		} else {
			quiet = 0
		}
		last = total
		time.Sleep(100 * time.Millisecond)
	}
	return false
}

// sum is what became of the messages.
type sum struct {
	sent, acknowledged, delivered, redelivered, recent, known, resubmitted, lost, duplicated, disordered int
	archived                                                                                             int
	faults                                                                                               []string
}

func (s sum) String() string {
	return fmt.Sprintf("sent %d, acknowledged %d, delivered %d, redelivered %d (not acknowledged by the receiver) and %d (acknowledged just before a crash), live after it was read in the archive %d, sent again as new %d (not acknowledged to the sender), "+
		"entries in archives %d, lost %d, duplicated %d, out of order %d",
		s.sent, s.acknowledged, s.delivered, s.redelivered, s.recent, s.known, s.resubmitted, s.archived, s.lost, s.duplicated, s.disordered)
}

// fault counts a fault. Of each kind the first ones are told.
func (s *sum) fault(count *int, format string, args ...any) {
	if *count++; *count <= 12 {
		s.faults = append(s.faults, fmt.Sprintf(format, args...))
	}
}

// check reckons up. A message that was acknowledged to its sender must have come to a device of its recipient, live or in its archive; to each device at
// most once, but for what that device had not acknowledged for certain, and for what its sender had to send on a new session because it did not know.
// Messages of one sender come to the device of an account that does not read the archive in their order; one of several is given late what another
// had and did not acknowledge.
func (r *run) check() sum {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := sum{faults: slices.Clone(r.faults), sent: len(r.sent)}
	fault := s.fault
	came := make(map[string]bool)
	for _, p := range r.peers {
		p.mu.Lock()
		seen := make(map[string]*arrival) // by id, the last one
		again := make(map[string]int)     // submissions that were used up
		last := make(map[string]int)      // by sender
		for _, a := range p.got {
			m := r.sent[a.id]
			if m == nil {
				fault(&s.duplicated, "%s got %q, which nobody sent", p.name, a.id)
				continue
			}
			came[a.id] = true
			if a.archived {
				s.known++
				continue
			}
			if before := seen[a.id]; before != nil {
				switch {
				case before.certain.IsZero() || before.certain.After(a.at):
					s.redelivered++
				case r.crashed(before.certain).Sub(before.certain) < window:
					s.recent++
				case again[a.id] < m.submissions-1:
					again[a.id]++
					s.resubmitted++
				default:
					fault(&s.duplicated, "%s got %s again at %s, which it had acknowledged by %s", p.name, a.id, clock(a.at), clock(before.certain))
				}
				seen[a.id] = a
				continue
			}
			seen[a.id] = a
			s.delivered++
			if p.reader || p.shares {
				continue // the archive has the order
			}
			sender, _, n := parts(a.id)
			if l, ok := last[sender]; ok && n < l {
				fault(&s.disordered, "%s got %s after %d, at %s", p.name, a.id, l, clock(a.at))
			} else {
				last[sender] = n
			}
		}
		p.mu.Unlock()
	}
	for id, m := range r.sent {
		if !m.acknowledged {
			continue
		}
		s.acknowledged++
		if !came[id] {
			fault(&s.lost, "%s was acknowledged and is lost", id)
		}
	}
	return s
}

// audit reads the archives. Each message that was acknowledged is once in those of its sender and of its recipient, or once for each time that it
// had to be sent as new; both have what one device sent to the other account in the same order, which is that of sending.
func (r *run) audit(s *sum) {
	archives := make(map[string][]string) // by account, the ids
	for _, p := range r.peers {
		if archives[p.account] != nil {
			continue
		}
		ids, err := readArchive(r.server.addr, p.account)
		if err != nil {
			s.faults = append(s.faults, fmt.Sprintf("archive of %s: %v", p.account, err))
		}
		archives[p.account] = ids
		s.archived += len(ids)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for account, ids := range archives {
		times, last := make(map[string]int), make(map[string]int)
		for _, id := range ids {
			sender, to, n := parts(id)
			if r.sent[id] == nil || to != account && !strings.HasPrefix(account, sender[:strings.IndexByte(sender, '.')]+"@") {
				s.fault(&s.duplicated, "the archive of %s has %q", account, id)
				continue
			}
			if times[id]++; times[id] > r.sent[id].submissions {
				s.fault(&s.duplicated, "the archive of %s has %s %d times", account, id, times[id])
			}
			if pair := sender + ">" + to; times[id] == 1 {
				if l, ok := last[pair]; ok && n < l {
					s.fault(&s.disordered, "the archive of %s has %s after %d", account, id, l)
				} else {
					last[pair] = n
				}
			}
		}
		for id, m := range r.sent {
			sender, to, _ := parts(id)
			if m.acknowledged && times[id] == 0 && (to == account || strings.HasPrefix(account, sender[:strings.IndexByte(sender, '.')]+"@")) {
				s.fault(&s.lost, "%s was acknowledged and is not in the archive of %s", id, account)
			}
		}
	}
	for _, p := range r.peers {
		for to, other := range archives {
			if to == p.account {
				continue
			}
			if one, two := between(archives[p.account], p.name, to), between(other, p.name, to); !slices.Equal(one, two) {
				s.fault(&s.disordered, "the archives of %s and %s differ in what %s sent: %d and %d messages", p.account, to, p.name, len(one), len(two))
			}
		}
	}
}

// between are the ids of what a device sent to an account, each where it is first: what was not acknowledged may be in one archive only.
func between(ids []string, device, to string) (list []string) {
	seen := make(map[string]bool)
	for _, id := range ids {
		if sender, t, _ := parts(id); t == to && sender == device && !seen[id] {
			seen[id] = true
			list = append(list, id)
		}
	}
	return list
}

// parts takes the id of a message apart: the sender's device, the recipient and the number.
func parts(id string) (sender, to string, n int) {
	all := strings.SplitN(id+">>", ">", 4)
	n, _ = strconv.Atoi(all[2])
	return all[0], all[1], n
}
