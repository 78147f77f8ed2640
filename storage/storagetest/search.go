package storagetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"balcony/storage"
	"balcony/xmpp"
	"balcony/xmpp/ext/mam"

	"github.com/google/go-cmp/cmp"
	"mellium.im/xmpp/jid"
	"pgregory.net/rapid"
)

// searching turns the search of domains on until the test ends.
func searching(t *testing.T, db *storage.DB, domains ...string) {
	t.Helper()
	must(t, db.SetSearch(withLimit(t), domains))
	t.Cleanup(func() { must(t, db.SetSearch(withLimit(t), nil)) })
}

// finds are the texts that a search finds.
func finds(t testing.TB, db *storage.DB, owner jid.JID, words string) (texts []string) {
	t.Helper()
	terms, ok := mam.Terms(words)
	if !ok {
		t.Fatalf("no words in %q", words)
	}
	for _, m := range query(t, db, owner, mam.Query{Max: 1000, Words: terms}).Messages {
		texts = append(texts, text(t, m))
	}
	return texts
}

// Both databases find the same words, and nothing in a query means anything but words.
func testSearch(t *testing.T, db *storage.DB) {
	j, other := account(t, db), account(t, db)
	hello, _ := mam.Terms("hello")
	_, err := db.QueryArchive(withLimit(t), j, mam.Query{Max: 1, Words: hello})
	wantErr(t, err, mam.ErrNoSearch)
	keep(t, db, received(t, j, juliet, "Hello, before"))
	searching(t, db, "montague.example")
	for _, body := range []string{"Hello world", "O Romeo, Romeo! wherefore art thou Romeo?", "Straße nach Ærøskøbing & zurück", "東京都に行く", "NEAR AND OR NOT", "don't", "a_b __c 1_d", "😀 fun",
		"ΣΊΣΥΦΟΣ", "привет мир", "100%", "x"} {
		keep(t, db, received(t, j, juliet, body))
	}
	keep(t, db, received(t, other, juliet, "hello to another"))
	for _, c := range []struct {
		words string
		want  []string
	}{
		{"hello", []string{"Hello, before", "Hello world"}},
		{"HELLO wor", []string{"Hello world"}},
		{"hell", []string{"Hello, before", "Hello world"}},
		{"ello", nil},
		{"another", nil},
		{"romeo thou", []string{"O Romeo, Romeo! wherefore art thou Romeo?"}},
		{"romeo juliet", nil},
		{"strasse", []string{"Straße nach Ærøskøbing & zurück"}},
		{"ZURUCK", []string{"Straße nach Ærøskøbing & zurück"}},
		{"東京", []string{"東京都に行く"}},
		{"京都", []string{"東京都に行く"}},
		{"都", []string{"東京都に行く"}},
		{"く", []string{"東京都に行く"}},
		{"東都", nil},
		{"AND", []string{"NEAR AND OR NOT"}},
		{"near OR", []string{"NEAR AND OR NOT"}},
		{"hello OR romeo", nil},
		{"hello NOT world", nil},
		{"hello NEAR world", nil},
		{`"world hello"`, []string{"Hello world"}},
		{`hello* -world`, []string{"Hello world"}},
		{`hel'lo`, nil},
		{`hello' | 'x`, nil},
		{`hello:* & world`, []string{"Hello world"}},
		{`words: hello`, nil},
		{`^hello (world)`, []string{"Hello world"}},
		{`don't`, []string{"don't"}},
		{"a_b", []string{"a_b __c 1_d"}},
		{"c d", []string{"a_b __c 1_d"}},
		{"😀", []string{"😀 fun"}},
		{"σισυφοσ", []string{"ΣΊΣΥΦΟΣ"}},
		{"ПРИВЕТ", []string{"привет мир"}},
		{"100", []string{"100%"}},
		{"x", []string{"x"}},
	} {
		equal(t, c.words, finds(t, db, j, c.words), c.want)
	}
	equal(t, "the other's", finds(t, db, other, "hello"), []string{"hello to another"})
	equal(t, "nobody's", finds(t, db, jid.MustParse("nobody@montague.example"), "hello"), nil)
	must(t, db.DeleteAccount(withLimit(t), j))
	must(t, db.CreateAccount(withLimit(t), j, nil))
	equal(t, "of a name that was registered again", finds(t, db, j, "hello"), nil)
	must(t, db.SetSearch(withLimit(t), nil))
	_, err = db.QueryArchive(withLimit(t), other, mam.Query{Max: 1, Words: hello})
	wantErr(t, err, mam.ErrNoSearch)
}

