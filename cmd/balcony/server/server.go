// Package server puts the parts together: database, router, modules, listeners.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"balcony/cmd/balcony/certs"
	"balcony/cmd/balcony/config"
	"balcony/storage"
	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/c2s"
	"balcony/xmpp/component"
	"balcony/xmpp/ext/upload"
	"balcony/xmpp/listen"
	"balcony/xmpp/router"
	"balcony/xmpp/s2s"
	"balcony/xmpp/stream"
	"balcony/xmpp/web"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/net/idna"
	"mellium.im/xmpp/jid"
)

// Server is a whole server.
type Server struct {
	// Static after New.
	log      *slog.Logger
	certs    *certs.Set
	db       *storage.DB
	auth     *auth.Authenticator
	router   *router.Router
	c2s      *c2s.Server
	parts    *component.Server
	web      *web.Server
	s2s      *s2s.Server
	modules  modules
	disk     *storage.Disk // of uploads; nil without them
	metrics  *prometheus.Registry
	version  string
	started  time.Time
	pipeline string

	ctx     context.Context // ends with Shutdown
	cancel  context.CancelFunc
	serving sync.WaitGroup

	mu sync.Mutex
	// Guarded by mu.
	cfg       *config.Config
	listeners map[string][]net.Listener
}

// New opens the database and makes a server that does not listen yet.
func New(ctx context.Context, cfg *config.Config, set *certs.Set, log *slog.Logger, version string) (*Server, error) {
	s := &Server{log: log, certs: set, cfg: cfg, version: version, started: time.Now(), metrics: prometheus.NewRegistry(),
		listeners: make(map[string][]net.Listener)}
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.ctx, s.cancel = context.WithCancel(context.Background())
	db, err := storage.Open(ctx, storage.Config{Driver: cfg.Storage.Driver, DSN: cfg.Storage.DSN}, cfg.Data, storageLimits(cfg), log)
	if err != nil {
		return nil, err
	}
	s.db = db
	s.observe()
	secret, err := db.Secret(ctx, "scram", 32)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.auth = auth.New(db, secret, authConfig(cfg))
	rc := router.DefaultConfig()
	rc.Resources = cfg.Limits.Resources.Int()
	s.router = router.New(rc, db, router.NewMetrics(s.metrics), log)
	if err := s.setHosts(cfg); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.parts = component.New(componentConfig(cfg), components(cfg), s.router, s.metrics, log)
	uploads, err := s.newUploads(ctx, cfg.Upload)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.modules = s.newModules(uploads)
	s.register()
	s.router.SetSubscriptions(s.modules.roster)
	dialback, err := db.Secret(ctx, "dialback", 32)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.s2s = s2s.New(s2sConfig(cfg), s.router, set, db, dialback, s.metrics, log)
	s.router.SetRemote(s.s2s.Send)
	s.c2s = c2s.New(c2sConfig(cfg), s.router, s.auth, set, s.modules.register, db, s.metrics, log)
	s.c2s.SetReturning(s.modules.offline.Returning)
	s.c2s.SetHeld(s.modules.offline.Hold, s.modules.offline.Restored)
	s.c2s.SetAway(s.modules.push.Notify, func(session xmpp.Session) {
		s.modules.push.Returned(session)
		s.modules.offline.Returned(session)
	})
	s.web = web.New(webConfig(cfg), log, s.metrics, s.Healthy)
	if uploads != nil {
		s.web.Handle(upload.Path, uploads)
	}
	s.web.SetPolicy(webPolicy(cfg))
	s.web.HandleDiscovery(web.Sites{Of: s.site, Ports: s.ports})
	if cfg.Web.OnePort {
		s.web.HandleALPN(c2s.ALPN, s.c2s.Take)
		s.web.HandleALPN(s2s.ALPN, s.takePeer)
	}
	s.web.HandleStreams(web.Streams{Attach: s.c2s.Attach, Leaf: set.Leaf, Moved: s.moved})
	return s, nil
}

// orZero is a configured limit where 0 means that there is none.
func orZero[T ~int64](n T) int { return int(max(n, 0)) }

