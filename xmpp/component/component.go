// Package component is the components' side of the server: programs that serve a domain of their own through it (XEP-0114: Jabber Component
// Protocol 1.6, the accept method).
package component

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/listen"
	"balcony/xmpp/router"
	"balcony/xmpp/stream"

	"github.com/prometheus/client_golang/prometheus"
	"mellium.im/xmpp/stanza"
	streamerr "mellium.im/xmpp/stream"
)

// NS is the content namespace of the streams (XEP-0114 §3).
const NS = "jabber:component:accept"

// Config of component connections.
type Config struct {
	// HandshakeTimeout is how long a peer has to prove that it is a component, from the moment it is accepted.
	HandshakeTimeout time.Duration
	// Unauthenticated are the limits of a stream before that, Authenticated those after it.
	Unauthenticated, Authenticated stream.Limits
	// Outbox is how many bytes may wait for a component that does not read; beyond that its connection is closed.
	Outbox int
	// Rate is how many bytes a component may send in a second, sustained; reading is delayed beyond that. 0: no limit.
	Rate int
	// ConnectionsPerAddress is how many connections one address may have; loopback is exempt. 0: no limit.
	ConnectionsPerAddress int
	// Unproven is how many connections may be there that have not proven anything, from all addresses.
	Unproven int
	// PingAfter is the silence after which a component is asked for a sign of life, 0 for never; PingTimeout is how long it then has to send
	// anything.
	PingAfter, PingTimeout time.Duration
	// ProbeTimeout is how long a connected component has to show that it is alive when another connection proves to be the same component.
	ProbeTimeout time.Duration
	// WriteTimeout is how long a component may take to read what the network has taken.
	WriteTimeout time.Duration
}

// DefaultConfig returns the limits of a server that nobody configured.
func DefaultConfig() Config {
	return Config{
		HandshakeTimeout:      10 * time.Second,
		Unauthenticated:       stream.BeforeAuth,
		Authenticated:         stream.DefaultLimits(),
		Outbox:                8 << 20, // chosen: what several sessions may have waiting; a gateway stands for many users
		Rate:                  2 << 20, // as for a stream of another server
		ConnectionsPerAddress: 64,
		Unproven:              512, // chosen: with 16 KiB each, 8 MiB; several addresses have to work together to use them up
		PingAfter:             5 * time.Minute,
		PingTimeout:           time.Minute,
		ProbeTimeout:          5 * time.Second, // chosen: a program that is stopped for longer may as well be gone
		WriteTimeout:          time.Minute,     // as TCP's user timeout on other listeners
	}
}

// Component is a configured component.
type Component struct {
	Name   string // its domain name, in canonical form
	Beside string // the served domain that lists it
	Secret string
}

// Server is all component connections of a server.
type Server struct {
	// Static after New.
	router   *router.Router
	log      *slog.Logger
	names    map[string]*entry
	listed   []*entry // in the order of the configuration
	config   atomic.Pointer[Config]
	nextID   atomic.Uint64
	refused  prometheus.Counter
	rejected prometheus.Counter

	listeners *listen.Listeners

	ctx    context.Context // ends when the server begins to close
	cancel context.CancelFunc
	work   context.Context // ends when the last connection has ended, or was given up
	stop   context.CancelFunc
	tasks  sync.WaitGroup

	mu sync.Mutex
	// Guarded by mu.
	open     map[*conn]struct{}
	unproven int
	closing  bool
}

// entry is a configured component, connected or not.
type entry struct {
	Component
	server *Server

	mu   sync.Mutex
	conn *conn // guarded by mu: nil while it is absent
}

// errAbsent answers what is sent to a component that is not there, or does not read: it may come back.
var errAbsent = xmpp.Fail(stanza.Wait, stanza.ServiceUnavailable, "")

