package storage

import (
	"context"
	"crypto/sha256"
	"fmt"

	"balcony/xmpp/ext/blocking"

	"mellium.im/xmpp/jid"
)

var _ blocking.Store = (*DB)(nil)

// Blocked returns the account's block list in the order of blocking.
func (db *DB) Blocked(ctx context.Context, account jid.JID) (all []jid.JID, err error) {
	err = db.read(ctx, "Blocked", func(q queries) error {
		all = nil
		return q.rows(`SELECT b.jid FROM account a JOIN block_entry b ON b.account_id = a.id
			WHERE a.domain = $1 AND a.localpart = $2 ORDER BY b.place`,
			[]any{account.Domainpart(), account.Localpart()},
			func(scan func(...any) error) error {
				var s string
				if err := scan(&s); err != nil {
					return err
				}
				j, err := jid.ParseUnsafe(s) // stored in canonical form
				if err != nil {
					return fmt.Errorf("stored JID %q: %w", s, err)
				}
				all = append(all, j.JID)
				return nil
			})
	})
	if err != nil {
		return nil, fmt.Errorf("block list of %s: %w", account, err)
	}
	return all, nil
}

// Block adds entries; those that are there already stay. All or none are added; blocking.ErrFull at the bound.
func (db *DB) Block(ctx context.Context, account jid.JID, entries []jid.JID) error {
	err := db.writer.do(ctx, len(entries)*64, func(q queries) error {
		id, err := db.accountID(q, account)
		if err != nil {
			return err
		}
		var n int
		var place int64
		if _, err := q.row("SELECT count(*), coalesce(max(place), 0) FROM block_entry WHERE account_id = $1", []any{id}, &n, &place); err != nil {
			return err
		}
		fresh, err := db.unblocked(q, id, entries, db.limits.BlockList-n)
		if err != nil {
			return err
		}
		for _, s := range fresh {
			place++
			if _, err := q.exec("INSERT INTO block_entry (account_id, digest, place, jid) VALUES ($1, $2, $3, $4)",
				id, jidDigest(s), place, s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("block for %s: %w", account, err)
	}
	return nil
}

// unblocked returns the entries, each once, that are not in the list yet; blocking.ErrFull when they are more than room.
func (db *DB) unblocked(q queries, id int64, entries []jid.JID, room int) (fresh []string, err error) {
	seen := make(map[string]bool, min(len(entries), db.limits.BlockList))
	for _, j := range entries {
		s := j.String()
		if seen[s] {
			continue
		}
		if len(seen) >= db.limits.BlockList {
			return nil, refuse(blocking.ErrFull)
		}
		seen[s] = true
		var one int
		found, err := q.row("SELECT 1 FROM block_entry WHERE account_id = $1 AND digest = $2", []any{id, jidDigest(s)}, &one)
		if err != nil {
			return nil, err
		}
		if found {
			continue
		}
		if len(fresh) >= room {
			return nil, refuse(blocking.ErrFull)
		}
		fresh = append(fresh, s)
	}
	return fresh, nil
}

// Unblock removes entries; nil entries removes all.
func (db *DB) Unblock(ctx context.Context, account jid.JID, entries []jid.JID) error {
	err := db.writer.do(ctx, len(entries)*64, func(q queries) error {
		id, err := db.accountID(q, account)
		if err != nil {
			return err
		}
		if entries == nil {
			_, err := q.exec("DELETE FROM block_entry WHERE account_id = $1", id)
			return err
		}
		for _, j := range entries {
			if _, err := q.exec("DELETE FROM block_entry WHERE account_id = $1 AND digest = $2", id, jidDigest(j.String())); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("unblock for %s: %w", account, err)
	}
	return nil
}

func jidDigest(s string) []byte {
	d := sha256.Sum256([]byte(s))
	return d[:]
}
