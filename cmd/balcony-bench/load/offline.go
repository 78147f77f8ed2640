package load

import (
	"bytes"
	"context"
	"fmt"
	"time"
)

// Sizes of the offline scenario that no flag changes. Chosen.
const (
	offlineWindow = 10                     // messages that a sender has under way before it waits for the server
	offlineSettle = 300 * time.Millisecond // for work that the server still does when the last answer is out
)

func offlineAccounts(o *Options) []string {
	return append(accounts("spool", o.Spools), accounts("sender", o.Concurrency)...)
}

// Offline stores messages for accounts without sessions, then lets these log in and receive them. Logging in is not measured; sending
// initial presence, which starts the delivery, is.
func Offline(ctx context.Context, r *Run) ([]Metric, error) {
	names := offlineAccounts(&r.Options)
	owners, senderNames := names[:r.Spools], names[r.Spools:]
	n := int64(r.Spools * r.Spooled)
	if err := r.drain(ctx, owners); err != nil {
		return nil, fmt.Errorf("empty the spools: %w", err)
	}
	senders, err := r.login(ctx, senderNames, true)
	if err != nil {
		return nil, err
	}
	use, err := r.measure(ctx, len(senders), len(senders), func(ctx context.Context, w int) error {
		s, waiting := senders[w], 0
		for range r.Spooled {
			for i := w; i < len(owners); i += len(senders) {
				if err := s.Write(newMessage(owners[i] + "@" + r.Dialer.Domain).at(time.Since(epoch))); err != nil {
					return err
				}
				if waiting++; waiting == offlineWindow {
					waiting = 0
					if err := s.Ping(r.Dialer.Domain); err != nil {
						return err
					}
				}
			}
		}
		return s.Ping(r.Dialer.Domain)
	})
	senders.close()
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	stored, err := use.perOp("stored ", "stored message", n)
	if err != nil {
		return nil, err
	}

	receivers, err := r.login(ctx, owners, false)
	if err != nil {
		return nil, err
	}
	defer receivers.close()
	use, err = r.measure(ctx, r.Concurrency, len(receivers), func(ctx context.Context, i int) error {
		s, missing := receivers[i], r.Spooled
		s.SetReadDeadline(time.Now().Add(30 * time.Second))
		if err := s.WriteString("<presence/>"); err != nil {
			return err
		}
		err := s.Until(func(st []byte) bool {
			if _, ok := stampOf(st, "<body>"); ok && bytes.HasPrefix(st, []byte("<message")) {
				missing--
			}
			return missing == 0
		})
		if err != nil {
			return fmt.Errorf("%s misses %d messages: %w", s.JID, missing, err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("deliver: %w", err)
	}
	sent, err := use.perOp("delivered ", "delivered message", n)
	return append(stored, sent...), err
}

// measure is a window around each(ctx, workers, n, do) and what the server still does after it.
func (r *Run) measure(ctx context.Context, workers, n int, do func(ctx context.Context, i int) error) (usage, error) {
	m, err := r.begin(time.Second) // how long it takes is not known
	if err != nil {
		return usage{}, err
	}
	if err := each(ctx, workers, n, do); err != nil {
		return usage{}, err
	}
	if err := wait(ctx, offlineSettle); err != nil {
		return usage{}, err
	}
	use, err := r.end(m)
	use.rest = offlineSettle
	return use, err
}

// drain takes away what an interrupted run has left.
func (r *Run) drain(ctx context.Context, owners []string) error {
	all, err := r.login(ctx, owners, true)
	if err != nil {
		return err
	}
	err = each(ctx, r.Concurrency, len(all), func(_ context.Context, i int) error {
		err := all[i].Ping(r.Dialer.Domain)
		all[i].Logout() // wait: a message to a session that is ending would not be an offline message
		return err
	})
	all.close()
	return err
}
