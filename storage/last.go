package storage

import (
	"context"
	"fmt"
	"sync"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/ext/last"

	"mellium.im/xmpp/jid"
)

var _ last.Store = (*DB)(nil)

const (
	lastEvery = time.Second // chosen: what a crash takes from the times of the last activity, at most
	lastMost  = 256         // chosen: accounts in one write, about 10 ms of the writer
)

// noted are last activities that are written together: one for each session that ends would be the most frequent write of a server whose clients
// come and go, and make each reader forget its pages.
type noted struct {
	mu sync.Mutex
	// Guarded by mu, also while their write is put into the queue.
	accounts map[string]lastActivity // by bare JID
	timer    *time.Timer             // nil while there are none
}

type lastActivity struct {
	account jid.JID
	at      time.Time
	status  string
}

// LastActivity returns the time (to the microsecond) and status of the account's last unavailable presence; the zero time when there is none.
func (db *DB) LastActivity(ctx context.Context, account jid.JID) (at time.Time, status string, err error) {
	db.noted.mu.Lock()
	n, ok := db.noted.accounts[account.Bare().String()]
	db.noted.mu.Unlock()
	if ok {
		return n.at, n.status, nil
	}
	if err := db.writer.settle(ctx); err != nil {
		return time.Time{}, "", fmt.Errorf("last activity of %s: %w", account, err)
	}
	err = db.read(ctx, "LastActivity", func(q queries) error {
		var micro int64
		found, err := q.row(`SELECT l.at, l.status FROM account a JOIN last_activity l ON l.account_id = a.id
			WHERE a.domain = $1 AND a.localpart = $2`, []any{account.Domainpart(), account.Localpart()}, &micro, &status)
		if found {
			at = time.UnixMicro(micro).UTC()
		}
		return err
	})
	if err != nil {
		return time.Time{}, "", fmt.Errorf("last activity of %s: %w", account, err)
	}
	return at, status, nil
}

// NoteLastActivity stores them within a second, unless there is no such account. It does not block.
func (db *DB) NoteLastActivity(account jid.JID, at time.Time, status string) {
	account = account.Bare()
	at = time.UnixMicro(at.UnixMicro()).UTC()
	db.noted.mu.Lock()
	defer db.noted.mu.Unlock()
	if db.closed.Load() {
		return // under mu: Close has written what was noted before
	}
	if db.noted.accounts == nil {
		db.noted.accounts = make(map[string]lastActivity)
	}
	db.noted.accounts[account.String()] = lastActivity{account, at, status}
	switch {
	case len(db.noted.accounts) >= lastMost:
		db.writeNoted()
	case db.noted.timer == nil:
		db.noted.timer = time.AfterFunc(lastEvery, db.settleNoted)
	}
}

// settleNoted writes what was noted.
func (db *DB) settleNoted() {
	db.noted.mu.Lock()
	defer db.noted.mu.Unlock()
	db.writeNoted()
}

// writeNoted puts what was noted into the writer's queue. It is called with mu of noted held.
func (db *DB) writeNoted() {
	accounts := db.noted.accounts
	if db.noted.timer != nil {
		db.noted.timer.Stop()
	}
	db.noted.accounts, db.noted.timer = nil, nil
	if len(accounts) == 0 {
		return
	}
	op := &write{size: writeCost * (1 + len(accounts))}
	for _, n := range accounts {
		op.size += len(n.status)
	}
	op.run = func(q queries) error {
		for _, n := range accounts {
			if _, err := setLastActivity(q, n); err != nil {
				return err
			}
		}
		return nil
	}
	failed := func(err error) {
		if err != nil {
			db.log.Error("last activities are not stored", "accounts", len(accounts), "error", err)
		}
	}
	op.Then(failed)
	if err := db.writer.enqueue(op, queueFull); err != nil {
		op.Complete(err)
	}
}

// forgetNoted drops what was noted of an account.
func (db *DB) forgetNoted(account jid.JID) {
	db.noted.mu.Lock()
	defer db.noted.mu.Unlock()
	delete(db.noted.accounts, account.Bare().String())
}

// SetLastActivity stores them; the commit ends with auth.ErrNoAccount when there is no such account.
func (db *DB) SetLastActivity(account jid.JID, at time.Time, status string) *xmpp.Commit {
	db.forgetNoted(account)
	op := &write{size: len(status) + writeCost}
	op.run = func(q queries) error {
		n, err := setLastActivity(q, lastActivity{account, at, status})
		if err == nil && n == 0 {
			err = refuse(auth.ErrNoAccount)
		}
		if err != nil {
			err = fmt.Errorf("set last activity of %s: %w", account, err)
		}
		return err
	}
	if err := db.writer.enqueue(op, queueFull); err != nil {
		op.Complete(fmt.Errorf("set last activity of %s: %w", account, err))
	}
	return &op.Commit
}

func setLastActivity(q queries, n lastActivity) (int64, error) {
	return q.exec(`INSERT INTO last_activity (account_id, at, status) SELECT id, $3, $4 FROM account WHERE domain = $1 AND localpart = $2
		ON CONFLICT (account_id) DO UPDATE SET at = excluded.at, status = excluded.status`,
		n.account.Domainpart(), n.account.Localpart(), n.at.UnixMicro(), n.status)
}
