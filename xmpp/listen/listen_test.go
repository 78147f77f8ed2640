package listen

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func loopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestServe(t *testing.T) {
	s := New(slog.New(slog.DiscardHandler))
	l := loopback(t)
	ended := make(chan error, 1)
	taken := make(chan netip.AddrPort, 1)
	go func() {
		ended <- s.Serve(l, func(c *net.TCPConn, remote netip.AddrPort) {
			_ = c.Close()
			taken <- remote
		})
	}()
	for range 3 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if got := (<-taken).String(); got != c.LocalAddr().String() {
			t.Errorf("from %s: %s", c.LocalAddr(), got)
		}
		_ = c.Close()
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("after Close: %v", err)
	}
	late := loopback(t)
	if err := s.Serve(late, nil); err != nil {
		t.Errorf("a listener that comes late: %v", err)
	}
	if _, err := late.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("it is still open: %v", err)
	}
}

// failing is a listener whose Accept has other ends than a connection.
type failing struct {
	net.Listener
	accept func() (net.Conn, error)
}

func (f failing) Accept() (net.Conn, error) { return f.accept() }
func (f failing) Addr() net.Addr            { return &net.TCPAddr{} }
func (f failing) Close() error              { return nil }

// Without file descriptors accepting goes on later, less and less often.
func TestAcceptFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(slog.New(slog.DiscardHandler))
		start := time.Now()
		var at []time.Duration
		err := s.Serve(failing{accept: func() (net.Conn, error) {
			if at = append(at, time.Since(start)); len(at) == 12 {
				_ = s.Close()
			}
			return nil, errors.New("too many open files")
		}}, nil)
		if err != nil {
			t.Error(err)
		}
		if at[1] != 5*time.Millisecond || at[2] != 15*time.Millisecond || at[11]-at[10] != time.Second {
			t.Errorf("tried at %s", at)
		}
	})
}

func TestOnlyTCP(t *testing.T) {
	here, there := net.Pipe()
	err := New(slog.New(slog.DiscardHandler)).Serve(failing{accept: func() (net.Conn, error) { return here, nil }}, nil)
	if err == nil {
		t.Error("a pipe is taken for TCP")
	}
	if _, err := there.Read(make([]byte, 1)); err == nil {
		t.Error("it is still open")
	}
	if got := Address(here.RemoteAddr()); got.IsValid() {
		t.Errorf("its address is %s", got)
	}
}

func TestAddresses(t *testing.T) {
	var a Addresses
	one, other, loopback := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("127.0.0.1")
	same, next := netip.MustParseAddr("2001:db8::2:3:4:5"), netip.MustParseAddr("2001:db8:0:1::1")
	for i, tt := range []struct {
		addr netip.Addr
		want bool
	}{
		{one, true}, {one, true}, {one, false}, {other, true}, {same, true}, {other, false}, {next, true}, {loopback, true}, {loopback, true}, {loopback, true},
		{netip.IPv6Loopback(), true}, {netip.IPv6Loopback(), true}, {netip.IPv6Loopback(), true}, {netip.Addr{}, true}, {netip.Addr{}, true}, {netip.Addr{}, true},
	} {
		if got := a.Take(tt.addr, 2); got != tt.want {
			t.Errorf("%d: %s taken: %t, want %t", i, tt.addr, got, tt.want)
		}
	}
	a.Give(one)
	if !a.Take(one, 2) {
		t.Error("a closed connection still counts")
	}
	if !a.Take(one, 3) || a.Take(one, 3) || !a.Take(one, 0) {
		t.Error("another limit does not count")
	}
	for _, addr := range []netip.Addr{one, one, one, one, same, same, next, loopback, loopback, loopback, netip.IPv6Loopback(), netip.IPv6Loopback(), netip.IPv6Loopback(), {}, {}, {}} {
		a.Give(addr)
	}
	if len(a.open) != 0 {
		t.Errorf("addresses without connections are kept: %v", a.open)
	}
}

func TestBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Bucket
		const rate = 1000
		for i, tt := range []struct {
			idle    time.Duration // before it
			n, rate int
			want    time.Duration
		}{
			{0, 600, rate, 0},
			{0, 600, rate, 200 * time.Millisecond},
			{0, 0, rate, 0},
			{0, 100, rate, 100 * time.Millisecond},
			{0, 5000, 0, 0}, // no limit
			{500 * time.Millisecond, 700, rate, 200 * time.Millisecond},
			{time.Hour, 1000, rate, 0}, // and no more than one second
			{0, 1, rate, time.Millisecond},
			{0, 5000, rate, 5 * time.Second},
		} {
			time.Sleep(tt.idle)
			before := time.Now()
			if waited := b.Wait(t.Context(), tt.n, tt.rate); waited != (tt.want > 0) || time.Since(before) != tt.want {
				t.Errorf("%d: %d bytes waited %s, want %s", i, tt.n, time.Since(before), tt.want)
			}
		}
		if b.Full(time.Now(), rate) || !b.Full(time.Now().Add(time.Second), rate) || !b.Full(time.Now(), 0) {
			t.Error("it is full after one second")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		before := time.Now()
		if !b.Wait(ctx, 100*rate, rate) || time.Since(before) != time.Second {
			t.Errorf("it waited %s for a context of one second", time.Since(before))
		}
	})
}
