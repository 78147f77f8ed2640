package storage

import (
	"context"
	"fmt"
	"time"

	"balcony/xmpp/ext/last"

	"mellium.im/xmpp/jid"
)

var _ last.Store = (*DB)(nil)

// LastActivity returns the time (to the microsecond) and status of the account's last unavailable presence; the zero time when there is none.
func (db *DB) LastActivity(ctx context.Context, account jid.JID) (at time.Time, status string, err error) {
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

// SetLastActivity stores them.
func (db *DB) SetLastActivity(ctx context.Context, account jid.JID, at time.Time, status string) error {
	err := db.writer.do(ctx, len(status), func(q queries) error {
		id, err := db.accountID(q, account)
		if err != nil {
			return err
		}
		_, err = q.exec(`INSERT INTO last_activity (account_id, at, status) VALUES ($1, $2, $3)
			ON CONFLICT (account_id) DO UPDATE SET at = excluded.at, status = excluded.status`, id, at.UnixMicro(), status)
		return err
	})
	if err != nil {
		return fmt.Errorf("set last activity of %s: %w", account, err)
	}
	return nil
}
