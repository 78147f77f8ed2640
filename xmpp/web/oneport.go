package web

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
)

// split accepts from l, does the TLS handshakes, and gives what is not HTTP to who takes it: one port for everything (XEP-0368 §4). These
// connections never come to net/http, which would keep a goroutine for each.
func (s *Server) split(l net.Listener) net.Listener {
	sp := &splitter{Listener: l, s: s, next: make(chan accepted)}
	sp.ctx, sp.cancel = context.WithCancel(context.Background())
	sp.running.Go(sp.run)
	return sp
}

// maxHandshake is what a peer may send until TLS is done: crypto/tls would take a certificate chain of 256 KiB. chosen: as on the listeners of servers.
const maxHandshake = 48 << 10

// splitter is a listener that gives the connections of HTTP alone, after their handshakes.
type splitter struct {
	net.Listener
	s       *Server
	next    chan accepted
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup
}

type accepted struct {
	c   net.Conn
	err error
}

func (sp *splitter) run() {
	for {
		c, err := sp.Listener.Accept()
		if err != nil {
			if !sp.give(accepted{err: err}) || errors.Is(err, net.ErrClosed) {
				return
			}
			continue // net/http waits a while before it accepts again
		}
		sp.running.Go(func() { sp.handshake(c) })
	}
}

// give hands over what Accept returns; false when nobody wants it any more.
func (sp *splitter) give(a accepted) bool {
	select {
	case sp.next <- a:
		return true
	case <-sp.ctx.Done():
		return false
	}
}

func (sp *splitter) handshake(c net.Conn) {
	t, ok := c.(*tls.Conn)
	if !ok {
		_ = c.Close()
		return
	}
	under := counted(t)
	if under != nil {
		under.bounded, under.left = true, maxHandshake
	}
	ctx, cancel := context.WithTimeout(sp.ctx, sp.s.cfg.HeaderTimeout)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		sp.s.log.Debug("TLS handshake", "err", err)
		_ = c.Close()
		return
	}
	if under != nil {
		under.bounded = false
	}
	if take := sp.s.alpn[t.ConnectionState().NegotiatedProtocol]; take != nil {
		if err := take(t, beneath(t), address(t.RemoteAddr())); err != nil {
			sp.s.log.Debug("connection refused", "err", err)
		}
		return
	}
	if !sp.give(accepted{c: t}) {
		_ = c.Close()
	}
}

// Accept returns the next connection of HTTP.
func (sp *splitter) Accept() (net.Conn, error) {
	select {
	case a := <-sp.next:
		return a.c, a.err
	case <-sp.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close stops accepting. It waits for the handshakes, which end at once.
func (sp *splitter) Close() error {
	sp.cancel()
	err := sp.Listener.Close()
	sp.running.Wait()
	return err
}
