package s2s

import (
	"context"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/listen"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

// Namespaces of stream negotiation.
const (
	nsTLS         = "urn:ietf:params:xml:ns:xmpp-tls"  // RFC 6120 §5
	nsSASL        = "urn:ietf:params:xml:ns:xmpp-sasl" // RFC 6120 §6
	nsBidiFeature = "urn:xmpp:features:bidi"           // XEP-0288 §2.1
	nsBidi        = "urn:xmpp:bidi"                    // XEP-0288 §2.2
	nsLimits      = "urn:xmpp:stream-limits:0"         // XEP-0478
)

// ALPN is the protocol of server streams with direct TLS (XEP-0368 §3).
const ALPN = "xmpp-server"

// pair is a domain of this server and one of another.
type pair struct{ local, remote string }

var (
	errClosed = errors.New("stream closed by the peer")
	errIdle   = errors.New("the stream was not used any more")
	errSpare  = errors.New("there is another stream for the same domains")
	errLost   = errors.New("the peer does not acknowledge what it gets")
)

// peerError is a stream error that the peer sent.
type peerError struct{ condition string }

func (e peerError) Error() string { return "the peer ended the stream: " + e.condition }

// Mode is how TLS begins on a listener.
type Mode uint8

const (
	// STARTTLS is RFC 6120 §5.
	STARTTLS Mode = iota
	// DirectTLS is XEP-0368.
	DirectTLS
)

// Method is how a pair of domains was proven.
type Method string

// The methods.
const (
	External    Method = "EXTERNAL"    // SASL EXTERNAL with certificates (XEP-0178)
	Certificate Method = "certificate" // dialback that the certificate has answered
	Dialback    Method = "dialback"    // dialback that the authoritative server has answered
)

// conn is one connection with another server, in either direction. One goroutine reads and handles what comes; what goes out passes the writer.
type conn struct {
	// Static after construction.
	server   *Server
	cfg      *Config
	sock     *socket
	mode     Mode
	outgoing bool
	remote   netip.AddrPort
	since    time.Time
	done     chan struct{} // closed when the connection has ended and its session is free

	// Owned by the goroutine that reads.
	log      *slog.Logger
	dec      *stream.Decoder
	wire     io.ReadWriter // sock or tls; nil during the handshake
	buf      []byte
	opened   bool // the own stream header of the present stream was sent
	domains  pair // of the stream header: a claim until it is proven
	lang     string
	id       string // stream id, which the receiving side has given
	external bool   // EXTERNAL was offered
	frozen   bool   // authenticated by SASL: the next header must name the same domains
	raised   bool   // the limits of an authenticated stream hold
	batch    xmpp.Batch
	received uint32 // stanzas of the present read
	wanted   bool   // the peer has asked for an acknowledgement
	settling xmpp.Settling
	detail   *xmpp.Element
	parted   bool             // the peer has read the end of the stream, and closed the connection
	how      Method           // of a connection of this server's; static once it carries stanzas
	valid    bool             // the same of the peer's certificate for its domain
	checks   map[string]error // what the peer's certificate proves, by domain
	budget   *budget

	taken *tls.Conn // of another listener, which has done the handshake; nil: none. Static after construction.

	tls *tls.Conn  // set once, before out
	out *writer    // set once, when TLS is done
	nop sync.Mutex // serialises session and writer: stanzas are counted in the order in which they are written

	// Guarded by nop.
	unsure  []*item // without stream management: lasting stanzas of which nobody knows that the peer has them, in order
	unsized int     // their bytes
	handed  uint64  // how many there were in all
	asking  bool    // a ping is under way

	lastUse atomic.Int64 // Unix nanoseconds: of the last stanza in either direction

	mu sync.Mutex
	// Guarded by mu.
	proven  map[pair]Method
	pending map[pair]struct{} // dialback requests of the peer that are being verified
	links   []*link           // that send over this connection
	session *session          // of stream management; nil: none
	bidi    bool              // both sides send (XEP-0288)
	retired bool              // the own end of the stream was sent, and that of the peer is waited for
	reason  error             // why this server ends the stream; the first one counts
}

// socket is the TCP connection. Until the peer has finished TLS it may send so much and no more: crypto/tls would take a chain of 256 KiB.
type socket struct {
	*net.TCPConn
	outer net.Conn     // what must be closed in its place, or nil; static after construction
	left  atomic.Int64 // bytes that may still be read; negative: unlimited
}

func (s *socket) Close() error {
	if s.outer != nil {
		return s.outer.Close()
	}
	return s.TCPConn.Close()
}

const unlimited = -1 << 62

var errHandshake = errors.New("the TLS handshake is too large")

func (s *socket) Read(p []byte) (int, error) {
	left := s.left.Load()
	if left == unlimited {
		return s.TCPConn.Read(p)
	}
	if left <= 0 {
		return 0, errHandshake
	}
	n, err := s.TCPConn.Read(p[:min(int64(len(p)), left)])
	s.left.Add(int64(-n))
	return n, err
}

// maxHandshake is what a peer may send until TLS is done. chosen: a chain of ten large RSA certificates fits.
const maxHandshake = 48 << 10

func (s *Server) newConn(tcp *net.TCPConn, remote netip.AddrPort, cfg *Config, outgoing bool, mode Mode) *conn {
	c := &conn{server: s, cfg: cfg, sock: &socket{TCPConn: tcp}, mode: mode, outgoing: outgoing, remote: remote, since: time.Now(), done: make(chan struct{}),
		proven: make(map[pair]Method), dec: stream.NewDecoder(xmpp.NSServer, cfg.Unauthenticated)}
	c.sock.left.Store(maxHandshake)
	c.wire = c.sock
	direction := "in"
	if outgoing {
		direction = "out"
	}
	c.log = s.log.With("sid", s.nextID.Add(1), "direction", direction, "remote", c.remote.String())
	return c
}

// deadline bounds everything until it is changed. Whoever has ended the connection before gets his way.
func (c *conn) deadline(t time.Time) error {
	if err := c.sock.SetDeadline(t); err != nil {
		return err
	}
	return c.ended()
}

// next reads the next event.
func (c *conn) next() (stream.Event, error) {
	for {
		ev, err := c.dec.Next()
		if !errors.Is(err, stream.ErrMore) {
			return ev, err
		}
		if c.buf == nil {
			c.buf = make([]byte, 4096) // chosen: pages of a negotiation
		}
		n, err := c.wire.Read(c.buf)
		if n > 0 {
			c.dec.Feed(c.buf[:n])
			continue
		}
		if err != nil {
			return stream.Event{}, err
		}
	}
}

// send writes bytes of the stream itself.
func (c *conn) send(b []byte) error {
	if c.out == nil {
		_, err := c.wire.Write(b)
		return err
	}
	if !c.out.add(entry{raw: b}) {
		if err := c.ended(); err != nil {
			return err
		}
		return errSlow
	}
	c.out.flush()
	return nil
}

func (c *conn) sendElement(e *xmpp.Element) error { return c.send(e.AppendTo(nil, "")) }

// secured begins the writer once TLS is done.
func (c *conn) secured(t *tls.Conn) {
	c.sock.left.Store(unlimited)
	c.tls, c.wire = t, t
	c.out = newWriter(t, c.broken, c.pump)
}

// Close ends the stream for reason. It may be called from any goroutine and does not wait.
func (c *conn) Close(reason error) {
	c.mu.Lock()
	if c.reason != nil {
		c.mu.Unlock()
		return
	}
	c.reason = reason
	c.mu.Unlock()
	_ = c.sock.SetReadDeadline(time.Unix(1, 0))
}

// broken ends the connection because it cannot be written to.
func (c *conn) broken(err error) { c.Close(err) }

// cut ends the connection at once, whatever it does.
func (c *conn) cut() { _ = c.sock.SetDeadline(time.Unix(1, 0)); _ = c.sock.CloseRead() }

func (c *conn) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

// prove notes that the peer has proven its domain for a pair.
func (c *conn) prove(p pair, how Method) {
	c.mu.Lock()
	c.proven[p] = how
	c.mu.Unlock()
	c.out.trust()
	c.log.Info("domain proven", "domain", p.remote, "for", p.local, "method", string(how))
	if !c.outgoing {
		c.server.metrics.auth.WithLabelValues("in", string(how), "success").Inc()
	}
}

// offer lets this server send over a stream that the peer has opened: XEP-0288 §2.2, the inverse of a pair that was proven.
func (c *conn) offer(p pair) {
	c.mu.Lock()
	bidi := c.bidi
	c.mu.Unlock()
	if bidi && !c.outgoing {
		c.server.offer(p, c)
	}
}

// mayUse reports whether the peer has proven its domain for a pair, or any at all.
func (c *conn) mayUse(p pair) (this, any bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, this = c.proven[p]
	return this, len(c.proven) > 0 || c.outgoing
}

// run is f, the reading of the stream, up to where everything that it brought is handled: a stream that is resumed goes on from there.
func (c *conn) run(f func() error) error {
	err := listen.Guard(c.log, nil, f)
	// After a panic: what was gathered for others is written all the same, and what it has interrupted is not handled.
	_ = listen.Guard(c.log, nil, func() error { c.batch.Flush(); return nil })
	c.received, c.wanted = 0, false
	c.submit(c.server.work, 0)
	c.settling.Drain(c.server.work)
	if reason := c.ended(); reason != nil && err != nil {
		err = reason
	}
	return err
}

// read handles what the peer sends until the stream ends.
func (c *conn) read() error {
	ctx := xmpp.WithBatch(c.server.work, &c.batch)
	total := 0
	for {
		err := c.events(ctx)
		c.batch.Flush()
		c.submit(ctx, total)
		if err != nil {
			return err
		}
		if err := c.ended(); err != nil {
			return err
		}
		if c.budget != nil && c.budget.Wait(c.server.ctx, total, c.cfg.Rate) {
			if err := c.ended(); err != nil {
				return err
			}
		}
		if len(c.buf) < maxWrite && c.raised {
			c.buf = make([]byte, maxWrite)
		}
		n, err := c.tls.Read(c.buf)
		if n == 0 && err != nil {
			if reason := c.ended(); reason != nil {
				return reason
			}
			return err
		}
		total = n
		c.dec.Feed(c.buf[:n])
	}
}

// events handles the complete elements that the decoder has.
func (c *conn) events(ctx context.Context) error {
	for {
		if !c.raised {
			if err := c.raise(); err != nil {
				return err
			}
		}
		ev, err := c.dec.Next()
		if errors.Is(err, stream.ErrMore) {
			return nil
		}
		if err != nil {
			return err
		}
		switch ev.Kind {
		case stream.Close:
			return errClosed
		case stream.Stanzas:
			err = c.stanza(ctx, ev)
		case stream.Nonzas:
			err = c.nonza(ctx, ev.Element)
		case stream.Open:
			err = c.reopened(ev.Header)
		}
		if err != nil {
			return err
		}
		if c.ended() != nil {
			return nil
		}
	}
}

// raise lifts the limits of a stranger once a domain is proven.
func (c *conn) raise() error {
	if _, any := c.mayUse(pair{}); !any {
		return nil
	}
	c.raised = true
	c.dec.SetLimits(c.cfg.Authenticated)
	c.dec.ManyAddresses()
	c.use()
	if c.budget == nil {
		c.budget = c.server.budgets.get(c.provenDomain())
	}
	return c.deadline(time.Time{})
}

// provenDomain is the first domain that the peer has proven.
func (c *conn) provenDomain() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := range c.proven {
		return p.remote
	}
	return ""
}

