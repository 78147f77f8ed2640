package auth

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"mellium.im/xmpp/jid"
)

func TestMakeVerifiers(t *testing.T) {
	all, err := MakeVerifiers(testPassword, MinIterations)
	if err != nil {
		t.Fatal(err)
	}
	var names, salts []string
	for _, v := range all {
		h := hashOf(v.Mechanism)
		names = append(names, v.Mechanism)
		salts = append(salts, string(v.Salt))
		// XEP-0438 §6.2: salts of at least 16 bytes.
		if len(v.Salt) < 16 || v.Iterations != MinIterations || len(v.StoredKey) != h.size || len(v.ServerKey) != h.size {
			t.Errorf("%s: %d bytes of salt, %d iterations, keys of %d and %d bytes", v.Mechanism, len(v.Salt), v.Iterations, len(v.StoredKey), len(v.ServerKey))
		}
	}
	if want := []string{"SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1"}; !slices.Equal(names, want) {
		t.Errorf("verifiers for %v, want %v", names, want)
	}
	again, err := MakeVerifiers(testPassword, MinIterations)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range again {
		salts = append(salts, string(v.Salt))
	}
	slices.Sort(salts)
	if len(slices.Compact(salts)) != 6 {
		t.Error("a salt was used twice")
	}
	if _, err := MakeVerifiers(testPassword, MinIterations-1); err == nil { // RFC 5802 §5.1
		t.Error("too few iterations")
	}
	if _, err := MakeVerifiers("", MinIterations); !errors.Is(err, ErrPassword) {
		t.Errorf("empty password: %v", err)
	}
}

func TestConfigIsBroughtIntoRange(t *testing.T) {
	a := New(&memory{}, testSecret, Config{Iterations: 1, PlainQueue: -1, Delay: -1, Wait: -1})
	if want := (Config{Iterations: MinIterations, PlainConcurrency: 1, TokenLifetime: time.Minute}); a.cfg != want {
		t.Errorf("%+v, want %+v", a.cfg, want)
	}
}

func TestLongestDelay(t *testing.T) {
	a := New(&memory{}, testSecret, Config{Delay: 1 << 62, Wait: time.Second})
	var k bucket
	for range 1000 {
		k.fail(0, freeAccount, a.backoff.longest)
	}
	if d := k.next(0, freeAccount, a.backoff.longest); d != 24*time.Hour {
		t.Errorf("longest interval %v, want a day", d)
	}
}

func TestAccounts(t *testing.T) {
	a, store := newTest(t)
	ctx := t.Context()
	juliet := jid.MustParse("juliet@example.org")
	check := func(password string, want bool) {
		t.Helper()
		if got, err := a.CheckPassword(ctx, juliet, password); err != nil || got != want {
			t.Errorf("password %q: %t, %v", password, got, err)
		}
	}
	check("crayon", false)
	if err := a.SetPassword(ctx, juliet, "crayon"); !errors.Is(err, ErrNoAccount) {
		t.Errorf("set password of no account: %v", err)
	}
	if err := a.SetDisabled(ctx, juliet, true); !errors.Is(err, ErrNoAccount) {
		t.Errorf("disable no account: %v", err)
	}
	if err := a.Delete(ctx, juliet); !errors.Is(err, ErrNoAccount) {
		t.Errorf("delete no account: %v", err)
	}
	for _, password := range []string{"", "\x00", "\u00ad"} {
		if err := a.Register(ctx, juliet, password); !errors.Is(err, ErrPassword) {
			t.Errorf("register with %q: %v", password, err)
		}
	}
	for _, bad := range []jid.JID{{}, jid.MustParse("example.org"), jid.MustParse("juliet@example.org/balcony"), jid.NewUnsafe("Juliet", "example.org", "").JID} {
		if err := a.Register(ctx, bad, "crayon"); err == nil {
			t.Errorf("registered %q", bad)
		}
	}
	if err := a.Register(ctx, juliet, "crayon"); err != nil {
		t.Fatal(err)
	}
	if got := store.accounts["juliet@example.org"].verifiers; len(got) != len(hashes) || got[0].Iterations != a.cfg.Iterations {
		t.Errorf("verifiers %+v", got)
	}
	if err := a.Register(ctx, juliet, "chalk"); !errors.Is(err, ErrAccountExists) {
		t.Errorf("register twice: %v", err)
	}
	check("crayon", true)
	check("chalk", false)
	check("", false)
	if err := a.SetPassword(ctx, juliet, "\x07"); !errors.Is(err, ErrPassword) {
		t.Errorf("set bad password: %v", err)
	}
	if err := a.SetPassword(ctx, jid.MustParse("juliet@example.org/balcony"), "chalk"); err != nil {
		t.Fatal(err)
	}
	check("crayon", false)
	check("chalk", true)
	if err := a.SetDisabled(ctx, juliet, true); err != nil {
		t.Fatal(err)
	}
	check("chalk", true)
	if err := a.Delete(ctx, juliet); err != nil {
		t.Fatal(err)
	}
	check("chalk", false)
	a.ForgetRecent()
	store.broken = errors.New("disk on fire")
	if _, err := a.CheckPassword(ctx, juliet, "chalk"); !errors.Is(err, store.broken) {
		t.Errorf("check with a broken store: %v", err)
	}
}

