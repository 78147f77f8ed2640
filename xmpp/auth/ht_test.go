package auth

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mellium.im/xmpp/jid"
)

const none = "HT-SHA-256-NONE"

// initiator is an initiator-msg: draft-schmaus-kitten-sasl-ht-09 §3.1.
func initiator(user, secret string, binding []byte) []byte {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write(append([]byte("Initiator"), binding...))
	return append([]byte(user+"\x00"), m.Sum(nil)...)
}

// responder is a responder-msg: draft-schmaus-kitten-sasl-ht-09 §3.3.
func responder(secret string, binding []byte) []byte {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write(append([]byte("Responder"), binding...))
	return m.Sum(nil)
}

// sasl2 begins an exchange with what ch is offered.
func sasl2(t testing.TB, a *Authenticator, mechanism string, ch Channel, r Request) *Exchange {
	t.Helper()
	e, err := a.StartSASL2(t.Context(), testDomain, mechanism, ch, a.Mechanisms(ch), a.FastMechanisms(ch), r)
	if err != nil {
		t.Fatalf("start %s: %v", mechanism, err)
	}
	return e
}

// issue logs in with SCRAM and asks for a token.
func issue(t testing.TB, a *Authenticator, mechanism string, ch Channel) Token {
	t.Helper()
	e := sasl2(t, a, "SCRAM-SHA-256", ch, Request{Agent: UserAgent{ID: testAgent}, Token: mechanism})
	condition(t, (&client{mechanism: "SCRAM-SHA-256", user: testUser, password: testPassword}).run(t, e), "")
	token, ok, err := e.Token(t.Context())
	if err != nil || !ok {
		t.Fatalf("token: %t, %v", ok, err)
	}
	return token
}

// present logs in with a token and returns the next one, the zero Token for none.
func present(t testing.TB, a *Authenticator, secret string, r Request) (Token, error) {
	t.Helper()
	r.Agent.ID = testAgent
	if r.Fast == nil {
		r.Fast = &Fast{}
	}
	e := sasl2(t, a, none, secured, r)
	reply, done, err := e.Step(t.Context(), initiator(testUser, secret, nil), true)
	if err != nil {
		if done || reply != nil || e.Account().String() != "" {
			t.Fatalf("refused with %x as %s", reply, e.Account())
		}
		return Token{}, err
	}
	if !done || !bytes.Equal(reply, responder(secret, nil)) || !e.Account().Equal(testAccount) {
		t.Fatalf("done %t, %x as %s", done, reply, e.Account())
	}
	next, ok, err := e.Token(t.Context())
	if err != nil || ok != (next != Token{}) {
		t.Fatalf("next token %v, %t, %v", next, ok, err)
	}
	return next, nil
}

func count(n uint32) *uint32 { return &n }

// The draft has no examples: these are from Python's hmac, for the key of the bytes 0 to 31 and the binding 100 to 131.
func TestHashedToken(t *testing.T) {
	key, binding := make([]byte, 32), make([]byte, 32)
	for i := range key {
		key[i], binding[i] = byte(i), byte(100+i)
	}
	if got := secretOf(key); got != "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8" {
		t.Fatalf("token %s", got)
	}
	for _, tt := range []struct {
		role    string
		binding []byte
		want    string
	}{
		{"Initiator", nil, "e0b646076c4d59875e4dc398deac637260786a10c00130862bda5c5edeb5ef97"},
		{"Responder", nil, "bf62e7450bcb575451514212e2181160e3507b69c4baeaf2e48c4ee6175c1121"},
		{"Initiator", binding, "5ce990aadc7725a5939dcfa7f15b54b590c7f2186066ea5a9f650f97bf1c79d2"},
		{"Responder", binding, "4680ab3d8e2df7feb097a91eb486b07600f1ddf59905da0655d87d1d31a98a25"},
	} {
		if got := hex.EncodeToString(htMAC(key, tt.role, tt.binding)); got != tt.want {
			t.Errorf("%s with %x: %s, want %s", tt.role, tt.binding, got, tt.want)
		}
	}
}

