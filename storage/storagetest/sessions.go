package storagetest

import (
	"sort"
	"testing"
	"time"

	"balcony/storage"
	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// testSessions: what is saved is taken once, as it was.
func testSessions(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	romeo, gone := jid.MustParse("saved@montague.example"), jid.MustParse("unsaved@montague.example")
	must(t, db.CreateAccount(ctx, romeo, nil))
	now := time.Now().Truncate(time.Microsecond)
	must(t, db.SaveSessions(ctx, []xmpp.SavedSession{
		{Account: romeo, Resource: "orchard", Expires: now, Data: []byte("old")},
		{Account: gone, Resource: "orchard", Expires: now, Data: []byte("nobody's")},
		{Account: romeo, Resource: "Phone", Expires: now.Add(time.Hour), Data: []byte{0, 1, 255}},
		{Account: romeo, Resource: "orchard", Expires: now.Add(time.Minute), Data: []byte("new")},
	}))
	all, err := db.TakeSessions(ctx)
	must(t, err)
	sort.Slice(all, func(i, j int) bool { return all[i].Resource < all[j].Resource })
	equal(t, "sessions", len(all), 2)
	for i, want := range []xmpp.SavedSession{
		{Account: romeo, Resource: "Phone", Expires: now.Add(time.Hour), Data: []byte{0, 1, 255}},
		{Account: romeo, Resource: "orchard", Expires: now.Add(time.Minute), Data: []byte("new")},
	} {
		got := all[i]
		equal(t, "account", got.Account.String(), want.Account.String())
		equal(t, "resource", got.Resource, want.Resource)
		equal(t, "expiry", got.Expires.Equal(want.Expires), true)
		equal(t, "data", string(got.Data), string(want.Data))
	}
	all, err = db.TakeSessions(ctx)
	must(t, err)
	equal(t, "sessions taken twice", len(all), 0)
}
