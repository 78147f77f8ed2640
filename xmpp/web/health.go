package web

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

const (
	// chosen: an orchestrator's patience is usually longer
	healthTimeout = 5 * time.Second
	// chosen: anybody may ask as often as they like, and that must not load the database
	healthAge = time.Second
)

// checker answers /healthz: 200 when the server can do its work, 503 when not. Why not is in the log.
type checker struct {
	check func(context.Context) error
	log   *slog.Logger

	mu sync.Mutex
	// Guarded by mu.
	at      time.Time     // when err was found
	err     error         // of the last check
	failing bool          // the log knows
	running chan struct{} // closed when the check that is under way has ended, nil without one
}

func (c *checker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	text, status := "ok\n", http.StatusOK
	if c.result(r.Context()) != nil {
		text, status = "unavailable\n", http.StatusServiceUnavailable
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // the asker may be gone
}

// ready answers /readyz: as /healthz, and 503 as soon as the server stops, so that a load balancer sends nobody here any more.
func (s *Server) ready(c *checker) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.stopping.Load() {
			http.Error(w, "stopping", http.StatusServiceUnavailable)
			return
		}
		c.ServeHTTP(w, r)
	})
}

// result is that of a check that is not older than healthAge. There is never more than one under way.
func (c *checker) result(ctx context.Context) error {
	c.mu.Lock()
	if c.running == nil && time.Since(c.at) < healthAge {
		defer c.mu.Unlock()
		return c.err
	}
	running := c.running
	if running == nil {
		running = make(chan struct{})
		c.running = running
		c.mu.Unlock()
		// Not cancelled with the request: others may be waiting for it.
		c.run(context.WithoutCancel(ctx), running)
	} else {
		c.mu.Unlock()
	}
	select {
	case <-running:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *checker) run(ctx context.Context, done chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	err := errors.New("the check panicked")
	defer func() { // also then: others wait
		c.mu.Lock()
		changed := c.failing != (err != nil)
		c.at, c.err, c.failing, c.running = time.Now(), err, err != nil, nil
		c.mu.Unlock()
		close(done)
		switch {
		case changed && err != nil:
			c.log.Error("health check failed", "err", err)
		case changed:
			c.log.Info("health check passed again")
		}
	}()
	err = c.check(ctx)
}
