package xmpp_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"balcony/xmpp"
)

var errFailed = errors.New("failed")

func TestCommit(t *testing.T) {
	for _, want := range []error{nil, errFailed} {
		var c xmpp.Commit
		var got []error
		c.Then(func(err error) { got = append(got, err) })
		c.Then(func(err error) { got = append(got, err) })
		if len(got) > 0 {
			t.Error("called before the end")
		}
		c.Complete(want)
		c.Then(func(err error) { got = append(got, err) })
		if !slices.Equal(got, []error{want, want, want}) {
			t.Errorf("got %v", got)
		}
		if err := c.Wait(t.Context()); err != want {
			t.Errorf("Wait: %v", err)
		}
	}
}

func TestCommitWakesWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c xmpp.Commit
		var wg sync.WaitGroup
		var mu sync.Mutex
		var got []error
		for range 10 {
			wg.Go(func() {
				err := c.Wait(t.Context())
				mu.Lock()
				defer mu.Unlock()
				got = append(got, err)
			})
		}
		synctest.Wait()
		if len(got) > 0 {
			t.Errorf("%d did not wait", len(got))
		}
		c.Complete(errFailed)
		wg.Wait()
		if len(got) != 10 || slices.Contains(got, nil) {
			t.Errorf("got %v", got)
		}
	})
}

func TestCommitWaitEndsWithItsContext(t *testing.T) {
	var c xmpp.Commit
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	c.Complete(nil)
	if err := c.Wait(ctx); err != nil {
		t.Errorf("after the end: %v", err)
	}
}

// diary writes down what happens.
type diary struct{ lines []string }

func (d *diary) say(line string) { d.lines = append(d.lines, line) }
func (d *diary) want(t *testing.T, lines ...string) {
	t.Helper()
	if !slices.Equal(d.lines, lines) {
		t.Errorf("got  %s\nwant %s", strings.Join(d.lines, ", "), strings.Join(lines, ", "))
	}
}

// outbox is a Flusher.
type outbox struct {
	name string
	d    *diary
	then func()
}

func (o *outbox) Flush() {
	o.d.say("flush " + o.name)
	if o.then != nil {
		o.then()
	}
}

func TestBatchFlushesOnceInOrder(t *testing.T) {
	var d diary
	var b xmpp.Batch
	x, y := &outbox{name: "x", d: &d}, &outbox{name: "y", d: &d}
	for _, o := range []*outbox{x, y, x, y, y} {
		b.Add(o)
	}
	b.Flush()
	b.Flush()
	d.want(t, "flush x", "flush y")
	b.Add(x)
	b.Flush()
	d.want(t, "flush x", "flush y", "flush x")
}

// What a flush causes is flushed too.
func TestBatchFlushAdds(t *testing.T) {
	var d diary
	var b xmpp.Batch
	y := &outbox{name: "y", d: &d}
	b.Add(&outbox{name: "x", d: &d, then: func() { b.Add(y) }})
	b.Flush()
	d.want(t, "flush x", "flush y")
}

func TestBatchWithManyOutboxes(t *testing.T) {
	var d diary
	var b xmpp.Batch
	for range 1000 {
		b.Add(&outbox{name: "x", d: &d})
	}
	b.Flush()
	if len(d.lines) != 1000 {
		t.Errorf("%d flushes", len(d.lines))
	}
}

// design: delivery does not wait for the disk. End writes first, waits then, and writes what the results cause.
func TestBatchEnd(t *testing.T) {
	var d diary
	b := new(xmpp.Batch)
	ctx := xmpp.WithBatch(t.Context(), b)
	x := &outbox{name: "x", d: &d}
	var first, second xmpp.Commit
	x.then = func() {
		d.say("complete")
		first.Complete(nil)
		second.Complete(errFailed)
		x.then = nil
	}
	b.Add(x)
	xmpp.Await(ctx, &first, func(err error) {
		d.say("first done")
		if err != nil {
			t.Error(err)
		}
		b.Add(x)
		xmpp.Await(ctx, &second, func(err error) {
			d.say("second done")
			if err != errFailed {
				t.Error(err)
			}
			b.Add(x)
		})
	})
	d.want(t)
	b.End(ctx)
	d.want(t, "flush x", "complete", "first done", "flush x", "second done", "flush x")
	b.End(ctx)
	d.want(t, "flush x", "complete", "first done", "flush x", "second done", "flush x")
}

func TestAwaitWithoutBatch(t *testing.T) {
	var c xmpp.Commit
	c.Complete(errFailed)
	for _, ctx := range []context.Context{t.Context(), xmpp.Detach(xmpp.WithBatch(t.Context(), new(xmpp.Batch)))} {
		var got error
		xmpp.Await(ctx, &c, func(err error) { got = err })
		if got != errFailed {
			t.Errorf("got %v", got)
		}
	}
}

func TestDetach(t *testing.T) {
	b := new(xmpp.Batch)
	ctx, cancel := context.WithCancel(xmpp.WithBatch(t.Context(), b))
	if xmpp.BatchFrom(ctx) != b {
		t.Error("no batch in its context")
	}
	detached := xmpp.Detach(ctx)
	cancel()
	if xmpp.BatchFrom(detached) != nil {
		t.Error("the batch is detached too")
	}
	if detached.Err() != nil {
		t.Error("the detached context is cancelled")
	}
	if xmpp.BatchFrom(t.Context()) != nil {
		t.Error("a batch from nowhere")
	}
}
