package storagetest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"balcony/storage"
	"balcony/xmpp/ext/blocking"
	"balcony/xmpp/ext/private"

	"mellium.im/xmpp/jid"
)

func testPrivate(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, other := account(t, db), account(t, db)
	get := func(j jid.JID, space, local string) string {
		t.Helper()
		b, err := db.PrivateXML(ctx, j, space, local)
		must(t, err)
		return string(b)
	}
	equal(t, "nothing yet", get(j, "a", "b"), "")
	must(t, db.SetPrivateXML(ctx, j, "a", "b", []byte("<b xmlns='a'>ä\x00</b>")))
	must(t, db.SetPrivateXML(ctx, j, "a", "c", []byte("<c xmlns='a'/>")))
	must(t, db.SetPrivateXML(ctx, j, "ab", "", []byte("not the same name")))
	equal(t, "element", get(j, "a", "b"), "<b xmlns='a'>ä\x00</b>")
	equal(t, "element of another name", get(j, "a", "c"), "<c xmlns='a'/>")
	equal(t, "element of another account", get(other, "a", "b"), "")
	must(t, db.SetPrivateXML(ctx, j, "a", "b", []byte("<b xmlns='a'>new</b>")))
	equal(t, "replaced element", get(j, "a", "b"), "<b xmlns='a'>new</b>")
	long := strings.Repeat("urn:long:", 20_000) // a namespace may be nearly as long as a stanza
	must(t, db.SetPrivateXML(ctx, j, long, "b", []byte("long")))
	equal(t, "element of a long name", get(j, long, "b"), "long")
	equal(t, "element of a long prefix", get(j, long[1:], "b"), "")
	all, err := db.PrivateElements(ctx, j)
	must(t, err)
	var texts []string
	for _, b := range all {
		texts = append(texts, string(b))
	}
	again, err := db.PrivateElements(ctx, j)
	must(t, err)
	equal(t, "all elements once more", again, all)
	slices.Sort(texts)
	equal(t, "all elements", texts, []string{"<b xmlns='a'>new</b>", "<c xmlns='a'/>", "long", "not the same name"})
	none, err := db.PrivateElements(ctx, other)
	must(t, err)
	equal(t, "all elements of another account", none, nil)
}

func testPrivateBounds(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j := account(t, db)
	for i := range Limits.PrivateElements {
		must(t, db.SetPrivateXML(ctx, j, "ns", fmt.Sprint("e", i), []byte("<e/>")))
	}
	wantErr(t, db.SetPrivateXML(ctx, j, "ns", "more", []byte("<e/>")), private.ErrFull)
	large := []byte(strings.Repeat("x", Limits.PrivateBytes-4*(Limits.PrivateElements-1)))
	must(t, db.SetPrivateXML(ctx, j, "ns", "e0", large)) // exactly the bound
	must(t, db.SetPrivateXML(ctx, j, "ns", "e0", large))
	wantErr(t, db.SetPrivateXML(ctx, j, "ns", "e1", []byte("<e />")), private.ErrFull)
	b, err := db.PrivateXML(ctx, j, "ns", "e1")
	must(t, err)
	equal(t, "element after a refusal", string(b), "<e/>")
}

func testVCard(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, other := account(t, db), account(t, db)
	for _, v := range []string{"", "<vCard xmlns='vcard-temp'/>", "<vCard xmlns='vcard-temp'><PHOTO>" + strings.Repeat("AAAA", 50_000) + "</PHOTO></vCard>"} {
		if v != "" {
			must(t, db.SetVCard(ctx, j, []byte(v)))
		}
		got, err := db.VCard(ctx, j)
		must(t, err)
		equal(t, "vCard", string(got), v)
		got, err = db.VCard(ctx, other)
		must(t, err)
		equal(t, "vCard of another account", got, nil)
	}
}

// Who changes a vCard sees what others have stored.
func testVCardUpdate(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j := account(t, db)
	update := func(want string, to []byte) {
		t.Helper()
		var stored []byte
		must(t, db.UpdateVCard(ctx, j, func(b []byte) []byte {
			stored = b
			return to
		}))
		equal(t, "stored vCard", string(stored), want)
		equal(t, "whether there was none", stored == nil, want == "")
	}
	update("", nil)
	update("", []byte("<a/>"))
	update("<a/>", nil)
	must(t, db.SetVCard(ctx, j, []byte("<b/>")))
	update("<b/>", []byte("<c/>"))
	update("<c/>", []byte("<d/>"))
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := db.UpdateVCard(ctx, j, func(b []byte) []byte { return append(slices.Clone(b), '.') }); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	got, err := db.VCard(ctx, j)
	must(t, err)
	equal(t, "vCard", string(got), "<d/>"+strings.Repeat(".", 20))
}

func jids(s ...string) (all []jid.JID) {
	for _, s := range s {
		all = append(all, jid.MustParse(s))
	}
	return all
}

