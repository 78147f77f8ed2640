package load

import (
	"context"
	"fmt"
	"time"

	"balcony/cmd/balcony-bench/proc"
)

func memoryAccounts(o *Options) []string {
	if len(o.Sessions) == 0 {
		return nil
	}
	return accounts("idle", o.Sessions[len(o.Sessions)-1])
}

// startSettle is the rest after the start. Chosen: no server does anything any more after a second.
const startSettle = 5 * time.Second

// Memory reads the server's resident memory after its start and again each time that a number of sessions has logged in, sent presence
// and then rested for r.Settle.
func Memory(ctx context.Context, r *Run) ([]Metric, error) {
	names := memoryAccounts(&r.Options)
	before, err := r.rss(ctx, min(startSettle, r.Settle))
	if err != nil {
		return nil, err
	}
	metrics := []Metric{{"start", "RSS after the start, MiB", float64(before) / 1024}}
	var all sessions
	defer func() { all.close() }()
	for _, n := range r.Sessions {
		more, err := r.login(ctx, names[len(all):n], true)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
		after, err := r.rss(ctx, r.Settle)
		if err != nil {
			return nil, err
		}
		metrics = append(metrics,
			Metric{fmt.Sprintf("session %d", n), fmt.Sprintf("RSS per session, %d sessions, KiB", n), float64(after-before) / float64(n)},
			Metric{fmt.Sprintf("rss %d", n), fmt.Sprintf("RSS with %d sessions, MiB", n), float64(after) / 1024})
	}
	if r.OnLoad != nil {
		r.OnLoad(0)
	}
	return metrics, nil
}

func (r *Run) rss(ctx context.Context, rest time.Duration) (int64, error) {
	if err := wait(ctx, rest); err != nil {
		return 0, err
	}
	return proc.RSS(r.PIDs[0])
}
