package s2s

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"balcony/xmpp"
)

// Stream is what an operator sees of a stream with another server, or of what waits for one.
type Stream struct {
	Local     string    `json:"local"`
	Remote    string    `json:"remote"`
	Direction string    `json:"direction"` // "in", "out", or "none" while there is no connection
	Address   string    `json:"address,omitempty"`
	TLS       string    `json:"tls,omitempty"` // version and cipher suite
	Direct    bool      `json:"direct_tls,omitempty"`
	Method    string    `json:"method,omitempty"`      // how the domain of the side that opened the stream was proven; a Method
	Valid     bool      `json:"certificate,omitempty"` // the peer's certificate is valid for its domain
	Bidi      bool      `json:"bidi,omitempty"`
	SM        string    `json:"sm,omitempty"` // "on", "resumable"
	Queue     int       `json:"queue"`        // bytes that wait to be sent
	Unacked   int       `json:"unacked"`      // stanzas that were sent and are not acknowledged
	Since     time.Time `json:"since,omitzero"`
	Problem   string    `json:"problem,omitempty"` // why there is no connection
}

// Streams lists the pairs of domains, with the streams that they use.
func (s *Server) Streams() []Stream {
	s.mu.Lock()
	open := make([]*conn, 0, len(s.open))
	for c := range s.open {
		open = append(open, c)
	}
	s.mu.Unlock()
	var list []Stream
	for _, c := range open {
		if c.lastUse.Load() == 0 {
			continue // not authenticated: its fields belong to the negotiation
		}
		list = append(list, c.info()...)
	}
	now := time.Now()
	for _, l := range s.all() {
		l.mu.Lock()
		if l.conn == nil && !(l.unused() && now.After(l.until)) {
			st := Stream{Local: l.pair.local, Remote: l.pair.remote, Direction: "none", Queue: l.bytes, Problem: l.why}
			if l.resume != nil {
				l.resume.mu.Lock()
				st.Unacked = len(l.resume.unacked)
				l.resume.mu.Unlock()
			}
			list = append(list, st)
		}
		l.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b Stream) int {
		return cmp.Or(cmp.Compare(a.Remote, b.Remote), cmp.Compare(a.Local, b.Local), cmp.Compare(a.Direction, b.Direction), a.Since.Compare(b.Since))
	})
	return list
}

func (c *conn) info() (list []Stream) {
	st := c.tls.ConnectionState()
	base := Stream{Direction: "in", Address: c.remote.String(), TLS: tls.VersionName(st.Version) + " " + tls.CipherSuiteName(st.CipherSuite),
		Direct: c.mode == DirectTLS, Since: c.since, Queue: c.out.bytes()}
	if sess := c.managed(); sess != nil {
		sess.mu.Lock()
		base.Unacked = len(sess.unacked)
		switch {
		case sess.confirmed && sess.id != "":
			base.SM = "resumable"
		case sess.confirmed:
			base.SM = "on"
		}
		sess.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	base.Bidi = c.bidi
	add := func(p pair, how Method) {
		one := base
		one.Local, one.Remote, one.Method = p.local, p.remote, string(how)
		one.Valid = c.server.verifier.verify(p.remote, st.PeerCertificates) == nil
		list = append(list, one)
	}
	if c.outgoing {
		base.Direction = "out"
		add(c.domains, c.how)
		return list
	}
	for p, how := range c.proven {
		add(p, how)
	}
	return list
}

// Explain opens a stream to another server as if there were something to send from a domain of this server, up to the point where it would be
// authenticated, and tells what it finds, line by line.
func (s *Server) Explain(ctx context.Context, local, remote string, say func(string)) error {
	cfg := s.config.Load()
	trace := tracer(func(format string, args ...any) { say(printable(fmt.Sprintf(format, args...))) })
	name, ok := domain(remote)
	if !ok {
		return fmt.Errorf("%.256q is not a domain name", remote)
	}
	own, ok := domain(local)
	if !ok || !s.ours(own) {
		return fmt.Errorf("%.256q is not a domain of this server", local)
	}
	if s.ours(name) {
		return fmt.Errorf("%s is a domain of this server", name)
	}
	trace.say("domain: %s, from %s", name, own)
	if xmpp.ASCII(name) != name {
		trace.say("domain: %s in DNS and certificates", xmpp.ASCII(name))
	}
	switch {
	case !cfg.Policy.allowed(name):
		trace.say("policy: blocked, or not among the domains that are allowed")
		trace.say("result: nothing is sent to or taken from %s", name)
		return nil
	case cfg.Policy.dialback(name):
		trace.say("policy: any certificate; the domain is proven by dialback if the certificate is not valid for it")
	default:
		trace.say("policy: the certificate must be valid for the domain")
	}
	if cfg.DNS != "" && len(cfg.Policy.route(name)) == 0 {
		trace.say("DNS: asking %s", cfg.DNS)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	c, err := s.dial(ctx, cfg, pair{own, name}, toExplain, nil, trace)
	if err != nil {
		trace.say("result: no stream; senders get %s", describe(refusal(err)))
		return nil
	}
	c.abandon(nil)
	return nil
}

// printable keeps what another server has said from moving the cursor, or filling the screen, of whoever reads it.
func printable(line string) string {
	const most = 1000 // bytes. chosen: a list of eight long names
	line = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, line)
	if len(line) > most {
		line = strings.ToValidUTF8(line[:most], "") + "…"
	}
	return line
}

// explain tells what authenticate would do.
func (c *conn) explain(f features, trace tracer) {
	switch {
	case f.external():
		trace.say("result: this server would prove %s with SASL EXTERNAL, and with dialback if the peer refuses", c.domains.local)
	default:
		trace.say("result: the peer offers no EXTERNAL (it does not accept the certificate of %s, or never does); this server would prove it with dialback", c.domains.local)
	}
	if f.Bidi != nil && c.cfg.Bidi {
		trace.say("result: one stream for both directions")
	}
}
