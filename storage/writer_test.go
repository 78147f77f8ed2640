package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"balcony/roster"
	"balcony/storage/storagetest/pgtest"
	"balcony/xmpp"
	"balcony/xmpp/auth"

	"mellium.im/xmpp/jid"
)

// answer is how long a database may take to answer in the tests where it does not. chosen: a loaded machine still keeps it, a test can
// wait for it.
const answer = time.Second

// hung is how long a call may take that has to end by itself.
const hung = 20 * time.Second

func openTest(t testing.TB, cfg Config, dir string) *DB {
	t.Helper()
	return openImpatient(t, cfg, dir, postgresAnswer)
}

func openImpatient(t testing.TB, cfg Config, dir string, timeout time.Duration) *DB {
	t.Helper()
	db, err := open(context.Background(), cfg, dir, DefaultLimits(), slog.New(slog.NewTextHandler(t.Output(), nil)), timeout)
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	return db
}

func sqliteFile(testing.TB) Config   { return DefaultConfig() }
func sqliteMemory(testing.TB) Config { return Config{Driver: "sqlite", DSN: ":memory:"} }
func postgres(t testing.TB) Config   { return Config{Driver: "postgres", DSN: pgtest.Start(t)} }

// each runs a test on every kind of database.
func each(t *testing.T, test func(*testing.T, *DB)) {
	for name, cfg := range map[string]func(testing.TB) Config{"SQLiteFile": sqliteFile, "SQLiteMemory": sqliteMemory, "PostgreSQL": postgres} {
		t.Run(name, func(t *testing.T) { test(t, openTest(t, cfg(t), t.TempDir())) })
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func limited(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), hung)
	t.Cleanup(cancel)
	return ctx
}

var romeo = jid.MustParse("romeo@montague.example")

func chat(body string) *xmpp.Stanza {
	return xmpp.New(xmpp.Message, "chat", romeo, jid.MustParse("juliet@capulet.example"), xmpp.El("", "body").Say(body))
}

// hold keeps the writer busy until release, so that what is enqueued meanwhile shares the next transaction.
func hold(t testing.TB, w *writer) (release func()) {
	t.Helper()
	begun, end := make(chan struct{}), make(chan struct{})
	op := &write{waits: true, run: func(queries) error {
		close(begun)
		<-end
		return nil
	}}
	must(t, w.enqueue(op, queueFull))
	<-begun
	return func() {
		close(end)
		must(t, op.Wait(limited(t)))
	}
}

// put enqueues a write that adds a secret and then does more.
func put(t testing.TB, w *writer, name string, more func(queries) error) *write {
	t.Helper()
	op := &write{run: func(q queries) error {
		if _, err := q.exec("INSERT INTO secret (name, value) VALUES ($1, $2)", name, []byte(name)); err != nil || more == nil {
			return err
		}
		return more(q)
	}}
	must(t, w.enqueue(op, queueFull))
	return op
}

func secrets(t testing.TB, db *DB) string {
	t.Helper()
	var names []string
	must(t, db.read(limited(t), "test", func(q queries) error {
		return q.rows("SELECT name FROM secret WHERE name <> 'archive' ORDER BY name", nil, func(scan func(...any) error) error {
			var s string
			names = append(names, "")
			err := scan(&s)
			names[len(names)-1] = s
			return err
		})
	}))
	return strings.Join(names, " ")
}

func TestFailedWriteFailsAlone(t *testing.T) {
	each(t, func(t *testing.T, db *DB) {
		ctx := limited(t)
		commits := 0
		release := hold(t, db.writer)
		a := put(t, db.writer, "a", nil)
		b := put(t, db.writer, "b", func(q queries) error {
			_, err := q.exec("INSERT INTO secret (name, value) VALUES ('x', NULL)")
			return err
		})
		c := put(t, db.writer, "c", func(queries) error { panic("the test's") })
		d := put(t, db.writer, "d", func(queries) error { return refuse(roster.ErrFull) })
		e := put(t, db.writer, "a", nil) // again: a conflict with its own batch
		f := put(t, db.writer, "f", nil)
		db.Observe(func(string, time.Duration, error) { commits++ })
		release()
		must(t, a.Wait(ctx))
		if err := b.Wait(ctx); err == nil || errors.Is(err, ErrUnavailable) {
			t.Errorf("the failing write has error %v", err)
		}
		if err := c.Wait(ctx); err == nil || !strings.Contains(err.Error(), "the test's") {
			t.Errorf("the panicking write has error %v", err)
		}
		wantErr(t, d.Wait(ctx), roster.ErrFull)
		if e.Wait(ctx) == nil {
			t.Error("the conflicting write has no error")
		}
		must(t, f.Wait(ctx))
		if got := secrets(t, db); got != "a d f" {
			t.Errorf("stored: %s", got)
		}
		db.Observe(nil)
		if commits < 7 {
			t.Errorf("%d transactions", commits)
		}
	})
}

