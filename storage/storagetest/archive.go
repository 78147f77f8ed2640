package storagetest

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"balcony/storage"
	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/ext/mam"
	"balcony/xmpp/ext/offline"
	"balcony/xmpp/stream"

	"github.com/google/go-cmp/cmp"
	"mellium.im/xmpp/jid"
	"pgregory.net/rapid"
)

var juliet = jid.MustParse("juliet@capulet.example/balcony")

// keep stores a message for its owner and waits for it.
func keep(t testing.TB, db *storage.DB, it mam.Item) mam.Kept {
	t.Helper()
	k := db.AppendMessage(withLimit(t), it)
	must(t, k.Commit.Wait(withLimit(t)))
	return k
}

// received is a message that owner received from peer.
func received(t testing.TB, owner, peer jid.JID, body string) mam.Item {
	t.Helper()
	return mam.Item{Owner: owner, Peer: peer, Stanza: message(t, owner, body).WithFrom(peer), Stamp: time.Now(), Archived: true, Spool: true}
}

func query(t testing.TB, db *storage.DB, owner jid.JID, q mam.Query) mam.Page {
	t.Helper()
	p, err := db.QueryArchive(withLimit(t), owner, q)
	must(t, err)
	return p
}

func archive(t testing.TB, db *storage.DB, owner jid.JID) (texts []string) {
	t.Helper()
	for _, m := range query(t, db, owner, mam.Query{Max: 10_000}).Messages {
		texts = append(texts, text(t, m))
	}
	return texts
}

func text(t testing.TB, m mam.Message) string {
	t.Helper()
	s, err := stream.Parse(m.XML, stream.DefaultLimits())
	must(t, err)
	body, _ := s.Child("", "body")
	return body.Text()
}

func testArchive(t *testing.T, db *storage.DB) {
	j := account(t, db)
	equal(t, "an empty archive", archive(t, db, j), nil)
	p := query(t, db, j, mam.Query{Max: 10, Count: 10})
	if !p.Complete || p.Count != 0 {
		t.Errorf("an empty archive: %+v", p)
	}
	stamp := time.Date(2026, 11, 25, 12, 0, 0, 123456000, time.UTC)
	it := received(t, j, juliet, "wherefore & <art> thou")
	it.Stamp = stamp
	k := keep(t, db, it)
	p = query(t, db, j, mam.Query{Max: 10, Count: 10})
	if len(p.Messages) != 1 || p.Count != 1 || !p.Complete {
		t.Fatalf("%+v", p)
	}
	m := p.Messages[0]
	equal(t, "id", m.ID, k.ID)
	equal(t, "order", m.Order, k.Order)
	equal(t, "stamp", m.Stamp, stamp)
	equal(t, "stanza", string(m.XML), it.Stanza.String())
	equal(t, "sent", m.Sent, false)
	it.Sent, it.Spool = true, false
	keep(t, db, it)
	equal(t, "sent", query(t, db, j, mam.Query{Max: 1, Backward: true}).Messages[0].Sent, true)
	wantErr(t, db.AppendMessage(withLimit(t), received(t, jid.MustParse("nobody@montague.example"), juliet, "")).Commit.Wait(withLimit(t)), auth.ErrNoAccount)
}

// XEP-0313 §3 and §10.2: ids are opaque and belong to one archive.
func testArchiveIDs(t *testing.T, db *storage.DB) {
	j, other := account(t, db), account(t, db)
	k := keep(t, db, received(t, j, juliet, "1"))
	foreign := keep(t, db, received(t, other, juliet, "2"))
	waiting := received(t, j, juliet, "3")
	waiting.Archived = false
	spooled := keep(t, db, waiting)
	for _, id := range []string{"", "x", foreign.ID, spooled.ID, k.ID + "=", k.ID[:21], k.ID[:21] + "_", "\n" + k.ID, fmt.Sprint(k.Order)} {
		if id == k.ID {
			continue
		}
		for what, q := range map[string]mam.Query{"after": {After: []string{id}}, "before": {Before: []string{k.ID, id}}, "ids": {IDs: []string{k.ID, id}}} {
			q.Max = 10
			_, err := db.QueryArchive(withLimit(t), j, q)
			if err == nil {
				t.Errorf("%s %q is found", what, id)
			}
			wantErr(t, err, mam.ErrNoMessage)
		}
	}
	// What differs in one bit before it is encrypted has nothing in common after.
	next := keep(t, db, received(t, j, juliet, "4"))
	same := 0
	for i := range k.ID {
		if k.ID[i] == next.ID[i] {
			same++
		}
	}
	if same > 8 {
		t.Errorf("ids %s and %s look alike", k.ID, next.ID)
	}
}

