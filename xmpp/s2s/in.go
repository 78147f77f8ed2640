package s2s

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/listen"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/stanza"
	streamerr "mellium.im/xmpp/stream"
)

// serve is the life of a connection that another server has opened.
func (c *conn) serve() {
	c.server.lost(c, c.run(func() error {
		if err := c.accept(c.server.work); err != nil {
			return err
		}
		return c.read()
	}))
}

// accept takes the stream through TLS to its first features: RFC 6120 §4.3.2.
func (c *conn) accept(ctx context.Context) error {
	if err := c.deadline(c.since.Add(c.cfg.TLSTimeout)); err != nil {
		return err
	}
	switch {
	case c.taken != nil:
		c.secured(c.taken)
	case c.mode == DirectTLS:
		if err := c.handshake(ctx, ""); err != nil {
			return err
		}
	default:
		if err := c.startTLS(ctx); err != nil {
			return err
		}
	}
	// An absolute deadline until a domain is proven: dripping bytes does not extend it.
	if err := c.deadline(c.since.Add(c.cfg.LoginTimeout)); err != nil {
		return err
	}
	ev, err := c.next()
	if err != nil {
		return err
	}
	if ev.Kind != stream.Open {
		return streamerr.BadFormat
	}
	return c.greet(ev.Header)
}

// startTLS is RFC 6120 §5.4: nothing else is accepted before it.
func (c *conn) startTLS(ctx context.Context) error {
	ev, err := c.next()
	if err != nil {
		return err
	}
	if ev.Kind != stream.Open {
		return streamerr.BadFormat
	}
	if err := c.open(ev.Header); err != nil {
		return err
	}
	features := []*xmpp.Element{xmpp.El(nsTLS, "starttls").Add(xmpp.El("", "required"))}
	if err := c.send(stream.AppendFeatures(c.header(), features...)); err != nil {
		return err
	}
	for {
		ev, err := c.next()
		if err != nil {
			return err
		}
		switch n := ev.Element; {
		case ev.Kind == stream.Close:
			return errClosed
		case ev.Kind == stream.Nonzas && n.Space == nsTLS && n.Local == "starttls":
			if _, err := c.dec.Next(); !errors.Is(err, stream.ErrMore) || c.dec.Buffered() > 0 {
				// RFC 6120 §5.4.3.3: what came in clear behind it was not said by the peer over TLS.
				if err := c.sendElement(xmpp.El(nsTLS, "failure")); err != nil {
					return err
				}
				return errClosed
			}
			if err := c.sendElement(xmpp.El(nsTLS, "proceed")); err != nil {
				return err
			}
			if err := c.handshake(ctx, c.domains.local); err != nil {
				return err
			}
			c.dec = stream.NewDecoder(xmpp.NSServer, c.cfg.Unauthenticated) // RFC 6120 §5.4.3.3: a new stream
			c.opened = false
			return nil
		case ev.Kind == stream.Nonzas && n.Space == nsDialback && (n.Local == "result" || n.Local == "verify") && n.Attr("type") == "":
			// XEP-0220 §2.5: TLS comes before dialback.
			if err := c.dialbackFails(n.Local, n.Attr("to"), n.Attr("from"), n.Attr("id"), xmpp.ErrPolicyViolation); err != nil {
				return err
			}
			return streamerr.PolicyViolation
		default:
			return streamerr.NotAuthorized // RFC 6120 §4.9.3.12
		}
	}
}

// handshake takes the connection into TLS. The certificate is that of domain, or the one that SNI asks for when it is empty.
func (c *conn) handshake(ctx context.Context, domain string) error {
	var protocols []string
	if c.mode == DirectTLS {
		protocols = []string{ALPN}
	}
	c.wire = nil // no XML from here until TLS works, not even an error (RFC 6120 §5.4.3.2)
	t := tls.Server(c.sock, c.server.certs.PeerConfig(domain, protocols...))
	if err := t.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.secured(t)
	return nil
}

// open reads what a stream header claims (RFC 6120 §4.7).
func (c *conn) open(h *stream.Header) error {
	to, ok := domain(h.To)
	from, named := domain(h.From)
	if !ok {
		c.id = rand.Text()
		if h.To == "" {
			return streamerr.ImproperAddressing
		}
		return streamerr.HostUnknown
	}
	if h.From != "" && !named {
		return streamerr.ImproperAddressing // RFC 6120 §4.9.3.7
	}
	claim := pair{to, from}
	if c.frozen && claim != c.domains {
		return streamerr.InvalidFrom // what SASL has proven is for the domains that were named before it
	}
	c.domains = claim
	c.id = rand.Text() // RFC 6120 §4.7.3: unpredictable
	c.lang = ""
	if len(h.Lang) <= maxLang {
		c.lang = h.Lang
	}
	switch {
	case !c.server.ours(to):
		c.domains.local = "" // RFC 6120 §4.9.1.3: the header of the answer names no domain that is not here
		return streamerr.HostUnknown
	case from != "" && !c.cfg.Policy.allowed(from):
		return streamerr.PolicyViolation
	case from != "" && c.server.ours(from):
		return streamerr.InvalidFrom // nobody else speaks for a domain of this server
	case h.Version == "" || h.Version[0] != '1': // RFC 6120 §4.7.5; before version 1.0 there was no TLS
		return streamerr.UnsupportedVersion
	}
	return nil
}

