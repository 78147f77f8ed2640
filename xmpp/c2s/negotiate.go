package c2s

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
	streamerr "mellium.im/xmpp/stream"
)

// Namespaces of stream negotiation.
const (
	nsTLS      = "urn:ietf:params:xml:ns:xmpp-tls"     // RFC 6120 §5
	nsSASL     = "urn:ietf:params:xml:ns:xmpp-sasl"    // RFC 6120 §6
	nsBind     = "urn:ietf:params:xml:ns:xmpp-bind"    // RFC 6120 §7
	nsSession  = "urn:ietf:params:xml:ns:xmpp-session" // RFC 3921 §3, obsolete
	nsCB       = "urn:xmpp:sasl-cb:0"                  // XEP-0440
	nsLimits   = "urn:xmpp:stream-limits:0"            // XEP-0478
	nsPing     = "urn:xmpp:ping"                       // XEP-0199
	nsRegister = "jabber:iq:register"                  // XEP-0077
)

// errClosed ends a negotiation that the client ended itself.
var errClosed = errors.New("stream closed by the client")

// negotiate takes the stream from its first byte to a bound resource: RFC 6120 §4.3.2. TLS, authentication, binding, in this order and
// nothing else before.
func (c *conn) negotiate(ctx context.Context) error {
	if c.over != nil {
		c.over.SetLimits(c.cfg.Unauthenticated)
		return c.login(ctx) // RFC 7395 §3.9, XEP-0206 §4: TLS, or what stands for it, is around the transport
	}
	c.dec = stream.NewDecoder(xmpp.NSClient, c.cfg.Unauthenticated)
	c.wire = c.sock
	if err := c.deadline(c.cfg.TLSTimeout); err != nil {
		return err
	}
	if c.mode == DirectTLS {
		if err := c.handshake(ctx, ""); err != nil {
			return err
		}
	} else if err := c.startTLS(ctx); err != nil {
		return err
	}
	return c.login(ctx)
}

// login is what follows TLS.
func (c *conn) login(ctx context.Context) error {
	// An absolute deadline: dripping bytes does not extend it.
	if err := c.deadline(c.cfg.LoginTimeout); err != nil {
		return err
	}
	ready, sasl2, err := c.authenticate(ctx)
	if err != nil || ready {
		return err
	}
	if !sasl2 {
		c.setLimits(c.cfg.Authenticated)
		if err := c.openStream(func() []byte { return c.features(false) }); err != nil {
			return err
		}
	}
	return c.bind(ctx)
}

// deadline bounds what follows, counted from accept. Whoever has closed the connection before gets his way: it would take the wake-up away.
func (c *conn) deadline(d time.Duration) error {
	set := c.setDeadline
	if c.over == nil {
		set = c.sock.SetDeadline
	}
	if err := set(c.since.Add(d)); err != nil {
		return err
	}
	return c.ended()
}

// next reads the next event while the connection blocks.
func (c *conn) next() (stream.Event, error) {
	if c.over != nil {
		ev, _, _, err := c.over.Receive()
		return ev, err
	}
	for {
		ev, err := c.dec.Next()
		if !errors.Is(err, stream.ErrMore) {
			return ev, err
		}
		if c.readBuf == nil {
			c.readBuf = make([]byte, 2048) // chosen: what a login sends at once; released when the session is bound
		}
		n, err := c.wire.Read(c.readBuf)
		if n > 0 {
			c.dec.Feed(c.readBuf[:n])
			continue
		}
		if err != nil {
			return stream.Event{}, err
		}
	}
}

// send writes elements while the stream is negotiated.
func (c *conn) send(elements ...[]byte) error {
	if c.over != nil {
		return c.sendOver(elements)
	}
	b := elements[0]
	if len(elements) > 1 {
		b = bytes.Join(elements, nil)
	}
	_, err := c.wire.Write(b)
	return err
}

func (c *conn) sendStanza(s *xmpp.Stanza) error {
	if c.over != nil {
		return c.send(s.AppendStandalone(nil))
	}
	return c.send(s.AppendTo(nil))
}

