package storagetest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"balcony/storage"
	"balcony/xmpp/auth"

	"mellium.im/xmpp/jid"
	"pgregory.net/rapid"
)

// when is a time that a database keeps exactly.
var when = time.Date(2026, 3, 12, 14, 36, 15, 123456000, time.UTC)

// token is the nth token of a client, issued and expiring days after when.
func token(client string, n byte, issued, expires int) auth.StoredToken {
	const day = 24 * time.Hour
	return auth.StoredToken{
		TokenInfo: auth.TokenInfo{
			Client: client, Mechanism: "HT-SHA-256-EXPR", Software: "Sörvice <&>", Device: "",
			Issued: when.Add(time.Duration(issued) * day), Expires: when.Add(time.Duration(expires) * day),
		},
		Salt:   append(bytes.Repeat([]byte{0, n}, 15), 0xff, n), // zero bytes and bytes that are no UTF-8 included
		Sealed: bytes.Repeat([]byte{0xfe, n}, 16),
		Count:  -1,
	}
}

// member creates an account with verifiers, by which its clients have logged in.
func member(t testing.TB, db *storage.DB) (jid.JID, auth.Verifier) {
	t.Helper()
	j := account(t, db)
	must(t, db.SetVerifiers(withLimit(t), j, verifiers(3)))
	return j, verifiers(3)[1]
}

func wantTokens(t testing.TB, db *storage.DB, j jid.JID, client string, want ...auth.StoredToken) {
	t.Helper()
	got, err := db.Tokens(withLimit(t), j, client)
	must(t, err)
	equal(t, "tokens of "+client, got, want)
}

func testAddVerifier(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j := account(t, db)
	old, fresh := verifiers(3), verifiers(9)
	must(t, db.SetVerifiers(ctx, j, old[:1]))
	check := func(want ...auth.Verifier) {
		t.Helper()
		got, err := db.Verifiers(ctx, j)
		must(t, err)
		equal(t, "verifiers", got, want)
	}
	wantErr(t, db.AddVerifier(ctx, j, old[1], fresh[0]), auth.ErrOutdated) // another password
	wantErr(t, db.AddVerifier(ctx, j, old[1], old[2]), auth.ErrOutdated)   // a verifier that it does not have
	wantErr(t, db.AddVerifier(ctx, j, old[1], auth.Verifier{Mechanism: "SCRAM-SHA-512"}), auth.ErrOutdated)
	check(old[0])
	must(t, db.AddToken(ctx, j, token("phone", 1, 0, 21), old[0]))
	must(t, db.AddVerifier(ctx, j, old[1], old[0]))
	check(old[0], old[1])
	must(t, db.AddVerifier(ctx, j, fresh[1], old[0])) // there is one already
	must(t, db.AddVerifier(ctx, j, fresh[0], old[1]))
	check(old[0], old[1])
	must(t, db.AddVerifier(ctx, j, old[2], old[1]))
	check(old...)
	wantTokens(t, db, j, "phone", token("phone", 1, 0, 21)) // the password is the same
	must(t, db.SetVerifiers(ctx, j, fresh[:1]))
	wantErr(t, db.AddVerifier(ctx, j, old[1], old[0]), auth.ErrOutdated)
	must(t, db.SetAccountDisabled(ctx, j, true))
	wantErr(t, db.AddVerifier(ctx, j, fresh[1], fresh[0]), auth.ErrOutdated)
	check(fresh[0])
	wantErr(t, db.AddVerifier(ctx, jid.MustParse("nobody@montague.example"), old[1], old[0]), auth.ErrNoAccount)
}

