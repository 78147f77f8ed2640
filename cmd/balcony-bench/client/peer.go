package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// PeerPort is where servers without SRV records listen for others (RFC 6120 §3.2.2).
const PeerPort = "5269"

// Peer is the minimal server of another domain: it proves the domain by dialback over TLS (XEP-0220) and believes everybody else, so that what is
// measured is the server at the other end. The domain is an IP address, which needs no DNS (RFC 6120 §3.2.3).
type Peer struct {
	domain   string
	cert     tls.Certificate
	received func(stanza []byte)
	listener net.Listener
	serving  sync.WaitGroup

	mu sync.Mutex
	// Guarded by mu.
	conns  []net.Conn
	closed bool
	err    error // why a stream ended before Close

	out     *tls.Conn // set by Connect
	gather  sync.Mutex
	pending []byte        // guarded by gather: what is to be written
	wake    chan struct{} // holds a token while pending is not empty
	done    chan struct{} // closed by Close
}

// NewPeer listens on PeerPort of the address that is its domain. received is called for each stanza, on the goroutine of the stream that it came over;
// the bytes are valid until it returns.
func NewPeer(domain string, cert tls.Certificate, received func(stanza []byte)) (*Peer, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(domain, PeerPort))
	if err != nil {
		return nil, err
	}
	p := &Peer{domain: domain, cert: cert, received: received, listener: l, wake: make(chan struct{}, 1), done: make(chan struct{})}
	p.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if p.keep(c) {
				p.serving.Go(func() { p.ended(p.serve(c)) })
			}
		}
	})
	return p, nil
}

// keep notes a connection for Close; false after that.
func (p *Peer) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.Close()
		return false
	}
	p.conns = append(p.conns, c)
	return true
}

func (p *Peer) ended(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed && p.err == nil && !errors.Is(err, ErrStreamClosed) { // a stream for a dialback key ends with it
		p.err = err
	}
}

// Err is why a stream was lost, if one was.
func (p *Peer) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Close ends all streams and waits for their goroutines.
func (p *Peer) Close() {
	p.mu.Lock()
	p.closed = true
	for _, c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.listener.Close()
	close(p.done)
	p.serving.Wait()
}

func (p *Peer) header(to string) string {
	return fmt.Sprintf("<?xml version='1.0'?><stream:stream from='%s' to='%s' id='bench' version='1.0' xmlns='jabber:server' xmlns:db='jabber:server:dialback' xmlns:stream='http://etherx.jabber.org/streams'>", p.domain, to)
}

// serve is a stream that the other server has opened: its stanzas, or its questions about keys.
func (p *Peer) serve(raw net.Conn) error {
	raw.SetDeadline(time.Now().Add(loginTimeout))
	f := NewFramer(raw, 1024)
	// greet answers a stream header with the own one and the features.
	greet := func(c net.Conn, features string) error {
		h, err := f.Header()
		if err == nil {
			_, err = c.Write([]byte(p.header(string(Attr(h, "from"))) + "<stream:features>" + features + "</stream:features>"))
		}
		return err
	}
	if err := greet(raw, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>"); err != nil {
		return err
	}
	if frame, err := f.Next(); err != nil || !bytes.HasPrefix(frame, []byte("<starttls")) {
		return fmt.Errorf("expected starttls, got %s: %w", frame, err)
	}
	if _, err := raw.Write([]byte("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")); err != nil {
		return err
	}
	conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{p.cert}})
	f.Reset(conn)
	if err := greet(conn, "<dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback>"); err != nil {
		return err
	}
	raw.SetDeadline(time.Time{})
	for {
		frame, err := f.Next()
		if err != nil {
			return err
		}
		switch {
		case bytes.HasPrefix(frame, []byte("<db:result")), bytes.HasPrefix(frame, []byte("<db:verify")):
			name, id := "db:result", ""
			if bytes.HasPrefix(frame, []byte("<db:verify")) {
				name, id = "db:verify", fmt.Sprintf(" id='%s'", Attr(frame, "id"))
			}
			_, err := fmt.Fprintf(conn, "<%s from='%s' to='%s'%s type='valid'/>", name, Attr(frame, "to"), Attr(frame, "from"), id)
			if err != nil {
				return err
			}
		case bytes.HasPrefix(frame, []byte("<stream:error")):
			return fmt.Errorf("stream error %s", frame)
		default:
			p.received(frame)
		}
	}
}

// Connect opens the stream to the server of a domain at addr, over which Write sends.
func (p *Peer) Connect(ctx context.Context, addr, domain string) error {
	var nd net.Dialer
	raw, err := nd.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	if !p.keep(raw) {
		return net.ErrClosed
	}
	raw.SetDeadline(time.Now().Add(loginTimeout))
	f := NewFramer(raw, 1024)
	// open sends the stream header and reads that of the server and its features.
	open := func(c net.Conn) error {
		if _, err := c.Write([]byte(strings.Replace(p.header(domain), " id='bench'", "", 1))); err != nil {
			return err
		}
		if _, err := f.Header(); err != nil {
			return err
		}
		frame, err := f.Next()
		if err == nil && !bytes.HasPrefix(frame, []byte("<stream:features")) {
			err = fmt.Errorf("expected features, got %s", frame)
		}
		return err
	}
	if err := open(raw); err != nil {
		return err
	}
	if err := exchange(raw, f, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "<proceed"); err != nil {
		return err
	}
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	f.Reset(conn)
	if err := open(conn); err != nil {
		return err
	}
	if err := exchange(conn, f, fmt.Sprintf("<db:result from='%s' to='%s'>key</db:result>", p.domain, domain), "<db:result"); err != nil {
		return err
	}
	raw.SetDeadline(time.Time{})
	p.out = conn
	p.serving.Go(func() {
		for {
			frame, err := f.Next()
			if err == nil && bytes.HasPrefix(frame, []byte("<stream:error")) {
				err = fmt.Errorf("stream error %s", frame)
			}
			if err != nil {
				p.ended(err)
				return
			}
		}
	})
	p.serving.Go(p.write)
	return nil
}

// Write sends stanzas over the stream of Connect. What several callers have to send goes out in one piece, as that of a server that is busy.
func (p *Peer) Write(b []byte) {
	p.gather.Lock()
	p.pending = append(p.pending, b...)
	p.gather.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *Peer) write() {
	var b []byte
	for {
		select {
		case <-p.wake:
		case <-p.done:
			return
		}
		p.gather.Lock()
		b, p.pending = p.pending, b[:0]
		p.gather.Unlock()
		if _, err := p.out.Write(b); err != nil {
			p.ended(err)
			return
		}
	}
}
