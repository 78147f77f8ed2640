package c2s_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/xmpptest"

	"mellium.im/sasl"
	"mellium.im/xmpp/jid"
)

// proxy is the address of a TCP proxy; clients at 127.0.0.1 come without.
const proxy = "127.0.0.2"

func behindProxy(c *config.Config) { c.Listen.Proxies = []string{proxy} }

// through connects as a client at an address would through the proxy; text follows the header in the same segment.
func through(srv *xmpptest.Server, listener, address, text string) *xmpptest.Client {
	c := srv.DialFrom(proxy, listener)
	c.Write("PROXY TCP4 " + address + " 192.0.2.2 40000 5222\r\n" + text)
	return c
}

// TestBehindProxy: the PROXY protocol in front of every kind of stream, and the session on the raw socket after it.
func TestBehindProxy(t *testing.T) {
	for _, tt := range []struct {
		listener, transport string
		config              func(*config.Config)
	}{
		{"c2s", "STARTTLS", func(*config.Config) {}},
		{"c2s_tls", "TLS", func(*config.Config) {}},
		{"https", "TLS", func(c *config.Config) { c.Web.OnePort, c.Web.Proxies = true, []string{proxy} }}, // XEP-0368 §4: ALPN decides
	} {
		t.Run(tt.listener, func(t *testing.T) {
			srv := xmpptest.New(t, behindProxy, tt.config, func(c *config.Config) { c.Limits.ClientRate = config.Off })
			srv.Account("romeo@localhost")
			juliet := srv.Client("juliet@localhost/balcony") // without the proxy
			var romeo *xmpptest.Client
			if tt.listener == "c2s" {
				romeo = through(srv, tt.listener, "192.0.2.7", header)
				romeo.Header()
				romeo.Element()
				romeo.StartTLS(nil)
			} else {
				romeo = through(srv, tt.listener, "192.0.2.7", "")
				romeo.Handshake(&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"xmpp-client"}})
			}
			romeo.Open("localhost")
			if err := romeo.Authenticate(sasl.ScramSha256Plus, "romeo", "romeo"); err != nil {
				t.Fatal(err)
			}
			romeo.Open("localhost")
			romeo.Bind("orchard")

			list, _, err := srv.Accounts().Sessions(t.Context(), jid.MustParse("romeo@localhost"))
			if err != nil || len(list) != 1 || list[0].Address != "192.0.2.7" || list[0].Transport != tt.transport {
				t.Errorf("%+v, %v", list, err)
			}
			// More than one read or write takes, both ways: nothing is lost, and nothing changes its place.
			const n = 25
			body := strings.Repeat("x", 20_000)
			for i := range n {
				romeo.Send(fmt.Sprintf("<message to='juliet@localhost/balcony' id='r%d'><body>%s</body></message>", i, body))
				juliet.Send(fmt.Sprintf("<message to='romeo@localhost/orchard' id='j%d'><body>%s</body></message>", i, body))
			}
			for i := range n {
				juliet.Expect(fmt.Sprintf("<message from='romeo@localhost/orchard' to='juliet@localhost/balcony' id='r%d'><body>%s</body></message>", i, body))
				romeo.Expect(fmt.Sprintf("<message from='juliet@localhost/balcony' to='romeo@localhost/orchard' id='j%d'><body>%s</body></message>", i, body))
			}
		})
	}
}

// TestOnlyProxiesSpeakForOthers: a proxy must, and nobody else can.
func TestOnlyProxiesSpeakForOthers(t *testing.T) {
	srv := xmpptest.New(t, behindProxy, func(c *config.Config) { c.Limits.ConnectionsPerAddress = 2 })
	for _, listener := range []string{"c2s", "c2s_tls"} {
		c := srv.DialFrom(proxy, listener)
		c.Write(header)
		if b, _ := io.ReadAll(c.Conn()); len(b) > 0 {
			t.Errorf("%s: a proxy that says nothing is told %q", listener, b)
		}
	}
	c := srv.DialFrom("127.0.0.1", "c2s")
	c.Write("PROXY TCP4 192.0.2.7 192.0.2.2 40000 5222\r\n" + header)
	c.Header()
	c.ExpectElement("<stream:error><not-well-formed xmlns='" + streams + "'/></stream:error>")
	// The proxy itself has no limit, for example when it looks whether the server is there.
	for range 5 {
		c := srv.DialFrom(proxy, "c2s")
		c.Write("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00")
		c.Open("localhost")
	}
}

// TestLimitsBehindProxy: connections and failed logins count for the client's address.
func TestLimitsBehindProxy(t *testing.T) {
	srv := xmpptest.New(t, behindProxy, func(c *config.Config) {
		c.Limits.ConnectionsPerAddress, c.Limits.TLSTime = 2, config.Duration(xmpptest.Patience)
	})
	one := through(srv, "c2s", "192.0.2.7", header)
	one.Header()
	through(srv, "c2s", "192.0.2.7", header).Header()
	full := through(srv, "c2s", "192.0.2.7", header)
	full.Header()
	full.ExpectElement("<stream:error><policy-violation xmlns='" + streams + "'/></stream:error>")
	through(srv, "c2s", "192.0.2.8", header).Header()
	_ = one.Conn().Close()
	srv.Eventually("room for another one", func() bool {
		c := through(srv, "c2s", "192.0.2.7", header)
		c.Header()
		return c.Element().Local == "features"
	})
}

// TestProxiesAreReloaded: the addresses count for new connections.
func TestProxiesAreReloaded(t *testing.T) {
	srv := xmpptest.New(t)
	cfg := *srv.Config
	cfg.Listen.Proxies = []string{proxy}
	if err := srv.Reload(&cfg); err != nil {
		t.Fatal(err)
	}
	through(srv, "c2s", "192.0.2.7", header).Header()
}

// TestShutdownBehindProxy: who has not said whose connection it is does not hold the server up.
func TestShutdownBehindProxy(t *testing.T) {
	srv := xmpptest.New(t, behindProxy, func(c *config.Config) { c.Limits.TLSTime = config.Duration(time.Hour) })
	c := srv.DialFrom(proxy, "c2s")
	c.Write("PROXY ")
	served := through(srv, "c2s", "192.0.2.7", header)
	served.Header() // accepted after the other one
	served.Element()
	ctx, cancel := context.WithTimeout(t.Context(), xmpptest.Patience)
	defer cancel()
	if err := srv.Stop(ctx); err != nil {
		t.Error(err)
	}
	served.ExpectElement("<stream:error><system-shutdown xmlns='" + streams + "'/></stream:error>")
	if b, err := io.ReadAll(c.Conn()); len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
}