func testTokens(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, proof := member(t, db)
	other, _ := member(t, db)
	wantTokens(t, db, j, "phone")
	wantTokens(t, db, jid.MustParse("nobody@montague.example"), "phone")
	first, second, web := token("phone", 1, 0, 21), token("phone", 2, 1, 22), token("web", 3, 2, 23)
	must(t, db.AddToken(ctx, j, first, proof))
	wantTokens(t, db, j, "phone", first)
	wantTokens(t, db, j, "web")
	wantTokens(t, db, other, "phone")
	// XEP-0484 §3.5: the one that was not used goes.
	must(t, db.AddToken(ctx, j, second, proof))
	wantTokens(t, db, j, "phone", second)
	must(t, db.AddToken(ctx, j, web, proof))
	must(t, db.AddToken(ctx, other, first, proof)) // of another account, that happens to have the same verifier
	wantTokens(t, db, j, "phone", second)
	list, err := db.ListTokens(ctx, j)
	must(t, err)
	equal(t, "list", list, []auth.TokenInfo{second.TokenInfo, web.TokenInfo})
	empty := account(t, db)
	list, err = db.ListTokens(ctx, empty)
	must(t, err)
	equal(t, "list of an account without tokens", list, nil)
	_, err = db.ListTokens(ctx, jid.MustParse("nobody@montague.example"))
	wantErr(t, err, auth.ErrNoAccount)
	// What the client proved is not valid (any more).
	wantErr(t, db.AddToken(ctx, empty, first, proof), auth.ErrOutdated)
	wantErr(t, db.AddToken(ctx, j, first, verifiers(4)[1]), auth.ErrOutdated)
	wantErr(t, db.AddToken(ctx, j, first, auth.Verifier{}), auth.ErrOutdated)
	wantErr(t, db.AddToken(ctx, jid.MustParse("nobody@montague.example"), first, proof), auth.ErrNoAccount)
	wantTokens(t, db, j, "phone", second)
	n, err := db.DeleteTokens(ctx, j, "phone")
	must(t, err)
	equal(t, "number", n, 1)
	n, err = db.DeleteTokens(ctx, j, "phone")
	must(t, err)
	equal(t, "number", n, 0)
	wantTokens(t, db, j, "web", web)
	must(t, db.AddToken(ctx, j, first, proof))
	n, err = db.DeleteTokens(ctx, j, "")
	must(t, err)
	equal(t, "number", n, 2)
	wantTokens(t, db, other, "phone", first)
	_, err = db.DeleteTokens(ctx, jid.MustParse("nobody@montague.example"), "")
	wantErr(t, err, auth.ErrNoAccount)
}

func testUseToken(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, proof := member(t, db)
	used := func(at auth.StoredToken, days int) auth.StoredToken {
		at.Used = when.Add(time.Duration(days) * 24 * time.Hour)
		return at
	}
	at := func(days int) auth.TokenUse { return auth.TokenUse{At: when.Add(time.Duration(days) * 24 * time.Hour)} }
	first, second, third := token("phone", 1, 0, 21), token("phone", 2, 1, 22), token("phone", 3, 2, 23)
	web := token("web", 9, 0, 1)
	must(t, db.AddToken(ctx, j, web, proof))
	must(t, db.AddToken(ctx, j, first, proof))
	must(t, db.UseToken(ctx, j, first, at(1)))
	wantTokens(t, db, j, "phone", used(first, 1))
	// XEP-0484 §3.5: the existing token stays until the new one is used.
	use := at(2)
	use.Next = &second
	must(t, db.UseToken(ctx, j, first, use))
	wantTokens(t, db, j, "phone", used(first, 2), second)
	must(t, db.UseToken(ctx, j, first, at(3)))
	wantTokens(t, db, j, "phone", used(first, 3), second)
	// Another one takes the place of the one that did not arrive.
	use.Next = &third
	must(t, db.UseToken(ctx, j, first, use))
	wantTokens(t, db, j, "phone", used(first, 2), third)
	wantErr(t, db.UseToken(ctx, j, second, at(4)), auth.ErrOutdated)
	must(t, db.UseToken(ctx, j, third, at(4)))
	wantTokens(t, db, j, "phone", used(third, 4))
	wantErr(t, db.UseToken(ctx, j, first, at(4)), auth.ErrOutdated)
	// XEP-0484 §3.5: all with an earlier expiry go, those too that were not used.
	short := token("phone", 4, 3, 5)
	must(t, db.AddToken(ctx, j, short, proof))
	must(t, db.UseToken(ctx, j, third, at(5)))
	wantTokens(t, db, j, "phone", used(third, 5))
	// A token that expires earlier takes the place of the one before when it is used.
	must(t, db.AddToken(ctx, j, short, proof))
	must(t, db.UseToken(ctx, j, short, at(5)))
	wantTokens(t, db, j, "phone", used(short, 5))
	// XEP-0484 §3.6.
	use = at(6)
	use.Invalidate = true
	must(t, db.UseToken(ctx, j, short, use))
	wantTokens(t, db, j, "phone")
	must(t, db.AddToken(ctx, j, first, proof))
	use.Next = &second
	must(t, db.UseToken(ctx, j, first, use))
	wantTokens(t, db, j, "phone", second)
	wantTokens(t, db, j, "web", web)
	// The same salt elsewhere is another token.
	stranger := second
	stranger.Client = "web"
	wantErr(t, db.UseToken(ctx, j, stranger, at(7)), auth.ErrOutdated)
	other, _ := member(t, db)
	wantErr(t, db.UseToken(ctx, other, second, at(7)), auth.ErrOutdated)
	wantErr(t, db.UseToken(ctx, jid.MustParse("nobody@montague.example"), second, at(7)), auth.ErrNoAccount)
}

