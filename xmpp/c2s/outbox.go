package c2s

import (
	"context"
	"errors"
	"sync"

	"balcony/xmpp"
	"balcony/xmpp/stream"
)

var (
	errOutboxFull = errors.New("the client does not read and its outbox is full")
	errEnded      = errors.New("the session has ended")
)

// outbox is what a session has still to write: bounded in bytes, filled from any goroutine without blocking, written by whoever flushes it
// first, many stanzas with one write.
type outbox struct {
	// Static after construction.
	write func([]byte) error // does not block; an error is final
	send  stream.Transport   // in place of write where elements travel whole
	got   func(*xmpp.Stanza) // hears of stanzas that were written and that nobody acknowledges; nil: nobody
	fail  func(error)        // called once, when write failed or the bound is reached, never with mu held

	mu sync.Mutex
	// Guarded by mu.
	limit    int // bytes; what was forced is on top
	queue    []entry
	size     int       // bytes in queue and inflight
	inflight []entry   // given to TLS, not yet taken whole by the kernel
	writing  bool      // somebody is in flush
	idle     sync.Cond // told when writing ends
	stalled  bool      // the kernel takes no more until unstall is called
	full     bool      // the bound was reached: nothing more is written
	closed   bool      // nothing more is taken
	spare    []entry   // the last queue's memory, for the next one
	put, out uint64    // entries that were taken, and that were written
	waiters  []waiter
	leaving  bool // the session is being ended: nobody waits any more
}

// waiter waits until out has reached n.
type waiter struct {
	n    uint64
	done chan struct{}
}

// entry is a stanza, or bytes of the stream itself.
type entry struct {
	stanza *xmpp.Stanza
	raw    []byte
	last   bool // nobody acknowledges the stanza: its client has got it when the network has taken it
}

func (e entry) size() int {
	if e.stanza != nil {
		return e.stanza.Size()
	}
	return len(e.raw)
}

func newOutbox(limit int, fail func(error)) *outbox {
	o := &outbox{limit: limit, fail: fail}
	o.idle.L = &o.mu
	return o
}

// Enqueue takes a stanza; false when the session is over or its bound is reached, which ends it.
func (o *outbox) Enqueue(ctx context.Context, s *xmpp.Stanza) bool {
	return o.add(ctx, entry{stanza: s})
}

func (o *outbox) add(ctx context.Context, e entry) bool {
	if !o.append(e) {
		return false
	}
	o.schedule(ctx)
	return true
}

// append takes an entry without seeing to its being written.
func (o *outbox) append(e entry) bool {
	n := e.size()
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return false
	}
	if o.size+n > 2*o.limit && o.size > 0 {
		o.mu.Unlock()
		return false
	}
	o.take(e, n)
	// At its bound the outbox ends the session. What comes until that has happened is still taken, up to a second bound: refused, it would
	// overtake what comes back from here.
	first := o.size > o.limit && o.size > n && !o.full
	if first {
		o.full = true
		o.release()
	}
	o.mu.Unlock()
	if first {
		o.fail(errOutboxFull)
	}
	return true
}

// force takes an entry whatever the bound is, and raises the bound by it: what a resumed session had waiting for it is bounded by the queue
// of stream management, and must not make what comes next too much.
func (o *outbox) force(e entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := e.size()
	o.limit += n
	o.take(e, n)
}

// take is called with mu held.
func (o *outbox) take(e entry, n int) {
	if o.queue == nil {
		o.queue, o.spare = o.spare, nil
	}
	o.queue = append(o.queue, e)
	o.size += n
	o.put++
}

// schedule sees to the writing: at the end of the batch, or at once.
func (o *outbox) schedule(ctx context.Context) {
	if b := xmpp.BatchFrom(ctx); b != nil && !o.much() {
		b.Add(o)
		return
	}
	o.Flush()
}

// maxWrite is how much is encoded before it is written: one TLS record.
const maxWrite = 16 << 10

// muchQueued is how many bytes wait for the end of a batch at most: what one read of a sender causes must not end a session that reads.
// chosen: a few records.
const muchQueued = 4 * maxWrite

func (o *outbox) much() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.size >= muchQueued && !o.stalled
}

