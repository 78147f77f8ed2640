package storagetest

import (
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"balcony/storage"
	"balcony/xmpp/ext/upload"

	"mellium.im/xmpp/jid"
)

const block = 4096 // what a small file counts

// uploaded is a file with an id of its own.
func uploaded(account jid.JID, b upload.Bucket, size int64, expires time.Time) upload.File {
	return upload.File{ID: rand.Text(), Account: account, Bucket: b, Size: size, Type: `text/plain; charset=utf-8`, Stored: when, Expires: expires}
}

// testSlotsOfYoungerAccount: an account has no use of a slot that was given to one of its name before it.
func testSlotsOfYoungerAccount(t *testing.T, db *storage.DB) {
	j := account(t, db)
	f := uploaded(j, upload.Messages, 1, time.Time{})
	f.Granted = time.Now().Add(-time.Hour)
	wantErr(t, db.BeginUpload(withLimit(t), f, 0, when.Add(time.Hour)), upload.ErrGone)
	f.Granted = time.Now().Add(time.Second)
	must(t, db.BeginUpload(withLimit(t), f, 0, when.Add(time.Hour)))
}

func store(t testing.TB, db *storage.DB, f upload.File) upload.File {
	t.Helper()
	must(t, db.BeginUpload(withLimit(t), f, 0, f.Stored.Add(time.Hour)))
	must(t, db.FinishUpload(withLimit(t), f, 0))
	return f
}

func used(t testing.TB, db *storage.DB, account jid.JID, b upload.Bucket, now time.Time, want int64) {
	t.Helper()
	got, err := db.UploadUsage(withLimit(t), account, b, now)
	must(t, err)
	equal(t, "used", got, want)
}

func isDoomed(t testing.TB, db *storage.DB, now time.Time, f upload.File, want bool) {
	t.Helper()
	ids, err := db.DoomedUploads(withLimit(t), now, 1000)
	must(t, err)
	equal(t, "doomed", slices.Contains(ids, f.ID), want)
}

func testUploads(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, other := account(t, db), account(t, db)
	for _, f := range []upload.File{
		uploaded(j, upload.Messages, 5<<30, when.Add(time.Hour)),
		uploaded(j, upload.Profiles, 1, time.Time{}),
		uploaded(other, upload.Permanent, 7, time.Time{}),
	} {
		_, found, err := db.Upload(ctx, f.ID)
		must(t, err)
		equal(t, "found before", found, false)
		must(t, db.BeginUpload(ctx, f, 0, when.Add(time.Minute)))
		wantErr(t, db.BeginUpload(ctx, f, 0, when.Add(time.Minute)), upload.ErrUsed)
		_, found, err = db.Upload(ctx, f.ID)
		must(t, err)
		equal(t, "found before it is finished", found, false)
		used(t, db, f.Account, f.Bucket, when, upload.Charge(f.Size)) // it counts from its beginning
		isDoomed(t, db, when.Add(time.Minute-1), f, false)
		isDoomed(t, db, when.Add(time.Minute), f, true)
		must(t, db.FinishUpload(ctx, f, 0))
		got, found, err := db.Upload(ctx, f.ID)
		must(t, err)
		equal(t, "found", found, true)
		equal(t, "file", got, f)
		wantErr(t, db.BeginUpload(ctx, f, 0, when.Add(time.Minute)), upload.ErrUsed)
		isDoomed(t, db, when.Add(time.Minute), f, false)
		isDoomed(t, db, when.Add(time.Hour), f, !f.Expires.IsZero())
		used(t, db, f.Account, f.Bucket, when, upload.Charge(f.Size))
		if !f.Expires.IsZero() {
			used(t, db, f.Account, f.Bucket, f.Expires, 0)
		}
		must(t, db.ForgetUploads(ctx, f.ID, "NOBODY"))
		_, found, err = db.Upload(ctx, f.ID)
		must(t, err)
		equal(t, "found after it was forgotten", found, false)
		used(t, db, f.Account, f.Bucket, when, 0)
		wantErr(t, db.FinishUpload(ctx, f, 0), upload.ErrGone)
	}
	// What an earlier process has begun.
	begun, done := uploaded(j, upload.Messages, 1, time.Time{}), store(t, db, uploaded(j, upload.Messages, 1, time.Time{}))
	must(t, db.BeginUpload(ctx, begun, 0, when.Add(time.Minute)))
	must(t, db.AbandonUploads(ctx))
	isDoomed(t, db, when, begun, true)
	isDoomed(t, db, when, done, false)
	used(t, db, j, upload.Messages, when, block)
	ids, err := db.DoomedUploads(ctx, when, 0)
	must(t, err)
	equal(t, "ids", ids, nil)
	must(t, db.ForgetUploads(ctx, begun.ID, done.ID))
}

