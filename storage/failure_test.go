package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"balcony/roster"
	"balcony/storage/storagetest/pgtest"

	"mellium.im/xmpp/jid"
)

// calls are one read and one write of each kind.
func calls(ctx context.Context, db *DB) map[string]error {
	_, readErr := db.VCard(ctx, romeo)
	_, _, rosterErr := db.Roster(ctx, romeo)
	_, updateErr := db.UpdateItem(ctx, romeo, jid.MustParse("juliet@capulet.example"), func(i *roster.Item) bool {
		i.Listed = true
		return true
	})
	_, offlineErr := db.Offline(ctx, romeo, 0, 10)
	return map[string]error{
		"VCard":         readErr,
		"Roster":        rosterErr,
		"UpdateItem":    updateErr,
		"SetVCard":      db.SetVCard(ctx, romeo, []byte("<v/>")),
		"AppendOffline": db.AppendOffline(ctx, romeo, time.Now(), chat("hi")).Wait(ctx),
		"Offline":       offlineErr,
		"Ping":          db.Ping(ctx),
	}
}

// allUnavailable checks that every call fails with ErrUnavailable, and that all of them together take less than most.
func allUnavailable(t *testing.T, db *DB, most time.Duration) {
	t.Helper()
	start := time.Now()
	for name, err := range calls(context.Background(), db) {
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: error %v, want one that is ErrUnavailable", name, err)
		}
	}
	if d := time.Since(start); d > most {
		t.Errorf("the calls took %s to fail", d)
	}
}

func allWork(t *testing.T, db *DB) {
	t.Helper()
	for name, err := range calls(limited(t), db) {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Security promise 6: database gone and back, without a restart of ours.
func TestPostgreSQLGoneAndBack(t *testing.T) {
	s := pgtest.New(t, false)
	db := openTest(t, Config{Driver: "postgres", DSN: s.Database(t)}, "")
	must(t, db.CreateAccount(limited(t), romeo, nil))
	allWork(t, db)
	for range 2 {
		s.Stop(t)
		allUnavailable(t, db, hung)
		s.Start(t)
		allWork(t, db) // the first call already
	}
	// A restart that nobody noticed costs nothing.
	s.Stop(t)
	s.Start(t)
	allWork(t, db)
}

// No acknowledged message is lost and none is doubled when the server crashes under load.
func TestPostgreSQLCrashLosesNothing(t *testing.T) {
	s := pgtest.New(t, true)
	db := openTest(t, Config{Driver: "postgres", DSN: s.Database(t)}, "")
	must(t, db.CreateAccount(limited(t), romeo, nil))
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	enough := make(chan struct{})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for sender := range 4 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprintf("%d-%d", sender, n)
				if err := db.AppendOffline(context.Background(), romeo, time.Now(), chat(id)).Wait(limited(t)); err != nil {
					if !errors.Is(err, ErrUnavailable) {
						t.Errorf("append %s: %v", id, err)
					}
					continue
				}
				mu.Lock()
				acknowledged[id] = true
				if len(acknowledged) == 100 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	s.Stop(t)
	close(stop)
	wg.Wait()
	s.Start(t)
	entries, err := db.Offline(limited(t), romeo, 0, 1<<20)
	must(t, err)
	stored := map[string]int{}
	for _, e := range entries {
		body, _ := e.Stanza.Child("", "body")
		stored[body.Text()]++
	}
	for id := range acknowledged {
		if stored[id] != 1 {
			t.Errorf("acknowledged message %s is stored %d times", id, stored[id])
		}
	}
	n, err := db.CountOffline(limited(t), romeo)
	must(t, err)
	if n != len(entries) {
		t.Errorf("the spool counts %d messages and has %d", n, len(entries))
	}
}

// proxy stands between the database and us, and can misbehave.
type proxy struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu    sync.Mutex
	gate  sync.Cond // of mu
	hangs bool
	conns map[net.Conn]bool
}

func newProxy(t *testing.T, target string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{listener: l, target: target, conns: make(map[net.Conn]bool)}
	p.gate.L = &p.mu
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d, err := net.Dial("unix", p.target)
			if err != nil {
				c.Close()
				continue
			}
			p.mu.Lock()
			p.conns[c], p.conns[d] = true, true
			p.mu.Unlock()
			p.wg.Go(func() { p.copy(c, d) })
			p.wg.Go(func() { p.copy(d, c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.hang(false)
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		p.mu.Lock()
		for p.hangs {
			p.gate.Wait()
		}
		p.mu.Unlock()
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			return
		}
	}
}

// hang makes the database silent: connections stay open, nothing passes.
func (p *proxy) hang(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hangs = on
	p.gate.Broadcast()
}

// cut resets every connection.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
		delete(p.conns, c)
	}
}

