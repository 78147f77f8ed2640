// Package load holds the scenarios: the work that every server is given, and what is measured while it does it.
package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"balcony/cmd/balcony-bench/client"
	"balcony/cmd/balcony-bench/proc"
	"balcony/cmd/balcony-bench/stats"
)

// Options are the sizes of the scenarios; the same for all servers of a run.
type Options struct {
	Duration    time.Duration // measured part of the scenarios that run for a time
	Warmup      time.Duration // load before it
	Pairs       int           // pairs of accounts that exchange messages
	Contacts    int           // contacts in the presence fan-out
	Concurrency int           // logins, or senders of offline messages, at the same time
	Spools      int           // accounts that offline messages are stored for
	Spooled     int           // messages stored for each
	Sessions    []int         // numbers of idle sessions at which memory is read, ascending
	Settle      time.Duration // wait before each reading of memory
	Archived    int           // messages in an archive that is read
}

// Metric is one measured value.
type Metric struct {
	Key   string  `json:"key"`   // unique within the scenario, for example "cpu"
	Title string  `json:"title"` // with unit
	Value float64 `json:"value"` // in that unit
}

// Heading names a scenario.
type Heading struct {
	Name  string `json:"name"`
	Title string `json:"title"`
}

// Run is one scenario against one running server.
type Run struct {
	Options
	Dialer *client.Dialer
	PIDs   []int  // of the server, itself first
	Rate   int    // messages per second, only for OpenLoop
	Direct string // address of a listener with direct TLS, "" for none
	// WebSocket is the address of a listener with WebSocket over TLS, "" for none.
	WebSocket string
	// S2S is the address of a listener for other servers, "" for none.
	S2S string
	// Certificate is what the driver shows where it plays a server.
	Certificate tls.Certificate
	// Restart ends the server as an operator does, and starts it again with its data; Dialer, Direct and PIDs are then those of the new process.
	Restart func(context.Context) error
	// Disk is Restart, and returns the size in bytes of the files that the server keeps its data in, as they were while it did not run.
	Disk func(context.Context) (int64, error)
	// OnLoad is called when a measured window of so many seconds begins, and with 0 when sessions rest; it may take profiles. Nil: no call.
	OnLoad func(seconds int)
}

// Scenario is a piece of work.
type Scenario struct {
	Heading
	Relay    bool                    // whether the relay can do it
	Only     string                  // the only server that can do it, "" for all
	Rate     int                     // see Run
	Accounts func(*Options) []string // the localparts it uses; no two scenarios that leave traces share any
	Run      func(context.Context, *Run) ([]Metric, error)
}

// Archived reports whether the servers archive messages while they do the work; in all other scenarios none does.
func (s Scenario) Archived() bool { return s.Name == "archive" || s.Name == "catchup" }

// Scenarios lists all scenarios in the order in which they are printed; rates are those of the open loop, in messages per second.
func Scenarios(rates []int) []Scenario {
	all := []Scenario{{Heading{"pairs", "one-to-one message delivered, closed loop"}, true, "", 0, pairAccounts, ClosedLoop}}
	for _, r := range rates {
		head := Heading{fmt.Sprintf("open-%d", r), fmt.Sprintf("one-to-one message delivered, open loop %d/s", r)}
		all = append(all, Scenario{head, true, "", r, pairAccounts, OpenLoop})
	}
	all = append(all, Scenario{Heading{"websocket", "the same over WebSocket, closed loop"}, false, "", 0, pairAccounts, overWebSocket(ClosedLoop)})
	for _, r := range rates {
		head := Heading{fmt.Sprintf("websocket-%d", r), fmt.Sprintf("the same over WebSocket, open loop %d/s", r)}
		all = append(all, Scenario{head, false, "", r, pairAccounts, overWebSocket(OpenLoop)})
	}
	return append(all,
		Scenario{Heading{"login", "TCP, STARTTLS, SASL, bind, roster, presence, and the end of the session"}, true, "", 0, loginAccounts, Login},
		Scenario{Heading{"fanout", "presence received, fan-out to all contacts"}, true, "", 0, fanoutAccounts, Fanout},
		Scenario{Heading{"pep", "PEP notification received, published to all contacts"}, true, "", 0, fanoutAccounts, PEP},
		Scenario{Heading{"offline", "offline message stored, delivered"}, false, "", 0, offlineAccounts, Offline},
		Scenario{Heading{"resume", "session resumed (XEP-0198) with 2 waiting messages"}, false, "", 0, resumeAccounts, Resume},
		Scenario{Heading{"fast", "the same by token with one request (SASL2, FAST), direct TLS"}, false, "balcony", 0, resumeAccounts, Fast},
		Scenario{Heading{"restart", "sessions that wait for their clients, and resume at once after a restart"}, false, "balcony", 0, restartAccounts, Restart},
		Scenario{Heading{"roundtrips", "round trips from TCP connect to <resumed/>"}, false, "balcony", 0, roundTripAccounts, RoundTrips},
		Scenario{Heading{"archive", "one-to-one message delivered and archived for both, closed loop"}, false, "", 0, pairAccounts, ClosedLoop},
		Scenario{Heading{"catchup", "a client reads its whole archive (XEP-0313), page by page"}, false, "", 0, readerAccounts, CatchUp},
		Scenario{Heading{"s2s", "message relayed to a server of another domain, and from it, closed loop"}, false, "", 0, federationAccounts, Federation},
		Scenario{Heading{"memory", "resident memory of idle TLS sessions"}, true, "", 0, memoryAccounts, Memory},
		Scenario{Heading{"websocket-memory", "resident memory of idle sessions over WebSocket"}, false, "", 0, memoryAccounts, overWebSocket(Memory)},
	)
}

