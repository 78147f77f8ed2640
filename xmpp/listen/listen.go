// Package listen is what every TCP listener of the server does whatever protocol follows: it accepts connections, also those that a proxy passes on
// (PROXY protocol 1 and 2), counts those of an address, and slows down a peer that sends more than its rate.
package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Listeners are the listeners for one kind of peer.
type Listeners struct {
	// Static after New.
	log    *slog.Logger
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	proxies   atomic.Pointer[Proxies]
	addresses Addresses
	unwraps   sync.WaitGroup

	mu sync.Mutex
	// Guarded by mu.
	open   []net.Listener
	closed bool
}

// Wait waits for tasks. When ctx is done before they are, giveUp makes them end at once.
func Wait(ctx context.Context, tasks *sync.WaitGroup, giveUp func()) {
	done := make(chan struct{})
	go func() {
		tasks.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		giveUp()
		<-done
	}
}

// New returns none yet.
func New(log *slog.Logger) *Listeners {
	s := &Listeners{log: log}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Serve accepts TCP connections until l, which Listen has opened, is closed, and gives each to take with the address of the client; take must not block. It returns nil after
// Close.
func (s *Listeners) Serve(l net.Listener, take func(c *net.TCPConn, remote netip.AddrPort)) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return l.Close()
	}
	s.open = append(s.open, l)
	s.mu.Unlock()
	pause := time.Duration(0)
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			// Out of file descriptors, for example: connections live on, and accepting goes on when there are some again.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Error("accept", "err", err)
			if !Pause(s.ctx, pause) {
				return nil
			}
			continue
		}
		pause = 0
		tcp, ok := c.(*net.TCPConn)
		if !ok {
			_ = c.Close()
			return fmt.Errorf("listener on %s: no TCP", l.Addr())
		}
		remote := Address(tcp.RemoteAddr())
		if !s.trusts(remote.Addr()) {
			take(tcp, remote)
		} else if !s.start(func() { s.unwrap(tcp, remote, take) }) {
			_ = tcp.Close()
		}
	}
}

// start runs f on a goroutine that Close waits for; false after Close.
func (s *Listeners) start(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.unwraps.Go(f)
	return true
}

// Take is Addresses.Take for a client of these listeners. Proxies have no limit: what they carry is counted by itself.
func (s *Listeners) Take(addr netip.Addr, limit int) bool {
	if s.trusts(addr) {
		limit = 0
	}
	return s.addresses.Take(addr, limit)
}

// Give is for a client that has gone.
func (s *Listeners) Give(addr netip.Addr) { s.addresses.Give(addr) }

// Close closes the listeners, and those that come yet, and what proxies have not said enough of.
func (s *Listeners) Close() error {
	defer s.unwraps.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.cancel()
	var err error
	for _, l := range s.open {
		err = errors.Join(err, l.Close())
	}
	s.open = nil
	return err
}

// Address is the IP address and port of a connection's end, the zero AddrPort for one that has none.
func Address(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		at := tcp.AddrPort()
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return netip.AddrPort{}
}

// keepAlive has the kernel find a peer whose machine or network is gone, in about three minutes.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Minute, Interval: 20 * time.Second, Count: 4}

// Listen opens a listener with such connections.
func Listen(addr string) (net.Listener, error) {
	c := net.ListenConfig{KeepAliveConfig: keepAlive}
	return c.Listen(context.Background(), "tcp", addr)
}

// KeepAlive does the same for one connection.
func KeepAlive(c *net.TCPConn) error { return c.SetKeepAliveConfig(keepAlive) }