func (c *conn) use() { c.lastUse.Store(time.Now().UnixNano()) }

// stanza checks a stanza and routes it. RFC 6120 §8.1.1.2, §8.1.2.2: both addresses are there, from is of a domain that this stream proved, and to
// is of the domain of this server for which it did.
func (c *conn) stanza(ctx context.Context, ev stream.Event) error {
	s := ev.Stanza
	c.received++
	this, any := false, false
	if ev.BadFrom || ev.BadTo {
		_, any = c.mayUse(pair{})
	} else {
		this, any = c.mayUse(pair{s.To.Domainpart(), s.From.Domainpart()})
	}
	none := jid.JID{}
	switch {
	case !any:
		return streamerr.NotAuthorized // RFC 6120 §4.9.3.12
	case ev.BadFrom || ev.BadTo:
		// An address that this server's tables refuse and the peer's do not is no reason to end the stream of everybody else. Nobody can be told.
		c.log.Debug("stanza with an address that is none", "kind", s.Kind.String())
		c.server.metrics.refused.WithLabelValues("address").Inc()
		return nil
	case s.From.Equal(none) || s.To.Equal(none):
		return streamerr.ImproperAddressing // RFC 6120 §4.9.3.7
	case !this:
		return c.unproven(s)
	}
	c.use()
	if s.Lang == "" {
		s.Lang = c.lang // RFC 6120 §8.1.5, before anybody else sees the stanza
	}
	if s.Kind == xmpp.IQ {
		// RFC 6120 §8.2.3
		n := len(s.Spans())
		switch s.Type {
		case "get", "set":
			if s.From.Localpart() == "" {
				c.durable(ctx)
			}
			if s.ID == "" || n != 1 {
				c.bounce(ctx, s, xmpp.ErrBadRequest)
				return nil
			}
		case "result", "error":
			if s.ID == "" || s.Type == "result" && n > 1 {
				return nil // an answer that answers nothing
			}
		default:
			c.bounce(ctx, s, xmpp.ErrBadRequest)
			return nil
		}
	}
	c.server.metrics.stanzas.WithLabelValues(s.Kind.String(), "in").Inc()
	s, repeated := c.server.recent.repeated(s, c.since)
	if repeated {
		c.server.metrics.refused.WithLabelValues("repeated").Inc()
		return nil // it is handled already
	}
	c.server.router.Route(ctx, s)
	return nil
}

