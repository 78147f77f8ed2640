package web

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"balcony/xmpp/listen"

	"github.com/pires/go-proxyproto"
)

// take counts a connection of an address; false when it has too many.
func (s *Server) take(addr netip.Addr) bool { return s.addresses.Take(addr, int(s.limit.Load())) }

// listener accepts connections for HTTP: it refuses those of addresses that have too many, and reads the PROXY protocol where a proxy may
// speak it.
func (s *Server) listener(l net.Listener) net.Listener { return &listener{l, s} }

type listener struct {
	net.Listener
	s *Server
}

// Accept returns the next connection that is not one too many; those it closes.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		addr := address(c.RemoteAddr())
		proxy := listen.Contains(l.s.policy.Load().Proxies, addr) // it carries the connections of others, whose addresses are counted behind it
		if !proxy && !l.s.take(addr) {
			_ = c.Close()
			continue
		}
		free := func() {}
		if !proxy {
			free = sync.OnceFunc(func() { l.s.addresses.Give(addr) })
		}
		if tcp, ok := c.(*net.TCPConn); ok && l.s.cfg.Wrap != nil {
			if c, err = l.s.cfg.Wrap(tcp); err != nil {
				free()
				_ = tcp.Close()
				continue
			}
		}
		c = &conn{Conn: c, free: free}
		if proxy {
			c = &behind{s: l.s, peer: addr,
				Conn: proxyproto.NewConn(c, proxyproto.WithPolicy(proxyproto.USE), proxyproto.SetReadHeaderTimeout(max(l.s.cfg.HeaderTimeout, time.Millisecond)))}
		}
		return c, nil
	}
}

var errTooMany = errors.New("too many connections of the address behind the proxy")

// behind is a connection that a proxy may have passed on. It is counted when the PROXY protocol has said for whom, with the first Read.
type behind struct {
	net.Conn // a *proxyproto.Conn
	s        *Server
	peer     netip.Addr
	first    sync.Once
	refused  error // static after first

	mu sync.Mutex
	// Guarded by mu.
	counted netip.Addr // the zero Addr: it is not
	closed  bool
}

func (b *behind) Read(p []byte) (int, error) {
	b.first.Do(b.count)
	if b.refused != nil {
		return 0, b.refused
	}
	return b.Conn.Read(p)
}

func (b *behind) count() {
	addr := address(b.RemoteAddr())
	if addr == b.peer || !addr.IsValid() || listen.Contains(b.s.policy.Load().Proxies, addr) {
		return // of a proxy, which carries those of others
	}
	if !b.s.take(addr) {
		b.refused = errTooMany
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		b.s.addresses.Give(addr)
		return
	}
	b.counted = addr
}

func (b *behind) Close() error {
	b.mu.Lock()
	b.closed = true
	if b.counted.IsValid() {
		b.s.addresses.Give(b.counted)
		b.counted = netip.Addr{}
	}
	b.mu.Unlock()
	return b.Conn.Close()
}

// conn is a connection that was counted.
type conn struct {
	net.Conn
	free func()
	// Owned by the goroutine that reads: what may still be read, when it is bounded.
	bounded bool
	left    int
}

var errHandshake = errors.New("the TLS handshake is too large")

func (c *conn) Read(p []byte) (int, error) {
	if !c.bounded {
		return c.Conn.Read(p)
	}
	if c.left <= 0 {
		return 0, errHandshake
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

func (c *conn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
