package storage

import (
	"context"
	"fmt"
	"math"
	"strings"
	"syscall"
	"testing"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/ext/mam"

	"mellium.im/xmpp/jid"
)

// fillArchive gives juliet an archive of n messages of 430 bytes, one a minute: every tenth with nurse, every ten-thousandth with friar, and the others
// with romeo, all sent from the resource x but for one in ten thousand of romeo's. It returns the time of the first.
func fillArchive(tb testing.TB, db *DB, juliet jid.JID, n int) time.Time {
	ctx := context.Background()
	must(tb, db.CreateAccount(ctx, juliet, nil))
	s := xmpp.New(xmpp.Message, "chat", jid.MustParse("romeo@localhost/x"), juliet, xmpp.El("", "body").Say(strings.Repeat("x", 330)))
	var digests []any // each bare JID's before that of its resource
	for i, j := range []string{"romeo@localhost/x", "romeo@localhost/rare", "nurse@localhost/x", "friar@localhost/x"} {
		bare, full := db.ids.peer(jid.MustParse(j))
		if i != 1 { // romeo's again
			digests = append(digests, bare)
		}
		digests = append(digests, full)
	}
	first := time.Now().Add(-time.Duration(n) * time.Minute).Truncate(time.Minute)
	const portion = 20_000
	for from := 0; from < n; from += portion {
		must(tb, db.write(ctx, func(q queries) error {
			account, err := db.accountID(q, juliet)
			if err != nil {
				return err
			}
			const numbers = "WITH RECURSIVE n (i) AS (SELECT CAST($1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < $2) "
			base := first.UnixMicro()
			if _, err := q.exec(numbers+"INSERT INTO message (id, stamp, stanza) SELECT CAST($3 AS BIGINT) + i * 60000000, CAST($3 AS BIGINT) + i * 60000000, $4 FROM n",
				from, min(from+portion, n)-1, base, s.AppendTo(nil)); err != nil {
				return err
			}
			_, err = q.exec(numbers+`INSERT INTO archive_entry (account_id, id, message_id, peer, resource, flags)
				SELECT CAST($3 AS BIGINT), CAST($4 AS BIGINT) + i * 60000000, CAST($4 AS BIGINT) + i * 60000000,
				CASE WHEN i % 10000 = 5 THEN CAST($10 AS BIGINT) WHEN i % 10 = 1 THEN CAST($8 AS BIGINT) ELSE CAST($5 AS BIGINT) END,
				CASE WHEN i % 10000 = 5 THEN CAST($11 AS BIGINT) WHEN i % 10 = 1 THEN CAST($9 AS BIGINT) WHEN i % 10000 = 7 THEN CAST($7 AS BIGINT) ELSE CAST($6 AS BIGINT) END, 1 FROM n`,
				append([]any{from, min(from+portion, n) - 1, account, base}, digests...)...)
			return err
		}))
	}
	return first
}

// BenchmarkArchivePages reads pages of an archive of 1,000 messages, and of one of a million. The plans are those that TestPlans looks at.
//
//	go test ./storage -run '^$' -bench ArchivePages -benchtime 300x -v
func BenchmarkArchivePages(b *testing.B) {
	for _, c := range plannedOn {
		b.Run(c.name, func(b *testing.B) {
			for _, n := range []int{1000, 1_000_000} {
				b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkPages(b, c, n) })
			}
		})
	}
}

// logPlans logs the plans of what benchmarkPages asks for, from the middle.
func logPlans(b *testing.B, c planned, db *DB, juliet jid.JID, middle int64) {
	for exact, texts := range db.queries {
		limits := bounds{after: middle, before: math.MaxInt64, start: math.MinInt64, end: math.MaxInt64, exact: exact}
		limits.peer, limits.full = db.ids.peer(jid.MustParse("romeo@localhost/rare"))
		args := limits.args(juliet)
		for _, text := range []string{texts.page, texts.back} {
			b.Logf("%s\n%s", text, c.plan(b, db, c.measured+text, append(args[:len(args):len(args)], 51)))
		}
		b.Logf("%s\n%s", texts.all, c.plan(b, db, c.measured+texts.all, append(append(args[:4:4], args[6:]...), 1000)))
	}
}

// cpuTime is what this process has used; that of PostgreSQL is not in it.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchmarkPages(b *testing.B, c planned, n int) {
	db := openTest(b, c.cfg(b), b.TempDir())
	ctx := context.Background()
	juliet, romeo := jid.MustParse("juliet@localhost"), jid.MustParse("romeo@localhost")
	first := fillArchive(b, db, juliet, n)
	if c.analyze != "" {
		must(b, db.write(ctx, func(q queries) error { _, err := q.exec(c.analyze); return err }))
	}
	at := func(i int) string { return db.ids.id(juliet, first.UnixMicro()+int64(i)*60_000_000) }
	if n == 1_000_000 {
		logPlans(b, c, db, juliet, first.UnixMicro()+int64(n/2)*60_000_000)
	}
	middle := first.Add(time.Duration(n/2) * time.Minute)
	var ids []string
	for i := range 50 {
		ids = append(ids, at(n*i/50))
	}
	full := func(resource string) jid.JID { return jid.MustParse("romeo@localhost/" + resource) }
	for _, q := range []struct {
		name string
		want int // messages
		q    mam.Query
	}{
		{"first", 50, mam.Query{Max: 50, Count: 1000}},
		{"last", 50, mam.Query{Max: 50, Count: 1000, Backward: true}},
		{"after", 50, mam.Query{Max: 50, After: []string{at(n / 2)}}},
		{"before", 50, mam.Query{Max: 50, Before: []string{at(n / 2)}, Backward: true}},
		{"with-first", 50, mam.Query{Max: 50, Count: 1000, With: romeo}},
		{"with-last", 50, mam.Query{Max: 50, Count: 1000, With: romeo, Backward: true}},
		{"with-after", 50, mam.Query{Max: 50, With: romeo, After: []string{at(n / 2)}}},
		{"with-rare", min(50, (n+9994)/10000), mam.Query{Max: 50, Count: 1000, With: jid.MustParse("friar@localhost")}},
		{"with-full", 50, mam.Query{Max: 50, Count: 1000, With: full("x")}},
		{"with-full-rare", min(50, (n+9992)/10000), mam.Query{Max: 50, Count: 1000, With: full("rare")}},
		{"with-full-none", 0, mam.Query{Max: 50, Count: 1000, With: full("none"), Backward: true}},
		{"window", 50, mam.Query{Max: 50, Count: 1000, Start: middle, End: middle.Add(100 * time.Minute)}},
		{"start", 50, mam.Query{Max: 50, Count: 1000, Start: middle}},
		{"end-last", 50, mam.Query{Max: 50, Count: 1000, End: middle, Backward: true}},
		{"with-window", 50, mam.Query{Max: 50, Count: 1000, With: romeo, Start: middle, End: middle.Add(100 * time.Minute), Backward: true}},
		{"ids", 50, mam.Query{Max: 50, Count: 1000, IDs: ids}},
		{"count", 0, mam.Query{Count: 100_000}},
		{"count-with", 0, mam.Query{Count: 100_000, With: romeo}},
		{"count-start", 0, mam.Query{Count: 100_000, Start: first}},
	} {
		b.Run(q.name, func(b *testing.B) {
			b.ReportAllocs()
			start := cpuTime(b)
			for range b.N {
				page, err := db.QueryArchive(ctx, juliet, q.q)
				if err != nil || len(page.Messages) != q.want {
					b.Fatalf("%d messages, %v", len(page.Messages), err)
				}
			}
			b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}
