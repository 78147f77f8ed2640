package auth

import (
	"context"
	"crypto/pbkdf2"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"mellium.im/xmpp/jid"
)

// newSHA1Test is newTest with an account that has a verifier for SHA-1 only.
func newSHA1Test(t testing.TB) (*Authenticator, *memory) {
	t.Helper()
	a, store := newTest(t)
	v, _ := hashOf("SCRAM-SHA-1").pick(testVerifiers())
	store.accounts["user@example.org"].verifiers = []Verifier{v}
	return a, store
}

// scramLogin logs in with the password.
func scramLogin(t testing.TB, a *Authenticator, mechanism string) *Exchange {
	t.Helper()
	e := sasl2(t, a, mechanism, secured, Request{Agent: UserAgent{ID: testAgent}, Token: none})
	condition(t, (&client{mechanism: mechanism, user: testUser, password: testPassword}).run(t, e), "")
	return e
}

// saltedPassword is what a client answers to u: RFC 5802 §3.
func saltedPassword(t testing.TB, u *Upgrade, mechanism, password string) string {
	t.Helper()
	salt, err := base64.StdEncoding.DecodeString(u.Salt())
	if err != nil {
		t.Fatal(err)
	}
	h := (&client{mechanism: mechanism}).hash()
	salted, err := pbkdf2.Key(h, password, salt, u.Iterations(), h().Size())
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(salted)
}

func TestUpgradeTasks(t *testing.T) {
	a, _ := newTest(t)
	for _, task := range a.UpgradeTasks() {
		// XEP-0480 §2.1: the prefix, no -PLUS; the schema: 20 characters.
		if !strings.HasPrefix(task, "UPGR-SCRAM-") || strings.HasSuffix(task, "-PLUS") || len(task) > 20 || hashOf(task[5:]) == nil {
			t.Errorf("task %q", task)
		}
	}
}

