package pgtest_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"testing"

	"balcony/storage/storagetest/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func ping(t *testing.T, dsn string) (err error) {
	t.Helper()
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	return errors.Join(db.PingContext(context.Background()), db.Close())
}

func TestEachCallGivesADatabaseOfItsOwn(t *testing.T) {
	a, b := pgtest.Start(t), pgtest.Start(t)
	if a == b {
		t.Fatalf("both databases are %s", a)
	}
	for _, dsn := range []string{a, b} {
		if err := ping(t, dsn); err != nil {
			t.Error(err)
		}
	}
}

func TestServerStopsAndStarts(t *testing.T) {
	s := pgtest.New(t, false)
	dsn := s.Database(t)
	s.Stop(t)
	if ping(t, dsn) == nil {
		t.Error("a stopped server answers")
	}
	s.Start(t)
	if err := ping(t, dsn); err != nil {
		t.Error(err)
	}
}
