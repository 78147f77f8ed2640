package register

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"balcony/xmpp"
)

const (
	window      = time.Hour
	allAccounts = 1000 // chosen: accounts from all addresses together in an hour
	triesEach   = 10   // chosen: tries for each account that an address may make; names that are taken cost a try
)

// limiter bounds registrations per address and of all addresses together. It remembers the tries of the last hour, never more than
// all*triesEach of them.
type limiter struct {
	perHour int // for one address; 0: any number
	all     int // for all addresses together

	mu    sync.Mutex
	tries []*try // guarded by mu, in the order of time
}

type try struct {
	from netip.Addr
	at   time.Time
	made bool // an account was made, or is being made
}

// begin reports whether remote may try to register now. done is called with the result.
func (l *limiter) begin(remote netip.Addr, now time.Time) (done func(made bool), ok bool) {
	if l.perHour <= 0 || remote.IsLoopback() {
		return func(bool) {}, true
	}
	t := &try{from: xmpp.Network(remote), at: now, made: true}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tries = slices.DeleteFunc(l.tries, func(o *try) bool { return now.Sub(o.at) >= window })
	made, total, mine := 0, 0, 0
	for _, o := range l.tries {
		if o.made {
			total++
		}
		if o.from == t.from {
			mine++
			if o.made {
				made++
			}
		}
	}
	if made >= l.perHour || mine >= l.perHour*triesEach || total >= l.all || len(l.tries) >= l.all*triesEach {
		return nil, false
	}
	l.tries = append(l.tries, t)
	return func(made bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		t.made = made
	}, true
}
