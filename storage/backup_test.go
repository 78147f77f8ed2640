package storage_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"balcony/storage"
	"balcony/storage/storagetest"
	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// A copy that is made while somebody writes is one state of the database: everything that was committed before, and nothing by halves.
func TestBackupOfABusyDatabase(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	account := jid.MustParse("romeo@montague.example")
	db := open(t, storage.DefaultConfig(), dir, storage.DefaultLimits())
	storagetest.Fill(t, db, account)
	stop := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			m := xmpp.New(xmpp.Message, "chat", account, account, xmpp.El("", "body").Say("on and on"))
			if err := db.AppendOffline(ctx, account, time.Now(), m).Wait(ctx); err != nil {
				return // the spool is full
			}
		}
	})
	for i := range 3 {
		before, err := db.CountOffline(ctx, account)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, "copy"+string(rune('0'+i)))
		if err := storage.Backup(ctx, storage.DefaultConfig(), dir, to); err != nil {
			t.Fatal(err)
		}
		after, err := db.CountOffline(ctx, account)
		if err != nil {
			t.Fatal(err)
		}
		again := open(t, storage.Config{Driver: "sqlite", DSN: to}, dir, storage.DefaultLimits())
		n, err := again.CountOffline(ctx, account)
		if err != nil || n < before || n > after {
			t.Errorf("%d messages in the copy, %v, want %d to %d", n, err, before, after)
		}
		if card, err := again.VCard(ctx, account); err != nil || len(card) == 0 {
			t.Errorf("vCard in the copy: %q, %v", card, err)
		}
		if err := storage.Backup(ctx, storage.DefaultConfig(), dir, to); err == nil {
			t.Error("a copy was overwritten")
		}
	}
	close(stop)
	wait.Wait()
	if err := storage.Backup(ctx, storage.Config{Driver: "postgres"}, dir, filepath.Join(dir, "pg")); !errors.Is(err, storage.ErrNotEmbedded) {
		t.Errorf("PostgreSQL: %v", err)
	}
	if err := storage.Backup(ctx, storage.DefaultConfig(), t.TempDir(), filepath.Join(dir, "none")); err == nil {
		t.Error("a database that is not there was copied")
	}
}
