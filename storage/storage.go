// Package storage keeps what the server must not lose, in SQLite or PostgreSQL. One type, DB, satisfies the Store of every consumer;
// each consumer has a file of its own here. Only this package speaks SQL.
package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/ext/offline"

	"mellium.im/xmpp/jid"
)

// Errors that every method of DB may return, wrapped with what was being done.
var (
	// ErrUnavailable says that the database could not be reached or did not answer in time. The call may be repeated later.
	ErrUnavailable = errors.New("database is unavailable")
	// ErrOverloaded says that more waits to be written than the queue may hold.
	ErrOverloaded = errors.New("too much waits to be written")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("database is closed")
)

// Config says where the data are kept.
type Config struct {
	// Driver is the database: "sqlite" (embedded, one file) or "postgres".
	Driver string `toml:"driver"`
	// DSN names the database. sqlite: the path of its file; empty = balcony.db in the data folder; ":memory:" = nothing is kept.
	// postgres: a connection string of lib/pq, for example "host=/run/postgresql dbname=balcony" or "postgres://balcony@db/balcony".
	DSN string `toml:"dsn"`
}

// DefaultConfig is SQLite in the data folder.
func DefaultConfig() Config { return Config{Driver: "sqlite"} }

// Limits bound what one account can make the database hold. math.MaxInt is no limit.
type Limits struct {
	RosterItems     int // listed roster items
	RosterRequests  int // subscription requests that wait for the owner's answer
	RequestBytes    int // size of one of these requests
	RosterRemoved   int // removed items that are remembered for roster versioning (RFC 6121 §2.6)
	OfflineMessages int // messages in the offline spool
	OfflineBytes    int // their size altogether
	PrivateElements int // elements in private XML storage
	PrivateBytes    int // their size altogether
	BlockList       int // entries in the block list
	TokenClients    int // clients that have a token to log in with (XEP-0484)

	PubSubNodes            int // nodes of an account, and nodes of a service that one account owns (XEP-0060)
	PubSubServiceNodes     int // nodes of a service
	PubSubItems            int // items of a node
	PubSubBytes            int // size of all nodes of an account, with items and configurations, and of one node of a service
	PubSubAffiliations     int // affiliations at a node
	PubSubSubscriptions    int // subscriptions to a node
	PubSubOwnSubscriptions int // subscriptions of one account to a node, with its resources

	PushRegistrations int // push services that hear of an account's messages; a new one replaces the oldest
}

// DefaultLimits are the limits of a server with people as its users.
func DefaultLimits() Limits {
	return Limits{
		RosterItems:     5000,
		RosterRequests:  1000,    // chosen: strangers fill it; far more than a person can answer, still a short read at login
		RequestBytes:    8 << 10, // chosen: a presence with a nickname, a caps hash and a long status; 1,000 of them are 8 MiB
		RosterRemoved:   1000,    // chosen: a client that was away while more items left gets the whole roster, which is no loss
		OfflineMessages: 1000,
		OfflineBytes:    16 << 20, // chosen: 1,000 messages of 16 KiB; without it 1,000 stanzas of 256 KiB would be 256 MiB an account
		PrivateElements: 100,      // chosen: clients keep fewer than ten
		PrivateBytes:    1 << 20,  // chosen: some thousand bookmarks
		BlockList:       1000,     // chosen: kept in memory while the account is online, and compared with each stanza
		TokenClients:    50,       // chosen: more than a person has devices; web clients leave one behind each time their storage is cleared

		PubSubNodes:            500,      // chosen: clients use some dozens, and an OMEMO client one for each device (XEP-0384 before 0.4)
		PubSubServiceNodes:     10000,    // chosen: read whole for a list of nodes; some MB
		PubSubItems:            10000,    // chosen: more bookmarks, or chats with a displayed marker, than a person has
		PubSubBytes:            32 << 20, // chosen: a large avatar, hundreds of bundles, and years of bookmarks
		PubSubAffiliations:     1000,     // chosen: read whole where a notification is sent
		PubSubSubscriptions:    10000,    // chosen: the same
		PubSubOwnSubscriptions: 20,       // chosen: as many as an account has resources

		PushRegistrations: 10, // chosen: phones and tablets with their apps; the others are of apps that are gone
	}
}

// DB is the database. All methods may be called from any goroutine, none with a lock held. A call that the database does not answer
// ends within some seconds with ErrUnavailable. Methods that change an account's data return auth.ErrNoAccount when there is no such
// account; those that read them return what an account without data has.
type DB struct {
	e        *engine
	limits   Limits
	log      *slog.Logger
	reader   prepared
	pager    prepared // of archives
	searcher prepared // the same, for searches
	writer   *writer
	noted    noted
	spools   *xmpp.Cache[offline.State] // bytes; those of which nothing waits in the archive but in their gaps
	changes  *changes                   // of spools
	ids      archiveIDs
	queries  archiveQueries
	searches searchQueries
	tagged   string
	search   search
	closed   atomic.Bool
	observer atomic.Pointer[func(string, time.Duration, error)]

	skew       atomic.Int64 // microseconds by which the order of a message may be greater than its stamp
	storedSkew atomic.Int64 // what the database is known to have of it
}

// Open opens the database, creates what is missing (the data folder with mode 0700, the file with mode 0600) and brings the schema up
// to date. A schema newer than this program is refused.
func Open(ctx context.Context, cfg Config, dataDir string, limits Limits, log *slog.Logger) (*DB, error) {
	return open(ctx, cfg, dataDir, limits, log, postgresAnswer)
}