// The bytes of a message that two accounts have are there as long as one of them has it.
func testArchiveShared(t *testing.T, db *storage.DB) {
	a, b, c := account(t, db), account(t, db), account(t, db)
	it := received(t, b, a, "shared")
	sent := it
	sent.Owner, sent.Peer, sent.Sent, sent.Spool = a, b, true, false
	one := keep(t, db, sent)
	s := *it.Stanza
	s.Row = one.Order
	it.Stanza = &s
	two := keep(t, db, it)
	if two.Order <= one.Order || two.ID == one.ID {
		t.Errorf("%+v after %+v", two, one)
	}
	equal(t, "sender's", archive(t, db, a), []string{"shared"})
	equal(t, "recipient's", archive(t, db, b), []string{"shared"})
	must(t, db.DeleteAccount(withLimit(t), a))
	equal(t, "recipient's, without the sender", archive(t, db, b), []string{"shared"})
	// The first owner's row is gone: the second writes it again.
	it.Owner, it.Peer = c, b
	must(t, db.DeleteAccount(withLimit(t), b))
	keep(t, db, it)
	equal(t, "of another, later", archive(t, db, c), []string{"shared"})
}

func testArchiveTrim(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, other := account(t, db), account(t, db)
	start := time.Now().Add(-time.Hour)
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint(i))
		for _, o := range []jid.JID{j, other} {
			it := received(t, o, juliet, want[i])
			it.Stamp = start.Add(time.Duration(i) * time.Second)
			db.AppendMessage(ctx, it)
		}
	}
	trim := func(before time.Time, keep, limit, deleted int) {
		t.Helper()
		n, err := db.TrimArchive(ctx, j, before, keep, limit)
		must(t, err)
		equal(t, "deleted", n, deleted)
		want = want[deleted:]
		equal(t, "left", archive(t, db, j), want)
	}
	all := slices.Clone(want)
	// Orders are at least one greater than the ones before, whatever the clock says: this suite has written messages of later times already.
	first := query(t, db, j, mam.Query{Max: 1}).Messages[0]
	trim(time.UnixMicro(first.Order), 0, 100, 0)
	trim(time.UnixMicro(first.Order+1), 0, 100, 1)
	trim(time.Time{}, 15, 3, 3)
	trim(time.Time{}, 15, 3, 1)
	trim(time.Time{}, 15, 3, 0)
	trim(time.Time{}, 0, 3, 0)
	trim(time.Time{}, 1000, 3, 0)
	n, err := db.TrimArchive(ctx, j, time.Now().Add(24*365*time.Hour), 1, 100)
	must(t, err)
	equal(t, "deleted", n, len(want))
	equal(t, "left", archive(t, db, j), nil)
	equal(t, "of the other", archive(t, db, other), all)
	_, err = db.TrimArchive(ctx, jid.MustParse("nobody@montague.example"), time.Now(), 0, 10)
	must(t, err)
}