// Which tasks a client is to perform.
func TestUpgrades(t *testing.T) {
	both := []string{"UPGR-SCRAM-SHA-256", "UPGR-SCRAM-SHA-512"}
	tests := []struct {
		name      string
		has       []string
		requested []string
		want      []string
	}{
		{"both", []string{"SCRAM-SHA-1"}, both, []string{"UPGR-SCRAM-SHA-512", "UPGR-SCRAM-SHA-256"}},
		{"one requested", []string{"SCRAM-SHA-1"}, both[:1], both[:1]},
		{"twice the same", []string{"SCRAM-SHA-1"}, []string{"UPGR-SCRAM-SHA-256", "UPGR-SCRAM-SHA-256"}, both[:1]},
		{"one missing", []string{"SCRAM-SHA-1", "SCRAM-SHA-512"}, both, both[:1]},
		{"none missing", []string{"SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"}, both, nil},
		{"none requested", []string{"SCRAM-SHA-1"}, nil, nil},
		{"unknown ones", []string{"SCRAM-SHA-1"}, []string{"UPGR-BLOOP2", "UPGR-SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "", "upgr-scram-sha-256"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, store := newTest(t)
			var left []Verifier
			for _, v := range testVerifiers() {
				if slices.Contains(tt.has, v.Mechanism) {
					left = append(left, v)
				}
			}
			store.accounts["user@example.org"].verifiers = left
			got, err := scramLogin(t, a, "SCRAM-SHA-1").Upgrades(t.Context(), tt.requested)
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("%v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

// XEP-0480 §3, the example: salt, iterations and SaltedPassword as they are there. The keys are from Python's hmac, made of that
// SaltedPassword as RFC 5802 §3 says.
func TestUpgradeOfTheExample(t *testing.T) {
	a, store := newSHA1Test(t)
	e := scramLogin(t, a, "SCRAM-SHA-1")
	u, err := e.Upgrade("UPGR-SCRAM-SHA-256")
	if err != nil {
		t.Fatal(err)
	}
	u.salt = []byte("A_SXCRXQ6sek8bf_Z")
	if u.Salt() != "QV9TWENSWFE2c2VrOGJmX1o=" || u.Iterations() != 4096 {
		t.Errorf("salt %s, %d iterations", u.Salt(), u.Iterations())
	}
	condition(t, u.Finish(t.Context(), "\n      BzOnw3Pc5H4bOLlPZ/8JAy6wnTpH05aH21KW2+Xfpaw=\n    "), "")
	v, ok := hashOf("SCRAM-SHA-256").pick(store.accounts["user@example.org"].verifiers)
	if !ok || string(v.Salt) != "A_SXCRXQ6sek8bf_Z" || v.Iterations != 4096 ||
		hex.EncodeToString(v.StoredKey) != "3b3578cbb5718b5cfef856ddd99ea213cdfbfb32a708373b9f3ff0f06bfa434e" ||
		hex.EncodeToString(v.ServerKey) != "658ff651122a6ca3c10aa37552e3f014f99bb8bbcd50ee04327a2bde266697b9" {
		t.Errorf("verifier %t, %+v", ok, v)
	}
}

// After the tasks the account logs in with every mechanism, and the login that performed them, the tokens and the old verifier stay.
func TestUpgrade(t *testing.T) {
	for _, mechanism := range []string{"SCRAM-SHA-1", "PLAIN"} {
		a, store := newSHA1Test(t)
		token := issue1(t, a)
		e := sasl2(t, a, mechanism, secured, Request{})
		if mechanism == "PLAIN" {
			_, _, err := e.Step(t.Context(), plainMessage("", testUser, testPassword), true)
			condition(t, err, "")
		} else {
			condition(t, (&client{mechanism: mechanism, user: testUser, password: testPassword}).run(t, e), "")
		}
		tasks, err := e.Upgrades(t.Context(), a.UpgradeTasks())
		if err != nil || len(tasks) != 2 {
			t.Fatal(tasks, err)
		}
		salts := map[string]bool{}
		for _, task := range tasks {
			u, err := e.Upgrade(task)
			if err != nil {
				t.Fatal(err)
			}
			salts[u.Salt()] = true
			condition(t, u.Finish(t.Context(), saltedPassword(t, u, strings.TrimPrefix(task, "UPGR-"), testPassword)), "")
		}
		if len(salts) != 2 { // XEP-0438 §6.2
			t.Error("a salt was used twice")
		}
		if e.Outdated() {
			t.Error("the login is outdated by its own tasks")
		}
		for _, h := range hashes {
			condition(t, (&client{mechanism: h.name, user: testUser, password: testPassword}).run(t, start(t, a, h.name, secured)), "")
		}
		_, err = present(t, a, token.Secret, Request{})
		condition(t, err, "")
		if n := len(store.accounts["user@example.org"].verifiers); n != 3 { // XEP-0480 §4
			t.Errorf("%d verifiers", n)
		}
	}
}

// issue1 is issue for an account that has a verifier for SHA-1 only.
func issue1(t testing.TB, a *Authenticator) Token {
	t.Helper()
	token, ok, err := scramLogin(t, a, "SCRAM-SHA-1").Token(t.Context())
	if err != nil || !ok {
		t.Fatalf("token: %t, %v", ok, err)
	}
	return token
}

func TestUpgradeRefused(t *testing.T) {
	a, store := newSHA1Test(t)
	e := scramLogin(t, a, "SCRAM-SHA-1")
	for _, task := range []string{"", "UPGR-SCRAM-SHA-1", "UPGR-SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "UPGR-BLOOP2"} {
		_, err := e.Upgrade(task)
		condition(t, err, "malformed-request")
	}
	for hash, want := range map[string]string{
		"":     "malformed-request", // XEP-0480 §3: MUST NOT be empty
		"  \n": "malformed-request",
		base64.StdEncoding.EncodeToString(make([]byte, 31)): "malformed-request",
		base64.StdEncoding.EncodeToString(make([]byte, 33)): "malformed-request",
		base64.StdEncoding.EncodeToString(make([]byte, 64)): "malformed-request",
		"=":    "incorrect-encoding",
		"none": "malformed-request",
		"é":    "incorrect-encoding",
	} {
		u, err := e.Upgrade("UPGR-SCRAM-SHA-256")
		if err != nil {
			t.Fatal(err)
		}
		condition(t, u.Finish(t.Context(), hash), want)
	}
	// A token must not be enough to give the account another password.
	token := issue1(t, a)
	by := sasl2(t, a, none, secured, Request{Agent: UserAgent{ID: testAgent}, Fast: &Fast{}})
	_, _, err := by.Step(t.Context(), initiator(testUser, token.Secret, nil), true)
	condition(t, err, "")
	// And before the login there is nothing.
	for name, e := range map[string]*Exchange{"token": by, "not yet": sasl2(t, a, "SCRAM-SHA-1", secured, Request{})} {
		if tasks, err := e.Upgrades(t.Context(), a.UpgradeTasks()); len(tasks) > 0 || err != nil {
			t.Errorf("%s: tasks %v, %v", name, tasks, err)
		}
		_, err = e.Upgrade("UPGR-SCRAM-SHA-256")
		condition(t, err, "malformed-request")
	}
	if n := len(store.accounts["user@example.org"].verifiers); n != 1 {
		t.Errorf("%d verifiers", n)
	}
}

// What happens between the login and the end of the task.
func TestChangesDuringUpgrade(t *testing.T) {
	account := jid.MustParse("user@example.org")
	broken := errors.New("disk on fire")
	tests := []struct {
		name, want string
		change     func(*testing.T, *Authenticator, *memory) error
	}{
		{"nothing", "", func(*testing.T, *Authenticator, *memory) error { return nil }},
		{"new password", "not-authorized", func(t *testing.T, a *Authenticator, _ *memory) error {
			return a.SetPassword(t.Context(), account, "crayon")
		}},
		{"disabled", "not-authorized", func(t *testing.T, a *Authenticator, _ *memory) error {
			return a.SetDisabled(t.Context(), account, true)
		}},
		{"deleted", "not-authorized", func(t *testing.T, a *Authenticator, _ *memory) error { return a.Delete(t.Context(), account) }},
		{"another login was faster", "", func(t *testing.T, a *Authenticator, _ *memory) error {
			u, err := scramLogin(t, a, "SCRAM-SHA-1").Upgrade("UPGR-SCRAM-SHA-256")
			if err != nil {
				return err
			}
			return u.Finish(t.Context(), saltedPassword(t, u, "SCRAM-SHA-256", testPassword))
		}},
		{"database is away", "temporary-auth-failure", func(_ *testing.T, _ *Authenticator, m *memory) error {
			m.broken = broken
			return nil
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, store := newSHA1Test(t)
			e := scramLogin(t, a, "SCRAM-SHA-1")
			u, err := e.Upgrade("UPGR-SCRAM-SHA-256")
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.change(t, a, store); err != nil {
				t.Fatal(err)
			}
			err = u.Finish(t.Context(), saltedPassword(t, u, "SCRAM-SHA-256", testPassword))
			condition(t, err, tt.want)
			switch tt.want {
			case "":
				condition(t, (&client{mechanism: "SCRAM-SHA-256", user: testUser, password: testPassword}).run(t, start(t, a, "SCRAM-SHA-256", secured)), "")
			case "temporary-auth-failure":
				if !errors.Is(err, broken) {
					t.Errorf("the cause is lost: %v", err)
				}
				_, err := e.Upgrades(t.Context(), a.UpgradeTasks())
				condition(t, err, "temporary-auth-failure")
			}
		})
	}
	a, store := newSHA1Test(t)
	u, err := scramLogin(t, a, "SCRAM-SHA-1").Upgrade("UPGR-SCRAM-SHA-256")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	store.broken = context.Canceled
	err = u.Finish(ctx, saltedPassword(t, u, "SCRAM-SHA-256", testPassword))
	var f Failure
	if !errors.Is(err, context.Canceled) || errors.As(err, &f) {
		t.Errorf("error %v, want context.Canceled and no failure", err)
	}
}
