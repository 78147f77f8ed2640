package auth

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"mellium.im/xmpp/jid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The account of most tests. RFC 5802 §5 and RFC 7677 §3 use the same.
const (
	testDomain   = "example.org"
	testUser     = "user"
	testPassword = "pencil"
)

var testSecret = []byte(strings.Repeat("0123456789abcdef", 2))

// testVerifiers are those of testPassword.
var testVerifiers = sync.OnceValue(func() []Verifier {
	all, err := MakeVerifiers(testPassword, MinIterations)
	if err != nil {
		panic(err)
	}
	return all
})

// memory is a Store.
type memory struct {
	mu       sync.Mutex
	accounts map[string]*record
	calls    []string            // the methods that were called
	broken   error               // what every method returns
	before   func(method string) // called without the lock
}

type record struct {
	verifiers []Verifier
	disabled  bool
	tokens    []StoredToken
}

// proves is what AddVerifier and AddToken ask first.
func (r *record) proves(proof Verifier) error {
	if r.disabled || !slices.ContainsFunc(r.verifiers, func(v Verifier) bool {
		return v.Mechanism == proof.Mechanism && string(v.StoredKey) == string(proof.StoredKey)
	}) {
		return ErrOutdated
	}
	return nil
}

func (m *memory) do(method string, account jid.JID, must bool, f func(*record) error) error {
	if m.before != nil {
		m.before(method)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, method)
	if m.broken != nil {
		return m.broken
	}
	r := m.accounts[account.String()]
	if r == nil && must {
		return fmt.Errorf("%s: %w", account, ErrNoAccount)
	}
	return f(r)
}

func (m *memory) Credentials(_ context.Context, account jid.JID) (c Credentials, err error) {
	err = m.do("Credentials", account, true, func(r *record) error {
		c = Credentials{Verifiers: slices.Clone(r.verifiers), Disabled: r.disabled}
		return nil
	})
	return c, err
}

func (m *memory) CreateAccount(_ context.Context, account jid.JID, v []Verifier) error {
	return m.do("CreateAccount", account, false, func(r *record) error {
		if r != nil {
			return ErrAccountExists
		}
		m.accounts[account.String()] = &record{verifiers: v}
		return nil
	})
}

func (m *memory) SetVerifiers(_ context.Context, account jid.JID, v []Verifier) error {
	return m.do("SetVerifiers", account, true, func(r *record) error {
		r.verifiers, r.tokens = v, nil
		return nil
	})
}

func (m *memory) AddVerifier(_ context.Context, account jid.JID, v, proof Verifier) error {
	return m.do("AddVerifier", account, true, func(r *record) error {
		if err := r.proves(proof); err != nil {
			return err
		}
		if !slices.ContainsFunc(r.verifiers, func(other Verifier) bool { return other.Mechanism == v.Mechanism }) {
			r.verifiers = append(slices.Clone(r.verifiers), v)
		}
		return nil
	})
}

func (m *memory) Tokens(_ context.Context, account jid.JID, client string) (all []StoredToken, err error) {
	err = m.do("Tokens", account, false, func(r *record) error {
		if r != nil {
			all = slices.DeleteFunc(slices.Clone(r.tokens), func(t StoredToken) bool { return t.Client != client })
		}
		return nil
	})
	return all, err
}

func (m *memory) ListTokens(_ context.Context, account jid.JID) (all []TokenInfo, err error) {
	err = m.do("ListTokens", account, true, func(r *record) error {
		for _, t := range r.tokens {
			all = append(all, t.TokenInfo)
		}
		return nil
	})
	return all, err
}

func (r *record) addToken(t StoredToken) {
	r.tokens = append(slices.DeleteFunc(slices.Clone(r.tokens), func(o StoredToken) bool { return o.Client == t.Client && o.Used.IsZero() }), t)
}

func (m *memory) AddToken(_ context.Context, account jid.JID, t StoredToken, proof Verifier) error {
	return m.do("AddToken", account, true, func(r *record) error {
		if err := r.proves(proof); err != nil {
			return err
		}
		r.addToken(t)
		return nil
	})
}