// PLAIN checks against the strongest verifier that there is, and only that one.
func TestStrongestVerifier(t *testing.T) {
	for i := range hashes {
		a, store := newTest(t)
		var left []Verifier
		for _, v := range testVerifiers() {
			if slices.Index(hashes, hashOf(v.Mechanism)) >= i {
				left = append(left, v)
			}
		}
		slices.Reverse(left)
		store.accounts["user@example.org"].verifiers = left
		var used []string
		a.derive = func(h *scramHash, password string, salt []byte, iterations int) ([]byte, error) {
			used = append(used, h.name)
			return deriveKey(h, password, salt, iterations)
		}
		_, _, err := start(t, a, "PLAIN", secured).Step(t.Context(), plainMessage("", testUser, testPassword), true)
		condition(t, err, "")
		if want := []string{hashes[i].name}; !slices.Equal(used, want) {
			t.Errorf("hashed with %v, want %v", used, want)
		}
	}
}

// Passwords are hashed a few at a time, some more wait in order, and the rest is told to come back: RFC 6120 §6.5.11.
func TestPlainIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newTest(t, func(c *Config) { c.PlainConcurrency, c.PlainQueue = 2, 3 })
		gate := make(chan struct{})
		running, most := 0, 0
		var lock = make(chan struct{}, 1)
		a.derive = func(h *scramHash, password string, salt []byte, iterations int) ([]byte, error) {
			lock <- struct{}{}
			running++
			most = max(most, running)
			<-lock
			<-gate
			lock <- struct{}{}
			running--
			<-lock
			return deriveKey(h, password, salt, iterations)
		}
		results := make(chan error, 16)
		try := func(ctx context.Context) {
			_, _, err := start(t, a, "PLAIN", secured).Step(ctx, plainMessage("", testUser, testPassword), true)
			results <- err
		}
		ctx, cancel := context.WithCancel(t.Context())
		go try(ctx)
		go try(t.Context())
		synctest.Wait() // two are hashing
		impatient, leave := context.WithCancel(t.Context())
		go try(impatient)
		go try(t.Context())
		go try(t.Context())
		synctest.Wait() // three wait
		try(t.Context())
		err := <-results
		condition(t, err, "temporary-auth-failure")
		if !errors.Is(err, errBusy) {
			t.Errorf("cause %v", err)
		}
		// Whoever stops waiting leaves its place to another.
		leave()
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("left with %v", err)
		}
		synctest.Wait()
		go try(t.Context())
		synctest.Wait()
		if len(results) > 0 {
			t.Errorf("no place in the queue: %v", <-results)
		}
		// SCRAM does not stand in this queue.
		condition(t, (&client{mechanism: "SCRAM-SHA-256", user: testUser, password: testPassword}).run(t, start(t, a, "SCRAM-SHA-256", secured)), "")
		close(gate)
		for range 5 {
			condition(t, <-results, "")
		}
		cancel()
		if most != 2 {
			t.Errorf("%d at the same time, want 2", most)
		}
		if len(a.slots.taken) != 0 || a.slots.waiting.Load() != 0 {
			t.Errorf("%d slots taken, %d waiting", len(a.slots.taken), a.slots.waiting.Load())
		}
	})
}

func TestDefaultConfig(t *testing.T) {
	c := DefaultConfig()
	if c != c.clamp() {
		t.Errorf("defaults out of range: %+v", c)
	}
	if c.PlainConcurrency != runtime.NumCPU() || c.Iterations < 10000 { // XEP-0438 §7
		t.Errorf("%+v", c)
	}
}

// What another server knew of a password is taken only when it could be a verifier.
func TestVerifierCheck(t *testing.T) {
	all, err := MakeVerifiers("secret", MinIterations)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		if err := v.Check(); err != nil {
			t.Errorf("%s: %v", v.Mechanism, err)
		}
		for what, change := range map[string]func(*Verifier){
			"mechanism":        func(v *Verifier) { v.Mechanism += "-PLUS" },
			"few iterations":   func(v *Verifier) { v.Iterations = MinIterations - 1 },
			"many iterations":  func(v *Verifier) { v.Iterations = 1 << 30 },
			"no salt":          func(v *Verifier) { v.Salt = nil },
			"long salt":        func(v *Verifier) { v.Salt = make([]byte, 1<<20) },
			"short stored key": func(v *Verifier) { v.StoredKey = v.StoredKey[1:] },
			"no server key":    func(v *Verifier) { v.ServerKey = nil },
		} {
			bad := v
			if change(&bad); bad.Check() == nil {
				t.Errorf("%s with %s is taken", v.Mechanism, what)
			}
		}
	}
}
