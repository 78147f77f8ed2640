package storage_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"balcony/storage"
	"balcony/storage/storagetest"
	"balcony/storage/storagetest/pgtest"
	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// crashEnv makes the test binary a process that appends messages until it is killed: round, driver, dsn and folder.
const crashEnv = "STORAGE_TEST_CRASH"

const crashSenders = 5

var crashAccount = jid.MustParse("romeo@montague.example")

func crashLimits() storage.Limits {
	l := storage.DefaultLimits()
	l.OfflineMessages = 1 << 20
	return l
}

// appendUntilKilled prints a line for each message that is acknowledged, and for nothing else.
func appendUntilKilled(spec string) error {
	f := strings.Split(spec, "|")
	ctx := context.Background()
	db, err := storage.Open(ctx, storage.Config{Driver: f[1], DSN: f[2]}, f[3], crashLimits(), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	failed := make(chan error, crashSenders)
	for sender := range crashSenders {
		wg.Go(func() {
			for n := 0; ; n++ {
				id := fmt.Sprintf("%s-%d-%d", f[0], sender, n)
				st := xmpp.New(xmpp.Message, "chat", crashAccount, jid.MustParse("juliet@capulet.example"), xmpp.El("", "body").Say(id))
				if err := db.AppendOffline(ctx, crashAccount, time.Now(), st).Wait(ctx); err != nil {
					failed <- err
					return
				}
				fmt.Println(id) // one write(2): a line is there or not
			}
		})
	}
	wg.Wait()
	return <-failed
}

// Security promise 1: kill -9 at any moment loses no acknowledged message, doubles none and keeps the order of each sender.
func TestKillLosesNothing(t *testing.T) {
	for _, c := range []struct {
		name   string
		rounds int
		cfg    func() storage.Config
	}{
		{"SQLite", 6, storage.DefaultConfig},
		{"PostgreSQL", 3, func() storage.Config { return storage.Config{Driver: "postgres", DSN: pgtest.Start(t)} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			cfg := c.cfg()
			db, err := storage.Open(context.Background(), cfg, dir, crashLimits(), storagetest.Log(t))
			if err != nil {
				t.Fatal(err)
			}
			if err := db.CreateAccount(context.Background(), crashAccount, nil); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			acknowledged := map[string]bool{}
			for round := range c.rounds {
				for _, id := range killAfter(t, 20+60*round, fmt.Sprintf("%d|%s|%s|%s", round, cfg.Driver, cfg.DSN, dir)) {
					acknowledged[id] = true
				}
				checkSpool(t, cfg, dir, acknowledged)
			}
		})
	}
}

// killAfter starts a process that appends, kills it once it has acknowledged n messages, and returns all it has acknowledged.
func killAfter(t *testing.T, n int, spec string) (acknowledged []string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), crashEnv+"="+spec)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		acknowledged = append(acknowledged, lines.Text())
		if len(acknowledged) == n {
			if err := cmd.Process.Kill(); err != nil { // SIGKILL; what it printed until then is still in the pipe
				t.Fatal(err)
			}
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || len(acknowledged) < n {
		t.Fatalf("the process ended by itself after %d messages: %v", len(acknowledged), err)
	}
	return acknowledged
}

func checkSpool(t *testing.T, cfg storage.Config, dir string, acknowledged map[string]bool) {
	t.Helper()
	ctx := context.Background()
	db, err := storage.Open(ctx, cfg, dir, crashLimits(), storagetest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	entries, err := db.Offline(ctx, crashAccount, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]bool{}
	next := map[string]int{}
	for _, e := range entries {
		body, _ := e.Stanza.Child("", "body")
		id := body.Text()
		if stored[id] {
			t.Errorf("message %s is stored twice", id)
		}
		stored[id] = true
		sender, n, _ := cutLast(id)
		if n != next[sender] {
			t.Errorf("message %s comes in place of number %d", id, next[sender])
		}
		next[sender] = n + 1
	}
	for id := range acknowledged {
		if !stored[id] {
			t.Errorf("acknowledged message %s is lost", id)
		}
	}
	n, err := db.CountOffline(ctx, crashAccount)
	if err != nil || n != len(entries) {
		t.Errorf("the spool counts %d messages and has %d: %v", n, len(entries), err)
	}
}

// cutLast splits "round-sender-number" before the number.
func cutLast(id string) (sender string, n int, err error) {
	i := strings.LastIndexByte(id, '-')
	_, err = fmt.Sscan(id[i+1:], &n)
	return id[:i], n, err
}
