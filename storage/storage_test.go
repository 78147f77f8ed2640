package storage_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"balcony/storage"
	"balcony/storage/storagetest"
	"balcony/storage/storagetest/pgtest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	code := pgtest.Main(m)
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// open opens a database that is closed at the end of the test.
func open(t testing.TB, cfg storage.Config, dir string) *storage.DB {
	t.Helper()
	db, err := storage.Open(context.Background(), cfg, dir, storagetest.Limits, storagetest.Log(t))
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
			storagetest.Run(t, func(t *testing.T) *storage.DB { return open(t, c.cfg(t), t.TempDir()) })
		})
	}
}