func testUploadsDeleted(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, other := account(t, db), account(t, db)
	f, begun, theirs := store(t, db, uploaded(j, upload.Messages, 1, time.Time{})), uploaded(j, upload.Profiles, 1, time.Time{}), store(t, db, uploaded(other, 0, 1, time.Time{}))
	must(t, db.BeginUpload(ctx, begun, 0, when.Add(time.Hour)))
	must(t, db.DeleteAccount(ctx, j))
	for _, f := range []upload.File{f, begun} {
		_, found, err := db.Upload(ctx, f.ID)
		must(t, err)
		equal(t, "found", found, false)
		isDoomed(t, db, when, f, true)
		wantErr(t, db.FinishUpload(ctx, f, 0), upload.ErrGone)
	}
	must(t, db.CreateAccount(ctx, j, nil)) // another one of the same name
	wantErr(t, db.FinishUpload(ctx, begun, 0), upload.ErrGone)
	isDoomed(t, db, when, theirs, false)
	must(t, db.ForgetUploads(ctx, f.ID, begun.ID))
	isDoomed(t, db, when, f, false)
	isDoomed(t, db, when, begun, false)
}

func testUploadQuota(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, other := account(t, db), account(t, db)
	const quota = 10 * block
	deadline := when.Add(time.Minute)
	retry := func(room int64, want time.Time) {
		t.Helper()
		at, err := db.UploadRetry(ctx, j, upload.Messages, room, when)
		must(t, err)
		equal(t, "retry", at, want)
	}
	for i := range 3 { // each of two blocks, the first expires first
		store(t, db, uploaded(j, upload.Messages, 2*block, when.Add(time.Duration(i+1)*time.Hour)))
	}
	store(t, db, uploaded(other, upload.Messages, 100*block, time.Time{}))
	store(t, db, uploaded(j, upload.Permanent, 100*block, time.Time{})) // another bucket
	retry(6*block, time.Time{})
	retry(6*block-1, when.Add(time.Hour))
	retry(3*block, when.Add(2*time.Hour))
	retry(0, when.Add(3*time.Hour))
	wantErr(t, db.BeginUpload(ctx, uploaded(j, upload.Messages, 4*block+1, time.Time{}), quota, deadline), upload.ErrQuota)
	wantErr(t, db.BeginUpload(ctx, uploaded(j, upload.Messages, 1<<62, time.Time{}), quota, deadline), upload.ErrQuota)
	must(t, db.BeginUpload(ctx, uploaded(j, upload.Messages, 4*block, time.Time{}), quota, deadline))
	wantErr(t, db.BeginUpload(ctx, uploaded(j, upload.Messages, 1, time.Time{}), quota, deadline), upload.ErrQuota)
	later := uploaded(j, upload.Messages, 2*block, time.Time{})
	later.Stored = when.Add(time.Hour) // the first two blocks and the begun file have expired
	must(t, db.BeginUpload(ctx, later, quota, later.Stored.Add(time.Minute)))
	must(t, db.FinishUpload(ctx, later, 0))
	retry(2*block-1, time.Time{}) // never

	// Many at once: exactly as many get through as fit.
	k := account(t, db)
	var through atomic.Int32
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			if db.BeginUpload(context.Background(), uploaded(k, upload.Messages, 1, time.Time{}), quota, deadline) == nil {
				through.Add(1)
			}
		})
	}
	wait.Wait()
	equal(t, "through", through.Load(), 10)
}