func (m *memory) UseToken(_ context.Context, account jid.JID, t StoredToken, use TokenUse) error {
	return m.do("UseToken", account, true, func(r *record) error {
		i := slices.IndexFunc(r.tokens, func(o StoredToken) bool { return o.Client == t.Client && string(o.Salt) == string(t.Salt) })
		if i < 0 || r.disabled {
			return ErrOutdated
		}
		stored := r.tokens[i]
		if use.Count != nil && int64(*use.Count) <= stored.Count {
			return ErrReplayed
		}
		var left []StoredToken
		for j, o := range r.tokens {
			switch {
			case j == i && use.Invalidate, j != i && o.Client == t.Client && (!o.Used.IsZero() || o.Expires.Before(stored.Expires)):
				continue
			case j == i:
				o.Used = use.At
				if use.Count != nil {
					o.Count = int64(*use.Count)
				}
			}
			left = append(left, o)
		}
		r.tokens = left
		if use.Next != nil {
			r.addToken(*use.Next)
		}
		return nil
	})
}

func (m *memory) DeleteTokens(_ context.Context, account jid.JID, client string) (n int, err error) {
	err = m.do("DeleteTokens", account, true, func(r *record) error {
		n = len(r.tokens)
		r.tokens = slices.DeleteFunc(slices.Clone(r.tokens), func(t StoredToken) bool { return client == "" || t.Client == client })
		n -= len(r.tokens)
		return nil
	})
	return n, err
}

func (m *memory) DeleteAccount(_ context.Context, account jid.JID) error {
	return m.do("DeleteAccount", account, true, func(*record) error {
		delete(m.accounts, account.String())
		return nil
	})
}

func (m *memory) AccountExists(_ context.Context, account jid.JID) (exists bool, err error) {
	err = m.do("AccountExists", account, false, func(r *record) error {
		exists = r != nil
		return nil
	})
	return exists, err
}

func (m *memory) AccountDisabled(_ context.Context, account jid.JID) (disabled bool, err error) {
	err = m.do("AccountDisabled", account, true, func(r *record) error {
		disabled = r.disabled
		return nil
	})
	return disabled, err
}

func (m *memory) SetAccountDisabled(_ context.Context, account jid.JID, disabled bool) error {
	return m.do("SetAccountDisabled", account, true, func(r *record) error {
		r.disabled = disabled
		if disabled {
			r.tokens = nil
		}
		return nil
	})
}

func (m *memory) Accounts(context.Context, string, string, int) ([]jid.JID, error) {
	return nil, errors.New("not used by this package")
}

func (m *memory) CountAccounts(context.Context, string) (int, error) {
	return 0, errors.New("not used by this package")
}

// newTest returns an Authenticator without back-off whose store has testUser with testPassword.
func newTest(t testing.TB, change ...func(*Config)) (*Authenticator, *memory) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Iterations = MinIterations
	cfg.Delay = 0
	for _, f := range change {
		f(&cfg)
	}
	store := &memory{accounts: map[string]*record{testUser + "@" + testDomain: {verifiers: testVerifiers()}}}
	return New(store, testSecret, cfg), store
}

// secured is a connection with TLS and without any channel binding.
var secured = Channel{TLS: &tls.ConnectionState{Version: tls.VersionTLS13}}

func start(t testing.TB, a *Authenticator, mechanism string, ch Channel) *Exchange {
	t.Helper()
	e, err := a.Start(t.Context(), testDomain, mechanism, ch, a.Mechanisms(ch))
	if err != nil {
		t.Fatalf("start %s: %v", mechanism, err)
	}
	return e
}

// condition fails the test unless err is a Failure with that condition, or nil for "".
func condition(t testing.TB, err error, want string) {
	t.Helper()
	var f Failure
	switch {
	case want == "" && err != nil:
		t.Fatalf("failed: %v", err)
	case want == "":
	case !errors.As(err, &f):
		t.Fatalf("error %v, want the failure %s", err, want)
	case f.Condition != want:
		t.Fatalf("failure %v, want %s", f, want)
	}
	if err != nil && strings.Contains(err.Error(), testPassword) {
		t.Fatalf("error tells the password: %v", err)
	}
}

// plainMessage is RFC 4616 §2.
func plainMessage(authzid, authcid, password string) []byte {
	return []byte(authzid + "\x00" + authcid + "\x00" + password)
}

// errDowngrade is what a client says that was not offered what the server says that it offered.
var errDowngrade = errors.New("downgrade")

