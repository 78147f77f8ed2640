package auth

import (
	"context"
	"hash/maphash"
	"math/bits"
	"net/netip"
	"sync"
	"time"

	"balcony/xmpp"
)

// Of the back-off; RFC 6120 §6.4.5 bounds the tries on one stream only. All chosen.
const (
	fadeTime    = time.Minute // a failure is forgotten after it, one after the other
	freeAddress = 10          // failures remembered of an address before it has to wait: many people share addresses
	freeAccount = 5           // the same of an account: as many as one stream may try
	bucketBits  = 16          // 65,536 buckets of 16 bytes: 1 MiB, which is only touched where logins failed
	provenBits  = 15          // 32,768 pairs of 8 bytes
)

// backoff spaces out tries after failed ones: those from an address, and those for an account.
//
// Strangers must not lock an account out, so a try is held back for a bounded time only because others failed for that account, and
// those from an address that has logged into the account before are counted by themselves: neither what strangers do to the account nor
// what neighbours behind the same address do elsewhere counts there. An address that guesses gets its tries one after the other, at
// growing intervals, and is refused beyond that.
//
// Its memory is fixed. Addresses and accounts are found by a keyed hash in an array, so two may share a bucket; nobody can choose which.
type backoff struct {
	// Static after construction.
	longest time.Duration // the longest interval, 0: no back-off
	wait    time.Duration // the longest time that a try is held back
	start   time.Time
	seed    maphash.Seed

	// Guarded by mu.
	mu      sync.Mutex
	buckets []bucket
	proven  []uint64 // hashes of pairs of address and account that have logged in, each at its place
}

// bucket remembers the failures of one address, one account or one pair of them. Its times count from backoff.start.
type bucket struct {
	faded time.Duration // when all failures are forgotten
	last  time.Duration // when the last try was let through
}

// failures is how many failures the bucket remembers.
func (k *bucket) failures(now time.Duration) int {
	if k.faded <= now {
		return 0
	}
	return int((k.faded - now + fadeTime - 1) / fadeTime)
}

// next is when the next try may be let through: at once while there are fewer than free failures, then an interval after the last one
// that doubles with each further failure.
func (k *bucket) next(now time.Duration, free int, longest time.Duration) time.Duration {
	n := k.failures(now) - free
	if n < 0 {
		return now
	}
	return max(now, k.last+min(time.Second<<n, longest))
}

// fail remembers one more failure, up to as many as give the longest interval.
func (k *bucket) fail(now time.Duration, free int, longest time.Duration) {
	most := free + bits.Len64(uint64(longest/time.Second))
	k.faded = min(max(k.faded, now)+fadeTime, now+time.Duration(most)*fadeTime)
}

// try is one try to log in.
type try struct {
	address *bucket // nil when no address counts
	account *bucket // of the account, or of the pair of address and account when that has logged in before; nil without back-off
	pair    uint64
}

func newBackoff(longest, wait time.Duration) *backoff {
	b := &backoff{longest: longest, wait: wait, start: time.Now(), seed: maphash.MakeSeed()}
	if longest > 0 {
		b.buckets = make([]bucket, 1<<bucketBits)
		b.proven = make([]uint64, 1<<provenBits)
	}
	return b
}

// begin registers a try. It may go on after wait; not at all when ok is false. failed and succeeded take the try when it is over; a try
// that ends in neither way costs nothing.
func (b *backoff) begin(remote netip.Addr, account string) (t try, wait time.Duration, ok bool) {
	if b.longest == 0 {
		return t, 0, true
	}
	remote = xmpp.Network(remote)
	t.pair = b.hash('p', remote, account)
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Since(b.start)
	first := now
	if b.proven[t.pair%uint64(len(b.proven))] == t.pair {
		t.account = b.bucket(t.pair)
	} else {
		t.account = b.bucket(b.hash('n', netip.Addr{}, account))
		if remote.IsValid() && !remote.IsLoopback() {
			t.address = b.bucket(b.hash('a', remote, ""))
		}
	}
	if t.address != nil {
		first = t.address.next(now, freeAddress, b.longest)
		if first > now+b.wait {
			return t, 0, false
		}
		t.address.last = first
	}
	first = max(first, min(t.account.next(now, freeAccount, b.longest), now+b.wait))
	t.account.last = max(t.account.last, first)
	return t, first - now, true
}

// failed remembers that a try showed a wrong password.
func (b *backoff) failed(t try) {
	if t.account == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Since(b.start)
	t.account.fail(now, freeAccount, b.longest)
	if t.address != nil {
		t.address.fail(now, freeAddress, b.longest)
	}
}

// succeeded remembers that the account logs in from this address.
func (b *backoff) succeeded(t try) {
	if t.account == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.proven[t.pair%uint64(len(b.proven))] = t.pair
}

func (b *backoff) bucket(hash uint64) *bucket { return &b.buckets[hash%uint64(len(b.buckets))] }

func (b *backoff) hash(kind byte, remote netip.Addr, account string) uint64 {
	var h maphash.Hash
	h.SetSeed(b.seed)
	h.WriteByte(kind) // maphash never fails
	bytes := remote.As16()
	h.Write(bytes[:])
	h.WriteString(account)
	return h.Sum64()
}

// sleep waits for d, or returns the error of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
