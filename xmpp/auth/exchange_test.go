package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"hash"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"mellium.im/sasl"
	"mellium.im/xmpp/jid"
)

func TestMechanisms(t *testing.T) {
	a, _ := newTest(t)
	// RFC 6120 §6.3.4: not before TLS.
	if got := a.Mechanisms(Channel{}); len(got) > 0 {
		t.Errorf("without TLS %v", got)
	}
	// RFC 5802 §6: without channel binding only the bare names.
	want := []string{"SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"}
	if got := a.Mechanisms(secured); !slices.Equal(got, want) {
		t.Errorf("without channel binding %v, want %v", got, want)
	}
	// RFC 5802 §6: with it both.
	want = append([]string{"SCRAM-SHA-512-PLUS", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"}, want...)
	ch := connect(t, tls.VersionTLS13, newCertificate(t)).server
	if got := a.Mechanisms(ch); !slices.Equal(got, want) {
		t.Errorf("with channel binding %v, want %v", got, want)
	}
}

func TestStart(t *testing.T) {
	a, _ := newTest(t)
	offered := a.Mechanisms(secured)
	tests := []struct {
		name, mechanism string
		ch              Channel
		offered         []string
		want            string
	}{
		{"offered", "SCRAM-SHA-1", secured, offered, ""},
		{"PLAIN", "PLAIN", secured, offered, ""},
		{"SCRAM without TLS", "SCRAM-SHA-1", Channel{}, offered, "encryption-required"},
		{"PLAIN without TLS", "PLAIN", Channel{}, nil, "encryption-required"},
		{"unknown without TLS", "CRAM-MD5", Channel{}, nil, "invalid-mechanism"},
		{"none", "", secured, offered, "invalid-mechanism"},
		{"unknown", "CRAM-MD5", secured, offered, "invalid-mechanism"},
		{"unknown but offered by mistake", "ANONYMOUS", secured, []string{"ANONYMOUS"}, "invalid-mechanism"},
		{"-PLUS that was not offered", "SCRAM-SHA-1-PLUS", secured, offered, "invalid-mechanism"},
		{"known and not offered", "PLAIN", secured, []string{"SCRAM-SHA-1"}, "invalid-mechanism"},
		{"-PLUS of what has none", "PLAIN-PLUS", secured, []string{"PLAIN-PLUS"}, "invalid-mechanism"},
		{"-PLUS twice", "SCRAM-SHA-1-PLUS-PLUS", secured, offered, "invalid-mechanism"},
		{"lower case", "plain", secured, offered, "invalid-mechanism"}, // RFC 4422 §3.1: upper case
		{"space", "PLAIN ", secured, offered, "invalid-mechanism"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := a.Start(t.Context(), testDomain, tt.mechanism, tt.ch, tt.offered)
			condition(t, err, tt.want)
		})
	}
}

func TestLogin(t *testing.T) {
	a, _ := newTest(t)
	for _, h := range hashes {
		t.Run(h.name, func(t *testing.T) {
			e := start(t, a, h.name, secured)
			condition(t, (&client{mechanism: h.name, user: testUser, password: testPassword}).run(t, e), "")
			if got := e.Account().String(); got != "user@example.org" {
				t.Errorf("account %s", got)
			}
			for _, password := range []string{"Pencil", "pencil ", ""} {
				c := &client{mechanism: h.name, user: testUser, password: password}
				condition(t, c.run(t, start(t, a, h.name, secured)), "not-authorized")
			}
		})
	}
	t.Run("PLAIN", func(t *testing.T) {
		e := start(t, a, "PLAIN", secured)
		challenge, done, err := e.Step(t.Context(), plainMessage("", testUser, testPassword), true)
		condition(t, err, "")
		// RFC 4616 §2: there is no more data, so <success/> is empty.
		if !done || challenge != nil || e.Account().String() != "user@example.org" {
			t.Errorf("done %t, challenge %q, account %s", done, challenge, e.Account())
		}
		if _, _, err := e.Step(t.Context(), nil, false); err == nil {
			t.Error("step after success")
		}
	})
}

func TestPlainMessages(t *testing.T) {
	long := strings.Repeat("a", 255) // RFC 4616 §2: servers MUST accept up to 255 octets
	a, store := newTest(t)
	verifiers, err := MakeVerifiers(long, MinIterations)
	if err != nil {
		t.Fatal(err)
	}
	store.accounts[long+"@"+testDomain] = &record{verifiers: verifiers}
	tests := []struct{ name, message, want string }{
		{"right", "\x00user\x00pencil", ""},
		{"own authorization identity", "user@example.org\x00user\x00pencil", ""},
		{"255 octets each", "\x00" + long + "\x00" + long, ""},
		{"wrong password", "\x00user\x00Pencil", "not-authorized"},
		{"unknown account", "\x00juliet\x00pencil", "not-authorized"},
		{"bare JID as user name", "\x00user@example.org\x00pencil", "not-authorized"},
		{"password that cannot be one", "\x00user\x00pen\x07cil", "not-authorized"},
		{"password that is empty when prepared", "\x00user\x00\u00ad", "not-authorized"},
		{"password that is too long", "\x00user\x00" + strings.Repeat("a", maxPassword+1), "not-authorized"},
		{"user name that is too long", "\x00" + strings.Repeat("a", maxName+1) + "\x00pencil", "not-authorized"},
		{"another's authorization identity", "juliet@example.org\x00user\x00pencil", "invalid-authzid"},
		{"empty", "", "malformed-request"},
		{"only NUL", "\x00\x00", "malformed-request"},
		{"no NUL", "user", "malformed-request"},
		{"one NUL", "user\x00pencil", "malformed-request"},
		{"NUL in the password", "\x00user\x00pencil\x00", "malformed-request"},
		{"NUL in the user name", "\x00us\x00er\x00pencil", "malformed-request"},
		{"empty user name", "\x00\x00pencil", "malformed-request"},
		{"empty password", "\x00user\x00", "malformed-request"},
		{"user name that is not UTF-8", "\x00us\xffer\x00pencil", "malformed-request"},
		{"password that is not UTF-8", "\x00user\x00pen\xffcil", "malformed-request"},
		{"authorization identity that is not UTF-8", "\xff\x00user\x00pencil", "malformed-request"},
		{"too long", "\x00user\x00" + strings.Repeat("a", maxMessage), "malformed-request"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := start(t, a, "PLAIN", secured)
			_, done, err := e.Step(t.Context(), []byte(tt.message), true)
			condition(t, err, tt.want)
			if done != (tt.want == "") || (e.Account().String() != "") != done {
				t.Errorf("done %t, account %q", done, e.Account())
			}
		})
	}
}