// Random histories of two accounts that write to each other and to others, with retention, retraction and import: every combination of a search with other
// conditions gives what a filter over the list gives.
func testSearchModel(t *testing.T, db *storage.DB) {
	peers := []jid.JID{juliet, juliet.Bare(), jid.MustParse("juliet@capulet.example/chamber"), jid.MustParse("room@chat.example/juliet")}
	words := []string{"rose", "roses", "rosary", "a", "by", "other", "名前", "名", "ä"}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	searching(t, db, "montague.example")
	rapid.Check(t, func(r *rapid.T) {
		ctx := withLimit(t)
		owners := []jid.JID{account(t, db), account(t, db)}
		all := make(map[int][]stored)
		now := start
		n := 0
		add := func(who int, it mam.Item, k mam.Kept) {
			all[who] = append(all[who], stored{mam.Message{ID: k.ID, Order: k.Order, Stamp: it.Stamp, XML: []byte(it.Stanza.String()), Sent: it.Sent, Spool: it.Spool}, it.Peer, it.Archived, mam.Words(it.Stanza)})
		}
		said := func(to jid.JID) *xmpp.Stanza {
			n++
			var body []string
			for range rapid.IntRange(0, 4).Draw(r, "words") {
				body = append(body, rapid.SampledFrom(words).Draw(r, "word"))
			}
			s := message(t, to, strings.Join(body, " "))
			s.ID = fmt.Sprint("m", n)
			return s
		}
		tick := func() time.Time {
			now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 1_000_000, -500_000, 90_000_000}).Draw(r, "step")) * time.Microsecond)
			return now
		}
		for range rapid.IntRange(0, 16).Draw(r, "steps") {
			switch rapid.SampledFrom([]string{"receive", "receive", "exchange", "exchange", "retract", "trim", "index", "import"}).Draw(r, "step") {
			case "receive":
				who := rapid.IntRange(0, 1).Draw(r, "who")
				peer := rapid.SampledFrom(peers).Draw(r, "peer")
				it := mam.Item{Owner: owners[who], Peer: peer, Stanza: said(owners[who]).WithFrom(peer), Stamp: tick(), Spool: true, Archived: rapid.IntRange(0, 5).Draw(r, "archived") > 0}
				add(who, it, db.AppendMessage(ctx, it))
			case "exchange": // some messages between the two, whose recipients have them in another order than they were sent
				var sent []mam.Item
				for range rapid.IntRange(1, 3).Draw(r, "exchanged") {
					who := rapid.IntRange(0, 1).Draw(r, "who")
					it := mam.Item{Owner: owners[who], Peer: owners[1-who], Stanza: said(owners[1-who]).WithFrom(owners[who]), Stamp: tick(), Sent: true, Archived: true}
					k := db.AppendMessage(ctx, it)
					add(who, it, k)
					it.Stanza = it.Stanza.Kept(k.Order, 0)
					sent = append(sent, it)
				}
				if rapid.Bool().Draw(r, "index between") {
					_, err := db.IndexArchive(ctx, "montague.example", db.LastOrder(), 100)
					must(t, err)
				}
				for _, it := range rapid.Permutation(sent).Draw(r, "order") {
					it.Owner, it.Peer, it.Sent = it.Peer, it.Owner, false
					who := slices.IndexFunc(owners, it.Owner.Equal)
					add(who, it, db.AppendMessage(ctx, it))
				}
			case "retract":
				who := rapid.IntRange(0, 1).Draw(r, "who")
				if len(all[who]) == 0 {
					continue
				}
				m := &all[who][rapid.IntRange(0, len(all[who])-1).Draw(r, "which")]
				must(t, db.RewriteMessages(ctx, owners[who], m.peer.Bare(), 100, m.id(), func(s *xmpp.Stanza, _ bool) (*xmpp.Stanza, bool) {
					if s.String() != string(m.XML) {
						return nil, true
					}
					instead := xmpp.New(xmpp.Message, "chat", s.To, s.From, xmpp.El("", "body").Say("rose")) // which is not found
					m.XML, m.words = []byte(instead.String()), nil
					if m.visible {
						m.Spool = false
					}
					return instead, false
				}))
			case "trim":
				who := rapid.IntRange(0, 1).Draw(r, "who")
				keep := rapid.IntRange(1, 10).Draw(r, "keep")
				query(t, db, owners[who], mam.Query{Max: 1}) // retention does not wait for what is being written
				_, err := db.TrimArchive(ctx, owners[who], time.Time{}, keep, 1000)
				must(t, err)
				left := 0
				for i, m := range slices.Backward(all[who]) {
					if !m.visible {
						continue
					}
					if left++; left > keep {
						all[who] = slices.Delete(all[who], i, i+1)
					}
				}
			case "index":
				_, err := db.IndexArchive(ctx, "montague.example", db.LastOrder(), rapid.IntRange(1, 5).Draw(r, "portion"))
				must(t, err)
			case "import":
				if who := 0; len(all[who]) == 0 { // into an archive that is empty
					f := mam.Foreign{Peer: juliet, Stanza: said(owners[who]).WithFrom(juliet), Stamp: start.Add(-time.Hour)}
					_, err := db.ImportArchive(ctx, owners[who], 0, []mam.Foreign{f})
					must(t, err)
					m := query(t, db, owners[who], mam.Query{Max: 10}).Messages
					all[who] = append(all[who], stored{m[len(m)-1], juliet, true, mam.Words(f.Stanza)})
				}
			}
		}
		for range rapid.IntRange(1, 8).Draw(r, "queries") {
			who := rapid.IntRange(0, 1).Draw(r, "whose")
			list := all[who]
			q := mam.Query{Max: rapid.IntRange(0, 6).Draw(r, "max"), Backward: rapid.Bool().Draw(r, "backward"), Count: rapid.SampledFrom([]int{0, 3, 1000}).Draw(r, "count")}
			q.Words, _ = mam.Terms(rapid.SampledFrom([]string{"rose", "ros", "rosary", "a", "by other", "名前", "名", "other", "rose other", "nothing", "A"}).Draw(r, "search"))
			if rapid.Bool().Draw(r, "with") {
				q.With = rapid.SampledFrom(append(peers, owners[1-who], jid.MustParse("room@chat.example"))).Draw(r, "with")
			}
			at := func(what string) time.Time {
				if len(list) == 0 || rapid.IntRange(0, 2).Draw(r, "no "+what) > 0 {
					return time.Time{}
				}
				return rapid.SampledFrom(list).Draw(r, what).Stamp.Add(time.Duration(rapid.IntRange(-1, 1).Draw(r, "beside")) * 500 * time.Nanosecond)
			}
			q.Start, q.End = at("start"), at("end")
			missing := false
			ids := func(what string, most int) (ids []string) {
				for range rapid.IntRange(0, most).Draw(r, what) {
					if len(list) == 0 {
						return nil
					}
					m := rapid.SampledFrom(list).Draw(r, what+" id")
					missing = missing || !m.visible
					ids = append(ids, m.ID)
				}
				return ids
			}
			q.After, q.Before = ids("after", 1), ids("before", 1)
			if rapid.IntRange(0, 3).Draw(r, "by id") == 0 {
				q.IDs = ids("ids", 3)
			}
			got, err := db.QueryArchive(ctx, owners[who], q)
			if missing {
				wantErr(t, err, mam.ErrNoMessage)
				continue
			}
			must(t, err)
			want := naive(list, q)
			if d := cmp.Diff(want, got, cmp.Comparer(time.Time.Equal)); d != "" {
				r.Fatalf("%+v (-want +got):\n%s", q, d)
			}
		}
	})
}

