package c2s

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

// conn is one client connection: first a negotiation that blocks, then a session that does not.
type conn struct {
	// Static after construction.
	server *Server
	cfg    *Config
	sock   *socket
	mode   Mode
	remote netip.Addr
	since  time.Time

	// Owned by the goroutine that reads; the session's after run begins.
	log           *slog.Logger
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
	tries         int
	unbound       int // of these: failed over channel binding, without a guess at a password
	registrations int
	batch         xmpp.Batch
	budget        budget

	counting  bool          // stream management is on: the client's stanzas are counted
	received  uint32        // stanzas of the present read
	ackWanted bool          // the client has asked for an acknowledgement
	detail    *xmpp.Element // application-specific condition of the stream error that ends the stream

	// Static after binding.
	session *session
	out     atomic.Pointer[outbox] // set when binding begins
	done    chan struct{}          // closed when the session has lost this connection

	lastRead atomic.Int64 // Unix nanoseconds
	pinged   atomic.Bool  // since lastRead

	mu     sync.Mutex
	reason error // guarded by mu: why the server ends the stream; the first one counts
}

// serve is a connection's life up to the bound session. The session then runs on a goroutine of its own, whose stack has never been deep.
func (c *conn) serve() {
	err := guard(c.log, c.server.metrics, func() error { return c.negotiate(c.server.work) })
	if reason := c.ended(); reason != nil && err != nil {
		err = reason
	}
	if err == nil {
		c.readBuf, c.channel, c.tlsState, c.proof = nil, auth.Channel{}, nil, nil
		c.log.Info("session bound", "jid", c.session.bound.JID().String())
		go c.run()
		return
	}
	c.end(err)
}

// guard turns a panic into the end of this stream alone.
func guard(log *slog.Logger, m *metrics, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("panic", "value", fmt.Sprint(p), "stack", string(debug.Stack()))
			m.closed.WithLabelValues("panic").Inc()
			err = streamerr.InternalServerError
		}
	}()
	return f()
}

// run is the session on this connection: it waits for bytes, handles what they bring, and ends.
func (c *conn) run() {
	err := guard(c.log, c.server.metrics, c.read)
	// After a panic: what was gathered for others is written all the same.
	_ = guard(c.log, c.server.metrics, func() error { c.batch.End(c.server.work); return nil })
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
		if !hibernates {
			back = s.remove()
		}
	}
	said := c.finish(err)
	if o := c.out.Load(); o != nil {
		// Before the contacts hear of it, and before waiting for the client: what comes meanwhile must not overtake what comes back.
		if left := o.close(); s != nil && !hibernates {
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
	_ = c.sock.Close()
	c.sock.drains.Wait()
}

// newOutbox makes the session's outbox; it keeps what comes until begin.
func (c *conn) newOutbox() *outbox {
	o := newOutbox(c.cfg.Outbox, c.broken)
	o.stalled = true
	o.write = func(b []byte) error {
		_, err := c.tls.Write(b)
		return err
	}
	c.sock.limit = 2 * (c.cfg.Outbox + c.cfg.Authenticated.Bytes + c.cfg.Management.Bytes) // one stanza may be larger than the outbox
	c.sock.stall, c.sock.unstall, c.sock.drained = o.stall, o.unstall, o.drained
	return o
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
	_ = c.sock.SetReadDeadline(time.Unix(1, 0))
	if o := c.out.Load(); o != nil {
		o.leave()
	}
}

// cut ends the connection at once, whatever it does.
func (c *conn) cut() { _ = c.sock.SetDeadline(time.Unix(1, 0)); _ = c.sock.CloseRead() }

func (c *conn) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

func (c *conn) read() error {
	if err := c.sock.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if err := c.ended(); err != nil {
		return err
	}
	c.touch()
	ctx := xmpp.WithBatch(c.server.work, &c.batch)
	c.sock.ready.Store(true)
	out := c.out.Load()
	out.unstall()
	out.Flush()
	// What TLS has read ahead while it blocked, and what the client pipelined behind its bind request, comes first.
	if err := c.handle(ctx, out); err != nil {
		return err
	}
	var err error
	rerr := c.sock.readable(func() bool {
		err = c.handle(ctx, out)
		return err == nil
	})
	if err == nil {
		err = rerr
	}
	return err
}

func (c *conn) touch() {
	c.lastRead.Store(time.Now().UnixNano())
	c.pinged.Store(false)
}

// handle decrypts what the socket has and handles every complete stanza in it; then it writes what that caused and waits for what must be
// durable.
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
	c.batch.End(ctx)
	c.settle()
	if end != nil {
		return end
	}
	if err := c.ended(); err != nil {
		return err
	}
	return c.brake(total)
}

