// Package c2s is the clients' side of the server: listeners, stream negotiation (RFC 6120 §4 to §7, RFC 7590, XEP-0368), and sessions that
// read stanzas, stamp them and hand them to the router.
package c2s

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/listen"
	"balcony/xmpp/router"

	"github.com/prometheus/client_golang/prometheus"
	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

// Certificates gives TLS to connections.
type Certificates interface {
	// ServerConfig is the configuration for a domain; the empty domain leaves the choice to SNI.
	ServerConfig(domain string, alpn ...string) *tls.Config
	// Leaf is the certificate that a client which asked for name is shown.
	Leaf(name string) *x509.Certificate
}

// Registration is in-band registration on a stream that has not authenticated (XEP-0077 §3.1).
type Registration interface {
	// StreamFeature is the feature to announce, nil when the domain does not allow registration.
	StreamFeature(domain string) *xmpp.Element
	// Unauthenticated answers an IQ of jabber:iq:register.
	Unauthenticated(ctx context.Context, domain string, remote netip.Addr, iq *xmpp.Stanza) (*xmpp.Element, error)
}

// Server is all client connections of a server.
type Server struct {
	// Static after New.
	router   *router.Router
	auth     *auth.Authenticator
	certs    Certificates
	reg      Registration // nil: none
	sessions Sessions
	// returning holds the messages to an account, except those that come back from a session, until the returned function is called; nil: none.
	returning func(account jid.JID) (done func())
	// held hears of messages that a client may not have got after all, restored of a restored session and those that it has for its client.
	held     func(account jid.JID, order int64)
	restored func(s xmpp.Session, orders []int64)
	// missed and returned hear of sessions that nobody looks at.
	missed   func(xmpp.Session, *xmpp.Stanza)
	returned func(xmpp.Session)
	log      *slog.Logger
	metrics  *metrics
	nextID   atomic.Uint64
	rests    atomic.Uint64
	config   atomic.Pointer[Config]
	offers   offers

	listeners *listen.Listeners

	ctx    context.Context // ends when the server begins to close
	cancel context.CancelFunc
	work   context.Context // ends when the last connection has ended, or was given up
	stop   context.CancelFunc
	conns  sync.WaitGroup

	mu sync.Mutex
	// Guarded by mu.
	open      map[*conn]struct{}
	resumable map[string]*session // by SM-ID
	ended     []endedSession      // the latest last
	closing   bool
}

// New makes a server without listeners.
func New(cfg Config, r *router.Router, a *auth.Authenticator, certs Certificates, reg Registration, sessions Sessions, metrics prometheus.Registerer, log *slog.Logger) *Server {
	s := &Server{router: r, auth: a, certs: certs, reg: reg, sessions: sessions, log: log,
		held: func(jid.JID, int64) {}, restored: func(xmpp.Session, []int64) {}, missed: func(xmpp.Session, *xmpp.Stanza) {}, returned: func(xmpp.Session) {},
		listeners: listen.New(log), open: make(map[*conn]struct{}), resumable: make(map[string]*session)}
	s.SetConfig(cfg)
	s.metrics = newMetrics(metrics, s)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.work, s.stop = context.WithCancel(context.Background())
	s.conns.Add(1)
	go s.watch()
	return s
}

// SetReturning sets who keeps new messages behind those that a session which ends sends back; before the first connection.
func (s *Server) SetReturning(f func(account jid.JID) (done func())) { s.returning = f }

// SetHeld sets who hears of messages with an Order that a session has for its client although nobody else knows: of one when it cannot be told whether
// the client has got what was written, and of all that a restored session has; before Restore.
func (s *Server) SetHeld(held func(account jid.JID, order int64), restored func(s xmpp.Session, orders []int64)) {
	s.held, s.restored = held, restored
}

// SetAway sets who hears of stanzas for sessions that are not looked at, because the connection is lost or the client inactive, and of their
// return; before the first connection. Neither may block.
func (s *Server) SetAway(missed func(xmpp.Session, *xmpp.Stanza), returned func(xmpp.Session)) {
	s.missed, s.returned = missed, returned
}

// Freed is the number of connections accepted, and of sessions that went on with a smaller stack, so far: each leaves memory behind.
func (s *Server) Freed() uint64 { return s.nextID.Load() + s.rests.Load() }

// Open is the number of connections.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// SetConfig changes the limits of connections that are accepted from now on.
func (s *Server) SetConfig(cfg Config) {
	s.config.Store(&cfg)
	s.listeners.SetProxies(cfg.Proxies)
}