func testUploadsKept(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j := account(t, db)
	var all []upload.File
	for i := range 5 {
		f := uploaded(j, upload.Profiles, 1, time.Time{})
		f.Stored = when.Add(time.Duration(i) * time.Minute)
		must(t, db.BeginUpload(ctx, f, 0, when.Add(time.Hour)))
		must(t, db.FinishUpload(ctx, f, 3*block))
		all = append(all, f)
	}
	for i, f := range all {
		isDoomed(t, db, when, f, i < 2)
	}
	used(t, db, j, upload.Profiles, when, 3*block)
	// One that is as large as everything that may be kept, and one that is larger: it stays alone.
	for i, size := range []int64{3 * block, 5 * block} {
		f := uploaded(j, upload.Profiles, size, time.Time{})
		f.Stored = when.Add(time.Duration(10+i) * time.Minute)
		must(t, db.BeginUpload(ctx, f, 0, when.Add(time.Hour)))
		must(t, db.FinishUpload(ctx, f, 3*block))
		used(t, db, j, upload.Profiles, when, size)
	}
}

// testUploadTotals compares what is kept of the quota with the files themselves.
func testUploadTotals(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	owners := []jid.JID{account(t, db), account(t, db)}
	buckets := []upload.Bucket{upload.Messages, upload.Permanent}
	type file struct {
		upload.File
		owner   int
		expires time.Time // the zero time for never
	}
	files := make(map[string]file)
	r := mathrand.New(mathrand.NewPCG(1, 2))
	hours := func(n int) time.Time { return when.Add(time.Duration(n) * time.Hour) }
	for range 300 {
		switch op := r.IntN(10); {
		case op < 6:
			f := file{owner: r.IntN(2)}
			f.File = uploaded(owners[f.owner], buckets[r.IntN(2)], r.Int64N(5*block), time.Time{})
			if r.IntN(3) > 0 {
				f.Expires = hours(1 + r.IntN(10)) // some at the same time
			}
			f.expires = hours(5)
			must(t, db.BeginUpload(ctx, f.File, 0, f.expires))
			wantErr(t, db.BeginUpload(ctx, f.File, 0, f.expires), upload.ErrUsed) // does not count again
			if r.IntN(4) > 0 {
				must(t, db.FinishUpload(ctx, f.File, 0))
				f.expires = f.Expires
			}
			files[f.ID] = f
		case op < 9:
			for id := range files {
				must(t, db.ForgetUploads(ctx, id, id, "NOBODY"))
				delete(files, id)
				break
			}
		default:
			now := hours(r.IntN(11))
			for i, owner := range owners {
				for _, b := range buckets {
					var want int64
					ends := make(map[time.Time]int64)
					for _, f := range files {
						if f.owner == i && f.Bucket == b && (f.expires.IsZero() || f.expires.After(now)) {
							want += upload.Charge(f.Size)
							ends[f.expires] += upload.Charge(f.Size)
						}
					}
					used(t, db, owner, b, now, want)
					room := r.Int64N(20 * block)
					var retry time.Time
					left := want
					for n := range 11 {
						if at := hours(n); left > room && ends[at] > 0 {
							if left -= ends[at]; left <= room {
								retry = at
							}
						}
					}
					got, err := db.UploadRetry(ctx, owner, b, room, now)
					must(t, err)
					equal(t, "retry", got, retry)
				}
			}
		}
	}
	must(t, db.DeleteAccount(ctx, owners[0]))
	must(t, db.CreateAccount(ctx, owners[0], nil))
	used(t, db, owners[0], upload.Messages, when, 0)
	store(t, db, uploaded(owners[0], upload.Messages, 1, time.Time{}))
	used(t, db, owners[0], upload.Messages, when, block)
}
