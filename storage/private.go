package storage

import (
	"context"
	"crypto/sha256"
	"fmt"

	"balcony/xmpp/ext/private"

	"mellium.im/xmpp/jid"
)

var _ private.Store = (*DB)(nil)

// PrivateXML returns the stored element, nil when there is none.
func (db *DB) PrivateXML(ctx context.Context, account jid.JID, space, local string) (element []byte, err error) {
	err = db.read(ctx, "PrivateXML", func(q queries) error {
		_, err := q.row(`SELECT p.element FROM account a JOIN private_xml p ON p.account_id = a.id
			WHERE a.domain = $1 AND a.localpart = $2 AND p.digest = $3`,
			[]any{account.Domainpart(), account.Localpart(), privateDigest(space, local)}, &element)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("private XML of %s: %w", account, err)
	}
	return element, nil
}

// PrivateElements returns all stored elements of an account, in an order that does not change.
func (db *DB) PrivateElements(ctx context.Context, account jid.JID) (all [][]byte, err error) {
	err = db.read(ctx, "PrivateElements", func(q queries) error {
		all = nil
		return q.rows(`SELECT p.element FROM account a JOIN private_xml p ON p.account_id = a.id
			WHERE a.domain = $1 AND a.localpart = $2 ORDER BY p.digest`,
			[]any{account.Domainpart(), account.Localpart()},
			func(scan func(...any) error) error {
				var element []byte
				err := scan(&element)
				all = append(all, element)
				return err
			})
	})
	if err != nil {
		return nil, fmt.Errorf("private XML of %s: %w", account, err)
	}
	return all, nil
}

// SetPrivateXML stores an element, replacing the one before. private.ErrFull when the account's elements would be too many or too
// large.
func (db *DB) SetPrivateXML(ctx context.Context, account jid.JID, space, local string, element []byte) error {
	digest := privateDigest(space, local)
	err := db.writer.do(ctx, len(element), func(q queries) error {
		id, err := db.accountID(q, account)
		if err != nil {
			return err
		}
		var elements, bytes int
		if _, err := q.row("SELECT count(*), coalesce(sum(length(element)), 0) FROM private_xml WHERE account_id = $1 AND digest <> $2",
			[]any{id, digest}, &elements, &bytes); err != nil {
			return err
		}
		if elements >= db.limits.PrivateElements || bytes+len(element) > db.limits.PrivateBytes {
			return refuse(private.ErrFull)
		}
		_, err = q.exec(`INSERT INTO private_xml (account_id, digest, element) VALUES ($1, $2, $3)
			ON CONFLICT (account_id, digest) DO UPDATE SET element = excluded.element`, id, digest, element)
		return err
	})
	if err != nil {
		return fmt.Errorf("set private XML of %s: %w", account, err)
	}
	return nil
}

func privateDigest(space, local string) []byte {
	d := sha256.Sum256([]byte(space + "\x00" + local)) // XML has no zero byte
	return d[:]
}
