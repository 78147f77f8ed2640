package load

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Sizes of the login scenario that no flag changes. Chosen: even at thousands of logins per second an account rests long enough for its
// last session to have ended.
const (
	loginNames   = 1024
	loginEndings = 256 // sessions that may be ending at the same time
)

func loginAccounts(*Options) []string { return accounts("login", loginNames) }

// Login lets r.Concurrency clients log in again and again: TCP, STARTTLS with a full handshake, SASL, bind, roster, initial presence
// until its own copy arrives, then the end of the stream. What the server does to end the session counts too.
func Login(ctx context.Context, r *Run) ([]Metric, error) {
	names := loginAccounts(&r.Options)
	var logins atomic.Int64
	var measuring atomic.Bool
	latency := make([][]time.Duration, r.Concurrency)
	endings := make(chan struct{}, loginEndings)
	var ending sync.WaitGroup
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- each(ctx, r.Concurrency, r.Concurrency, func(ctx context.Context, w int) error {
			// Each client has accounts of its own, so that no session replaces another.
			for i := w; ; i += r.Concurrency {
				select {
				case <-stop:
					return nil
				case <-ctx.Done():
					return nil
				default:
				}
				name := names[i%(loginNames/r.Concurrency*r.Concurrency)]
				start := time.Now()
				s, err := r.Dialer.Dial(ctx, name, "bench")
				if err != nil {
					return err
				}
				if err = s.Roster(); err == nil {
					err = s.Online()
				}
				if err == nil {
					logins.Add(1)
					if measuring.Load() {
						latency[w] = append(latency[w], time.Since(start))
					}
				}
				endings <- struct{}{}
				ending.Go(func() { // ejabberd takes 100 ms to end a stream
					s.Logout()
					<-endings
				})
				if err != nil {
					return err
				}
			}
		})
		cancel(nil)
	}()
	use, n, err := func() (use usage, n int64, err error) {
		if err := wait(ctx, r.Warmup); err != nil {
			return use, 0, err
		}
		m, err := r.begin(r.Duration)
		if err != nil {
			return use, 0, err
		}
		n = logins.Load()
		measuring.Store(true)
		if err := wait(ctx, r.Duration); err != nil {
			return use, 0, err
		}
		n = logins.Load() - n
		measuring.Store(false)
		use, err = r.end(m)
		return use, n, err
	}()
	close(stop)
	if loadErr := <-done; loadErr != nil {
		err = loadErr
	}
	ending.Wait() // nobody begins to end a session any more
	if err != nil {
		return nil, err
	}
	metrics, err := use.perOp("", "login", n)
	all := slices.Concat(latency...)
	slices.Sort(all)
	return append(metrics, latencies(all)...), err
}
