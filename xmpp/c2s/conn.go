package c2s

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/listen"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

// conn is one client connection: first a negotiation that blocks, then a session that does not.
type conn struct {
	// Static after construction.
	server *Server
	cfg    *Config
	sock   *socket          // nil with a transport
	over   stream.Transport // in place of the socket and of TLS: WebSocket, BOSH
	outer  net.Conn         // what must be closed in place of sock, or nil
	mode   Mode
	remote netip.Addr
	since  time.Time
	id     uint64 // in the log
	log    *slog.Logger

	// Owned by the goroutine that reads; the session's after run begins.
	dec           *stream.Decoder
	wire          io.ReadWriter // sock or tls
	tls           *tls.Conn
	tlsState      *tls.ConnectionState
	channel       auth.Channel
	readBuf       []byte
	opened        bool    // the server's stream header of the present stream was sent
	domain        string  // what the client named in to
	from          jid.JID // from of the client's header, the zero JID for none: a claim
	claimed       string  // its bare JID
	lang          string
	account       jid.JID        // what SASL proved
	proof         *auth.Exchange // how, until binding
	agent         *agent         // what the client said of itself, nil for nothing
	version       string         // of the features that were offered (XEP-0509)
	tries         int
	unbound       int // of these: failed over channel binding, without a guess at a password
	registrations int
	batch         xmpp.Batch
	bucket        listen.Bucket

	counting  bool   // stream management is on: the client's stanzas are counted
	received  uint32 // stanzas of the present read
	ackWanted bool   // the client has asked for an acknowledgement
	settling  xmpp.Settling
	detail    *xmpp.Element // application-specific condition of the stream error that ends the stream

	// Static after binding.
	session *session
	out     atomic.Pointer[outbox] // set when binding begins
	begun   atomic.Bool            // the session reads, and its outbox writes
	done    chan struct{}          // closed when the session has lost this connection

	lastRead atomic.Int64 // Unix nanoseconds
	pinged   atomic.Bool  // since lastRead
	rested   atomic.Bool  // since lastRead

	mu     sync.Mutex
	reason error // guarded by mu: why the server ends the stream; the first one counts
}

// serve is a connection's life up to the bound session, and the session up to its first rest.
func (c *conn) serve() {
	err := guard(c.log, c.server.metrics, func() error { return c.negotiate(c.server.work) })
	if reason := c.ended(); reason != nil && err != nil {
		err = reason
	}
	if err == nil {
		c.readBuf, c.channel, c.tlsState, c.proof, c.agent = nil, auth.Channel{}, nil, nil, nil
		c.log.Info("session bound", "jid", c.session.bound.JID().String())
		if c.over != nil {
			go c.run() // such a session does not rest: it begins with a small stack
		} else {
			c.run()
		}
		return
	}
	c.end(err)
}

// guard is listen.Guard, which counts.
func guard(log *slog.Logger, m *metrics, f func() error) error {
	return listen.Guard(log, func() { m.closed.WithLabelValues("panic").Inc() }, f)
}

// run is the session on this connection: it waits for bytes, handles what they bring, and ends.
func (c *conn) run() {
	err := guard(c.log, c.server.metrics, c.read)
	if errors.Is(err, errRest) {
		c.server.rests.Add(1)
		go c.run()
		return
	}
	// After a panic: what was gathered for others is written all the same.
	_ = guard(c.log, c.server.metrics, func() error { c.batch.Flush(); return nil })
	c.received, c.ackWanted = 0, false // what a panic has interrupted is not handled
	c.submit(c.server.work, 0)
	c.settling.Drain(c.server.work) // what the client is told on resumption is all that was handled
	if reason := c.ended(); reason != nil {
		err = reason
	}
	c.end(err)
}