// unproven is the stream error for a stanza whose addresses the stream has not proven.
func (c *conn) unproven(s *xmpp.Stanza) error {
	c.mu.Lock()
	from := false
	for p := range c.proven {
		from = from || p.remote == s.From.Domainpart()
	}
	c.mu.Unlock()
	switch {
	case !from:
		return streamerr.InvalidFrom // RFC 6120 §4.9.3.9
	case !c.server.ours(s.To.Domainpart()):
		return streamerr.HostUnknown // RFC 6120 §4.9.3.6; this server relays for nobody
	}
	return streamerr.NotAuthorized // RFC 6120 §4.9.3.12
}

func (c *conn) bounce(ctx context.Context, s *xmpp.Stanza, err error) {
	if b := s.Bounce(err); b != nil {
		c.server.router.Route(ctx, b)
	}
}

// nonza handles an element that is no stanza.
func (c *conn) nonza(ctx context.Context, n *stream.Nonza) error {
	switch {
	case n.Space == nsDialback && n.Local == "result" && n.Attr("type") == "":
		return c.resultRequested(n)
	case n.Space == nsDialback && n.Local == "verify" && n.Attr("type") == "":
		return c.verifyRequested(n)
	case n.Space == nsDialback:
		return c.dialbackAnswered(n)
	case n.Space == xmpp.NSSM:
		return c.manage(ctx, n)
	case n.Space == xmpp.NSStream && n.Local == "error":
		return peerError{errorCondition(n)}
	case n.Space == nsBidi && n.Local == "bidi" && !c.outgoing:
		if _, any := c.mayUse(pair{}); any {
			return streamerr.PolicyViolation // XEP-0288 §2.2: before the peer authenticates
		}
		c.mu.Lock()
		c.bidi = c.cfg.Bidi
		c.mu.Unlock()
		return nil
	case n.Space == nsSASL && n.Local == "auth" && !c.outgoing:
		return c.auth(n)
	case n.Space == xmpp.NSStream && n.Local == "features" && c.outgoing:
		return nil // once more after the stream is up; nothing that matters to it
	}
	if _, any := c.mayUse(pair{}); !any {
		return streamerr.NotAuthorized // RFC 6120 §4.9.3.12
	}
	return streamerr.UnsupportedStanzaType // RFC 6120 §4.9.3.24
}