// XEP-0424 §4: what stands in a message's place does so for one owner, and does not wait in the spool.
func testArchiveRewrite(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	a, b, c := account(t, db), account(t, db), account(t, db)
	both := func(body string) mam.Kept {
		it := received(t, b, a, body)
		sent := it
		sent.Owner, sent.Peer, sent.Sent, sent.Spool = a, b, true, false
		it.Stanza = it.Stanza.Kept(keep(t, db, sent).Order, 0)
		return keep(t, db, it)
	}
	for _, body := range []string{"one & only", "two", "three"} {
		both(body)
	}
	keep(t, db, received(t, b, c, "two of another"))
	first := query(t, db, b, mam.Query{Max: 10})
	var seen []string
	rewrite := func(owner, peer jid.JID, limit int, cut string, want ...string) {
		t.Helper()
		seen = nil
		must(t, db.RewriteMessages(ctx, owner, peer, limit, "m1", func(s *xmpp.Stanza, sent bool) (*xmpp.Stanza, bool) {
			body, _ := s.Child("", "body")
			seen = append(seen, fmt.Sprint(body.Text(), " ", sent))
			if body.Text() != cut {
				return nil, true
			}
			return xmpp.New(xmpp.Message, s.Type, s.To, s.From, xmpp.El("", "body").Say("gone")), false
		}))
		equal(t, "seen", seen, want)
	}
	rewrite(b, a, 10, "nothing", "three false", "two false", "one & only false")
	rewrite(b, a, 1, "two", "three false")
	rewrite(b, c, 10, "one & only", "two of another false")
	rewrite(b, a, 10, "two", "three false", "two false")
	equal(t, "archive", archive(t, db, b), []string{"one & only", "gone", "three", "two of another"})
	equal(t, "archive of the other end", archive(t, db, a), []string{"one & only", "two", "three"})
	for i, m := range query(t, db, b, mam.Query{Max: 10}).Messages {
		equal(t, "id", m.ID, first.Messages[i].ID)
		equal(t, "stamp", m.Stamp, first.Messages[i].Stamp)
		equal(t, "sent", m.Sent, false)
	}
	waiting, err := db.Waiting(ctx, b, offline.Span{To: math.MaxInt64}, 10)
	must(t, err)
	var left []string
	for _, e := range waiting {
		body, _ := e.Stanza.Child("", "body")
		left = append(left, body.Text())
	}
	equal(t, "what waits", left, []string{"one & only", "three", "two of another"})
	rewrite(a, b, 10, "two", "three true", "two true")
	equal(t, "archive of the other end", archive(t, db, a), []string{"one & only", "gone", "three"})
	// The spool of its own, whoever it is from.
	must(t, db.AppendOffline(ctx, c, time.Now(), message(t, c, "four")).Wait(ctx))
	must(t, db.AppendOffline(ctx, c, time.Now(), message(t, c, "five")).Wait(ctx))
	rewrite(c, a, 10, "four", "five false", "four false")
	spool, err := db.Offline(ctx, c, 0, 10)
	must(t, err)
	n, err := db.CountOffline(ctx, c)
	must(t, err)
	if len(spool) != 1 || n != 1 {
		t.Errorf("%d messages wait, and %d are counted", len(spool), n)
	}
	// Many, more than are looked at first.
	for i := range 120 {
		db.AppendMessage(ctx, received(t, c, a, fmt.Sprint("m", i)))
	}
	n = 0
	must(t, db.RewriteMessages(ctx, c, a, 110, "m1", func(s *xmpp.Stanza, _ bool) (*xmpp.Stanza, bool) {
		n++
		return xmpp.New(xmpp.Message, "", s.To, s.From, xmpp.El("", "body").Say("cut")), true
	}))
	equal(t, "seen", n, 110+1) // and the one that waits
	for i, text := range archive(t, db, c) {
		if want := i >= 10; (text == "cut") != want {
			t.Fatalf("message %d is %q", i, text)
		}
	}
	must(t, db.RewriteMessages(ctx, jid.MustParse("nobody@montague.example"), a, 10, "m1", nil))
}