// end ends the connection for err, and the session with it unless that waits for another connection.
func (c *conn) end(err error) {
	defer c.server.gone(c)
	s := c.session
	hibernates := s != nil && s.detach(c, err)
	back := func() {}
	if s != nil {
		close(c.done)
		if hibernates {
			c.log.Info("session waits for its client")
		} else {
			back = s.remove()
		}
	}
	said := c.finish(err)
	if o := c.out.Load(); o != nil {
		// Before the contacts hear of it, and before waiting for the client: what comes meanwhile must not overtake what comes back.
		left := o.close()
		if c.over != nil {
			unsure := c.over.Unacknowledged()
			if s != nil && !hibernates {
				s.unsure(unsure)
			}
			left = append(unsure, left...)
		}
		if s != nil && !hibernates {
			s.salvage(left)
		}
	}
	_ = guard(c.log, c.server.metrics, func() error { back(); return nil })
	if s != nil && !hibernates {
		s.leave()
	}
	if said {
		c.linger()
	}
	if c.over != nil {
		c.over.Close()
		return
	}
	if c.outer != nil {
		_ = c.outer.Close()
	}
	_ = c.sock.Close()
	c.sock.drains.Wait()
}

// newOutbox makes the session's outbox; it keeps what comes until begin.
func (c *conn) newOutbox() *outbox {
	o := newOutbox(c.cfg.Outbox, c.broken)
	o.stalled, o.got = true, c.server.got(c.account)
	if c.over != nil {
		o.send = c.over
		return o
	}
	o.write = func(b []byte) error {
		_, err := c.tls.Write(b)
		return err
	}
	c.sock.limit = c.mayWait()
	c.sock.stall, c.sock.unstall, c.sock.drained = o.stall, o.unstall, o.drained
	return o
}

// mayWait is how many bytes may wait for the kernel: one stanza may be larger than the outbox.
func (c *conn) mayWait() int {
	return 2 * (c.cfg.Outbox + c.cfg.Authenticated.Bytes + c.cfg.Management.Bytes)
}

// Written waits for the outbox. A client that is being closed takes no more.
func (c *conn) Written(ctx context.Context) error {
	o := c.out.Load()
	if o == nil {
		return errEnded
	}
	if err := c.ended(); err != nil && !o.written() {
		return err
	}
	return o.Written(ctx)
}

// broken ends the connection because it cannot be written to.
func (c *conn) broken(err error) {
	c.mu.Lock()
	if c.reason == nil {
		c.reason = err
	}
	c.mu.Unlock()
	c.wake()
}

// Close ends the stream with an error. It may be called from any goroutine and does not wait.
func (c *conn) Close(reason streamerr.Error) {
	c.mu.Lock()
	if c.reason != nil {
		c.mu.Unlock()
		return
	}
	c.reason = reason
	c.mu.Unlock()
	c.wake()
}

// wake makes the reader notice reason, also while it waits for its own output.
func (c *conn) wake() {
	if c.over != nil {
		_ = c.over.SetDeadline(time.Unix(1, 0))
	} else {
		_ = c.sock.SetReadDeadline(time.Unix(1, 0))
	}
	if o := c.out.Load(); o != nil {
		o.leave()
	}
}

// cut ends the connection at once, whatever it does.
func (c *conn) cut() {
	if c.over != nil {
		c.over.Close()
		return
	}
	_ = c.sock.SetDeadline(time.Unix(1, 0))
	_ = c.sock.CloseRead()
}

func (c *conn) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

func (c *conn) read() error {
	if c.over != nil {
		return c.receive()
	}
	rested := c.begun.Load()
	forget := c.sock.SetDeadline
	if rested {
		forget = c.sock.SetReadDeadline
	}
	if err := forget(time.Time{}); err != nil {
		return err
	}
	if err := c.ended(); err != nil {
		return err
	}
	ctx := xmpp.WithBatch(c.server.work, &c.batch)
	out := c.out.Load()
	if !rested {
		c.touch()
		c.begun.Store(true)
		c.sock.ready.Store(true)
		out.unstall()
		out.Flush()
		// What TLS has read ahead while it blocked, and what the client pipelined behind its bind request, comes first.
		if err := c.handle(ctx, out); err != nil {
			return err
		}
	}
	var err error
	rerr := c.sock.readable(rested, func() bool {
		err = c.handle(ctx, out)
		return err == nil
	})
	switch {
	case err != nil:
		return err
	case errors.Is(rerr, os.ErrDeadlineExceeded) && c.ended() == nil: // rest: whoever ends the connection has a reason first
		return errRest
	}
	return rerr
}

