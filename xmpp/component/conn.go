package component

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/listen"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

// conn is one connection of a component, or of somebody who says to be one.
type conn struct {
	// Static after construction.
	server *Server
	cfg    *Config
	tcp    *net.TCPConn
	remote netip.Addr
	id     string // of the stream
	gone   chan struct{}

	// Owned by the goroutine that reads.
	log      *slog.Logger
	dec      *stream.Decoder
	buf      []byte
	opened   bool // the server's stream header was sent
	batch    xmpp.Batch
	settling xmpp.Settling
	bucket   listen.Bucket

	// Static once the component is proven.
	entry *entry

	lastRead atomic.Int64 // Unix nanoseconds
	pinged   atomic.Bool  // since lastRead

	mu sync.Mutex
	// Guarded by mu.
	reason error // why the server ends the stream; the first one counts
	queue  []*xmpp.Stanza
	size   int  // bytes in queue
	closed bool // queue takes nothing more
	heard  []chan struct{}

	wake    chan struct{} // the writer has something to do
	writing sync.WaitGroup
}

var (
	errClosed = errors.New("stream closed by the component")
	errFull   = errors.New("the component does not read and its outbox is full")
)

func newConn(s *Server, tcp *net.TCPConn, remote netip.Addr) *conn {
	c := &conn{server: s, cfg: s.config.Load(), tcp: tcp, remote: remote, id: rand.Text(), gone: make(chan struct{}), wake: make(chan struct{}, 1)}
	c.log = s.log.With("component", s.nextID.Add(1), "remote", remote.String())
	return c
}

// serve is the life of a connection.
func (c *conn) serve() {
	defer close(c.gone)
	defer c.server.ended(c)
	err := listen.Guard(c.log, nil, c.negotiate)
	c.server.proven()
	if err == nil {
		c.log.Info("component connected")
		err = listen.Guard(c.log, nil, c.read)
		_ = listen.Guard(c.log, nil, func() error { c.batch.Flush(); return nil })
		c.submit(c.server.work, 0)
		c.settling.Drain(c.server.work)
	}
	if reason := c.ending(); reason != nil {
		err = reason
	}
	c.end(err)
}

// negotiate takes the stream from its first byte to a component that has proven itself: XEP-0114 §3.
func (c *conn) negotiate() error {
	// An absolute deadline: dripping bytes does not extend it.
	if err := c.tcp.SetDeadline(time.Now().Add(c.cfg.HandshakeTimeout)); err != nil {
		return err
	}
	c.dec = stream.NewDecoder(NS, c.cfg.Unauthenticated)
	c.buf = make([]byte, 4096)
	ev, err := c.next()
	if err != nil {
		return err
	}
	if ev.Kind != stream.Open {
		return streamerr.BadFormat
	}
	to, err := jid.Parse(ev.Header.To)
	if err != nil || to.Localpart() != "" || to.Resourcepart() != "" {
		return streamerr.ImproperAddressing
	}
	e := c.server.names[to.Domainpart()]
	if e == nil {
		return streamerr.HostUnknown
	}
	if err := c.send(c.header(e.Name)); err != nil {
		return err
	}
	if ev, err = c.next(); err != nil {
		return err
	}
	if ev.Kind == stream.Close {
		return errClosed
	}
	c.log = c.log.With("name", e.Name)
	if ev.Kind != stream.Nonzas || ev.Element.Local != "handshake" || ev.Element.Space != NS || !proves(c.id, e.Secret, ev.Element.Text()) {
		c.server.rejected.Inc()
		c.log.Warn("component handshake failed")
		return streamerr.NotAuthorized
	}
	// Whether another connection is alive takes its time.
	if err := c.tcp.SetDeadline(time.Now().Add(c.cfg.HandshakeTimeout + c.cfg.ProbeTimeout)); err != nil {
		return err
	}
	if !e.claim(c) {
		return streamerr.Conflict
	}
	c.entry = e
	c.touch()
	// What is routed from now on waits for the writer.
	if err := c.send([]byte("<handshake/>")); err != nil {
		return err
	}
	c.dec.SetLimits(c.cfg.Authenticated)
	c.buf = make([]byte, 32<<10) // chosen: components are few and busy
	if err := c.tcp.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if err := c.ending(); err != nil { // it came while there was a deadline, which woke nobody any more
		return err
	}
	c.writing.Go(c.write)
	return nil
}