// Mode is how TLS begins on a listener.
type Mode uint8

const (
	// STARTTLS is RFC 6120 §5.
	STARTTLS Mode = iota
	// DirectTLS is XEP-0368.
	DirectTLS
)

// ALPN is the ALPN protocol of client streams (XEP-0368 §4).
const ALPN = "xmpp-client"

// Serve accepts connections until l is closed. It returns nil after Shutdown.
func (s *Server) Serve(l net.Listener, mode Mode) error {
	return s.listeners.Serve(l, func(tcp *net.TCPConn, remote netip.AddrPort) { s.accept(tcp, remote.Addr(), mode) })
}

func (s *Server) accept(tcp *net.TCPConn, remote netip.Addr, mode Mode) {
	sock, err := newSocket(tcp)
	if err != nil {
		_ = tcp.Close()
		return
	}
	c := s.newConn(remote)
	c.sock, c.mode = sock, mode
	ok, full := s.admit(c)
	if !ok {
		if full {
			c.refuse(streamerr.PolicyViolation)
		}
		_ = tcp.Close()
		return
	}
	go c.serve()
}

func (s *Server) newConn(remote netip.Addr) *conn {
	c := &conn{server: s, cfg: s.config.Load(), remote: remote, since: time.Now(), done: make(chan struct{})}
	c.id, c.log = s.nextID.Add(1), newLog(c)
	return c
}

// admit counts a new connection, unless the server stops or the address has too many.
func (s *Server) admit(c *conn) (ok, full bool) {
	if !s.listeners.Take(c.remote, c.cfg.ConnectionsPerAddress) {
		s.metrics.refused.Inc()
		return false, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		s.listeners.Give(c.remote)
		return false, false
	}
	s.open[c] = struct{}{}
	s.conns.Add(1)
	return true, false
}

// gone is called by a connection that has ended, once.
func (s *Server) gone(c *conn) {
	s.listeners.Give(c.remote)
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
	s.conns.Done()
}

// Shutdown stops accepting, ends every stream with <system-shutdown/>, waits for them until ctx is done, and saves the sessions that can be
// resumed.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.listeners.Close()
	s.mu.Lock()
	s.closing = true
	open := make([]*conn, 0, len(s.open))
	for c := range s.open {
		open = append(open, c)
	}
	s.mu.Unlock()
	s.cancel()
	for _, c := range open {
		c.Close(streamerr.SystemShutdown)
	}
	listen.Wait(ctx, &s.conns, func() {
		s.stop()
		s.mu.Lock()
		for c := range s.open {
			c.cut()
		}
		s.mu.Unlock()
	})
	// Sessions that wait for their client go on in the next process, or end here.
	s.park(ctx)
	for _, sess := range s.expired(time.Now().Add(1000 * time.Hour)) {
		sess.end()
	}
	s.stop()
	return err
}

// watch finds dead peers and ends sessions that nobody resumes: one goroutine for all, no timer each.
func (s *Server) watch() {
	defer s.conns.Done()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-s.ctx.Done():
			return
		case now := <-tick.C:
			for _, sess := range s.expired(now) {
				s.conns.Go(sess.end)
			}
			if n%int(checkEvery/time.Second) != 0 {
				continue
			}
			s.mu.Lock()
			open := make([]*conn, 0, len(s.open))
			for c := range s.open {
				open = append(open, c)
			}
			s.mu.Unlock()
			for _, c := range open {
				c.check(now)
			}
		}
	}
}

type metrics struct {
	auth    *prometheus.CounterVec
	refused prometheus.Counter
	closed  *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, s *Server) *metrics {
	m := &metrics{
		auth: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "balcony_auth_total",
			Help: "Authentication attempts of clients, by mechanism and result (success or the SASL failure condition)."}, []string{"mechanism", "result"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "balcony_c2s_refused_total",
			Help: "Client connections refused because their address had too many."}),
		closed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "balcony_c2s_closed_total",
			Help: "Client connections closed, by reason."}, []string{"reason"}),
	}
	connections := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "balcony_c2s_connections", Help: "Open client connections."}, func() float64 { return float64(s.Open()) })
	queued := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "balcony_c2s_queue_bytes", Help: "Bytes that wait to be written to clients."}, func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		n := 0
		for c := range s.open {
			if o := c.out.Load(); o != nil {
				n += o.bytes()
			}
		}
		return float64(n)
	})
	reg.MustRegister(m.auth, m.refused, m.closed, connections, queued)
	return m
}
