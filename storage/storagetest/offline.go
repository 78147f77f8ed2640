package storagetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"balcony/storage"
	"balcony/xmpp"
	"balcony/xmpp/ext/offline"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/jid"
)

// message is a message to an account as the scanner gives it.
func message(t testing.TB, to jid.JID, body string) *xmpp.Stanza {
	t.Helper()
	b := xmpp.AppendEscaped(nil, body)
	s, err := stream.Parse(fmt.Appendf(nil, "<message to='%s' from='juliet@capulet.example/balcony' type='chat' id='m1'><body>%s</body>"+
		"<x:extra xmlns:x='urn:example' x:a='&lt;'/></message>", to, b), stream.DefaultLimits())
	must(t, err)
	return s
}

func appendMessage(t testing.TB, db *storage.DB, to jid.JID, body string) error {
	t.Helper()
	ctx := withLimit(t)
	return db.AppendOffline(ctx, to, time.Now(), message(t, to, body)).Wait(ctx)
}

func bodies(t testing.TB, db *storage.DB, j jid.JID, after int64, limit int) (texts []string, last int64) {
	t.Helper()
	entries, err := db.Offline(withLimit(t), j, after, limit)
	must(t, err)
	for _, e := range entries {
		if e.ID <= after || e.ID <= last {
			t.Errorf("id %d after %d", e.ID, max(after, last))
		}
		last = e.ID
		body, _ := e.Stanza.Child("", "body")
		texts = append(texts, body.Text())
	}
	return texts, last
}

func spool(t testing.TB, db *storage.DB, j jid.JID, want int) {
	t.Helper()
	n, err := db.CountOffline(withLimit(t), j)
	must(t, err)
	equal(t, "number of messages", n, want)
}

func testOffline(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, other := account(t, db), account(t, db)
	spool(t, db, j, 0)
	st := message(t, j, "wherefore & <art> thou")
	stamp := time.Date(1596, 1, 30, 12, 0, 0, 123456000, time.UTC)
	must(t, db.AppendOffline(ctx, j, stamp, st).Wait(ctx))
	entries, err := db.Offline(ctx, j, 0, 10)
	must(t, err)
	if len(entries) != 1 {
		t.Fatalf("%d messages", len(entries))
	}
	equal(t, "stamp", entries[0].Stamp, stamp)
	got := entries[0].Stanza
	equal(t, "stanza", got.String(), st.String())
	equal(t, "to", got.To, j)
	equal(t, "from", got.From, jid.MustParse("juliet@capulet.example/balcony"))
	equal(t, "type", got.Type, "chat")
	equal(t, "id", got.ID, "m1")
	if _, found := got.Child("urn:example", "extra"); !found {
		t.Error("the child with a prefix is gone")
	}
	must(t, db.RemoveOffline(ctx, j, entries[0].ID))
	spool(t, db, j, 0)

	var want []string
	for i := range 10 {
		want = append(want, fmt.Sprint(i))
		must(t, appendMessage(t, db, j, want[i]))
		must(t, appendMessage(t, db, other, "other"))
	}
	spool(t, db, j, 10)
	var all []string
	var ids []int64
	for after := int64(0); ; {
		texts, last := bodies(t, db, j, after, 4)
		if len(texts) == 0 {
			break
		}
		all, after = append(all, texts...), last
		ids = append(ids, last)
	}
	equal(t, "messages", all, want)
	equal(t, "pages", len(ids), 3)
	must(t, db.RemoveOffline(ctx, j, ids[0]))
	rest, _ := bodies(t, db, j, 0, 100)
	equal(t, "messages after the first page", rest, want[4:])
	spool(t, db, j, 6)
	must(t, db.RemoveOffline(ctx, j, ids[0]))
	spool(t, db, j, 6)
	must(t, db.RemoveOffline(ctx, j, 1<<62))
	spool(t, db, j, 0)
	spool(t, db, other, 10)
}