func TestFastMechanisms(t *testing.T) {
	a, _ := newTest(t)
	cert := newCertificate(t)
	new12, new13 := connect(t, tls.VersionTLS12, cert).server, connect(t, tls.VersionTLS13, cert).server
	// crypto/tls exports nothing where it may renegotiate, as it does without the session hash extension.
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS12, Renegotiation: tls.RenegotiateOnceAsClient}
	unhashed := connectTo(t, config, cert).server
	resumed := *unhashed.TLS
	resumed.DidResume, resumed.TLSUnique = true, nil
	resumed12 := *new12.TLS
	resumed12.DidResume = true
	for name, tt := range map[string]struct {
		ch   Channel
		want string
	}{
		"without TLS":                      {Channel{Cert: cert.Leaf}, ""},
		"without channel binding":          {secured, "NONE"},
		"TLS 1.3":                          {new13, "EXPR ENDP NONE"},
		"TLS 1.3 without a certificate":    {Channel{TLS: new13.TLS}, "EXPR NONE"},
		"TLS 1.2":                          {new12, "EXPR UNIQ ENDP NONE"},
		"TLS 1.2, resumed":                 {Channel{TLS: &resumed12, Cert: cert.Leaf}, "EXPR UNIQ ENDP NONE"},
		"TLS 1.2 without session hash":     {unhashed, "UNIQ ENDP NONE"},
		"the same, resumed":                {Channel{TLS: &resumed, Cert: cert.Leaf}, ""}, // draft §6
		"TLS 1.2 before its handshake":     {Channel{TLS: &tls.ConnectionState{Version: tls.VersionTLS12, DidResume: true}}, ""},
		"certificate without a known hash": {Channel{TLS: new13.TLS, Cert: newCertificate(t, 16).Leaf}, "EXPR NONE"}, // Ed25519
	} {
		var want []string
		for _, kind := range strings.Fields(tt.want) {
			want = append(want, "HT-SHA-256-"+kind)
		}
		if got := a.FastMechanisms(tt.ch); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// Real connections: what is offered works, with the client's end of the binding and nothing else, and with the one mechanism only that
// the token is for.
func TestTokensOverTLS(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		a, _ := newTest(t)
		cert := newCertificate(t)
		p, other := connect(t, version, cert), connect(t, version, newCertificate(t))
		endPoint := func(c connection) []byte { s := sha256.Sum256(c.cert); return s[:] }
		bindings := map[string]struct{ own, foreign []byte }{
			"HT-SHA-256-EXPR": {p.exporter(t), other.exporter(t)},
			"HT-SHA-256-UNIQ": {p.client.TLSUnique, other.client.TLSUnique},
			"HT-SHA-256-ENDP": {endPoint(p), endPoint(other)},
			none:              {nil, []byte("binding")},
		}
		if version == tls.VersionTLS12 { // RFC 5705 §4: an empty context is not the same as none
			plain, err := p.client.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
			if err != nil {
				t.Fatal(err)
			}
			token := issue(t, a, "HT-SHA-256-EXPR", p.server)
			e := sasl2(t, a, "HT-SHA-256-EXPR", p.server, Request{Agent: UserAgent{ID: testAgent}, Fast: &Fast{}})
			reply, _, err := e.Step(t.Context(), initiator(testUser, token.Secret, plain), true)
			condition(t, err, "")
			if !bytes.Equal(reply, responder(token.Secret, plain)) {
				t.Error("the answer is bound to another value than the question")
			}
		}
		for _, mechanism := range a.FastMechanisms(p.server) {
			t.Run(tls.VersionName(version)+" "+mechanism, func(t *testing.T) {
				token := issue(t, a, mechanism, p.server)
				try := func(mechanism, agent string, message []byte, want string) {
					t.Helper()
					e := sasl2(t, a, mechanism, p.server, Request{Agent: UserAgent{ID: agent}, Fast: &Fast{}})
					reply, done, err := e.Step(t.Context(), message, true)
					condition(t, err, want)
					if done != (want == "") || done && !bytes.Equal(reply, responder(token.Secret, bindings[mechanism].own)) {
						t.Errorf("done %t, %x", done, reply)
					}
				}
				own := bindings[mechanism].own
				try(mechanism, testAgent, initiator(testUser, token.Secret, bindings[mechanism].foreign), "not-authorized")
				try(mechanism, "d4565fa7-4d72-4749-b3d3-740edbf87771", initiator(testUser, token.Secret, own), "not-authorized")
				// XEP-0484 §3.4: MUST fail even if the token would otherwise be accepted.
				for other, b := range bindings {
					if other != mechanism && slices.Contains(a.FastMechanisms(p.server), other) {
						try(other, testAgent, initiator(testUser, token.Secret, b.own), "not-authorized")
						try(other, testAgent, initiator(testUser, token.Secret, own), "not-authorized")
					}
				}
				try(mechanism, testAgent, initiator(testUser, token.Secret, own), "")
				try(mechanism, strings.ToUpper(testAgent), initiator(strings.ToUpper(testUser), token.Secret, own), "")
			})
		}
	}
}

