package storage

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"balcony/xmpp/ext/push"

	"mellium.im/xmpp/jid"
)

var _ push.Store = (*DB)(nil)

// PushRegistrations returns the account's registrations in the order of enabling.
func (db *DB) PushRegistrations(ctx context.Context, account jid.JID) (all []push.Registration, err error) {
	err = db.read(ctx, "PushRegistrations", func(q queries) error {
		all = nil
		return q.rows(`SELECT p.id, p.service, p.node, p.resource, p.options FROM account a JOIN push_registration p ON p.account_id = a.id
			WHERE a.domain = $1 AND a.localpart = $2 ORDER BY p.id`,
			[]any{account.Domainpart(), account.Localpart()},
			func(scan func(...any) error) error {
				var r push.Registration
				var service string
				if err := scan(&r.ID, &service, &r.Node, &r.Resource, &r.Options); err != nil {
					return err
				}
				j, err := jid.ParseUnsafe(service) // stored in canonical form
				if err != nil {
					return fmt.Errorf("stored JID %q: %w", service, err)
				}
				r.Service = j.JID
				if len(r.Options) == 0 {
					r.Options = nil
				}
				all = append(all, r)
				return nil
			})
	})
	if err != nil {
		return nil, fmt.Errorf("push registrations of %s: %w", account, err)
	}
	return all, nil
}

// EnablePush adds or replaces a registration and gives it an ID; at the bound the one that was enabled first goes.
func (db *DB) EnablePush(ctx context.Context, account jid.JID, r push.Registration) error {
	options := r.Options
	if options == nil {
		options = []byte{}
	}
	err := db.writer.do(ctx, len(r.Node)+len(options), func(q queries) error {
		account, err := db.accountID(q, account)
		if err != nil {
			return err
		}
		var last int64
		if _, err := q.row("SELECT coalesce(max(id), 0) FROM push_registration WHERE account_id = $1", []any{account}, &last); err != nil {
			return err
		}
		// The time, so that the id of a registration that was removed is not given again.
		id := max(last+1, time.Now().UnixMicro())
		if _, err := q.exec(`INSERT INTO push_registration (account_id, digest, id, service, node, resource, options) VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (account_id, digest) DO UPDATE SET id = excluded.id, resource = excluded.resource, options = excluded.options`,
			account, pushDigest(r.Service, r.Node), id, r.Service.String(), r.Node, r.Resource, options); err != nil {
			return err
		}
		_, err = q.exec(`DELETE FROM push_registration WHERE account_id = $1 AND id NOT IN
			(SELECT id FROM push_registration WHERE account_id = $1 ORDER BY id DESC LIMIT $2)`, account, db.limits.PushRegistrations)
		return err
	})
	if err != nil {
		return fmt.Errorf("enable push for %s: %w", account, err)
	}
	return nil
}

// DisablePush removes the registration of service and node, or all of the service when node is empty.
func (db *DB) DisablePush(ctx context.Context, account jid.JID, service jid.JID, node string) error {
	err := db.write(ctx, func(q queries) error {
		id, err := db.accountID(q, account)
		if err != nil {
			return err
		}
		if node == "" {
			_, err = q.exec("DELETE FROM push_registration WHERE account_id = $1 AND service = $2", id, service.String())
		} else {
			_, err = q.exec("DELETE FROM push_registration WHERE account_id = $1 AND digest = $2", id, pushDigest(service, node))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("disable push for %s: %w", account, err)
	}
	return nil
}

// RemovePush removes the registration with that id.
func (db *DB) RemovePush(ctx context.Context, account jid.JID, id int64) error {
	err := db.write(ctx, func(q queries) error {
		account, err := db.accountID(q, account)
		if err != nil {
			return err
		}
		_, err = q.exec("DELETE FROM push_registration WHERE account_id = $1 AND id = $2", account, id)
		return err
	})
	if err != nil {
		return fmt.Errorf("remove push registration of %s: %w", account, err)
	}
	return nil
}

func pushDigest(service jid.JID, node string) []byte {
	d := sha256.Sum256([]byte(service.String() + "\x00" + node)) // neither has a zero byte
	return d[:]
}
