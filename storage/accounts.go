package storage

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"balcony/xmpp/auth"

	"mellium.im/xmpp/jid"
)

// An account is found by domain and localpart, both in canonical form, and every other table refers to its id: a number in their
// keys instead of a JID of up to 2,047 bytes makes rows and indexes small, and the database itself removes what belongs to an account
// that is deleted (ON DELETE CASCADE) and refuses rows that belong to none.

var _ auth.Store = (*DB)(nil)

// Verifiers returns all verifiers of an account, or auth.ErrNoAccount.
func (db *DB) Verifiers(ctx context.Context, account jid.JID) ([]auth.Verifier, error) {
	c, err := db.Credentials(ctx, account)
	return c.Verifiers, err
}

// Credentials returns what a login depends on, or auth.ErrNoAccount.
func (db *DB) Credentials(ctx context.Context, account jid.JID) (c auth.Credentials, err error) {
	exists := false
	err = db.read(ctx, "Credentials", func(q queries) error {
		c = auth.Credentials{}
		return q.rows(`SELECT a.disabled, v.mechanism, v.salt, v.iterations, v.stored_key, v.server_key
			FROM account a LEFT JOIN verifier v ON v.account_id = a.id
			WHERE a.domain = $1 AND a.localpart = $2 ORDER BY v.mechanism`,
			[]any{account.Domainpart(), account.Localpart()},
			func(scan func(...any) error) error {
				exists = true
				var mechanism *string
				var iterations *int
				var v auth.Verifier
				if err := scan(&c.Disabled, &mechanism, &v.Salt, &iterations, &v.StoredKey, &v.ServerKey); err != nil || mechanism == nil {
					return err
				}
				v.Mechanism, v.Iterations = *mechanism, *iterations
				c.Verifiers = append(c.Verifiers, v)
				return nil
			})
	})
	if err == nil && !exists {
		err = auth.ErrNoAccount
	}
	if err != nil {
		return auth.Credentials{}, fmt.Errorf("credentials of %s: %w", account, err)
	}
	return c, nil
}

// CreateAccount adds an account with its verifiers, or returns auth.ErrAccountExists.
func (db *DB) CreateAccount(ctx context.Context, account jid.JID, v []auth.Verifier) error {
	err := db.write(ctx, func(q queries) error {
		var id int64
		created, err := q.row(`INSERT INTO account (domain, localpart, created) VALUES ($1, $2, $3)
			ON CONFLICT (domain, localpart) DO NOTHING RETURNING id`,
			[]any{account.Domainpart(), account.Localpart(), time.Now().UnixMicro()}, &id)
		if err != nil {
			return err
		}
		if !created {
			return refuse(auth.ErrAccountExists)
		}
		if _, err := q.exec("INSERT INTO roster (account_id, version, oldest) VALUES ($1, $2, $2)", id, firstVersion()); err != nil {
			return err
		}
		if _, err := q.exec("INSERT INTO offline_spool (account_id) VALUES ($1)", id); err != nil {
			return err
		}
		return insertVerifiers(q, id, v)
	})
	if err != nil {
		return fmt.Errorf("create account %s: %w", account, err)
	}
	db.forgetNoted(account) // of an earlier account with this name
	return nil
}

// firstVersion is where the versions of a new roster start: a random number below 2^52, so that a client which kept a version of an
// earlier account of the same name does not have a version of this one (RFC 6121 §2.6.2), whatever the clock did.
func firstVersion() int64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return int64(binary.LittleEndian.Uint64(b[:]) >> 12)
}

func insertVerifiers(q queries, id int64, all []auth.Verifier) error {
	for _, v := range all {
		_, err := q.exec(`INSERT INTO verifier (account_id, mechanism, salt, iterations, stored_key, server_key)
			VALUES ($1, $2, $3, $4, $5, $6)`, id, v.Mechanism, v.Salt, v.Iterations, v.StoredKey, v.ServerKey)
		if err != nil {
			return err
		}
	}
	return nil
}

// SetVerifiers replaces all verifiers of an account and removes all its tokens, or returns auth.ErrNoAccount.
func (db *DB) SetVerifiers(ctx context.Context, account jid.JID, v []auth.Verifier) error {
	err := db.write(ctx, func(q queries) error {
		id, err := db.accountID(q, account)
		if err != nil {
			return err
		}
		if _, err := q.exec("DELETE FROM verifier WHERE account_id = $1", id); err != nil {
			return err
		}
		if _, err := q.exec("DELETE FROM fast_token WHERE account_id = $1", id); err != nil { // security: no token outlives the password
			return err
		}
		return insertVerifiers(q, id, v)
	})
	if err != nil {
		return fmt.Errorf("set verifiers of %s: %w", account, err)
	}
	return nil
}

