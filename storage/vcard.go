package storage

import (
	"context"
	"fmt"

	"balcony/xmpp/ext/vcard"

	"mellium.im/xmpp/jid"
)

var _ vcard.Store = (*DB)(nil)

// VCard returns the account's vCard element, nil when it has none.
func (db *DB) VCard(ctx context.Context, account jid.JID) (element []byte, err error) {
	err = db.read(ctx, "VCard", func(q queries) error {
		_, err := q.row("SELECT v.element FROM account a JOIN vcard v ON v.account_id = a.id WHERE a.domain = $1 AND a.localpart = $2",
			[]any{account.Domainpart(), account.Localpart()}, &element)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("vCard of %s: %w", account, err)
	}
	return element, nil
}

// SetVCard stores the account's vCard element. Its size is bounded by that of a stanza.
func (db *DB) SetVCard(ctx context.Context, account jid.JID, element []byte) error {
	err := db.writer.do(ctx, len(element), func(q queries) error {
		id, err := db.accountID(q, account)
		if err != nil {
			return err
		}
		return putVCard(q, id, element)
	})
	if err != nil {
		return fmt.Errorf("set vCard of %s: %w", account, err)
	}
	return nil
}

// UpdateVCard changes the account's vCard element as vcard.Store says. change runs on the writer's goroutine while the caller waits, and it may run more than
// once, on the same stored element, so it must not call the database.
func (db *DB) UpdateVCard(ctx context.Context, account jid.JID, change func(stored []byte) []byte) error {
	err := db.write(ctx, func(q queries) error {
		id, err := db.accountID(q, account)
		if err != nil {
			return err
		}
		var stored []byte
		if _, err := q.row("SELECT element FROM vcard WHERE account_id = $1", []any{id}, &stored); err != nil {
			return err
		}
		element := change(stored)
		if element == nil {
			return nil
		}
		return putVCard(q, id, element)
	})
	if err != nil {
		return fmt.Errorf("update vCard of %s: %w", account, err)
	}
	return nil
}

func putVCard(q queries, account int64, element []byte) error {
	_, err := q.exec(`INSERT INTO vcard (account_id, element) VALUES ($1, $2)
		ON CONFLICT (account_id) DO UPDATE SET element = excluded.element`, account, element)
	return err
}
