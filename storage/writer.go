package storage

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"balcony/xmpp"
)

const (
	queueBlocks = 8 << 20  // chosen: with this many bytes waiting, a call that can wait does; about 10,000 messages, half a second's work
	queueFull   = 32 << 20 // chosen: with this many, AppendOffline is refused: the disk has stood still for seconds
	queueWait   = 5 * time.Second
	gatherTime  = 2 * time.Millisecond // chosen: about ten times a sync; at 2,000 messages a second it makes one transaction of four
	maxBatch    = 256                  // chosen: writes in a transaction; about 10 ms, so that nobody waits long for the one before
	maxBatchLen = 4 << 20              // chosen: their size, for the same reason
	writeCost   = 256                  // about what a waiting write takes beside its data

	sliceTime = time.Second      // chosen: a transaction that takes longer is committed as far as it is; usually it takes ten milliseconds
	writeTime = 10 * time.Second // chosen: one write; the longest, of 500 rows, take ten milliseconds, and a disk may be a thousand times slower
)

// write is one change that waits for its transaction. Its commit ends when the transaction is synced or has failed.
type write struct {
	xmpp.Commit
	run   func(queries) error
	size  int
	waits bool         // somebody does nothing else until it ends
	at    int64        // the time of a write that gets an order, 0 for others
	more  int64        // how many orders it gets besides
	order int64        // set by enqueue: at, or a little more, greater than all before
	state atomic.Int32 // waiting until the writer takes it or its caller gives up
	err   error        // owned by work: what run refused
}

const (
	waiting int32 = iota
	taken
	withdrawn
)

// refusal is an error of a write that has changed nothing: the transaction of the others goes on.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// refuse marks the answer of a write that has changed nothing, such as ErrFull. Any other error undoes the whole transaction.
func refuse(err error) error { return refusal{err} }

// writer is the one goroutine that changes the database. It gathers what is waiting into one transaction, so that one sync of the
// disk serves all (group commit). A write that fails must not fail its neighbours: the transaction is undone, and those before the write go
// again without it. That costs nothing as long as nothing fails, unlike a savepoint for each. A transaction that takes long, because the disk
// is slow, is committed as far as it is: nothing is done twice for that.
type writer struct {
	// Static after construction.
	e       *engine
	log     *slog.Logger
	now     func() time.Time // for the limits of transactions
	observe func(op string, start time.Time, err error)
	timeout time.Duration // to get a connection
	wake    chan struct{} // one slot: something is waiting, or the end
	done    chan struct{} // closed when work has returned

	// Guarded by mu, which is never held over a call.
	mu     sync.Mutex
	queue  []*write
	bytes  int
	hurry  bool          // the queue holds a write that waits, or enough for a transaction
	closed bool          // nothing more is accepted
	order  int64         // the last one given
	space  chan struct{} // closed when the queue has become shorter; nil while nobody waits

	// The writes are numbered in the order of the queue, in which they end. A number is the last one of which that is true.
	accepted, left, ended int64
	settlers              []settler // by number

	// Owned by work.
	last  time.Time // end of the last transaction
	conn  *sql.Conn // nil after a failure
	stmts map[string]*sql.Stmt
	// What report has logged.
	down     bool
	reported time.Time
}

// settler waits for the end of the writes up to a number.
type settler struct {
	number int64
	done   chan struct{}
}