func blocked(t testing.TB, db *storage.DB, j jid.JID, want ...string) {
	t.Helper()
	got, err := db.Blocked(withLimit(t), j)
	must(t, err)
	equal(t, "block list", got, jids(want...))
}

func testBlocking(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, other := account(t, db), account(t, db)
	blocked(t, db, j)
	// XEP-0191 §2: an entry may be any kind of JID.
	kinds := []string{"z@x.example/Res ource", "x@x.example", "x.example", "x.example/res"}
	must(t, db.Block(ctx, j, jids(kinds[:2]...)))
	must(t, db.Block(ctx, j, jids(kinds[1], kinds[2], kinds[2], kinds[3])))
	blocked(t, db, j, kinds...)
	blocked(t, db, other)
	must(t, db.Unblock(ctx, j, jids("x@x.example", "nobody@x.example")))
	blocked(t, db, j, kinds[0], kinds[2], kinds[3])
	must(t, db.Unblock(ctx, j, jids()))
	must(t, db.Unblock(ctx, j, []jid.JID{}))
	blocked(t, db, j)
	must(t, db.Block(ctx, other, jids("x@x.example")))
	must(t, db.Block(ctx, j, jids("x@x.example", "x.example")))
	must(t, db.Unblock(ctx, j, nil))
	blocked(t, db, j)
	blocked(t, db, other, "x@x.example")
	// The longest JID of RFC 7622 §3.1.
	long := strings.Repeat("l", 1023) + "@" + strings.Repeat(strings.Repeat("d", 62)+".", 16) + "example/" + strings.Repeat("r", 1023)
	must(t, db.Block(ctx, j, jids(long)))
	blocked(t, db, j, long)
	must(t, db.Unblock(ctx, j, jids(long)))
	blocked(t, db, j)
}

func testBlockingBound(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j := account(t, db)
	var all []string
	for i := range Limits.BlockList {
		all = append(all, fmt.Sprintf("b%d@x.example", i))
	}
	must(t, db.Block(ctx, j, jids(all[:3]...)))
	wantErr(t, db.Block(ctx, j, jids(append(all, "more@x.example")...)), blocking.ErrFull)
	blocked(t, db, j, all[:3]...) // all or none
	must(t, db.Block(ctx, j, jids(all...)))
	wantErr(t, db.Block(ctx, j, jids("more@x.example")), blocking.ErrFull)
	must(t, db.Block(ctx, j, jids(all...)))
	blocked(t, db, j, all...)
	must(t, db.Unblock(ctx, j, jids(all[0])))
	must(t, db.Block(ctx, j, jids("more@x.example")))
	blocked(t, db, j, append(all[1:], "more@x.example")...)
}

func testLast(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, other := account(t, db), account(t, db)
	at, status, err := db.LastActivity(ctx, j)
	must(t, err)
	equal(t, "time", at, time.Time{})
	equal(t, "status", status, "")
	for _, s := range []string{"gone to bed", "", "'); DROP TABLE account; --"} {
		want := time.Now().Truncate(time.Microsecond)
		must(t, db.SetLastActivity(j, want, s).Wait(ctx))
		at, status, err = db.LastActivity(ctx, j)
		must(t, err)
		equal(t, "time", at, want)
		equal(t, "status", status, s)
	}
	at, _, err = db.LastActivity(ctx, other)
	must(t, err)
	equal(t, "time of another account", at, time.Time{})
	testNoted(t, db, other)
}

// What is noted is seen at once, whether it was written or not; it does not take the place of what is set later, nor pass to another account with the name.
func testNoted(t *testing.T, db *storage.DB, j jid.JID) {
	ctx := withLimit(t)
	is := func(j jid.JID, want time.Time, wantStatus string) {
		t.Helper()
		at, status, err := db.LastActivity(ctx, j)
		must(t, err)
		equal(t, "time", at, want)
		equal(t, "status", status, wantStatus)
	}
	first := time.Now().UTC().Truncate(time.Microsecond)
	second := first.Add(time.Second)
	db.NoteLastActivity(j, first, "one")
	is(j, first, "one")
	db.NoteLastActivity(j, second, "two")
	is(j, second, "two")
	must(t, db.SetLastActivity(j, first, "three").Wait(ctx))
	is(j, first, "three")

	db.NoteLastActivity(j, second, "four")
	must(t, db.DeleteAccount(ctx, j))
	is(j, time.Time{}, "")
	db.NoteLastActivity(j, second, "five")
	must(t, db.CreateAccount(ctx, j, nil))
	is(j, time.Time{}, "")

	// More than are gathered: written in the order in which they were noted.
	db.NoteLastActivity(j, first, "six")
	for i := range 1000 {
		db.NoteLastActivity(jid.MustParse(fmt.Sprintf("nobody%d@x.example", i)), second, "")
	}
	is(j, first, "six")
	db.NoteLastActivity(j, second, "seven")
	is(j, second, "seven")
}