func testTokenCounts(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, proof := member(t, db)
	tok := token("phone", 1, 0, 21)
	must(t, db.AddToken(ctx, j, tok, proof))
	next := token("phone", 2, 0, 21)
	use := func(count int64, want error) {
		t.Helper()
		u := auth.TokenUse{At: when}
		if count >= 0 {
			c := uint32(count)
			u.Count = &c
		}
		if want != nil {
			u.Invalidate, u.Next = true, &next // a refused use leaves nothing behind
		}
		err := db.UseToken(ctx, j, tok, u)
		if want == nil {
			must(t, err)
		} else {
			wantErr(t, err, want)
		}
	}
	use(0, nil)
	use(0, auth.ErrReplayed)
	use(1, nil)
	use(-1, nil) // not every login has one
	use(1, auth.ErrReplayed)
	use(0, auth.ErrReplayed)
	use(1<<32-1, nil)
	use(1<<32-1, auth.ErrReplayed)
	tok.Count, tok.Used = 1<<32-1, when
	wantTokens(t, db, j, "phone", tok)
	// XEP-0484 §3.4: the count belongs to the token.
	must(t, db.AddToken(ctx, j, next, proof))
	tok = next
	use(1, nil)
}

func testTokenClients(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, proof := member(t, db)
	clients := func(want ...string) {
		t.Helper()
		list, err := db.ListTokens(ctx, j)
		must(t, err)
		var got []string
		for _, i := range list {
			got = append(got, i.Client)
		}
		equal(t, "clients", slices.Compact(got), want)
	}
	name := func(i int) string { return fmt.Sprint("client", i) }
	var want []string
	for i := range Limits.TokenClients {
		must(t, db.AddToken(ctx, j, token(name(i), byte(i), i, 21), proof))
		want = append(want, name(i))
	}
	clients(want...)
	// A second token of a client is none too many.
	next := token(name(2), 20, 1, 21)
	must(t, db.UseToken(ctx, j, token(name(2), 2, 2, 21), auth.TokenUse{At: when, Next: &next}))
	clients(want...)
	// Heard of again, long after it was issued.
	must(t, db.UseToken(ctx, j, token(name(0), 0, 0, 21), auth.TokenUse{At: when.Add(24 * 100 * time.Hour)}))
	must(t, db.AddToken(ctx, j, token("new", 30, 50, 71), proof))
	clients(append(slices.Delete(slices.Clone(want), 1, 2), "new")...)
	// The newest stays even if the clock went back.
	must(t, db.AddToken(ctx, j, token("past", 31, -50, 71), proof))
	clients(append(slices.Delete(slices.Clone(want), 1, 3), "new", "past")...)
}