// clock makes the writer's limits see a time that only the test moves on.
func clock(t testing.TB, w *writer) (pass func(time.Duration)) {
	t.Helper()
	var passed atomic.Int64
	start := time.Now()
	release := hold(t, w) // the writer does not look at it meanwhile
	w.now = func() time.Time { return start.Add(time.Duration(passed.Load())) }
	release()
	return func(d time.Duration) { passed.Add(int64(d)) }
}

// When the disk is slow a transaction is committed as far as it is: every write is run once, however long they take together.
func TestSlowWritesAreRunOnce(t *testing.T) {
	each(t, func(t *testing.T, db *DB) {
		pass := clock(t, db.writer)
		var ops []*write
		var runs, want []string
		release := hold(t, db.writer)
		for i := range 40 {
			name := fmt.Sprintf("%02d", i)
			want = append(want, name)
			ops = append(ops, put(t, db.writer, name, func(queries) error {
				runs = append(runs, name) // on the writer's goroutine
				pass(sliceTime * 2 / 5)
				return nil
			}))
		}
		transactions := 0
		db.Observe(func(op string, _ time.Duration, err error) { transactions++ })
		release()
		for _, op := range ops {
			must(t, op.Wait(limited(t)))
		}
		db.Observe(nil)
		if got := strings.Join(runs, " "); got != strings.Join(want, " ") {
			t.Errorf("run: %s", got)
		}
		if got := secrets(t, db); got != strings.Join(want, " ") {
			t.Errorf("stored: %s", got)
		}
		if transactions < 10 || transactions > 20 { // three writes each, and the held one
			t.Errorf("%d transactions", transactions)
		}
	})
}

// A write that takes too long by itself fails, and leaves nothing; it is not tried again, and the others are stored.
func TestWriteThatTakesTooLong(t *testing.T) {
	each(t, func(t *testing.T, db *DB) {
		ctx := limited(t)
		pass := clock(t, db.writer)
		runs := make(map[string]int)
		counted := func(name string, more func(queries) error) *write {
			return put(t, db.writer, name, func(q queries) error {
				runs[name]++ // on the writer's goroutine
				if more == nil {
					return nil
				}
				return more(q)
			})
		}
		release := hold(t, db.writer)
		a, b := counted("a", nil), counted("b", nil)
		long := counted("long", func(q queries) error {
			for i := 0; ; i++ {
				pass(writeTime / 4)
				if _, err := q.exec("INSERT INTO secret (name, value) VALUES ($1, $2)", fmt.Sprint("long", i), []byte("x")); err != nil || i > 20 {
					return err
				}
			}
		})
		c, d := counted("c", nil), counted("d", func(queries) error { pass(2 * writeTime); return nil }) // done when that is seen
		e := counted("e", nil)
		release()
		wantErr(t, long.Wait(ctx), ErrUnavailable)
		for _, op := range []*write{a, b, c, d, e} {
			must(t, op.Wait(ctx))
		}
		if got := secrets(t, db); got != "a b c d e" {
			t.Errorf("stored: %s", got)
		}
		if want := map[string]int{"a": 2, "b": 2, "long": 1, "c": 1, "d": 1, "e": 1}; !maps.Equal(runs, want) {
			t.Errorf("runs: %v, want %v", runs, want)
		}
	})
}