// greet answers the client's stream header with the server's and the features.
func (c *conn) greet(features []byte) error {
	if c.over == nil {
		return c.send(append(stream.AppendHeader(nil, c.header()), features...))
	}
	if err := c.over.Open(c.header()); err != nil {
		return err
	}
	return c.send(stream.Standalone(features))
}

// restart makes the next thing that the client sends a stream header (RFC 6120 §6.4.6).
func (c *conn) restart() {
	if c.over != nil {
		c.over.Restart()
	} else {
		c.dec.Reset()
	}
	c.opened = false
}

func (c *conn) setLimits(l stream.Limits) {
	if c.over != nil {
		c.over.SetLimits(l)
	} else {
		c.dec.SetLimits(l)
	}
}

// maxLang bounds xml:lang of the stream header in bytes. chosen: RFC 5646 §4.4.1 wants 35 at least.
const maxLang = 64

// open reads the client's stream header and answers it with the server's and the features (RFC 6120 §4.2, §4.3, §4.7).
func (c *conn) openStream(features func() []byte) error {
	ev, err := c.next()
	if err != nil {
		return err
	}
	if ev.Kind == stream.Close {
		return errClosed
	}
	if ev.Kind != stream.Open {
		return streamerr.BadFormat
	}
	h := ev.Header
	to, err := jid.Parse(h.To)
	domain := to.Domainpart()
	switch {
	case h.To == "" || err != nil || to.Localpart() != "" || to.Resourcepart() != "":
		return streamerr.ImproperAddressing // RFC 6120 §4.9.3.7
	case !c.server.router.Serves(domain):
		return streamerr.HostUnknown // RFC 6120 §4.9.3.6
	case c.domain != "" && c.domain != domain:
		// A stream restart does not move to another domain: what TLS and SASL proved was for the first one.
		return streamerr.HostUnknown
	}
	c.domain = domain
	if major, _, _ := strings.Cut(h.Version, "."); !supported(major) {
		return streamerr.UnsupportedVersion // RFC 6120 §4.7.5
	}
	if len(h.Lang) > maxLang {
		return streamerr.PolicyViolation // it goes with every stanza of the client (RFC 6120 §8.1.5)
	}
	c.lang, c.claimed = h.Lang, "" // RFC 6120 §5.4.3.3: nothing of the stream before is kept
	if h.From != "" {
		from, err := jid.Parse(h.From)
		if err != nil {
			return streamerr.ImproperAddressing
		}
		// RFC 6120 §4.7.1: once the client has authenticated, from has to be its own; before, it is a claim that nothing uses.
		if !c.account.Equal(jid.JID{}) && !from.Bare().Equal(c.account) {
			return streamerr.InvalidFrom // RFC 6120 §4.9.3.9
		}
		if from.Domainpart() != domain {
			return streamerr.InvalidFrom // XEP-0388 §2.1
		}
		c.from, c.claimed = from, from.Bare().String()
	}
	return c.greet(features())
}

// supported: RFC 6120 §4.7.5, a major version of at least 1.
func supported(major string) bool {
	n, err := strconv.ParseUint(major, 10, 16)
	return err == nil && n >= 1
}

// header is the server's stream header (RFC 6120 §4.7). Before an error in the client's own header its from is a domain of the server (§4.9.1.3).
func (c *conn) header() stream.Header {
	c.opened = true
	return stream.Header{From: cmp.Or(c.domain, c.cfg.Domain), To: c.claimed, ID: rand.Text(), Version: "1.0", Lang: "en", Content: xmpp.NSClient}
}

