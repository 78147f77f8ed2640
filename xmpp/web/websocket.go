package web

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/stream"

	"github.com/coder/websocket"
	streamerr "mellium.im/xmpp/stream"
)

const (
	subprotocol = "xmpp"                                // RFC 7395 §3.1
	nsFraming   = "urn:ietf:params:xml:ns:xmpp-framing" // RFC 7395 §3.3.2
)

const (
	// chosen: the least of bufio; it holds the head of a frame
	readBuffer = 16
	// chosen: a control frame, the largest that is written behind the library's back
	writeBuffer = 256
	// chosen: one TLS record
	maxHeld = 16 << 10
	// chosen: as for a ping of XEP-0199
	pongTime = time.Minute
	// chosen: the time that a client has to answer the end of its stream, as on TCP
	closeTime = 2 * time.Second
)

var errNoPong = errors.New("the client does not answer pings")

// webSocket is the handshake of RFC 7395 §3.1.
func (s *Server) webSocket(w http.ResponseWriter, r *http.Request) {
	c := s.client(r)
	if s.refused(w, r, c) {
		return
	}
	if s.stopping.Load() {
		http.Error(w, "stopping", http.StatusServiceUnavailable)
		return
	}
	if r.Header.Get("Sec-WebSocket-Key") != "" && !offers(r.Header, subprotocol) {
		http.Error(w, "the WebSocket subprotocol xmpp is required", http.StatusBadRequest) // RFC 7395 §3.1: the client MUST include it
		return
	}
	ch := s.channel(r, c)
	t := &webSocket{moved: s.streams.Moved}
	conn, err := websocket.Accept(&hijacker{ResponseWriter: w, t: t}, r, &websocket.AcceptOptions{
		Subprotocols:       []string{subprotocol},
		InsecureSkipVerify: true, // the origin was checked above
		CompressionMode:    websocket.CompressionDisabled,
		OnPongReceived:     func(context.Context, []byte) { t.pong() },
	})
	if err != nil {
		s.log.Debug("websocket handshake", "remote", c.addr, "err", err)
		return // it was answered
	}
	conn.SetReadLimit(-1) // Receive has one, and says why
	t.ws = conn
	if err := s.streams.Attach(t, ch); err != nil {
		s.log.Debug("websocket refused", "remote", c.addr, "err", err)
		_ = t.End(stream.Standalone(stream.AppendError(nil, asStreamError(err), nil)))
		t.Linger()
		t.Close()
	}
}

func asStreamError(err error) streamerr.Error {
	var se streamerr.Error
	if errors.As(err, &se) {
		return se
	}
	return streamerr.InternalServerError
}

// offers reports whether the client's list of subprotocols has name.
func offers(h http.Header, name string) bool {
	for _, list := range h.Values("Sec-WebSocket-Protocol") {
		if slices.ContainsFunc(strings.Split(list, ","), func(p string) bool { return strings.EqualFold(strings.TrimSpace(p), name) }) {
			return true
		}
	}
	return false
}

// unblocker is a connection that can be told neither to write nor to read while it waits (c2s.Conn).
type unblocker interface {
	Unblock(limit int, stall, unstall func(), drained func(error))
	Pull()
	Fetch() error
}

// hijacker takes the connection from net/http with small buffers, and puts held under the WebSocket.
type hijacker struct {
	http.ResponseWriter
	t *webSocket
}

func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	hj, ok := h.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, http.ErrNotSupported
	}
	c, rw, err := hj.Hijack()
	if err != nil {
		return nil, nil, err
	}
	u, ok := beneath(c).(unblocker)
	if !ok {
		_ = c.Close()
		return nil, nil, http.ErrNotSupported
	}
	h.t.under, h.t.conn = u, &held{Conn: c}
	// What the client sent behind its handshake is in rw.
	ahead, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err != nil {
		_ = c.Close()
		return nil, nil, err
	}
	u.Pull()
	h.t.ahead = &pulled{held: h.t.conn, under: u, b: slices.Clone(ahead)}
	h.t.in = bufio.NewReaderSize(h.t.ahead, readBuffer)
	return h.t.ahead, bufio.NewReadWriter(h.t.in, bufio.NewWriterSize(h.t.conn, writeBuffer)), nil
}

