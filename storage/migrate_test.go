package storage

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"balcony/roster"
	"balcony/storage/storagetest/pgtest"

	"mellium.im/xmpp/jid"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// fixtures are databases of earlier schemas: the statements that make them again, as the programs that wrote them left them.
//
//go:embed testdata/version1-*.sql
var fixtures embed.FS

// engines are the two databases for tests of migrations, empty.
func engines(t *testing.T, test func(t *testing.T, cfg Config, dir string, e *engine)) {
	t.Run("sqlite", func(t *testing.T) {
		dir := t.TempDir()
		e, err := openSQLite(limited(t), "", dir)
		must(t, err)
		defer func() { must(t, e.close()) }()
		test(t, DefaultConfig(), dir, e)
	})
	t.Run("postgres", func(t *testing.T) {
		cfg := Config{Driver: "postgres", DSN: pgtest.Start(t)}
		e, err := openPostgres(cfg.DSN, answer)
		must(t, err)
		defer func() { must(t, e.close()) }()
		test(t, cfg, "", e)
	})
}

func TestMigrationFromVersion1(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config, dir string, e *engine) {
		ctx := limited(t)
		text, err := fixtures.ReadFile("testdata/version1-" + e.name + ".sql")
		must(t, err)
		_, err = e.writes.ExecContext(ctx, string(text))
		must(t, err)

		db := openTest(t, cfg, dir)
		must(t, db.Ping(ctx))
		j := jid.MustParse("romeo@localhost")
		v, err := db.Verifiers(ctx, j)
		must(t, err)
		if len(v) != 1 || v[0].Mechanism != "SCRAM-SHA-256" || v[0].Iterations != 10000 || !bytes.Equal(v[0].Salt, []byte{0, 1, 0xfe, 0xff}) {
			t.Errorf("verifiers: %+v", v)
		}
		disabled, err := db.AccountDisabled(ctx, jid.MustParse("tybalt@localhost"))
		must(t, err)
		if !disabled {
			t.Error("a disabled account is enabled")
		}
		secret, err := db.Secret(ctx, "fixture", 4)
		must(t, err)
		if !bytes.Equal(secret, []byte{0xde, 0xad, 0xbe, 0xef}) {
			t.Errorf("secret: %x", secret)
		}
		// The later tables have what CreateAccount would have put into them.
		for _, name := range []string{"romeo", "tybalt"} {
			j := jid.MustParse(name + "@localhost")
			_, v0, err := db.Roster(ctx, j)
			must(t, err)
			if v0 <= 0 || v0 >= 1<<52 {
				t.Errorf("roster of %s is at version %d", j, v0)
			}
			if _, err := db.UpdateItem(ctx, j, jid.MustParse("juliet@localhost"), func(i *roster.Item) bool { i.Listed = true; return true }); err != nil {
				t.Error(err)
			}
			items, _, ok, err := db.RosterSince(ctx, j, v0)
			if err != nil || !ok || len(items) != 1 {
				t.Errorf("changes of %s: %v, %t, %v", j, items, ok, err)
			}
			must(t, db.AppendOffline(ctx, j, time.Now(), chat("hi")).Wait(ctx))
		}
		// Ids of that time are not given again.
		must(t, db.DeleteAccount(ctx, jid.MustParse("tybalt@localhost")))
		must(t, db.CreateAccount(ctx, jid.MustParse("mercutio@localhost"), nil))
		var id int64
		must(t, db.read(ctx, "test", func(q queries) error {
			_, err := q.row("SELECT id FROM account WHERE localpart = 'mercutio'", nil, &id)
			return err
		}))
		if id <= 3 {
			t.Errorf("id %d was given again", id)
		}
	})
}

// Every migration is applied to a database that all earlier versions have left, one step at a time.
func TestMigrationsOneByOne(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config, dir string, e *engine) {
		names, err := fs.Glob(migrations, "migrations/*.sql")
		must(t, err)
		older := fstest.MapFS{}
		for _, name := range names {
			b, err := fs.ReadFile(migrations, name)
			must(t, err)
			older[name] = &fstest.MapFile{Data: b}
			must(t, migrateFrom(limited(t), e, older, time.Now()))
			must(t, migrateFrom(limited(t), e, older, time.Now())) // nothing to do
		}
		db := openTest(t, cfg, dir)
		must(t, db.CreateAccount(limited(t), romeo, nil))
		allWork(t, db)
	})
}