// startTLS is RFC 6120 §5: nothing but <starttls/> is accepted on a stream without TLS.
func (c *conn) startTLS(ctx context.Context) error {
	err := c.openStream(func() []byte {
		return stream.AppendFeatures(nil, xmpp.El(nsTLS, "starttls").Add(xmpp.El(nsTLS, "required"))) // RFC 6120 §5.3.1
	})
	if err != nil {
		return err
	}
	for {
		ev, err := c.next()
		if err != nil {
			return err
		}
		switch {
		case ev.Kind == stream.Close:
			return errClosed
		case ev.Kind == stream.Nonzas && ev.Element.Space == nsTLS && ev.Element.Local == "starttls":
			// RFC 6120 §5.3.3 forbids whitespace behind <starttls/>, but the clients made with go-xmpp send a line end with it: the decoder
			// skips that, and nothing of it reaches the new stream.
			if _, err := c.dec.Next(); !errors.Is(err, stream.ErrMore) || c.dec.Buffered() > 0 {
				// RFC 6120 §5.4.3.3: whatever else came in clear behind it was not said by the client over TLS.
				if err := c.send(xmpp.El(nsTLS, "failure").AppendTo(nil, "")); err != nil {
					return err
				}
				return errClosed
			}
			if err := c.send(xmpp.El(nsTLS, "proceed").AppendTo(nil, "")); err != nil {
				return err
			}
			if err := c.handshake(ctx, c.domain); err != nil {
				return err
			}
			c.dec = stream.NewDecoder(xmpp.NSClient, c.cfg.Unauthenticated) // RFC 6120 §5.4.3.3: a new stream
			c.opened = false
			return nil
		case ev.Kind == stream.Nonzas && ev.Element.Space == nsSASL && ev.Element.Local == "auth":
			// RFC 6120 §6.5.4
			if err := c.failure(ctx, "", auth.Failure{Condition: "encryption-required"}); err != nil {
				return err
			}
			if c.tries++; c.tries >= c.cfg.LoginTries {
				return streamerr.PolicyViolation
			}
		default:
			return streamerr.NotAuthorized // RFC 6120 §4.9.3.12
		}
	}
}

// handshake takes the connection into TLS. The certificate is that of domain, or the one that SNI asks for when it is empty.
func (c *conn) handshake(ctx context.Context, domain string) error {
	var alpn []string
	if c.mode == DirectTLS {
		alpn = []string{ALPN}
	}
	if c.tls != nil { // Take: it was done
		c.secured(c.tls, domain)
		return nil
	}
	c.wire = nil // no XML from here until TLS works, not even an error (RFC 6120 §5.4.3.2)
	t := tls.Server(c.sock, c.server.certs.ServerConfig(domain, alpn...))
	if err := t.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.secured(t, domain)
	return nil
}

// secured goes on with t, which has done its handshake.
func (c *conn) secured(t *tls.Conn, domain string) {
	c.tls, c.wire = t, t
	st := t.ConnectionState()
	c.tlsState = &st
	name := domain
	if name == "" {
		name = st.ServerName
	}
	c.channel = auth.Channel{TLS: &st, Cert: c.server.certs.Leaf(name), Remote: c.remote}
}

// limits is XEP-0478 §3.1.
func (c *conn) limits(l stream.Limits) *xmpp.Element {
	el := xmpp.El(nsLimits, "limits")
	if l.Bytes > 0 {
		el.Add(xmpp.El("", "max-bytes").Say(strconv.Itoa(l.Bytes)))
	}
	if c.cfg.PingAfter > 0 {
		el.Add(xmpp.El("", "idle-seconds").Say(strconv.Itoa(int(c.cfg.PingAfter / time.Second))))
	}
	return el
}

