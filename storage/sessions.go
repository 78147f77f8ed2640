package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/auth"

	"mellium.im/xmpp/jid"
)

// SaveSessions stores sessions of a server that stops, in one transaction. Those of accounts that are gone are left out.
func (db *DB) SaveSessions(ctx context.Context, sessions []xmpp.SavedSession) error {
	size := 0
	for _, s := range sessions {
		size += len(s.Data)
	}
	err := db.writer.do(ctx, size, func(q queries) error {
		for _, s := range sessions {
			id, err := db.accountID(q, s.Account)
			if errors.Is(err, auth.ErrNoAccount) {
				continue
			}
			if err != nil {
				return err
			}
			if _, err := q.exec(`INSERT INTO saved_session (account_id, resource, expires, data) VALUES ($1, $2, $3, $4)
				ON CONFLICT (account_id, resource) DO UPDATE SET expires = excluded.expires, data = excluded.data`,
				id, s.Resource, s.Expires.UnixMicro(), s.Data); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("save sessions: %w", err)
	}
	return nil
}

// TakeSessions returns the sessions that were saved, and forgets them: each is restored once.
func (db *DB) TakeSessions(ctx context.Context) ([]xmpp.SavedSession, error) {
	var all []xmpp.SavedSession
	err := db.write(ctx, func(q queries) error {
		all = nil
		err := q.rows(`SELECT a.domain, a.localpart, s.resource, s.expires, s.data FROM saved_session s JOIN account a ON a.id = s.account_id`, nil,
			func(scan func(...any) error) error {
				var domain, local string
				var expires int64
				var s xmpp.SavedSession
				if err := scan(&domain, &local, &s.Resource, &expires, &s.Data); err != nil {
					return err
				}
				j, err := jid.New(local, domain, "")
				if err != nil {
					return fmt.Errorf("stored account: %w", err)
				}
				s.Account, s.Expires = j, time.UnixMicro(expires)
				all = append(all, s)
				return nil
			})
		if err != nil {
			return err
		}
		_, err = q.exec("DELETE FROM saved_session")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("take sessions: %w", err)
	}
	return all, nil
}