// A message is found by its id, or by that of the message that it corrects, and hardly any other is read for that.
func testArchiveTags(t *testing.T, db *storage.DB) {
	j := account(t, db)
	for i := range 600 {
		s := xmpp.New(xmpp.Message, "chat", j, juliet, xmpp.El("", "body").Say(fmt.Sprint("of ", i)))
		s.ID = fmt.Sprint("id", i)
		if i%3 == 0 {
			s.ID = ""
		}
		if i%4 == 1 {
			s = s.Append(xmpp.RawElement(fmt.Appendf(nil, "<replace xmlns='urn:xmpp:message-correct:0' id='&#x69;d%d'/>", i/2))) // an i
		}
		it := received(t, j, juliet, "")
		it.Stanza = s
		db.AppendMessage(withLimit(t), it)
	}
	imported := foreign(t, j, "", "imported", time.Now().Add(-time.Hour))
	imports(t, db, j, 0, imported)
	seen := 0
	for i := range 300 {
		var want, got []string
		if n := 2*i + 1; n%4 == 1 {
			want = append(want, fmt.Sprint("of ", n))
		}
		if i%3 != 0 {
			want = append(want, fmt.Sprint("of ", i))
		}
		must(t, db.RewriteMessages(withLimit(t), j, juliet, 1000, fmt.Sprint("id", i), func(s *xmpp.Stanza, _ bool) (*xmpp.Stanza, bool) {
			seen++
			fix, ok := s.Child("urn:xmpp:message-correct:0", "replace")
			if s.ID == fmt.Sprint("id", i) || ok && fix.Attr("id") == fmt.Sprint("id", i) {
				body, _ := s.Child("", "body")
				got = append(got, body.Text())
			}
			return nil, true
		}))
		equal(t, fmt.Sprint("found by id", i), got, want)
		seen -= len(got)
	}
	if seen > 100 {
		t.Errorf("%d messages were read that were not meant", seen)
	}
	found := false
	must(t, db.RewriteMessages(withLimit(t), j, juliet, 1000, "m1", func(s *xmpp.Stanza, _ bool) (*xmpp.Stanza, bool) {
		found = found || s.ID == "m1"
		return nil, true
	}))
	equal(t, "the imported one is found", found, true)
}

func testArchivePreferences(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j := account(t, db)
	check := func(want mam.Preferences) {
		t.Helper()
		p, err := db.ArchivePreferences(ctx, j)
		must(t, err)
		equal(t, "preferences", p, want)
	}
	check(mam.Preferences{Default: mam.Always})
	p := mam.Preferences{Default: mam.Roster, Always: []jid.JID{juliet, juliet.Bare()}, Never: []jid.JID{jid.MustParse("capulet.example")}}
	must(t, db.SetArchivePreferences(ctx, j, p))
	check(p)
	p = mam.Preferences{Default: mam.Never}
	must(t, db.SetArchivePreferences(ctx, j, p))
	check(p)
	wantErr(t, db.SetArchivePreferences(ctx, jid.MustParse("nobody@montague.example"), p), auth.ErrNoAccount)
}

// Many senders at once: nobody who has read the archive up to a message finds one before it later.
func testArchiveOrder(t *testing.T, db *storage.DB) {
	j := account(t, db)
	const senders, each = 4, 40
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				db.AppendMessage(withLimit(t), received(t, j, juliet, fmt.Sprintf("%d-%d", s, i)))
			}
		})
	}
	var seen []string
	var after []string
	for len(seen) < senders*each {
		for _, m := range query(t, db, j, mam.Query{Max: 7, After: after}).Messages {
			seen, after = append(seen, text(t, m)), []string{m.ID}
		}
	}
	wg.Wait()
	equal(t, "the archive", archive(t, db, j), seen)
	next := map[byte]int{}
	for _, s := range seen {
		if want := fmt.Sprintf("%c-%d", s[0], next[s[0]]); s != want {
			t.Fatalf("%s where %s should be", s, want)
		}
		next[s[0]]++
	}
}

// stored is a message of the model.
type stored struct {
	mam.Message
	peer    jid.JID
	visible bool
	words   []string
}

// id is the one that its sender has given it.
func (m *stored) id() string {
	_, rest, _ := strings.Cut(string(m.XML), " id='")
	id, _, _ := strings.Cut(rest, "'")
	return id
}

