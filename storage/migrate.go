package storage

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// migrations are the numbered steps of the schema. A file that was released is never changed.
//
//go:embed migrations/*.sql
var migrations embed.FS

// migrate applies the migrations that the database does not have yet, in the order of their names, each in a transaction of its own
// together with its name in the table migration. A database that has one which this program does not know is refused: it was written by a
// newer version.
func migrate(ctx context.Context, e *engine, now time.Time) error {
	return migrateFrom(ctx, e, migrations, now)
}

func migrateFrom(ctx context.Context, e *engine, files fs.FS, now time.Time) error {
	names, err := fs.Glob(files, "migrations/*.sql") // sorted
	if err != nil {
		return fmt.Errorf("list migrations: %w", err)
	}
	for {
		more, err := migrateNext(ctx, e, files, names, now)
		if err != nil || !more {
			return e.wrap(err)
		}
	}
}

// migrateNext applies the first migration that is missing; more is false when there was none.
func migrateNext(ctx context.Context, e *engine, files fs.FS, names []string, now time.Time) (more bool, err error) {
	tx, err := e.migrates.BeginTx(ctx, nil)
	if err != nil {
		return false, fmt.Errorf("begin migration: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreDone(tx.Rollback()))
		}
	}()
	if e.migrationLock != "" {
		if _, err := tx.ExecContext(ctx, e.migrationLock); err != nil {
			return false, fmt.Errorf("lock for migration: %w", err)
		}
	}
	if _, err := tx.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS migration (name TEXT NOT NULL PRIMARY KEY, applied BIGINT NOT NULL)"); err != nil {
		return false, fmt.Errorf("create table migration: %w", err)
	}
	applied, err := appliedMigrations(ctx, tx)
	if err != nil {
		return false, fmt.Errorf("read applied migrations: %w", err)
	}
	for _, name := range applied {
		if !slices.Contains(names, "migrations/"+name) {
			return false, fmt.Errorf("the database was written by a newer version of balcony (migration %q); this version cannot use it", name)
		}
	}
	for _, path := range names {
		name := path[len("migrations/"):]
		if slices.Contains(applied, name) {
			continue
		}
		text, err := fs.ReadFile(files, path)
		if err != nil {
			return false, fmt.Errorf("migration %s: %w", name, err)
		}
		if _, err := tx.ExecContext(ctx, e.words.Replace(string(text))); err != nil {
			return false, fmt.Errorf("migration %s: %w", name, err)
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO migration (name, applied) VALUES ($1, $2)", name, now.UnixMicro()); err != nil {
			return false, fmt.Errorf("migration %s: %w", name, err)
		}
		if err := tx.Commit(); err != nil {
			return false, fmt.Errorf("migration %s: commit: %w", name, err)
		}
		return true, nil
	}
	return false, tx.Commit()
}

func appliedMigrations(ctx context.Context, tx *sql.Tx) (names []string, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT name FROM migration ORDER BY name")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}