// authenticate is RFC 6120 §6 and XEP-0388 beside it: up to LoginTries attempts on one stream, then success. sasl2 says that the stream goes
// on and its features were sent; ready that a resource is bound as well.
func (c *conn) authenticate(ctx context.Context) (ready, sasl2 bool, err error) {
	offered := c.server.auth.Mechanisms(c.channel)
	err = c.openStream(func() []byte {
		bindings, fast := c.server.auth.ChannelBindings(c.channel), c.server.auth.FastMechanisms(c.channel)
		offer := c.server.offers.get(c.cfg, offerKey("login", c.domain, offered, bindings, fast), func() offer { return c.offer(offered, bindings, fast) })
		c.version = offer.version
		return offer.features
	})
	if err != nil {
		return false, false, err
	}
	for {
		ev, err := c.next()
		if err != nil {
			return false, false, err
		}
		failed := false
		switch n := ev.Element; {
		case ev.Kind == stream.Close:
			return false, false, errClosed
		case ev.Kind == stream.Nonzas && n.Space == nsSASL && n.Local == "auth":
			done, err := c.exchange(ctx, n, offered)
			if err != nil || done {
				return false, false, err
			}
			failed = true
		case ev.Kind == stream.Nonzas && n.Space == nsSASL2 && n.Local == "authenticate":
			done, ready, err := c.sasl2(ctx, n, offered)
			if err != nil || done {
				return ready, true, err
			}
			failed = true
		case ev.Kind == stream.Nonzas && (n.Space == nsSASL || n.Space == nsSASL2) && n.Local == "abort":
			// RFC 6120 §6.4.4: there is nothing to abort between two exchanges, and the answer is the same.
			if err := c.fail(ctx, n.Space, "", auth.Failure{Condition: "aborted"}); err != nil {
				return false, false, err
			}
			failed = true
		case ev.Kind == stream.Stanzas && c.server.reg != nil && registers(ev.Stanza):
			if err := c.register(ctx, ev.Stanza); err != nil {
				return false, false, err
			}
		default:
			return false, false, streamerr.NotAuthorized // RFC 6120 §4.9.3.12
		}
		if failed {
			if c.tries++; c.tries-c.unbound >= c.cfg.LoginTries {
				return false, false, streamerr.PolicyViolation // RFC 6120 §6.4.5
			}
		}
	}
}

func registers(s *xmpp.Stanza) bool {
	p, ok := s.Payload()
	return s.IsRequest() && ok && p.Space == nsRegister && p.Local == "query"
}

// register answers in-band registration before authentication: XEP-0077 §3.1. The stanza's addresses are the client's claim.
func (c *conn) register(ctx context.Context, iq *xmpp.Stanza) error {
	if c.registrations++; c.registrations > 10 { // chosen: a form, a few names that are taken, a weak password
		return streamerr.PolicyViolation
	}
	iq = iq.With(jid.JID{}, jid.JID{})
	if iq.ID == "" {
		return c.sendStanza(iq.Bounce(xmpp.ErrBadRequest))
	}
	el, err := c.server.reg.Unauthenticated(ctx, c.domain, c.remote, iq)
	if err != nil {
		if _, expected := xmpp.AsStanzaError(err); !expected {
			c.log.Error("register account", "err", err)
		}
		return c.sendStanza(iq.Bounce(err))
	}
	return c.sendStanza(iq.Result(el))
}

// exchange is one SASL exchange: RFC 6120 §6.4.2 to §6.4.6. done is set when the client has authenticated.
func (c *conn) exchange(ctx context.Context, el *stream.Nonza, offered []string) (done bool, err error) {
	name := el.Attr("mechanism")
	ex, err := c.server.auth.Start(ctx, c.domain, name, c.channel, offered)
	if err != nil {
		return false, c.failure(ctx, "other", err)
	}
	for {
		var challenge []byte
		in, present, err := auth.DecodeBase64(el.Text())
		if err == nil {
			challenge, done, err = ex.Step(ctx, in, present)
		}
		if err != nil {
			return false, c.failure(ctx, name, err)
		}
		text := ""
		if challenge != nil {
			text = base64.StdEncoding.EncodeToString(challenge)
		}
		if done {
			c.account, c.proof = ex.Account(), ex // the identity of the session comes from here alone
			c.server.metrics.auth.WithLabelValues(name, "success").Inc()
			c.log.Debug("authenticated", "mechanism", name)
			if err := c.send(xmpp.El(nsSASL, "success").Say(text).AppendTo(nil, "")); err != nil {
				return false, err
			}
			c.restart()
			return true, nil
		}
		if err := c.send(xmpp.El(nsSASL, "challenge").Say(text).AppendTo(nil, "")); err != nil {
			return false, err
		}
		ev, err := c.next()
		switch {
		case err != nil:
			return false, err
		case ev.Kind == stream.Close:
			return false, errClosed
		case ev.Kind == stream.Nonzas && ev.Element.Space == nsSASL && ev.Element.Local == "abort":
			return false, c.failure(ctx, name, auth.Failure{Condition: "aborted"}) // RFC 6120 §6.5.1
		case ev.Kind == stream.Nonzas && ev.Element.Space == nsSASL && ev.Element.Local == "response":
			el = ev.Element
		case ev.Kind == stream.Nonzas && ev.Element.Space == nsSASL && ev.Element.Local == "auth":
			// RFC 6120 §6.4.2: it replaces the handshake that is under way, which was a try.
			if c.tries++; c.tries-c.unbound >= c.cfg.LoginTries {
				return false, streamerr.PolicyViolation
			}
			return c.exchange(ctx, ev.Element, offered)
		default:
			return false, streamerr.NotAuthorized
		}
	}
}

