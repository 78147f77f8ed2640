// Package storagetest is the one suite that storage must pass on every database. A new method of a Store gets its case here.
package storagetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"balcony/storage"
	"balcony/xmpp/auth"

	"github.com/google/go-cmp/cmp"
	"mellium.im/xmpp/jid"
)

// Limits are those that open gives the database: small, so that tests reach them.
var Limits = storage.Limits{
	RosterItems:     20,
	RosterRequests:  5,
	RequestBytes:    1000,
	RosterRemoved:   8,
	OfflineMessages: 30,
	OfflineBytes:    400_000,
	PrivateElements: 4,
	PrivateBytes:    10_000,
	BlockList:       6,
	TokenClients:    5,

	PubSubNodes:            4,
	PubSubServiceNodes:     6,
	PubSubItems:            10,
	PubSubBytes:            20_000,
	PubSubAffiliations:     5,
	PubSubSubscriptions:    6,
	PubSubOwnSubscriptions: 3,

	PushRegistrations: 4,
}

// Log is a logger that writes to the test's log.
func Log(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Run runs the suite. open returns an empty database with Limits, which the test closes at its end.
func Run(t *testing.T, open func(t *testing.T) *storage.DB) {
	db := open(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *storage.DB)
	}{
		{"Accounts", testAccounts},
		{"AccountsOfADomain", testAccountList},
		{"Verifiers", testVerifiers},
		{"AddedVerifiers", testAddVerifier},
		{"DisabledAccount", testDisabled},
		{"Tokens", testTokens},
		{"TokensInUse", testUseToken},
		{"TokenCounts", testTokenCounts},
		{"TokenClients", testTokenClients},
		{"TokensEndWithThePassword", testTokensEnd},
		{"TokensAtOnce", testTokensAtOnce},
		{"TokenOfTwoLogins", testTokenModel},
		{"LoginsWithTokens", testTokenLogins},
		{"NoAccount", testNoAccount},
		{"SavedSessions", testSessions},
		{"Unsent", testUnsent},
		{"DeletedAccountLeavesNothing", testDelete},
		{"Secret", testSecret},
		{"Roster", testRoster},
		{"RosterItemWithoutAnyState", testRosterEmptyItem},
		{"RosterVersions", testRosterVersions},
		{"RosterVersionsOfALaterAccount", testRosterVersionsOfALaterAccount},
		{"RosterForgetsOldRemovals", testRosterForgets},
		{"RosterBounds", testRosterBounds},
		{"RosterUpdatesAreNotLost", testRosterConcurrent},
		{"RosterModel", testRosterModel},
		{"RosterOwners", testRosterOwners},
		{"Offline", testOffline},
		{"OfflineBounds", testOfflineBounds},
		{"OfflineIDsAreNotGivenTwice", testOfflineIDs},
		{"OfflineSeesWhatWasAppended", testOfflineSettles},
		{"OfflineFromManySenders", testOfflineConcurrent},
		{"Archive", testArchive},
		{"ArchiveIDs", testArchiveIDs},
		{"ArchiveOfTwoOwners", testArchiveShared},
		{"ArchiveTrim", testArchiveTrim},
		{"ArchiveRewrite", testArchiveRewrite},
		{"ArchiveTags", testArchiveTags},
		{"ArchivePreferences", testArchivePreferences},
		{"ArchiveOrder", testArchiveOrder},
		{"ArchiveModel", testArchiveModel},
		{"ArchiveSearch", testSearch},
		{"ArchiveSearchModel", testSearchModel},
		{"ArchiveSearchOfDomains", testSearchDomains},
		{"SpoolState", testSpoolState},
		{"WaitingInTheArchive", testWaiting},
		{"ImportArchive", testImportArchive},
		{"ImportArchiveTogether", testImportArchiveTogether},
		{"ImportArchiveAgain", testImportArchiveAgain},
		{"PrivateXML", testPrivate},
		{"PrivateBounds", testPrivateBounds},
		{"VCard", testVCard},
		{"VCardUpdate", testVCardUpdate},
		{"BlockList", testBlocking},
		{"BlockListBound", testBlockingBound},
		{"LastActivity", testLast},
		{"Push", testPush},
		{"PushBound", testPushBound},
		{"Uploads", testUploads},
		{"UploadsOfADeletedAccount", testUploadsDeleted},
		{"SlotsOfAYoungerAccount", testSlotsOfYoungerAccount},
		{"UploadQuota", testUploadQuota},
		{"UploadTotals", testUploadTotals},
		{"UploadsThatMakeRoom", testUploadsKept},
		{"PubSubNodes", testPubSubNodes},
		{"PubSubNodePage", testPubSubNodePage},
		{"PubSubItems", testPubSubItems},
		{"PubSubItemModel", testPubSubItemModel},
		{"PubSubMembers", testPubSubMembers},
		{"PubSubBounds", testPubSubBounds},
		{"PubSubForgetsDeletedAccounts", testPubSubForgets},
		{"EndedContext", testEndedContext},
		{"Ping", testPing},
		{"Observe", testObserve},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, db) })
	}
	t.Run("Closed", func(t *testing.T) { testClosed(t, open(t)) })
}

