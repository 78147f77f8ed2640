package auth

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"balcony/xmpp"
)

// address is one of the addresses for documentation (RFC 5737).
func address(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}) }

// guess is a try that fails when it is let through; it returns how long it had to wait, -1 when it was refused.
func guess(b *backoff, remote netip.Addr, account string) time.Duration {
	t, wait, ok := b.begin(remote, account)
	if !ok {
		return -1
	}
	time.Sleep(wait)
	b.failed(t)
	return wait
}

// login is a try that succeeds when it is let through.
func login(b *backoff, remote netip.Addr, account string) time.Duration {
	t, wait, ok := b.begin(remote, account)
	if !ok {
		return -1
	}
	time.Sleep(wait)
	b.succeeded(t)
	return wait
}

func TestBackoffOfAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackoff(time.Minute, 10*time.Second)
		// Each time another account, so that only the address counts.
		account := 0
		next := func() time.Duration {
			account++
			return guess(b, address(1), string(rune('a'+account)))
		}
		var got []time.Duration
		for range freeAddress + 6 {
			got = append(got, next()/time.Second)
		}
		want := append(make([]time.Duration, freeAddress), 1, 2, 4, 8)
		if !slices.Equal(got[:len(want)], want) {
			t.Errorf("waits %v s, want %v s and then refusal", got, want)
		}
		for _, d := range got[len(want):] {
			if d != -1/time.Second {
				t.Errorf("waits %v s, want refusal at the end", got)
			}
		}
		if next() != -1 {
			t.Error("the interval is longer than a login waits, and the login was let through")
		}
		// Another address has nothing to do with it, and neither has the account.
		if d := login(b, address(2), "b"); d != 0 {
			t.Errorf("another address waits %v", d)
		}
		// It fades: a failure a minute.
		time.Sleep(time.Hour)
		if d := next(); d != 0 {
			t.Errorf("after an hour: %v", d)
		}
	})
}

// Tries at the same time are let through one after the other: a second connection is no second chance.
func TestBackoffOfParallelTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackoff(time.Minute, 10*time.Second)
		for i := range freeAddress + 1 {
			guess(b, address(1), string(rune('a'+i)))
		}
		var got []time.Duration
		for i := range 20 {
			_, wait, ok := b.begin(address(1), string(rune('A'+i)))
			if !ok {
				wait = -1
			}
			got = append(got, wait)
		}
		var let []time.Duration
		for _, d := range got {
			if d >= 0 {
				let = append(let, d)
			}
		}
		if len(let) > 6 || !slices.IsSorted(let) || len(slices.Compact(slices.Clone(let))) != len(let) {
			t.Errorf("20 tries at once: %v", got)
		}
	})
}

// Promise 29: strangers delay, and never lock out.
func TestStrangersLockNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackoff(time.Minute, 10*time.Second)
		home, elsewhere := address(1), address(2)
		if d := login(b, home, "juliet"); d != 0 {
			t.Fatalf("first login waits %v", d)
		}
		// Addresses that share a bucket by chance are left out: they may be refused for each other.
		used := map[*bucket]bool{b.bucket(b.hash('n', netip.Addr{}, "juliet")): true, b.bucket(b.hash('a', xmpp.Network(elsewhere), "")): true}
		for i := range 2000 { // a botnet
			own := b.bucket(b.hash('a', xmpp.Network(address(100+i)), ""))
			if used[own] {
				continue
			}
			used[own] = true
			tr, _, ok := b.begin(address(100+i), "juliet")
			if !ok {
				t.Fatal("a new address is refused for what others did")
			}
			b.failed(tr)
		}
		if d := login(b, home, "juliet"); d != 0 {
			t.Errorf("from home: waits %v", d)
		}
		if d := login(b, elsewhere, "juliet"); d < time.Second || d > 10*time.Second {
			t.Errorf("from a new address: waits %v, want some seconds", d)
		}
		if d := login(b, elsewhere, "juliet"); d != 0 {
			t.Errorf("from there again: waits %v", d)
		}
		if d := login(b, address(3), "romeo"); d != 0 {
			t.Errorf("another account waits %v", d)
		}
	})
}

// Who has logged in from an address is not kept out by a neighbour behind it.
func TestNeighbours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackoff(time.Minute, 10*time.Second)
		login(b, address(1), "juliet")
		for range 100 {
			guess(b, address(1), "romeo")
		}
		if d := guess(b, address(1), "tybalt"); d != -1 {
			t.Errorf("the address guesses and is let through after %v", d)
		}
		if d := login(b, address(1), "juliet"); d != 0 {
			t.Errorf("a neighbour waits %v", d)
		}
		// Guesses at that neighbour are counted by themselves, and held back too.
		for range freeAccount {
			guess(b, address(1), "juliet")
		}
		if d := guess(b, address(1), "juliet"); d <= 0 {
			t.Errorf("guesses at a neighbour wait %v", d)
		}
		if d := login(b, address(1), "juliet"); d > 10*time.Second || d < 0 {
			t.Errorf("then the neighbour waits %v", d)
		}
	})
}

// Loopback, and no address at all, are exempt from the part by address only.
func TestBackoffOfLoopback(t *testing.T) {
	for _, remote := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.1.2.3"), netip.MustParseAddr("::1"), netip.MustParseAddr("::ffff:127.0.0.1"), {}} {
		synctest.Test(t, func(t *testing.T) {
			b := newBackoff(time.Minute, 10*time.Second)
			for i := range 100 {
				if d := guess(b, remote, string(rune('a'+i))); d != 0 {
					t.Fatalf("%s: guess %d waits %v", remote, i, d)
				}
			}
			for range freeAccount {
				guess(b, remote, "juliet")
			}
			if d := guess(b, remote, "juliet"); d <= 0 || d > 10*time.Second {
				t.Errorf("%s: guesses at an account wait %v", remote, d)
			}
		})
	}
}

