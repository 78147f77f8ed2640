package c2s

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/stream"

	streamerr "mellium.im/xmpp/stream"
)

// A stream over a transport has the same session as one over TCP. What differs is here: it reads events instead of bytes, each with a
// goroutine that waits in Receive, and writes elements.

// Attach takes the stream that a client opens over t. ch is what protects it; without TLS or Secure no mechanism is offered. It returns at
// once; the stream's end closes t. When the client's address has too many connections, or the server stops, it reports why and leaves t
// alone.
func (s *Server) Attach(t stream.Transport, ch auth.Channel) error {
	c := s.newConn(ch.Remote)
	c.over, c.channel, c.tlsState = t, ch, ch.TLS
	if ok, full := s.admit(c); full {
		return streamerr.PolicyViolation
	} else if !ok {
		return streamerr.SystemShutdown
	}
	go c.serve()
	return nil
}

// transportPing is the silence after which a transport pings. chosen: the proxies in front of it end what is silent for 60 s, as a rule.
const transportPing = 45 * time.Second

func (c *conn) setDeadline(t time.Time) error { return c.over.SetDeadline(t) }

// sendOver is send over a transport.
func (c *conn) sendOver(elements [][]byte) error {
	for _, e := range elements {
		if err := c.over.Send(stream.Sent{Raw: e}); err != nil {
			return err
		}
	}
	return c.over.Flush()
}

// receive is read over a transport. What has arrived already is one batch, as what one read brings is on TCP.
func (c *conn) receive() error {
	if err := c.over.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if err := c.ended(); err != nil {
		return err
	}
	c.touch()
	ctx := xmpp.WithBatch(c.server.work, &c.batch)
	out := c.beginTransport()
	for {
		if err := c.over.Wait(); err != nil {
			return c.handled(ctx, 0, err)
		}
		if err := c.receiveBatch(ctx, out); err != nil {
			return err
		}
	}
}

// receiveBatch handles the next event, and those behind it that have arrived already. It is apart from receive, where an idle session waits with little on
// its stack.
//
//go:noinline
func (c *conn) receiveBatch(ctx context.Context, out *outbox) error {
	total := 0
	for {
		ev, size, more, err := c.over.Receive()
		c.touch()
		total += size
		if err == nil {
			err = c.event(ctx, out, ev)
		}
		if !more || err != nil || total >= maxWrite || c.ended() != nil {
			return c.handled(ctx, total, err)
		}
	}
}

// beginTransport lets the outbox write; it is apart from receive for the same reason.
//
//go:noinline
func (c *conn) beginTransport() *outbox {
	out := c.out.Load()
	c.begun.Store(true)
	c.over.Begin(stream.Begin{Limit: c.mayWait(), Stall: out.stall, Unstall: out.unstall, Drained: out.drained, Alive: c.touch})
	out.Flush()
	return out
}

// endTransport is goodbye over a transport.
func (c *conn) endTransport(se streamerr.Error) bool {
	_ = c.over.SetDeadline(time.Now().Add(lingerTime))
	if c.begun.Load() {
		// Behind everything that was queued before; a client that does not read gets none of it.
		ctx, cancel := context.WithTimeout(context.Background(), lingerTime)
		defer cancel()
		if c.out.Load().wait(ctx, true) != nil {
			return false
		}
	} else if !c.opened && c.over.Open(c.header()) != nil {
		return false
	}
	var b []byte
	if se.Err != "" {
		b = stream.Standalone(stream.AppendError(nil, se, c.detail))
	}
	return c.over.End(b) == nil
}

// Conn is a TCP connection that HTTP uses like any other, until a transport over it wants to write without waiting, or until it turns out to
// carry a stream itself.
type Conn struct {
	*socket
	taken  atomic.Bool // by Take
	pulled atomic.Bool // by Pull
	fetch  []byte      // owned by the reader: the buffer under in, nil while there is nothing in it
}

// Wrap makes a Conn, with the same search for dead peers as on other connections of clients.
func Wrap(tcp *net.TCPConn) (net.Conn, error) {
	s, err := newSocket(tcp)
	if err != nil {
		return nil, err
	}
	return &Conn{socket: s}, nil
}

// Read waits, as that of any net.Conn, unless a stream has taken the connection or Pull was called.
func (c *Conn) Read(p []byte) (int, error) {
	switch {
	case c.taken.Load():
		return c.socket.Read(p)
	case !c.pulled.Load():
		return c.TCPConn.Read(p)
	case len(c.in) == 0:
		return 0, errWouldBlock
	}
	n := copy(p, c.in)
	if c.in = c.in[n:]; len(c.in) == 0 {
		putBuffer(c.fetch)
		c.fetch, c.in = nil, nil
	}
	return n, nil
}

// Pull makes Read give what Fetch has brought, and then an error that passes: a net.Error with Timeout, after which TLS goes on. So whoever waits
// does it in Fetch, with no buffer and little on the stack.
func (c *Conn) Pull() { c.pulled.Store(true) }

// Fetch waits until there are bytes to Read. The error is io.EOF when the peer has closed the connection, os.ErrDeadlineExceeded when the read
// deadline has passed.
func (c *Conn) Fetch() error {
	if len(c.in) > 0 {
		return nil
	}
	var end error
	err := c.raw.Read(func(fd uintptr) bool {
		buf := getBuffer()
		n, _, err := receive(fd, buf[:cap(buf)])
		if n > 0 {
			c.fetch, c.in = buf, buf[:n]
			return true
		}
		putBuffer(buf)
		switch err {
		case syscall.EAGAIN:
			return false
		case 0:
			end = io.EOF
		default:
			end = os.NewSyscallError("read", err)
		}
		return true
	})
	if err != nil {
		return err
	}
	return end
}

// Unblock makes Write take everything at once, up to limit bytes that the kernel does not take. stall is called when there are such bytes,
// unstall when they have gone, then drained; drained also with an error, when they never will.
func (c *Conn) Unblock(limit int, stall, unstall func(), drained func(error)) {
	c.limit, c.stall, c.unstall, c.drained = limit, stall, unstall, drained
	c.ready.Store(true)
}

// Close closes the connection and waits until nothing is written any more.
func (c *Conn) Close() error {
	err := c.TCPConn.Close()
	c.drains.Wait()
	return err
}

// Take takes a connection that came to another listener and whose TLS handshake chose xmpp-client (XEP-0368): t, and under it what Wrap
// made. It closes t when the stream ends, or at once when it returns an error.
func (s *Server) Take(t *tls.Conn, under net.Conn, remote netip.Addr) error {
	w, ok := under.(*Conn)
	if !ok {
		return errors.Join(errors.New("the connection was not made by Wrap"), t.Close())
	}
	c := s.newConn(remote)
	c.sock, c.mode, c.tls, c.outer = w.socket, DirectTLS, t, t.NetConn()
	if ok, _ := s.admit(c); !ok {
		return t.Close()
	}
	w.taken.Store(true)
	go c.serve()
	return nil
}