func TestInitiatorMessages(t *testing.T) {
	a, _ := newTest(t)
	token := issue(t, a, none, secured)
	right := initiator(testUser, token.Secret, nil)
	proof := string(right[len(testUser)+1:])
	key, err := base64.RawURLEncoding.DecodeString(token.Secret)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, message, want string }{
		{"right", string(right), ""},
		{"empty", "", "malformed-request"},
		{"no NUL", testUser, "malformed-request"},
		{"no user name", "\x00" + proof, "malformed-request"},
		{"no token", testUser + "\x00", "malformed-request"},
		{"user name that is not UTF-8", "us\xffer\x00" + proof, "malformed-request"},
		{"too long", testUser + "\x00" + strings.Repeat("a", maxMessage), "malformed-request"},
		{"too short a token", string(right[:len(right)-1]), "not-authorized"},
		{"too long a token", string(right) + "\x00", "not-authorized"},
		{"token of one byte", testUser + "\x00\x00", "not-authorized"},
		{"the token itself", testUser + "\x00" + token.Secret, "not-authorized"},
		{"hash with its bytes", string(initiator(testUser, string(key), nil)), "not-authorized"},
		{"the server's answer", testUser + "\x00" + string(responder(token.Secret, nil)), "not-authorized"},
		{"another token", string(initiator(testUser, secretOf(make([]byte, 32)), nil)), "not-authorized"},
		{"empty secret", string(initiator(testUser, "", nil)), "not-authorized"},
		{"another account", string(initiator("juliet", token.Secret, nil)), "not-authorized"},
		{"bare JID", string(initiator("user@example.org", token.Secret, nil)), "not-authorized"},
		{"user name with a space", string(initiator("us er", token.Secret, nil)), "not-authorized"},
		{"user name of 255 bytes", string(initiator(strings.Repeat("a", 255), token.Secret, nil)), "not-authorized"},
		{"user name that is too long", string(initiator(strings.Repeat("a", maxName+1), token.Secret, nil)), "not-authorized"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := sasl2(t, a, none, secured, Request{Agent: UserAgent{ID: testAgent}, Fast: &Fast{}})
			_, done, err := e.Step(t.Context(), []byte(tt.message), true)
			condition(t, err, tt.want)
			if done != (tt.want == "") || (e.Account().String() != "") != done {
				t.Errorf("done %t, account %q", done, e.Account())
			}
			if err != nil && strings.Contains(err.Error(), token.Secret) {
				t.Errorf("error tells the token: %v", err)
			}
			if _, _, err := e.Step(t.Context(), right, true); err == nil {
				t.Error("step after the end")
			}
			if _, ok, err := e.Token(t.Context()); ok || err != nil {
				t.Errorf("token: %t, %v", ok, err)
			}
		})
	}
	// XEP-0484 §3.1: success or failure within one round trip.
	e := sasl2(t, a, none, secured, Request{Agent: UserAgent{ID: testAgent}, Fast: &Fast{}})
	_, done, err := e.Step(t.Context(), nil, false)
	condition(t, err, "malformed-request")
	if done {
		t.Error("done without a message")
	}
}