// errRest ends a goroutine that has waited for a while: another one goes on. A stack that was needed once never becomes as small again as that of a
// goroutine which has only waited, and most sessions only wait.
var errRest = errors.New("the session rests")

// restAfter is the silence after which a session goes on with a small stack. chosen: a new goroutine costs less than a message, and 10 s hold few.
const restAfter = 10 * time.Second

// rest lets the session go on with a small stack. One that ends does not rest: the deadline is that of its end then.
func (c *conn) rest() {
	if c.over == nil && c.ended() == nil && !c.rested.Swap(true) {
		_ = c.sock.SetReadDeadline(time.Unix(1, 0))
	}
}

func (c *conn) touch() {
	c.lastRead.Store(time.Now().UnixNano())
	c.pinged.Store(false)
	c.rested.Store(false)
}

// handle decrypts what the socket has and handles every complete stanza in it; then it writes what that caused, and hands over what must be
// durable before it counts.
func (c *conn) handle(ctx context.Context, out *outbox) error {
	c.touch()
	buf := getBuffer()
	defer putBuffer(buf)
	var end error
	total := len(c.sock.in) // with what is TLS's own
	for end == nil {
		end = c.events(ctx, out)
		if end != nil {
			break
		}
		n, err := c.tls.Read(buf[:maxWrite])
		if n > 0 {
			c.dec.Feed(buf[:n])
		}
		if err != nil && n == 0 {
			if errors.Is(err, errWouldBlock) {
				break
			}
			end = err
		}
	}
	return c.handled(ctx, total, end)
}

// handled ends the batch of what one read brought, total bytes up to the error end.
func (c *conn) handled(ctx context.Context, total int, end error) error {
	c.batch.Flush()
	c.submit(ctx, total)
	if end != nil {
		return end
	}
	if err := c.ended(); err != nil {
		return err
	}
	if c.bucket.Wait(c.server.ctx, total, c.cfg.Rate) {
		return c.ended()
	}
	return nil
}

// events handles the complete elements that the decoder has.
func (c *conn) events(ctx context.Context, out *outbox) error {
	for {
		ev, err := c.dec.Next()
		if errors.Is(err, stream.ErrMore) {
			return nil
		}
		if err == nil {
			err = c.event(ctx, out, ev)
		}
		if err != nil {
			return err
		}
		if c.ended() != nil {
			return nil
		}
	}
}

// event handles one element of the client.
func (c *conn) event(ctx context.Context, out *outbox, ev stream.Event) error {
	switch ev.Kind {
	case stream.Close:
		return errClosed
	case stream.Stanzas:
		c.received++
		s, err := c.stamp(ctx, ev)
		if err != nil {
			return err
		}
		if s != nil {
			if s.IsRequest() {
				c.durable(ctx)
			}
			c.server.router.Handle(ctx, &xmpp.Outgoing{Stanza: s, Sender: c.session.bound})
		}
	case stream.Nonzas:
		switch n := ev.Element; {
		case n.Space == xmpp.NSSM:
			if err := c.manage(ctx, n); err != nil {
				return err
			}
		case n.Space == nsCSI && (n.Local == "active" || n.Local == "inactive"):
			c.session.setActive(ctx, n.Local == "active")
		default:
			return streamerr.UnsupportedStanzaType // RFC 6120 §4.9.3.24
		}
	default:
		return streamerr.BadFormat
	}
	if c.ended() == nil && out.bytes() > c.cfg.Outbox/2 { // the answers to what it asks, mostly: who does not read them is not heard further
		c.batch.End(ctx)
		wait, cancel := context.WithTimeout(ctx, patience)
		_ = out.Written(wait) // after that the bound counts
		cancel()
	}
	return nil
}

// patience is how long a client may take to read half an outbox before it is heard again. chosen: like the other deadlines for one client.
const patience = 30 * time.Second

var errReset = errors.New("connection reset by the client")

// checkEvery is the time between two checks. chosen: silence is measured in minutes.
const checkEvery = 10 * time.Second