func newWriter(e *engine, log *slog.Logger, observe func(string, time.Time, error), timeout time.Duration) *writer {
	w := &writer{e: e, log: log, now: time.Now, observe: observe, timeout: timeout, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.work()
	return w
}

// enqueue adds a write without blocking; it reports why not when the queue holds more than bound bytes or is closed.
func (w *writer) enqueue(op *write, bound int) error {
	w.mu.Lock()
	switch {
	case w.closed:
		w.mu.Unlock()
		return ErrClosed
	case len(w.queue) > 0 && w.bytes+op.size > bound:
		w.mu.Unlock()
		return ErrOverloaded
	}
	if op.at != 0 {
		w.order = max(op.at, w.order+1)
		op.order = w.order
		w.order += op.more
	}
	w.queue = append(w.queue, op)
	w.accepted++
	w.bytes += op.size
	hurry := op.waits || len(w.queue) >= maxBatch || w.bytes >= maxBatchLen
	signal := len(w.queue) == 1 || hurry && !w.hurry
	w.hurry = w.hurry || hurry
	w.mu.Unlock()
	if signal {
		w.signal()
	}
	return nil
}

// signal wakes work.
func (w *writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// do runs a write and waits for its commit. A write that the writer has not begun when ctx ends is withdrawn; one that it has begun is
// waited for, which the database's own time limits bound, so that the result is known and run never outlives the call.
func (w *writer) do(ctx context.Context, size int, run func(queries) error) error {
	return w.finish(ctx, &write{run: run, size: size + writeCost, waits: true})
}

// finish is do for a write that was made already.
func (w *writer) finish(ctx context.Context, op *write) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := w.enqueue(op, queueBlocks)
	if errors.Is(err, ErrOverloaded) {
		err = w.enqueueWhenSpace(ctx, op)
	}
	if err != nil {
		return err
	}
	err = op.Wait(ctx)
	if ctx.Err() == nil || op.state.CompareAndSwap(waiting, withdrawn) {
		return err
	}
	return op.Wait(context.WithoutCancel(ctx))
}

// enqueueWhenSpace waits until the queue has room, at most queueWait.
func (w *writer) enqueueWhenSpace(ctx context.Context, op *write) error {
	limit := time.NewTimer(queueWait)
	defer limit.Stop()
	for {
		w.mu.Lock()
		if w.space == nil {
			w.space = make(chan struct{})
		}
		space := w.space
		w.mu.Unlock()
		if err := w.enqueue(op, queueBlocks); !errors.Is(err, ErrOverloaded) {
			return err
		}
		select {
		case <-space:
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return ErrOverloaded
		}
	}
}

// numbers are those of the last write that was accepted and of the last one that has ended.
func (w *writer) numbers() (accepted, ended int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.accepted, w.ended
}

// settle returns when every write that was accepted before has ended.
func (w *writer) settle(ctx context.Context) error {
	number, _ := w.numbers()
	return w.settleTo(ctx, number)
}

// settleTo returns when the writes up to a number have ended.
func (w *writer) settleTo(ctx context.Context, number int64) error {
	w.mu.Lock()
	if number <= w.ended {
		w.mu.Unlock()
		return nil
	}
	s := settler{number, make(chan struct{})}
	at, _ := slices.BinarySearchFunc(w.settlers, number+1, func(s settler, n int64) int { return cmp.Compare(s.number, n) })
	w.settlers = slices.Insert(w.settlers, at, s)
	signal := number > w.left && !w.hurry
	w.hurry = w.hurry || signal
	w.mu.Unlock()
	if signal {
		w.signal()
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		w.mu.Lock()
		defer w.mu.Unlock()
		w.settlers = slices.DeleteFunc(w.settlers, func(o settler) bool { return o.done == s.done })
		return ctx.Err()
	}
}

// finished is called when what was taken from the queue has ended.
func (w *writer) finished() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = w.left
	n := 0
	for ; n < len(w.settlers) && w.settlers[n].number <= w.ended; n++ {
		close(w.settlers[n].done)
	}
	w.settlers = slices.Delete(w.settlers, 0, n)
}

// close accepts nothing more and returns when what was accepted has ended.
func (w *writer) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.signal()
	<-w.done
}

func (w *writer) stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Stats{QueuedWrites: len(w.queue), QueuedBytes: w.bytes}
}

// work is the writer's goroutine, until close.
func (w *writer) work() {
	defer close(w.done)
	defer w.release(false)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		w.gather(timer)
		batch, end := w.take(maxBatch, maxBatchLen)
		if len(batch) > 0 {
			w.commit(batch)
			w.last = time.Now()
		}
		w.finished() // also those that were withdrawn
		switch {
		case len(batch) > 0:
			continue
		case end:
			return
		}
		<-w.wake
	}
}