// RFC 6120 §6.4.2 and §6.3.10: a client may leave its first message to the first <response/>.
func TestAbsentInitialResponse(t *testing.T) {
	for _, mechanism := range []string{"SCRAM-SHA-256", "PLAIN"} {
		t.Run(mechanism, func(t *testing.T) {
			a, _ := newTest(t)
			first := func() *Exchange {
				e := start(t, a, mechanism, secured)
				challenge, done, err := e.Step(t.Context(), nil, false)
				if err != nil || done || challenge == nil || len(challenge) > 0 {
					t.Fatalf("challenge %v, done %t, %v; want an empty challenge", challenge, done, err)
				}
				return e
			}
			e := first()
			if mechanism == "PLAIN" {
				_, done, err := e.Step(t.Context(), plainMessage("", testUser, testPassword), true)
				if err != nil || !done {
					t.Errorf("done %t, %v", done, err)
				}
			} else {
				condition(t, (&client{mechanism: mechanism, user: testUser, password: testPassword}).run(t, e), "")
			}
			// Asked once and no more.
			_, _, err := first().Step(t.Context(), nil, false)
			condition(t, err, "malformed-request")
			// "=" is a response, and an empty one is none of ours.
			_, _, err = start(t, a, mechanism, secured).Step(t.Context(), []byte{}, true)
			condition(t, err, "malformed-request")
		})
	}
	a, _ := newTest(t)
	e := start(t, a, "SCRAM-SHA-256", secured)
	_, _, err := e.Step(t.Context(), []byte("n,,n=user,r=abc"), true)
	condition(t, err, "")
	_, _, err = e.Step(t.Context(), nil, false)
	condition(t, err, "malformed-request")
}

