package register

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLimiterCountsAccounts(t *testing.T) {
	l := limiter{perHour: 2, all: 100}
	now := time.Unix(1_000_000, 0)
	begin := func(addr string, made, want bool) {
		t.Helper()
		done, ok := l.begin(netip.MustParseAddr(addr), now)
		if ok != want {
			t.Errorf("%s: %v, want %v", addr, ok, want)
		}
		if ok {
			done(made)
		}
	}
	begin("192.0.2.1", true, true)
	begin("192.0.2.1", false, true) // a name that is taken
	begin("192.0.2.1", true, true)
	begin("192.0.2.1", true, false)
	begin("192.0.2.2", true, true)         // another address
	begin("::ffff:192.0.2.1", true, false) // the same one
	begin("2001:db8::1", true, true)
	begin("2001:db8::2", true, true) // the same network
	begin("2001:db8::3", true, false)
	begin("2001:db8:0:1::1", true, true)
	for range 10 {
		begin("127.0.0.1", true, true)
		begin("::1", true, true)
	}
	now = now.Add(window)
	begin("192.0.2.1", true, true)
	if len(l.tries) != 1 {
		t.Errorf("%d tries are remembered after an hour", len(l.tries))
	}
}

func TestLimiterCountsWhatIsUnderWay(t *testing.T) {
	l := limiter{perHour: 1, all: 100}
	now := time.Unix(1_000_000, 0)
	done, _ := l.begin(peer, now)
	if _, ok := l.begin(peer, now); ok {
		t.Error("two accounts at a time")
	}
	done(false)
	if _, ok := l.begin(peer, now); !ok {
		t.Error("the one that failed counts")
	}
}

func TestLimiterBoundsTries(t *testing.T) {
	l := limiter{perHour: 1, all: 100}
	n := 0
	for range 100 {
		if done, ok := l.begin(peer, time.Unix(1_000_000, 0)); ok {
			done(false)
			n++
		}
	}
	if n != triesEach {
		t.Errorf("%d tries, want %d", n, triesEach)
	}
}

func TestLimiterOff(t *testing.T) {
	l := limiter{}
	for range 2 * allAccounts {
		if _, ok := l.begin(peer, time.Unix(1_000_000, 0)); !ok {
			t.Fatal("refused")
		}
	}
}

// From however many addresses, the number of accounts and the memory stay bounded.
func TestLimiterBoundsAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := limiter{perHour: rapid.IntRange(1, 10).Draw(t, "perHour"), all: 20}
		now := time.Unix(1_000_000, 0)
		made := 0
		addr := netip.MustParseAddr("198.18.0.0")
		for range rapid.IntRange(1, 500).Draw(t, "tries") {
			if rapid.Bool().Draw(t, "next address") {
				addr = addr.Next()
			}
			done, ok := l.begin(addr, now)
			if !ok {
				continue
			}
			success := rapid.Bool().Draw(t, "success")
			done(success)
			if success {
				made++
			}
		}
		if made > l.all || len(l.tries) > l.all*triesEach {
			t.Fatalf("%d accounts, %d tries", made, len(l.tries))
		}
	})
}