func behindProxy(t *testing.T) (*DB, *proxy) {
	dsn := pgtest.Start(t)
	var dir, name string
	for _, f := range strings.Fields(dsn) {
		if v, ok := strings.CutPrefix(f, "host="); ok {
			dir = v
		}
		if v, ok := strings.CutPrefix(f, "dbname="); ok {
			name = v
		}
	}
	p := newProxy(t, filepath.Join(dir, ".s.PGSQL.5432"))
	addr := p.listener.Addr().(*net.TCPAddr)
	db := openImpatient(t, Config{Driver: "postgres",
		DSN: fmt.Sprintf("postgres://balcony@127.0.0.1:%d/%s?sslmode=disable", addr.Port, name)}, "", answer)
	must(t, db.CreateAccount(limited(t), romeo, nil))
	return db, p
}

func TestPostgreSQLThatHangs(t *testing.T) {
	db, p := behindProxy(t)
	allWork(t, db)
	p.hang(true)
	start := time.Now()
	_, err := db.VCard(context.Background(), romeo)
	wantErr(t, err, ErrUnavailable)
	if d := time.Since(start); d > 2*answer+hung/4 {
		t.Errorf("a read took %s to fail", d)
	}
	// Those that wait behind a hanging transaction do not wait for one of their own.
	start = time.Now()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := db.SetVCard(context.Background(), romeo, []byte("<v/>")); !errors.Is(err, ErrUnavailable) {
				t.Errorf("write: %v", err)
			}
		})
	}
	wg.Wait()
	if d := time.Since(start); d > 6*answer+hung/4 {
		t.Errorf("20 writes took %s to fail", d)
	}
	p.hang(false)
	p.cut()
	allWork(t, db)
}

func TestPostgreSQLConnectionsCut(t *testing.T) {
	db, p := behindProxy(t)
	for range 3 {
		p.cut()
		allWork(t, db)
	}
	// In the middle of a write: nothing of it is stored.
	before := secrets(t, db)
	op := put(t, db.writer, "half", func(q queries) error {
		p.cut()
		_, err := q.exec("INSERT INTO secret (name, value) VALUES ('other half', 'x')")
		return err
	})
	wantErr(t, op.Wait(limited(t)), ErrUnavailable)
	if after := secrets(t, db); after != before {
		t.Errorf("stored after a cut: %q, before: %q", after, before)
	}
	allWork(t, db)
}

// Another process that holds a lock makes us wait, but not for ever.
func TestPostgreSQLLockOfAnother(t *testing.T) {
	cfg := postgres(t)
	db, other := openImpatient(t, cfg, "", answer), openTest(t, cfg, "")
	must(t, db.CreateAccount(limited(t), romeo, nil))
	locked, end := make(chan struct{}), make(chan struct{})
	holder := &write{waits: true, run: func(q queries) error {
		_, err := other.accountID(q, romeo)
		close(locked)
		<-end
		return err
	}}
	must(t, other.writer.enqueue(holder, queueFull))
	<-locked
	wantErr(t, db.SetVCard(context.Background(), romeo, []byte("<v/>")), ErrUnavailable)
	close(end)
	must(t, holder.Wait(limited(t)))
	allWork(t, db)
}

// Security promise 5: with a full disk reads go on, writes are refused, nothing is corrupted, and no restart is needed afterwards.
func TestSQLiteDiskFull(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, sqliteFile(t), dir)
	ctx := limited(t)
	must(t, db.CreateAccount(ctx, romeo, nil))
	must(t, db.SetVCard(ctx, romeo, []byte("<v/>")))

	// A limit on the size of files makes every write beyond it fail like one on a full disk.
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var unlimited syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &unlimited))
	full := unlimited
	full.Cur = 512 << 10
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full))
	defer func() { must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &unlimited)) }()

	// A connection that was given up lets its log go, so some writes still find room after the first refusal.
	stored := 0
	for refused, tries := 0, 0; refused < 3; tries++ {
		if err := db.AppendOffline(ctx, romeo, time.Now(), chat(strings.Repeat("x", 20_000))).Wait(ctx); err != nil {
			wantErr(t, err, ErrUnavailable)
			refused++
		} else {
			stored, refused = stored+1, 0
		}
		if tries > 1000 {
			t.Fatal("the limit does not work")
		}
	}
	if v, err := db.VCard(ctx, romeo); err != nil || string(v) != "<v/>" {
		t.Errorf("read with a full disk: %q, %v", v, err)
	}
	entries, err := db.Offline(ctx, romeo, 0, 10_000)
	if err != nil || len(entries) != stored {
		t.Errorf("%d messages, %v; %d were acknowledged", len(entries), err, stored)
	}

	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &unlimited))
	must(t, appendAndCount(ctx, db, stored+1))
	var state string
	must(t, db.read(ctx, "test", func(q queries) error {
		_, err := q.row("PRAGMA integrity_check", nil, &state)
		return err
	}))
	if state != "ok" {
		t.Errorf("integrity check: %s", state)
	}
}

func appendAndCount(ctx context.Context, db *DB, want int) error {
	if err := db.AppendOffline(ctx, romeo, time.Now(), chat("room again")).Wait(ctx); err != nil {
		return err
	}
	n, err := db.CountOffline(ctx, romeo)
	if err == nil && n != want {
		err = fmt.Errorf("%d messages, want %d", n, want)
	}
	return err
}