func open(ctx context.Context, cfg Config, dataDir string, limits Limits, log *slog.Logger, timeout time.Duration) (*DB, error) {
	var e *engine
	var err error
	switch cfg.Driver {
	case "sqlite":
		if cfg.DSN != ":memory:" {
			if err := os.MkdirAll(dataDir, 0o700); err != nil {
				return nil, fmt.Errorf("create data folder: %w", err)
			}
		}
		e, err = openSQLite(ctx, cfg.DSN, dataDir)
	case "postgres":
		e, err = openPostgres(cfg.DSN, timeout)
	default:
		return nil, fmt.Errorf("storage driver %q: must be sqlite or postgres", cfg.Driver)
	}
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if cfg.Driver == "postgres" {
		var warning string
		if warning, err = checkPostgres(ctx, e); warning != "" {
			log.Warn("postgresql is not durable", "reason", warning)
		}
	}
	if err == nil {
		err = migrate(ctx, e, time.Now())
	}
	if err == nil && e.migrates != e.writes {
		err = e.migrates.Close()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", e.wrap(err)), e.close())
	}
	db := &DB{e: e, limits: limits, log: log, reader: prepared{pool: e.reads}, pager: prepared{pool: e.reads}, searcher: prepared{pool: e.reads},
		spools: xmpp.NewCache[offline.State](maxSpools), changes: newChanges()}
	if e.pages != nil {
		db.pager.pool = e.pages
	}
	if e.searches != nil {
		db.searcher.pool = e.searches
	}
	db.writer = newWriter(e, log, db.observe, timeout)
	if err := db.openArchive(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", err), db.Close())
	}
	return db, nil
}

// Close writes what is waiting, or fails it where it cannot be written, and closes the database. Every commit has ended when it
// returns. Only the first call does anything.
func (db *DB) Close() error {
	if db.closed.Swap(true) {
		return nil
	}
	db.settleNoted()
	db.writer.close()
	return db.e.close()
}

// Ping reports whether the database can be read and written now.
func (db *DB) Ping(ctx context.Context) error {
	err := db.write(ctx, func(q queries) error {
		var one int
		_, err := q.row("SELECT 1", nil, &one)
		return err
	})
	if err != nil {
		return fmt.Errorf("write to database: %w", err)
	}
	err = db.read(ctx, "Ping", func(q queries) error {
		var n int
		_, err := q.row("SELECT count(*) FROM migration", nil, &n)
		return err
	})
	if err != nil {
		return fmt.Errorf("read from database: %w", err)
	}
	return nil
}

// Observe makes f see every read (op is the method's name) and every transaction of the writer (op is "commit") with how long it took
// and the database's error. f runs on the goroutine of the read or of the writer, so it must not block. One observer at a time; nil
// removes it.
func (db *DB) Observe(f func(op string, d time.Duration, err error)) {
	if f == nil {
		db.observer.Store(nil)
		return
	}
	db.observer.Store(&f)
}

func (db *DB) observe(op string, start time.Time, err error) {
	if f := db.observer.Load(); f != nil {
		(*f)(op, time.Since(start), err)
	}
}

// Stats are figures for monitoring.
type Stats struct {
	QueuedWrites int // writes that wait for their transaction
	QueuedBytes  int // their size
}

// Stats returns the present figures.
func (db *DB) Stats() Stats { return db.writer.stats() }

// Secret returns the random secret of that name, which is made with size bytes when it is asked for the first time and kept. All
// processes on one database get the same.
func (db *DB) Secret(ctx context.Context, name string, size int) ([]byte, error) {
	fresh := make([]byte, size)
	rand.Read(fresh) // never fails
	var value []byte
	err := db.write(ctx, func(q queries) error {
		if _, err := q.exec("INSERT INTO secret (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING", name, fresh); err != nil {
			return err
		}
		_, err := q.row("SELECT value FROM secret WHERE name = $1", []any{name}, &value)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	if len(value) != size {
		return nil, fmt.Errorf("secret %s: has %d bytes, not %d", name, len(value), size)
	}
	return value, nil
}

// read runs f on a connection of the readers. One statement sees one state of the database; f should not use two.
func (db *DB) read(ctx context.Context, op string, f func(queries) error) error {
	return db.readWith(ctx, op, &db.reader, f)
}

func (db *DB) readWith(ctx context.Context, op string, p *prepared, f func(queries) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if db.closed.Load() {
		return ErrClosed
	}
	start := time.Now()
	var err error
	if db.e.reads == nil {
		err = db.writer.do(ctx, 0, f)
	} else {
		short, cancel := db.e.deadline(ctx)
		err = db.e.wrap(f(queries{ctx: short, prepare: p.prepare}))
		cancel()
	}
	db.observe(op, start, err)
	return err
}

// write runs f in a transaction of the writer and returns when it is synced. f may run up to three times, when another write of the same
// transaction has failed.
func (db *DB) write(ctx context.Context, f func(queries) error) error {
	return db.writer.do(ctx, 0, f)
}

// accountID locks the account for the rest of the transaction.
func (db *DB) accountID(q queries, account jid.JID) (id int64, err error) {
	found, err := q.row(db.e.lockAccount, []any{account.Domainpart(), account.Localpart()}, &id)
	if err == nil && !found {
		err = refuse(auth.ErrNoAccount)
	}
	return id, err
}
