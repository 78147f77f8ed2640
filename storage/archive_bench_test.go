package storage_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"balcony/storage"
	"balcony/xmpp"
	"balcony/xmpp/ext/mam"

	"mellium.im/xmpp/jid"
)

// appendArchived appends n messages of 430 bytes to each of two accounts, as the module does it for a message between them, and returns when they are synced.
func appendArchived(b *testing.B, db *storage.DB, from, to jid.JID, n int) {
	b.Helper()
	ctx := context.Background()
	var last *xmpp.Commit
	for range n {
		s := xmpp.New(xmpp.Message, "chat", to, from, xmpp.El("", "body").Say(strings.Repeat("x", 330)))
		k := db.AppendMessage(ctx, mam.Item{Owner: from, Peer: to, Stanza: s, Stamp: time.Now(), Sent: true, Archived: true})
		for k.Order == 0 { // the queue is full
			if err := last.Wait(ctx); err != nil {
				b.Fatal(err)
			}
			k = db.AppendMessage(ctx, mam.Item{Owner: from, Peer: to, Stanza: s, Stamp: time.Now(), Sent: true, Archived: true})
		}
		last = db.AppendMessage(ctx, mam.Item{Owner: to, Peer: from, Stanza: s.Kept(k.Order, 0), Stamp: time.Now(), Archived: true, Spool: true}).Commit
	}
	if err := last.Wait(ctx); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkArchive is a message of 430 bytes kept for both of its owners; bytes/msg is what the file grows by.
func BenchmarkArchive(b *testing.B) {
	dir := b.TempDir()
	db := open(b, storage.DefaultConfig(), dir, storage.DefaultLimits())
	accounts := make([]jid.JID, 200)
	for i := range accounts {
		accounts[i] = jid.MustParse(fmt.Sprintf("account%d@montague.example", i))
		if err := db.CreateAccount(context.Background(), accounts[i], nil); err != nil {
			b.Fatal(err)
		}
	}
	size := func() (n int64) {
		if info, err := os.Stat(filepath.Join(dir, "balcony.db")); err == nil {
			n = info.Size()
		}
		return n
	}
	before := size()
	measure(b, func() {
		for done := 0; done < b.N; done += 100 {
			i := done / 100 % 100
			appendArchived(b, db, accounts[2*i], accounts[2*i+1], min(100, b.N-done))
		}
	})
	b.ReportMetric(float64(size()-before)/float64(b.N), "bytes/msg")
}

// BenchmarkArchiveIndex is what a message that is kept for both of its owners costs beside that when both have full-text search: words as people use them, six of
// a small vocabulary and two that are rare.
func BenchmarkArchiveIndex(b *testing.B) {
	dir := b.TempDir()
	db := open(b, storage.DefaultConfig(), dir, storage.DefaultLimits())
	accounts := make([]jid.JID, 200)
	for i := range accounts {
		accounts[i] = jid.MustParse(fmt.Sprintf("account%d@montague.example", i))
		if err := db.CreateAccount(context.Background(), accounts[i], nil); err != nil {
			b.Fatal(err)
		}
	}
	var last *xmpp.Commit
	for n := range b.N {
		i := n % 100
		from, to := accounts[2*i], accounts[2*i+1]
		body := fmt.Sprintf("the w%d of w%d and w%d is rare%d but rare%d", n%50, n%97, n%203, n*7919%100_003, n)
		s := xmpp.New(xmpp.Message, "chat", to, from, xmpp.El("", "body").Say(body))
		k := db.AppendMessage(context.Background(), mam.Item{Owner: from, Peer: to, Stanza: s, Stamp: time.Now(), Sent: true, Archived: true})
		last = db.AppendMessage(context.Background(), mam.Item{Owner: to, Peer: from, Stanza: s.Kept(k.Order, 0), Stamp: time.Now(), Archived: true}).Commit
		if n%100 == 99 {
			if err := last.Wait(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := last.Wait(context.Background()); err != nil {
		b.Fatal(err)
	}
	size := func() (n int64) {
		if info, err := os.Stat(filepath.Join(dir, "balcony.db")); err == nil {
			n = info.Size()
		}
		return n
	}
	before := size()
	measure(b, func() {
		if err := db.SetSearch(context.Background(), []string{"montague.example"}); err != nil {
			b.Fatal(err)
		}
		for more := true; more; {
			var err error
			if more, err = db.IndexArchive(context.Background(), "montague.example", db.LastOrder(), 100); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64(size()-before)/float64(b.N), "bytes/msg")
}

// BenchmarkArchiveSearch reads the last 50 messages that have a word that all have, a beginning that a tenth has, and a word that ten have.
func BenchmarkArchiveSearch(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			db := open(b, storage.DefaultConfig(), b.TempDir(), storage.DefaultLimits())
			owner, peer := jid.MustParse("romeo@montague.example"), jid.MustParse("juliet@capulet.example/balcony")
			if err := db.CreateAccount(context.Background(), owner, nil); err != nil {
				b.Fatal(err)
			}
			var last *xmpp.Commit
			for i := range n {
				s := xmpp.New(xmpp.Message, "chat", owner, peer, xmpp.El("", "body").Say(fmt.Sprintf("the word%d or rare%d", i%10, i%(n/10))))
				last = db.AppendMessage(context.Background(), mam.Item{Owner: owner, Peer: peer, Stanza: s, Stamp: time.Now(), Archived: true}).Commit
				if i%1000 == 999 {
					if err := last.Wait(context.Background()); err != nil {
						b.Fatal(err)
					}
				}
			}
			if err := db.SetSearch(context.Background(), []string{"montague.example"}); err != nil {
				b.Fatal(err)
			}
			for _, q := range []struct{ name, words string }{{"all", "or"}, {"begins", "word7"}, {"ten", "rare3"}} {
				terms, _ := mam.Terms(q.words)
				search := func() {
					if _, err := db.QueryArchive(context.Background(), owner, mam.Query{Max: 50, Backward: true, Words: terms}); err != nil {
						b.Fatal(err)
					}
				}
				search() // what is not indexed yet is indexed first
				b.Run(q.name, func(b *testing.B) {
					measure(b, func() {
						for range b.N {
							search()
						}
					})
				})
			}
		})
	}
}

// BenchmarkArchiveRetract looks for a message that is not among 20,000 of a conversation: the most that a retraction costs.
func BenchmarkArchiveRetract(b *testing.B) {
	db := open(b, storage.DefaultConfig(), b.TempDir(), storage.DefaultLimits())
	from, to := jid.MustParse("romeo@montague.example/orchard"), jid.MustParse("juliet@montague.example")
	for _, j := range []jid.JID{from.Bare(), to} {
		if err := db.CreateAccount(context.Background(), j, nil); err != nil {
			b.Fatal(err)
		}
	}
	var last *xmpp.Commit
	for i := range 20_000 {
		s := xmpp.New(xmpp.Message, "chat", to, from, xmpp.El("", "body").Say(strings.Repeat("x", 330)))
		s.ID = fmt.Sprint("id", i)
		last = db.AppendMessage(context.Background(), mam.Item{Owner: to, Peer: from, Stanza: s, Stamp: time.Now(), Archived: true}).Commit
		if i%1000 == 999 {
			if err := last.Wait(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	}
	measure(b, func() {
		for range b.N {
			if err := db.RewriteMessages(context.Background(), to, from.Bare(), 10_000, "none", func(*xmpp.Stanza, bool) (*xmpp.Stanza, bool) { return nil, true }); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkArchivePage reads the last page of 50, of an archive of 1,000 and of one a hundred times as large.
func BenchmarkArchivePage(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			db := open(b, storage.DefaultConfig(), b.TempDir(), storage.DefaultLimits())
			from, to := jid.MustParse("romeo@montague.example/orchard"), jid.MustParse("juliet@montague.example")
			for _, j := range []jid.JID{from.Bare(), to} {
				if err := db.CreateAccount(context.Background(), j, nil); err != nil {
					b.Fatal(err)
				}
			}
			appendArchived(b, db, from.Bare(), to, n)
			for _, q := range []struct {
				name string
				q    mam.Query
			}{{"last", mam.Query{Max: 50, Backward: true, Count: 1000}}, {"with", mam.Query{Max: 50, With: from.Bare()}}} {
				b.Run(q.name, func(b *testing.B) {
					measure(b, func() {
						for range b.N {
							if _, err := db.QueryArchive(context.Background(), to, q.q); err != nil {
								b.Fatal(err)
							}
						}
					})
				})
			}
		})
	}
}

// BenchmarkUnsent is a message of 430 bytes that goes to another server: in the archive of its sender alone, with a row until the other server has it, which
// refers to the archive, and with a row that has the bytes, without an archive. written is what goes to the disk.
func BenchmarkUnsent(b *testing.B) {
	for _, c := range []struct {
		name            string
		archive, unsent bool
	}{{"archive", true, false}, {"archive and row", true, true}, {"row", false, true}} {
		b.Run(c.name, func(b *testing.B) {
			db := open(b, storage.DefaultConfig(), b.TempDir(), storage.DefaultLimits())
			ctx := context.Background()
			accounts := make([]jid.JID, 100)
			for i := range accounts {
				accounts[i] = jid.MustParse(fmt.Sprintf("account%d@montague.example", i))
				if err := db.CreateAccount(ctx, accounts[i], nil); err != nil {
					b.Fatal(err)
				}
			}
			to := jid.MustParse("juliet@capulet.example/balcony")
			wait := func(commits []*xmpp.Commit) {
				for _, c := range commits {
					if err := c.Wait(ctx); err != nil {
						b.Fatal(err)
					}
				}
			}
			before := written(b)
			measure(b, func() {
				var rows []int64
				for done := 0; done < b.N; done += 100 {
					var commits []*xmpp.Commit
					for i := range min(100, b.N-done) {
						s := xmpp.New(xmpp.Message, "chat", to, accounts[i], xmpp.El("", "body").Say(strings.Repeat("x", 330)))
						if c.archive {
							k := db.AppendMessage(ctx, mam.Item{Owner: accounts[i], Peer: to, Stanza: s, Stamp: time.Now(), Sent: true, Archived: true})
							commits = append(commits, k.Commit)
							s = s.Kept(k.Order, 0)
						}
						if c.unsent {
							row, commit := db.AppendUnsent(s, time.Now())
							commits = append(commits, commit)
							rows = append(rows, row)
						}
					}
					wait(commits)
					if len(rows) >= 1000 {
						if err := db.RemoveUnsent(ctx, rows); err != nil {
							b.Fatal(err)
						}
						rows = rows[:0]
					}
				}
			})
			b.ReportMetric(float64(written(b)-before)/float64(b.N), "written/msg")
		})
	}
}

// written is how many bytes this process has handed to the disk (proc_pid_io(5)).
func written(b *testing.B) int64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Fatal(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		if n, ok := strings.CutPrefix(line, "wchar: "); ok {
			v, err := strconv.ParseInt(n, 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return v
		}
	}
	b.Fatal("no figure")
	return 0
}