// One function decides identity: the account is that of the user name, an authorization identity can only repeat it.
func TestAuthorizationIdentity(t *testing.T) {
	tests := []struct{ name, user, authzid, want string }{
		{"own", "user", "user@example.org", ""},
		{"own in capitals", "user", "USER@EXAMPLE.ORG", ""},
		{"own in fullwidth letters", "user", "ｕｓｅｒ@example.org", ""},
		{"own, domain with a dot", "user", "user@example.org.", ""},
		{"another account", "user", "juliet@example.org", "invalid-authzid"},
		{"another domain", "user", "user@example.com", "invalid-authzid"},
		{"localpart only", "user", "user", "invalid-authzid"},
		{"the server", "user", "example.org", "invalid-authzid"},
		{"full JID", "user", "user@example.org/balcony", "invalid-authzid"}, // RFC 6120 §6.3.8
		{"empty localpart", "user", "@example.org", "invalid-authzid"},
		{"empty resource", "user", "user@example.org/", "invalid-authzid"},
		{"no JID", "user", "us er@example.org", "invalid-authzid"},
		{"unknown account, its own", "nobody", "nobody@example.org", "not-authorized"},
		{"unknown account, another's", "nobody", "user@example.org", "invalid-authzid"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, _ := newTest(t)
			e := start(t, a, "SCRAM-SHA-256", secured)
			c := &client{mechanism: "SCRAM-SHA-256", user: tt.user, password: testPassword, authzid: strings.NewReplacer("=", "=3D", ",", "=2C").Replace(tt.authzid)}
			condition(t, c.run(t, e), tt.want)
			p := start(t, a, "PLAIN", secured)
			_, _, err := p.Step(t.Context(), plainMessage(tt.authzid, tt.user, testPassword), true)
			condition(t, err, tt.want)
			for _, e := range []*Exchange{e, p} {
				if want := map[bool]string{true: "user@example.org"}[tt.want == ""]; e.Account().String() != want {
					t.Errorf("account %q, want %q", e.Account(), want)
				}
			}
		})
	}
}

// RFC 7622 §3.3, RFC 8265 §3.3: one account has one normal form, and every spelling that is prepared to it is it.
func TestUserNames(t *testing.T) {
	a, store := newTest(t)
	for _, name := range []string{"жанна", "a,b=c", "o\u00f6"} {
		store.accounts[name+"@"+testDomain] = &record{verifiers: testVerifiers()}
	}
	tests := []struct{ name, user, want string }{
		{"as it is", "user", "user@example.org"},
		{"capitals", "USER", "user@example.org"},
		{"fullwidth", "Ｕｓｅｒ", "user@example.org"},
		{"not ASCII", "ЖАННА", "жанна@example.org"},
		{"comma and equals sign", "A,b=C", "a,b=c@example.org"},
		{"decomposed", "oo\u0308", "o\u00f6@example.org"},
		{"look-alike", "usеr", ""}, // a Cyrillic е: another account
		{"bare JID", "user@example.org", ""},
		{"full JID", "user@example.org/balcony", ""},
		{"slash", "user/balcony", ""},
		{"space", "us er", ""},
		{"no-break space", "us\u00a0er", ""},
		{"control character", "us\x07er", ""},
		{"soft hyphen", "us\u00ader", ""},
		{"compatibility character", "ﬁ", ""},
		{"too long", strings.Repeat("a", maxName+1), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := ""
			if tt.want == "" {
				want = "not-authorized"
			}
			for _, mechanism := range []string{"SCRAM-SHA-1", "PLAIN"} {
				e := start(t, a, mechanism, secured)
				var err error
				if mechanism == "PLAIN" {
					_, _, err = e.Step(t.Context(), plainMessage("", tt.user, testPassword), true)
				} else {
					err = (&client{mechanism: mechanism, user: tt.user, password: testPassword}).run(t, e)
				}
				condition(t, err, want)
				if got := e.Account().String(); got != tt.want {
					t.Errorf("%s: account %q, want %q", mechanism, got, tt.want)
				}
			}
		})
	}
}