// gather gives writes for which nobody stands still the time to share a transaction with those that come after them: a sync of its own
// costs a write five times the CPU.
func (w *writer) gather(timer *time.Timer) {
	rest := gatherTime - time.Since(w.last)
	if rest <= 0 {
		return
	}
	timer.Reset(rest)
	for {
		w.mu.Lock()
		patient := len(w.queue) > 0 && !w.hurry && !w.closed
		w.mu.Unlock()
		if !patient {
			return
		}
		select {
		case <-timer.C:
			return
		case <-w.wake:
		}
	}
}

// take removes up to n writes of up to size bytes (at least one) from the queue, without those that were withdrawn. end is true when
// the queue is empty and will stay so.
func (w *writer) take(n, size int) (batch []*write, end bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := 0
	for ; at < len(w.queue) && len(batch) < n; at++ {
		op := w.queue[at]
		if len(batch) > 0 && size < op.size {
			break
		}
		w.bytes -= op.size
		if op.state.CompareAndSwap(waiting, taken) {
			batch = append(batch, op)
			size -= op.size
		}
	}
	w.left += int64(at)
	rest := copy(w.queue, w.queue[at:])
	clear(w.queue[rest:])
	w.queue = w.queue[:rest]
	if rest == 0 && cap(w.queue) > 4*maxBatch {
		w.queue = nil // a flood's list is not kept
	}
	if w.space != nil && at > 0 {
		close(w.space)
		w.space = nil
	}
	w.hurry = w.hurry && rest > 0
	return batch, w.closed && rest == 0 && len(batch) == 0
}

// commit brings a batch to its end, in the order of its writes. Mostly that is one transaction. No write is run more than three times.
func (w *writer) commit(batch []*write) {
	begun := w.now()
	again := 0     // so many were undone when the one behind them failed; the next transaction is of them
	alone := false // that has failed too: each of them gets a transaction of its own
	for len(batch) > 0 {
		size := len(batch)
		if alone {
			size = 1
		} else if again > 0 {
			size = again
		}
		n, err, undone := w.transact(batch[:size])
		switch {
		case errors.Is(err, errNoConnection):
			// What waits behind would meet the same; it must not wait for one time-out after the other.
			w.end(batch, err)
			behind, _ := w.take(math.MaxInt, math.MaxInt)
			w.end(behind, err)
			return
		case undone && n > 0:
			if alone = again > 0; !alone {
				again = n
			}
			if errors.Is(err, errWriteTime) { // once is enough
				w.end(batch[n:n+1], err)
				batch = slices.Delete(batch, n, n+1)
				if alone {
					again--
					alone = again > 0
				}
			}
			continue
		case undone:
			n = 1 // the first has failed, and the others were not run
		}
		w.end(batch[:n], err)
		batch = batch[n:]
		again = max(0, again-n)
		alone = alone && again > 0
		if undone && errors.Is(err, ErrUnavailable) && w.now().Sub(begun) > writeTime {
			w.end(batch, err) // each may need as long
			return
		}
	}
}

// end gives the writes of one transaction their result.
func (w *writer) end(batch []*write, err error) {
	if len(batch) > 0 {
		w.report(err)
	}
	for _, op := range batch {
		if err != nil {
			op.Complete(err)
			continue
		}
		op.Complete(op.err)
	}
}

// report logs that the database cannot be written, at most every ten seconds, and that it can again.
func (w *writer) report(err error) {
	switch {
	case err == nil && w.down:
		w.log.Info("database can be written again")
		w.down = false
	case errors.Is(err, ErrUnavailable) && (w.reported.IsZero() || time.Since(w.reported) > 10*time.Second):
		w.log.Error("database cannot be written", "error", err)
		w.down, w.reported = true, time.Now()
	case err != nil && !errors.Is(err, ErrUnavailable):
		w.log.Error("write failed", "error", err)
	}
}

// errNoConnection says that a transaction did not begin because there is no database.
var errNoConnection = fmt.Errorf("%w: no connection", ErrUnavailable)

// errWriteTime says that one write took too long by itself.
var errWriteTime = fmt.Errorf("%w: a write takes longer than %s", ErrUnavailable, writeTime)

