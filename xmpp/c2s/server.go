// Package c2s is the clients' side of the server: listeners, stream negotiation (RFC 6120 §4 to §7, RFC 7590, XEP-0368), and sessions that
// read stanzas, stamp them and hand them to the router.
package c2s

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/auth"
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
	// missed and returned hear of sessions that nobody looks at.
	missed   func(xmpp.Session, *xmpp.Stanza)
	returned func(xmpp.Session)
	log      *slog.Logger
	metrics  *metrics
	nextID   atomic.Uint64
	config   atomic.Pointer[Config]

	ctx    context.Context // ends when the server begins to close
	cancel context.CancelFunc
	work   context.Context // ends when the last connection has ended, or was given up
	stop   context.CancelFunc
	conns  sync.WaitGroup

	mu sync.Mutex
	// Guarded by mu.
	open      map[*conn]struct{}
	addresses map[netip.Addr]int
	listeners map[net.Listener]struct{}
	resumable map[string]*session // by SM-ID
	ended     []endedSession      // the latest last
	closing   bool
}

// New makes a server without listeners.
func New(cfg Config, r *router.Router, a *auth.Authenticator, certs Certificates, reg Registration, sessions Sessions, metrics prometheus.Registerer, log *slog.Logger) *Server {
	s := &Server{router: r, auth: a, certs: certs, reg: reg, sessions: sessions, log: log,
		missed: func(xmpp.Session, *xmpp.Stanza) {}, returned: func(xmpp.Session) {},
		open: make(map[*conn]struct{}), addresses: make(map[netip.Addr]int), listeners: make(map[net.Listener]struct{}),
		resumable: make(map[string]*session)}
	s.config.Store(&cfg)
	s.metrics = newMetrics(metrics, s)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.work, s.stop = context.WithCancel(context.Background())
	s.conns.Add(1)
	go s.watch()
	return s
}

// SetReturning sets who keeps new messages behind those that a session which ends sends back; before the first connection.
func (s *Server) SetReturning(f func(account jid.JID) (done func())) { s.returning = f }

// SetAway sets who hears of stanzas for sessions that are not looked at, because the connection is lost or the client inactive, and of their
// return; before the first connection. Neither may block.
func (s *Server) SetAway(missed func(xmpp.Session, *xmpp.Stanza), returned func(xmpp.Session)) {
	s.missed, s.returned = missed, returned
}

// Accepted is the number of connections accepted so far.
func (s *Server) Accepted() uint64 { return s.nextID.Load() }

// SetConfig changes the limits of connections that are accepted from now on.
func (s *Server) SetConfig(cfg Config) { s.config.Store(&cfg) }

// Mode is how TLS begins on a listener.
type Mode uint8

const (
	// STARTTLS is RFC 6120 §5.
	STARTTLS Mode = iota
	// DirectTLS is XEP-0368.
	DirectTLS
)

// alpnClient is the ALPN protocol of client streams (XEP-0368 §4).
const alpnClient = "xmpp-client"

// Serve accepts connections until l is closed. It returns nil after Shutdown.
func (s *Server) Serve(l net.Listener, mode Mode) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return l.Close()
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	pause := time.Duration(0)
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			// Out of file descriptors, for example: sessions live on, and accepting goes on when there are some again.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Error("accept", "err", err)
			select {
			case <-time.After(pause):
				continue
			case <-s.ctx.Done():
				return nil
			}
		}
		pause = 0
		tcp, ok := c.(*net.TCPConn)
		if !ok {
			_ = c.Close()
			return errors.New("c2s serves TCP listeners only")
		}
		s.accept(tcp, mode)
	}
}

func (s *Server) accept(tcp *net.TCPConn, mode Mode) {
	sock, err := newSocket(tcp)
	if err == nil {
		err = tune(tcp)
	}
	if err != nil {
		_ = tcp.Close()
		return
	}
	var remote netip.Addr
	if a, ok := tcp.RemoteAddr().(*net.TCPAddr); ok {
		remote = a.AddrPort().Addr().Unmap()
	}
	from := network(remote)
	c := &conn{server: s, cfg: s.config.Load(), sock: sock, mode: mode, remote: remote, since: time.Now(), done: make(chan struct{})}
	c.log = s.log.With("cid", s.nextID.Add(1), "remote", remote.String())
	s.mu.Lock()
	limit := c.cfg.ConnectionsPerAddress
	full := limit > 0 && !remote.IsLoopback() && s.addresses[from] >= limit
	if s.closing || full {
		s.mu.Unlock()
		if full {
			s.metrics.refused.Inc()
			c.refuse(streamerr.PolicyViolation)
		}
		_ = tcp.Close()
		return
	}
	s.open[c] = struct{}{}
	s.addresses[from]++
	s.conns.Add(1)
	s.mu.Unlock()
	go c.serve()
}

// network is what counts as one address: of IPv6 the /64 that a customer gets as a rule (RFC 6177 §2).
func network(a netip.Addr) netip.Addr {
	if !a.Is6() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}

// gone is called by a connection that has ended, once.
func (s *Server) gone(c *conn) {
	s.mu.Lock()
	delete(s.open, c)
	from := network(c.remote)
	if s.addresses[from]--; s.addresses[from] <= 0 {
		delete(s.addresses, from)
	}
	s.mu.Unlock()
	s.conns.Done()
}

// Shutdown stops accepting, ends every stream with <system-shutdown/>, waits for them until ctx is done, and saves the sessions that can be
// resumed.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	var err error
	for l := range s.listeners {
		err = errors.Join(err, l.Close())
	}
	open := make([]*conn, 0, len(s.open))
	for c := range s.open {
		open = append(open, c)
	}
	s.mu.Unlock()
	s.cancel()
	for _, c := range open {
		c.Close(streamerr.SystemShutdown)
	}
	done := make(chan struct{})
	go func() {
		s.conns.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.stop()
		s.mu.Lock()
		for c := range s.open {
			c.cut()
		}
		s.mu.Unlock()
		<-done
	}
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
			if n%10 != 0 { // chosen: silence is measured in minutes
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

// newStreamID is unpredictable (RFC 6120 §4.7.3).
func newStreamID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
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
	connections := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "balcony_c2s_connections", Help: "Open client connections."}, func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return float64(len(s.open))
	})
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
