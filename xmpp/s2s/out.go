package s2s

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/stanza"
	streamerr "mellium.im/xmpp/stream"
)

// purpose is what a connection to another server is opened for.
type purpose uint8

const (
	toSend    purpose = iota // stanzas
	toVerify                 // a dialback key
	toExplain                // nothing: it ends when it is known how a stream would be authenticated
)

// connectError is that no stream could be opened: nothing of it is the peer's decision.
type connectError struct {
	err error
	dns bool // already finding addresses has failed
}

func (e *connectError) Error() string { return e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

// certificateError is that the policy wants a valid certificate and the peer has none.
type certificateError struct{ err error }

func (e *certificateError) Error() string {
	return "the certificate does not prove the domain: " + e.err.Error()
}
func (e *certificateError) Unwrap() error { return e.err }

var (
	errNoTLS           = errors.New("the server offers no TLS")
	errBusy            = errors.New("too many domains are being verified")
	errDialbackInvalid = errors.New("the peer found the dialback key invalid")
	errDialbackUnknown = errors.New("the server does not know its domain")
	errNotAllowed      = errors.New("the configuration does not allow this domain")
)

// dialbackError is a dialback error that the peer has answered with.
type dialbackError struct{ condition string }

func (e dialbackError) Error() string { return "the peer answered dialback with " + e.condition }

// tracer is told what happens, for people; nil for nobody.
type tracer func(format string, args ...any)

func (t tracer) say(format string, args ...any) {
	if t != nil {
		t(format, args...)
	}
}

// dial opens a stream for a pair: it tries the targets of the remote domain until one works. For toSend the stream is authenticated.
func (s *Server) dial(ctx context.Context, cfg *Config, p pair, why purpose, resume *session, trace tracer) (*conn, error) {
	if !cfg.Policy.allowed(p.remote) {
		return nil, errNotAllowed
	}
	targets, err := s.discover(ctx, cfg, p.remote)
	if err != nil {
		trace.say("DNS: %s", explainDNS(err))
		return nil, &connectError{err, true}
	}
	for _, t := range targets {
		trace.say("target: %s (%s, priority %d, weight %d)", t, t.source, t.priority, t.weight)
	}
	var last error
	for lo := 0; lo < len(targets) && ctx.Err() == nil; { // XEP-0495 §4.1: one priority after the other
		hi := lo + 1
		for hi < len(targets) && targets[hi].priority == targets[lo].priority {
			hi++
		}
		endpoints, err := s.resolve(ctx, cfg, targets[lo:hi])
		if err != nil {
			trace.say("addresses: %s", explainDNS(err))
			last = worse(last, &connectError{err, true})
		}
		for _, e := range endpoints {
			trace.say("address: %s of %s", e.addr, e.host)
		}
		for len(endpoints) > 0 && ctx.Err() == nil {
			tcp, at, rest, err := race(ctx, endpoints)
			if err != nil {
				trace.say("connect: %v", err)
				last = worse(last, &connectError{err, false})
				break
			}
			trace.say("connect: to %s", at.addr)
			endpoints = rest
			c, err := s.initiate(ctx, cfg, tcp, at, p, why, resume, trace)
			if err == nil {
				return c, nil
			}
			trace.say("stream: %v", err)
			last = worse(last, err)
		}
		lo = hi
	}
	if last == nil || ctx.Err() != nil && errors.As(last, new(*connectError)) {
		last = &connectError{ctx.Err(), false}
	}
	return nil, last
}

// worse chooses which of two failures is told: what a server has said goes before that another one could not be reached.
func worse(a, b error) error {
	var ca, cb *connectError
	switch {
	case a == nil:
		return b
	case errors.As(b, &cb) && (!errors.As(a, &ca) || !ca.dns):
		return a
	}
	return b
}

// initiate takes a connection through the negotiation: RFC 6120 §4.3, XEP-0178 §3, XEP-0220 §2.1.1. On an error it is closed.
func (s *Server) initiate(ctx context.Context, cfg *Config, tcp *net.TCPConn, at endpoint, p pair, why purpose, resume *session, trace tracer) (_ *conn, err error) {
	c, err := s.outgoing(tcp, cfg, at, p)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			if reason := c.ended(); reason != nil {
				err = reason
			}
			c.abandon(err)
		}
	}()
	end := time.Now().Add(cfg.LoginTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	if err := c.deadline(end); err != nil {
		return nil, err
	}
	if err := c.secure(ctx, at, trace); err != nil {
		return nil, err
	}
	f, err := c.begin()
	if err != nil {
		return nil, err
	}
	trace.say("stream: features %s", f)
	switch why {
	case toVerify:
		return c, nil
	case toExplain:
		c.explain(f, trace)
		return c, nil
	}
	how, f, err := c.authenticate(f)
	if err != nil {
		return nil, err
	}
	if c.both() {
		c.prove(p, how) // XEP-0288: the domain is the one that was connected to, and was verified as the policy wants
	}
	c.how = how
	s.metrics.auth.WithLabelValues("out", string(how), "success").Inc()
	c.raised = true
	c.out.trust()
	c.dec.SetLimits(cfg.Authenticated)
	c.dec.ManyAddresses()
	if f.SM != nil && cfg.Management.Stanzas > 0 {
		if err := c.startManagement(resume); err != nil {
			return nil, err
		}
	}
	c.buf = nil
	if err := c.sock.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	if err := c.ended(); err != nil {
		return nil, err
	}
	c.budget = s.budgets.get(p.remote)
	c.use()
	c.log.Info("stream opened", "domain", p.remote, "for", p.local, "method", string(how))
	return c, nil
}

