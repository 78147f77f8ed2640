package s2s

import (
	"context"
	"errors"
	"sync"
)

// turns bounds how many domains are dialled at the same time for one sender: who writes to very many does not keep others waiting, and his wait for each
// other in the order of asking.
type turns struct {
	mu sync.Mutex
	by map[string]*queue // guarded by mu
}

type queue struct {
	busy    int
	waiting []chan struct{}
}

// Bounds of one sender. chosen: the contacts of a person, when the server has just started, wait for some seconds; the resolver and the network carry a few
// dozen at a time.
const (
	maxDials        = 32
	maxWaitingDials = 1000
)

// errTurn says that a sender writes to too many domains that have no stream.
var errTurn = errors.New("too many other servers are being connected to for this sender")

// free reports whether who would have a turn now.
func (t *turns) free(who string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.by[who]
	return q == nil || q.busy < maxDials
}

// enter waits for the turn of who. leave gives it to the next. Nobody in particular ("") does not wait.
func (t *turns) enter(ctx context.Context, who string) (leave func(), err error) {
	if who == "" {
		return func() {}, nil
	}
	t.mu.Lock()
	if t.by == nil {
		t.by = make(map[string]*queue)
	}
	q := t.by[who]
	if q == nil {
		q = new(queue)
		t.by[who] = q
	}
	leave = func() { t.leave(who, q) }
	if q.busy < maxDials {
		q.busy++
		t.mu.Unlock()
		return leave, nil
	}
	if len(q.waiting) >= maxWaitingDials {
		t.mu.Unlock()
		return nil, errTurn
	}
	mine := make(chan struct{})
	q.waiting = append(q.waiting, mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return leave, nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	for i, w := range q.waiting {
		if w == mine {
			q.waiting = append(q.waiting[:i], q.waiting[i+1:]...)
			t.mu.Unlock()
			return nil, ctx.Err()
		}
	}
	t.mu.Unlock()
	leave() // it came in the same moment
	return nil, ctx.Err()
}

func (t *turns) leave(who string, q *queue) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(q.waiting) > 0 {
		close(q.waiting[0])
		q.waiting = q.waiting[1:]
		return
	}
	if q.busy--; q.busy == 0 {
		delete(t.by, who)
	}
}