// Nobody learns whether there is an account, a client, or a token.
func TestTokensThatAreNotThere(t *testing.T) {
	secret := secretOf(make([]byte, 32))
	type seen struct {
		calls []string
		err   string
	}
	measure := func(user, agent string, prepare func(*testing.T, *Authenticator, *memory)) seen {
		t.Helper()
		a, store := newTest(t)
		prepare(t, a, store)
		store.calls = nil
		e := sasl2(t, a, none, secured, Request{Agent: UserAgent{ID: agent}, Fast: &Fast{Count: count(7)}})
		_, _, err := e.Step(t.Context(), initiator(user, secret, nil), true)
		condition(t, err, "not-authorized")
		return seen{store.calls, err.Error()}
	}
	has := func(mechanism string) func(*testing.T, *Authenticator, *memory) {
		return func(t *testing.T, a *Authenticator, _ *memory) { issue(t, a, mechanism, secured) }
	}
	nothing := func(*testing.T, *Authenticator, *memory) {}
	want := measure(testUser, testAgent, has(none))
	if !slices.Equal(want.calls, []string{"Tokens"}) {
		t.Errorf("a wrong token costs %v", want.calls)
	}
	for name, got := range map[string]seen{
		"unknown account": measure("nobody", testAgent, nothing),
		"no token":        measure(testUser, testAgent, nothing),
		"unknown client":  measure(testUser, "d4565fa7-4d72-4749-b3d3-740edbf87771", has(none)),
		"disabled": measure(testUser, testAgent, func(t *testing.T, a *Authenticator, m *memory) {
			issue(t, a, none, secured)
			m.accounts["user@example.org"].disabled = true
		}),
		"expired": measure(testUser, testAgent, func(t *testing.T, a *Authenticator, m *memory) {
			issue(t, a, none, secured)
			m.accounts["user@example.org"].tokens[0].Expires = time.Now().Add(-time.Hour)
		}),
		"seen count": measure(testUser, testAgent, func(t *testing.T, a *Authenticator, m *memory) {
			issue(t, a, none, secured)
			m.accounts["user@example.org"].tokens[0].Count = 9
		}),
		"broken token": measure(testUser, testAgent, func(t *testing.T, a *Authenticator, m *memory) {
			m.accounts["user@example.org"].tokens = []StoredToken{{TokenInfo: TokenInfo{Client: ClientID(testAccount, testAgent), Mechanism: none}}}
		}),
	} {
		if !slices.Equal(got.calls, want.calls) || got.err != want.err {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	// A row without a key opens nothing, whatever is hashed.
	a, store := newTest(t)
	store.accounts["user@example.org"].tokens = []StoredToken{{TokenInfo: TokenInfo{Client: ClientID(testAccount, testAgent), Mechanism: none, Expires: time.Now().Add(time.Hour)}}}
	id, _ := parseUUID(testAgent)
	for _, key := range [][]byte{nil, make([]byte, 32), pad(id, testAccount, none, nil), pad(id, testAccount, none, make([]byte, 32))} {
		_, err := present(t, a, secretOf(key), Request{})
		condition(t, err, "not-authorized")
	}
}

// What has to be let in is let in, and what is over is over; the times are those of DefaultConfig.
func TestLifeOfATokenThatIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		a, store := newTest(t)
		first := issue(t, a, none, secured)
		if want := time.Now().Add(21 * day).UTC(); !first.Expiry.Equal(want) || first.Expiry.Location() != time.UTC {
			t.Fatalf("expires at %s, want %s", first.Expiry, want)
		}
		rotate := func(secret string, want bool) Token {
			t.Helper()
			next, err := present(t, a, secret, Request{})
			condition(t, err, "")
			if (next != Token{}) != want {
				t.Fatalf("next token %v", next)
			}
			return next
		}
		refused := func(secret, want string) {
			t.Helper()
			_, err := present(t, a, secret, Request{})
			condition(t, err, want)
		}
		time.Sleep(day - time.Second)
		rotate(first.Secret, false)
		time.Sleep(time.Second)
		second := rotate(first.Secret, true)
		if second.Secret == first.Secret || !second.Expiry.Equal(time.Now().Add(21*day)) {
			t.Errorf("second token expires at %s", second.Expiry)
		}
		// XEP-0484 §3.5: it did not arrive, so the first one goes on to work, and another one comes.
		third := rotate(first.Secret, true)
		refused(second.Secret, "not-authorized")
		rotate(third.Secret, false)
		refused(first.Secret, "not-authorized")
		// The last second.
		time.Sleep(21*day - time.Nanosecond)
		fourth := rotate(third.Secret, true)
		time.Sleep(time.Nanosecond)
		refused(third.Secret, "credentials-expired") // XEP-0484 §4.2
		rotate(fourth.Secret, false)
		refused(third.Secret, "not-authorized") // nothing is known of it any more
		time.Sleep(21 * day)
		refused(fourth.Secret, "credentials-expired")
		if n := len(store.accounts["user@example.org"].tokens); n != 1 {
			t.Errorf("%d tokens are kept", n)
		}
	})
}

