package c2s

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// arrived waits until the kernel shows one of events on the socket.
func arrived(t *testing.T, s *socket, events int16) {
	t.Helper()
	err := s.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: events}}
		if n, err := unix.Poll(p, 60_000); err != nil || n == 0 || p[0].Revents&events == 0 {
			t.Errorf("poll: %d %v %#x", n, err, p[0].Revents)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The end of a connection that came with its last bytes is noticed although the socket is not read again after a short read.
func TestSocketEndWithBytes(t *testing.T) {
	for _, last := range []string{"", "last words"} {
		s, peer := pair(t)
		s.ready.Store(true)
		_, _ = io.WriteString(peer, last)
		_ = peer.CloseWrite()
		arrived(t, s, unix.POLLRDHUP)
		got := ""
		err := s.readable(false, func() bool {
			got += string(s.in)
			s.in = nil
			return true
		})
		if !errors.Is(err, io.EOF) || got != last {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// A reset that came with the last bytes has no edge of its own: reset finds it once the reader waits.
func TestSocketResetWithBytes(t *testing.T) {
	s, peer := pair(t)
	s.ready.Store(true)
	if s.reset() {
		t.Error("an open connection is taken for a reset one")
	}
	_, _ = io.WriteString(peer, "last words")
	_ = peer.SetLinger(0)
	_ = peer.Close()
	arrived(t, s, unix.POLLHUP)
	ended := make(chan error, 1)
	got := make(chan string, 1)
	go func() {
		ended <- s.readable(false, func() bool {
			got <- string(s.in)
			s.in = nil
			return true
		})
	}()
	select {
	case text := <-got:
		if text != "last words" {
			t.Errorf("read %q", text)
		}
	case err := <-ended: // the kernel gave the reset away at once
		t.Logf("ended with %v", err)
		return
	}
	deadline := time.Now().Add(time.Minute)
	for !s.reset() {
		select {
		case err := <-ended:
			t.Logf("ended with %v", err)
			return
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("the reset is not noticed")
		}
	}
	_ = s.SetReadDeadline(time.Unix(1, 0))
	var ne net.Error
	if err := <-ended; !errors.As(err, &ne) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("ended with %v", err)
	}
}
