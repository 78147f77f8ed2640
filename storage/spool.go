package storage

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/ext/offline"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/jid"
)

// LastOrder is the greatest order that was given to a message.
func (db *DB) LastOrder() int64 {
	db.writer.mu.Lock()
	defer db.writer.mu.Unlock()
	return db.writer.order
}

// maxSpools bounds the states that are remembered. chosen: more than 30,000 accounts.
const maxSpools = 8 << 20

// SpoolState is what of an account's archived messages waits. That of an account to which nothing archived has come since it was read, or saved, is in
// memory.
func (db *DB) SpoolState(ctx context.Context, account jid.JID) (s offline.State, err error) {
	key := account.Bare().String()
	s, ok, gen := db.spools.Get(key)
	if ok {
		s.Gaps = slices.Clone(s.Gaps)
		return s, nil
	}
	var gaps []byte
	err = db.settleSpool(ctx, account)
	if err == nil {
		err = db.read(ctx, "SpoolState", func(q queries) error {
			_, err := q.row(`SELECT coalesce(s.top, 0), s.gaps,
				EXISTS (SELECT 1 FROM archive_entry e WHERE e.account_id = a.id AND e.id > coalesce(s.top, 0) AND e.flags IN (3, 7)),
				EXISTS (SELECT 1 FROM offline_message m WHERE m.account_id = a.id)
				FROM account a LEFT JOIN spool_state s ON s.account_id = a.id WHERE a.domain = $1 AND a.localpart = $2`,
				[]any{account.Domainpart(), account.Localpart()}, &s.Top, &gaps, &s.Behind, &s.Own)
			return err
		})
	}
	if err != nil {
		return offline.State{}, fmt.Errorf("spool of %s: %w", account, err)
	}
	s.Account = account
	for ; len(gaps) >= 16; gaps = gaps[16:] {
		s.Gaps = append(s.Gaps, offline.Span{From: int64(binary.BigEndian.Uint64(gaps)), To: int64(binary.BigEndian.Uint64(gaps[8:]))})
	}
	if !s.Behind && !s.Own {
		db.spools.Put(key, s, 200+len(key)+16*len(s.Gaps), gen)
		s.Gaps = slices.Clone(s.Gaps)
	}
	return s, nil
}

// spoolChanges is called when a write is in the queue that makes something wait for an account, or changes its state: what is read from now on sees it.
func (db *DB) spoolChanges(account jid.JID) {
	key := account.Bare().String()
	db.changes.note(key, db.writer)
	db.spools.Drop(key)
}

// spoolGrows is spoolChanges for a message that gets a place in the account's own spool.
func (db *DB) spoolGrows(account jid.JID) {
	key := account.Bare().String()
	db.changes.note(key, db.writer)
	db.spools.Change(key, func(s offline.State) offline.State {
		s.Own = true // also when the write fails: then nothing is found there
		return s
	})
}

// settleSpool returns when every change of an account's spool that was accepted before has ended.
func (db *DB) settleSpool(ctx context.Context, account jid.JID) error {
	return db.writer.settleTo(ctx, db.changes.last(account.Bare().String()))
}

// changes knows the last write that changes an account's spool, as long as it may not have ended: whoever reads a spool need not wait for the others.
type changes struct {
	mu sync.Mutex
	// Guarded by mu.
	by   map[string]int64 // the numbers of writes, by bare JID
	full int              // so many accounts are noted before those are forgotten whose writes have ended
}

// minChanges is the least of full. chosen: more than are in the queue at most times.
const minChanges = 1 << 10

func newChanges() *changes { return &changes{by: make(map[string]int64), full: minChanges} }

// note is called when the write is in the queue.
func (c *changes) note(key string, w *writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	number, ended := w.numbers()
	if len(c.by) >= c.full {
		maps.DeleteFunc(c.by, func(_ string, n int64) bool { return n <= ended })
		c.full = max(minChanges, 2*len(c.by))
	}
	c.by[key] = number
}

// last is the number of an account's last write, 0 when it has ended long ago.
func (c *changes) last(key string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.by[key]
}

// SaveSpoolStates replaces the states of accounts. It does not block.
func (db *DB) SaveSpoolStates(_ context.Context, states []offline.State) *xmpp.Commit {
	op := &write{size: writeCost * (1 + len(states))}
	op.run = func(q queries) error {
		for _, s := range states {
			gaps := make([]byte, 0, 16*len(s.Gaps))
			for _, g := range s.Gaps {
				gaps = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(gaps, uint64(g.From)), uint64(g.To))
			}
			if _, err := q.exec(`INSERT INTO spool_state (account_id, top, gaps) SELECT id, $3, $4 FROM account WHERE domain = $1 AND localpart = $2
				ON CONFLICT (account_id) DO UPDATE SET top = excluded.top, gaps = excluded.gaps`,
				s.Account.Domainpart(), s.Account.Localpart(), s.Top, gaps); err != nil {
				return fmt.Errorf("spool of %s: %w", s.Account, err)
			}
		}
		return nil
	}
	if err := db.writer.enqueue(op, queueFull); err != nil {
		op.Complete(fmt.Errorf("spool: %w", err))
	}
	for _, s := range states {
		db.spoolChanges(s.Account)
	}
	return &op.Commit
}

// Waiting returns archived messages that may wait in the spool.
func (db *DB) Waiting(ctx context.Context, account jid.JID, in offline.Span, limit int) (entries []offline.Entry, err error) {
	err = db.settleSpool(ctx, account)
	if err == nil {
		err = db.readWith(ctx, "Waiting", &db.pager, func(q queries) error {
			entries = nil
			parser := stream.NewParser(storedLimits)
			return q.rows("SELECT e.id, m.stamp, m.stanza FROM archive_entry e JOIN message m ON m.id = e.message_id WHERE "+archiveOwner+
				" AND e.id >= $3 AND e.id <= $4 AND e.flags IN (3, 7) ORDER BY e.id LIMIT $5", // archived and of the spool
				[]any{account.Domainpart(), account.Localpart(), in.From, in.To, limit},
				func(scan func(...any) error) error {
					var e offline.Entry
					var micro int64
					var xml []byte
					if err := scan(&e.Order, &micro, &xml); err != nil {
						return err
					}
					e.Stamp, e.Mark = time.UnixMicro(micro).UTC(), db.ids.id(account, e.Order)
					var bad error
					if e.Stanza, bad = parser.Parse(xml); bad != nil {
						db.log.Error("stored message cannot be read", "account", account.String(), "order", e.Order, "error", bad)
						e.Stanza = nil
					}
					entries = append(entries, e)
					return nil
				})
		})
	}
	if err != nil {
		return nil, fmt.Errorf("spool of %s: %w", account, err)
	}
	return entries, nil
}
