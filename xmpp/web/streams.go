package web

import (
	"crypto/x509"
	"net/http"

	"balcony/xmpp/auth"
	"balcony/xmpp/stream"
)

// Streams is what the streams of clients over HTTP need of the rest of the server.
type Streams struct {
	// Attach begins a stream over a transport (c2s.Server.Attach). Its error is a stream error.
	Attach func(t stream.Transport, ch auth.Channel) error
	// Leaf is the certificate that a client which asked for name is shown.
	Leaf func(name string) *x509.Certificate
	// Moved is another address for the WebSockets of a domain, empty for none (RFC 7395 §3.6.1).
	Moved func(domain string) string
}

// HandleStreams adds /xmpp-websocket (RFC 7395) and /http-bind (XEP-0124, XEP-0206).
func (s *Server) HandleStreams(st Streams) {
	s.streams = st
	s.public.HandleFunc("/xmpp-websocket", s.webSocket)
	s.public.Handle("/http-bind", &boshes{s: s, open: make(map[string]*boshSession)})
}

// channel is what SASL may know of the request's connection: its TLS only when that is the client's own.
func (s *Server) channel(r *http.Request, c client) auth.Channel {
	ch := auth.Channel{Remote: c.addr, Secure: c.secure}
	if r.TLS != nil && !c.proxied {
		ch.TLS, ch.Cert = r.TLS, s.streams.Leaf(r.TLS.ServerName)
	}
	return ch
}

// refused answers a request that may not begin a stream; it reports whether it did.
func (s *Server) refused(w http.ResponseWriter, r *http.Request, c client) bool {
	switch {
	case !s.allowed(r.Header.Get("Origin")):
		http.Error(w, "this origin is not allowed", http.StatusForbidden)
	case !c.secure:
		// RFC 7395 §3.9, XEP-0124 §17: passwords would go in clear. What stands in front and speaks TLS has to say so.
		http.Error(w, "TLS is required; a proxy that ends it must send X-Forwarded-Proto", http.StatusForbidden)
	default:
		return false
	}
	return true
}