// errorCondition is the condition of a stream error (RFC 6120 §4.9.2).
func errorCondition(n *stream.Nonza) string {
	var v struct {
		Conditions []struct {
			XMLName xml.Name
		} `xml:",any"`
	}
	if n.Decode(&v) == nil {
		for _, c := range v.Conditions {
			if c.XMLName.Space == xmpp.NSStreams && c.XMLName.Local != "text" {
				return c.XMLName.Local
			}
		}
	}
	return streamerr.UndefinedCondition.Err
}

// deliver gives a stanza to the writer, and to the queue of stream management. The link that calls it has asked ready before.
func (c *conn) deliver(it *item) bool {
	e := entry{item: it, stanza: it.sent(time.Now())}
	c.nop.Lock()
	defer c.nop.Unlock()
	if sess := c.managed(); sess != nil {
		sess.mu.Lock()
		if sess.over || sess.conn != c {
			sess.mu.Unlock()
			return false
		}
		sess.push(it)
		sess.mu.Unlock()
		c.out.add(e) // what the writer does not take is not lost: it is in the queue
	} else {
		if !c.out.add(e) {
			return false
		}
		c.unconfirmed(it)
	}
	c.use()
	c.server.metrics.stanzas.WithLabelValues(it.stanza.Kind.String(), "out").Inc()
	return true
}