// New makes a server without listeners, and the components' names hosts of the router; before the first stanza.
func New(cfg Config, components []Component, r *router.Router, metrics prometheus.Registerer, log *slog.Logger) *Server {
	s := &Server{router: r, log: log, names: make(map[string]*entry), listeners: listen.New(log), open: make(map[*conn]struct{})}
	s.config.Store(&cfg)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.work, s.stop = context.WithCancel(context.Background())
	for _, c := range components {
		e := &entry{Component: c, server: s}
		s.names[c.Name] = e
		s.listed = append(s.listed, e)
		h := &xmpp.Host{Label: c.Name}
		h.HandleAll(e.take)
		r.SetNamed(c.Name, c.Beside, h)
	}
	s.refused = prometheus.NewCounter(prometheus.CounterOpts{Name: "balcony_component_refused_total", Help: "Component connections refused because there were too many."})
	s.rejected = prometheus.NewCounter(prometheus.CounterOpts{Name: "balcony_component_rejected_total", Help: "Component connections closed because the handshake was wrong."})
	connected := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "balcony_components", Help: "Connected components."}, func() float64 {
		n := 0
		for _, e := range s.listed {
			if e.current() != nil {
				n++
			}
		}
		return float64(n)
	})
	metrics.MustRegister(s.refused, s.rejected, connected)
	s.tasks.Go(s.watch)
	return s
}

// SetConfig changes the limits of connections that are accepted from now on.
func (s *Server) SetConfig(cfg Config) { s.config.Store(&cfg) }

// Connected are the names of the components that stand beside a domain and are there.
func (s *Server) Connected(domain string) (names []string) {
	for _, e := range s.listed {
		if e.Beside == domain && e.current() != nil {
			names = append(names, e.Name)
		}
	}
	return names
}

func (e *entry) current() *conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.conn
}

// take is what the router calls with every stanza to the component's name.
func (e *entry) take(_ context.Context, s *xmpp.Stanza) error {
	c := e.current()
	if c == nil || !c.put(s) {
		return errAbsent
	}
	return nil
}

// claim makes c the component's connection. A connection that is there already stays if it is alive: XEP-0114 §3, <conflict/>.
func (e *entry) claim(c *conn) bool {
	for {
		e.mu.Lock()
		old := e.conn
		if old == nil {
			e.conn = c
		}
		e.mu.Unlock()
		if old == nil {
			return true
		}
		if old.alive(c.cfg.ProbeTimeout) {
			return false
		}
		// Its network or its program is dead, and this is the component that has come back.
		old.close(streamerr.ConnectionTimeout)
		old.cut()
		select {
		case <-old.gone:
		case <-c.server.ctx.Done():
			return false
		}
	}
}

// release makes the component absent again, if c is its connection.
func (e *entry) release(c *conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conn == c {
		e.conn = nil
	}
}

// Serve accepts connections until l is closed. It returns nil after Shutdown.
func (s *Server) Serve(l net.Listener) error { return s.listeners.Serve(l, s.accept) }

func (s *Server) accept(tcp *net.TCPConn, remote netip.AddrPort) {
	c := newConn(s, tcp, remote.Addr())
	if !s.admit(c) {
		s.refused.Inc()
		_ = tcp.Close()
		return
	}
	s.tasks.Go(c.serve)
}

// admit counts a new connection, unless the server stops or there are too many.
func (s *Server) admit(c *conn) bool {
	if !s.listeners.Take(c.remote, c.cfg.ConnectionsPerAddress) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.unproven >= c.cfg.Unproven {
		s.listeners.Give(c.remote)
		return false
	}
	s.open[c] = struct{}{}
	s.unproven++
	return true
}

// proven is called once for each accepted connection: when it has proven to be a component, or when it ends.
func (s *Server) proven() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unproven--
}

// ended is called by a connection that has ended, once.
func (s *Server) ended(c *conn) {
	s.listeners.Give(c.remote)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

func (s *Server) connections() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*conn, 0, len(s.open))
	for c := range s.open {
		list = append(list, c)
	}
	return list
}

// Shutdown stops accepting, ends every stream with <system-shutdown/>, and waits for them until ctx is done.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.listeners.Close()
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.cancel()
	for _, c := range s.connections() {
		c.close(streamerr.SystemShutdown)
	}
	listen.Wait(ctx, &s.tasks, func() {
		s.stop()
		for _, c := range s.connections() {
			c.cut()
		}
	})
	s.stop()
	return err
}

// watch finds dead peers: one goroutine for all.
func (s *Server) watch() {
	tick := time.NewTicker(10 * time.Second) // chosen: silence is measured in minutes
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case now := <-tick.C:
			for _, e := range s.listed {
				if c := e.current(); c != nil {
					c.check(now)
				}
			}
		}
	}
}