// limit is how long a call of the suite may take before it counts as hung.
const limit = 30 * time.Second

func withLimit(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

var accounts int // the suite runs one test at a time

// account creates an account of the test's own.
func account(t testing.TB, db *storage.DB) jid.JID {
	t.Helper()
	accounts++
	j := jid.MustParse(fmt.Sprintf("account%d@montague.example", accounts))
	must(t, db.CreateAccount(withLimit(t), j, nil))
	return j
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func equal[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b jid.JID) bool { return a.Equal(b) }), cmp.Comparer(time.Time.Equal)); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func testAccounts(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	romeo, other := jid.MustParse("romeo@one.example"), jid.MustParse("romeo@two.example")
	exists := func(j jid.JID, want bool) {
		t.Helper()
		got, err := db.AccountExists(ctx, j)
		must(t, err)
		equal(t, "exists", got, want)
	}
	exists(romeo, false)
	must(t, db.CreateAccount(ctx, romeo, nil))
	exists(romeo, true)
	exists(other, false) // the domain is part of the key
	wantErr(t, db.CreateAccount(ctx, romeo, nil), auth.ErrAccountExists)
	must(t, db.CreateAccount(ctx, other, nil))
	must(t, db.DeleteAccount(ctx, romeo))
	exists(romeo, false)
	exists(other, true)
	wantErr(t, db.DeleteAccount(ctx, romeo), auth.ErrNoAccount)
	must(t, db.CreateAccount(ctx, romeo, nil))
	exists(romeo, true)
}

func testAccountList(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	// In the order of their bytes. A locale would put the hyphen and the umlaut elsewhere.
	names := []string{"a-c", "a.b", "a1", "ab", "ac", "z", "ä", "日本"}
	for i := range names {
		must(t, db.CreateAccount(ctx, jid.MustParse(names[(i*5)%len(names)]+"@list.example"), nil))
	}
	must(t, db.CreateAccount(ctx, jid.MustParse("aa@elsewhere.example"), nil))
	var got []string
	for after := ""; ; {
		page, err := db.Accounts(ctx, "list.example", after, 3)
		must(t, err)
		if len(page) > 3 {
			t.Fatalf("a page has %d accounts", len(page))
		}
		if len(page) == 0 {
			break
		}
		for _, j := range page {
			equal(t, "domain", j.Domainpart(), "list.example")
			got = append(got, j.Localpart())
		}
		after = got[len(got)-1]
	}
	equal(t, "accounts", got, names)
	n, err := db.CountAccounts(ctx, "list.example")
	must(t, err)
	equal(t, "count", n, len(names))
	n, err = db.CountAccounts(ctx, "nowhere.example")
	must(t, err)
	equal(t, "count", n, 0)
}

func verifiers(seed byte) []auth.Verifier {
	key := func(n int, b byte) []byte {
		k := make([]byte, n)
		for i := range k {
			k[i] = b + byte(i) // zero bytes and bytes that are no UTF-8 included
		}
		return k
	}
	return []auth.Verifier{ // in the order of their names
		{Mechanism: "SCRAM-SHA-1", Salt: key(16, seed), Iterations: 4096, StoredKey: key(20, seed), ServerKey: key(20, 250)},
		{Mechanism: "SCRAM-SHA-256", Salt: key(16, seed), Iterations: 10000, StoredKey: key(32, seed), ServerKey: key(32, 128)},
		{Mechanism: "SCRAM-SHA-512", Salt: key(16, seed), Iterations: 10001, StoredKey: key(64, seed), ServerKey: key(64, 0)},
	}
}

