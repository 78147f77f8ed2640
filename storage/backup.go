package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
)

// ErrNotEmbedded says that a database has tools of its own for copies.
var ErrNotEmbedded = errors.New("only SQLite databases are copied")

// Backup writes a copy of an SQLite database to the new file to: one state of it, while the server that uses it goes on. ErrNotEmbedded for
// another database.
func Backup(ctx context.Context, cfg Config, dataDir, to string) error {
	if cfg.Driver != "sqlite" || cfg.DSN == ":memory:" {
		return ErrNotEmbedded
	}
	from := cfg.DSN
	if from == "" {
		from = filepath.Join(dataDir, "balcony.db")
	}
	if err := backup(ctx, from, to); err != nil {
		return fmt.Errorf("copy database: %w", err)
	}
	return nil
}

func backup(ctx context.Context, from, to string) error {
	if _, err := os.Stat(from); err != nil { // SQLite would make one
		return err
	}
	from, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	// With the mode of the database; SQLite wants a file that is not there or empty.
	f, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	pool := openPool((&url.URL{Scheme: "file", Path: from}).String()+"?_busy_timeout="+strconv.FormatInt(sqliteBusy.Milliseconds(), 10), 1)
	err = vacuum(ctx, pool, to)
	return errors.Join(err, pool.Close(), f.Sync(), f.Close())
}

func vacuum(ctx context.Context, pool *sql.DB, to string) error {
	_, err := pool.ExecContext(ctx, "VACUUM INTO $1", to)
	return err
}