// The domain of a stream is part of the identity.
func TestAccountsOfAnotherDomain(t *testing.T) {
	a, _ := newTest(t)
	e, err := a.Start(t.Context(), "example.com", "SCRAM-SHA-1", secured, a.Mechanisms(secured))
	if err != nil {
		t.Fatal(err)
	}
	condition(t, (&client{mechanism: "SCRAM-SHA-1", user: testUser, password: testPassword}).run(t, e), "not-authorized")
}

// work counts what an exchange costs.
type work struct {
	hashes     int // that were begun, HMACs included
	derived    int // iterations of PBKDF2
	store      []string
	conditions []string // or what was answered
}

// measure runs one exchange with the wrong password, or another first message, and counts.
func measure(t *testing.T, mechanism, user string, prepare func(*memory)) (w work) {
	t.Helper()
	a, store := newTest(t)
	prepare(store)
	a.derive = func(h *scramHash, password string, salt []byte, iterations int) ([]byte, error) {
		w.derived += iterations
		return deriveKey(h, password, salt, iterations)
	}
	for _, h := range hashes {
		plain := h.new
		h.new = func() hash.Hash {
			w.hashes++
			return plain()
		}
		defer func() { h.new = plain }()
	}
	e := start(t, a, mechanism, secured)
	var err error
	if mechanism == "PLAIN" {
		_, _, err = e.Step(t.Context(), plainMessage("", user, "wrong"), true)
	} else {
		c := &client{mechanism: mechanism, user: user, password: "wrong"}
		challenge, _, err1 := e.Step(t.Context(), []byte(c.first()), true)
		if err1 != nil {
			t.Fatal(err1)
		}
		parts := strings.Split(string(challenge), ",")
		w.conditions = append(w.conditions, strconv.Itoa(len(parts[0])), strconv.Itoa(len(parts[1])), parts[2])
		final, err1 := c.final(string(challenge))
		if err1 != nil {
			t.Fatal(err1)
		}
		_, _, err = e.Step(t.Context(), []byte(final), true)
	}
	var f Failure
	if !errors.As(err, &f) {
		t.Fatalf("%s as %s: %v", mechanism, user, err)
	}
	w.conditions = append(w.conditions, f.Condition, f.Text, f.Error())
	w.store = store.calls
	return w
}

// RFC 6120 §6.5.10: nobody learns whether an account exists. The time class is shown by counting work, not by a clock.
func TestUnknownAccountsLookLikeOthers(t *testing.T) {
	only := func(names ...string) func(*memory) {
		return func(m *memory) {
			var left []Verifier
			for _, v := range testVerifiers() {
				if slices.Contains(names, v.Mechanism) {
					left = append(left, v)
				}
			}
			m.accounts["user@example.org"].verifiers = left
		}
	}
	for _, mechanism := range []string{"SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"} {
		t.Run(mechanism, func(t *testing.T) {
			known := measure(t, mechanism, "user", func(*memory) {})
			if mechanism == "PLAIN" && known.derived != MinIterations {
				t.Errorf("PLAIN derived %d iterations", known.derived)
			}
			if mechanism != "PLAIN" && known.derived != 0 {
				t.Errorf("SCRAM derived %d iterations", known.derived)
			}
			for name, other := range map[string]work{
				"unknown account":   measure(t, mechanism, "nobody", func(*memory) {}),
				"without verifiers": measure(t, mechanism, "user", only()),
				"disabled":          measure(t, mechanism, "user", func(m *memory) { m.accounts["user@example.org"].disabled = true }),
				"broken verifiers": measure(t, mechanism, "user", func(m *memory) {
					m.accounts["user@example.org"].verifiers = []Verifier{{Mechanism: mechanism}, {Mechanism: mechanism, Salt: []byte("salt"), Iterations: 4096}}
				}),
			} {
				if known.hashes != other.hashes || known.derived != other.derived || !slices.Equal(known.store, other.store) {
					t.Errorf("%s: work %+v, that of a wrong password %+v", name, other, known)
				}
				if !slices.Equal(known.conditions, other.conditions) {
					t.Errorf("%s: answers %q, those to a wrong password %q", name, other.conditions, known.conditions)
				}
			}
			if mechanism != "PLAIN" {
				other := measure(t, mechanism, "user", only("SCRAM-SHA-999"))
				if known.hashes != other.hashes || !slices.Equal(known.conditions, other.conditions) {
					t.Errorf("without a verifier for it: %+v, want %+v", other, known)
				}
			}
		})
	}
}