func testVerifiers(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j := jid.MustParse("mercutio@montague.example")
	must(t, db.CreateAccount(ctx, j, verifiers(0)))
	got, err := db.Verifiers(ctx, j)
	must(t, err)
	equal(t, "verifiers", got, verifiers(0))
	wantErr(t, db.CreateAccount(ctx, j, verifiers(1)), auth.ErrAccountExists)
	got, err = db.Verifiers(ctx, j)
	must(t, err)
	equal(t, "verifiers after a second creation", got, verifiers(0))
	must(t, db.SetVerifiers(ctx, j, verifiers(7)[1:2]))
	got, err = db.Verifiers(ctx, j)
	must(t, err)
	equal(t, "verifiers after a change", got, verifiers(7)[1:2])
	must(t, db.SetVerifiers(ctx, j, nil))
	got, err = db.Verifiers(ctx, j)
	must(t, err)
	equal(t, "no verifiers", len(got), 0)
}

func testDisabled(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j := account(t, db)
	for _, want := range []bool{false, true, true, false} {
		must(t, db.SetAccountDisabled(ctx, j, want))
		got, err := db.AccountDisabled(ctx, j)
		must(t, err)
		equal(t, "disabled", got, want)
		c, err := db.Credentials(ctx, j)
		must(t, err)
		equal(t, "disabled, as logins see it", c.Disabled, want)
	}
	got, err := db.AccountDisabled(ctx, account(t, db))
	must(t, err)
	equal(t, "new account is disabled", got, false)
}

func testSecret(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	results := make(chan []byte, 10)
	for range cap(results) { // the first calls race
		go func() {
			s, err := db.Secret(ctx, "fake salts", 32)
			if err != nil {
				t.Error(err)
			}
			results <- s
		}()
	}
	first := <-results
	equal(t, "size", len(first), 32)
	for range cap(results) - 1 {
		equal(t, "secret", <-results, first)
	}
	other, err := db.Secret(ctx, "another", 32)
	must(t, err)
	if string(other) == string(first) {
		t.Error("two names have the same secret")
	}
	if _, err := db.Secret(ctx, "another", 16); err == nil {
		t.Error("a secret of another size was accepted")
	}
}

func testEndedContext(t *testing.T, db *storage.DB) {
	j := account(t, db)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := db.VCard(ctx, j)
	wantErr(t, err, context.Canceled)
	wantErr(t, db.SetVCard(ctx, j, []byte("<vCard/>")), context.Canceled)
	v, err := db.VCard(withLimit(t), j)
	must(t, err)
	equal(t, "vCard that was not set", v, nil)
}

func testPing(t *testing.T, db *storage.DB) { must(t, db.Ping(withLimit(t))) }

func testObserve(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j := account(t, db)
	type seen struct {
		op  string
		err error
	}
	ops := make(chan seen, 100)
	db.Observe(func(op string, d time.Duration, err error) {
		if d < 0 || d > limit {
			t.Errorf("%s took %s", op, d)
		}
		ops <- seen{op, err}
	})
	must(t, db.SetVCard(ctx, j, []byte("<vCard/>")))
	_, err := db.VCard(ctx, j)
	must(t, err)
	db.Observe(nil)
	_, err = db.VCard(ctx, j)
	must(t, err)
	close(ops)
	var got []string
	for s := range ops {
		must(t, s.err)
		if s.op != "commit" || len(got) == 0 { // in memory a read is the writer's too
			got = append(got, s.op)
		}
	}
	equal(t, "operations", got, []string{"commit", "VCard"})
	equal(t, "queue", db.Stats(), storage.Stats{})
}

func testClosed(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j := account(t, db)
	st := message(t, j, "the last one")
	commits := []interface{ Wait(context.Context) error }{}
	for range 10 {
		commits = append(commits, db.AppendOffline(ctx, j, time.Now(), st))
	}
	must(t, db.Close())
	for _, c := range commits {
		must(t, c.Wait(ctx)) // Close completes what was accepted
	}
	must(t, db.Close())
	wantErr(t, db.AppendOffline(ctx, j, time.Now(), st).Wait(ctx), storage.ErrClosed)
	wantErr(t, db.SetVCard(ctx, j, nil), storage.ErrClosed)
	_, err := db.VCard(ctx, j)
	wantErr(t, err, storage.ErrClosed)
	_, err = db.Offline(ctx, j, 0, 1)
	wantErr(t, err, storage.ErrClosed)
	wantErr(t, db.Ping(ctx), storage.ErrClosed)
}
