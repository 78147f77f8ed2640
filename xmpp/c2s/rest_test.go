package c2s

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

// resting is a bound session over TLS, and its client's end.
func resting(t *testing.T) (*conn, *tls.Conn) {
	t.Helper()
	w := watch(t)
	web := httptest.NewTLSServer(nil) // for its certificate
	web.Close()
	sock, peer := pair(t)
	c := w.newConn(sock.RemoteAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort().Addr())
	c.sock, c.account, c.log = sock, jid.MustParse("romeo@localhost"), slog.New(slog.DiscardHandler)
	if ok, _ := w.admit(c); !ok {
		t.Fatal("not admitted")
	}
	c.tls = tls.Server(sock, &tls.Config{Certificates: web.TLS.Certificates})
	c.wire, c.opened = c.tls, true
	client := tls.Client(peer, &tls.Config{InsecureSkipVerify: true})
	hands := make(chan error, 1)
	go func() { hands <- client.Handshake() }()
	if err := c.tls.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-hands; err != nil {
		t.Fatal(err)
	}
	c.dec = stream.NewDecoder(xmpp.NSClient, c.cfg.Authenticated)
	c.dec.Feed([]byte("<stream:stream to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"))
	if _, err := c.dec.Next(); err != nil {
		t.Fatal(err)
	}
	if err := c.bindResource(t.Context(), "orchard", nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		if err := w.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
	go c.run()
	return c, client
}

// A session that rests goes on as if nothing had been, whatever comes at the same time.
func TestRest(t *testing.T) {
	c, client := resting(t)
	buf := make([]byte, 4096)
	for i := range 60 {
		ask := func() {
			if _, err := io.WriteString(client, "<iq type='get' id='a'><query xmlns='urn:x'/></iq>"); err != nil {
				t.Fatal(err)
			}
		}
		asked := make(chan struct{})
		switch i % 3 {
		case 0: // before, after or with the question
			ask()
			c.rest()
			close(asked)
		case 1:
			c.rest()
			ask()
			close(asked)
		case 2:
			go func() { c.rest(); close(asked) }()
			ask()
		}
		_ = client.SetReadDeadline(time.Now().Add(30 * time.Second))
		got := ""
		for !strings.Contains(got, "</iq>") {
			n, err := client.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got += string(buf[:n])
		}
		if strings.Count(got, "<iq") != 1 || !strings.Contains(got, "type='error'") {
			t.Fatalf("answered %s", got)
		}
		<-asked
	}
	if n := c.server.rests.Load(); n == 0 {
		t.Error("no goroutine gave way to another one")
	}
}

// A session that is ended while it rests ends.
func TestEndWhileResting(t *testing.T) {
	for i := range 10 {
		c, client := resting(t)
		go func() { _, _ = io.Copy(io.Discard, client); _ = client.Close() }()
		if i%2 == 0 {
			go c.rest()
		} else {
			c.rest()
		}
		c.Close(streamerr.PolicyViolation)
		select {
		case <-c.done:
		case <-time.After(30 * time.Second):
			t.Fatal("the session goes on")
		}
	}
}

// The end of a connection that came before the session rests is noticed.
func TestConnectionEndsWhileResting(t *testing.T) {
	for range 10 {
		c, client := resting(t)
		go c.rest()
		_ = client.Close()
		select {
		case <-c.done:
		case <-time.After(30 * time.Second):
			t.Fatal("the session goes on")
		}
	}
}

// A connection that ends does not rest: the client is waited for (RFC 6120 §4.4).
func TestNoRestAtTheEnd(t *testing.T) {
	w := watch(t)
	sock, peer := pair(t)
	c := w.newConn(netip.Addr{})
	c.sock = sock
	c.begun.Store(true)
	now := time.Now()
	c.lastRead.Store(now.Add(-restAfter).UnixNano())
	c.Close(streamerr.Conflict)
	_ = sock.SetDeadline(now.Add(time.Minute)) // as goodbye does
	c.check(now)
	if _, err := peer.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := sock.TCPConn.Read(make([]byte, 1)); err != nil {
		t.Errorf("lingering ends: %v", err)
	}
	if err := w.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// A session can be given more than it may hold while it is still being bound.
func TestFullWhileBinding(t *testing.T) {
	w := watch(t)
	cfg := DefaultConfig()
	cfg.Management.Stanzas = 1
	w.SetConfig(cfg)
	w.log = slog.New(slog.NewTextHandler(io.Discard, nil)) // what is said of it has to be made
	sock, _ := pair(t)
	c := w.newConn(netip.Addr{})
	c.sock = sock
	s := &session{server: w.Server, conn: c, sm: new(management), takeover: make(chan struct{}, 1)}
	m := xmpp.New(xmpp.Message, "chat", jid.MustParse("romeo@localhost/orchard"), jid.MustParse("juliet@localhost"))
	for range 2 {
		if !s.Enqueue(t.Context(), m) {
			t.Error("not taken")
		}
	}
	if c.ended() == nil {
		t.Error("the session goes on")
	}
	if err := w.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