// proves checks a handshake: XEP-0114 §3, SHA-1 of the stream's id and the secret, in hexadecimal and lower case.
func proves(id, secret, handshake string) bool {
	sum := sha1.Sum([]byte(id + secret))
	return subtle.ConstantTimeCompare([]byte(hex.EncodeToString(sum[:])), []byte(strings.TrimSpace(handshake))) == 1
}

// next reads the next event.
func (c *conn) next() (stream.Event, error) {
	for {
		ev, err := c.dec.Next()
		if !errors.Is(err, stream.ErrMore) {
			return ev, err
		}
		n, err := c.tcp.Read(c.buf)
		if n > 0 {
			c.dec.Feed(c.buf[:n])
			continue
		}
		if err != nil {
			return stream.Event{}, err
		}
	}
}

func (c *conn) header(from string) []byte {
	c.opened = true
	return stream.AppendHeader(nil, stream.Header{Content: NS, From: from, ID: c.id})
}

func (c *conn) send(b []byte) error {
	_, err := c.tcp.Write(b)
	return err
}

// read handles what the component sends until the stream ends.
func (c *conn) read() error {
	ctx := xmpp.WithBatch(c.server.work, &c.batch)
	total := 0
	for {
		ev, err := c.dec.Next()
		switch {
		case err == nil:
			if err := c.handle(ctx, ev); err != nil {
				return err
			}
			if c.ending() != nil {
				return nil
			}
			continue
		case !errors.Is(err, stream.ErrMore):
			return err
		}
		c.batch.Flush()
		c.submit(ctx, total)
		if c.bucket.Wait(c.server.ctx, total, c.cfg.Rate) {
			if err := c.ending(); err != nil {
				return err
			}
		}
		n, err := c.tcp.Read(c.buf)
		if total = n; n == 0 && err != nil {
			return err
		}
		c.touch()
		c.dec.Feed(c.buf[:n])
	}
}

// handle takes one event of a proven component.
func (c *conn) handle(ctx context.Context, ev stream.Event) error {
	switch ev.Kind {
	case stream.Close:
		return errClosed
	case stream.Stanzas:
	case stream.Nonzas:
		return streamerr.UnsupportedStanzaType // RFC 6120 §4.9.3.24
	default:
		return streamerr.BadFormat
	}
	s := ev.Stanza
	if ev.BadFrom || !s.From.Equal(jid.JID{}) && s.From.Domainpart() != c.entry.Name {
		return streamerr.InvalidFrom // XEP-0114 §3: any user at its own hostname; RFC 6120 §4.9.3.9
	}
	if s.From.Equal(jid.JID{}) {
		s = s.WithFrom(jid.MustParse(c.entry.Name)) // it MUST say so, and some do not; what it has proven is beyond doubt
	}
	switch {
	case ev.BadTo:
		c.refuse(s, xmpp.ErrJIDMalformed) // RFC 6120 §8.3.3.8
		return nil
	case s.To.Equal(jid.JID{}):
		c.refuse(s, xmpp.ErrBadRequest) // XEP-0114 §3: a to is required
		return nil
	case s.Kind != xmpp.IQ:
		c.server.router.Route(ctx, s)
		return nil
	case s.IsRequest():
		c.durable(ctx)
	}
	// RFC 6120 §8.2.3
	n := len(s.Spans())
	switch s.Type {
	case "get", "set":
		if s.ID == "" || n != 1 {
			c.refuse(s, xmpp.ErrBadRequest)
			return nil
		}
	case "result", "error":
		if s.ID == "" || s.Type == "result" && n > 1 {
			return nil // an answer that answers nothing
		}
	default:
		c.refuse(s, xmpp.ErrBadRequest)
		return nil
	}
	c.server.router.Route(ctx, s)
	return nil
}