// The salt of an account that does not exist stays the same, in every spelling, and differs between accounts, hashes and servers.
func TestFakeSalts(t *testing.T) {
	a, _ := newTest(t)
	salt := func(a *Authenticator, mechanism, user string) string {
		e := start(t, a, mechanism, secured)
		challenge, _, err := e.Step(t.Context(), []byte("n,,n="+user+",r=abc"), true)
		condition(t, err, "")
		return strings.Split(string(challenge), ",")[1]
	}
	first := salt(a, "SCRAM-SHA-256", "nobody")
	same := New(&memory{accounts: map[string]*record{}}, testSecret, a.cfg)
	for name, got := range map[string]string{
		"again":           salt(a, "SCRAM-SHA-256", "nobody"),
		"in capitals":     salt(a, "SCRAM-SHA-256", "NOBODY"),
		"after a restart": salt(same, "SCRAM-SHA-256", "nobody"),
	} {
		if got != first {
			t.Errorf("%s: %s, want %s", name, got, first)
		}
	}
	other := New(&memory{accounts: map[string]*record{}}, []byte(strings.Repeat("x", 32)), a.cfg)
	seen := map[string]string{first: "nobody"}
	for name, got := range map[string]string{
		"another account": salt(a, "SCRAM-SHA-256", "nobody2"),
		"another hash":    salt(a, "SCRAM-SHA-1", "nobody"),
		"another server":  salt(other, "SCRAM-SHA-256", "nobody"),
	} {
		if with, ok := seen[got]; ok {
			t.Errorf("%s has the salt of %s", name, with)
		}
		seen[got] = name
	}
	// With and without channel binding it is the same account.
	ch := connect(t, tls.VersionTLS13, newCertificate(t)).server
	e := start(t, a, "SCRAM-SHA-256-PLUS", ch)
	challenge, _, err := e.Step(t.Context(), []byte("p=tls-exporter,,n=nobody,r=abc"), true)
	condition(t, err, "")
	if got := strings.Split(string(challenge), ",")[1]; got != first {
		t.Errorf("-PLUS: %s, want %s", got, first)
	}
}

// Whoever knew the keys that a fake verifier is made of could prove nothing with them.
func TestFakeVerifierOpensNothing(t *testing.T) {
	a, _ := newTest(t)
	h := hashOf("SCRAM-SHA-256")
	account := jid.MustParse("nobody@example.org")
	salted, err := deriveKey(h, testPassword, []byte("0123456789abcdef"), MinIterations)
	if err != nil {
		t.Fatal(err)
	}
	state := &scramState{account: account, verifier: h.verifier(salted, []byte("0123456789abcdef"), MinIterations), genuine: false, nonce: "abcdef"}
	state.first = "r=abcdef,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=4096"
	state.bindings = []string{"biws"}
	c := &client{mechanism: "SCRAM-SHA-256", user: "nobody", password: testPassword, nonce: "abc"}
	c.first()
	state.bare = c.bare
	final, err := c.final(state.first)
	if err != nil {
		t.Fatal(err)
	}
	e := start(t, a, "SCRAM-SHA-256", secured)
	e.ctx = t.Context()
	_, err = scram{exchange: e, hash: h}.final(state, final)
	condition(t, err, "not-authorized")
}