// accounts returns n numbered localparts.
func accounts(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s%04d", prefix, i)
	}
	return names
}

// mark is the beginning of a measured window.
type mark struct {
	at             time.Time
	server, driver proc.CPU
	busy           time.Duration
}

// begin begins a window that is about that long.
func (r *Run) begin(length time.Duration) (mark, error) {
	if r.OnLoad != nil {
		r.OnLoad(max(1, int(length.Seconds())))
	}
	return r.mark()
}

func (r *Run) mark() (m mark, err error) {
	if m.server, err = proc.ReadCPU(r.PIDs...); err != nil {
		return m, fmt.Errorf("CPU time of the server: %w", err)
	}
	if m.driver, err = proc.ReadCPU(os.Getpid()); err != nil {
		return m, err
	}
	m.busy, err = proc.Busy()
	m.at = time.Now()
	return m, err
}

// usage is what happened in a measured window.
type usage struct {
	elapsed, cpu time.Duration
	rest         time.Duration // part of elapsed in which no operation was waited for
	driver       time.Duration // CPU time of this program
	others       time.Duration // CPU time of all other processes of the machine: the noise
}

func (r *Run) end(m mark) (usage, error) {
	now, err := r.mark()
	if err != nil {
		return usage{}, err
	}
	u := usage{elapsed: now.at.Sub(m.at), cpu: now.server.Since(m.server)}
	tree := now.driver.Since(m.driver) // the server is a child of the driver
	u.driver, u.others = max(0, tree-u.cpu), max(0, now.busy-m.busy-tree)
	return u, nil
}

// perOp are the metrics of n operations in a window.
func (u usage) perOp(prefix, op string, n int64) ([]Metric, error) {
	if n == 0 {
		return nil, fmt.Errorf("no %s in %v", op, u.elapsed)
	}
	return []Metric{
		{prefix + "cpu", "server CPU, µs per " + op, float64(u.cpu.Nanoseconds()) / 1e3 / float64(n)},
		{prefix + "rate", op + "s per second", float64(n) / (u.elapsed - u.rest).Seconds()},
		{prefix + "load", "server CPU, cores", u.cpu.Seconds() / u.elapsed.Seconds()},
		{prefix + "driver", "driver CPU, cores", u.driver.Seconds() / u.elapsed.Seconds()},
		{prefix + "others", "other processes' CPU, cores", u.others.Seconds() / u.elapsed.Seconds()},
	}, nil
}

// latencies are the metrics of ascending latencies.
func latencies(sorted []time.Duration) []Metric {
	ms := func(q float64) float64 { return stats.Quantile(sorted, q).Seconds() * 1e3 }
	return []Metric{{"p50", "latency p50, ms", ms(0.5)}, {"p99", "latency p99, ms", ms(0.99)}, {"max", "latency max, ms", ms(1)}}
}

// wait waits for d, or returns why the run ended before.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// each calls do for 0 to n-1 from at most workers goroutines and returns the first error, after which no more are begun.
func each(ctx context.Context, workers, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(workers, n) {
		wg.Go(func() {
			for i := range next {
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := range n {
		select {
		case next <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

// sessions is a set of sessions that end together.
type sessions []*client.Session

func (all sessions) close() {
	for _, s := range all {
		if s != nil {
			s.Close()
		}
	}
}

// login connects the accounts and requests their rosters; online also sends initial presence.
func (r *Run) login(ctx context.Context, names []string, online bool) (sessions, error) {
	all := make(sessions, len(names))
	err := each(ctx, r.Concurrency, len(names), func(ctx context.Context, i int) error {
		s, err := r.Dialer.Dial(ctx, names[i], "bench")
		if err != nil {
			return err
		}
		all[i] = s
		if err := s.Roster(); err != nil {
			return fmt.Errorf("roster of %s: %w", names[i], err)
		}
		if online {
			if err := s.Online(); err != nil {
				return fmt.Errorf("presence of %s: %w", names[i], err)
			}
		}
		return nil
	})
	if err != nil {
		all.close()
		return nil, err
	}
	return all, nil
}

// readers runs read for every session in a goroutine of its own. stop closes the sessions and returns the first error that happened
// before; ctx ends at that error.
type readers struct {
	all      sessions
	ctx      context.Context
	cancel   context.CancelCauseFunc
	wg       sync.WaitGroup
	stopping chan struct{}
}

var errStopped = errors.New("stopped")

func read(ctx context.Context, all sessions, each func(i int, s *client.Session) error) *readers {
	r := &readers{all: all, stopping: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	for i, s := range all {
		r.wg.Go(func() {
			err := each(i, s)
			select {
			case <-r.stopping: // the error of a connection that we closed
			default:
				r.cancel(fmt.Errorf("session of %s: %w", s.JID, err))
			}
		})
	}
	return r
}

func (r *readers) stop() error {
	close(r.stopping)
	r.cancel(errStopped)
	r.all.close()
	r.wg.Wait()
	if err := context.Cause(r.ctx); !errors.Is(err, errStopped) {
		return err
	}
	return nil
}