var _ xmpp.Settler = (*conn)(nil)

// submit hands over what the batch has gathered, of so many bytes; it has been flushed.
func (c *conn) submit(ctx context.Context, bytes int) {
	c.settling.Submit(ctx, c, xmpp.Load{Pending: c.batch.Take(), Bytes: bytes})
}

// Settle is xmpp.Settler.
func (c *conn) Settle(p xmpp.Pending) {
	_ = listen.Guard(c.log, nil, func() error { p.Settle(c.server.work); return nil })
}

// Count is xmpp.Settler: there are no acknowledgements in XEP-0114.
func (c *conn) Count(xmpp.Load) {}

// durable waits for everything that came before the stanza at hand, which is a request: its answer tells the component that all of it is durable.
func (c *conn) durable(ctx context.Context) {
	if c.batch.Waits() || c.settling.Busy() {
		c.batch.Flush()
		c.submit(ctx, 0)
		c.settling.Drain(ctx)
	}
}

// refuse answers a stanza of the component with an error.
func (c *conn) refuse(s *xmpp.Stanza, err error) {
	if b := s.Bounce(err); b != nil {
		c.put(b)
	}
}

// put takes a stanza for the component without blocking; false when it is over or does not read, which ends it.
func (c *conn) put(s *xmpp.Stanza) bool {
	n := s.Size()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return false
	}
	if c.size+n > c.cfg.Outbox && c.size > 0 {
		c.mu.Unlock()
		c.close(errFull)
		return false
	}
	c.queue = append(c.queue, s)
	c.size += n
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return true
}

// write writes what is queued until the connection ends, many stanzas with one call. What could not be written is answered.
func (c *conn) write() {
	var b []byte
	for {
		c.mu.Lock()
		q, closed := c.queue, c.closed
		c.queue = nil              // size stays: what is being written still waits
		if len(q) > 0 && !closed { // else the end of the stream has a deadline already
			_ = c.tcp.SetWriteDeadline(time.Now().Add(c.cfg.WriteTimeout))
		}
		c.mu.Unlock()
		for i := 0; i < len(q); {
			b = b[:0]
			first, size := i, 0
			for ; i < len(q) && len(b) < 64<<10; i++ { // chosen: what one call of the system takes at once
				b = q[i].AppendTo(b)
				size += q[i].Size()
			}
			if err := c.send(b); err != nil {
				c.close(err)
				c.fail(append(q[first:], c.shut()...))
				return
			}
			c.mu.Lock()
			c.size -= size
			if !c.closed {
				_ = c.tcp.SetWriteDeadline(time.Now().Add(c.cfg.WriteTimeout)) // it reads
			}
			c.mu.Unlock()
		}
		if cap(b) > 256<<10 {
			b = nil
		}
		if closed && len(q) == 0 {
			return
		}
		if len(q) == 0 {
			<-c.wake
		}
	}
}

// shut refuses further stanzas, and returns those that are queued.
func (c *conn) shut() []*xmpp.Stanza {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	q := c.queue
	c.queue = nil
	return q
}

// fail tells the senders of stanzas that the component did not get them.
func (c *conn) fail(list []*xmpp.Stanza) {
	for _, s := range list {
		_ = listen.Guard(c.log, nil, func() error { c.server.router.Fail(c.server.work, s, errAbsent); return nil })
	}
}

// touch notes a sign of life.
func (c *conn) touch() {
	c.lastRead.Store(time.Now().UnixNano())
	c.pinged.Store(false)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.heard {
		close(h)
	}
	c.heard = nil
}