// failure answers an exchange of RFC 6120 that failed.
func (c *conn) failure(ctx context.Context, mechanism string, err error) error {
	return c.fail(ctx, nsSASL, mechanism, err)
}

// fail answers an exchange that failed: RFC 6120 §6.5, XEP-0388 §2.6.2. The condition is in the namespace of RFC 6120 in both.
func (c *conn) fail(ctx context.Context, space, mechanism string, err error) error {
	var f auth.Failure
	if !errors.As(err, &f) {
		if ctx.Err() != nil {
			return err
		}
		c.log.Error("authenticate", "err", err)
		f = auth.Failure{Condition: "temporary-auth-failure"} // RFC 6120 §6.5.11
	}
	if f.Unbound && c.unbound < len(c.server.auth.Mechanisms(c.channel)) {
		c.unbound++
	}
	if mechanism != "" {
		c.server.metrics.auth.WithLabelValues(mechanism, f.Condition).Inc()
	}
	level := slog.LevelInfo
	if f.Condition == "temporary-auth-failure" {
		level = slog.LevelError
	}
	c.log.Log(ctx, level, "authentication failed", "mechanism", mechanism, "condition", f.Condition, "err", err)
	el := xmpp.El(space, "failure").Add(xmpp.El(nsSASL, f.Condition))
	if f.Text != "" {
		el.Add(xmpp.El("", "text", "xml:lang", "en").Say(f.Text))
	}
	return c.send(el.AppendTo(nil, ""))
}

// offer is what a client may log in with.
func (c *conn) offer(offered, bindings, fast []string) offer {
	mechanisms := xmpp.El(nsSASL, "mechanisms")
	for _, m := range offered {
		mechanisms.Add(xmpp.El("", "mechanism").Say(m))
	}
	features := []*xmpp.Element{mechanisms, c.authentication(offered, fast)}
	if len(bindings) > 0 {
		types := xmpp.El(nsCB, "sasl-channel-binding") // XEP-0440 §2
		for _, b := range bindings {
			types.Add(xmpp.El("", "channel-binding", "type", b))
		}
		features = append(features, types)
	}
	if c.server.reg != nil {
		if f := c.server.reg.StreamFeature(c.domain); f != nil {
			features = append(features, f)
		}
	}
	features = append(features, c.limits(c.cfg.Unauthenticated))
	named, version := versioned(features)
	return offer{stream.AppendFeatures(nil, append(features, named)...), version}
}

// features are those of an authenticated stream, bound or not.
func (c *conn) features(bound bool) []byte {
	what := "unbound"
	if bound {
		what = "bound"
	}
	if c.counting {
		what += ", counting"
	}
	return c.server.offers.get(c.cfg, offerKey(what, c.domain), func() offer {
		return offer{features: stream.AppendFeatures(nil, c.authenticated(bound)...)}
	}).features
}

func (c *conn) authenticated(bound bool) []*xmpp.Element {
	var features []*xmpp.Element
	if !bound {
		features = append(features,
			xmpp.El(nsBind, "bind").Add(xmpp.El("", "required")),
			xmpp.El(nsSession, "session").Add(xmpp.El("", "optional"))) // old clients want it announced
	}
	if !c.counting {
		// XEP-0198 §3. Enabled inline it is no longer applicable (XEP-0388 §2.6.1): xmpp.js would enable it again, which is an error.
		features = append(features, xmpp.El(xmpp.NSSM, "sm"))
	}
	features = append(features, xmpp.El(nsCSI, "csi")) // XEP-0352 §3
	for _, f := range c.server.router.Registry().StreamFeatures {
		if el := f(c.domain); el != nil {
			features = append(features, el)
		}
	}
	return append(features, c.limits(c.cfg.Authenticated))
}