func TestNoBackoff(t *testing.T) {
	b := newBackoff(0, 10*time.Second)
	for range 1000 {
		if d := guess(b, address(1), "juliet"); d != 0 {
			t.Fatalf("waits %v", d)
		}
	}
	if b.buckets != nil || b.proven != nil {
		t.Error("memory for nothing")
	}
}

// Right passwords cost nothing, however many log in from one address at the same time.
func TestLoginsAreNotHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackoff(time.Minute, 10*time.Second)
		var open []try
		for i := range 1000 {
			tr, wait, ok := b.begin(address(1), string(rune('a'+i)))
			if wait != 0 || !ok {
				t.Fatalf("login %d waits %v, %t", i, wait, ok)
			}
			open = append(open, tr)
		}
		for _, tr := range open {
			b.succeeded(tr)
		}
	})
}

// The state does not grow with the number of addresses and accounts.
func TestBackoffIsBounded(t *testing.T) {
	b := newBackoff(time.Minute, 10*time.Second)
	size := len(b.buckets)*int(unsafe.Sizeof(bucket{})) + len(b.proven)*int(unsafe.Sizeof(uint64(0)))
	if size > 2<<20 {
		t.Errorf("%d bytes", size)
	}
	for i := range 20000 {
		tr, _, _ := b.begin(address(i), "account "+string(rune(i)))
		b.failed(tr)
	}
	if got := len(b.buckets)*int(unsafe.Sizeof(bucket{})) + len(b.proven)*int(unsafe.Sizeof(uint64(0))); got != size {
		t.Errorf("grew from %d to %d bytes", size, got)
	}
	for i := range b.buckets {
		if b.buckets[i].faded > time.Since(b.start)+time.Hour {
			t.Fatalf("failures are remembered for %v", b.buckets[i].faded)
		}
	}
}

// The exchanges themselves: what is counted, and what the client is told.
func TestBackoffOfExchanges(t *testing.T) {
	for _, mechanism := range []string{"SCRAM-SHA-256", "PLAIN"} {
		t.Run(mechanism, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, _ := newTest(t, func(c *Config) { c.Delay = time.Minute })
				from := func(remote netip.Addr) Channel { return Channel{TLS: secured.TLS, Remote: remote} }
				try := func(ctx context.Context, remote netip.Addr, user, password string) (time.Duration, error) {
					began := time.Now()
					e := start(t, a, mechanism, from(remote))
					c := &client{mechanism: mechanism, user: user, password: password}
					var err error
					if mechanism == "PLAIN" {
						_, _, err = e.Step(ctx, plainMessage("", user, password), true)
					} else {
						challenge, _, err1 := e.Step(ctx, []byte(c.first()), true)
						condition(t, err1, "")
						final, err1 := c.final(string(challenge))
						condition(t, err1, "")
						_, _, err = e.Step(ctx, []byte(final), true)
					}
					return time.Since(began), err
				}
				wantTry := func(remote netip.Addr, user, password, want string, least, most time.Duration) {
					t.Helper()
					took, err := try(t.Context(), remote, user, password)
					condition(t, err, want)
					if took < least || took > most {
						t.Errorf("took %v, want %v to %v", took, least, most)
					}
				}
				for range freeAccount {
					wantTry(address(1), testUser, "wrong", "not-authorized", 0, 0)
				}
				wantTry(address(1), testUser, "wrong", "not-authorized", time.Second, time.Second)
				// The right password waits as long as a wrong one would, from another address too.
				wantTry(address(2), testUser, testPassword, "", 2*time.Second, 2*time.Second)
				wantTry(address(2), testUser, testPassword, "", 0, 0)
				// An account that does not exist is held back like any other.
				for range freeAccount {
					wantTry(address(3), "nobody", "wrong", "not-authorized", 0, 0)
				}
				wantTry(address(3), "nobody", "wrong", "not-authorized", time.Second, time.Second)
				// The client that goes away does not keep the wait alive.
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				defer cancel()
				took, err := try(ctx, address(4), "nobody", "wrong")
				if !errors.Is(err, context.DeadlineExceeded) || took != time.Millisecond {
					t.Errorf("ended by %v after %v", err, took)
				}
				// An address that goes on guessing is told so, whatever it guesses.
				for i := range 30 {
					_, _ = try(t.Context(), address(5), string(rune('a'+i%26)), "wrong")
				}
				took, err = try(t.Context(), address(5), "zoe", "wrong")
				condition(t, err, "temporary-auth-failure")
				var f Failure
				if took != 0 || !errors.As(err, &f) || f.Text == "" {
					t.Errorf("took %v, text %q", took, f.Text)
				}
			})
		})
	}
}

// What is no guess of a password is not counted.
func TestMessagesThatAreNoGuess(t *testing.T) {
	a, _ := newTest(t, func(c *Config) { c.Delay = time.Minute })
	ch := Channel{TLS: secured.TLS, Remote: address(1)}
	for range 50 {
		for _, message := range []string{"", "n,,n=user", "n,a=juliet@example.org,n=user,r=abc", "n,,n=us er,r=abc", "n,,n=user,r=abc"} {
			e := start(t, a, "SCRAM-SHA-256", ch)
			if _, _, err := e.Step(t.Context(), []byte(message), true); err == nil {
				_, _, err = e.Step(t.Context(), []byte("nonsense"), true)
				condition(t, err, "malformed-request")
			}
		}
	}
	for i := range a.backoff.buckets {
		if a.backoff.buckets[i].faded != 0 {
			t.Fatal("a failure was counted")
		}
	}
}
