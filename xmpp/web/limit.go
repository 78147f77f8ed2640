package web

import (
	"net"
	"net/netip"
	"sync"
)

// addressLimit counts the connections of each address over several listeners.
type addressLimit struct {
	mu sync.Mutex
	// Guarded by mu.
	limit int // 0: no limit
	open  map[netip.Addr]int
}

func newAddressLimit(limit int) *addressLimit {
	return &addressLimit{limit: limit, open: make(map[netip.Addr]int)}
}

// listener refuses connections of addresses that have too many.
func (a *addressLimit) listener(l net.Listener) net.Listener { return &limitedListener{l, a} }

type limitedListener struct {
	net.Listener
	*addressLimit
}

// Accept returns the next connection that is not one too many; those it closes.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp, ok := c.RemoteAddr().(*net.TCPAddr)
		if !ok {
			return c, nil // a unix socket has no address
		}
		addr := tcp.AddrPort().Addr().Unmap()
		if l.take(addr) {
			return &limitedConn{Conn: c, free: sync.OnceFunc(func() { l.give(addr) })}, nil
		}
		_ = c.Close()
	}
}

func (a *addressLimit) set(limit int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.limit = limit
}

func (a *addressLimit) take(addr netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.limit > 0 && a.open[addr] >= a.limit && !addr.IsLoopback() {
		return false
	}
	a.open[addr]++
	return true
}

func (a *addressLimit) give(addr netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open[addr]--; a.open[addr] <= 0 {
		delete(a.open, addr)
	}
}

type limitedConn struct {
	net.Conn
	free func()
}

func (c *limitedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
