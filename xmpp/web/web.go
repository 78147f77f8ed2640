// Package web is the HTTP side of the server: health and metrics. Protocols that run over HTTP are added with Handle.
package web

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"balcony/xmpp/listen"

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
	// Wrap makes the connection that streams can write to without waiting (c2s.Wrap); without it there are no WebSockets.
	Wrap func(*net.TCPConn) (net.Conn, error)
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

// window is how much of requests' bodies an HTTP/2 connection may send ahead.
const window = 256 << 10

// Server serves http and https listeners. Its handlers are added before the first Serve.
type Server struct {
	cfg       Config
	log       *slog.Logger
	limit     atomic.Int64   // of connections of an address
	public    *http.ServeMux // what both kinds of listeners serve
	local     *http.ServeMux // what http listeners serve besides: they are for the operator's machines or behind a proxy
	plain     *http.Server
	secure    *http.Server
	policy    atomic.Pointer[Policy]
	addresses listen.Addresses
	stopping  atomic.Bool

	alpn    map[string]Taker // static after the first Serve
	streams Streams
	sites   Sites
}

// New makes a server with /healthz and /readyz on every listener and /metrics on http listeners. health reports whether the server can do its
// work; its error goes to the log only.
func New(cfg Config, log *slog.Logger, metrics prometheus.Gatherer, health func(context.Context) error) *Server {
	s := &Server{cfg: cfg, log: log, public: http.NewServeMux(), local: http.NewServeMux()}
	s.SetConnectionsPerAddress(cfg.ConnectionsPerAddress)
	s.policy.Store(&Policy{Proxies: Loopback(), Metrics: Loopback(), Origins: []string{"*"}})
	checked := &checker{check: health, log: log}
	s.public.Handle("GET /healthz", checked)
	s.public.Handle("GET /readyz", s.ready(checked))
	s.local.Handle("GET /metrics", s.operators(promhttp.HandlerFor(metrics, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, // chosen: gathering takes locks of the whole server
		Timeout:             cfg.RequestTimeout / 2,
		ErrorLog:            slog.NewLogLogger(log.Handler(), slog.LevelError),
	})))
	s.local.Handle("/", s.public)
	s.plain, s.secure = s.server(s.local), s.server(s.public)
	return s
}

// Handle adds a handler for a pattern of net/http to all listeners. Patterns of two handlers must not overlap. RemoteAddr of its requests is the
// client's, also behind a trusted proxy, without the port then.
func (s *Server) Handle(pattern string, h http.Handler) {
	s.public.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if c := s.client(r); c.proxied && c.addr.IsValid() {
			of := *r // a handler may change only a copy
			of.RemoteAddr = netip.AddrPortFrom(c.addr, 0).String()
			r = &of
		}
		h.ServeHTTP(w, r)
	})
}

// Taker takes a connection of an https listener whose TLS handshake has chosen another protocol than HTTP: t, under it what Config.Wrap
// made, and the client's address. It closes t when it is done, or when it returns an error.
type Taker func(t *tls.Conn, under net.Conn, remote netip.Addr) error

// HandleALPN gives connections on https listeners that choose proto to take; before the first Serve. What ServeTLS is given must offer proto.
func (s *Server) HandleALPN(proto string, take Taker) {
	if s.alpn == nil {
		s.alpn = make(map[string]Taker)
	}
	s.alpn[proto] = take
}

// Protocols is what ServeTLS offers: ALPN and what HandleALPN added.
func (s *Server) Protocols() []string {
	return append(slices.Clone(ALPN), slices.Sorted(maps.Keys(s.alpn))...)
}

// Protocol is the one of Protocols that a handshake with these offers chooses: the first of the server's that is offered (RFC 7301 §3.2); empty for none.
func (s *Server) Protocol(offered []string) string {
	for _, p := range s.Protocols() {
		if slices.Contains(offered, p) {
			return p
		}
	}
	return ""
}

// SetPolicy changes the policy for new requests. It may be called at any time.
func (s *Server) SetPolicy(p Policy) { s.policy.Store(&p) }

// operators answers only to those who may read figures about the server; to others there is nothing.
func (s *Server) operators(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !listen.Contains(s.policy.Load().Metrics, s.client(r).addr) {
			http.NotFound(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// SetConnectionsPerAddress changes that limit for new connections; 0: no limit. It may be called at any time.
func (s *Server) SetConnectionsPerAddress(limit int) { s.limit.Store(int64(limit)) }

func (s *Server) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           s.guard(h),
		ReadHeaderTimeout: s.cfg.HeaderTimeout,
		ReadTimeout:       s.cfg.RequestTimeout,
		WriteTimeout:      s.cfg.RequestTimeout,
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    s.cfg.HeaderBytes,
		ConnContext:       remember,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: s.cfg.Streams,
			// What a connection may make the server hold of frames and bodies that nobody reads.
			MaxReadFrameSize: 16 << 10, // RFC 9113 §6.5.2: the least
			// chosen: 20 Mbit/s for an upload over a path with a round trip of 100 ms
			MaxReceiveBufferPerConnection: window,
			MaxReceiveBufferPerStream:     window,
		},
		// What net/http has to say is about its peers: failed handshakes, malformed requests.
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// Serve serves plain HTTP until Shutdown or until l fails; it returns nil after Shutdown. It closes l.
func (s *Server) Serve(l net.Listener) error { return ended(s.plain.Serve(s.listener(l))) }

// ServeTLS serves HTTP over TLS. config is asked for each connection; what it returns must offer ALPN, or what Protocol has chosen.
func (s *Server) ServeTLS(l net.Listener, config func(*tls.ClientHelloInfo) *tls.Config) error {
	l = tls.NewListener(s.listener(l), &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: ALPN,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			return config(hello), nil
		},
	})
	if len(s.alpn) > 0 {
		l = s.split(l)
	}
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
	s.stopping.Store(true)
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
		if r.ProtoMajor == 2 && r.Method != http.MethodPost && r.Method != http.MethodPut {
			_ = r.Body.Close() // nobody reads it: then nothing of it is kept
		}
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
