// Package web is the HTTP side of the server: health and metrics. Protocols that run over HTTP are added with Handle.
package web

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// ALPN are the application protocols of an https listener, in the order of preference (RFC 7301, RFC 9113 §3.2).
var ALPN = []string{"h2", "http/1.1"}

// Config bounds what HTTP clients can make the server hold.
type Config struct {
	// HeaderTimeout is how long a client has to send the header of a request, the TLS handshake included.
	HeaderTimeout time.Duration
	// RequestTimeout is how long a request may take from its first byte to the last one of the answer.
	RequestTimeout time.Duration
	// IdleTimeout is how long a connection is kept without a request.
	IdleTimeout time.Duration
	// HeaderBytes is the size of a request's header.
	HeaderBytes int
	// Streams is how many requests one HTTP/2 connection may have at the same time.
	Streams int
	// ConnectionsPerAddress is how many connections one address may have on all listeners; loopback is exempt. 0: no limit.
	ConnectionsPerAddress int
}

// DefaultConfig returns the limits of a server that nobody configured.
func DefaultConfig() Config {
	return Config{
		HeaderTimeout:         10 * time.Second, // as for TLS on the other listeners
		RequestTimeout:        30 * time.Second, // chosen: a slow scrape of /metrics takes a second
		IdleTimeout:           2 * time.Minute,  // chosen: longer than the usual interval of scrapes and health checks
		HeaderBytes:           16 << 10,         // chosen: browsers and proxies send less than 8 KiB
		Streams:               32,               // chosen: a browser has no more requests to one page's host; bounds rapid resets
		ConnectionsPerAddress: 64,
	}
}

// Server serves http and https listeners. Its handlers are added before the first Serve.
type Server struct {
	cfg    Config
	log    *slog.Logger
	limit  *addressLimit
	public *http.ServeMux // what both kinds of listeners serve
	local  *http.ServeMux // what http listeners serve besides: they are for the operator's machines or behind a proxy
	plain  *http.Server
	secure *http.Server
}

// New makes a server with /healthz on every listener and /metrics on http listeners. health reports whether the server can do its
// work; its error goes to the log only.
func New(cfg Config, log *slog.Logger, metrics prometheus.Gatherer, health func(context.Context) error) *Server {
	s := &Server{cfg: cfg, log: log, limit: newAddressLimit(cfg.ConnectionsPerAddress), public: http.NewServeMux(), local: http.NewServeMux()}
	s.public.Handle("GET /healthz", &checker{check: health, log: log})
	s.local.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, // chosen: gathering takes locks of the whole server
		Timeout:             cfg.RequestTimeout / 2,
		ErrorLog:            slog.NewLogLogger(log.Handler(), slog.LevelError),
	}))
	s.local.Handle("/", s.public)
	s.plain, s.secure = s.server(s.local), s.server(s.public)
	return s
}

// Handle adds a handler for a pattern of net/http to all listeners. Patterns of two handlers must not overlap.
func (s *Server) Handle(pattern string, h http.Handler) { s.public.Handle(pattern, h) }

// SetConnectionsPerAddress changes that limit for new connections; 0: no limit. It may be called at any time.
func (s *Server) SetConnectionsPerAddress(limit int) { s.limit.set(limit) }

func (s *Server) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           s.guard(h),
		ReadHeaderTimeout: s.cfg.HeaderTimeout,
		ReadTimeout:       s.cfg.RequestTimeout,
		WriteTimeout:      s.cfg.RequestTimeout,
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    s.cfg.HeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: s.cfg.Streams},
		// What net/http has to say is about its peers: failed handshakes, malformed requests.
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// Serve serves plain HTTP until Shutdown or until l fails; it returns nil after Shutdown. It closes l.
func (s *Server) Serve(l net.Listener) error { return ended(s.plain.Serve(s.limit.listener(l))) }

// ServeTLS serves HTTP over TLS. config is asked for each connection; what it returns must offer ALPN.
func (s *Server) ServeTLS(l net.Listener, config func() *tls.Config) error {
	l = tls.NewListener(s.limit.listener(l), &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: ALPN,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return config(), nil
		},
	})
	return ended(s.secure.Serve(l))
}

func ended(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown stops accepting, waits for the requests that are being answered until ctx is done, and then closes their connections.
func (s *Server) Shutdown(ctx context.Context) error {
	err := errors.Join(s.plain.Shutdown(ctx), s.secure.Shutdown(ctx))
	if err != nil {
		return errors.Join(err, s.plain.Close(), s.secure.Close())
	}
	return nil
}

// guard sets the headers that every answer has, and keeps a handler that panics from more than its own request.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		// Nothing here is a page: no browser shall guess a type, run, frame or keep anything.
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler { // a handler's way to cut its connection
				panic(p)
			}
			s.log.Error("http handler panicked", "path", bounded(r.URL.Path), "panic", p, "stack", string(debug.Stack()))
			http.Error(w, "internal server error", http.StatusInternalServerError)
		}()
		next.ServeHTTP(w, r)
	})
}

// bounded cuts foreign text for the log.
func bounded(s string) string { return s[:min(len(s), 256)] }