func TestNewerDatabaseIsRefused(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config, dir string, e *engine) {
		must(t, migrate(limited(t), e, time.Now()))
		_, err := e.writes.ExecContext(limited(t), "INSERT INTO migration (name, applied) VALUES ('9999_from_the_future.sql', 0)")
		must(t, err)
		db, err := open(limited(t), cfg, dir, DefaultLimits(), discard(), answer)
		if err == nil {
			must(t, db.Close())
			t.Fatal("no error")
		}
		for _, word := range []string{"newer version", "9999_from_the_future.sql"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("error %q does not say %q", err, word)
			}
		}
	})
}

func TestFailedMigrationLeavesNothing(t *testing.T) {
	engines(t, func(t *testing.T, _ Config, _ string, e *engine) {
		files := fstest.MapFS{
			"migrations/0001_good.sql": {Data: []byte("CREATE TABLE good (a BIGINT);")},
			"migrations/0002_bad.sql":  {Data: []byte("CREATE TABLE half (a BIGINT); INSERT INTO good (a) VALUES (1); INSERT INTO missing (a) VALUES (1);")},
		}
		err := migrateFrom(limited(t), e, files, time.Now())
		if err == nil || !strings.Contains(err.Error(), "0002_bad.sql") {
			t.Fatalf("error %v", err)
		}
		var n int
		must(t, e.writes.QueryRowContext(limited(t), "SELECT count(*) FROM good").Scan(&n))
		if n != 0 {
			t.Error("half of a migration is there")
		}
		if e.writes.QueryRowContext(limited(t), "SELECT count(*) FROM half").Scan(&n) == nil {
			t.Error("the table of a failed migration is there")
		}
		files["migrations/0002_bad.sql"].Data = []byte("CREATE TABLE half (a BIGINT);")
		must(t, migrateFrom(limited(t), e, files, time.Now()))
	})
}

func TestProcessesThatStartAtOnce(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config, dir string, _ *engine) {
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				db, err := Open(limited(t), cfg, dir, DefaultLimits(), discard())
				if err != nil {
					t.Error(err)
					return
				}
				_, err = db.Secret(limited(t), "shared", 8)
				if err := errors.Join(err, db.Close()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// Every table belongs to an account and goes with it, but for those named here.
func TestEveryTableBelongsToAnAccount(t *testing.T) {
	// A message may belong to two accounts: the entries do, and what has no entry is deleted with the last.
	alone := map[string]bool{"account": true, "migration": true, "secret": true, "message": true, "archive_clock": true, "sqlite_sequence": true,
		"removed_upload": true,
		// The words of messages, which go with them: TestDeletionEmptiesEveryTable.
		"archive_text": true, "archive_text_data": true, "archive_text_idx": true, "archive_text_docsize": true, "archive_text_config": true, "archive_search": true}
	dir := t.TempDir()
	openTest(t, sqliteFile(t), dir)
	raw, err := sql.Open("sqlite", filepath.Join(dir, "balcony.db"))
	must(t, err)
	defer raw.Close()
	rows, err := raw.QueryContext(context.Background(), `SELECT m.name, coalesce(f."table", ''), coalesce(f."from", ''), coalesce(f.on_delete, '')
		FROM sqlite_master m LEFT JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table'`)
	must(t, err)
	defer rows.Close()
	n := 0
	for rows.Next() {
		var table, parent, column, rule string
		must(t, rows.Scan(&table, &parent, &column, &rule))
		n++
		if parent == "pubsub_node" && column == "node_id" && rule == "CASCADE" {
			continue // goes with its node, which goes with the account
		}
		if !alone[table] && (parent != "account" || column != "account_id" || rule != "CASCADE") {
			t.Errorf("table %s: account_id %q refers to %q, on delete %q", table, column, parent, rule)
		}
	}
	must(t, rows.Err())
	if n < 10 {
		t.Errorf("%d tables", n)
	}
}
