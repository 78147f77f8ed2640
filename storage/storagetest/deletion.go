package storagetest

import (
	"testing"
	"time"

	"balcony/roster"
	"balcony/storage"
	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/ext/mam"
	"balcony/xmpp/ext/offline"
	"balcony/xmpp/ext/pubsub"
	"balcony/xmpp/ext/upload"

	"mellium.im/xmpp/jid"
)

// Fill puts something of the account into every store. A new store is added here; the tests of deletion find a table that is not.
func Fill(t testing.TB, db *storage.DB, account jid.JID) {
	t.Helper()
	ctx := withLimit(t)
	must(t, db.CreateAccount(ctx, account, verifiers(3)))
	must(t, db.AddToken(ctx, account, token("phone", 1, 0, 21), verifiers(3)[0]))
	_, err := db.UpdateItem(ctx, account, jid.MustParse("juliet@capulet.example"), func(i *roster.Item) bool {
		i.Listed, i.To, i.Name, i.Groups = true, true, "Juliet", []string{"Verona"}
		return true
	})
	must(t, err)
	must(t, db.AppendOffline(ctx, account, time.Now(), message(t, account, "good night")).Wait(ctx))
	keep(t, db, received(t, account, juliet, "good night"))
	must(t, db.SaveSpoolStates(ctx, []offline.State{{Account: account, Top: 7, Gaps: []offline.Span{{From: 1, To: 2}}}}).Wait(ctx))
	must(t, db.SetArchivePreferences(ctx, account, mam.Preferences{Default: mam.Roster}))
	must(t, db.SetPrivateXML(ctx, account, "storage:bookmarks", "storage", []byte("<storage xmlns='storage:bookmarks'/>")))
	must(t, db.SetVCard(ctx, account, []byte("<vCard xmlns='vcard-temp'/>")))
	must(t, db.Block(ctx, account, []jid.JID{jid.MustParse("tybalt@capulet.example")}))
	must(t, db.SetLastActivity(account, time.Now(), "to bed").Wait(ctx))
	_, unsent := db.AppendUnsent(xmpp.New(xmpp.Message, "", jid.MustParse("juliet@capulet.example"), account), time.Now())
	must(t, unsent.Wait(ctx))
	must(t, db.SaveSessions(ctx, []xmpp.SavedSession{{Account: account, Resource: "balcony", Expires: time.Now(), Data: []byte("x")}}))
	must(t, db.EnablePush(ctx, account, registration("push.example", "node", "phone", "")))
	f := uploaded(account, 0, 10, time.Time{})
	must(t, db.BeginUpload(ctx, f, 0, time.Now().Add(time.Hour)))
	must(t, db.FinishUpload(ctx, f, 0))
	must(t, db.CreatePubSubNode(ctx, account, node(account, "urn:x")))
	_, err = db.PublishPubSubItem(ctx, account, "urn:x", pubsub.Item{ID: "a", Published: time.Now(), Payload: []byte("<a xmlns='urn:x'/>")}, 10, false, time.Time{})
	must(t, err)
	must(t, db.SetPubSubSubscription(ctx, account, "urn:x", pubsub.Subscription{JID: account, State: pubsub.Subscribed}))
}

// testDelete: security promise 22, a name that is registered again inherits nothing.
func testDelete(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, other := jid.MustParse("deleted@montague.example"), jid.MustParse("deleted@capulet.example")
	Fill(t, db, j)
	Fill(t, db, other)
	must(t, db.DeleteAccount(ctx, j))
	isEmpty(t, db, j)
	must(t, db.CreateAccount(ctx, j, nil))
	isEmpty(t, db, j)
	must(t, db.SetAccountDisabled(ctx, j, true))
	must(t, db.DeleteAccount(ctx, j))
	must(t, db.CreateAccount(ctx, j, nil))
	v, err := db.Verifiers(ctx, j)
	must(t, err)
	equal(t, "verifiers", v, nil)
	disabled, err := db.AccountDisabled(ctx, j)
	must(t, err)
	equal(t, "disabled", disabled, false)

	items, _, err := db.Roster(ctx, other)
	must(t, err)
	equal(t, "items of the account of the other domain", len(items), 1)
	n, err := db.CountOffline(ctx, other)
	must(t, err)
	equal(t, "messages of the account of the other domain", n, 1)
}

