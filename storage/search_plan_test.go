package storage

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/ext/mam"

	"mellium.im/xmpp/jid"
)

// A search reads no more than what is the owner's. SQLite goes through the messages with the words in their order and stops where the page is full.
func TestSearchPlans(t *testing.T) {
	for _, c := range plannedOn {
		t.Run(c.name, func(t *testing.T) {
			db := openTest(t, c.cfg(t), t.TempDir())
			ctx := limited(t)
			var last *xmpp.Commit
			for i := range 3000 {
				owner, peer := jid.MustParse(fmt.Sprintf("a%d@localhost", i%10)), jid.MustParse("juliet@capulet.example")
				if i < 10 {
					must(t, db.CreateAccount(ctx, owner, nil))
				}
				s := xmpp.New(xmpp.Message, "chat", owner, peer, xmpp.El("", "body").Say(fmt.Sprint("hi ", i)))
				last = db.AppendMessage(ctx, mam.Item{Owner: owner, Peer: peer, Stanza: s, Stamp: time.Now(), Archived: true}).Commit
			}
			must(t, last.Wait(ctx))
			must(t, db.SetSearch(ctx, []string{"localhost"}))
			must(t, db.indexUpTo(ctx, "localhost", db.LastOrder()))
			if c.analyze != "" {
				must(t, db.write(ctx, func(q queries) error { _, err := q.exec(c.analyze); return err }))
			}
			terms, _ := mam.Terms("hi")
			b := bounds{before: math.MaxInt64, end: math.MaxInt64}
			for _, text := range []string{db.searches.page, db.searches.back, db.searches.count} {
				var plan strings.Builder
				must(t, db.readWith(context.Background(), "plan", &db.searcher, func(q queries) error {
					return q.rows(c.explain+text, append(db.searchArgs(1, db.e.text.expression(1, terms, b), b), 51), func(scan func(...any) error) error {
						var line string
						var n any
						dest := []any{&line}
						if c.name == "SQLite" {
							dest = []any{&n, &n, &n, &line}
						}
						err := scan(dest...)
						fmt.Fprintln(&plan, line)
						return err
					})
				}))
				got := plan.String()
				for _, bad := range []string{"Seq Scan on archive", "Seq Scan on message", "TEMP B-TREE", "SCAN e", "SCAN m"} {
					if strings.Contains(got, bad) {
						t.Errorf("%s\nuses %q:\n%s", text, bad, got)
					}
				}
			}
		})
	}
}
