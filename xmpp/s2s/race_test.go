package s2s

import (
	"math"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// stuck is an address of this machine where connections are neither accepted nor refused.
func stuck(t *testing.T) netip.AddrPort {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*syscall.SockaddrInet4).Port))
	c, err := net.Dial("tcp", at.String()) // fills the queue of those that wait to be accepted
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return at
}

func listening(t *testing.T) netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func refusing(t *testing.T) netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// TestRace: RFC 8305 §5: an address that does not answer costs the delay between attempts, one that refuses nothing, and what was not decided is left for another try.
func TestRace(t *testing.T) {
	silent, good, other := stuck(t), listening(t), listening(t)
	for _, tt := range []struct {
		name      string
		endpoints []netip.AddrPort
		least     time.Duration
		most      time.Duration
		rest      []netip.AddrPort
	}{
		{"the first answers", []netip.AddrPort{good, other}, 0, attemptDelay, []netip.AddrPort{other}},
		{"the first refuses", []netip.AddrPort{refusing(t), good, other}, 0, attemptDelay, []netip.AddrPort{other}},
		{"the first is silent", []netip.AddrPort{silent, good, other}, attemptDelay, 2 * attemptDelay, []netip.AddrPort{silent, other}},
		{"one refuses and one is silent", []netip.AddrPort{refusing(t), silent, refusing(t), good}, attemptDelay, 2 * attemptDelay, []netip.AddrPort{silent}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var list []endpoint
			for _, a := range tt.endpoints {
				list = append(list, endpoint{addr: a})
			}
			var rest []endpoint
			least := time.Duration(math.MaxInt64)
			for range 5 { // the machine may be busy, which only makes it longer
				begin := time.Now()
				c, at, left, err := race(t.Context(), list)
				d := time.Since(begin)
				if err != nil {
					t.Fatal(err)
				}
				_ = c.Close()
				if at.addr != good {
					t.Errorf("connected to %s, not to %s", at.addr, good)
				}
				if d < tt.least {
					t.Errorf("it took %s", d)
				}
				rest, least = left, min(least, d)
			}
			if least > tt.most+time.Second {
				t.Errorf("it took %s", least)
			}
			if len(rest) != len(tt.rest) {
				t.Fatalf("left: %v, want %v", rest, tt.rest)
			}
			for i, e := range rest {
				if e.addr != tt.rest[i] {
					t.Errorf("left: %v, want %v", rest, tt.rest)
				}
			}
		})
	}
	if _, _, _, err := race(t.Context(), []endpoint{{addr: refusing(t)}, {addr: refusing(t)}}); err == nil {
		t.Error("connected to nobody")
	}
}
