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
	"balcony/xmpp/ext/pubsub"
	"balcony/xmpp/ext/upload"

	"mellium.im/xmpp/jid"
)

// planned is a database whose plans are looked at.
type planned struct {
	name, explain string
	measured      string // explain, with what the steps have done
	cfg           func(testing.TB) Config
	analyze       string
	bad           []string // what no plan of a page has
	owner         string   // the indexes that must be used: for nobody in particular,
	peer          string   // a bare JID,
	resource      string   // a full one,
	files         string   // for uploads,
	nodes         string   // and for the nodes of a service
}

var plannedOn = []planned{
	{"SQLite", "EXPLAIN QUERY PLAN ", "EXPLAIN QUERY PLAN ", sqliteFile, "", []string{"TEMP B-TREE", "SCAN e", "SCAN m", "SCAN account"}, "PRIMARY KEY", "INDEX archive_entry_peer",
		"INDEX archive_entry_resource", "USING COVERING INDEX upload_account", "INDEX pubsub_node_order (service=? AND id>? AND id<?)"},
	{"PostgreSQL", "EXPLAIN ", "EXPLAIN (ANALYZE, COSTS OFF, BUFFERS) ", postgres, "ANALYZE", []string{"Sort", "Seq Scan on archive_entry", "Seq Scan on message"}, "archive_entry_pkey", "archive_entry_peer",
		"archive_entry_resource", "using upload_account", "using pubsub_node_order"},
}

// plan is the plan of a page, as the database prints it.
func (c planned) plan(t testing.TB, db *DB, text string, args []any) string {
	t.Helper()
	var lines []string
	must(t, db.readWith(context.Background(), "plan", &db.pager, func(q queries) error {
		return q.rows(text, args, func(scan func(...any) error) error {
			var line string
			var n any
			if c.name == "SQLite" {
				if err := scan(&n, &n, &n, &line); err != nil {
					return err
				}
			} else if err := scan(&line); err != nil {
				return err
			}
			lines = append(lines, line)
			return nil
		})
	}))
	return strings.Join(lines, "\n")
}

// A page of an archive is found through an index and comes out of it in its order, whatever the conditions: its cost does not grow with the
// archive. The same goes for the quota of uploads and an account's files.
func TestPlans(t *testing.T) {
	romeo := jid.MustParse("romeo@localhost")
	for _, c := range plannedOn {
		t.Run(c.name, func(t *testing.T) {
			db := openTest(t, c.cfg(t), t.TempDir())
			ctx := limited(t)
			for i := range 20 {
				must(t, db.CreateAccount(ctx, jid.MustParse(fmt.Sprintf("a%d@localhost", i)), nil))
			}
			must(t, db.CreateAccount(ctx, romeo, nil))
			var last *xmpp.Commit
			for i := range 6000 {
				owner, peer := romeo, jid.MustParse(fmt.Sprintf("p%d@localhost/x", i%5))
				if i%3 == 0 {
					owner = jid.MustParse(fmt.Sprintf("a%d@localhost", i%20))
				}
				s := xmpp.New(xmpp.Message, "chat", owner, peer, xmpp.El("", "body").Say("hi"))
				last = db.AppendMessage(ctx, mam.Item{Owner: owner, Peer: peer, Stanza: s, Stamp: time.Now(), Archived: true}).Commit
			}
			must(t, last.Wait(ctx))
			if c.analyze != "" {
				must(t, db.write(ctx, func(q queries) error { _, err := q.exec(c.analyze); return err }))
			}
			check := func(what, text string, args []any, index string, bad ...string) {
				t.Helper()
				got := c.plan(t, db, c.explain+text, args)
				for _, bad := range bad {
					if strings.Contains(got, bad) {
						t.Errorf("%s: %s\nuses %q:\n%s", what, text, bad, got)
					}
				}
				if !strings.Contains(got, index) {
					t.Errorf("%s: %s\ndoes not use %s:\n%s", what, text, index, got)
				}
			}
			p, full := db.ids.peer(jid.MustParse("p2@localhost/x"))
			from := time.Now().Add(-time.Second).UnixMicro()
			for exact, texts := range db.queries {
				index := c.peer
				switch exact {
				case 0:
					index = c.owner
				case 2:
					index = c.resource
				}
				for what, b := range map[string][4]int64{
					"everything": {0, math.MaxInt64, 0, math.MaxInt64},
					"from an id": {from, math.MaxInt64, 0, math.MaxInt64},
					"up to one":  {0, from, 0, math.MaxInt64},
					"a time":     {from, from + 2_000_000, from, from + 1_000_000},
				} {
					limits := bounds{after: b[0], before: b[1], start: b[2], end: b[3], peer: p, full: full, exact: exact}
					args := limits.args(romeo)
					check(what, texts.page, append(args[:len(args):len(args)], 51), index, c.bad...)
					check(what, texts.back, append(args[:len(args):len(args)], 51), index, c.bad...)
					check(what, texts.count, append(args[:len(args):len(args)], 1000), index, c.bad...)
					check(what, texts.all, append(append(args[:4:4], args[6:]...), 1000), index, c.bad...)
				}
			}
			check("an id", archivedText, []any{romeo.Domainpart(), romeo.Localpart(), from}, c.owner, c.bad...)
			// The quota of uploads does not read a row a file.
			for i := range 900 {
				f := upload.File{ID: fmt.Sprintf("%026d", i), Account: romeo, Size: 1, Stored: time.Now()}
				if i%3 > 0 {
					f.Account = jid.MustParse(fmt.Sprintf("a%d@localhost", i%20))
				}
				deadline := time.Now().Add(time.Duration(i) * time.Second)
				if i%100 == 0 {
					deadline = time.Now().Add(-time.Hour) // expired, and not yet forgotten
				}
				must(t, db.BeginUpload(ctx, f, 0, deadline))
			}
			if c.analyze != "" {
				must(t, db.write(ctx, func(q queries) error { _, err := q.exec(c.analyze); return err }))
			}
			// A page of a service's nodes reads those alone, wherever they lie among the nodes of accounts.
			service := jid.MustParse("pubsub.localhost")
			for i := range 600 {
				of := jid.MustParse(fmt.Sprintf("a%d@localhost", i%20))
				if i%10 == 0 {
					of = service
				}
				must(t, db.CreatePubSubNode(ctx, of, pubsub.Node{Name: fmt.Sprint("n", i), Creator: romeo, Created: time.Now()}))
			}
			if c.analyze != "" {
				must(t, db.write(ctx, func(q queries) error { _, err := q.exec(c.analyze); return err }))
			}
			nodes := []any{nameDigest(service.String()), nameDigest(romeo.String()), 0, int64(1 << 62), 2}
			for _, back := range []bool{false, true} {
				check("nodes", db.e.nodePageText(back), nodes, c.nodes, "TEMP B-TREE", "SCAN n", "SCAN a", "Sort", "Seq Scan on pubsub_node", "Seq Scan on pubsub_affiliation")
			}
			args := []any{time.Now().UnixMicro(), 0, romeo.Domainpart(), romeo.Localpart(), int64(10), retryFiles}
			check("usage", "SELECT "+usageOf, args[:4], c.files, "SCAN e", "SCAN t", "Seq Scan on upload ")
			check("retry", retryText, args, c.files, "SCAN o", "Seq Scan on upload ")
		})
	}
}
