package load

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"balcony/cmd/balcony-bench/client"
)

// broadcast is what one account sends once and each of its contacts gets.
type broadcast struct {
	contacts        int64
	round, received atomic.Int64
	complete        chan struct{}
}

func newBroadcast(contacts int) *broadcast {
	return &broadcast{contacts: int64(contacts), complete: make(chan struct{}, 1)}
}

// got counts what a contact has got with that stamp.
func (b *broadcast) got(due time.Duration) {
	if int64(due) == b.round.Load() && b.received.Add(1) == b.contacts {
		b.complete <- struct{}{}
	}
}

// send has the hub send what, with the time in its stamp, and waits for all contacts.
func (b *broadcast) send(in *readers, hub *client.Session, what, stamp []byte, patience time.Duration) error {
	b.received.Store(0)
	due := time.Since(epoch)
	b.round.Store(int64(due))
	putStamp(stamp, due)
	if err := hub.Write(what); err != nil {
		return err
	}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-b.complete:
		return nil
	case <-timeout.C:
		return fmt.Errorf("only %d of %d contacts received it", b.received.Load(), b.contacts)
	case <-in.ctx.Done():
		return context.Cause(in.ctx)
	}
}

// broadcasts measures update, after ready, which may be nil, and the warm-up: CPU for each unit that a contact gets, and how long until all have theirs.
func (r *Run) broadcasts(in *readers, unit string, ready func() error, update func(patience time.Duration) error) ([]Metric, error) {
	const patience = 30 * time.Second
	use, n, latency, err := func() (use usage, n int64, latency []time.Duration, err error) {
		if ready != nil {
			if err := ready(); err != nil {
				return use, 0, nil, err
			}
		}
		for start := time.Now(); time.Since(start) < r.Warmup; {
			if err := update(patience); err != nil {
				return use, 0, nil, err
			}
		}
		m, err := r.begin(r.Duration)
		if err != nil {
			return use, 0, nil, err
		}
		for start := time.Now(); time.Since(start) < r.Duration; n += int64(r.Contacts) {
			begin := time.Now()
			if err := update(patience); err != nil {
				return use, 0, nil, err
			}
			latency = append(latency, time.Since(begin))
		}
		use, err = r.end(m)
		return use, n, latency, err
	}()
	if stopErr := in.stop(); err == nil {
		err = stopErr
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(latency)
	metrics, err := use.perOp("", unit, n)
	return append(metrics, latencies(latency)...), err
}