func c2sConfig(cfg *config.Config) c2s.Config {
	l, c := cfg.Limits, c2s.DefaultConfig()
	if name, err := jid.Parse(cfg.Domains[0].Name); err == nil {
		c.Domain = name.Domainpart()
	}
	c.TLSTimeout, c.LoginTimeout = l.TLSTime.Std(), l.LoginTime.Std()
	c.Unauthenticated = stream.Limits{Bytes: l.LoginStanza.Int(), Depth: min(l.Depth.Int(), stream.BeforeAuth.Depth),
		Attributes: min(l.Attributes.Int(), stream.BeforeAuth.Attributes), Children: stream.BeforeAuth.Children}
	c.Authenticated = stream.Limits{Bytes: l.Stanza.Int(), Depth: l.Depth.Int(), Attributes: l.Attributes.Int(), Children: stream.DefaultLimits().Children}
	c.Outbox, c.LoginTries = l.Outbox.Int(), l.LoginTries.Int()
	c.Rate, c.ConnectionsPerAddress = orZero(l.ClientRate), orZero(l.ConnectionsPerAddress)
	c.Proxies = listen.Proxies{From: networks(cfg.Listen.Proxies), Timeout: l.TLSTime.Std()}
	c.PingAfter = max(0, time.Duration(l.Idle))
	c.Management = c2s.Management{Stanzas: l.Unacknowledged.Int(), Bytes: l.UnacknowledgedBytes.Int(), Resumption: max(0, time.Duration(l.Resumption))}
	return c
}

func webConfig(cfg *config.Config) web.Config {
	c := web.DefaultConfig()
	c.HeaderTimeout = cfg.Limits.TLSTime.Std()
	c.ConnectionsPerAddress = orZero(cfg.Limits.ConnectionsPerAddress)
	c.Wrap = c2s.Wrap
	return c
}

func webPolicy(cfg *config.Config) web.Policy {
	return web.Policy{Proxies: networks(cfg.Web.Proxies), Metrics: networks(cfg.Web.Metrics), Origins: cfg.Web.Origins}
}

// networks are those of a list that was validated.
func networks(list []string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range list {
		if p, err := config.Network(s); err == nil {
			all = append(all, p)
		}
	}
	return all
}