// Every combination of conditions gives what a filter over the list gives.
func testArchiveModel(t *testing.T, db *storage.DB) {
	peers := []jid.JID{juliet, juliet.Bare(), jid.MustParse("juliet@capulet.example/chamber"), jid.MustParse("room@chat.example/juliet"), jid.MustParse("capulet.example")}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(r *rapid.T) {
		j := account(t, db)
		var all []stored
		now := start
		var last *xmpp.Commit
		for i := range rapid.IntRange(0, 25).Draw(r, "messages") {
			// The clock goes on, stands still, and goes back.
			now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 1000, 1_000_000, 90_000_000, -1, -500_000, -3_600_000_000}).Draw(r, "step")) * time.Microsecond)
			peer := rapid.SampledFrom(append(peers, j)).Draw(r, "peer")
			it := mam.Item{Owner: j, Peer: peer, Stanza: message(t, j, fmt.Sprint(i)), Stamp: now,
				Sent: rapid.Bool().Draw(r, "sent"), Archived: rapid.IntRange(0, 5).Draw(r, "archived") > 0}
			it.Spool = !it.Archived || !it.Sent
			if !it.Archived {
				it.Sent = false
			}
			k := db.AppendMessage(withLimit(t), it)
			last = k.Commit
			all = append(all, stored{mam.Message{ID: k.ID, Order: k.Order, Stamp: now, XML: []byte(it.Stanza.String()), Sent: it.Sent, Spool: it.Spool}, peer, it.Archived, nil})
		}
		if last != nil {
			must(t, last.Wait(withLimit(t)))
		}
		for range rapid.IntRange(1, 12).Draw(r, "queries") {
			q := mam.Query{Max: rapid.IntRange(0, 12).Draw(r, "max"), Backward: rapid.Bool().Draw(r, "backward"), Count: rapid.SampledFrom([]int{0, 3, 1000}).Draw(r, "count")}
			if rapid.Bool().Draw(r, "with") {
				q.With = rapid.SampledFrom(append(peers, j, jid.MustParse("room@chat.example"), jid.MustParse("capulet.example/x"))).Draw(r, "with")
			}
			at := func(what string) time.Time {
				if len(all) == 0 || rapid.Bool().Draw(r, "no "+what) {
					return time.Time{}
				}
				return rapid.SampledFrom(all).Draw(r, what).Stamp.Add(time.Duration(rapid.IntRange(-1, 1).Draw(r, "beside")) * 500 * time.Nanosecond)
			}
			q.Start, q.End = at("start"), at("end")
			missing := false
			ids := func(what string, most int) (list []string) {
				for range rapid.IntRange(0, most).Draw(r, what) {
					if len(all) == 0 {
						return nil
					}
					m := rapid.SampledFrom(all).Draw(r, what+" id")
					missing = missing || !m.visible
					list = append(list, m.ID)
				}
				return list
			}
			q.After, q.Before, q.IDs = ids("after", 2), ids("before", 2), ids("ids", 3)
			got, err := db.QueryArchive(withLimit(t), j, q)
			if missing {
				wantErr(t, err, mam.ErrNoMessage)
				continue
			}
			must(t, err)
			if d := cmp.Diff(naive(all, q), got, cmp.Comparer(time.Time.Equal)); d != "" {
				r.Fatalf("%+v (-want +got):\n%s", q, d)
			}
		}
	})
}

// naive filters the list.
func naive(all []stored, q mam.Query) mam.Page {
	order := func(id string) int64 {
		for _, m := range all {
			if m.ID == id {
				return m.Order
			}
		}
		return math.MinInt64
	}
	var found []mam.Message
	for _, m := range all {
		ok := m.visible && !m.Stamp.Before(q.Start) && (q.End.IsZero() || !m.Stamp.After(q.End))
		if !q.With.Equal(jid.JID{}) {
			ok = ok && (m.peer.Equal(q.With) || q.With.Resourcepart() == "" && m.peer.Bare().Equal(q.With))
		}
		for _, id := range q.After {
			ok = ok && m.Order > order(id)
		}
		for _, id := range q.Before {
			ok = ok && m.Order < order(id)
		}
		for _, w := range q.Words {
			ok = ok && w.In(m.words)
		}
		if ok && (q.IDs == nil || slices.Contains(q.IDs, m.ID)) {
			found = append(found, m.Message)
		}
	}
	p := mam.Page{Count: min(len(found), q.Count), Complete: len(found) <= q.Max}
	switch {
	case q.Max == 0 && q.IDs == nil:
		p.Complete = p.Count == 0
		return p
	case p.Complete:
		p.Messages = found
	case q.Backward:
		p.Messages = found[len(found)-q.Max:]
	default:
		p.Messages = found[:q.Max]
	}
	if p.Messages == nil && q.IDs == nil {
		p.Messages = []mam.Message{}
	}
	return p
}