// Rotation keeps what the client said of itself up to date, and the mechanism.
func TestRotatedToken(t *testing.T) {
	a, _ := newTest(t, func(c *Config) { c.TokenRotation = 0 })
	first := issue(t, a, none, secured)
	_, err := present(t, a, first.Secret, Request{Agent: UserAgent{Software: "Awesome\x1bXMPP", Device: "Kiva's Phone"}})
	condition(t, err, "")
	list, err := a.Tokens(t.Context(), testAccount)
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	if i := list[1]; i.Client != ClientID(testAccount, testAgent) || i.Mechanism != none || i.Software != "AwesomeXMPP" || i.Device != "Kiva's Phone" || !i.Used.IsZero() {
		t.Errorf("new token %+v", i)
	}
	if list[0].Used.IsZero() {
		t.Error("the use of the first one was not noted")
	}
}

// XEP-0484 §3.6.
func TestInvalidate(t *testing.T) {
	for _, rotation := range []time.Duration{0, 24 * time.Hour} {
		a, store := newTest(t, func(c *Config) { c.TokenRotation = rotation })
		token := issue(t, a, none, secured)
		next, err := present(t, a, token.Secret, Request{Fast: &Fast{Invalidate: true}})
		condition(t, err, "")
		if (next != Token{}) { // MUST NOT include a new token, even if the token was due for rotation
			t.Error("a new token")
		}
		_, err = present(t, a, token.Secret, Request{})
		condition(t, err, "not-authorized")
		if n := len(store.accounts["user@example.org"].tokens); n != 0 {
			t.Errorf("%d tokens are kept", n)
		}
		// Unless the client asked for one.
		token = issue(t, a, none, secured)
		next, err = present(t, a, token.Secret, Request{Fast: &Fast{Invalidate: true}, Token: none})
		condition(t, err, "")
		_, err = present(t, a, token.Secret, Request{})
		condition(t, err, "not-authorized")
		_, err = present(t, a, next.Secret, Request{})
		condition(t, err, "")
	}
}

// XEP-0484 §3.4.
func TestCounts(t *testing.T) {
	a, _ := newTest(t)
	token := issue(t, a, none, secured)
	for _, tt := range []struct {
		count *uint32
		want  string
	}{
		{count(1), ""}, {count(1), "not-authorized"}, {count(0), "not-authorized"}, {count(2), ""}, {nil, ""}, {count(2), "not-authorized"},
		{count(1<<31 - 1), ""}, {count(3), "not-authorized"},
	} {
		next, err := present(t, a, token.Secret, Request{Fast: &Fast{Count: tt.count}, Token: map[bool]string{true: none}[tt.want != ""]})
		condition(t, err, tt.want)
		if (next != Token{}) {
			t.Error("a token for a replay")
		}
	}
	// It is per token.
	token = issue(t, a, none, secured)
	_, err := present(t, a, token.Secret, Request{Fast: &Fast{Count: count(1)}})
	condition(t, err, "")
}

// A client that comes back soon costs no write.
func TestUseIsNotedOnceAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, store := newTest(t)
		token := issue(t, a, none, secured)
		login := func(want ...string) {
			t.Helper()
			store.calls = nil
			_, err := present(t, a, token.Secret, Request{})
			condition(t, err, "")
			if !slices.Equal(store.calls, want) {
				t.Errorf("calls %v, want %v", store.calls, want)
			}
		}
		login("Tokens", "AccountDisabled", "UseToken")
		login("Tokens", "AccountDisabled")
		time.Sleep(time.Hour)
		login("Tokens", "AccountDisabled")
		time.Sleep(time.Nanosecond)
		login("Tokens", "AccountDisabled", "UseToken")
	})
}