// link is what is told of the connection.
func (c *conn) link() link {
	l := link{remote: c.remote, transport: c.mode.String()}
	if c.over != nil {
		l.transport = "HTTP"
		if over, ok := c.over.(fmt.Stringer); ok {
			l.transport = over.String()
		}
	}
	if c.tlsState != nil {
		l.version, l.suite = c.tlsState.Version, c.tlsState.CipherSuite
	}
	return l
}

// bindResource makes the session, whose outbox waits until run. m is stream management from the first stanza on, nil for none.
func (c *conn) bindResource(ctx context.Context, resource string, m *management) error {
	// Clients take whatever comes before the answer for the answer: what is routed to the new session waits in the outbox until run.
	c.out.Store(c.newOutbox())
	sess := &session{server: c.server, conn: c, last: c.link(), since: time.Now(), agent: c.agent, sm: m, takeover: make(chan struct{}, 1)}
	bound, err := c.server.router.Bind(ctx, c.account, resource, sess)
	if err != nil {
		c.server.redeliver(c.log, c.account, c.out.Load().close()) // it was in the table for a moment
		return err
	}
	sess.mu.Lock()
	sess.bound = bound
	sess.mu.Unlock()
	c.session = sess
	return nil
}

// bind is RFC 6120 §7: the only thing that an authenticated stream accepts before it is bound, beside resumption.
func (c *conn) bind(ctx context.Context) error {
	for tries := 0; tries < 10; tries++ { // chosen: a client that cannot get a resource in ten tries will not
		ev, err := c.next()
		if err != nil {
			return err
		}
		if ev.Kind == stream.Close {
			return errClosed
		}
		if ev.Kind == stream.Nonzas && ev.Element.Space == xmpp.NSSM {
			if ev.Element.Local != "resume" {
				// XEP-0198 §3: only on a bound stream.
				if err := c.send(xmpp.SMFailed(stanza.UnexpectedRequest, "").AppendTo(nil, "")); err != nil {
					return err
				}
				continue
			}
			if ok, err := c.resume(ctx, ev.Element); ok || err != nil {
				return err
			}
			continue
		}
		if ev.Kind != stream.Stanzas || ev.Stanza.Kind != xmpp.IQ || !ev.Stanza.Has(nsBind, "bind") {
			return streamerr.NotAuthorized // RFC 6120 §7.1
		}
		iq := ev.Stanza.With(jid.JID{}, jid.JID{})
		resource, err := requested(iq)
		if err == nil {
			err = c.bindResource(ctx, resource, nil)
		}
		if err == nil {
			if c.proof.Outdated() {
				// A new password, or a deletion, ends the sessions that are in the table; this one was not there yet.
				return streamerr.NotAuthorized
			}
			full := c.session.bound.JID().String()
			return c.sendStanza(iq.Result(xmpp.El(nsBind, "bind").Add(xmpp.El("", "jid").Say(full))))
		}
		if err := c.sendStanza(iq.Bounce(err)); err != nil {
			return err
		}
	}
	return streamerr.PolicyViolation
}

// requested is the resource that a bind request asks for, "" for one that the server generates (RFC 6120 §7.6, §7.7).
func requested(iq *xmpp.Stanza) (string, error) {
	if iq.Type != "set" || iq.ID == "" || len(iq.Spans()) != 1 {
		return "", xmpp.ErrBadRequest
	}
	var v struct {
		Resource string `xml:"urn:ietf:params:xml:ns:xmpp-bind resource"`
	}
	p, _ := iq.Payload()
	if err := p.Decode(&v); err != nil {
		return "", xmpp.Fail(stanza.Modify, stanza.BadRequest, "")
	}
	return v.Resource, nil
}