// maxLang bounds xml:lang of the stream header in bytes. chosen: RFC 5646 §4.4.1 wants 35 at least.
const maxLang = 64

// greet answers the header of a stream inside of TLS with the own one and the features.
func (c *conn) greet(h *stream.Header) error {
	if err := c.open(h); err != nil {
		return err
	}
	if err := c.send(stream.AppendFeatures(c.header(), c.features()...)); err != nil {
		return err
	}
	if c.frozen {
		c.offer(c.domains)
	}
	return nil
}

// reopened is a stream header after SASL (RFC 6120 §6.4.6).
func (c *conn) reopened(h *stream.Header) error {
	if c.outgoing || c.opened {
		return streamerr.BadFormat
	}
	return c.greet(h)
}

// features are what this server offers at this point of the stream.
func (c *conn) features() []*xmpp.Element {
	var list []*xmpp.Element
	if !c.frozen {
		// XEP-0178 §3 step 9: only a peer whose certificate is for the domain that it names.
		if c.external = c.domains.remote != "" && c.certified(c.domains.remote) == nil; c.external {
			list = append(list, xmpp.El(nsSASL, "mechanisms").Add(xmpp.El("", "mechanism").Say("EXTERNAL")))
		}
		if c.cfg.Bidi {
			list = append(list, xmpp.El(nsBidiFeature, "bidi"))
		}
	}
	list = append(list, xmpp.El(nsDialbackFeature, "dialback").Add(xmpp.El("", "errors")), xmpp.El(xmpp.NSSM, "sm"))
	limits := c.cfg.Unauthenticated
	if c.frozen {
		limits = c.cfg.Authenticated
	}
	if limits.Bytes > 0 { // XEP-0478 §3.1
		list = append(list, xmpp.El(nsLimits, "limits").Add(xmpp.El("", "max-bytes").Say(strconv.Itoa(limits.Bytes))))
	}
	return list
}

// certified reports why the peer's certificate does not prove domain.
func (c *conn) certified(domain string) error {
	err, ok := c.checks[domain]
	if !ok {
		st := c.tls.ConnectionState()
		err = c.server.verifier.verify(domain, st.PeerCertificates)
		if c.checks == nil || len(c.checks) > maxPairs {
			c.checks = make(map[string]error)
		}
		c.checks[domain] = err
	}
	return err
}

// auth is SASL EXTERNAL: XEP-0178 §3 steps 10 and 11, RFC 4422 appendix A.
func (c *conn) auth(n *stream.Nonza) error {
	fail := func(condition string) error {
		c.server.metrics.auth.WithLabelValues("in", string(External), condition).Inc()
		return c.sendElement(xmpp.El(nsSASL, "failure").Add(xmpp.El(nsSASL, condition)))
	}
	if _, any := c.mayUse(pair{}); any || c.frozen {
		return streamerr.NotAuthorized // RFC 6120 §6.3.3: once
	}
	if n.Attr("mechanism") != "EXTERNAL" || !c.external {
		return fail("invalid-mechanism") // RFC 6120 §6.5.7
	}
	text := n.Text()
	authzid := ""
	if text != "" && text != "=" {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(b) > maxDomain {
			return fail("incorrect-encoding") // RFC 6120 §6.5.5
		}
		authzid = string(b)
	}
	if authzid != "" {
		if d, ok := domain(authzid); !ok || d != c.domains.remote {
			return fail("invalid-authzid") // RFC 6120 §6.5.6; the header decides for whom
		}
	}
	if err := c.sendElement(xmpp.El(nsSASL, "success")); err != nil {
		return err
	}
	c.dec.Reset() // RFC 6120 §6.4.6: a new stream
	c.opened, c.frozen = false, true
	c.prove(c.domains, External)
	return nil
}

// maxPairs bounds the pairs of domains of one stream, and the certificates checks that are remembered. chosen: far more than services have.
const maxPairs = 100

// maxPending bounds the dialback requests of one stream that are being verified. chosen: each is a connection of this server.
const maxPending = 4