// What has failed does not make the writer do the others' work over and over.
func TestFailuresDoNotMultiplyTheWork(t *testing.T) {
	each(t, func(t *testing.T, db *DB) {
		clock(t, db.writer) // it stands still
		var ops []*write
		runs := make([]int, maxBatch-1)
		release := hold(t, db.writer)
		for i := range runs {
			ops = append(ops, put(t, db.writer, fmt.Sprintf("%03d", i), func(q queries) (err error) {
				runs[i]++                                  // on the writer's goroutine
				if i%50 == 49 || i == 10 && runs[i] == 2 { // also one that fails when it is tried again
					_, err = q.exec("INSERT INTO secret (name, value) VALUES ('x', NULL)")
				}
				return err
			}))
		}
		transactions := 0
		db.Observe(func(op string, _ time.Duration, err error) { transactions++ })
		release()
		failed := 0
		for i, op := range ops {
			if err := op.Wait(limited(t)); err != nil {
				failed++
				if i%50 != 49 {
					t.Errorf("write %d: %v", i, err)
				}
			}
		}
		db.Observe(nil)
		if failed != 5 {
			t.Errorf("%d have failed", failed)
		}
		if got := len(strings.Fields(secrets(t, db))); got != len(runs)-5 {
			t.Errorf("%d are stored", got)
		}
		for i, n := range runs {
			if n > 3 {
				t.Errorf("write %d was run %d times", i, n)
			}
		}
		if transactions > 1+2+49+1+4*3+1 { // the held one; the first two attempts, one by one, and the one that fails; three for each that fails; the rest
			t.Errorf("%d transactions", transactions)
		}
	})
}

// When the database answers, but so late that every write fails, the writes of a batch do not wait for one time-out after the other.
func TestWritesDoNotQueueForTimeouts(t *testing.T) {
	db := openTest(t, sqliteFile(t), t.TempDir())
	ctx := limited(t)
	pass := clock(t, db.writer)
	runs := 0
	var ops []*write
	release := hold(t, db.writer)
	for i := range 100 {
		ops = append(ops, put(t, db.writer, fmt.Sprint(i), func(queries) error {
			runs++
			pass(queueWait)
			return fmt.Errorf("%w: the test's", ErrUnavailable)
		}))
	}
	release()
	for _, op := range ops {
		wantErr(t, op.Wait(ctx), ErrUnavailable)
	}
	if runs > 3 {
		t.Errorf("%d were tried", runs)
	}
	if got := secrets(t, db); got != "" {
		t.Errorf("stored: %s", got)
	}
	must(t, put(t, db.writer, "after", nil).Wait(ctx))
}

func TestWritesShareATransaction(t *testing.T) {
	each(t, func(t *testing.T, db *DB) {
		ctx := limited(t)
		must(t, db.CreateAccount(ctx, romeo, nil))
		clock(t, db.writer) // it stands still
		release := hold(t, db.writer)
		var commits []*xmpp.Commit
		for range maxBatch {
			commits = append(commits, db.AppendOffline(ctx, romeo, time.Now(), chat("hi")))
		}
		transactions := make(chan struct{}, 2*maxBatch)
		db.Observe(func(op string, _ time.Duration, err error) { transactions <- struct{}{} })
		release()
		for _, c := range commits {
			must(t, c.Wait(ctx))
		}
		db.Observe(nil)
		if n := len(transactions); n > 2 { // the held one and the batch
			t.Errorf("%d transactions for %d writes that waited together", n, maxBatch)
		}
	})
}

