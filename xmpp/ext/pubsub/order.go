package pubsub

import (
	"context"
	"sync"
	"time"
)

// sendTimeout bounds what follows from one change. chosen: like the server's other deadlines for one stanza.
const sendTimeout = 30 * time.Second

// queues makes changes of one service, and the notifications of them, happen in one order: subscribers must not see as the last item one that
// another has replaced. Nothing is kept of a service at which nothing happens.
type queues struct {
	mu sync.Mutex
	of map[string]*queue // guarded by mu
}

// queue is a service at which something is being changed.
type queue struct {
	refs int // guarded by queues.mu

	// turn has one place. Who holds it changes the service in the store and queues what follows; it must not route a stanza.
	turn chan struct{}

	mu sync.Mutex
	// Guarded by mu.
	out     []func(context.Context)
	sending bool
	sent    chan struct{} // closed when sending ends; nil when nobody waits
}

type sendingKey struct{}

// do runs change while nobody else changes the service, and then what it returns, in the order of the changes and before do returns, unless do is
// called from within such a step: then the one further up goes on with it. The steps outlive ctx, because the change is written.
func (q *queues) do(ctx context.Context, key string, change func() (after func(context.Context), err error)) error {
	s := q.acquire(key)
	defer q.release(key, s)
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	err := func() error {
		defer func() { <-s.turn }()
		after, err := change()
		if after != nil {
			s.mu.Lock()
			s.out = append(s.out, after)
			s.mu.Unlock()
		}
		return err
	}()
	s.send(ctx)
	return err
}

func (q *queues) acquire(key string) *queue {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.of == nil {
		q.of = make(map[string]*queue)
	}
	s := q.of[key]
	if s == nil {
		s = &queue{turn: make(chan struct{}, 1)}
		q.of[key] = s
	}
	s.refs++
	return s
}

func (q *queues) release(key string, s *queue) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s.refs--; s.refs == 0 {
		delete(q.of, key)
	}
}

// send runs what is queued, one step at a time. When another goroutine is at it, send waits until that one is done, so that a flood does not
// gather.
func (s *queue) send(ctx context.Context) {
	s.mu.Lock()
	if s.sending {
		if ctx.Value(sendingKey{}) != nil {
			s.mu.Unlock()
			return
		}
		if s.sent == nil {
			s.sent = make(chan struct{})
		}
		sent := s.sent
		s.mu.Unlock()
		select {
		case <-sent:
		case <-ctx.Done():
		}
		return
	}
	s.sending = true
	defer func() {
		s.sending = false
		if s.sent != nil {
			close(s.sent)
			s.sent = nil
		}
		s.mu.Unlock()
	}()
	ctx = context.WithValue(context.WithoutCancel(ctx), sendingKey{}, true)
	for len(s.out) > 0 {
		f := s.out[0]
		s.out = s.out[1:]
		s.mu.Unlock()
		func() {
			defer s.mu.Lock() // also when a step panics, which ends one stream alone
			step, cancel := context.WithTimeout(ctx, sendTimeout)
			defer cancel()
			f(step)
		}()
	}
}
