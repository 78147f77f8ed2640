// Package storage keeps what the server must not lose, in SQLite or PostgreSQL. One type, DB, satisfies the Store of every consumer;
// each consumer has a file of its own here. Only this package speaks SQL.
package storage

import (
	"context"
	"errors"
	"log/slog"
	"time"
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

// Limits bound what one account can make the database hold.
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
	}
}

// DB is the database. All methods may be called from any goroutine, none with a lock held.
type DB struct{}

// Open opens the database, creates what is missing (the data folder with mode 0700, the file with mode 0600) and brings the schema up
// to date. A schema newer than this program is refused.
func Open(ctx context.Context, cfg Config, dataDir string, limits Limits, log *slog.Logger) (*DB, error) {
	return nil, errors.ErrUnsupported
}

// Close writes what is waiting, or fails it where it cannot be written, and closes the database. Every commit has ended when it
// returns.
func (db *DB) Close() error { return errors.ErrUnsupported }

// Ping reports whether the database can be read and written now.
func (db *DB) Ping(ctx context.Context) error { return errors.ErrUnsupported }

// Observe makes f see every read (op is the method's name) and every transaction of the writer (op is "commit") with how long it took
// and the database's error. f runs on the goroutine of the read or of the writer, so it must not block. One observer at a time; nil removes it.
func (db *DB) Observe(f func(op string, d time.Duration, err error)) {}

// Stats are figures for monitoring.
type Stats struct {
	QueuedWrites int // writes that wait for their transaction
	QueuedBytes  int // their size
}

// Stats returns the present figures.
func (db *DB) Stats() Stats { return Stats{} }

// Secret returns the random secret of that name, which is made with size bytes when it is asked for the first time and kept. All
// processes on one database get the same.
func (db *DB) Secret(ctx context.Context, name string, size int) ([]byte, error) {
	return nil, errors.ErrUnsupported
}
