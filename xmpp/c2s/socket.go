package c2s

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// socket is the TCP connection under TLS, as crypto/tls sees it. While a stream is negotiated it blocks like any net.Conn. Once ready is
// set, it never blocks: Read gives what readable has fetched and then errWouldBlock, which crypto/tls takes for a passing fault; Write hands
// to the kernel what it takes and keeps the rest for a goroutine that lives until the peer has read it.
//
// An idle session then holds no buffer, and whoever has a stanza for it can write it in place, without a hand-off.
type socket struct {
	*net.TCPConn
	raw   syscall.RawConn
	ready atomic.Bool

	in      []byte      // owned by the reader: bytes from the network that TLS has not taken yet
	waiting atomic.Bool // the reader has read everything and waits for the poller

	mu sync.Mutex
	// Guarded by mu.
	spill    []byte // bytes that the kernel has not taken yet; a goroutine drains them while there are any
	draining bool
	writeErr error

	// Static once ready.
	limit   int         // of spill, in bytes
	stall   func()      // called with mu held when the kernel takes no more
	unstall func()      // called with mu held when the spill has gone
	drained func(error) // called without mu after unstall, or when the spill cannot go
	drains  sync.WaitGroup
}

// newSocket makes the socket of a connection whose dead peers are searched for.
func newSocket(c *net.TCPConn) (*socket, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &socket{TCPConn: c, raw: raw}, setOptions(c, userTimeout)
}

// wouldBlock is a net.Error of the kind that crypto/tls does not remember.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "would block" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

var errWouldBlock net.Error = wouldBlock{}

func (s *socket) Read(p []byte) (int, error) {
	if !s.ready.Load() {
		return s.TCPConn.Read(p)
	}
	if len(s.in) == 0 {
		return 0, errWouldBlock
	}
	n := copy(p, s.in)
	s.in = s.in[n:]
	return n, nil
}

// readable calls handle whenever the network has brought bytes, which Read then gives, until handle returns false or the connection
// ends; the error is io.EOF when the peer closed it, os.ErrDeadlineExceeded when the read deadline has passed. A buffer is held only
// while handle runs. A reader that rested has waited before: the first look whether there is anything needs next to no stack.
func (s *socket) readable(rested bool, handle func() bool) error {
	var end error
	err := s.raw.Read(func(fd uintptr) (done bool) {
		if rested {
			rested = false
			if nothing(fd) {
				return false
			}
		}
		done, end = s.take(fd, handle)
		return done
	})
	if err != nil {
		return err
	}
	return end
}

// take reads and handles what the kernel has; done when that was the last, or handle returned false.
func (s *socket) take(fd uintptr, handle func() bool) (done bool, end error) {
	s.waiting.Store(false)
	defer func() { s.waiting.Store(!done) }()
	for {
		buf := getBuffer()
		n, more, err := receive(fd, buf[:cap(buf)])
		if n > 0 {
			s.in = buf[:n]
			goOn := handle()
			s.in = nil
			putBuffer(buf)
			switch {
			case !goOn:
				return true, nil
			case !more:
				return false, nil
			}
			continue
		}
		putBuffer(buf)
		switch err {
		case syscall.EAGAIN:
			return false, nil
		case 0:
			return true, io.EOF
		}
		return true, os.NewSyscallError("read", err)
	}
}

func (s *socket) Write(p []byte) (int, error) {
	if !s.ready.Load() {
		return s.TCPConn.Write(p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writeErr != nil {
		return 0, s.writeErr
	}
	n := 0
	if !s.draining {
		var err error
		if n, err = s.writeSome(p); err != nil {
			s.writeErr = err
			return n, err
		}
		if n == len(p) {
			return n, nil
		}
		s.draining = true
		s.stall()
		s.drains.Add(1)
		go s.drain()
	}
	// The outbox bounds what it writes; TLS answers key updates by itself (RFC 8446 §4.6.3), as often as the peer asks.
	if len(s.spill)+len(p)-n > s.limit {
		s.writeErr = errOutboxFull
		return n, s.writeErr
	}
	s.spill = append(s.spill, p[n:]...)
	return len(p), nil
}

// writeSome gives the kernel what it takes at once. It waits for nothing, so the poller need not know of it.
func (s *socket) writeSome(p []byte) (int, error) {
	var n int
	var werr error
	err := s.raw.Control(func(fd uintptr) {
		for n < len(p) {
			m, err := transmit(fd, p[n:])
			if m > 0 {
				n += m
				continue
			}
			if err != syscall.EAGAIN {
				werr = os.NewSyscallError("write", err)
			}
			return
		}
	})
	if err == nil {
		err = werr
	}
	return n, err
}

// drain writes the spill as the peer reads. It is the one goroutine of a slow reader.
func (s *socket) drain() {
	defer s.drains.Done()
	var werr error
	err := s.raw.Write(func(fd uintptr) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for len(s.spill) > 0 {
			n, err := transmit(fd, s.spill)
			if n > 0 {
				s.spill = s.spill[n:]
				continue
			}
			if err == syscall.EAGAIN {
				return false
			}
			werr = os.NewSyscallError("write", err)
			return true
		}
		s.spill, s.draining = nil, false
		s.unstall()
		return true
	})
	if err == nil {
		err = werr
	}
	if err != nil {
		s.mu.Lock()
		s.writeErr = err
		s.mu.Unlock()
	}
	s.drained(err)
}

// Buffers for one read or one write: 16 KiB is the largest TLS record.
const bufferSize = 16<<10 + 512

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

func getBuffer() []byte { return buffers.Get().(*[bufferSize]byte)[:0] }

// putBuffer takes a buffer back, or a larger one that it has become.
func putBuffer(b []byte) {
	if cap(b) >= bufferSize && cap(b) <= 4*bufferSize {
		buffers.Put((*[bufferSize]byte)(b[:bufferSize]))
	}
}

// userTimeout is for how long the kernel waits for the peer to acknowledge bytes. chosen: half-open connections with traffic are found in
// less than the interval between pings.
const userTimeout = 60 * time.Second