func testOfflineBounds(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j := account(t, db)
	for i := range Limits.OfflineMessages {
		must(t, appendMessage(t, db, j, fmt.Sprint(i)))
	}
	wantErr(t, appendMessage(t, db, j, "one too many"), offline.ErrFull)
	spool(t, db, j, Limits.OfflineMessages)
	must(t, appendMessage(t, db, account(t, db), "others are not full"))
	texts, _ := bodies(t, db, j, 0, 1000)
	equal(t, "last message", texts[len(texts)-1], fmt.Sprint(Limits.OfflineMessages-1))
	entries, err := db.Offline(ctx, j, 0, 2)
	must(t, err)
	must(t, db.RemoveOffline(ctx, j, entries[1].ID))
	must(t, appendMessage(t, db, j, "room again"))
	must(t, appendMessage(t, db, j, "room again"))
	wantErr(t, appendMessage(t, db, j, "one too many"), offline.ErrFull)

	// In bytes.
	j = account(t, db)
	large := strings.Repeat("x", 150_000)
	must(t, appendMessage(t, db, j, large))
	must(t, appendMessage(t, db, j, large))
	wantErr(t, appendMessage(t, db, j, large), offline.ErrFull)
	must(t, appendMessage(t, db, j, "a small one"))
	entries, err = db.Offline(ctx, j, 0, 1)
	must(t, err)
	must(t, db.RemoveOffline(ctx, j, entries[0].ID))
	must(t, appendMessage(t, db, j, large))
	wantErr(t, appendMessage(t, db, j, large), offline.ErrFull)
	spool(t, db, j, 3)

	// The bound holds when the messages come at once, and what is refused is refused one by one.
	j = account(t, db)
	var commits []*xmpp.Commit
	for i := range 3 * Limits.OfflineMessages {
		commits = append(commits, db.AppendOffline(ctx, j, time.Now(), message(t, j, fmt.Sprint(i))))
	}
	for i, c := range commits {
		if err := c.Wait(ctx); i < Limits.OfflineMessages {
			must(t, err)
		} else if !errors.Is(err, offline.ErrFull) {
			t.Errorf("message %d: %v", i, err)
		}
	}
	spool(t, db, j, Limits.OfflineMessages)
}

// testOfflineIDs: what arrives between Offline and RemoveOffline must not be removed with what was delivered.
func testOfflineIDs(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j := account(t, db)
	must(t, appendMessage(t, db, j, "first"))
	_, delivered := bodies(t, db, j, 0, 10)
	must(t, db.RemoveOffline(ctx, j, delivered))
	must(t, appendMessage(t, db, j, "second"))
	must(t, db.RemoveOffline(ctx, j, delivered)) // by another resource that delivered the same
	texts, _ := bodies(t, db, j, 0, 10)
	equal(t, "messages", texts, []string{"second"})
	texts, _ = bodies(t, db, j, delivered, 10)
	equal(t, "messages after the delivered one", texts, []string{"second"})
}

func testOfflineSettles(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j := account(t, db)
	for i := range 20 {
		c := db.AppendOffline(ctx, j, time.Now(), message(t, j, fmt.Sprint(i)))
		if texts, last := bodies(t, db, j, 0, 10); len(texts) != 1 {
			t.Fatalf("%d messages after an append that was not waited for", len(texts))
		} else if err := db.RemoveOffline(ctx, j, last); err != nil {
			t.Fatal(err)
		}
		must(t, c.Wait(ctx))
	}
}

func testOfflineConcurrent(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	accounts := []jid.JID{account(t, db), account(t, db), account(t, db)}
	const senders, each = 5, 6
	var wg sync.WaitGroup
	for s := range senders {
		for _, j := range accounts {
			wg.Go(func() {
				for i := range each {
					if err := appendMessage(t, db, j, fmt.Sprintf("%d-%d", s, i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Go(func() { // other writes share the transactions
			for i := range each {
				if err := db.SetVCard(ctx, accounts[0], fmt.Appendf(nil, "<v>%d</v>", i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, j := range accounts {
		texts, _ := bodies(t, db, j, 0, 1000)
		equal(t, "messages", len(texts), senders*each)
		next := make([]int, senders) // the order of each sender is kept
		for _, text := range texts {
			var s, i int
			if _, err := fmt.Sscanf(text, "%d-%d", &s, &i); err != nil {
				t.Fatal(err)
			}
			equal(t, "message of a sender", i, next[s])
			next[s]++
		}
		spool(t, db, j, senders*each)
	}
}
