package web

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"

	"balcony/xmpp/listen"

	"github.com/pires/go-proxyproto"
)

// Policy is whom the server believes and whom it lets in; it can change while it runs.
type Policy struct {
	// Proxies are the addresses whose word counts about the client: X-Forwarded-For, X-Forwarded-Proto, and the PROXY protocol.
	Proxies []netip.Prefix
	// Metrics are the addresses that may read /metrics.
	Metrics []netip.Prefix
	// Origins are the web origins whose pages may use the streams: "https://example.org", "https://*.example.org", or "*" for all.
	Origins []string
}

// Loopback are the addresses of this machine.
func Loopback() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

// client is who sent a request.
type client struct {
	addr    netip.Addr
	secure  bool // nobody else can read what it sends and gets
	proxied bool // another program stands between, which ends the client's TLS if there is one
}

type peerKey struct{}

// peer is what there is one of for all requests of a connection.
type peer struct {
	addr    netip.Addr   // that it really comes from: RemoteAddr may be what the PROXY protocol says
	reading atomic.Int32 // requests of BOSH whose body is on its way
}

func remember(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, &peer{addr: address(beneath(c).RemoteAddr())})
}

// peerOf returns the peer that sent r; one that nobody else shares for a request without a connection.
func peerOf(r *http.Request) *peer {
	if p, ok := r.Context().Value(peerKey{}).(*peer); ok {
		return p
	}
	return new(peer)
}

// under is the connection that c was put around, nil for none.
func under(c net.Conn) net.Conn {
	switch v := c.(type) {
	case *tls.Conn:
		return v.NetConn()
	case *behind:
		return v.Conn
	case *proxyproto.Conn:
		return v.Raw()
	case *conn:
		return v.Conn
	}
	return nil
}

// beneath is the connection that the listener accepted, or what Config.Wrap made of it, under everything that was put around it.
func beneath(c net.Conn) net.Conn {
	for u := under(c); u != nil; u = under(c) {
		c = u
	}
	return c
}

// counted is the connection that the listener has counted, under everything that was put around it.
func counted(c net.Conn) *conn {
	for ; c != nil; c = under(c) {
		if v, ok := c.(*conn); ok {
			return v
		}
	}
	return nil
}

// address is the IP address of a connection's end, the zero Addr for one that has none.
func address(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// client finds out who sent r. What a header says counts only from a trusted proxy.
func (s *Server) client(r *http.Request) client {
	peer := peerOf(r).addr
	c := client{addr: peer}
	if remote, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		c.addr = remote.Addr().Unmap() // the PROXY protocol's word
	}
	// The machine's own, unless it only passes on what came from elsewhere.
	c.secure = r.TLS != nil || peer.IsLoopback() && c.addr.IsLoopback()
	proxies := s.policy.Load().Proxies
	if !listen.Contains(proxies, peer) {
		return c
	}
	forwarded := strings.Join(r.Header.Values("X-Forwarded-For"), ",")
	proto := r.Header.Get("X-Forwarded-Proto")
	if forwarded == "" && proto == "" {
		return c
	}
	c.proxied = true
	// The last address that is no proxy of ours: what stands before it was written by whoever it belongs to. So was the whole header, if the
	// PROXY protocol says that the connection itself is a client's.
	for list := strings.Split(forwarded, ","); len(list) > 0 && listen.Contains(proxies, c.addr); list = list[:len(list)-1] {
		a, err := netip.ParseAddr(strings.TrimSpace(list[len(list)-1]))
		if err != nil {
			break
		}
		c.addr = a.Unmap()
	}
	// A proxy that does not say how the client reached it may have been reached in clear.
	c.secure = strings.EqualFold(proto, "https") || strings.EqualFold(proto, "wss")
	return c
}

// allowed reports whether a page of that origin may use the streams. Without an origin it is no page: a browser always sends it (RFC 6455
// §10.2, Fetch §3.2).
func (s *Server) allowed(origin string) bool {
	if origin == "" {
		return true
	}
	for _, o := range s.policy.Load().Origins {
		if o == "*" || strings.EqualFold(o, origin) {
			return true
		}
		// "https://*.example.org" is every host below example.org.
		if scheme, domain, ok := strings.Cut(o, "://*."); ok {
			rest, ok := strings.CutPrefix(strings.ToLower(origin), strings.ToLower(scheme)+"://")
			if host, found := strings.CutSuffix(rest, "."+strings.ToLower(domain)); ok && found && host != "" && !strings.ContainsAny(host, "/@?#:") {
				return true
			}
		}
	}
	return false
}
