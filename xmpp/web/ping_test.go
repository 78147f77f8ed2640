package web

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"balcony/xmpp/auth"
	"balcony/xmpp/stream"

	"github.com/prometheus/client_golang/prometheus"
)

// pipes is a listener whose connections stay in memory and come from loopback.
type pipes struct {
	next   chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.next:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

type pipe struct{ net.Conn }

func (pipe) RemoteAddr() net.Addr                     { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (pipe) Unblock(int, func(), func(), func(error)) {}
func (pipe) Pull()                                    {}
func (pipe) Fetch() error                             { return nil } // its Read waits

func frameOf(t *testing.T, r io.Reader) (opcode byte, n int) {
	var h [2]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		t.Error(err)
	}
	_, _ = io.CopyN(io.Discard, r, int64(h[1]))
	return h[0] & 0x0F, int(h[1])
}

// TestWebSocketPing: RFC 7395 §3.8, RFC 6455 §5.5.2. A pong is a sign of life; without one the client is gone.
func TestWebSocketPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(DefaultConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry(), healthy)
		attached := make(chan stream.Transport, 1)
		s.HandleStreams(Streams{Attach: func(over stream.Transport, _ auth.Channel) error { attached <- over; return nil }})
		l := &pipes{next: make(chan net.Conn), closed: make(chan struct{})}
		served := make(chan error)
		go func() { served <- s.Serve(l) }()
		client, server := net.Pipe()
		l.next <- pipe{server}
		go func() {
			_, _ = io.WriteString(client, "GET /xmpp-websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n")
		}()
		br := bufio.NewReader(client)
		if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatal(resp, err)
		}
		over := <-attached
		var alive atomic.Int32
		var failed atomic.Value
		over.SetLimits(stream.DefaultLimits())
		over.Begin(stream.Begin{Stall: func() {}, Unstall: func() {}, Drained: func(err error) {
			if err != nil {
				failed.Store(err)
			}
		}, Alive: func() { alive.Add(1) }})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _, _, _ = over.Receive()
		}()
		over.Ping()
		over.Ping() // one at a time
		if opcode, n := frameOf(t, br); opcode != 9 || n != 1 {
			t.Fatalf("opcode %d, %d bytes, want a ping", opcode, n)
		}
		if _, err := client.Write([]byte{0x8A, 0x81, 0, 0, 0, 0, '1'}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if alive.Load() != 1 || failed.Load() != nil {
			t.Errorf("%d signs of life, %v", alive.Load(), failed.Load())
		}
		over.Ping()
		if opcode, _ := frameOf(t, br); opcode != 9 {
			t.Fatalf("opcode %d, want a ping", opcode)
		}
		time.Sleep(pongTime + time.Second)
		synctest.Wait()
		if failed.Load() != errNoPong || alive.Load() != 1 {
			t.Errorf("%v, %d signs of life", failed.Load(), alive.Load())
		}
		over.Close()
		<-ended
		_ = client.Close()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}