// Which requests for a token are granted: XEP-0484 §3.2 and §4.1.
func TestRequestedTokens(t *testing.T) {
	p := connect(t, tls.VersionTLS13, newCertificate(t)).server
	tests := []struct {
		name, mechanism, agent string
		ch                     Channel
		want                   bool
	}{
		{"offered", none, testAgent, secured, true},
		{"with channel binding", "HT-SHA-256-EXPR", testAgent, p, true},
		{"without, where there is one", none, testAgent, p, true},
		{"not asked", "", testAgent, secured, false},
		{"not offered here", "HT-SHA-256-EXPR", testAgent, secured, false},
		{"tls-unique with TLS 1.3", "HT-SHA-256-UNIQ", testAgent, p, false},
		{"another hash", "HT-SHA-512-NONE", testAgent, secured, false},
		{"not for tokens", "SCRAM-SHA-256", testAgent, secured, false},
		{"no user agent", none, "", secured, false},
		{"user agent without a UUID", none, "phone", secured, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, store := newTest(t)
			e := sasl2(t, a, "SCRAM-SHA-256", tt.ch, Request{Agent: UserAgent{ID: tt.agent}, Token: tt.mechanism})
			if _, ok, err := e.Token(t.Context()); ok || err != nil { // not authenticated
				t.Fatalf("token before the login: %t, %v", ok, err)
			}
			condition(t, (&client{mechanism: "SCRAM-SHA-256", user: testUser, password: testPassword}).run(t, e), "")
			_, ok, err := e.Token(t.Context())
			if ok != tt.want || err != nil || len(store.accounts["user@example.org"].tokens) > 0 != tt.want {
				t.Errorf("token: %t, %v", ok, err)
			}
		})
	}
	t.Run("failed login", func(t *testing.T) {
		a, _ := newTest(t)
		e := sasl2(t, a, "SCRAM-SHA-256", secured, Request{Agent: UserAgent{ID: testAgent}, Token: none})
		condition(t, (&client{mechanism: "SCRAM-SHA-256", user: testUser, password: "wrong"}).run(t, e), "not-authorized")
		if _, ok, err := e.Token(t.Context()); ok || err != nil {
			t.Errorf("token: %t, %v", ok, err)
		}
	})
	t.Run("with the SASL of RFC 6120", func(t *testing.T) {
		a, _ := newTest(t)
		e := start(t, a, "SCRAM-SHA-256", secured)
		condition(t, (&client{mechanism: "SCRAM-SHA-256", user: testUser, password: testPassword}).run(t, e), "")
		if _, ok, err := e.Token(t.Context()); ok || err != nil {
			t.Errorf("token: %t, %v", ok, err)
		}
	})
	t.Run("for another mechanism with a token", func(t *testing.T) {
		a, _ := newTest(t)
		token := issue(t, a, "HT-SHA-256-EXPR", p)
		r := Request{Agent: UserAgent{ID: testAgent}, Fast: &Fast{}, Token: none}
		binding, err := p.TLS.ExportKeyingMaterial("EXPORTER-Channel-Binding", []byte{}, 32)
		if err != nil {
			t.Fatal(err)
		}
		e := sasl2(t, a, "HT-SHA-256-EXPR", p, r)
		_, _, err = e.Step(t.Context(), initiator(testUser, token.Secret, binding), true)
		condition(t, err, "")
		next, ok, err := e.Token(t.Context())
		if err != nil || !ok {
			t.Fatalf("token: %t, %v", ok, err)
		}
		_, err = present(t, a, next.Secret, Request{})
		condition(t, err, "")
	})
}