// Two processes share a database: the server and balcony user.
func TestTwoProcesses(t *testing.T) {
	dir := t.TempDir()
	for name, cfg := range map[string]Config{"SQLite": sqliteFile(t), "PostgreSQL": postgres(t)} {
		t.Run(name, func(t *testing.T) {
			a, b := openTest(t, cfg, dir), openTest(t, cfg, dir)
			ctx := limited(t)
			must(t, a.CreateAccount(ctx, romeo, nil))
			var wg sync.WaitGroup
			const updates = 20
			for _, db := range []*DB{a, b} {
				wg.Go(func() {
					for range updates {
						if _, err := db.UpdateItem(ctx, romeo, jid.MustParse("juliet@capulet.example"), func(i *roster.Item) bool {
							i.Listed, i.Name = true, i.Name+"x"
							return true
						}); err != nil {
							t.Error(err)
						}
						if err := db.AppendOffline(ctx, romeo, time.Now(), chat("hi")).Wait(ctx); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			item, _, err := a.RosterItem(ctx, romeo, jid.MustParse("juliet@capulet.example"))
			must(t, err)
			if len(item.Name) != 2*updates {
				t.Errorf("%d of %d updates are left", len(item.Name), 2*updates)
			}
			n, err := b.CountOffline(ctx, romeo)
			must(t, err)
			if n != 2*updates {
				t.Errorf("%d of %d messages are there", n, 2*updates)
			}
			must(t, b.DeleteAccount(ctx, romeo))
			if exists, err := a.AccountExists(ctx, romeo); err != nil || exists {
				t.Errorf("after the other deleted the account: %t, %v", exists, err)
			}
		})
	}
}

func TestSQLiteSettings(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "a folder with ? and %41 & #")
	db := openTest(t, sqliteFile(t), dir)
	ctx := limited(t)
	check := func(q queries, pragma, want string) error {
		var got string
		if _, err := q.row("PRAGMA "+pragma, nil, &got); err != nil {
			return err
		}
		if got != want {
			t.Errorf("%s is %s, want %s", pragma, got, want)
		}
		return nil
	}
	must(t, db.write(ctx, func(q queries) error {
		return errors.Join(check(q, "journal_mode", "wal"), check(q, "synchronous", "2"), check(q, "foreign_keys", "1"), check(q, "busy_timeout", "5000"))
	}))
	must(t, db.read(ctx, "test", func(q queries) error {
		return errors.Join(check(q, "journal_mode", "wal"), check(q, "query_only", "1"), check(q, "busy_timeout", "5000"))
	}))
	for name, want := range map[string]os.FileMode{"": os.ModeDir | 0o700, "balcony.db": 0o600, "balcony.db-wal": 0o600, "balcony.db-shm": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		if info.Mode() != want {
			t.Errorf("mode of %q is %s, want %s", name, info.Mode(), want)
		}
	}
}

func TestReadersCannotWrite(t *testing.T) {
	for name, cfg := range map[string]Config{"SQLite": sqliteFile(t), "PostgreSQL": postgres(t)} {
		t.Run(name, func(t *testing.T) {
			db := openTest(t, cfg, t.TempDir())
			if err := db.read(limited(t), "test", func(q queries) error {
				_, err := q.exec("DELETE FROM secret")
				return err
			}); err == nil {
				t.Error("a reader deleted rows")
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	log := discard()
	folder := t.TempDir()
	notADatabase := filepath.Join(folder, "text")
	must(t, os.WriteFile(notADatabase, []byte(strings.Repeat("this is no database\n", 100)), 0o600))
	for _, c := range []struct {
		name, says string
		cfg        Config
	}{
		{"driver", `"mysql"`, Config{Driver: "mysql"}},
		{"no driver", `""`, Config{}},
		{"sqlite parameters", "path of a file", Config{Driver: "sqlite", DSN: "file:x.db?mode=ro"}},
		{"folder", "open database", Config{Driver: "sqlite", DSN: folder}},
		{"no database", "not a database", Config{Driver: "sqlite", DSN: notADatabase}},
		{"bad dsn", "postgres", Config{Driver: "postgres", DSN: "port=x"}},
		{"bad URL", "invalid URL escape", Config{Driver: "postgres", DSN: "postgres://x:topsecret%zz@localhost/x"}},
		{"bad quotes", "dsn", Config{Driver: "postgres", DSN: "password='topsecret"}},
		{"nobody there", "unavailable", Config{Driver: "postgres", DSN: "host=" + folder + " user=x dbname=x password=topsecret sslmode=disable"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			db, err := open(limited(t), c.cfg, folder, DefaultLimits(), log, answer)
			if err == nil {
				must(t, db.Close())
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %q does not say %q", err, c.says)
			}
			if strings.Contains(err.Error(), "topsecret") {
				t.Errorf("error %q has the password", err)
			}
		})
	}
}

func TestImpatientConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	c, err := impatient{10 * time.Millisecond}.Dial("tcp", l.Addr().String())
	must(t, err)
	defer c.Close()
	var ne net.Error
	if _, err := c.Read(make([]byte, 1)); !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("read: %v", err)
	}
	_, err = io.Copy(c, strings.NewReader(strings.Repeat("x", 64<<20))) // nobody reads it
	if !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("write: %v", err)
	}
}
