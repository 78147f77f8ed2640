package xmpp

import (
	"context"
	"sync"
)

// Commit is a write that was handed to storage and is not yet known to be durable. The zero value is a pending commit.
type Commit struct {
	mu   sync.Mutex
	done chan struct{}
	err  error
	end  bool
	then []func(error)
}

// Complete ends the commit: err is nil once the write is committed and synced. Storage calls it exactly once.
func (c *Commit) Complete(err error) {
	c.mu.Lock()
	c.end, c.err = true, err
	if c.done != nil {
		close(c.done)
	}
	then := c.then
	c.then = nil
	c.mu.Unlock()
	for _, f := range then {
		f(err)
	}
}

// Wait blocks until the commit has ended or ctx is done.
func (c *Commit) Wait(ctx context.Context) error {
	c.mu.Lock()
	if c.end {
		defer c.mu.Unlock()
		return c.err
	}
	if c.done == nil {
		c.done = make(chan struct{})
	}
	done := c.done
	c.mu.Unlock()
	select {
	case <-done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Then calls f with the result when the commit has ended, at once if it has: on the caller's or on storage's goroutine, so f must not
// block.
func (c *Commit) Then(f func(error)) {
	c.mu.Lock()
	if !c.end {
		c.then = append(c.then, f)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	f(c.err)
}

// Flusher is an outbox that has gathered output.
type Flusher interface{ Flush() }

// Batch gathers what one read of a connection caused: outboxes to flush with one write each, and commits to wait for. A connection's
// reader owns it and ends it after each read; handlers reach it through their context, only until they return.
type Batch struct {
	flush   []Flusher
	commits []Pending
}

// Pending is a commit that is waited for, and what follows its end.
type Pending struct {
	c    *Commit
	done func(error)
}

// Settle waits for the commit and does what follows.
func (p Pending) Settle(ctx context.Context) { p.done(p.c.Wait(ctx)) }

type batchKey struct{}

// WithBatch returns a context that carries b to everything that handles the stanzas of this read.
func WithBatch(ctx context.Context, b *Batch) context.Context {
	return context.WithValue(ctx, batchKey{}, b)
}

// BatchFrom returns the batch that ctx carries, or nil.
func BatchFrom(ctx context.Context) *Batch {
	b, _ := ctx.Value(batchKey{}).(*Batch)
	return b
}

// Detach returns a context that outlives the handling of a stanza: not cancelled with it and without its batch. A handler that
// starts a goroutine gives it this one.
func Detach(ctx context.Context) context.Context {
	return context.WithValue(context.WithoutCancel(ctx), batchKey{}, (*Batch)(nil))
}

// Add asks for f.Flush at the end of the batch. Only the goroutine that owns the batch calls it.
func (b *Batch) Add(f Flusher) {
	for i := len(b.flush) - 1; i >= 0 && i >= len(b.flush)-4; i-- {
		if b.flush[i] == f {
			return
		}
	}
	if b.flush = append(b.flush, f); len(b.flush) >= maxGathered {
		b.Flush()
	}
}

// maxGathered bounds the list: one read can bring many stanzas with a large fan-out each. chosen: far more than what is worth gathering.
const maxGathered = 1024

// Flush writes out what was gathered so far. Commits stay pending.
func (b *Batch) Flush() {
	for i := 0; i < len(b.flush); i++ { // a flush may add
		if f := b.flush[i]; f != nil {
			b.flush[i] = nil
			f.Flush()
		}
	}
	b.flush = b.flush[:0]
	if cap(b.flush) > 256 { // chosen: an idle connection must not keep the list of its largest fan-out
		b.flush = nil
	}
}

// End flushes, waits for the commits, and flushes what their results caused: delivery does not wait for the disk.
func (b *Batch) End(ctx context.Context) {
	b.Flush()
	for len(b.commits) > 0 {
		commits := b.commits
		b.commits = nil
		for _, p := range commits {
			p.Settle(ctx)
		}
		b.Flush()
	}
}

// Take removes the commits from the batch: whoever takes them settles them, in their order.
func (b *Batch) Take() []Pending {
	commits := b.commits
	b.commits = nil
	return commits
}

// Waits reports whether the batch has commits.
func (b *Batch) Waits() bool { return len(b.commits) > 0 }

// Await calls done with the commit's result before the stanza counts as handled (XEP-0198 §4). done may run on another goroutine than the
// connection's reader and must not use the batch of ctx: Detach it. Without a batch it waits here.
func Await(ctx context.Context, c *Commit, done func(error)) {
	if b := BatchFrom(ctx); b != nil {
		b.commits = append(b.commits, Pending{c, done})
		return
	}
	done(c.Wait(ctx))
}