// transact runs the writes in one transaction, as many as sliceTime lets. When undone is false err is the result of the first n of them, and the
// others were not run. undone is true when the transaction failed before its commit was tried, at the write with index n, so that they may be tried
// again; after a failed commit nobody knows what the disk holds, and every write of it is reported as failed.
func (w *writer) transact(batch []*write) (n int, err error, undone bool) {
	start := time.Now()
	defer func() {
		err = w.e.wrap(err)
		w.observe("commit", start, err)
	}()
	if err := w.begin(); err != nil {
		return 0, fmt.Errorf("%w: %w", errNoConnection, err), true
	}
	var failed error
	begun := w.now()
	at := begun // the beginning of the present write
	q := queries{ctx: context.Background(), prepare: w.prepare, failed: &failed, late: func() error {
		if w.now().Sub(at) > writeTime {
			return errWriteTime
		}
		return nil
	}}
	for _, op := range batch {
		err := w.try(op, q)
		var r refusal
		switch {
		case failed != nil && (err == nil || errors.As(err, &r)):
			err = failed // PostgreSQL ends a transaction in which a statement has failed, even if nobody minds
		case errors.As(err, &r):
			err, op.err = nil, r.error
		default:
			op.err = nil
		}
		if err != nil {
			// SQLite may have ended the transaction itself (disk full); then there is nothing to roll back.
			q.late = nil
			_, rollbackErr := q.exec("ROLLBACK")
			w.release(rollbackErr != nil)
			return n, err, true
		}
		n++
		if at = w.now(); at.Sub(begun) > sliceTime {
			break
		}
	}
	q.late = nil
	if _, err := q.exec("COMMIT"); err != nil {
		if w.e.keepConnection {
			_, rollbackErr := q.exec("ROLLBACK")
			err = errors.Join(err, rollbackErr)
		}
		w.release(true)
		return n, fmt.Errorf("commit: %w", err), false
	}
	return n, nil, false
}

// try runs a write; a panic, for example of a caller's function, is its error.
func (w *writer) try(op *write, q queries) (err error) {
	defer func() {
		if r := recover(); r != nil {
			w.log.Error("panic in a write", "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic in a write: %v", r)
		}
	}()
	return op.run(q)
}

// begin starts a transaction, on a fresh connection when the one at hand has died since it was used: nothing was done on it yet. It
// is a statement and no sql.Tx: when a connection dies, a statement of its sql.Conn would wait for that sql.Tx to end.
func (w *writer) begin() error {
	for fresh := false; ; {
		if w.conn == nil {
			ctx, cancel := context.WithTimeout(context.Background(), w.timeout)
			conn, err := w.e.writes.Conn(ctx)
			cancel()
			if err != nil {
				return err
			}
			w.conn, w.stmts, fresh = conn, make(map[string]*sql.Stmt), true
		}
		_, err := queries{ctx: context.Background(), prepare: w.prepare}.exec(w.e.begin)
		if err == nil {
			return nil
		}
		w.release(true)
		if fresh {
			return err
		}
	}
}

// prepare returns the statement of the writer's connection for text.
func (w *writer) prepare(ctx context.Context, text string) (*sql.Stmt, error) {
	if st := w.stmts[text]; st != nil {
		return st, nil
	}
	st, err := w.conn.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	w.stmts[text] = st
	return st, nil
}

// release gives the connection up; a broken one is closed instead of being used again.
func (w *writer) release(broken bool) {
	if w.conn == nil || broken && w.e.keepConnection {
		return
	}
	// SQLite keeps a closed connection, and its locks, as long as it has statements, and database/sql closes none that belong to a Conn.
	for _, st := range w.stmts {
		_ = st.Close() // of a broken connection it cannot succeed
	}
	var err error
	if broken {
		// database/sql closes a connection whose driver says that it is bad.
		err = w.conn.Raw(func(any) error { return driver.ErrBadConn })
	} else {
		err = w.conn.Close()
	}
	if err != nil && !errors.Is(err, driver.ErrBadConn) && !errors.Is(err, sql.ErrConnDone) {
		w.log.Warn("close database connection", "error", err)
	}
	w.conn, w.stmts = nil, nil
}