// Flush writes what is queued, unless somebody else does already or the peer does not read.
func (o *outbox) Flush() {
	o.mu.Lock()
	for !o.writing && !o.stalled && !o.full && !o.closed && len(o.queue) > 0 {
		o.writing = true
		q := o.queue
		o.queue = nil
		// What the kernel does not take is not lost with the connection: it stays in inflight until drained.
		o.inflight = q
		o.mu.Unlock()
		err := o.encode(q)
		o.mu.Lock()
		o.writing = false
		o.idle.Broadcast()
		if err != nil {
			o.end()
			o.mu.Unlock()
			o.fail(err)
			return
		}
		if !o.stalled {
			o.sent()
		}
	}
	o.mu.Unlock()
}

// sent forgets what was written. It is called with mu held.
func (o *outbox) sent() {
	for _, e := range o.inflight {
		o.size -= e.size()
		if e.last && o.got != nil {
			o.got(e.stanza)
		}
	}
	o.out += uint64(len(o.inflight))
	for len(o.waiters) > 0 && o.waiters[0].n <= o.out {
		close(o.waiters[0].done)
		o.waiters = o.waiters[1:]
	}
	if o.queue == nil && cap(o.inflight) <= 64 { // chosen: an idle session keeps no list of its busiest moment
		clear(o.inflight)
		o.spare = o.inflight[:0]
	}
	o.inflight = nil
}

func (o *outbox) encode(q []entry) error {
	if o.send != nil {
		return o.sendAll(q)
	}
	buf := getBuffer()
	for _, e := range q {
		if e.stanza != nil {
			buf = e.stanza.AppendTo(buf)
		} else {
			buf = append(buf, e.raw...)
		}
		if len(buf) >= maxWrite {
			if err := o.write(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
	}
	var err error
	if len(buf) > 0 {
		err = o.write(buf)
	}
	putBuffer(buf)
	return err
}

func (o *outbox) sendAll(q []entry) error {
	for _, e := range q {
		if err := o.send.Send(stream.Sent{Stanza: e.stanza, Raw: e.raw}); err != nil {
			return err
		}
	}
	return o.send.Flush()
}

// stall and unstall tell whether the kernel takes more; the socket calls them in the order of what happens.
func (o *outbox) stall() {
	o.mu.Lock()
	o.stalled = true
	o.mu.Unlock()
}

func (o *outbox) unstall() {
	o.mu.Lock()
	o.stalled = false
	if !o.writing {
		o.sent()
	}
	o.mu.Unlock()
}

// drained goes on after unstall, or ends the outbox.
func (o *outbox) drained(err error) {
	if err == nil {
		o.Flush()
		return
	}
	o.mu.Lock()
	o.end()
	o.mu.Unlock()
	o.fail(err)
}

// end refuses further entries. It is called with mu held.
func (o *outbox) end() {
	o.closed = true
	o.release()
}

// release lets those go who wait for what may never be written. It is called with mu held.
func (o *outbox) release() {
	o.leaving = true
	for _, w := range o.waiters {
		close(w.done)
	}
	o.waiters = nil
}

// leave tells that the session is about to end; entries are still taken and written.
func (o *outbox) leave() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.release()
}

// Written waits until the kernel has taken everything that was put before, or until leave.
func (o *outbox) Written(ctx context.Context) error { return o.wait(ctx, false) }

// wait is Written; last waits also while the session is being ended, for the end of the stream itself.
func (o *outbox) wait(ctx context.Context, last bool) error {
	o.mu.Lock()
	w := waiter{n: o.put, done: make(chan struct{})}
	if o.out >= w.n {
		o.mu.Unlock()
		return nil
	}
	if o.closed || o.full || o.leaving && !last {
		o.mu.Unlock()
		return errEnded
	}
	o.waiters = append(o.waiters, w)
	o.mu.Unlock()
	o.Flush()
	select {
	case <-w.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.out < w.n {
		return errEnded
	}
	return nil
}

// close refuses further stanzas and returns those that were not written, in order. It waits for a write that is under way, which does not
// block: what that has written must not be sent again.
func (o *outbox) close() []*xmpp.Stanza {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.end()
	for o.writing {
		o.idle.Wait()
	}
	var left []*xmpp.Stanza
	for _, list := range [][]entry{o.inflight, o.queue} {
		for _, e := range list {
			if e.stanza != nil {
				left = append(left, e.stanza)
			}
		}
	}
	o.inflight, o.queue, o.spare, o.size = nil, nil, nil, 0
	return left
}

// written reports whether nothing waits.
func (o *outbox) written() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.out >= o.put
}

// bytes is how much waits to be written.
func (o *outbox) bytes() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.size
}