// testTokensEnd: security promise 24.
func testTokensEnd(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	tok, web := token("phone", 1, 0, 21), token("web", 2, 0, 21)
	bystander, proof := member(t, db)
	must(t, db.AddToken(ctx, bystander, tok, proof))
	for name, end := range map[string]func(jid.JID) error{
		"new password": func(j jid.JID) error { return db.SetVerifiers(ctx, j, verifiers(3)) },
		"disabled":     func(j jid.JID) error { return db.SetAccountDisabled(ctx, j, true) },
		"deleted":      func(j jid.JID) error { return db.DeleteAccount(ctx, j) },
	} {
		j, proof := member(t, db)
		must(t, db.AddToken(ctx, j, tok, proof))
		must(t, db.AddToken(ctx, j, web, proof))
		must(t, db.SetAccountDisabled(ctx, j, false)) // forbids nothing
		wantTokens(t, db, j, "phone", tok)
		must(t, end(j))
		wantTokens(t, db, j, "phone")
		wantTokens(t, db, j, "web")
		err := db.UseToken(ctx, j, tok, auth.TokenUse{At: when})
		if !errors.Is(err, auth.ErrOutdated) && !errors.Is(err, auth.ErrNoAccount) {
			t.Errorf("%s: use of the token: %v", name, err)
		}
		if name == "disabled" {
			wantErr(t, db.AddToken(ctx, j, tok, proof), auth.ErrOutdated)
			must(t, db.SetAccountDisabled(ctx, j, false))
			wantTokens(t, db, j, "phone")
		}
		if name == "deleted" {
			must(t, db.CreateAccount(ctx, j, verifiers(3)))
			wantTokens(t, db, j, "phone")
		}
	}
	wantTokens(t, db, bystander, "phone", tok)
}

// testTokensAtOnce: of any number of logins with the same count one is let in.
func testTokensAtOnce(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, proof := member(t, db)
	tok := token("phone", 1, 0, 21)
	must(t, db.AddToken(ctx, j, tok, proof))
	for _, count := range []uint32{1, 2, 7} {
		var let atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				next := token("phone", byte(10+i), 1, 22)
				err := db.UseToken(ctx, j, tok, auth.TokenUse{At: when, Count: &count, Next: &next})
				switch {
				case err == nil:
					let.Add(1)
				case !errors.Is(err, auth.ErrReplayed):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		equal(t, "logins", let.Load(), 1)
	}
	all, err := db.Tokens(ctx, j, "phone")
	must(t, err)
	equal(t, "tokens", len(all), 2)
}

// testTokenModel compares random uses with the two slots of XEP-0484 §5.1 and the rules of §3.5 and §3.6.
func testTokenModel(t *testing.T, db *storage.DB) {
	rapid.Check(t, func(r *rapid.T) {
		ctx := context.Background()
		j, proof := member(t, db)
		type slots struct{ current, fresh *auth.StoredToken }
		model := map[string]*slots{"phone": {}, "web": {}}
		var n byte
		issue := func(client string) *auth.StoredToken {
			n++
			tok := token(client, n, int(n), rapid.IntRange(0, 3).Draw(r, "lifetime")+int(n))
			return &tok
		}
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			client := rapid.SampledFrom([]string{"phone", "web"}).Draw(r, "client")
			s := model[client]
			switch rapid.IntRange(0, 4).Draw(r, "step") {
			case 0:
				s.fresh = issue(client)
				if err := db.AddToken(ctx, j, *s.fresh, proof); err != nil {
					r.Fatal(err)
				}
			case 1, 2, 3:
				used, other := s.current, s.fresh
				if s.current == nil || s.fresh != nil && rapid.Bool().Draw(r, "new") {
					used, other = s.fresh, nil // §5.1: it overwrites the current one
				}
				if used == nil {
					continue
				}
				use := auth.TokenUse{At: when.Add(time.Duration(n) * time.Minute), Invalidate: rapid.IntRange(0, 4).Draw(r, "invalidate") == 0}
				before := *used
				used.Used = use.At
				if other != nil && other.Expires.Before(used.Expires) {
					other = nil // §3.5
				}
				if use.Invalidate {
					used = nil
				}
				if rapid.Bool().Draw(r, "rotate") {
					other = issue(client)
					use.Next = other
				}
				s.current, s.fresh = used, other
				if err := db.UseToken(ctx, j, before, use); err != nil {
					r.Fatal(err)
				}
			case 4:
				*s = slots{}
				if _, err := db.DeleteTokens(ctx, j, client); err != nil {
					r.Fatal(err)
				}
			}
			for client, s := range model {
				var want []string
				for _, tok := range []*auth.StoredToken{s.current, s.fresh} {
					if tok != nil {
						want = append(want, fmt.Sprint(tok.Salt, tok.Used.UnixMicro(), tok.Expires))
					}
				}
				all, err := db.Tokens(ctx, j, client)
				if err != nil {
					r.Fatal(err)
				}
				var got []string
				for _, tok := range all {
					got = append(got, fmt.Sprint(tok.Salt, tok.Used.UnixMicro(), tok.Expires))
				}
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					r.Fatalf("%s has %v, want %v", client, got, want)
				}
			}
		}
	})
}

