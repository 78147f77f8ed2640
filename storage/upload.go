package storage

import (
	"context"
	"fmt"
	"math"
	"time"

	"balcony/xmpp/ext/upload"

	"mellium.im/xmpp/jid"
)

var _ upload.Store = (*DB)(nil)

// never stands for the end of what does not expire.
const never = math.MaxInt64

func expiry(t time.Time) int64 {
	if t.IsZero() {
		return never
	}
	return t.UnixMicro()
}

// usage is what the files count that have not expired: the kept total without those that have, which do not stay for long.
const usage = `(SELECT t.charge - coalesce((SELECT CAST(sum(e.charge) AS BIGINT) FROM upload e WHERE e.account_id = t.account_id AND e.bucket = t.bucket AND e.expires <= $1), 0)
	FROM upload_total t WHERE t.bucket = $2 AND t.account_id = `

const (
	usageOf   = usage + "(SELECT id FROM account WHERE domain = $3 AND localpart = $4))"
	usageByID = usage + "$3)"
)

// retryFiles is how many of the files that expire first are looked at. chosen: some milliseconds; whoever has more is not told a time.
const retryFiles = 10_000

// retryText finds the first time at which those that have expired by then leave room.
const retryText = `SELECT f.expires FROM (SELECT u.expires, sum(u.charge) OVER (ORDER BY u.expires) AS freed FROM (SELECT o.expires, o.charge
	FROM upload o WHERE o.account_id = (SELECT id FROM account WHERE domain = $3 AND localpart = $4) AND o.bucket = $2 AND o.expires > $1 ORDER BY o.expires LIMIT $6) u) f,
	(SELECT ` + usageOf + ` AS used) n WHERE n.used > $5 AND f.freed >= n.used - $5 ORDER BY f.expires LIMIT 1`

