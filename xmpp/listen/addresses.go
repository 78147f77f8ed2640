package listen

import (
	"net/netip"
	"sync"

	"balcony/xmpp"
)

// Addresses counts the connections of each address. The zero value is ready.
type Addresses struct {
	mu   sync.Mutex
	open map[netip.Addr]int // guarded by mu; by xmpp.Network
}

// Take counts a connection of an address, unless there are limit of them already; 0: no limit. Loopback, and a peer without an address, have
// none. What is taken is given back once.
func (a *Addresses) Take(addr netip.Addr, limit int) bool {
	from := xmpp.Network(addr)
	a.mu.Lock()
	defer a.mu.Unlock()
	if limit > 0 && from.IsValid() && !from.IsLoopback() && a.open[from] >= limit {
		return false
	}
	if a.open == nil {
		a.open = make(map[netip.Addr]int)
	}
	a.open[from]++
	return true
}

// Give is for a connection that has ended.
func (a *Addresses) Give(addr netip.Addr) {
	from := xmpp.Network(addr)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open[from]--; a.open[from] <= 0 {
		delete(a.open, from)
	}
}