// check is called now and then: it notices a reset, asks a silent client for a sign of life (XEP-0199 §4.3) and ends one that gives none.
func (c *conn) check(now time.Time) {
	if !c.begun.Load() {
		return
	}
	silence := now.Sub(time.Unix(0, c.lastRead.Load()))
	if c.over == nil && silence < 2*checkEvery && c.sock.reset() {
		c.broken(errReset)
		return
	}
	if silence >= restAfter {
		c.rest()
	}
	if c.cfg.PingAfter <= 0 {
		return
	}
	if c.over != nil && silence > transportPing {
		c.over.Ping()
	}
	switch {
	case silence > c.cfg.PingAfter+c.cfg.PingTimeout && c.pinged.Load():
		c.Close(streamerr.ConnectionTimeout) // RFC 6120 §4.9.3.4
	case silence > c.cfg.PingAfter && !c.pinged.Swap(true):
		bound := c.session.bound
		ping := xmpp.New(xmpp.IQ, "get", bound.JID(), bound.Bare().Domain(), xmpp.El(nsPing, "ping"))
		ping.ID = "ping-" + rand.Text()
		bound.Enqueue(c.server.work, ping)
	}
}

// lingerTime is how long a stream that the server ends waits for the client's end (RFC 6120 §4.4).
const lingerTime = 2 * time.Second

// finish ends the stream for err, with the stream error that it is, if it is one. It reports whether the end was written.
func (c *conn) finish(err error) bool {
	var se streamerr.Error
	reason := "lost"
	switch {
	case errors.As(err, &se):
		reason = se.Err
		c.log.Info("stream closed by the server", "condition", se.Err)
	case errors.Is(err, errClosed):
		reason = "client"
		c.log.Debug("stream closed by the client")
	case errors.Is(err, os.ErrDeadlineExceeded):
		se, reason = streamerr.ConnectionTimeout, "timeout" // RFC 6120 §4.9.3.4
		c.log.Info("negotiation took too long")
	case errors.Is(err, errUnacknowledged):
		se, reason = streamerr.ResourceConstraint, "unacknowledged"
	case errors.Is(err, errOutboxFull):
		reason = "slow_reader"
		c.log.Warn("client does not read", "limit", c.cfg.Outbox)
	default:
		c.log.Debug("connection lost", "err", err)
	}
	c.server.metrics.closed.WithLabelValues(reason).Inc()
	return (se.Err != "" || errors.Is(err, errClosed)) && c.goodbye(se)
}

// goodbye writes the end of the stream: RFC 6120 §4.9.1 and §4.4. An error before the stream was opened opens it first (§4.9.1.2). It
// reports whether the end was written.
func (c *conn) goodbye(se streamerr.Error) bool {
	if c.over != nil {
		return c.endTransport(se)
	}
	if c.wire == nil {
		return false
	}
	var b []byte
	if !c.opened {
		b = stream.AppendHeader(nil, c.header())
	}
	if se.Err != "" {
		b = stream.AppendError(b, se, c.detail)
	}
	b = append(b, stream.CloseTag...)
	_ = c.sock.SetDeadline(time.Now().Add(lingerTime))
	if c.sock.ready.Load() {
		// Behind everything that was queued before; a client that does not read gets none of it.
		o := c.out.Load()
		if !o.add(context.Background(), entry{raw: b}) {
			return false
		}
		ctx, cancel := context.WithTimeout(context.Background(), lingerTime)
		defer cancel()
		if o.wait(ctx, true) != nil { // crypto/tls writes nothing more after CloseWrite
			return false
		}
	} else if c.send(b) != nil {
		return false
	}
	return c.tls == nil || c.tls.CloseWrite() == nil
}

// linger waits for the client's end: closing while unread bytes wait would make the kernel take back what was just written.
func (c *conn) linger() {
	if c.over != nil {
		c.over.Linger()
		return
	}
	_ = c.sock.CloseWrite()
	_, _ = io.CopyN(io.Discard, c.sock.TCPConn, 1<<20)
}

// refuse ends a connection before anything was read.
func (c *conn) refuse(se streamerr.Error) {
	if c.mode == DirectTLS {
		return // without TLS there is nothing that the client would understand
	}
	_ = c.sock.SetWriteDeadline(time.Now().Add(lingerTime))
	_, _ = c.sock.Write(append(stream.AppendError(stream.AppendHeader(nil, c.header()), se, nil), stream.CloseTag...))
}
