package storage

import (
	"context"
	"crypto/subtle"
	"fmt"
	"time"

	"balcony/xmpp/auth"

	"mellium.im/xmpp/jid"
)

// Tokens returns the tokens of one client of an account; none for an account that does not exist.
func (db *DB) Tokens(ctx context.Context, account jid.JID, client string) (all []auth.StoredToken, err error) {
	err = db.read(ctx, "Tokens", func(q queries) error {
		all = nil
		return q.rows(`SELECT t.salt, t.sealed, t.mechanism, t.issued, t.expires, t.used, t.count, t.software, t.device
			FROM account a JOIN fast_token t ON t.account_id = a.id
			WHERE a.domain = $1 AND a.localpart = $2 AND t.client = $3 ORDER BY t.issued, t.salt`,
			[]any{account.Domainpart(), account.Localpart(), client},
			func(scan func(...any) error) error {
				t := auth.StoredToken{TokenInfo: auth.TokenInfo{Client: client}}
				var issued, expires, used int64
				err := scan(&t.Salt, &t.Sealed, &t.Mechanism, &issued, &expires, &used, &t.Count, &t.Software, &t.Device)
				t.Issued, t.Expires, t.Used = micro(issued), micro(expires), micro(used)
				all = append(all, t)
				return err
			})
	})
	if err != nil {
		return nil, fmt.Errorf("tokens of %s: %w", account, err)
	}
	return all, nil
}

// ListTokens returns what may be told of all tokens of an account, ordered by client and time of issue, or auth.ErrNoAccount.
func (db *DB) ListTokens(ctx context.Context, account jid.JID) ([]auth.TokenInfo, error) {
	var all []auth.TokenInfo
	exists := false
	err := db.read(ctx, "ListTokens", func(q queries) error {
		all, exists = nil, false
		return q.rows(`SELECT t.client, t.mechanism, t.issued, t.expires, t.used, t.software, t.device
			FROM account a LEFT JOIN fast_token t ON t.account_id = a.id
			WHERE a.domain = $1 AND a.localpart = $2 ORDER BY t.client, t.issued, t.salt`,
			[]any{account.Domainpart(), account.Localpart()},
			func(scan func(...any) error) error {
				exists = true
				var client, mechanism, software, device *string
				var issued, expires, used *int64
				if err := scan(&client, &mechanism, &issued, &expires, &used, &software, &device); err != nil || client == nil {
					return err
				}
				all = append(all, auth.TokenInfo{Client: *client, Mechanism: *mechanism, Software: *software, Device: *device,
					Issued: micro(*issued), Expires: micro(*expires), Used: micro(*used)})
				return nil
			})
	})
	if err == nil && !exists {
		err = auth.ErrNoAccount
	}
	if err != nil {
		return nil, fmt.Errorf("list tokens of %s: %w", account, err)
	}
	return all, nil
}

// AddToken puts a token into the place of the unused one of its client, and removes the tokens of the clients that were not heard of for
// the longest time where there are too many. proof is the verifier by which the client logged in; auth.ErrOutdated when the account does
// not have it any more or is disabled.
func (db *DB) AddToken(ctx context.Context, account jid.JID, t auth.StoredToken, proof auth.Verifier) error {
	err := db.write(ctx, func(q queries) error {
		id, err := db.proven(q, account, proof)
		if err != nil {
			return err
		}
		return db.addToken(q, id, t)
	})
	if err != nil {
		return fmt.Errorf("add token of %s: %w", account, err)
	}
	return nil
}

// proven locks an account that may log in and has the verifier proof.
func (db *DB) proven(q queries, account jid.JID, proof auth.Verifier) (id int64, err error) {
	id, err = db.enabled(q, account)
	if err != nil {
		return 0, err
	}
	var stored []byte
	if _, err := q.row("SELECT stored_key FROM verifier WHERE account_id = $1 AND mechanism = $2", []any{id, proof.Mechanism}, &stored); err != nil {
		return 0, err
	}
	if len(stored) == 0 || subtle.ConstantTimeCompare(stored, proof.StoredKey) != 1 {
		return 0, refuse(auth.ErrOutdated)
	}
	return id, nil
}

// enabled locks an account that may log in.
func (db *DB) enabled(q queries, account jid.JID) (id int64, err error) {
	id, err = db.accountID(q, account)
	if err != nil {
		return 0, err
	}
	var disabled bool
	if _, err := q.row("SELECT disabled FROM account WHERE id = $1", []any{id}, &disabled); err != nil {
		return 0, err
	}
	if disabled {
		return 0, refuse(auth.ErrOutdated)
	}
	return id, nil
}

