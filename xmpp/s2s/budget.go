package s2s

import (
	"sync"
	"time"

	"balcony/xmpp/listen"
)

// budget is what a domain may send, over all of its streams.
type budget struct {
	listen.Bucket
	of    *budgets
	users int // guarded by of.mu
}

// budgets are those of the domains that have streams, or had until their buckets are full again.
type budgets struct {
	mu sync.Mutex
	by map[string]*budget // guarded by mu
}

func (b *budgets) get(domain string) *budget {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.by == nil {
		b.by = make(map[string]*budget)
	}
	one := b.by[domain]
	if one == nil {
		one = &budget{of: b}
		b.by[domain] = one
	}
	one.users++
	return one
}

func (b *budget) release() {
	b.of.mu.Lock()
	defer b.of.mu.Unlock()
	b.users--
}

// sweep forgets the domains without streams whose buckets are full: a new one would be the same.
func (b *budgets) sweep(now time.Time, rate int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for domain, one := range b.by {
		if one.users == 0 && one.Full(now, rate) {
			delete(b.by, domain)
		}
	}
}