// RFC 6120 §6.5.2. Only who knows the password learns that the account is disabled.
func TestDisabledAccount(t *testing.T) {
	a, _ := newTest(t)
	if err := a.SetDisabled(t.Context(), jid.MustParse("user@example.org"), true); err != nil {
		t.Fatal(err)
	}
	for _, mechanism := range []string{"SCRAM-SHA-256", "PLAIN"} {
		for password, want := range map[string]string{testPassword: "account-disabled", "wrong": "not-authorized"} {
			e := start(t, a, mechanism, secured)
			var err error
			if mechanism == "PLAIN" {
				_, _, err = e.Step(t.Context(), plainMessage("", testUser, password), true)
			} else {
				err = (&client{mechanism: mechanism, user: testUser, password: password}).run(t, e)
			}
			condition(t, err, want)
			if e.Account().String() != "" {
				t.Errorf("account %s", e.Account())
			}
		}
	}
	if err := a.SetDisabled(t.Context(), jid.MustParse("user@example.org"), false); err != nil {
		t.Fatal(err)
	}
	condition(t, (&client{mechanism: "SCRAM-SHA-256", user: testUser, password: testPassword}).run(t, start(t, a, "SCRAM-SHA-256", secured)), "")
}

// RFC 6120 §6.5.11: what is no fault of the client.
func TestStoreFails(t *testing.T) {
	broken := errors.New("disk on fire")
	for _, mechanism := range []string{"SCRAM-SHA-256", "PLAIN"} {
		t.Run(mechanism, func(t *testing.T) {
			a, store := newTest(t)
			store.broken = broken
			e := start(t, a, mechanism, secured)
			var err error
			if mechanism == "PLAIN" {
				_, _, err = e.Step(t.Context(), plainMessage("", testUser, testPassword), true)
			} else {
				err = (&client{mechanism: mechanism, user: testUser, password: testPassword}).run(t, e)
			}
			condition(t, err, "temporary-auth-failure")
			if !errors.Is(err, broken) {
				t.Errorf("the cause is lost: %v", err)
			}
			var f Failure
			if errors.As(err, &f) && f.Text != "" {
				t.Errorf("text for the peer: %q", f.Text)
			}
		})
	}
}

// The end of the connection is not a failure of the client.
func TestContextEnds(t *testing.T) {
	a, store := newTest(t)
	ctx, cancel := context.WithCancel(t.Context())
	store.broken = context.Canceled
	cancel()
	e := start(t, a, "SCRAM-SHA-256", secured)
	_, _, err := e.Step(ctx, []byte("n,,n=user,r=abc"), true)
	var f Failure
	if !errors.Is(err, context.Canceled) || errors.As(err, &f) {
		t.Errorf("error %v, want context.Canceled and no failure", err)
	}
}

// A password that was changed, or an account that was deleted, while a login was under way: the old password opens nothing.
func TestChangesDuringLogin(t *testing.T) {
	account := jid.MustParse("user@example.org")
	tests := []struct {
		name, want string
		change     func(t *testing.T, a *Authenticator)
	}{
		{"nothing", "", func(*testing.T, *Authenticator) {}},
		{"another account", "", func(t *testing.T, a *Authenticator) {
			a.changes.note(account) // as an account that shares its counter would
		}},
		{"new password", "not-authorized", func(t *testing.T, a *Authenticator) {
			if err := a.SetPassword(t.Context(), account, "crayon"); err != nil {
				t.Fatal(err)
			}
		}},
		{"deleted", "not-authorized", func(t *testing.T, a *Authenticator) {
			if err := a.Delete(t.Context(), account); err != nil {
				t.Fatal(err)
			}
		}},
		{"deleted and registered by another", "not-authorized", func(t *testing.T, a *Authenticator) {
			if err := a.Delete(t.Context(), account); err != nil {
				t.Fatal(err)
			}
			if err := a.Register(t.Context(), account, "crayon"); err != nil {
				t.Fatal(err)
			}
		}},
		{"disabled", "account-disabled", func(t *testing.T, a *Authenticator) {
			if err := a.SetDisabled(t.Context(), account, true); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, _ := newTest(t)
			e := start(t, a, "SCRAM-SHA-256", secured)
			c := &client{mechanism: "SCRAM-SHA-256", user: testUser, password: testPassword}
			challenge, _, err := e.Step(t.Context(), []byte(c.first()), true)
			condition(t, err, "")
			final, err := c.final(string(challenge))
			if err != nil {
				t.Fatal(err)
			}
			tt.change(t, a)
			_, _, err = e.Step(t.Context(), []byte(final), true)
			condition(t, err, tt.want)
		})
		t.Run(tt.name+" after the login", func(t *testing.T) {
			a, _ := newTest(t)
			e := start(t, a, "SCRAM-SHA-256", secured)
			condition(t, (&client{mechanism: "SCRAM-SHA-256", user: testUser, password: testPassword}).run(t, e), "")
			if e.Outdated() {
				t.Error("outdated before the change")
			}
			tt.change(t, a)
			if got, want := e.Outdated(), tt.name != "nothing"; got != want {
				t.Errorf("outdated %t, want %t", got, want)
			}
		})
	}
}