// site is how clients reach a domain: that of a host name, of a public address, or the only one.
func (s *Server) site(host string) (web.Site, bool) {
	name := host
	if u, err := idna.Lookup.ToUnicode(host); err == nil {
		name = u // RFC 5890 §2.3.2.1: hosts are asked for in ASCII, domains are configured in Unicode
	}
	d, ok := s.domain(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 0; !ok && i < len(s.cfg.Domains); i++ {
		if u, err := url.Parse(s.cfg.Domains[i].URL); err == nil && u.Host != "" && strings.EqualFold(u.Hostname(), host) {
			d, ok = s.cfg.Domains[i], true
		}
	}
	if !ok && len(s.cfg.Domains) == 1 {
		d, ok = s.cfg.Domains[0], true
	}
	site := web.Site{Domain: d.Name, URL: d.URL}
	for _, a := range d.Addresses {
		if ip, err := netip.ParseAddr(a); err == nil {
			site.Addresses = append(site.Addresses, ip)
		}
	}
	return site, ok
}

// ports are those of the first listener of each kind.
func (s *Server) ports() web.Ports {
	s.mu.Lock()
	defer s.mu.Unlock()
	port := func(names ...string) int {
		for _, name := range names {
			for _, l := range s.listeners[name] {
				if tcp, ok := l.Addr().(*net.TCPAddr); ok {
					return tcp.Port
				}
			}
		}
		return 0
	}
	p := web.Ports{HTTPS: port("https"), ClientTLS: port("c2s_tls"), ServerTLS: port("s2s_tls")}
	if s.cfg.Web.OnePort && p.HTTPS != 0 {
		p.ClientTLS, p.ServerTLS = p.HTTPS, p.HTTPS
	}
	return p
}

// moved is where the WebSockets of a domain are, when they are not here.
func (s *Server) moved(domain string) string {
	d, _ := s.domain(domain)
	return d.WebSocketMoved
}

// webTLS is how a connection to an https listener is served. Another server is asked for its certificate there; browsers and clients, which would
// ask their users for one, are not.
func (s *Server) webTLS(hello *tls.ClientHelloInfo) *tls.Config {
	if s.web.Protocol(hello.SupportedProtos) == s2s.ALPN {
		return s.certs.PeerConfig("", s2s.ALPN)
	}
	return s.certs.ServerConfig("", s.web.Protocols()...)
}

// takePeer gives a connection of another server that came to an https listener to who serves those.
func (s *Server) takePeer(t *tls.Conn, under net.Conn, _ netip.Addr) error {
	w, ok := under.(*c2s.Conn)
	if !ok {
		return errors.Join(errors.New("the connection was not made by Wrap"), t.Close())
	}
	return s.s2s.Take(t, w.TCPConn)
}

func authConfig(cfg *config.Config) auth.Config {
	c := auth.DefaultConfig()
	c.Delay = max(0, time.Duration(cfg.Limits.LoginDelay))
	return c
}

func (s *Server) setHosts(cfg *config.Config) error {
	hosts := make(map[string]router.Host, len(cfg.Domains))
	for _, d := range cfg.Domains {
		name, err := jid.Parse(d.Name)
		if err != nil {
			return fmt.Errorf("domain %q: %w", d.Name, err)
		}
		var h router.Host
		for _, a := range d.Admins {
			admin, err := jid.Parse(a)
			if err != nil {
				return fmt.Errorf("admin %q: %w", a, err)
			}
			h.Admins = append(h.Admins, admin.Bare())
		}
		hosts[name.Domainpart()] = h
	}
	s.router.SetHosts(hosts)
	return nil
}

// domain is the configuration of a served domain.
func (s *Server) domain(name string) (config.Domain, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.cfg.Domains {
		if d.Name == name {
			return d, true
		}
		if j, err := jid.Parse(d.Name); err == nil && j.Domainpart() == name {
			return d, true
		}
	}
	return config.Domain{}, false
}

// domains are the names of the served domains.
func (s *Server) domains() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.cfg.Domains {
		if j, err := jid.Parse(d.Name); err == nil {
			names = append(names, j.Domainpart())
		}
	}
	return names
}

// Start opens the listeners and serves them. On an error none is left open.
func (s *Server) Start() error {
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	if err := errors.Join(s.modules.archive.Prepare(ctx, s.domains()), s.c2s.Restore(ctx), s.s2s.Restore(ctx)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving.Go(func() { s.modules.push.Run(s.ctx) })
	s.serving.Go(func() { s.modules.offline.Run(s.ctx) })
	s.serving.Go(func() { s.modules.archive.Run(s.ctx, s.domains) })
	s.serving.Go(func() { s.modules.archive.Index(s.ctx, s.domains()) })
	if s.modules.upload != nil {
		s.serving.Go(func() { s.modules.upload.Run(s.ctx) })
	}
	s.serving.Go(func() { s.modules.pubsub.Run(s.ctx) })
	s.serving.Go(func() { giveBack(s.ctx, s.c2s.Freed, s.c2s.Open, s.auth.ForgetRecent) })
	if addr := os.Getenv(pprofEnv); addr != "" {
		if err := s.profile(addr); err != nil {
			return err
		}
	}
	// Those of HTTP first, so that nobody logs in to a server that then does not start.
	for _, l := range []struct {
		name  string
		addrs []string
		serve func(net.Listener) error
	}{
		{"http", s.cfg.Listen.HTTP, s.web.Serve},
		{"https", s.cfg.Listen.HTTPS, func(l net.Listener) error {
			return s.web.ServeTLS(l, s.webTLS)
		}},
		{"component", s.cfg.Listen.Component, s.parts.Serve},
		{"c2s", s.cfg.Listen.C2S, func(l net.Listener) error { return s.c2s.Serve(l, c2s.STARTTLS) }},
		{"c2s_tls", s.cfg.Listen.C2STLS, func(l net.Listener) error { return s.c2s.Serve(l, c2s.DirectTLS) }},
		{"s2s", s.cfg.Listen.S2S, func(l net.Listener) error { return s.s2s.Serve(l, s2s.STARTTLS) }},
		{"s2s_tls", s.cfg.Listen.S2STLS, func(l net.Listener) error { return s.s2s.Serve(l, s2s.DirectTLS) }},
	} {
		for _, a := range l.addrs {
			ln, err := listen.Listen(a)
			if err != nil {
				for _, open := range s.listeners {
					for _, o := range open {
						_ = o.Close()
					}
				}
				return fmt.Errorf("listener %s: %w", l.name, err)
			}
			s.listeners[l.name] = append(s.listeners[l.name], ln)
			s.serving.Go(func() {
				if err := l.serve(ln); err != nil && !errors.Is(err, net.ErrClosed) {
					s.log.Error("listener ended", "listener", l.name, "err", err)
				}
			})
		}
	}
	return nil
}

// Addrs are the addresses of the open listeners, by their names in the configuration.
func (s *Server) Addrs() map[string][]net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := make(map[string][]net.Addr)
	for name, list := range s.listeners {
		for _, l := range list {
			m[name] = append(m[name], l.Addr())
		}
	}
	return m
}