func isEmpty(t *testing.T, db *storage.DB, j jid.JID) {
	t.Helper()
	ctx := withLimit(t)
	items, _, err := db.Roster(ctx, j)
	must(t, err)
	equal(t, "roster", items, nil)
	entries, err := db.Offline(ctx, j, 0, 10)
	must(t, err)
	equal(t, "messages", len(entries), 0)
	n, err := db.CountOffline(ctx, j)
	must(t, err)
	equal(t, "number of messages", n, 0)
	equal(t, "archive", archive(t, db, j), nil)
	state, err := db.SpoolState(ctx, j)
	must(t, err)
	equal(t, "state of the spool", state, offline.State{Account: j})
	p, err := db.ArchivePreferences(ctx, j)
	must(t, err)
	equal(t, "archive preferences", p, mam.Preferences{Default: mam.Always})
	x, err := db.PrivateXML(ctx, j, "storage:bookmarks", "storage")
	must(t, err)
	equal(t, "private XML", x, nil)
	x, err = db.VCard(ctx, j)
	must(t, err)
	equal(t, "vCard", x, nil)
	blocked, err := db.Blocked(ctx, j)
	must(t, err)
	equal(t, "block list", blocked, nil)
	wantTokens(t, db, j, "phone")
	at, status, err := db.LastActivity(ctx, j)
	must(t, err)
	equal(t, "last activity", at, time.Time{})
	equal(t, "last status", status, "")
	pushes(t, db, j)
	used, err := db.UploadUsage(ctx, j, 0, time.Now())
	must(t, err)
	equal(t, "uploads", used, 0)
	nodes, err := db.PubSubNodes(ctx, j, j)
	must(t, err)
	equal(t, "nodes", len(nodes), 0)
}

func testNoAccount(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, juliet := jid.MustParse("nobody@montague.example"), jid.MustParse("juliet@capulet.example")
	_, err := db.Verifiers(ctx, j)
	wantErr(t, err, auth.ErrNoAccount)
	_, err = db.AccountDisabled(ctx, j)
	wantErr(t, err, auth.ErrNoAccount)
	_, err = db.UpdateItem(ctx, j, juliet, func(i *roster.Item) bool { i.Listed = true; return true })
	wantErr(t, err, auth.ErrNoAccount)
	for what, err := range map[string]error{
		"AddVerifier":        db.AddVerifier(ctx, j, verifiers(0)[0], verifiers(0)[1]),
		"AddToken":           db.AddToken(ctx, j, token("phone", 1, 0, 21), verifiers(0)[0]),
		"UseToken":           db.UseToken(ctx, j, token("phone", 1, 0, 21), auth.TokenUse{At: when}),
		"SetVerifiers":       db.SetVerifiers(ctx, j, verifiers(0)),
		"SetAccountDisabled": db.SetAccountDisabled(ctx, j, true),
		"DeleteAccount":      db.DeleteAccount(ctx, j),
		"AppendOffline":      db.AppendOffline(ctx, j, time.Now(), message(t, j, "hello?")).Wait(ctx),
		"RemoveOffline":      db.RemoveOffline(ctx, j, 1),
		"AppendMessage":      db.AppendMessage(ctx, received(t, j, juliet, "hello?")).Commit.Wait(ctx),
		"SetPreferences":     db.SetArchivePreferences(ctx, j, mam.Preferences{}),
		"SetPrivateXML":      db.SetPrivateXML(ctx, j, "a", "b", []byte("<b xmlns='a'/>")),
		"SetVCard":           db.SetVCard(ctx, j, []byte("<vCard xmlns='vcard-temp'/>")),
		"UpdateVCard":        db.UpdateVCard(ctx, j, func([]byte) []byte { return []byte("<vCard xmlns='vcard-temp'/>") }),
		"Block":              db.Block(ctx, j, []jid.JID{juliet}),
		"Unblock":            db.Unblock(ctx, j, nil),
		"SetLastActivity":    db.SetLastActivity(j, time.Now(), "").Wait(ctx),
		"EnablePush":         db.EnablePush(ctx, j, registration("push.example", "node", "phone", "")),
		"DisablePush":        db.DisablePush(ctx, j, jid.MustParse("push.example"), ""),
		"RemovePush":         db.RemovePush(ctx, j, 1),
		"CreatePubSubNode":   db.CreatePubSubNode(ctx, j, node(j, "urn:x")),
	} {
		t.Run(what, func(t *testing.T) { wantErr(t, err, auth.ErrNoAccount) })
	}
	wantErr(t, db.BeginUpload(ctx, uploaded(j, 0, 1, time.Time{}), 0, time.Now()), upload.ErrGone)
	wantErr(t, db.FinishUpload(ctx, uploaded(j, 0, 1, time.Time{}), 0), upload.ErrGone)
	isEmpty(t, db, j)
	_, now, ok, err := db.RosterSince(ctx, j, 5)
	must(t, err)
	if ok || now != 0 {
		t.Errorf("a roster without an account is at %d, %t", now, ok)
	}
	_, found, err := db.RosterItem(ctx, j, juliet)
	must(t, err)
	equal(t, "found", found, false)
}
