package storagetest

import (
	"errors"
	"testing"
	"time"

	"balcony/storage"
	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/ext/mam"

	"mellium.im/xmpp/jid"
)

// testUnsent: what goes to another server is kept in order, as it was, until it is removed; an archived message is not kept twice.
func testUnsent(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	romeo, juliet := jid.MustParse("unsent@montague.example"), jid.MustParse("juliet@capulet.example")
	must(t, db.CreateAccount(ctx, romeo, nil))
	message := func(text string) *xmpp.Stanza {
		s := xmpp.New(xmpp.Message, "chat", juliet, jid.MustParse("unsent@montague.example/orchard"), xmpp.El("", "body").Say(text))
		s.ID = text
		return s
	}
	at := time.Now().Truncate(time.Microsecond)
	var rows []int64
	add := func(s *xmpp.Stanza) {
		t.Helper()
		row, c := db.AppendUnsent(s, at)
		must(t, c.Wait(ctx))
		rows = append(rows, row)
	}
	add(message("1"))
	archived := message("<2>")
	kept := db.AppendMessage(ctx, mam.Item{Owner: romeo, Peer: juliet, Stanza: archived, Stamp: at, Sent: true, Archived: true})
	must(t, kept.Commit.Wait(ctx))
	add(archived.Kept(kept.Order, 0))
	add(message("3"))
	add(message("gone").Kept(42, 0))
	if _, c := db.AppendUnsent(message("nobody's").WithFrom(jid.MustParse("gone@montague.example")), at); !errors.Is(c.Wait(ctx), auth.ErrNoAccount) {
		t.Errorf("a stanza of no account: %v", c.Wait(ctx))
	}
	all, err := db.Unsent(ctx, 0, 100)
	must(t, err)
	equal(t, "stanzas", len(all), 4)
	for i, want := range []string{"1", "<2>", "3", ""} {
		equal(t, "row", all[i].Row, rows[i])
		if d := all[i].Since.Sub(at); d < 0 || d > time.Second {
			t.Errorf("%d was sent %s after it was", i, d)
		}
		if want == "" {
			equal(t, "what the archive does not have any more", all[i].Stanza == nil, true)
			continue
		}
		equal(t, "stanza", all[i].Stanza.String(), message(want).String())
	}
	some, err := db.Unsent(ctx, rows[0], 2)
	must(t, err)
	equal(t, "stanzas of a page", len(some), 2)
	equal(t, "first of a page", some[0].Row, rows[1])

	must(t, db.RemoveUnsent(ctx, []int64{rows[1], rows[3], 7}))
	must(t, db.RemoveUnsent(ctx, []int64{rows[1]}))
	must(t, db.RemoveUnsent(ctx, nil))
	all, err = db.Unsent(ctx, 0, 100)
	must(t, err)
	equal(t, "stanzas that are left", len(all), 2)
	equal(t, "the second of them", all[1].Row, rows[2])

	must(t, db.DeleteAccount(ctx, romeo))
	all, err = db.Unsent(ctx, 0, 100)
	must(t, err)
	equal(t, "stanzas of an account that is deleted", len(all), 0)
}