// RFC 5802 §6: what a client says about channel binding, and what it was offered.
func TestDowngrades(t *testing.T) {
	a, _ := newTest(t)
	p := connect(t, tls.VersionTLS13, newCertificate(t))
	all := a.Mechanisms(p.server)
	bare := a.Mechanisms(secured)
	exporter := p.exporter(t)
	tests := []struct {
		name, mechanism, flag string
		data                  []byte
		ch                    Channel
		offered               []string
		want                  string
		unbound               bool
	}{
		{"n", "SCRAM-SHA-256", "n", nil, p.server, all, "", false}, // a client that cannot
		{"y and -PLUS was offered", "SCRAM-SHA-256", "y", nil, p.server, all, "mechanism-too-weak", true},
		{"y and one -PLUS was offered", "SCRAM-SHA-256", "y", nil, p.server, []string{"SCRAM-SHA-1-PLUS", "SCRAM-SHA-256"}, "mechanism-too-weak", true},
		{"y and no -PLUS was offered", "SCRAM-SHA-256", "y", nil, secured, bare, "", false},
		{"n with -PLUS", "SCRAM-SHA-256-PLUS", "n", nil, p.server, all, "malformed-request", false},
		{"y with -PLUS", "SCRAM-SHA-256-PLUS", "y", nil, p.server, all, "malformed-request", false},
		{"p without -PLUS", "SCRAM-SHA-256", "p=tls-exporter", exporter, p.server, all, "malformed-request", false},
		{"p without any -PLUS", "SCRAM-SHA-256", "p=tls-exporter", nil, secured, bare, "malformed-request", false},
		{"p with -PLUS", "SCRAM-SHA-256-PLUS", "p=tls-exporter", exporter, p.server, all, "", false},
		{"p without data", "SCRAM-SHA-256-PLUS", "p=tls-exporter", nil, p.server, all, "not-authorized", false},
		{"p with other data", "SCRAM-SHA-256-PLUS", "p=tls-exporter", make([]byte, 32), p.server, all, "not-authorized", false},
		{"p with data cut short", "SCRAM-SHA-256-PLUS", "p=tls-exporter", exporter[:31], p.server, all, "not-authorized", false},
		{"p with more data", "SCRAM-SHA-256-PLUS", "p=tls-exporter", append(slices.Clip(exporter), 0), p.server, all, "not-authorized", false},
		{"data of another type", "SCRAM-SHA-256-PLUS", "p=tls-server-end-point", exporter, p.server, all, "not-authorized", false},
		{"n with data", "SCRAM-SHA-256", "n", exporter, p.server, all, "not-authorized", false},
		{"unknown type", "SCRAM-SHA-256-PLUS", "p=tls-unknown", exporter, p.server, all, "not-authorized", true},
		{"type in capitals", "SCRAM-SHA-256-PLUS", "p=TLS-EXPORTER", exporter, p.server, all, "not-authorized", true},
		{"tls-unique with TLS 1.3", "SCRAM-SHA-256-PLUS", "p=tls-unique", exporter, p.server, all, "not-authorized", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := a.Start(t.Context(), testDomain, tt.mechanism, tt.ch, tt.offered)
			if err != nil {
				t.Fatal(err)
			}
			c := &client{mechanism: tt.mechanism, user: testUser, password: testPassword, flag: tt.flag, data: tt.data}
			err = c.run(t, e)
			condition(t, err, tt.want)
			// What ended before a password was shown is no guess, so it is not to be counted as a try.
			var f Failure
			if errors.As(err, &f) && f.Unbound != tt.unbound {
				t.Errorf("unbound %t, want %t", f.Unbound, tt.unbound)
			}
		})
	}
	// A header that is not the one of the first message.
	for _, changed := range []string{"n", "p=tls-server-end-point"} {
		e := start(t, a, "SCRAM-SHA-256-PLUS", p.server)
		c := &client{mechanism: "SCRAM-SHA-256-PLUS", user: testUser, password: testPassword, flag: "p=tls-exporter", data: exporter}
		challenge, _, err := e.Step(t.Context(), []byte(c.first()), true)
		condition(t, err, "")
		c.flag = changed
		final, err := c.final(string(challenge))
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = e.Step(t.Context(), []byte(final), true)
		condition(t, err, "not-authorized")
	}
}