// pulled is the reading side of held. It has a buffer only while there is something in it, and waits with as little on the stack as possible: an idle
// WebSocket costs little memory.
type pulled struct {
	*held
	under unblocker

	// Owned by the reader.
	b   []byte  // not yet read
	buf *[]byte // of messageBuffers, under b; nil without one
}

// await waits until there is something to read.
func (p *pulled) await() error {
	for len(p.b) == 0 {
		buf := messageBuffers.Get().(*[]byte)
		n, err := p.held.Conn.Read((*buf)[:cap(*buf)])
		if n > 0 {
			p.b, p.buf = (*buf)[:n], buf
			return nil
		}
		messageBuffers.Put(buf)
		var passing net.Error
		if !errors.As(err, &passing) || !passing.Timeout() {
			return err
		}
		if err := p.under.Fetch(); err != nil {
			return err
		}
	}
	return nil
}

func (p *pulled) Read(b []byte) (int, error) {
	if err := p.await(); err != nil {
		return 0, err
	}
	n := copy(b, p.b)
	if p.b = p.b[n:]; len(p.b) == 0 {
		p.b = nil
		if p.buf != nil {
			messageBuffers.Put(p.buf)
			p.buf = nil
		}
	}
	return n, nil
}

// held gathers what is written between hold and release into one write: many messages, one TLS record and one system call.
type held struct {
	net.Conn

	mu sync.Mutex
	// Guarded by mu.
	hold bool
	buf  []byte
}

var heldBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, 2*maxHeld)
	return &b
}}

func (h *held) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.hold {
		return h.Conn.Write(p)
	}
	if h.buf == nil {
		h.buf = (*heldBuffers.Get().(*[]byte))[:0]
	}
	h.buf = append(h.buf, p...)
	if len(h.buf) >= maxHeld {
		return len(p), h.flush()
	}
	return len(p), nil
}

// flush is called with mu held.
func (h *held) flush() error {
	if h.buf == nil {
		return nil
	}
	_, err := h.Conn.Write(h.buf)
	if cap(h.buf) <= 4*maxHeld {
		b := h.buf[:0]
		heldBuffers.Put(&b)
	}
	h.buf = nil
	return err
}

func (h *held) begin() {
	h.mu.Lock()
	h.hold = true
	h.mu.Unlock()
}

func (h *held) release() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold = false
	return h.flush()
}

// String names the transport for an operator.
func (*webSocket) String() string { return "WebSocket" }

// webSocket is a stream.Transport over a WebSocket.
type webSocket struct {
	// Static after the handshake.
	ws    *websocket.Conn
	conn  *held
	under unblocker
	in    *bufio.Reader // of ahead
	ahead *pulled
	moved func(string) string

	// Owned by the stream's goroutine.
	messages stream.Messages
	limits   stream.Limits
	domain   string               // of the client's last <open/>
	theirs   bool                 // the client has sent <close/>
	seeOther string               // where the client is sent instead
	code     websocket.StatusCode // why the WebSocket ends, 0 for its normal end

	sending sync.Mutex
	ended   bool // guarded by sending: <close/> was sent

	begun   atomic.Pointer[stream.Begin]
	pinging atomic.Bool
	tasks   sync.WaitGroup
}

var _ stream.Transport = (*webSocket)(nil)

var background = context.Background() // deadlines are the connection's: a context that ends closes a coder/websocket

// Wait waits for the next bytes.
func (t *webSocket) Wait() error {
	if t.in.Buffered() > 0 {
		return nil
	}
	return lost(t.ahead.await())
}