// ready reports whether the connection takes more stanzas.
func (c *conn) ready() bool {
	if c.out.full() || c.ended() != nil {
		return false
	}
	sess := c.managed()
	return sess == nil || !sess.full(&c.cfg.Management)
}

// pump lets the links go on that wait for room.
func (c *conn) pump() {
	c.mu.Lock()
	links := slices.Clone(c.links)
	c.mu.Unlock()
	for _, l := range links {
		l.pump(c)
	}
}

func (c *conn) managed() *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session
}

// lingerTime is how long a stream that this server ends waits for the peer's end (RFC 6120 §4.4).
const lingerTime = 2 * time.Second

// finish ends the stream for err, with the stream error that it is, if it is one.
func (c *conn) finish(err error) {
	var se streamerr.Error
	var pe peerError
	reason, said := "lost", false
	switch {
	case errors.As(err, &se):
		reason, said = se.Err, true
		c.log.Info("stream closed", "condition", se.Err, "domain", c.domains.remote)
	case errors.Is(err, errClosed), errors.Is(err, errIdle), errors.Is(err, errSpare):
		reason, said = "peer", true
		if !errors.Is(err, errClosed) {
			reason = "idle"
		}
		c.log.Debug("stream ended", "reason", err.Error())
	case errors.As(err, &pe):
		reason, said = "peer_error", true
		c.log.Info("stream closed by the peer", "condition", fmt.Sprintf("%.64q", pe.condition), "domain", c.domains.remote)
	case errors.Is(err, os.ErrDeadlineExceeded):
		se, said, reason = streamerr.ConnectionTimeout, true, "timeout" // RFC 6120 §4.9.3.4
		c.log.Info("negotiation took too long")
	default:
		c.log.Debug("connection lost", "err", err)
	}
	c.server.metrics.closed.WithLabelValues(reason).Inc()
	if said && c.wire != nil {
		c.goodbye(se, errors.Is(err, errClosed))
	}
	_ = c.sock.Close()
}

// goodbye writes the end of the stream: RFC 6120 §4.9.1 and §4.4. An error before the stream was opened opens it first (§4.9.1.2).
func (c *conn) goodbye(se streamerr.Error, answered bool) {
	var b []byte
	if !c.opened {
		b = c.header()
	}
	if se.Err != "" {
		b = stream.AppendError(b, se, c.detail)
	}
	b = append(b, stream.CloseTag...)
	_ = c.sock.SetDeadline(time.Now().Add(lingerTime))
	if c.out == nil {
		if _, err := c.wire.Write(b); err != nil {
			return
		}
	} else if !c.out.end(b, lingerTime) {
		return
	}
	if c.tls != nil {
		_ = c.tls.CloseWrite()
	}
	_ = c.sock.CloseWrite()
	if !answered {
		// Closing while unread bytes wait would make the kernel take back what was just written.
		_, err := io.CopyN(io.Discard, c.sock.TCPConn, 1<<20)
		c.parted = errors.Is(err, io.EOF)
	}
}

// header is the own stream header.
func (c *conn) header() []byte {
	h := stream.Header{Content: xmpp.NSServer, From: c.domains.local, To: c.domains.remote, Version: "1.0"}
	if !c.outgoing {
		h.ID = c.id
	}
	c.opened = true
	return stream.AppendHeader(nil, h)
}
