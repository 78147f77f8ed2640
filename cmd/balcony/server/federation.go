package server

import (
	"context"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/s2s"
)

// Federation is what is known of other servers.
type Federation struct{ s *Server }

// Federation is what is known of other servers.
func (s *Server) Federation() Federation { return Federation{s} }

// Streams lists the streams with other servers and what waits for one.
func (f Federation) Streams(context.Context) ([]s2s.Stream, error) { return f.s.s2s.Streams(), nil }

// Explain says how a stream to another server would be opened. An empty local is the default domain.
func (f Federation) Explain(ctx context.Context, local, remote string) (lines []string, err error) {
	if local == "" {
		f.s.mu.Lock()
		local = f.s.cfg.Domains[0].Name
		f.s.mu.Unlock()
	}
	err = f.s.s2s.Explain(ctx, local, remote, func(line string) { lines = append(lines, line) })
	return lines, err
}

func s2sConfig(cfg *config.Config) s2s.Config {
	l, c := cfg.Limits, s2s.DefaultConfig()
	t := c2sConfig(cfg)
	c.TLSTimeout, c.LoginTimeout, c.Unauthenticated, c.Authenticated = t.TLSTimeout, t.LoginTimeout, t.Unauthenticated, t.Authenticated
	c.ConnectionsPerAddress, c.Rate, c.Proxies = t.ConnectionsPerAddress, orZero(l.ServerRate), t.Proxies
	c.Queue, c.QueueTotal, c.QueueTime, c.IdleTime = l.ServerQueue.Int(), l.ServerQueueTotal.Int(), l.ServerQueueTime.Std(), max(0, time.Duration(l.ServerIdle))
	c.Management = s2s.Management(t.Management)
	c.DNS, c.Bidi = cfg.S2S.DNS, cfg.S2S.Bidi
	p := s2s.Policy{Dialback: cfg.S2S.Auth == config.AuthDialback, Blocked: cfg.S2S.Blocked, Allowed: cfg.S2S.Allowed}
	for _, e := range cfg.S2S.Peers {
		peer := s2s.Peer{Domain: e.Domain, Auth: map[string]s2s.Auth{config.AuthCertificate: s2s.WithCertificate, config.AuthDialback: s2s.WithDialback}[e.Auth]}
		for _, a := range e.Addresses {
			peer.Addresses = append(peer.Addresses, s2s.Address{HostPort: a, DirectTLS: e.DirectTLS})
		}
		p.Peers = append(p.Peers, peer)
	}
	c.Policy = p
	return c
}