// events handles the complete elements that the decoder has.
func (c *conn) events(ctx context.Context, out *outbox) error {
	for {
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
			c.received++
			s, err := c.stamp(ctx, ev)
			if err != nil {
				return err
			}
			if s != nil {
				c.server.router.Handle(ctx, &xmpp.Outgoing{Stanza: s, Sender: c.session.bound})
			}
		case stream.Nonzas:
			switch n := ev.Element; {
			case n.Space == nsSM:
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
		if c.ended() != nil {
			return nil
		}
		if out.bytes() > c.cfg.Outbox/2 { // the answers to what it asks, mostly: who does not read them is not heard further
			c.batch.End(ctx)
			wait, cancel := context.WithTimeout(ctx, patience)
			_ = out.Written(wait) // after that the bound counts
			cancel()
		}
	}
}

// patience is how long a client may take to read half an outbox before it is heard again. chosen: like the other deadlines for one client.
const patience = 30 * time.Second

// budget delays reading beyond a rate: a bucket of one second.
type budget struct {
	left float64
	last time.Time
}

// brake waits until the client's rate allows more. Nothing is dropped: TCP slows the client down.
func (c *conn) brake(n int) error {
	rate := float64(c.cfg.Rate)
	if rate <= 0 || n == 0 {
		return nil
	}
	now := time.Now()
	b := &c.budget
	b.left = min(rate, b.left+now.Sub(b.last).Seconds()*rate) - float64(n)
	b.last = now
	if b.left >= 0 {
		return nil
	}
	pause := time.NewTimer(time.Duration(-b.left / rate * float64(time.Second)))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-c.server.ctx.Done():
	}
	return c.ended()
}

// check is called now and then: it asks a silent client for a sign of life (XEP-0199 §4.3) and ends one that gives none.
func (c *conn) check(now time.Time) {
	if !c.sock.ready.Load() || c.cfg.PingAfter <= 0 {
		return
	}
	silence := now.Sub(time.Unix(0, c.lastRead.Load()))
	switch {
	case silence > c.cfg.PingAfter+c.cfg.PingTimeout && c.pinged.Load():
		c.Close(streamerr.ConnectionTimeout) // RFC 6120 §4.9.3.4
	case silence > c.cfg.PingAfter && !c.pinged.Swap(true):
		var id [8]byte
		_, _ = rand.Read(id[:])
		bound := c.session.bound
		ping := xmpp.New(xmpp.IQ, "get", bound.JID(), bound.Bare().Domain(), xmpp.El(nsPing, "ping"))
		ping.ID = "ping-" + hex.EncodeToString(id[:])
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
	if c.wire == nil {
		return false
	}
	var b []byte
	if !c.opened {
		b = c.header()
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
	_ = c.sock.CloseWrite()
	_, _ = io.CopyN(io.Discard, c.sock.TCPConn, 1<<20)
}

// refuse ends a connection before anything was read.
func (c *conn) refuse(se streamerr.Error) {
	if c.mode == DirectTLS {
		return // without TLS there is nothing that the client would understand
	}
	_ = c.sock.SetWriteDeadline(time.Now().Add(lingerTime))
	_, _ = c.sock.Write(append(stream.AppendError(c.header(), se, nil), stream.CloseTag...))
}
