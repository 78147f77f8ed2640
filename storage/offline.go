package storage

import (
	"context"
	"fmt"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/ext/offline"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/jid"
)

var _ offline.Store = (*DB)(nil)

// storedLimits are for stanzas that passed the limits of their stream before they were stored, whatever those were.
var storedLimits = stream.Limits{Bytes: 1 << 30, Depth: 1 << 10, Attributes: 1 << 10, Children: 1 << 20}

// AppendOffline adds a message at the end of the account's spool; the commit ends when it is synced, with offline.ErrFull at the
// bound. It does not block: when the disk has stood still for so long that the queue is full, the commit ends at once with ErrOverloaded. ctx
// does not end the write, because nobody could tell then whether the message is stored.
func (db *DB) AppendOffline(_ context.Context, account jid.JID, stamp time.Time, s *xmpp.Stanza) *xmpp.Commit {
	op := &write{size: s.Size() + writeCost}
	op.run = func(q queries) error {
		if err := db.appendOffline(q, account, stamp, s); err != nil {
			return fmt.Errorf("offline message for %s: %w", account, err)
		}
		return nil
	}
	if err := db.writer.enqueue(op, queueFull); err != nil {
		op.Complete(fmt.Errorf("offline message for %s: %w", account, err))
	}
	db.spoolGrows(account)
	return &op.Commit
}

func (db *DB) appendOffline(q queries, account jid.JID, stamp time.Time, s *xmpp.Stanza) error {
	xml := s.AppendTo(make([]byte, 0, s.Size()))
	var owner, id int64
	room, err := q.row(`UPDATE offline_spool SET messages = messages + 1, bytes = bytes + $3, last_id = last_id + 1
		WHERE account_id = (SELECT id FROM account WHERE domain = $1 AND localpart = $2) AND messages < $4 AND bytes + $3 <= $5
		RETURNING account_id, last_id`,
		[]any{account.Domainpart(), account.Localpart(), len(xml), db.limits.OfflineMessages, db.limits.OfflineBytes}, &owner, &id)
	if err != nil {
		return err
	}
	if !room {
		found, err := q.row("SELECT id FROM account WHERE domain = $1 AND localpart = $2", []any{account.Domainpart(), account.Localpart()}, &owner)
		switch {
		case err != nil:
			return err
		case !found:
			return refuse(auth.ErrNoAccount)
		}
		return refuse(offline.ErrFull)
	}
	_, err = q.exec("INSERT INTO offline_message (account_id, id, stamp, stanza) VALUES ($1, $2, $3, $4)", owner, id, stamp.UnixMicro(), xml)
	return err
}

// Offline returns up to limit messages of the spool in order, beginning after the id after (0 from the start). It sees every message
// whose AppendOffline was called before, because it waits for it. Of a message that the scanner no longer takes the stanza is nil: it must
// not reach a peer, but whoever empties the spool has to know of it.
func (db *DB) Offline(ctx context.Context, account jid.JID, after int64, limit int) (entries []offline.Entry, err error) {
	err = db.settleSpool(ctx, account)
	if err == nil {
		err = db.read(ctx, "Offline", func(q queries) error {
			entries = nil
			parser := stream.NewParser(storedLimits)
			return q.rows(`SELECT m.id, m.stamp, m.stanza FROM account a JOIN offline_message m ON m.account_id = a.id
				WHERE a.domain = $1 AND a.localpart = $2 AND m.id > $3 ORDER BY m.id LIMIT $4`,
				[]any{account.Domainpart(), account.Localpart(), after, limit},
				func(scan func(...any) error) error {
					var e offline.Entry
					var micro int64
					var xml []byte
					if err := scan(&e.ID, &micro, &xml); err != nil {
						return err
					}
					e.Stamp = time.UnixMicro(micro).UTC()
					var bad error
					if e.Stanza, bad = parser.Parse(xml); bad != nil {
						db.log.Error("stored message cannot be read", "account", account.String(), "id", e.ID, "error", bad)
						e.Stanza = nil
					}
					entries = append(entries, e)
					return nil
				})
		})
	}
	if err != nil {
		return nil, fmt.Errorf("offline messages of %s: %w", account, err)
	}
	return entries, nil
}

// RemoveOffline deletes the messages up to and including id upTo.
func (db *DB) RemoveOffline(ctx context.Context, account jid.JID, upTo int64) error {
	err := db.write(ctx, func(q queries) error {
		id, err := db.accountID(q, account)
		if err != nil {
			return err
		}
		var n int
		var bytes int64
		if _, err := q.row("SELECT count(*), coalesce(sum(length(stanza)), 0) FROM offline_message WHERE account_id = $1 AND id <= $2",
			[]any{id, upTo}, &n, &bytes); err != nil || n == 0 {
			return err
		}
		if _, err := q.exec("DELETE FROM offline_message WHERE account_id = $1 AND id <= $2", id, upTo); err != nil {
			return err
		}
		_, err = q.exec("UPDATE offline_spool SET messages = messages - $2, bytes = bytes - $3 WHERE account_id = $1", id, n, bytes)
		return err
	})
	db.spoolChanges(account) // also after an error, which may have come after the commit
	if err != nil {
		return fmt.Errorf("remove offline messages of %s: %w", account, err)
	}
	return nil
}

// CountOffline is the number of messages in the spool.
func (db *DB) CountOffline(ctx context.Context, account jid.JID) (n int, err error) {
	err = db.settleSpool(ctx, account)
	if err == nil {
		err = db.read(ctx, "CountOffline", func(q queries) error {
			_, err := q.row(`SELECT s.messages FROM account a JOIN offline_spool s ON s.account_id = a.id
				WHERE a.domain = $1 AND a.localpart = $2`, []any{account.Domainpart(), account.Localpart()}, &n)
			return err
		})
	}
	if err != nil {
		return 0, fmt.Errorf("count offline messages of %s: %w", account, err)
	}
	return n, nil
}
