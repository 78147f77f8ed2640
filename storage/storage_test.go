package storage_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"balcony/storage"
	"balcony/storage/storagetest"
	"balcony/storage/storagetest/pgtest"
	"balcony/xmpp"
	"balcony/xmpp/ext/mam"

	"go.uber.org/goleak"
	"mellium.im/xmpp/jid"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(crashEnv); spec != "" {
		fmt.Fprintln(os.Stderr, appendUntilKilled(spec))
		os.Exit(1)
	}
	code := pgtest.Main(m)
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// open opens a database that is closed at the end of the test.
func open(t testing.TB, cfg storage.Config, dir string, limits storage.Limits) *storage.DB {
	t.Helper()
	db, err := storage.Open(context.Background(), cfg, dir, limits, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestSuite(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  func(*testing.T) storage.Config
	}{
		{"SQLiteFile", func(*testing.T) storage.Config { return storage.DefaultConfig() }},
		{"SQLiteMemory", func(*testing.T) storage.Config { return storage.Config{Driver: "sqlite", DSN: ":memory:"} }},
		{"PostgreSQL", func(t *testing.T) storage.Config { return storage.Config{Driver: "postgres", DSN: pgtest.Start(t)} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			storagetest.Run(t, func(t *testing.T) *storage.DB { return open(t, c.cfg(t), t.TempDir(), storagetest.Limits) })
		})
	}
}

// Security promise 22, seen from below: an account that has something in every store has a row in every table, and its deletion leaves
// none. A table that storagetest.Fill does not reach fails the test.
func TestDeletionEmptiesEveryTable(t *testing.T) {
	dir := t.TempDir()
	dsn := pgtest.Start(t)
	for _, c := range []struct {
		name, driver, raw, tables string
		cfg                       storage.Config
	}{
		{"SQLite", "sqlite", filepath.Join(dir, "balcony.db"),
			"SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'", storage.DefaultConfig()},
		{"PostgreSQL", "postgres", dsn,
			"SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'", storage.Config{Driver: "postgres", DSN: dsn}},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := open(t, c.cfg, dir, storage.DefaultLimits())
			raw, err := sql.Open(c.driver, c.raw)
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			count := func() map[string]int {
				rows, err := raw.Query(c.tables)
				if err != nil {
					t.Fatal(err)
				}
				defer rows.Close()
				n := map[string]int{}
				for rows.Next() {
					var name string
					if err := rows.Scan(&name); err != nil {
						t.Fatal(err)
					}
					n[name] = 0
				}
				if err := rows.Err(); err != nil {
					t.Fatal(err)
				}
				for name := range n {
					var rows int
					if err := raw.QueryRow("SELECT count(*) FROM " + name).Scan(&rows); err != nil {
						t.Fatal(err)
					}
					n[name] = rows
				}
				delete(n, "migration") // these are the server's
				delete(n, "secret")
				delete(n, "removed_upload") // file names to remove, of nobody
				delete(n, "archive_clock")
				delete(n, "archive_search")
				for _, part := range []string{"config", "data", "idx"} { // of SQLite's index, where it has what it does not find any more until it merges
					delete(n, "archive_text_"+part)
				}
				return n
			}
			account := jid.MustParse("romeo@montague.example")
			if err := db.SetSearch(context.Background(), []string{account.Domainpart()}); err != nil {
				t.Fatal(err)
			}
			storagetest.Fill(t, db, account)
			if _, err := db.IndexArchive(context.Background(), account.Domainpart(), db.LastOrder(), 100); err != nil {
				t.Fatal(err)
			}
			full := count()
			if len(full) < 9 {
				t.Fatalf("tables: %v", full)
			}
			for table, n := range full {
				if n == 0 {
					t.Errorf("storagetest.Fill puts nothing into table %s", table)
				}
			}
			if err := db.DeleteAccount(context.Background(), account); err != nil {
				t.Fatal(err)
			}
			for table, n := range count() {
				if n != 0 {
					t.Errorf("table %s still has %d rows of the account", table, n)
				}
			}
		})
	}
}

func TestNoLimits(t *testing.T) {
	const none = math.MaxInt
	limits := storage.Limits{RosterItems: none, RosterRequests: none, RequestBytes: none, RosterRemoved: none, OfflineMessages: none,
		OfflineBytes: none, PrivateElements: none, PrivateBytes: none, BlockList: none, PushRegistrations: none, PubSubNodes: none, PubSubServiceNodes: none, PubSubItems: none,
		PubSubBytes: none, PubSubAffiliations: none, PubSubSubscriptions: none, PubSubOwnSubscriptions: none}
	for name, cfg := range map[string]storage.Config{"SQLite": storage.DefaultConfig(), "PostgreSQL": {Driver: "postgres", DSN: pgtest.Start(t)}} {
		t.Run(name, func(t *testing.T) {
			storagetest.Fill(t, open(t, cfg, t.TempDir(), limits), jid.MustParse("romeo@montague.example"))
		})
	}
}