// AddVerifier adds v, unless the account has one for its mechanism already. proof is the verifier by which the client logged in;
// auth.ErrOutdated when the account does not have it any more or is disabled.
func (db *DB) AddVerifier(ctx context.Context, account jid.JID, v, proof auth.Verifier) error {
	err := db.write(ctx, func(q queries) error {
		id, err := db.proven(q, account, proof)
		if err != nil {
			return err
		}
		_, err = q.exec(`INSERT INTO verifier (account_id, mechanism, salt, iterations, stored_key, server_key)
			VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (account_id, mechanism) DO NOTHING`,
			id, v.Mechanism, v.Salt, v.Iterations, v.StoredKey, v.ServerKey)
		return err
	})
	if err != nil {
		return fmt.Errorf("add verifier of %s: %w", account, err)
	}
	return nil
}

// DeleteAccount removes an account and everything that any table holds of it, or returns auth.ErrNoAccount.
func (db *DB) DeleteAccount(ctx context.Context, account jid.JID) error {
	err := db.deleteArchive(ctx, account)
	if err == nil {
		err = db.write(ctx, func(q queries) error {
			id, err := db.accountID(q, account)
			if err != nil {
				return err
			}
			if _, err := db.deleteAll(q, id, math.MaxInt32); err != nil { // what has come since
				return err
			}
			// The contents of uploads lie elsewhere: their ids are what is left to do.
			if _, err := q.exec("INSERT INTO removed_upload (id) SELECT id FROM upload WHERE account_id = $1", id); err != nil {
				return err
			}
			if _, err = q.exec("DELETE FROM account WHERE id = $1", id); err != nil {
				return err
			}
			return forgetPubSub(q, account)
		})
	}
	db.forgetNoted(account)
	db.spoolChanges(account)
	if err != nil {
		return fmt.Errorf("delete account %s: %w", account, err)
	}
	return nil
}

// AccountExists reports whether account is one.
func (db *DB) AccountExists(ctx context.Context, account jid.JID) (bool, error) {
	exists, _, err := db.account(ctx, "AccountExists", account)
	return exists, err
}

// AccountDisabled reports whether the account may not log in, or returns auth.ErrNoAccount.
func (db *DB) AccountDisabled(ctx context.Context, account jid.JID) (bool, error) {
	exists, disabled, err := db.account(ctx, "AccountDisabled", account)
	if err == nil && !exists {
		err = fmt.Errorf("account %s: %w", account, auth.ErrNoAccount)
	}
	return disabled, err
}

func (db *DB) account(ctx context.Context, op string, account jid.JID) (exists, disabled bool, err error) {
	err = db.read(ctx, op, func(q queries) (err error) {
		exists, err = q.row("SELECT disabled FROM account WHERE domain = $1 AND localpart = $2",
			[]any{account.Domainpart(), account.Localpart()}, &disabled)
		return err
	})
	if err != nil {
		return false, false, fmt.Errorf("account %s: %w", account, err)
	}
	return exists, disabled, nil
}

// SetAccountDisabled forbids or allows the account to log in, or returns auth.ErrNoAccount. Forbidding removes all its tokens.
func (db *DB) SetAccountDisabled(ctx context.Context, account jid.JID, disabled bool) error {
	err := db.write(ctx, func(q queries) error {
		id, err := db.accountID(q, account)
		if err != nil {
			return err
		}
		if disabled {
			if _, err := q.exec("DELETE FROM fast_token WHERE account_id = $1", id); err != nil {
				return err
			}
		}
		_, err = q.exec("UPDATE account SET disabled = $2 WHERE id = $1", id, disabled)
		return err
	})
	if err != nil {
		return fmt.Errorf("disable account %s: %w", account, err)
	}
	return nil
}

// Accounts returns up to limit accounts of a domain in the order of their localparts, beginning after the localpart after ("" from
// the start).
func (db *DB) Accounts(ctx context.Context, domain, after string, limit int) ([]jid.JID, error) {
	var all []jid.JID
	err := db.read(ctx, "Accounts", func(q queries) error {
		return q.rows("SELECT localpart FROM account WHERE domain = $1 AND localpart > $2 ORDER BY localpart LIMIT $3",
			[]any{domain, after, limit},
			func(scan func(...any) error) error {
				var localpart string
				if err := scan(&localpart); err != nil {
					return err
				}
				all = append(all, jid.NewUnsafe(localpart, domain, "").JID) // stored in canonical form
				return nil
			})
	})
	if err != nil {
		return nil, fmt.Errorf("accounts of %s: %w", domain, err)
	}
	return all, nil
}

// CountAccounts is the number of accounts of a domain.
func (db *DB) CountAccounts(ctx context.Context, domain string) (n int, err error) {
	err = db.read(ctx, "CountAccounts", func(q queries) error {
		_, err := q.row("SELECT count(*) FROM account WHERE domain = $1", []any{domain}, &n)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("count accounts of %s: %w", domain, err)
	}
	return n, nil
}