// Whoever reads waits for the writes before, all or those of one spool, and that costs no transaction.
func TestSettle(t *testing.T) {
	each(t, func(t *testing.T, db *DB) {
		ctx := limited(t)
		juliet := jid.MustParse("juliet@capulet.example")
		for _, account := range []jid.JID{romeo, juliet} {
			must(t, db.CreateAccount(ctx, account, nil))
		}
		must(t, db.writer.settle(ctx)) // nothing is there
		var transactions atomic.Int64
		db.Observe(func(op string, _ time.Duration, _ error) {
			if op == "commit" {
				transactions.Add(1)
			}
		})
		release := hold(t, db.writer)
		stored := db.AppendOffline(ctx, romeo, time.Now(), chat("hi"))
		if err := db.settleSpool(ctx, juliet); err != nil { // while the writer is held
			t.Errorf("juliet's spool: %v", err)
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		wantErr(t, db.writer.settle(gone), context.Canceled)
		wantErr(t, db.settleSpool(gone, romeo), context.Canceled)
		results := make(chan error, 2)
		go func() { results <- db.writer.settle(ctx) }()
		go func() {
			entries, err := db.Offline(ctx, romeo, 0, 10)
			if err == nil && len(entries) != 1 {
				err = fmt.Errorf("romeo's spool: %v", entries)
			}
			results <- err
		}()
		waiting := func() int {
			db.writer.mu.Lock()
			defer db.writer.mu.Unlock()
			return len(db.writer.settlers)
		}
		for waiting() < 2 {
			time.Sleep(time.Millisecond) // until the others have come that far
		}
		release()
		must(t, <-results)
		must(t, <-results)
		must(t, stored.Wait(ctx))
		want := int64(2) // the held one and the message's
		if db.e.reads == nil {
			want++ // the writer reads, too
		}
		if n := transactions.Load(); n != want {
			t.Errorf("%d transactions, want %d", n, want)
		}
		if n := waiting(); n != 0 {
			t.Errorf("%d still wait", n)
		}
		db.Observe(nil)
	})
}

// Accounts whose writes have ended are forgotten, and no others.
func TestChangesAreForgotten(t *testing.T) {
	db := openTest(t, sqliteMemory(t), "")
	note := func(from, to int) {
		for i := from; i < to; i++ {
			db.changes.note(fmt.Sprintf("a%d@x", i), db.writer)
		}
	}
	must(t, put(t, db.writer, "a", nil).Wait(limited(t)))
	must(t, db.writer.settle(limited(t)))
	note(0, 10*minChanges)
	if n := len(db.changes.by); n > minChanges {
		t.Errorf("%d accounts are noted", n)
	}
	release := hold(t, db.writer)
	op := put(t, db.writer, "b", nil)
	note(0, 10*minChanges)
	if n := len(db.changes.by); n != 10*minChanges || db.changes.last("a7@x") == 0 {
		t.Errorf("%d accounts are noted while a write of theirs may be under way", n)
	}
	release()
	must(t, op.Wait(limited(t)))
	must(t, db.writer.settle(limited(t)))
	note(20*minChanges, 30*minChanges)
	if n := len(db.changes.by); n > 20*minChanges || db.changes.last("a7@x") != 0 {
		t.Errorf("%d accounts are noted after that", n)
	}
}

func TestEndedContextWithdrawsAWaitingWrite(t *testing.T) {
	db := openTest(t, sqliteMemory(t), "")
	release := hold(t, db.writer)
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error)
	go func() {
		result <- db.writer.do(ctx, 0, func(queries) error {
			t.Error("a withdrawn write was run")
			return nil
		})
	}()
	for db.Stats().QueuedWrites == 0 {
		time.Sleep(time.Millisecond) // until the other goroutine has come that far
	}
	cancel()
	wantErr(t, <-result, context.Canceled)
	release()
	must(t, db.Ping(limited(t)))
}

func TestBegunWriteIsWaitedFor(t *testing.T) {
	db := openTest(t, sqliteMemory(t), "")
	ctx, cancel := context.WithCancel(context.Background())
	must(t, db.writer.do(ctx, 0, func(q queries) error {
		cancel()
		_, err := q.exec("INSERT INTO secret (name, value) VALUES ('a', 'b')")
		return err
	}))
	if got := secrets(t, db); got != "a" {
		t.Errorf("stored: %s", got)
	}
}

func TestQueueIsBounded(t *testing.T) {
	db := openTest(t, sqliteFile(t), t.TempDir())
	ctx := limited(t)
	must(t, db.CreateAccount(ctx, romeo, nil))
	release := hold(t, db.writer)
	large := chat(strings.Repeat("x", 200_000))
	var commits []*xmpp.Commit
	for n := 0; ; n += large.Size() {
		if n > 2*queueFull {
			t.Fatal("the queue takes any number of bytes")
		}
		c := db.AppendOffline(ctx, romeo, time.Now(), large)
		if db.Stats().QueuedWrites == len(commits) {
			wantErr(t, c.Wait(ctx), ErrOverloaded) // at once: nothing is being written
			break
		}
		commits = append(commits, c)
	}
	if s := db.Stats(); s.QueuedBytes > queueFull || s.QueuedBytes < queueFull-2*large.Size() {
		t.Errorf("%d bytes are queued", s.QueuedBytes)
	}
	// A call that can wait does, and goes on when there is room or its context has ended.
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	wantErr(t, db.SetVCard(short, romeo, []byte("<v/>")), context.DeadlineExceeded)
	result := make(chan error)
	go func() { result <- db.SetVCard(ctx, romeo, []byte("<v/>")) }()
	release()
	must(t, <-result)
	full := 0
	for _, c := range commits {
		if c.Wait(ctx) != nil {
			full++ // the bound of the account, in bytes
		}
	}
	if stored := len(commits) - full; stored != db.limits.OfflineBytes/len(large.AppendTo(nil)) {
		t.Errorf("%d messages are stored", stored)
	}
	if s := db.Stats(); s != (Stats{}) {
		t.Errorf("%+v is queued at the end", s)
	}
}