// A process that ends before everything is indexed leaves no hole: the next one offers no search until it has done so.
func TestSearchAfterRestart(t *testing.T) {
	dir := t.TempDir()
	for name, cfg := range map[string]storage.Config{"SQLite": storage.DefaultConfig(), "PostgreSQL": {Driver: "postgres", DSN: pgtest.Start(t)}} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			account, peer := jid.MustParse("romeo@montague.example"), jid.MustParse("juliet@capulet.example")
			db := open(t, cfg, dir, storage.DefaultLimits())
			check := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			check(db.CreateAccount(ctx, account, nil))
			check(db.SetSearch(ctx, []string{"montague.example"}))
			say := func(n int) {
				for i := range n {
					s := xmpp.New(xmpp.Message, "chat", account, peer, xmpp.El("", "body").Say(fmt.Sprint("word ", i)))
					check(db.AppendMessage(ctx, mam.Item{Owner: account, Peer: peer, Stanza: s, Stamp: time.Now(), Archived: true}).Commit.Wait(ctx))
				}
			}
			terms, _ := mam.Terms("word")
			find := func(want int) {
				t.Helper()
				p, err := db.QueryArchive(ctx, account, mam.Query{Max: 100, Words: terms})
				if err != nil || len(p.Messages) != want {
					t.Errorf("%d messages, %v; want %d", len(p.Messages), err, want)
				}
			}
			say(5)
			find(5)
			say(5) // that nobody searches for
			check(db.Close())
			db = open(t, cfg, dir, storage.DefaultLimits())
			if db.Searched("montague.example") {
				t.Error("it can be searched before everything is indexed")
			}
			if _, err := db.QueryArchive(ctx, account, mam.Query{Max: 100, Words: terms}); !errors.Is(err, mam.ErrNoSearch) {
				t.Errorf("error %v", err)
			}
			for more := true; more; {
				var err error
				more, err = db.IndexArchive(ctx, "montague.example", db.LastOrder(), 2)
				check(err)
			}
			find(10)
			say(1)
			find(11)
			say(5)
			check(db.Close())
			db = open(t, cfg, dir, storage.DefaultLimits())
			check(db.SetSearch(ctx, []string{"montague.example"})) // has so few indexed at once
			find(16)
		})
	}
}

// What was written is there after a restart, on both kinds of files.
func TestRestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	for name, cfg := range map[string]storage.Config{"SQLite": storage.DefaultConfig(), "PostgreSQL": {Driver: "postgres", DSN: pgtest.Start(t)}} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			account := jid.MustParse("romeo@montague.example")
			db := open(t, cfg, dir, storage.DefaultLimits())
			storagetest.Fill(t, db, account)
			secret, err := db.Secret(ctx, "kept", 16)
			if err != nil {
				t.Fatal(err)
			}
			items, version, err := db.Roster(ctx, account)
			if err != nil {
				t.Fatal(err)
			}
			left := time.Now().UTC().Truncate(time.Microsecond)
			db.NoteLastActivity(account, left, "to Mantua")
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			db = open(t, cfg, dir, storage.DefaultLimits())
			if at, status, err := db.LastActivity(ctx, account); err != nil || !at.Equal(left) || status != "to Mantua" {
				t.Errorf("last activity after a restart: %s, %q, %v", at, status, err)
			}
			again, err := db.Secret(ctx, "kept", 16)
			if err != nil || string(again) != string(secret) {
				t.Errorf("secret after a restart: %x, %v, was %x", again, err, secret)
			}
			itemsAgain, versionAgain, err := db.Roster(ctx, account)
			if err != nil || len(itemsAgain) != len(items) || versionAgain != version {
				t.Errorf("roster after a restart: %v at %d, %v", itemsAgain, versionAgain, err)
			}
			if n, err := db.CountOffline(ctx, account); err != nil || n != 1 {
				t.Errorf("%d messages after a restart, %v", n, err)
			}
			if r, err := db.PushRegistrations(ctx, account); err != nil || len(r) != 1 {
				t.Errorf("push registrations after a restart: %v, %v", r, err)
			}
			if used, err := db.UploadUsage(ctx, account, 0, time.Now()); err != nil || used == 0 {
				t.Errorf("uploads after a restart: %d bytes, %v", used, err)
			}
		})
	}
}