// The client of mellium.im/sasl, and what it accepts as the server's proof.
func TestClientOfMellium(t *testing.T) {
	a, _ := newTest(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		p := connect(t, version, newCertificate(t))
		offered := a.Mechanisms(p.server)
		for _, m := range []sasl.Mechanism{sasl.ScramSha256Plus, sasl.ScramSha256, sasl.ScramSha1Plus, sasl.ScramSha1, sasl.Plain} {
			for password, want := range map[string]string{testPassword: "", "wrong": "not-authorized"} {
				t.Run(tls.VersionName(version)+" "+m.Name+want, func(t *testing.T) {
					n := sasl.NewClient(m, sasl.TLSState(p.client), sasl.RemoteMechanisms(offered...),
						sasl.Credentials(func() ([]byte, []byte, []byte) { return []byte(testUser), []byte(password), nil }))
					e := start(t, a, m.Name, p.server)
					more, response, err := n.Step(nil)
					for {
						if err != nil {
							t.Fatalf("client: %v", err)
						}
						challenge, done, err1 := e.Step(t.Context(), response, true)
						if err1 != nil || done && want != "" {
							condition(t, err1, want)
							return
						}
						if more {
							more, response, err = n.Step(challenge)
						}
						if done {
							if err != nil || more {
								t.Fatalf("client after success: more %t, %v", more, err)
							}
							return
						}
					}
				})
			}
		}
	}
}

// Many at once, with everything that changes accounts; for the race detector.
func TestManyAtOnce(t *testing.T) {
	a, _ := newTest(t, func(c *Config) { c.PlainConcurrency = 2 })
	account := jid.MustParse("other@example.org")
	if err := a.Register(t.Context(), account, "crayon"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for range 3 {
				name := hashes[i%len(hashes)].name
				e, err := a.Start(t.Context(), testDomain, name, secured, a.Mechanisms(secured))
				if err != nil {
					t.Error(err)
					return
				}
				c := &client{mechanism: name, user: testUser, password: testPassword}
				challenge, _, err := e.Step(t.Context(), []byte(c.first()), true)
				if err != nil {
					t.Error(err)
					return
				}
				final, err := c.final(string(challenge))
				if err != nil {
					t.Error(err)
					return
				}
				if _, done, err := e.Step(t.Context(), []byte(final), true); err != nil || !done {
					t.Error(done, err)
				}
				if ok, err := a.CheckPassword(t.Context(), account, "crayon"); err != nil || !ok {
					t.Error(ok, err)
				}
				if err := a.SetPassword(t.Context(), account, "crayon"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