func testSpoolState(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	a, b := account(t, db), account(t, db)
	check := func(want offline.State) {
		t.Helper()
		for range 2 { // the second from memory, where it may be
			s, err := db.SpoolState(ctx, want.Account)
			must(t, err)
			equal(t, "state", s, want)
		}
	}
	check(offline.State{Account: a})
	one := offline.State{Account: a, Top: 1 << 60, Gaps: []offline.Span{{From: 5, To: 5}, {From: 1 << 40, To: 1<<60 - 1}}}
	two := offline.State{Account: b, Top: 3}
	must(t, db.SaveSpoolStates(ctx, []offline.State{{Account: jid.MustParse("nobody@montague.example"), Top: 9}, one, two}).Wait(ctx))
	check(one)
	check(two)
	one.Gaps = nil
	must(t, db.SaveSpoolStates(ctx, []offline.State{one}).Wait(ctx))
	check(one)
	check(two)
	check(offline.State{Account: jid.MustParse("nobody@montague.example")})

	// What is there besides, also when its write has not ended.
	c := account(t, db)
	at := func(sent, archived, spool bool) int64 {
		it := received(t, c, juliet, "x")
		it.Sent, it.Archived, it.Spool = sent, archived, spool
		k := db.AppendMessage(ctx, it)
		if k.Order == 0 {
			t.Fatal(k.Commit.Wait(ctx))
		}
		return k.Order
	}
	at(true, true, false)
	at(false, true, false)
	check(offline.State{Account: c})
	waits := at(false, true, true)
	check(offline.State{Account: c, Behind: true})
	must(t, db.SaveSpoolStates(ctx, []offline.State{{Account: c, Top: waits - 1}}).Wait(ctx))
	check(offline.State{Account: c, Top: waits - 1, Behind: true})
	must(t, db.SaveSpoolStates(ctx, []offline.State{{Account: c, Top: waits}}).Wait(ctx))
	check(offline.State{Account: c, Top: waits})
	db.AppendOffline(ctx, c, time.Now(), message(t, c, "y"))
	at(true, true, true)
	check(offline.State{Account: c, Top: waits, Behind: true, Own: true})

	d := account(t, db)
	check(offline.State{Account: d})
	db.AppendOffline(ctx, d, time.Now(), message(t, d, "y"))
	check(offline.State{Account: d, Own: true})
	entries, err := db.Offline(ctx, d, 0, 1)
	must(t, err)
	must(t, db.RemoveOffline(ctx, d, entries[0].ID))
	check(offline.State{Account: d})
	must(t, db.SaveSpoolStates(ctx, []offline.State{{Account: d, Top: 1 << 60}}).Wait(ctx))
	check(offline.State{Account: d, Top: 1 << 60})
	imports(t, db, d, 0, mam.Foreign{ID: "x", Peer: juliet, Stanza: message(t, d, "z"), Stamp: time.Now(), Spool: true})
	check(offline.State{Account: d, Behind: true})
	must(t, db.DeleteAccount(ctx, d))
	must(t, db.CreateAccount(ctx, d, nil))
	check(offline.State{Account: d})
}

// What waits is archived and of the spool: not what the account sent, nor what has a place of its own in the spool.
func testWaiting(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j := account(t, db)
	var orders []int64
	for i, c := range []struct{ sent, archived, spool bool }{
		{false, true, true}, {true, true, false}, {false, true, false}, {true, true, true}, {false, false, true}, {false, true, true},
	} {
		it := received(t, j, juliet, fmt.Sprint(i))
		it.Sent, it.Archived, it.Spool = c.sent, c.archived, c.spool
		orders = append(orders, keep(t, db, it).Order)
	}
	check := func(in offline.Span, limit int, want ...int) {
		t.Helper()
		entries, err := db.Waiting(ctx, j, in, limit)
		must(t, err)
		var got []int
		for _, e := range entries {
			i := slices.Index(orders, e.Order)
			body, _ := e.Stanza.Child("", "body")
			if body.Text() != fmt.Sprint(i) || e.Mark != db.ArchiveID(j, e.Order) || e.ID != 0 {
				t.Errorf("%+v is not message %d", e, i)
			}
			got = append(got, i)
		}
		equal(t, "waiting", got, want)
	}
	check(offline.Span{From: 0, To: db.LastOrder()}, 10, 0, 3, 5)
	check(offline.Span{From: 0, To: db.LastOrder()}, 2, 0, 3)
	check(offline.Span{From: orders[0], To: orders[3]}, 10, 0, 3)
	check(offline.Span{From: orders[0] + 1, To: orders[5] - 1}, 10, 3)
	check(offline.Span{From: orders[5] + 1, To: math.MaxInt64}, 10)
}