// Security promise 24: what ends the tokens, whenever it happens.
func TestRevocation(t *testing.T) {
	tests := []struct {
		name, want string
		change     func(t *testing.T, a *Authenticator) error
	}{
		{"new password", "not-authorized", func(t *testing.T, a *Authenticator) error { return a.SetPassword(t.Context(), testAccount, "crayon") }},
		{"deleted", "not-authorized", func(t *testing.T, a *Authenticator) error { return a.Delete(t.Context(), testAccount) }},
		{"revoked", "not-authorized", func(t *testing.T, a *Authenticator) error {
			n, err := a.RevokeTokens(t.Context(), testAccount, ClientID(testAccount, testAgent))
			if n != 1 {
				t.Errorf("revoked %d tokens", n)
			}
			return err
		}},
		{"all revoked", "not-authorized", func(t *testing.T, a *Authenticator) error {
			_, err := a.RevokeTokens(t.Context(), testAccount, "")
			return err
		}},
		{"disabled", "account-disabled", func(t *testing.T, a *Authenticator) error { return a.SetDisabled(t.Context(), testAccount, true) }},
		{"another client's revoked", "", func(t *testing.T, a *Authenticator) error {
			_, err := a.RevokeTokens(t.Context(), testAccount, "another")
			return err
		}},
		{"nothing, but a neighbour's counter", "", func(_ *testing.T, a *Authenticator) error {
			a.changes.note(testAccount)
			return nil
		}},
	}
	for _, tt := range tests {
		before := func(t *testing.T, used bool, method, want string) {
			a, store := newTest(t)
			token := issue(t, a, none, secured)
			if used { // so that the next use leaves nothing to write
				_, err := present(t, a, token.Secret, Request{})
				condition(t, err, "")
			}
			changed := false
			store.before = func(called string) {
				if called == method && !changed {
					changed = true
					if err := tt.change(t, a); err != nil {
						t.Error(err)
					}
				}
			}
			_, err := present(t, a, token.Secret, Request{})
			if !changed {
				t.Fatal("this login does not call " + method)
			}
			condition(t, err, want)
		}
		t.Run(tt.name+" before the login", func(t *testing.T) {
			want := tt.want
			if want == "account-disabled" {
				want = "not-authorized" // its tokens are gone
			}
			before(t, true, "Tokens", want)
		})
		for _, used := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, " during the login, used before ", used), func(t *testing.T) {
				before(t, used, "AccountDisabled", tt.want)
			})
		}
		t.Run(tt.name+" at the last moment", func(t *testing.T) {
			want := tt.want
			if want == "account-disabled" {
				want = "not-authorized"
			}
			before(t, false, "UseToken", want)
		})
		// A token for a login with a password that is not the password any more.
		t.Run(tt.name+" before a token is issued", func(t *testing.T) {
			a, store := newTest(t)
			e := sasl2(t, a, "SCRAM-SHA-256", secured, Request{Agent: UserAgent{ID: testAgent}, Token: none})
			condition(t, (&client{mechanism: "SCRAM-SHA-256", user: testUser, password: testPassword}).run(t, e), "")
			if strings.Contains(tt.name, "revoked") {
				return // there are none yet
			}
			if err := tt.change(t, a); err != nil {
				t.Fatal(err)
			}
			_, ok, err := e.Token(t.Context())
			want := ""
			if tt.want != "" {
				want = "not-authorized"
			}
			condition(t, err, want)
			if r := store.accounts["user@example.org"]; ok != (want == "") || r != nil && len(r.tokens) > 0 != ok {
				t.Errorf("token %t", ok)
			}
		})
	}
}

// Who ends sessions after a change finds those of tokens too.
func TestOutdatedLoginWithToken(t *testing.T) {
	a, _ := newTest(t)
	token := issue(t, a, none, secured)
	login := func() *Exchange {
		e := sasl2(t, a, none, secured, Request{Agent: UserAgent{ID: testAgent}, Fast: &Fast{}})
		_, _, err := e.Step(t.Context(), initiator(testUser, token.Secret, nil), true)
		condition(t, err, "")
		return e
	}
	for range 2 { // with a write and without
		e := login()
		if e.Outdated() {
			t.Error("outdated before the change")
		}
		a.changes.note(testAccount)
		if !e.Outdated() {
			t.Error("not outdated after it")
		}
	}
	if e := login(); e.Outdated() {
		t.Error("outdated by a change before the login")
	}
}

// Two logins at once: a count lets one in, a new token both; for the race detector as well.
func TestTwoLoginsAtOnce(t *testing.T) {
	a, _ := newTest(t, func(c *Config) { c.TokenRotation = 0 })
	token := issue(t, a, none, secured)
	both := func(fast *Fast) (let int32, next [2]Token) {
		var n atomic.Int32
		var wg sync.WaitGroup
		for i := range 2 {
			wg.Go(func() {
				e, err := a.StartSASL2(t.Context(), testDomain, none, secured, a.Mechanisms(secured), a.FastMechanisms(secured),
					Request{Agent: UserAgent{ID: testAgent}, Fast: fast})
				if err != nil {
					t.Error(err)
					return
				}
				if _, done, _ := e.Step(t.Context(), initiator(testUser, token.Secret, nil), true); done {
					n.Add(1)
					next[i], _, _ = e.Token(t.Context())
				}
			})
		}
		wg.Wait()
		return n.Load(), next
	}
	for i := range uint32(20) {
		if let, _ := both(&Fast{Count: count(i + 1)}); let != 1 {
			t.Fatalf("%d of two logins with the count %d", let, i+1)
		}
		let, next := both(&Fast{})
		if let != 2 {
			t.Fatalf("%d of two logins without a count", let)
		}
		// XEP-0484 §3.5: the token that was generated last is the one that works beside the present one.
		works := 0
		for _, other := range next {
			if _, err := present(t, a, other.Secret, Request{}); err == nil {
				works++
				token = other
			}
		}
		if works != 1 {
			t.Fatalf("%d of two new tokens work", works)
		}
	}
	if let, _ := both(&Fast{Invalidate: true}); let != 1 {
		t.Errorf("%d of two last logins", let)
	}
}