// Receive reads one message: RFC 7395 §3.3.3.
func (t *webSocket) Receive() (ev stream.Event, size int, more bool, err error) {
	kind, r, err := t.ws.Reader(background)
	if err != nil {
		return ev, 0, false, lost(err)
	}
	if kind != websocket.MessageText {
		t.code = websocket.StatusUnsupportedData
		return ev, 0, false, streamerr.BadFormat // RFC 7395 §3.2: messages are text
	}
	buf := messageBuffers.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= 4*maxHeld { // a large message does not stay in memory for ever
			messageBuffers.Put(buf)
		}
	}()
	b := (*buf)[:0]
	for {
		if len(b) == cap(b) {
			b = slices.Grow(b, len(b))
		}
		n, err := r.Read(b[len(b):min(cap(b), t.limits.Bytes+1)]) // the reader waits for as much as it may take
		b = b[:len(b)+n]
		*buf = b
		if len(b) > t.limits.Bytes {
			t.code = websocket.StatusMessageTooBig
			return ev, len(b), false, tooLarge // before it is read to its end
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return ev, len(b), false, lost(err)
		}
	}
	if ev, err = t.messages.Next(b, t.limits); err != nil {
		return ev, len(b), false, err
	}
	if ev.Kind == stream.Nonzas && ev.Element.Space == nsFraming {
		switch n := ev.Element; n.Local {
		case "open": // RFC 7395 §3.4
			if t.domain = n.Attr("to"); t.moved != nil {
				if t.seeOther = t.moved(t.domain); t.seeOther != "" {
					return stream.Event{Kind: stream.Close}, len(b), false, nil // as if it had ended its stream: ours ends with where to go
				}
			}
			ev = stream.Event{Kind: stream.Open, Header: &stream.Header{To: n.Attr("to"), From: n.Attr("from"), ID: n.Attr("id"),
				Version: n.Attr("version"), Lang: n.Attr("xml:lang"), Content: xmpp.NSClient}}
		case "close": // RFC 7395 §3.6
			t.theirs = true
			ev = stream.Event{Kind: stream.Close}
		}
	}
	return ev, len(b), t.another(), nil
}

var messageBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, 4<<10)
	return &b
}}

// tooLarge is the stream error for a message above the limit (RFC 6120 §4.9.3.14).
var tooLarge = func() error {
	e := streamerr.PolicyViolation
	e.Text = append(e.Text, struct{ Lang, Value string }{"en", "element too large"})
	return e
}()

// lost is the error of a WebSocket that has ended, or whose deadline has passed; nil for nil.
func lost(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return os.ErrDeadlineExceeded
	}
	return err
}

// another reports whether the next frame is in the buffer already, whole.
func (t *webSocket) another() bool {
	in, _ := t.in.Peek(t.in.Buffered())
	have := len(in) + len(t.ahead.b)
	if have < 2 {
		return false
	}
	var head [10]byte
	h := head[:copy(head[:], in)]
	h = head[:len(h)+copy(head[len(h):], t.ahead.b)]
	// RFC 6455 §5.2
	size, at := uint64(h[1]&0x7F), 2
	switch {
	case size == 126 && len(h) >= 4:
		size, at = uint64(binary.BigEndian.Uint16(h[2:])), 4
	case size >= 126:
		return false // it does not fit into the buffer, or its header is not there yet
	}
	return h[0]&0x0F <= 2 && uint64(have) >= size+uint64(at)+4
}

func (t *webSocket) SetLimits(l stream.Limits) {
	l.Bytes = min(l.Bytes, math.MaxInt32) // as the scanner does
	t.limits = l
}

// Restart: RFC 7395 §3.7, the next message is <open/>.
func (t *webSocket) Restart() {}