// client is a SCRAM client, written from RFC 5802 §3, §5 and §7 without the code under test.
type client struct {
	mechanism, user, password string
	authzid                   string // escaped, as in a=
	flag                      string // gs2-cbind-flag, "" for n
	data                      []byte // of the channel binding
	nonce                     string // "" for one of the client's own
	offer                     string // that reached the client, as XEP-0474 §4.1 writes it; "" does not look at h

	bare, signature string
}

func (c *client) hash() func() hash.Hash {
	switch strings.TrimSuffix(c.mechanism, "-PLUS") {
	case "SCRAM-SHA-1":
		return sha1.New
	case "SCRAM-SHA-256":
		return sha256.New
	case "SCRAM-SHA-512":
		return sha512.New
	}
	panic("no SCRAM mechanism: " + c.mechanism)
}

func (c *client) header() string {
	h := c.flag
	if h == "" {
		h = "n"
	}
	h += ","
	if c.authzid != "" {
		h += "a=" + c.authzid
	}
	return h + ","
}

func (c *client) first() string {
	if c.nonce == "" {
		c.nonce = "fyko+d2lbbFgONRv9qkxdawL"
	}
	c.bare = "n=" + strings.NewReplacer(",", "=2C", "=", "=3D").Replace(c.user) + ",r=" + c.nonce
	return c.header() + c.bare
}

// final answers a server-first-message.
func (c *client) final(serverFirst string) (string, error) {
	attributes := strings.Split(serverFirst, ",")
	if len(attributes) < 3 {
		return "", fmt.Errorf("server-first-message %q", serverFirst)
	}
	if c.offer != "" {
		if len(attributes) != 4 {
			return "", errDowngrade
		}
		offer := c.hash()()
		offer.Write([]byte(c.offer))
		if attributes[3] != "h="+base64.StdEncoding.EncodeToString(offer.Sum(nil)) { // XEP-0474 §4.2
			return "", errDowngrade
		}
	}
	nonce, ok1 := strings.CutPrefix(attributes[0], "r=")
	salt64, ok2 := strings.CutPrefix(attributes[1], "s=")
	count, ok3 := strings.CutPrefix(attributes[2], "i=")
	salt, err1 := base64.StdEncoding.DecodeString(salt64)
	iterations, err2 := strconv.Atoi(count)
	if !ok1 || !ok2 || !ok3 || err1 != nil || err2 != nil || !strings.HasPrefix(nonce, c.nonce) || nonce == c.nonce {
		return "", fmt.Errorf("server-first-message %q", serverFirst)
	}
	sum := func(key []byte, text string) []byte {
		m := hmac.New(c.hash(), key)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	salted, err := pbkdf2.Key(c.hash(), c.password, salt, iterations, c.hash()().Size())
	if err != nil {
		return "", err
	}
	clientKey := sum(salted, "Client Key")
	h := c.hash()()
	h.Write(clientKey)
	withoutProof := "c=" + base64.StdEncoding.EncodeToString(append([]byte(c.header()), c.data...)) + ",r=" + nonce
	authMessage := c.bare + "," + serverFirst + "," + withoutProof
	proof := sum(h.Sum(nil), authMessage)
	for i := range proof {
		proof[i] ^= clientKey[i]
	}
	c.signature = base64.StdEncoding.EncodeToString(sum(sum(salted, "Server Key"), authMessage))
	return withoutProof + ",p=" + base64.StdEncoding.EncodeToString(proof), nil
}

// run takes a whole exchange to its end and returns the server's error.
func (c *client) run(t testing.TB, e *Exchange) error {
	t.Helper()
	challenge, done, err := e.Step(t.Context(), []byte(c.first()), true)
	if err != nil {
		return err
	}
	if done {
		t.Fatal("done after the client-first-message")
	}
	final, err := c.final(string(challenge))
	if err != nil {
		t.Fatal(err)
	}
	challenge, done, err = e.Step(t.Context(), []byte(final), true)
	if err != nil {
		return err
	}
	if !done {
		t.Fatal("not done after the client-final-message")
	}
	if string(challenge) != "v="+c.signature {
		t.Fatalf("server-final-message %q, want the ServerSignature %q", challenge, c.signature)
	}
	return nil
}
