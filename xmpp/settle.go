package xmpp

import (
	"context"
	"sync"
)

// Load is what one read of a connection brought, once it is handled but for what must be durable.
type Load struct {
	Pending []Pending
	Stanzas uint32 // that count (XEP-0198 §4)
	Ack     bool   // the peer has asked for an acknowledgement behind them
	Bytes   int    // that were read
}

// Settler is a connection whose loads settle. Both methods are called by one goroutine at a time, which is not that of the reader.
type Settler interface {
	// Settle is Pending.Settle, with what the connection does about a panic.
	Settle(Pending)
	// Count is called for each load in order, when everything up to its end is durable.
	Count(Load)
}

// Settling counts what a connection brought when it is durable, in order, while the connection is read on. A goroutine waits for the disk only while
// there is something to wait for; the connection waits for it with Drain before it ends. The zero value has nothing to settle.
type Settling struct {
	mu      sync.Mutex
	list    []Load        // guarded by mu, as the rest
	commits int           // in list
	bytes   int           // that the loads of list had
	running bool          // settle runs
	idle    chan struct{} // closed when it ends; nil while nobody waits
}

// Bounds of what may wait before a connection is read on: commits, and reads that wait behind them; and bytes, which are in the queue of storage
// meanwhile.
const (
	MaxUnsettled      = 256       // chosen: a transaction of the writer
	MaxUnsettledBytes = 256 << 10 // chosen: one stanza of the largest size
)

// Submit hands over what a read has gathered; its batch has been flushed. At the bounds it waits until everything has settled. Only the reader calls it.
func (t *Settling) Submit(ctx context.Context, s Settler, l Load) {
	if len(l.Pending) == 0 && l.Stanzas == 0 && !l.Ack {
		return
	}
	t.mu.Lock()
	if len(l.Pending) == 0 && !t.running {
		t.mu.Unlock()
		s.Count(l)
		return
	}
	t.list = append(t.list, l)
	t.commits += len(l.Pending)
	t.bytes += l.Bytes
	start, full := !t.running, t.commits > MaxUnsettled || len(t.list) > MaxUnsettled || t.bytes > MaxUnsettledBytes
	t.running = true
	t.mu.Unlock()
	if start {
		go t.settle(s) // Drain waits for it
	}
	if full {
		t.Drain(ctx)
	}
}

// settle settles what was submitted until there is nothing more.
func (t *Settling) settle(s Settler) {
	for {
		t.mu.Lock()
		if len(t.list) == 0 {
			t.list, t.running = nil, false
			if t.idle != nil {
				close(t.idle)
				t.idle = nil
			}
			t.mu.Unlock()
			return
		}
		l := t.list[0]
		t.list[0] = Load{}
		t.list = t.list[1:]
		t.mu.Unlock()
		for _, p := range l.Pending {
			s.Settle(p)
		}
		s.Count(l)
		t.mu.Lock()
		t.commits -= len(l.Pending)
		t.bytes -= l.Bytes
		t.mu.Unlock()
	}
}

// Drain waits until everything that was submitted has settled.
func (t *Settling) Drain(ctx context.Context) {
	t.mu.Lock()
	if !t.running {
		t.mu.Unlock()
		return
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	idle := t.idle
	t.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// Busy reports whether something waits for the disk.
func (t *Settling) Busy() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.running
}