// features are those of the peer.
type features struct {
	StartTLS *struct{} `xml:"urn:ietf:params:xml:ns:xmpp-tls starttls"`
	SASL     []string  `xml:"urn:ietf:params:xml:ns:xmpp-sasl mechanisms>mechanism"`
	Bidi     *struct{} `xml:"urn:xmpp:features:bidi bidi"`
	Dialback *struct{} `xml:"urn:xmpp:features:dialback dialback"`
	SM       *struct{} `xml:"urn:xmpp:sm:3 sm"`
}

// String lists them, for people.
func (f features) String() string {
	var list []string
	for _, e := range []struct {
		name string
		has  bool
	}{{"starttls", f.StartTLS != nil}, {"SASL " + strings.Join(f.SASL, " "), len(f.SASL) > 0}, {"dialback", f.Dialback != nil},
		{"bidi", f.Bidi != nil}, {"sm", f.SM != nil}} {
		if e.has {
			list = append(list, e.name)
		}
	}
	if len(list) == 0 {
		return "(none)"
	}
	return strings.Join(list, ", ")
}

func (f features) external() bool {
	for _, m := range f.SASL {
		if strings.TrimSpace(m) == "EXTERNAL" {
			return true
		}
	}
	return false
}

// begin opens the stream and reads the peer's header and features.
func (c *conn) begin() (f features, err error) {
	if err := c.send(c.header()); err != nil {
		return f, err
	}
	ev, err := c.next()
	if err != nil {
		return f, err
	}
	if ev.Kind != stream.Open {
		return f, streamerr.BadFormat
	}
	if len(ev.Header.ID) > maxKey {
		return f, streamerr.PolicyViolation
	}
	c.id = ev.Header.ID
	if len(ev.Header.Lang) <= maxLang {
		c.lang = ev.Header.Lang
	}
	if ev.Header.Version == "" {
		return f, nil // before RFC 3920 there were no features
	}
	n, err := c.element(xmpp.NSStream, "features")
	if err != nil {
		return f, err
	}
	return f, n.Decode(&f)
}

// element reads the next element, which must have one of the names: namespace and local names. Nothing but stream errors is expected beside it.
func (c *conn) element(space string, locals ...string) (*stream.Nonza, error) {
	ev, err := c.next()
	switch {
	case err != nil:
		return nil, err
	case ev.Kind == stream.Close:
		return nil, errClosed
	case ev.Kind != stream.Nonzas:
		return nil, streamerr.NotAuthorized
	case ev.Element.Space == xmpp.NSStream && ev.Element.Local == "error":
		return nil, peerError{errorCondition(ev.Element)}
	case ev.Element.Space == space:
		for _, l := range locals {
			if ev.Element.Local == l {
				return ev.Element, nil
			}
		}
	}
	return nil, fmt.Errorf("the peer sent an unexpected element %.64q", ev.Element.Local)
}