// foreign is a message that juliet has sent to an account whose archive is imported.
func foreign(t testing.TB, owner jid.JID, id, body string, stamp time.Time) mam.Foreign {
	t.Helper()
	return mam.Foreign{ID: id, Peer: juliet, Stanza: message(t, owner, body).WithFrom(juliet), Stamp: stamp}
}

func imports(t testing.TB, db *storage.DB, owner jid.JID, after int64, items ...mam.Foreign) (last int64) {
	t.Helper()
	last, err := db.ImportArchive(withLimit(t), owner, after, items)
	must(t, err)
	return last
}

// What is imported is where its stamp says, in the order of the document where clocks do not tell, in front of everything that comes now; orders
// are as little ahead of the stamps as they can be.
func testImportArchive(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, other := account(t, db), account(t, db)
	stamp := time.Date(2010, 7, 10, 23, 8, 25, 0, time.UTC)
	at := func(d time.Duration) time.Time { return stamp.Add(d) }
	live := received(t, j, juliet, "live")
	kept := keep(t, db, live)
	last := imports(t, db, j, 0,
		foreign(t, j, "", "before 1970", time.Date(1469, 7, 21, 0, 32, 29, 0, time.UTC)),
		foreign(t, j, "x", "1", at(0)),
		foreign(t, j, "x", "2", at(0)),
		foreign(t, j, kept.ID, "3", at(-time.Millisecond)), // the id of another message
		foreign(t, j, "", "5", at(time.Hour)),
		foreign(t, j, "", "4", at(time.Minute)),
		foreign(t, j, "", "to come", time.Now().Add(time.Hour)),
		foreign(t, j, "", "to come as well", time.Now().Add(time.Hour)))
	imports(t, db, j, last, foreign(t, j, "", "later", time.Now().Add(time.Hour)))
	keep(t, db, received(t, j, juliet, "live again"))
	equal(t, "archive", archive(t, db, j), []string{"before 1970", "1", "2", "3", "4", "5", "live", "to come", "to come as well", "later", "live again"})
	seen := make(map[string]bool)
	for i, m := range query(t, db, j, mam.Query{Max: 20}).Messages {
		if ahead := m.Order - m.Stamp.UnixMicro(); ahead < 0 || ahead > 2000 || m.Order <= 0 {
			t.Errorf("message %d: order %d of %s", i, m.Order, m.Stamp)
		}
		if seen[m.ID] || m.Stamp.After(time.Now()) {
			t.Errorf("message %d: %s of %s", i, m.ID, m.Stamp)
		}
		seen[m.ID] = true
	}
	equal(t, "of that second", len(query(t, db, j, mam.Query{Max: 20, Start: at(-time.Second), End: at(time.Second), With: juliet}).Messages), 3)
	equal(t, "with others", len(query(t, db, j, mam.Query{Max: 20, With: other}).Messages), 0)

	// Page by page.
	var texts []string
	for after, complete := int64(0), false; !complete; {
		p, err := db.ReadArchive(ctx, j, after, 3, 0)
		must(t, err)
		for _, m := range p.Messages {
			texts, after = append(texts, text(t, m)), m.Order
		}
		complete = p.Complete
	}
	equal(t, "by pages", texts, archive(t, db, j))
	p, err := db.ReadArchive(ctx, j, 0, 10, 1)
	must(t, err)
	if len(p.Messages) != 1 || p.Complete {
		t.Errorf("a page of a byte has %d messages, complete %t", len(p.Messages), p.Complete)
	}

	_, err = db.ImportArchive(ctx, jid.MustParse("nobody@montague.example"), 0, []mam.Foreign{foreign(t, j, "", "", stamp)})
	wantErr(t, err, auth.ErrNoAccount)
	_, err = db.ReadArchive(ctx, jid.MustParse("nobody@montague.example"), 0, 1, 0)
	must(t, err)
}