// A domain's search comes and goes: an old archive is indexed in portions while others are searched, and what one does not have is not there.
func testSearchDomains(t *testing.T, db *storage.DB) {
	a, b := account(t, db), jid.MustParse("searched@capulet.example")
	must(t, db.CreateAccount(withLimit(t), b, nil))
	both := func(body string) {
		it := received(t, b, a, body)
		sent := it
		sent.Owner, sent.Peer, sent.Sent, sent.Spool = a, b, true, false
		it.Stanza = it.Stanza.Kept(keep(t, db, sent).Order, 0)
		keep(t, db, it)
	}
	for i := range 250 {
		both(fmt.Sprint("old ", i))
	}
	searching(t, db, "montague.example")
	both("new 1")
	equal(t, "found", len(finds(t, db, a, "old")), 250)
	must(t, db.SetSearch(withLimit(t), []string{"montague.example", "capulet.example"}))
	both("new 2")
	steps := 0
	for more := true; more; steps++ {
		var err error
		more, err = db.IndexArchive(withLimit(t), "capulet.example", db.LastOrder(), 100)
		must(t, err)
		equal(t, "found meanwhile", len(finds(t, db, a, "old")), 250)
	}
	if steps < 3 {
		t.Errorf("an old archive was indexed in %d steps: a search of another domain must not wait for that", steps)
	}
	equal(t, "found", finds(t, db, b, "new"), []string{"new 1", "new 2"})
	equal(t, "found", len(finds(t, db, b, "old")), 250)
	must(t, db.SetSearch(withLimit(t), []string{"capulet.example"}))
	both("new 3")
	equal(t, "found", finds(t, db, b, "new"), []string{"new 1", "new 2", "new 3"})
	terms, _ := mam.Terms("new")
	_, err := db.QueryArchive(withLimit(t), a, mam.Query{Max: 1, Words: terms})
	wantErr(t, err, mam.ErrNoSearch)
	must(t, db.DeleteAccount(withLimit(t), b))
}
