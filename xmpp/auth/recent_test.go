package auth

import (
	"fmt"
	"strings"
	"testing"

	"mellium.im/xmpp/jid"
)

// Each change of an account's verifiers is seen by the next login, although those of the last one are remembered.
func TestRecentVerifiers(t *testing.T) {
	a, store := newTest(t)
	account := jid.MustParse("user@example.org")
	login := func(password, want string) {
		t.Helper()
		condition(t, (&client{mechanism: "SCRAM-SHA-256", user: testUser, password: password}).run(t, start(t, a, "SCRAM-SHA-256", secured)), want)
	}
	reads := 0
	store.before = func(method string) {
		if method == "Credentials" {
			reads++
		}
	}
	login(testPassword, "")
	login(testPassword, "")
	login("wrong", "not-authorized")
	if reads != 1 {
		t.Errorf("%d reads of credentials", reads)
	}
	a.ForgetRecent()
	login(testPassword, "")
	login(testPassword, "")
	if reads != 2 {
		t.Errorf("%d reads of credentials after they were forgotten", reads)
	}
	if err := a.SetPassword(t.Context(), account, "crayon"); err != nil {
		t.Fatal(err)
	}
	login(testPassword, "not-authorized")
	login("crayon", "")
	for _, disabled := range []bool{true, false} {
		if err := a.SetDisabled(t.Context(), account, disabled); err != nil {
			t.Fatal(err)
		}
		login("crayon", map[bool]string{true: "account-disabled"}[disabled])
	}
	if err := a.Delete(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	login("crayon", "not-authorized")
	if err := a.Register(t.Context(), account, "chalk"); err != nil {
		t.Fatal(err)
	}
	login("crayon", "not-authorized")
	login("chalk", "")
}

// What was read before a change is not remembered after it; and there is a bound.
func TestRecentBound(t *testing.T) {
	var r recent
	_, _, drops := r.get("user@example.org")
	r.drop(jid.MustParse("user@example.org"))
	r.put("user@example.org", Credentials{Verifiers: []Verifier{{Mechanism: "SCRAM-SHA-1"}}}, drops)
	if all, ok, _ := r.get("user@example.org"); ok {
		t.Errorf("remembers %v", all)
	}
	_, _, drops = r.get("x")
	for i := range 2 * maxRecent {
		r.put(fmt.Sprintf("user%d@%s", i, strings.Repeat("x", 10)), Credentials{}, drops)
	}
	if len(r.accounts) > maxRecent {
		t.Errorf("%d accounts", len(r.accounts))
	}
}

// An account that does not exist costs as many reads as one that does, whoever asks how often; one that is made is seen at once.
func TestRecentUnknown(t *testing.T) {
	a, store := newTest(t)
	reads := 0
	store.before = func(method string) {
		if method == "Credentials" {
			reads++
		}
	}
	for _, user := range []string{testUser, "nobody"} {
		reads = 0
		for range 3 {
			condition(t, (&client{mechanism: "SCRAM-SHA-256", user: user, password: "wrong"}).run(t, start(t, a, "SCRAM-SHA-256", secured)), "not-authorized")
		}
		if reads != 1 {
			t.Errorf("%s: %d reads of credentials", user, reads)
		}
	}
	store.before = nil
	if err := a.Register(t.Context(), jid.MustParse("nobody@example.org"), "chalk"); err != nil {
		t.Fatal(err)
	}
	condition(t, (&client{mechanism: "SCRAM-SHA-256", user: "nobody", password: "chalk"}).run(t, start(t, a, "SCRAM-SHA-256", secured)), "")
}