func TestCloseEndsEveryCommit(t *testing.T) {
	each(t, func(t *testing.T, db *DB) {
		ctx := limited(t)
		must(t, db.CreateAccount(ctx, romeo, nil))
		release := hold(t, db.writer)
		var commits []*xmpp.Commit
		for range 3 * maxBatch {
			commits = append(commits, db.AppendOffline(ctx, romeo, time.Now(), chat("hi")))
		}
		closed := make(chan error)
		go func() { closed <- db.Close() }()
		release()
		must(t, <-closed)
		for _, c := range commits {
			must(t, c.Wait(ctx))
		}
	})
}

// A transaction that fails at its commit is reported to all who were in it, and none of it is stored.
func TestFailedCommitFailsAll(t *testing.T) {
	for name, cfg := range map[string]Config{"file": sqliteFile(t), "memory": sqliteMemory(t)} {
		t.Run(name, func(t *testing.T) {
			db := openTest(t, cfg, t.TempDir())
			ctx := limited(t)
			put(t, db.writer, "before", nil)
			release := hold(t, db.writer)
			a := put(t, db.writer, "a", nil)
			b := put(t, db.writer, "b", func(q queries) error {
				if _, err := q.exec("PRAGMA defer_foreign_keys = ON"); err != nil {
					return err
				}
				_, err := q.exec("INSERT INTO vcard (account_id, element) VALUES (-1, 'x')") // seen at the commit only
				return err
			})
			c := put(t, db.writer, "c", nil)
			release()
			for _, op := range []*write{a, b, c} {
				if err := op.Wait(ctx); err == nil || !strings.Contains(err.Error(), "commit") {
					t.Errorf("error %v of a commit that failed", err)
				}
			}
			must(t, put(t, db.writer, "after", nil).Wait(ctx))
			if got := secrets(t, db); got != "after before" {
				t.Errorf("stored: %s", got)
			}
		})
	}
}

func TestMessageThatCannotBeReadHasNoStanza(t *testing.T) {
	each(t, func(t *testing.T, db *DB) {
		ctx := limited(t)
		must(t, db.CreateAccount(ctx, romeo, nil))
		for i := range 6 {
			must(t, db.AppendOffline(ctx, romeo, time.Now(), chat(fmt.Sprint(i))).Wait(ctx))
		}
		must(t, db.write(ctx, func(q queries) error {
			_, err := q.exec("UPDATE offline_message SET stanza = $1 WHERE id IN (1, 2, 4)", []byte("<message><body>not well-formed</message>"))
			return err
		}))
		var got []string
		for after := int64(0); ; {
			entries, err := db.Offline(ctx, romeo, after, 2)
			must(t, err)
			if len(entries) == 0 {
				break
			}
			for _, e := range entries {
				text := "unreadable"
				if e.Stanza != nil {
					body, _ := e.Stanza.Child("", "body")
					text = body.Text()
				}
				got, after = append(got, text), e.ID
			}
		}
		if s := strings.Join(got, " "); s != "unreadable unreadable 2 unreadable 4 5" {
			t.Errorf("messages: %s", s)
		}
		must(t, db.RemoveOffline(ctx, romeo, 100))
		if n, err := db.CountOffline(ctx, romeo); err != nil || n != 0 {
			t.Errorf("%d messages are left, %v", n, err)
		}
	})
}

func TestErrorsSayWhat(t *testing.T) {
	db := openTest(t, sqliteMemory(t), "")
	err := db.SetVCard(limited(t), romeo, nil)
	wantErr(t, err, auth.ErrNoAccount)
	if !strings.Contains(err.Error(), "vCard of romeo@montague.example") {
		t.Errorf("error is %q", err)
	}
	if strings.Contains(err.Error(), "SELECT") {
		t.Errorf("the error %q carries SQL", err)
	}
}