// resultRequested is a dialback key of the peer: XEP-0220 §2.2.1.
func (c *conn) resultRequested(n *stream.Nonza) error {
	to, ok := domain(n.Attr("to"))
	from, named := domain(n.Attr("from"))
	if !ok || !named {
		return streamerr.ImproperAddressing
	}
	p := pair{to, from}
	fails := func(err error) error {
		c.server.metrics.auth.WithLabelValues("in", string(Dialback), "error").Inc()
		return c.dialbackFails("result", to, from, "", err)
	}
	key := n.Text()
	policy := &c.server.config.Load().Policy // the present one, however old the stream is
	c.mu.Lock()
	_, known := c.proven[p]
	_, asked := c.pending[p]
	many, busy := len(c.proven) >= maxPairs, len(c.pending) >= maxPending
	bidi := c.bidi
	c.mu.Unlock()
	switch {
	case c.outgoing && !bidi:
		return streamerr.NotAuthorized // the peer sends nothing of its own here
	case !c.server.ours(to):
		return fails(xmpp.ErrItemNotFound)
	case c.server.ours(from):
		return fails(xmpp.ErrForbidden)
	case !policy.allowed(from):
		return fails(xmpp.ErrPolicyViolation)
	case len(key) > maxKey:
		return fails(xmpp.ErrNotAcceptable)
	case known || asked:
		// XEP-0220 §2.6: a pair is proven once. What was proven stays so.
		if known {
			return c.sendElement(dialbackElement("result", to, from, "", "valid"))
		}
		return nil
	case many || busy:
		return fails(xmpp.ErrResourceConstraint)
	}
	verr := c.certified(from)
	if verr == nil {
		// XEP-0220 §2.1.1: any method to determine the validity; the certificate is a better one than the key. It proves only the names in it.
		c.prove(p, Certificate)
		if err := c.sendElement(dialbackElement("result", to, from, "", "valid")); err != nil {
			return err
		}
		c.offer(p)
		return nil
	}
	if !policy.dialback(from) {
		c.log.Info("dialback refused", "domain", from, "err", fmt.Sprintf("%.256q", verr.Error()))
		return fails(xmpp.ErrNotAuthorized)
	}
	c.mu.Lock()
	if c.pending == nil {
		c.pending = make(map[pair]struct{})
	}
	c.pending[p] = struct{}{}
	c.mu.Unlock()
	id := c.id
	c.server.tasks.Go(func() {
		_ = listen.Guard(c.log, nil, func() error { c.verifyKey(p, id, key); return nil })
	})
	return nil
}

// verifyKey asks the authoritative server whether a key is valid, and tells the peer: XEP-0220 §2.1.2 and §2.2.1.
func (c *conn) verifyKey(p pair, id, key string) {
	valid, err := c.server.ask(c.cfg, xmpp.Network(c.remote.Addr()), p, id, key)
	c.mu.Lock()
	delete(c.pending, p)
	first := len(c.proven) == 0
	over := c.reason != nil
	c.mu.Unlock()
	switch {
	case over:
	case err != nil:
		c.server.metrics.auth.WithLabelValues("in", string(Dialback), "error").Inc()
		c.log.Info("dialback failed", "domain", p.remote, "err", fmt.Sprintf("%.256q", err.Error()))
		_ = c.dialbackFails("result", p.local, p.remote, "", verifyError(err))
	case valid:
		c.prove(p, Dialback)
		c.use() // it is idle from now on, also if the peer sends nothing more
		if c.sendElement(dialbackElement("result", p.local, p.remote, "", "valid")) == nil {
			c.wakeReader()
			c.offer(p)
		}
	default:
		c.server.metrics.auth.WithLabelValues("in", string(Dialback), "invalid").Inc()
		c.log.Warn("dialback key is invalid", "domain", p.remote)
		if !first {
			_ = c.dialbackFails("result", p.local, p.remote, "", xmpp.ErrForbidden) // the stream serves others already
			return
		}
		_ = c.sendElement(dialbackElement("result", p.local, p.remote, "", "invalid"))
		c.Close(errClosed)
	}
}

// wakeReader lets the reader notice that a domain is proven: the deadline of a stranger does not hold any more.
func (c *conn) wakeReader() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason == nil {
		_ = c.sock.SetReadDeadline(time.Time{})
	}
}

// verifyError is the dialback error for a key that could not be verified: the table of XEP-0220 §2.5.
func verifyError(err error) error {
	var pe peerError
	switch {
	case errors.Is(err, errBusy):
		return xmpp.ErrResourceConstraint
	case errors.As(err, &pe) && pe.condition == streamerr.HostUnknown.Err, errors.Is(err, errDialbackUnknown):
		return xmpp.ErrRemoteNotFound
	case errors.As(err, new(*connectError)):
		return xmpp.Fail(stanza.Cancel, "remote-connection-failed", "")
	}
	return xmpp.ErrRemoteTimeout
}

// verifyRequested answers as the authoritative server: XEP-0220 §2.2.2. The peer need not have proven anything.
func (c *conn) verifyRequested(n *stream.Nonza) error {
	id := n.Attr("id")
	to, ok := domain(n.Attr("to"))
	from, named := domain(n.Attr("from"))
	if !ok || !named || id == "" || len(id) > maxKey {
		return streamerr.ImproperAddressing
	}
	if !c.server.ours(to) {
		return c.dialbackFails("verify", to, from, id, xmpp.ErrItemNotFound)
	}
	typ := "invalid"
	if sameKey(dialbackKey(c.server.secret, from, to, id), n.Text()) {
		typ = "valid"
	}
	c.server.metrics.verified.WithLabelValues(typ).Inc()
	return c.sendElement(dialbackElement("verify", to, from, id, typ))
}

// dialbackFails is an answer of type error (XEP-0220 §2.5). from is whom the peer has asked.
func (c *conn) dialbackFails(what, from, to, id string, err error) error {
	return c.sendElement(dialbackElement(what, from, to, id, "error").Add(xmpp.ErrorElement(err)))
}