// Reload takes what can change while the server runs from cfg: domains' admins, registration and contacts, and limits of new
// connections. The caller has reloaded the certificates.
func (s *Server) Reload(cfg *config.Config) error {
	if err := s.setHosts(cfg); err != nil {
		return err
	}
	s.mu.Lock()
	s.cfg = cfg
	s.mu.Unlock()
	s.c2s.SetConfig(c2sConfig(cfg))
	s.parts.SetConfig(componentConfig(cfg))
	s.web.SetConnectionsPerAddress(orZero(cfg.Limits.ConnectionsPerAddress))
	s.web.SetPolicy(webPolicy(cfg))
	s.s2s.SetConfig(s2sConfig(cfg))
	return nil
}

// Shutdown stops accepting, ends every stream with <system-shutdown/> (RFC 6120 §4.9.3.20), waits for them until ctx is done, and closes
// the database.
func (s *Server) Shutdown(ctx context.Context) error {
	var ended sync.WaitGroup
	var webErr error
	ended.Go(func() { webErr = s.web.Shutdown(ctx) })
	err := s.c2s.Shutdown(ctx)
	err = errors.Join(err, s.parts.Shutdown(ctx))
	err = errors.Join(err, s.s2s.Shutdown(ctx)) // what clients' sessions and components have still sent to others goes out
	ended.Wait()
	s.cancel()
	s.serving.Wait()
	if unsaved := s.modules.offline.Save(ctx); unsaved != nil {
		s.log.Error("spool is not saved: clients get some messages once more", "err", unsaved)
	}
	if s.disk != nil {
		err = errors.Join(err, s.disk.Close())
	}
	return errors.Join(err, webErr, s.db.Close())
}

// DB is the server's database, for tests.
func (s *Server) DB() *storage.DB { return s.db }

// Registry is what the modules have registered, for tests. Read-only.
func (s *Server) Registry() *xmpp.Registry { return s.router.Registry() }

// Sessions are the bound resources of an account.
func (s *Server) Sessions(bare jid.JID) []xmpp.Session { return s.router.Sessions(bare) }

// Metrics is what /metrics shows.
func (s *Server) Metrics() prometheus.Gatherer { return s.metrics }

// Healthy reports whether the database answers.
func (s *Server) Healthy(ctx context.Context) error { return s.db.Ping(ctx) }

// observe exports the database's latencies.
func (s *Server) observe() {
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "balcony_database_seconds", Help: "Time of database calls.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9)}, []string{"operation", "result"})
	s.metrics.MustRegister(latency)
	s.db.Observe(func(op string, d time.Duration, err error) {
		result := "ok"
		if err != nil {
			result = "error"
		}
		latency.WithLabelValues(op, result).Observe(d.Seconds())
	})
}
