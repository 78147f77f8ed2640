package xmpptest_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/storage/storagetest"
	"balcony/storage/storagetest/pgtest"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// Security promise 22: a deleted account leaves nothing behind. Two accounts use every store and each other; when one is deleted no row is its own,
// and when the other one is as well, so that nobody has a right to remember them, no value of any table names them.
func TestDeletionLeavesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		driver, tables string
		config         func(*testing.T, *config.Config) (dsn string)
	}{
		"SQLite": {"sqlite", "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'", func(t *testing.T, c *config.Config) string {
			c.Data, c.Storage.DSN = t.TempDir(), ""
			return filepath.Join(c.Data, "balcony.db")
		}},
		"PostgreSQL": {"postgres", "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'", func(t *testing.T, c *config.Config) string {
			c.Storage.Driver, c.Storage.DSN = "postgres", pgtest.Start(t)
			return c.Storage.DSN
		}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			dsn := ""
			srv := xmpptest.New(t, xmpptest.Config(func(cfg *config.Config) { dsn = c.config(t, cfg) }))
			db, err := sql.Open(c.driver, dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close() }()
			alice, bob := jid.MustParse("qqalice@localhost"), jid.MustParse("qqbob@localhost")
			ids := make(map[string]int64)
			for _, j := range []jid.JID{alice, bob} {
				storagetest.Fill(t, srv.DB(), j)
				if err := srv.Accounts().SetPassword(ctx, j, j.Localpart()); err != nil {
					t.Fatal(err)
				}
				var id int64
				if err := db.QueryRow("SELECT id FROM account WHERE localpart = '" + j.Localpart() + "'").Scan(&id); err != nil {
					t.Fatal(err)
				}
				ids[j.Localpart()] = id
			}
			together(srv, alice, bob)

			// rows counts the rows of which something is true.
			rows := func(is func(column, value string) bool) (found []string) {
				var tables []string
				list, err := db.Query(c.tables)
				if err != nil {
					t.Fatal(err)
				}
				for list.Next() {
					var table string
					if err := list.Scan(&table); err != nil {
						t.Fatal(err)
					}
					tables = append(tables, table)
				}
				if err := list.Err(); err != nil || len(tables) < 9 {
					t.Fatalf("%v, %v", tables, err)
				}
				for _, table := range tables {
					r, err := db.Query("SELECT * FROM " + table)
					if err != nil {
						t.Fatal(err)
					}
					columns, err := r.Columns()
					if err != nil {
						t.Fatal(err)
					}
					for r.Next() {
						values, to := make([]any, len(columns)), make([]any, len(columns))
						for i := range values {
							to[i] = &values[i]
						}
						if err := r.Scan(to...); err != nil {
							t.Fatal(err)
						}
						for i, v := range values {
							if b, ok := v.([]byte); ok {
								v = string(b)
							}
							if is(columns[i], fmt.Sprint(v)) {
								found = append(found, table+"."+columns[i])
							}
						}
					}
					if err := r.Err(); err != nil {
						t.Fatal(err)
					}
				}
				return found
			}
			of := func(j jid.JID) []string {
				return rows(func(column, value string) bool {
					return column == "account_id" && value == fmt.Sprint(ids[j.Localpart()]) || column == "localpart" && value == j.Localpart()
				})
			}
			if n := len(of(alice)); n < 10 {
				t.Fatalf("%d rows of an account that has used everything", n)
			}
			if err := srv.Accounts().Delete(ctx, alice); err != nil {
				t.Fatal(err)
			}
			if left := of(alice); len(left) > 0 {
				t.Errorf("rows of the deleted account: %v", left)
			}
			if err := srv.Accounts().Delete(ctx, bob); err != nil {
				t.Fatal(err)
			}
			if left := rows(func(_, value string) bool {
				return strings.Contains(value, "qqalice") || strings.Contains(value, "qqbob")
			}); len(left) > 0 {
				t.Errorf("values that name the deleted accounts: %v", left)
			}
		})
	}
}

// together lets two accounts leave traces in each other's data over the wire.
func together(srv *xmpptest.Server, alice, bob jid.JID) {
	a, b := srv.Client(alice.String()+"/a"), srv.Client(bob.String()+"/b")
	say := func(c *xmpptest.Client, stanzas ...string) {
		for _, s := range stanzas {
			c.Send(s)
		}
		c.Discard()
	}
	say(a, "<presence/>", "<presence type='subscribe' to='"+bob.String()+"'/>")
	say(b, "<presence/>", "<presence type='subscribed' to='"+alice.String()+"'/>", "<presence type='subscribe' to='"+alice.String()+"'/>")
	say(a, "<message type='chat' to='"+bob.String()+"' id='1'><body>hi</body></message>",
		"<iq type='set' id='2'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:x:mood'><item id='1'><mood xmlns='urn:x:mood'>qqalice</mood></item></publish></pubsub></iq>",
		"<iq type='set' id='3'><enable xmlns='urn:xmpp:push:0' jid='"+bob.String()+"/push' node='n'/></iq>",
		"<iq type='set' id='4'><query xmlns='jabber:iq:private'><x xmlns='urn:x'>qqbob</x></query></iq>",
		"<iq type='set' id='5'><vCard xmlns='vcard-temp'><FN>qqalice</FN></vCard></iq>")
	say(b, "<iq type='set' id='6'><pubsub xmlns='http://jabber.org/protocol/pubsub'><subscribe node='urn:x:mood' jid='"+bob.String()+"'/></pubsub></iq>",
		"<iq type='set' id='7' to='"+alice.String()+"'><pubsub xmlns='http://jabber.org/protocol/pubsub'><subscribe node='urn:x:mood' jid='"+bob.String()+"'/></pubsub></iq>",
		"<message type='chat' to='"+alice.String()+"' id='8'><body>hi</body></message>",
		"<iq type='set' id='9'><block xmlns='urn:xmpp:blocking'><item jid='qqalice@elsewhere.example'/></block></iq>")
	a.Close()
	say(b, "<message type='chat' to='"+alice.String()+"' id='10'><body>later</body></message>")
	b.Close()
}