// testTokenLogins logs in with tokens as a client does, on the database itself.
func testTokenLogins(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	cfg := auth.DefaultConfig()
	cfg.Delay, cfg.Iterations, cfg.TokenRotation = 0, auth.MinIterations, 0 // every login brings a new token
	a := auth.New(db, []byte(strings.Repeat("secret", 6)), cfg)
	accounts++
	j := jid.MustParse(fmt.Sprintf("login%d@montague.example", accounts))
	must(t, a.Register(ctx, j, "pencil"))
	ch := auth.Channel{TLS: &tls.ConnectionState{Version: tls.VersionTLS13}}
	const mechanism = "HT-SHA-256-NONE"
	agent := auth.UserAgent{ID: "d4565fa7-4d72-4749-b3d3-740edbf87770", Software: "AwesomeXMPP", Device: "Kiva's Phone"}
	password := func() auth.Token {
		t.Helper()
		e, err := a.StartSASL2(ctx, j.Domainpart(), "PLAIN", ch, a.Mechanisms(ch), a.FastMechanisms(ch), auth.Request{Agent: agent, Token: mechanism})
		must(t, err)
		_, done, err := e.Step(ctx, []byte("\x00"+j.Localpart()+"\x00pencil"), true)
		must(t, err)
		tok, ok, err := e.Token(ctx)
		must(t, err)
		if !done || !ok {
			t.Fatal("no token")
		}
		return tok
	}
	login := func(tok auth.Token) (auth.Token, error) {
		t.Helper()
		e, err := a.StartSASL2(ctx, j.Domainpart(), mechanism, ch, a.Mechanisms(ch), a.FastMechanisms(ch), auth.Request{Agent: agent, Fast: &auth.Fast{}})
		must(t, err)
		mac := hmac.New(sha256.New, []byte(tok.Secret))
		mac.Write([]byte("Initiator"))
		if _, _, err := e.Step(ctx, append([]byte(j.Localpart()+"\x00"), mac.Sum(nil)...), true); err != nil {
			return auth.Token{}, err
		}
		equal(t, "account", e.Account(), j)
		next, _, err := e.Token(ctx)
		return next, err
	}
	refused := func(tok auth.Token) {
		t.Helper()
		_, err := login(tok)
		var f auth.Failure
		if !errors.As(err, &f) || f.Condition != "not-authorized" {
			t.Errorf("login: %v", err)
		}
	}
	first := password()
	second, err := login(first)
	must(t, err)
	third, err := login(first) // second did not arrive
	must(t, err)
	refused(second)
	_, err = login(third)
	must(t, err)
	refused(first)
	list, err := a.Tokens(ctx, j)
	must(t, err)
	for _, i := range list {
		if i.Client != auth.ClientID(j, agent.ID) || i.Software != agent.Software || i.Device != agent.Device || i.Mechanism != mechanism {
			t.Errorf("token in the list: %+v", i)
		}
	}
	must(t, a.SetPassword(ctx, j, "pencil"))
	refused(third)
	fourth := password()
	n, err := a.RevokeTokens(ctx, j, auth.ClientID(j, agent.ID))
	must(t, err)
	equal(t, "revoked", n, 1)
	refused(fourth)
}