// The archives of a server that move to this one have many messages of one moment; where both ends have the same bytes they are written once.
func testImportArchiveTogether(t *testing.T, db *storage.DB) {
	a, b, c := account(t, db), account(t, db), account(t, db)
	stamp := time.Date(2012, 1, 1, 0, 0, 0, 0, time.UTC)
	for n, j := range []jid.JID{a, b, c} {
		var items []mam.Foreign
		var want []string
		for i := range 300 {
			items = append(items, foreign(t, c, "", fmt.Sprint(n/2, " ", i), stamp))
			want = append(want, fmt.Sprint(n/2, " ", i))
		}
		for after, i := int64(0), 0; i < 300; i += 100 {
			after = imports(t, db, j, after, items[i:i+100]...)
		}
		equal(t, "archive", archive(t, db, j), want)
		for _, m := range query(t, db, j, mam.Query{Max: 300}).Messages {
			if ahead := m.Order - stamp.UnixMicro(); ahead < 0 || ahead > 1_000_000 {
				t.Errorf("an order is %d microseconds ahead", ahead)
			}
		}
	}
	for _, j := range []jid.JID{b, a, c} { // the bytes are there as long as one has them
		equal(t, "messages", len(archive(t, db, j)), 300)
		must(t, db.DeleteAccount(withLimit(t), j))
	}
}

// What this database has given an id keeps it, with its bytes where the other end still has them.
func testImportArchiveAgain(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	a, b := account(t, db), account(t, db)
	var want []mam.Message
	for i := range 20 {
		it := received(t, b, a, fmt.Sprint(i))
		sent := it
		sent.Owner, sent.Peer, sent.Sent, sent.Spool = a, b, true, false
		s := *it.Stanza
		s.Row = keep(t, db, sent).Order
		it.Stanza = &s
		keep(t, db, it)
	}
	want = query(t, db, b, mam.Query{Max: 100}).Messages
	must(t, db.SaveSpoolStates(ctx, []offline.State{{Account: b, Top: db.LastOrder()}}).Wait(ctx))
	var items []mam.Foreign
	for _, m := range want {
		s, err := stream.Parse(m.XML, stream.DefaultLimits())
		must(t, err)
		items = append(items, mam.Foreign{ID: m.ID, Peer: a, Stanza: s, Stamp: m.Stamp, Spool: m.Spool})
	}
	imports(t, db, b, 0, items...) // beside them: no id is there twice
	if got := query(t, db, b, mam.Query{Max: 100}).Messages; len(got) != 40 {
		t.Errorf("%d messages", len(got))
	}
	must(t, db.DeleteAccount(ctx, b))
	must(t, db.CreateAccount(ctx, b, nil))
	imports(t, db, b, 0, items...)
	equal(t, "archive", query(t, db, b, mam.Query{Max: 100}).Messages, want)
	equal(t, "the other end's", len(archive(t, db, a)), 20)
	waiting, err := db.Waiting(ctx, b, offline.Span{From: 0, To: math.MaxInt64}, 100)
	must(t, err)
	state, err := db.SpoolState(ctx, b)
	must(t, err)
	if len(waiting) != 20 || state.Top != 0 || len(state.Gaps) != 0 {
		t.Errorf("%d wait, %+v", len(waiting), state)
	}
	// What does not wait leaves the state alone.
	must(t, db.SaveSpoolStates(ctx, []offline.State{{Account: b, Top: 7}}).Wait(ctx))
	items[0].Spool = false
	imports(t, db, b, 0, items[0])
	state, err = db.SpoolState(ctx, b)
	must(t, err)
	equal(t, "top", state.Top, int64(7))
}
