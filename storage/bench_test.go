package storage_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"balcony/roster"
	"balcony/storage"
	"balcony/storage/storagetest/pgtest"
	"balcony/xmpp"
	"balcony/xmpp/auth"

	"mellium.im/xmpp/jid"
)

// The benchmarks report the CPU of this process, that of the kernel on its behalf included: cpu-ns/op. With PostgreSQL the server's is
// not in it.

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure reports the CPU time that the loop of the benchmark takes.
func measure(b *testing.B, loop func()) {
	b.Helper()
	b.ResetTimer()
	start := cpuTime(b)
	loop()
	b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/float64(b.N), "cpu-ns/op")
	b.StopTimer()
}

// databases runs a benchmark on a file of SQLite and on PostgreSQL with fsync, with 1,000 accounts.
func databases(b *testing.B, run func(b *testing.B, db *storage.DB, accounts []jid.JID)) {
	limits := storage.DefaultLimits()
	limits.OfflineMessages, limits.OfflineBytes = 1<<30, 1<<40
	for _, c := range []struct {
		name string
		cfg  func() storage.Config
	}{
		{"SQLite", storage.DefaultConfig},
		{"PostgreSQL", func() storage.Config { return storage.Config{Driver: "postgres", DSN: pgtest.New(b, true).Database(b)} }},
	} {
		b.Run(c.name, func(b *testing.B) {
			db := open(b, c.cfg(), b.TempDir(), limits)
			accounts := make([]jid.JID, 1000)
			var wg sync.WaitGroup
			for i := range accounts {
				accounts[i] = jid.MustParse(fmt.Sprintf("account%d@montague.example", i))
				wg.Go(func() {
					if err := db.CreateAccount(context.Background(), accounts[i], []auth.Verifier{{Mechanism: "SCRAM-SHA-256", Salt: make([]byte, 16), StoredKey: make([]byte, 32), ServerKey: make([]byte, 32)}}); err != nil {
						b.Error(err)
					}
				})
			}
			wg.Wait()
			run(b, db, accounts)
		})
	}
}

// chat is a chat message of about 430 bytes.
func chat(to jid.JID) *xmpp.Stanza {
	s := xmpp.New(xmpp.Message, "chat", to, jid.MustParse("juliet@capulet.example/balcony"), xmpp.El("", "body").Say(strings.Repeat("wherefore ", 20)),
		xmpp.El("urn:xmpp:receipts", "request"), xmpp.El("http://jabber.org/protocol/chatstates", "active"))
	s.ID = "8f7a0d1c-9a3e-4b7f"
	return s
}

// BenchmarkAppendOffline stores messages for different accounts, each sender waiting for its commit.
func BenchmarkAppendOffline(b *testing.B) {
	databases(b, func(b *testing.B, db *storage.DB, accounts []jid.JID) {
		for _, senders := range []int{1, 10, 100} {
			b.Run(fmt.Sprintf("senders=%d", senders), func(b *testing.B) {
				b.ReportAllocs()
				ctx := context.Background()
				measure(b, func() {
					var wg sync.WaitGroup
					for s := range senders {
						wg.Go(func() {
							for i := s; i < b.N; i += senders {
								to := accounts[i%len(accounts)]
								if err := db.AppendOffline(ctx, to, time.Now(), chat(to)).Wait(ctx); err != nil {
									b.Error(err)
									return
								}
							}
						})
					}
					wg.Wait()
				})
			})
		}
	})
}

// BenchmarkAppendOfflineAt stores messages that arrive at a steady rate; nobody waits.
func BenchmarkAppendOfflineAt(b *testing.B) {
	databases(b, func(b *testing.B, db *storage.DB, accounts []jid.JID) {
		for _, rate := range []int{200, 2000} {
			b.Run(fmt.Sprintf("rate=%d", rate), func(b *testing.B) {
				ticker := time.NewTicker(time.Second / time.Duration(rate))
				defer ticker.Stop()
				measure(b, func() {
					var wg sync.WaitGroup
					wg.Add(b.N)
					for i := range b.N {
						<-ticker.C
						to := accounts[i%len(accounts)]
						db.AppendOffline(context.Background(), to, time.Now(), chat(to)).Then(func(err error) {
							if err != nil {
								b.Error(err)
							}
							wg.Done()
						})
					}
					wg.Wait()
				})
			})
		}
	})
}

// BenchmarkDeliverOffline reads and removes spools of 20 messages; an operation is one message.
func BenchmarkDeliverOffline(b *testing.B) {
	databases(b, func(b *testing.B, db *storage.DB, accounts []jid.JID) {
		const each = 20
		ctx := context.Background()
		var wg sync.WaitGroup
		for i := range (b.N/each + 1) * each {
			wg.Add(1)
			to := accounts[i/each%len(accounts)]
			db.AppendOffline(ctx, to, time.Now(), chat(to)).Then(func(err error) {
				if err != nil {
					b.Error(err)
				}
				wg.Done()
			})
			if i%10_000 == 0 {
				wg.Wait()
			}
		}
		wg.Wait()
		b.ReportAllocs()
		measure(b, func() {
			for n := 0; n < b.N; n += each {
				account := accounts[n/each%len(accounts)]
				entries, err := db.Offline(ctx, account, 0, each)
				if err != nil {
					b.Fatal(err)
				}
				if len(entries) == 0 {
					b.Fatal("nothing to deliver")
				}
				if err := db.RemoveOffline(ctx, account, entries[len(entries)-1].ID); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

// BenchmarkLogin reads what a login needs: verifiers, roster, block list and spool.
func BenchmarkLogin(b *testing.B) {
	databases(b, func(b *testing.B, db *storage.DB, accounts []jid.JID) {
		ctx := context.Background()
		for _, contacts := range []int{0, 20, 200} {
			account := accounts[contacts]
			for i := range contacts {
				if _, err := db.UpdateItem(ctx, account, accounts[i], func(item *roster.Item) bool {
					item.Listed, item.To, item.From, item.Name, item.Groups = true, true, true, fmt.Sprint("Contact ", i), []string{"Friends"}
					return true
				}); err != nil {
					b.Fatal(err)
				}
			}
			b.Run(fmt.Sprintf("contacts=%d", contacts), func(b *testing.B) {
				b.ReportAllocs()
				measure(b, func() {
					for range b.N {
						_, err1 := db.Verifiers(ctx, account)
						items, _, err2 := db.Roster(ctx, account)
						_, err3 := db.Blocked(ctx, account)
						_, err4 := db.Offline(ctx, account, 0, 50)
						if err1 != nil || err2 != nil || err3 != nil || err4 != nil || len(items) != contacts {
							b.Fatal(err1, err2, err3, err4, len(items))
						}
					}
				})
			})
		}
	})
}
