// Package server puts the parts together: database, router, modules, listeners.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"balcony/cmd/balcony/certs"
	"balcony/cmd/balcony/config"
	"balcony/storage"
	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/c2s"
	"balcony/xmpp/router"
	"balcony/xmpp/stream"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
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
	modules  modules
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
	s.modules = s.newModules()
	s.register()
	s.router.SetSubscriptions(s.modules.roster)
	s.c2s = c2s.New(c2sConfig(cfg), s.router, s.auth, set, s.modules.register, db, s.metrics, log)
	s.c2s.SetReturning(s.modules.offline.Returning)
	s.c2s.SetAway(s.modules.push.Notify, s.modules.push.Returned)
	return s, nil
}

// orZero is a configured limit where 0 means that there is none.
func orZero[T ~int64](n T) int { return int(max(n, 0)) }

func c2sConfig(cfg *config.Config) c2s.Config {
	l, c := cfg.Limits, c2s.DefaultConfig()
	c.TLSTimeout, c.LoginTimeout = l.TLSTime.Std(), l.LoginTime.Std()
	c.Unauthenticated = stream.Limits{Bytes: l.LoginStanza.Int(), Depth: min(l.Depth.Int(), stream.BeforeAuth.Depth),
		Attributes: min(l.Attributes.Int(), stream.BeforeAuth.Attributes), Children: stream.BeforeAuth.Children}
	c.Authenticated = stream.Limits{Bytes: l.Stanza.Int(), Depth: l.Depth.Int(), Attributes: l.Attributes.Int(), Children: stream.DefaultLimits().Children}
	c.Outbox, c.LoginTries = l.Outbox.Int(), l.LoginTries.Int()
	c.Rate, c.ConnectionsPerAddress = orZero(l.ClientRate), orZero(l.ConnectionsPerAddress)
	c.PingAfter = max(0, time.Duration(l.Idle))
	c.Management = c2s.Management{Stanzas: l.Unacknowledged.Int(), Bytes: l.UnacknowledgedBytes.Int(), Resumption: max(0, time.Duration(l.Resumption))}
	return c
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

// Start opens the listeners and serves them. On an error none is left open.
func (s *Server) Start() error {
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	if err := s.c2s.Restore(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving.Go(func() { s.modules.push.Run(s.ctx) })
	s.serving.Go(func() { giveBack(s.ctx, s.c2s.Accepted) })
	if addr := os.Getenv(pprofEnv); addr != "" {
		if err := s.profile(addr); err != nil {
			return err
		}
	}
	for _, l := range []struct {
		name  string
		addrs []string
		mode  c2s.Mode
	}{{"c2s", s.cfg.Listen.C2S, c2s.STARTTLS}, {"c2s_tls", s.cfg.Listen.C2STLS, c2s.DirectTLS}} {
		for _, a := range l.addrs {
			ln, err := net.Listen("tcp", a)
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
				if err := s.c2s.Serve(ln, l.mode); err != nil {
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
	return nil
}

// Shutdown stops accepting, ends every stream with <system-shutdown/> (RFC 6120 §4.9.3.20), waits for them until ctx is done, and closes
// the database.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.c2s.Shutdown(ctx)
	s.cancel()
	s.serving.Wait()
	return errors.Join(err, s.db.Close())
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
