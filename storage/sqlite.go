package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	sqliteBusy    = 5 * time.Second // chosen: another process (balcony user add) holds the write lock for some milliseconds
	sqliteCache   = "-8000"         // KiB of pages that the writer keeps; chosen: the inner pages of all indexes of some million rows
	sqliteReaders = 4               // chosen: reads are short and in the page cache; more only help with more processors
)

// openSQLite opens the database in the file at path, or in memory for ":memory:".
func openSQLite(ctx context.Context, path, dataDir string) (*engine, error) {
	e := &engine{
		name:         "sqlite",
		begin:        "BEGIN IMMEDIATE",
		nodesBetween: "n.service = $1 AND n.id > $3 AND n.id < $4",
		lockAccount:  "SELECT id FROM account WHERE domain = $1 AND localpart = $2", // the transaction is the only one that writes
		usePeer:      " INDEXED BY archive_entry_peer",                              // without statistics it takes the primary key, which may pass a whole archive for one contact
		removeUnsent: "DELETE FROM outgoing WHERE id IN (SELECT value FROM json_each($1))",
		useResource:  " INDEXED BY archive_entry_resource",
		useMessage:   " INDEXED BY archive_entry_message",
		words: strings.NewReplacer(
			"{{id}}", "INTEGER PRIMARY KEY AUTOINCREMENT",
			"{{key}}", "INTEGER PRIMARY KEY",
			"{{text}}", "TEXT",
			"{{bytes}}", "BLOB",
			"{{nothing}}", "X''",
			"{{random}}", "abs(random() % 4503599627370496)", // 2^52, see firstVersion
			"{{clustered}}", "WITHOUT ROWID",
			// Without positions and without the text. What is no word comes in as none: the tokenizer only cuts at spaces.
			"{{archive_text}}", `CREATE VIRTUAL TABLE archive_text USING fts5(words, content='', contentless_delete=1, detail=none, tokenize="ascii tokenchars '_'");`),
		text: textIndex{
			insert: "INSERT INTO archive_text (rowid, words) VALUES ($1, $2)",
			clear:  "INSERT INTO archive_text (archive_text) VALUES ('delete-all')",
			match:  "t.archive_text MATCH $1",
			word:   `"%s"`,
			begins: `"%s" *`,
			and:    " AND ",
		},
		// A context that can end costs the driver a goroutine for every statement. There is no server to wait for: statements take
		// microseconds, and busy_timeout bounds the wait for a lock.
		deadline: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithoutCancel(ctx), func() {}
		},
		unavailable: sqliteUnavailable,
	}
	if path == ":memory:" {
		e.keepConnection = true
		e.writes = openPool(":memory:?_txlock=immediate&_foreign_keys=1", 1)
		e.migrates = e.writes
		return e, nil
	}
	if strings.HasPrefix(path, "file:") || strings.Contains(path, "?") {
		return nil, fmt.Errorf("sqlite: dsn %q: must be the path of a file", path)
	}
	if path == "" {
		path = filepath.Join(dataDir, "balcony.db")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	// SQLite gives the -wal and -shm files the mode of the database file. A file that is there is not opened: closing it would end the
	// POSIX locks that this process holds on it.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	// A commit needs the data and the size of the log on disk, not its time stamps. Without the call (other systems) it is fsync.
	if _, err := sqlite.Fdatasync(true); err != nil && !errors.Is(err, sqlite.ErrFdatasyncUnavailable) {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	dsn := (&url.URL{Scheme: "file", Path: path}).String() + "?_foreign_keys=1&_busy_timeout=" + strconv.FormatInt(sqliteBusy.Milliseconds(), 10)
	// synchronous=FULL syncs the log at every commit; NORMAL would lose acknowledged stanzas with the power.
	e.writes = openPool(dsn+"&_txlock=immediate&_synchronous=FULL&_pragma=cache_size("+sqliteCache+")", 1)
	e.migrates = e.writes
	e.reads = openPool(dsn+"&_query_only=1", sqliteReaders)
	if err := useWAL(ctx, e.writes); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite: %s: %w", path, err), e.close())
	}
	return e, nil
}

// useWAL makes the file keep a write-ahead log, which lasts. SQLite does not wait while another process does the same.
func useWAL(ctx context.Context, pool *sql.DB) error {
	ctx, cancel := context.WithTimeout(ctx, sqliteBusy)
	defer cancel()
	for {
		var mode string
		err := pool.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode)
		if err == nil && mode != "wal" {
			return fmt.Errorf("journal mode is %s, it must be wal", mode)
		}
		var e *sqlite.Error
		if err == nil || !errors.As(err, &e) || e.Code()&0xff != sqlite3.SQLITE_BUSY {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func openPool(dsn string, connections int) *sql.DB {
	pool, err := sql.Open("sqlite", dsn)
	if err != nil {
		panic("storage: " + err.Error()) // the driver is linked in, and it opens nothing yet
	}
	pool.SetMaxOpenConns(connections)
	pool.SetMaxIdleConns(connections)
	return pool
}

func sqliteUnavailable(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR,
		sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOTADB:
		return true
	}
	return false
}