func (db *DB) addToken(q queries, id int64, t auth.StoredToken) error {
	// XEP-0484 §3.5: tokens that were generated before and have not been used are invalidated.
	if _, err := q.exec("DELETE FROM fast_token WHERE account_id = $1 AND client = $2 AND used = 0", id, t.Client); err != nil {
		return err
	}
	_, err := q.exec(`INSERT INTO fast_token (account_id, client, salt, sealed, mechanism, issued, expires, used, count, software, device)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`, id, t.Client, t.Salt, t.Sealed, t.Mechanism, t.Issued.UnixMicro(),
		t.Expires.UnixMicro(), unixMicro(t.Used), t.Count, t.Software, t.Device)
	if err != nil {
		return err
	}
	var clients int
	if _, err := q.row("SELECT count(DISTINCT client) FROM fast_token WHERE account_id = $1", []any{id}, &clients); err != nil {
		return err
	}
	if clients <= db.limits.TokenClients {
		return nil
	}
	// The new token's client is not among them, whatever the clock did.
	_, err = q.exec(`DELETE FROM fast_token WHERE account_id = $1 AND client IN (
		SELECT client FROM fast_token WHERE account_id = $1 AND client <> $2
		GROUP BY client ORDER BY max(CASE WHEN used > issued THEN used ELSE issued END), client LIMIT $3)`, id, t.Client, clients-db.limits.TokenClients)
	return err
}

// UseToken notes the use of t, one of Tokens: the client's other tokens go if they were used or expire earlier. It returns
// auth.ErrOutdated when t is gone or the account is disabled, auth.ErrReplayed when the count did not grow; then nothing is changed.
func (db *DB) UseToken(ctx context.Context, account jid.JID, t auth.StoredToken, use auth.TokenUse) error {
	err := db.write(ctx, func(q queries) error {
		id, err := db.enabled(q, account)
		if err != nil {
			return err
		}
		var count, expires int64
		found, err := q.row("SELECT count, expires FROM fast_token WHERE account_id = $1 AND client = $2 AND salt = $3",
			[]any{id, t.Client, t.Salt}, &count, &expires)
		if err != nil {
			return err
		}
		if !found {
			return refuse(auth.ErrOutdated)
		}
		if use.Count != nil {
			if int64(*use.Count) <= count {
				return refuse(auth.ErrReplayed)
			}
			count = int64(*use.Count)
		}
		// XEP-0484 §3.5: tokens with an earlier expiry go. §5.1: and the one whose place this one takes.
		_, err = q.exec("DELETE FROM fast_token WHERE account_id = $1 AND client = $2 AND salt <> $3 AND (used <> 0 OR expires < $4)",
			id, t.Client, t.Salt, expires)
		if err != nil {
			return err
		}
		if use.Invalidate {
			_, err = q.exec("DELETE FROM fast_token WHERE account_id = $1 AND client = $2 AND salt = $3", id, t.Client, t.Salt)
		} else {
			_, err = q.exec("UPDATE fast_token SET used = $4, count = $5 WHERE account_id = $1 AND client = $2 AND salt = $3",
				id, t.Client, t.Salt, use.At.UnixMicro(), count)
		}
		if err != nil || use.Next == nil {
			return err
		}
		return db.addToken(q, id, *use.Next)
	})
	if err != nil {
		return fmt.Errorf("use token of %s: %w", account, err)
	}
	return nil
}

// DeleteTokens removes the tokens of one client, or with "" those of all, and returns how many there were, or auth.ErrNoAccount.
func (db *DB) DeleteTokens(ctx context.Context, account jid.JID, client string) (n int, err error) {
	err = db.write(ctx, func(q queries) error {
		id, err := db.accountID(q, account)
		if err != nil {
			return err
		}
		var removed int64
		if client == "" {
			removed, err = q.exec("DELETE FROM fast_token WHERE account_id = $1", id)
		} else {
			removed, err = q.exec("DELETE FROM fast_token WHERE account_id = $1 AND client = $2", id, client)
		}
		n = int(removed)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("delete tokens of %s: %w", account, err)
	}
	return n, nil
}

// micro is the time of a column, in which 0 stands for none.
func micro(t int64) time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.UnixMicro(t).UTC()
}

// unixMicro is the column of a time.
func unixMicro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}
