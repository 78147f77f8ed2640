package listen

import (
	"context"
	"sync"
	"time"
)

// Bucket holds what a peer may send at once: the bytes of one second at its rate, which it gets back as time goes by. Nothing is ever dropped: who
// waits does not read, and TCP slows the peer down. The zero value is full.
type Bucket struct {
	mu   sync.Mutex
	left float64   // guarded by mu: negative until what was read ahead of the rate is made up for
	last time.Time // guarded by mu
}

// Wait takes n bytes that were read out of the bucket, and waits for as long as they are more than rate, in bytes per second, allows; 0: no limit. It
// reports whether it had to wait; that ends when ctx does.
func (b *Bucket) Wait(ctx context.Context, n, rate int) bool {
	pause := b.spend(n, rate)
	if pause > 0 {
		Pause(ctx, pause)
	}
	return pause > 0
}

// spend takes n bytes out and returns how long the reader has to wait for it.
func (b *Bucket) spend(n, rate int) time.Duration {
	if rate <= 0 || n == 0 {
		return 0
	}
	now, r := time.Now(), float64(rate)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = min(r, b.left+now.Sub(b.last).Seconds()*r) - float64(n)
	b.last = now
	if b.left >= 0 {
		return 0
	}
	return time.Duration(-b.left / r * float64(time.Second))
}

// Full reports whether the bucket is as good as a new one.
func (b *Bucket) Full(now time.Time, rate int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := float64(rate)
	return rate <= 0 || b.left+now.Sub(b.last).Seconds()*r >= r
}

// Pause waits for d, unless ctx ends before: false.
func Pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