func (t *webSocket) SetDeadline(d time.Time) error {
	if err := t.conn.SetReadDeadline(d); err != nil || d.IsZero() {
		return errors.Join(err, t.conn.SetWriteDeadline(d))
	}
	// Who is interrupted while it reads has still something to say.
	if last := time.Now().Add(closeTime); d.Before(last) {
		d = last
	}
	return t.conn.SetWriteDeadline(d)
}

// Open is <open/>: RFC 7395 §3.4.
func (t *webSocket) Open(h stream.Header) error {
	from := h.From
	if from == "" && t.seeOther != "" {
		from = t.domain
	}
	el := xmpp.El(nsFraming, "open", "id", h.ID, "from", from, "to", h.To, "version", h.Version, "xml:lang", h.Lang)
	return t.Send(stream.Sent{Raw: el.AppendTo(nil, "")})
}

func (t *webSocket) Send(s stream.Sent) error {
	t.sending.Lock()
	defer t.sending.Unlock()
	if t.ended {
		return errEnded
	}
	return t.send(s)
}

var errEnded = errors.New("the stream has ended")

// send is called with sending held.
func (t *webSocket) send(s stream.Sent) error {
	t.conn.begin()
	buf := messageBuffers.Get().(*[]byte)
	*buf = s.AppendTo((*buf)[:0])
	err := t.ws.Write(background, websocket.MessageText, *buf)
	if cap(*buf) <= 4*maxHeld {
		messageBuffers.Put(buf)
	}
	return err
}

func (t *webSocket) Flush() error { return t.conn.release() }

func (t *webSocket) Begin(b stream.Begin) {
	t.under.Unblock(b.Limit, b.Stall, b.Unstall, b.Drained)
	t.begun.Store(&b)
	b.Unstall()
}

// Ping is RFC 7395 §3.8 with the ping of RFC 6455 §5.5.2: what stands between keeps the connection, and a client that is gone is found.
func (t *webSocket) Ping() {
	b := t.begun.Load()
	if b == nil || t.pinging.Swap(true) {
		return
	}
	t.tasks.Go(func() {
		defer t.pinging.Store(false)
		ctx, cancel := context.WithTimeout(background, pongTime)
		defer cancel()
		if err := t.ws.Ping(ctx); err != nil && ctx.Err() != nil {
			b.Drained(errNoPong)
		}
	})
}

func (t *webSocket) pong() {
	if b := t.begun.Load(); b != nil {
		b.Alive()
	}
}

// End is RFC 7395 §3.5 and §3.6. Nothing is sent behind it.
func (t *webSocket) End(streamError []byte) error {
	t.sending.Lock()
	defer t.sending.Unlock()
	if t.ended {
		return errEnded
	}
	t.ended = true
	if streamError != nil {
		if err := t.send(stream.Sent{Raw: streamError}); err != nil {
			return err
		}
	}
	el := xmpp.El(nsFraming, "close", "see-other-uri", t.seeOther) // §3.6.1; an attribute without a value is left out
	if err := t.send(stream.Sent{Raw: el.AppendTo(nil, "")}); err != nil {
		return err
	}
	return t.Flush()
}

// Linger waits for the client's <close/>, unless it was the first to send it, and then for the end of the WebSocket (RFC 7395 §3.6).
func (t *webSocket) Linger() {
	_ = t.conn.SetDeadline(time.Now().Add(closeTime))
	client := t.theirs // who closed the stream closes the WebSocket
	for t.code == 0 {
		ev, _, _, err := t.Receive()
		if err != nil {
			break
		}
		if ev.Kind == stream.Close && !client {
			break
		}
	}
	code := t.code
	if code == 0 {
		code = websocket.StatusNormalClosure
	}
	_ = t.ws.Close(code, "")
}

func (t *webSocket) Close() {
	_ = t.ws.CloseNow()
	t.tasks.Wait()
}

// Unacknowledged is nil: what was written is the network's.
func (t *webSocket) Unacknowledged() []*xmpp.Stanza { return nil }
