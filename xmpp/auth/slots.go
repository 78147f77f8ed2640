package auth

import (
	"context"
	"errors"
	"sync/atomic"
)

// errBusy is returned when too many wait for a slot already.
var errBusy = errors.New("too many passwords to hash")

// slots bounds how many passwords are hashed at the same time, and how many more wait for it, first come first served.
type slots struct {
	taken   chan struct{}
	waiting atomic.Int64
	queue   int64
}

func newSlots(concurrency, queue int) *slots {
	return &slots{taken: make(chan struct{}, concurrency), queue: int64(queue)}
}

// acquire waits for a slot. It returns errBusy when too many wait, or the error of ctx. release gives the slot back.
func (s *slots) acquire(ctx context.Context) error {
	select {
	case s.taken <- struct{}{}:
		return nil
	default:
	}
	if s.waiting.Add(1) > s.queue {
		s.waiting.Add(-1)
		return errBusy
	}
	defer s.waiting.Add(-1)
	select {
	case s.taken <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slots) release() { <-s.taken }