// UploadUsage returns what an account's files of a bucket that have not expired count.
func (db *DB) UploadUsage(ctx context.Context, account jid.JID, b upload.Bucket, now time.Time) (used int64, err error) {
	err = db.read(ctx, "UploadUsage", func(q queries) error {
		used = 0
		_, err := q.row("SELECT coalesce("+usageOf+", 0)", []any{now.UnixMicro(), int(b), account.Domainpart(), account.Localpart()}, &used)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("uploads of %s: %w", account, err)
	}
	return used, nil
}

// UploadRetry returns when so many of those files will have expired that the others count at most room; the zero time for never, and when more than
// some thousand have to expire.
func (db *DB) UploadRetry(ctx context.Context, account jid.JID, b upload.Bucket, room int64, now time.Time) (at time.Time, err error) {
	err = db.read(ctx, "UploadRetry", func(q queries) error {
		at = time.Time{}
		var micro int64
		found, err := q.row(retryText, []any{now.UnixMicro(), int(b), account.Domainpart(), account.Localpart(), room, retryFiles}, &micro)
		if found && micro != never {
			at = time.UnixMicro(micro).UTC()
		}
		return err
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("uploads of %s: %w", account, err)
	}
	return at, nil
}

// BeginUpload notes a file that is about to be stored: upload.ErrQuota, ErrUsed or ErrGone.
func (db *DB) BeginUpload(ctx context.Context, f upload.File, quota int64, deadline time.Time) error {
	err := db.write(ctx, func(q queries) error {
		var account int64
		found, err := q.row(db.e.lockAccount, []any{f.Account.Domainpart(), f.Account.Localpart()}, &account)
		if err != nil {
			return err
		}
		if !found {
			return refuse(upload.ErrGone)
		}
		if !f.Granted.IsZero() {
			var id int64
			younger, err := q.row("SELECT id FROM account WHERE id = $1 AND created > $2", []any{account, f.Granted.UnixMicro()}, &id)
			if err != nil {
				return err
			}
			if younger {
				return refuse(upload.ErrGone)
			}
		}
		charge := upload.Charge(f.Size)
		if quota > 0 {
			var used int64
			if _, err := q.row("SELECT coalesce("+usageByID+", 0)", []any{f.Stored.UnixMicro(), int(f.Bucket), account}, &used); err != nil {
				return err
			}
			if used > quota-charge {
				return refuse(upload.ErrQuota)
			}
		}
		n, err := q.exec(`INSERT INTO upload (id, account_id, bucket, size, charge, type, stored, expires) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (id) DO NOTHING`, f.ID, account, int(f.Bucket), f.Size, charge, f.Type, f.Stored.UnixMicro(), deadline.UnixMicro())
		if err == nil && n == 0 {
			err = refuse(upload.ErrUsed)
		}
		if err != nil {
			return err
		}
		_, err = q.exec(`INSERT INTO upload_total (account_id, bucket, charge) VALUES ($1, $2, $3)
			ON CONFLICT (account_id, bucket) DO UPDATE SET charge = upload_total.charge + excluded.charge`, account, int(f.Bucket), charge)
		return err
	})
	if err != nil {
		return fmt.Errorf("begin upload of %s: %w", f.Account, err)
	}
	return nil
}

// FinishUpload makes a file be served, and the oldest of its bucket expire that count more than keep with it: upload.ErrGone.
func (db *DB) FinishUpload(ctx context.Context, f upload.File, keep int64) error {
	err := db.write(ctx, func(q queries) error {
		var account int64
		found, err := q.row(db.e.lockAccount, []any{f.Account.Domainpart(), f.Account.Localpart()}, &account)
		if err != nil {
			return err
		}
		if !found {
			return refuse(upload.ErrGone)
		}
		n, err := q.exec("UPDATE upload SET finished = TRUE, expires = $3 WHERE id = $1 AND account_id = $2", f.ID, account, expiry(f.Expires))
		if err != nil {
			return err
		}
		if n == 0 {
			return refuse(upload.ErrGone)
		}
		if keep <= 0 {
			return nil
		}
		var old []string
		var total int64
		if err := q.rows("SELECT id, charge FROM upload WHERE account_id = $1 AND bucket = $2 AND finished AND expires > $3 ORDER BY stored DESC, id",
			[]any{account, int(f.Bucket), f.Stored.UnixMicro()},
			func(scan func(...any) error) error {
				var id string
				var charge int64
				if err := scan(&id, &charge); err != nil {
					return err
				}
				if total += charge; total > keep && id != f.ID {
					old = append(old, id)
				}
				return nil
			}); err != nil {
			return err
		}
		for _, id := range old {
			if _, err := q.exec("UPDATE upload SET expires = 0 WHERE id = $1", id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("finish upload of %s: %w", f.Account, err)
	}
	return nil
}

// Upload returns a file that has been finished.
func (db *DB) Upload(ctx context.Context, id string) (f upload.File, found bool, err error) {
	err = db.read(ctx, "Upload", func(q queries) error {
		var localpart, domain string
		var bucket int
		var stored, expires int64
		var err error
		f = upload.File{ID: id}
		found, err = q.row(`SELECT a.localpart, a.domain, u.bucket, u.size, u.type, u.stored, u.expires FROM upload u JOIN account a ON a.id = u.account_id
			WHERE u.id = $1 AND u.finished`, []any{id}, &localpart, &domain, &bucket, &f.Size, &f.Type, &stored, &expires)
		if err != nil || !found {
			return err
		}
		f.Account, err = jid.New(localpart, domain, "")
		f.Bucket, f.Stored = upload.Bucket(bucket), time.UnixMicro(stored).UTC()
		if expires != never {
			f.Expires = time.UnixMicro(expires).UTC()
		}
		return err
	})
	if err != nil {
		return upload.File{}, false, fmt.Errorf("upload: %w", err)
	}
	return f, found, nil
}

// AbandonUploads makes those expire that were not finished.
func (db *DB) AbandonUploads(ctx context.Context) error {
	err := db.write(ctx, func(q queries) error {
		_, err := q.exec("UPDATE upload SET expires = 0 WHERE NOT finished")
		return err
	})
	if err != nil {
		return fmt.Errorf("abandon uploads: %w", err)
	}
	return nil
}

// DoomedUploads returns ids of files to remove.
func (db *DB) DoomedUploads(ctx context.Context, now time.Time, limit int) (ids []string, err error) {
	err = db.read(ctx, "DoomedUploads", func(q queries) error {
		ids = nil
		return q.rows(`SELECT id FROM removed_upload UNION ALL SELECT id FROM upload WHERE expires <= $1 LIMIT $2`, []any{now.UnixMicro(), limit},
			func(scan func(...any) error) error {
				var id string
				err := scan(&id)
				ids = append(ids, id)
				return err
			})
	})
	if err != nil {
		return nil, fmt.Errorf("doomed uploads: %w", err)
	}
	return ids, nil
}

// ForgetUploads removes everything that is known of files.
func (db *DB) ForgetUploads(ctx context.Context, ids ...string) error {
	err := db.write(ctx, func(q queries) error {
		for _, id := range ids {
			var account, charge int64
			var bucket int
			found, err := q.row("DELETE FROM upload WHERE id = $1 RETURNING account_id, bucket, charge", []any{id}, &account, &bucket, &charge)
			if err == nil && found {
				_, err = q.exec("UPDATE upload_total SET charge = charge - $3 WHERE account_id = $1 AND bucket = $2", account, bucket, charge)
			}
			if err != nil {
				return err
			}
			if _, err := q.exec("DELETE FROM removed_upload WHERE id = $1", id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("forget uploads: %w", err)
	}
	return nil
}