// What is no fault of the client, and the end of the connection.
func TestTokenStoreFails(t *testing.T) {
	broken := errors.New("disk on fire")
	for _, method := range []string{"Tokens", "AccountDisabled", "UseToken", "AddToken"} {
		a, store := newTest(t)
		token := issue(t, a, none, secured)
		asks := sasl2(t, a, "SCRAM-SHA-256", secured, Request{Agent: UserAgent{ID: testAgent}, Token: none})
		condition(t, (&client{mechanism: "SCRAM-SHA-256", user: testUser, password: testPassword}).run(t, asks), "")
		store.before = func(called string) {
			if called == method {
				store.mu.Lock()
				store.broken = broken
				store.mu.Unlock()
			}
		}
		var err error
		if method == "AddToken" {
			_, _, err = asks.Token(t.Context())
		} else {
			_, err = present(t, a, token.Secret, Request{})
		}
		condition(t, err, "temporary-auth-failure")
		if !errors.Is(err, broken) {
			t.Errorf("%s: the cause is lost: %v", method, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		e := sasl2(t, a, none, secured, Request{Agent: UserAgent{ID: testAgent}, Fast: &Fast{}})
		_, _, err = e.Step(ctx, initiator(testUser, token.Secret, nil), true)
		var f Failure
		if !errors.Is(err, context.Canceled) || errors.As(err, &f) {
			t.Errorf("error %v, want context.Canceled and no failure", err)
		}
	}
}

// A wrong token is counted like a wrong password, one whose time is over is not.
func TestBackoffOfTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newTest(t, func(c *Config) { c.Delay = time.Minute })
		ch := Channel{TLS: secured.TLS, Remote: netip.MustParseAddr("198.51.100.1")}
		token := issue(t, a, none, secured)
		try := func(secret, want string, took time.Duration) {
			t.Helper()
			began := time.Now()
			e := sasl2(t, a, none, ch, Request{Agent: UserAgent{ID: testAgent}, Fast: &Fast{}})
			_, _, err := e.Step(t.Context(), initiator(testUser, secret, nil), true)
			condition(t, err, want)
			if got := time.Since(began); got != took {
				t.Errorf("took %v, want %v", got, took)
			}
		}
		for range freeAccount {
			try("wrong", "not-authorized", 0)
		}
		try("wrong", "not-authorized", time.Second)
		try(token.Secret, "", 2*time.Second)
		try(token.Secret, "", 0)
		time.Sleep(22 * 24 * time.Hour)
		for range 2 * freeAccount {
			try(token.Secret, "credentials-expired", 0)
		}
		e := sasl2(t, a, none, ch, Request{Agent: UserAgent{ID: testAgent}, Fast: &Fast{}})
		_, _, err := e.Step(t.Context(), []byte("nonsense"), true)
		condition(t, err, "malformed-request")
		try(token.Secret, "credentials-expired", 0)
	})
}

// Tokens of one account open no other, even with the same user agent.
func TestTokensOfAnotherAccount(t *testing.T) {
	a, store := newTest(t)
	token := issue(t, a, none, secured)
	juliet := jid.MustParse("juliet@example.org")
	if err := a.Register(t.Context(), juliet, testPassword); err != nil {
		t.Fatal(err)
	}
	// Not even when somebody who writes to the database copies the row.
	stolen := store.accounts["user@example.org"].tokens[0]
	stolen.Client = ClientID(juliet, testAgent)
	store.accounts["juliet@example.org"].tokens = []StoredToken{stolen}
	e := sasl2(t, a, none, secured, Request{Agent: UserAgent{ID: testAgent}, Fast: &Fast{}})
	_, _, err := e.Step(t.Context(), initiator("juliet", token.Secret, nil), true)
	condition(t, err, "not-authorized")
}