// ping asks for a sign of life (XEP-0199 §4.3); any answer is one.
func (c *conn) ping() {
	p := xmpp.New(xmpp.IQ, "get", jid.MustParse(c.entry.Name), jid.MustParse(c.entry.Beside), xmpp.El("urn:xmpp:ping", "ping"))
	p.ID = "ping-" + rand.Text()
	c.put(p)
}

// alive asks the component for a sign of life and waits for it.
func (c *conn) alive(patience time.Duration) bool {
	heard := make(chan struct{})
	c.mu.Lock()
	c.heard = append(c.heard, heard)
	c.mu.Unlock()
	c.ping()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-heard:
		return true
	case <-c.gone:
	case <-late.C:
	case <-c.server.ctx.Done():
		return true
	}
	return false
}

// check is called now and then: it asks a silent component for a sign of life, and ends one that gives none.
func (c *conn) check(now time.Time) {
	if c.cfg.PingAfter <= 0 {
		return
	}
	silence := now.Sub(time.Unix(0, c.lastRead.Load()))
	switch {
	case silence > c.cfg.PingAfter+c.cfg.PingTimeout && c.pinged.Load():
		c.close(streamerr.ConnectionTimeout) // RFC 6120 §4.9.3.4
	case silence > c.cfg.PingAfter && !c.pinged.Swap(true):
		c.ping()
	}
}

// close ends the stream for a reason. It may be called from any goroutine and does not wait.
func (c *conn) close(reason error) {
	c.mu.Lock()
	if c.reason != nil {
		c.mu.Unlock()
		return
	}
	c.reason = reason
	c.mu.Unlock()
	_ = c.tcp.SetReadDeadline(time.Unix(1, 0))
}

// cut ends the connection at once, whatever it does.
func (c *conn) cut() { _ = c.tcp.SetDeadline(time.Unix(1, 0)); _ = c.tcp.CloseRead() }

func (c *conn) ending() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

// lingerTime is how long a stream that the server ends waits for the component's end (RFC 6120 §4.4). chosen: as for clients
const lingerTime = 2 * time.Second

// end ends the connection for err.
func (c *conn) end(err error) {
	defer func() { _ = c.tcp.Close() }()
	if c.entry != nil {
		c.entry.release(c) // first: what comes from now on is answered by the router
	}
	var se streamerr.Error
	says := true
	switch {
	case errors.As(err, &se):
		c.log.Info("component stream closed by the server", "condition", se.Err)
	case errors.Is(err, errClosed):
		c.log.Info("component closed its stream")
	case errors.Is(err, errFull):
		se = streamerr.ResourceConstraint
		c.log.Warn("component does not read", "limit", c.cfg.Outbox)
	case errors.Is(err, os.ErrDeadlineExceeded):
		se = streamerr.ConnectionTimeout // RFC 6120 §4.9.3.4
		c.log.Info("component handshake took too long")
	default:
		says = false
		c.log.Info("component connection lost", "err", err)
	}
	// What is queued goes out before the end, if the component reads.
	deadline := time.Now().Add(lingerTime)
	if !says {
		deadline = time.Unix(1, 0)
	}
	c.mu.Lock()
	c.closed = true
	_ = c.tcp.SetWriteDeadline(deadline)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	c.writing.Wait()
	c.fail(c.shut()) // without a writer, in a handshake that failed after the claim
	if !says || c.goodbye(se) != nil {
		return
	}
	// Closing while unread bytes wait would make the kernel take back what was just written.
	_ = c.tcp.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c.tcp, 1<<20)
}

// goodbye writes the end of the stream: RFC 6120 §4.9.1 and §4.4. XEP-0114 §3: an error about the header comes behind a header.
func (c *conn) goodbye(se streamerr.Error) error {
	var b []byte
	if !c.opened {
		b = c.header("")
	}
	if se.Err != "" {
		b = stream.AppendError(b, se, nil)
	}
	if err := c.send(append(b, stream.CloseTag...)); err != nil {
		return err
	}
	return c.tcp.CloseWrite()
}