// secure takes the connection into TLS and looks at the peer's certificate, before anything else is said: RFC 6120 §5, XEP-0368, RFC 7590.
func (c *conn) secure(ctx context.Context, at endpoint, trace tracer) error {
	var protocols []string
	if at.direct {
		protocols = []string{ALPN}
	} else {
		f, err := c.begin()
		if err != nil {
			return err
		}
		if f.StartTLS == nil {
			return errNoTLS // RFC 7590 §3.3: nothing is sent in clear
		}
		if err := c.sendElement(xmpp.El(nsTLS, "starttls")); err != nil {
			return err
		}
		n, err := c.element(nsTLS, "proceed", "failure")
		if err != nil {
			return err
		}
		if n.Local == "failure" {
			return errNoTLS
		}
		if c.dec.Buffered() > 0 {
			return streamerr.BadFormat // RFC 6120 §5.4.3.3: it was not said over TLS
		}
	}
	c.wire = nil
	tc := c.server.certs.DialConfig(c.domains.local, protocols...).Clone()
	tc.ServerName = xmpp.ASCII(c.domains.remote) // XEP-0368 §3 rule 6
	tc.InsecureSkipVerify = true                 // the verifier decides, below, before anything is sent
	t := tls.Client(c.sock, tc)
	if err := t.HandshakeContext(ctx); err != nil {
		return &connectError{fmt.Errorf("TLS handshake: %w", err), false}
	}
	st := t.ConnectionState()
	c.secured(t)
	c.dec, c.opened = stream.NewDecoder(xmpp.NSServer, c.cfg.Unauthenticated), false
	verr := c.certified(c.domains.remote)
	trace.say("TLS: %s, %s", tls.VersionName(st.Version), tls.CipherSuiteName(st.CipherSuite))
	if len(st.PeerCertificates) > 0 {
		leaf := st.PeerCertificates[0]
		ids, _ := serviceIDs(leaf)
		trace.say("certificate: for %s, by %.128q, until %s", names(leaf, ids), leaf.Issuer.CommonName, leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	if c.valid = verr == nil; c.valid {
		trace.say("certificate: valid for %s", c.domains.remote)
		return nil
	}
	trace.say("certificate: not valid for %s: %v", c.domains.remote, verr)
	if !c.cfg.Policy.dialback(c.domains.remote) {
		return &certificateError{verr}
	}
	return nil
}

// authenticate proves the local domain to the peer. It returns how, and the features of the stream that follows.
func (c *conn) authenticate(f features) (Method, features, error) {
	if f.Bidi != nil && c.cfg.Bidi {
		// XEP-0288 §2.2
		if err := c.sendElement(xmpp.El(nsBidi, "bidi")); err != nil {
			return "", f, err
		}
		c.mu.Lock()
		c.bidi = true
		c.mu.Unlock()
	}
	if f.external() {
		// XEP-0178 §3 step 10: the authorization identity for older servers.
		id := base64.StdEncoding.EncodeToString([]byte(c.domains.local))
		if err := c.sendElement(&xmpp.Element{Space: nsSASL, Local: "auth", Attrs: []xmpp.Attr{{Name: "mechanism", Value: "EXTERNAL"}}, Text: id}); err != nil {
			return "", f, err
		}
		n, err := c.element(nsSASL, "success", "failure")
		if err != nil {
			return "", f, err
		}
		if n.Local == "success" {
			c.dec.Reset() // RFC 6120 §6.4.6
			c.opened = false
			after, err := c.begin()
			return External, after, err
		}
		c.server.metrics.auth.WithLabelValues("out", string(External), "failure").Inc()
		c.log.Info("EXTERNAL failed", "domain", c.domains.remote)
	}
	return Dialback, f, c.dialback()
}

// dialback sends a key and waits for what the peer finds: XEP-0220 §2.1.1.
func (c *conn) dialback() error {
	p := c.domains
	key := dialbackKey(c.server.secret, p.remote, p.local, c.id)
	if err := c.sendElement(dialbackElement("result", p.local, p.remote, "", "").Say(key)); err != nil {
		return err
	}
	for {
		n, err := c.element(nsDialback, "result", "verify")
		if err != nil {
			return err
		}
		typ, err := c.answer(n, "result", p, "")
		if err != nil || typ == "valid" {
			return err
		}
		if typ == "invalid" {
			return errDialbackInvalid
		}
	}
}

// answer reads the type of a dialback answer, if it is the one to a request of this server on this stream; an element that is none is left
// alone, "": XEP-0220 §3.1. A dialback error is the error.
func (c *conn) answer(n *stream.Nonza, what string, p pair, id string) (typ string, err error) {
	to, _ := domain(n.Attr("to"))
	from, _ := domain(n.Attr("from"))
	if n.Local != what || to != p.local || from != p.remote || n.Attr("id") != id && what == "verify" {
		c.server.metrics.refused.WithLabelValues("unsolicited").Inc()
		return "", nil
	}
	switch typ := n.Attr("type"); typ {
	case "valid", "invalid":
		return typ, nil
	case "error":
		return "", dialbackError{stanzaCondition(n)}
	}
	return "", nil
}

// stanzaCondition is the condition in the <error/> of a dialback answer.
func stanzaCondition(n *stream.Nonza) string {
	var v struct {
		Error struct {
			Conditions []struct {
				XMLName xml.Name
			} `xml:",any"`
		} `xml:"error"`
	}
	if n.Decode(&v) == nil {
		for _, c := range v.Error.Conditions {
			if c.XMLName.Space == xmpp.NSStanzas && c.XMLName.Local != "text" {
				return c.XMLName.Local
			}
		}
	}
	return string(stanza.UndefinedCondition)
}

// dialbackAnswered is an answer that nobody waits for: what counts is read where it was asked (XEP-0220 §3.1).
func (c *conn) dialbackAnswered(n *stream.Nonza) error {
	c.server.metrics.refused.WithLabelValues("unsolicited").Inc()
	c.log.Warn("unsolicited dialback answer", "type", fmt.Sprintf("%.16q", n.Attr("type")))
	return nil
}

// ask has the authoritative server of the remote domain look at a key, over a connection for nothing else (XEP-0220 §2.1.2, XEP-0288 §2.2).
// The key came from that address.
func (s *Server) ask(cfg *Config, from netip.Addr, p pair, id, key string) (valid bool, err error) {
	if !s.mayAsk(from) {
		return false, errBusy
	}
	defer s.asked(from)
	select {
	case s.verifying <- struct{}{}:
		defer func() { <-s.verifying }()
	default:
		return false, errBusy
	}
	ctx, cancel := context.WithTimeout(s.ctx, cfg.ConnectTimeout)
	defer cancel()
	c, err := s.dial(ctx, cfg, p, toVerify, nil, nil)
	if err != nil {
		return false, err
	}
	defer func() { c.abandon(err) }()
	if err := c.sendElement(dialbackElement("verify", p.local, p.remote, id, "").Say(strings.TrimSpace(key))); err != nil {
		return false, err
	}
	for {
		n, err := c.element(nsDialback, "verify", "result")
		if err != nil {
			return false, err
		}
		typ, err := c.answer(n, "verify", p, id)
		if de := (dialbackError{}); errors.As(err, &de) && de.condition == string(stanza.ItemNotFound) {
			return false, errDialbackUnknown
		}
		if err != nil || typ != "" {
			return typ == "valid", err
		}
	}
}

// startManagement enables or resumes stream management (XEP-0198 §3, §5) as the initiating side.
func (c *conn) startManagement(resume *session) error {
	if resume == nil {
		return c.askEnable()
	}
	resume.mu.Lock()
	in, id := resume.in, resume.id
	resume.mu.Unlock()
	if err := c.sendElement(xmpp.El(xmpp.NSSM, "resume", "previd", id, "h", strconv.FormatUint(uint64(in), 10))); err != nil {
		return err
	}
	n, err := c.element(xmpp.NSSM, "resumed", "failed")
	if err != nil {
		return err
	}
	h, herr := strconv.ParseUint(n.Attr("h"), 10, 32)
	resume.mu.Lock()
	if n.Local == "failed" {
		var had []*item
		if herr == nil && !resume.behind(uint32(h)) {
			had, _ = resume.ack(uint32(h)) // XEP-0198 §5: what was handled before it timed out
		}
		resume.over = true
		resume.mu.Unlock()
		c.server.done(had...)
		return c.askEnable()
	}
	if herr != nil || n.Attr("previd") != id {
		resume.mu.Unlock()
		return streamerr.BadFormat
	}
	var had []*item
	if !resume.behind(uint32(h)) {
		var ok bool
		if had, ok = resume.ack(uint32(h)); !ok {
			sent := resume.sent()
			resume.over = true
			resume.mu.Unlock()
			return c.tooHigh(uint32(h), sent)
		}
	}
	resume.conn, resume.asked = c, false
	waiting := resume.unacked
	resume.mu.Unlock()
	c.server.done(had...)
	return c.again(resume, nil, waiting)
}
