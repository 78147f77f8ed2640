package s2s_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"strings"
	"testing"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/xmpptest"
)

// onePort lets other servers reach this one on its https listener alone (XEP-0368 §4).
func onePort(c *config.Config) {
	c.Web.OnePort = true
	c.Listen.S2S, c.Listen.S2STLS = nil, nil
}

// TestOnePort: two servers of which only the https listener can be reached, with everything that a listener of its own has.
func TestOnePort(t *testing.T) {
	for _, tc := range []struct {
		name    string
		options func(w *world, domain string) []xmpptest.Option
		want    string
	}{
		{"EXTERNAL", func(*world, string) []xmpptest.Option { return nil }, "out direct EXTERNAL valid bidi resumable"},
		{"EXTERNAL without bidi", func(*world, string) []xmpptest.Option {
			return []xmpptest.Option{func(c *config.Config) { c.S2S.Bidi = false }}
		}, "in direct EXTERNAL valid resumable, out direct EXTERNAL valid resumable"},
		{"dialback", func(w *world, domain string) []xmpptest.Option {
			return []xmpptest.Option{w.selfSigned(domain), dialback, func(c *config.Config) { c.S2S.Bidi = false }}
		}, "in direct dialback resumable, out direct dialback resumable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			a := w.server("a.test", append(tc.options(w, "a.test"), onePort)...)
			b := w.server("b.test", append(tc.options(w, "b.test"), onePort)...)
			for domain, s := range map[string]*xmpptest.Server{"a.test": a, "b.test": b} {
				w.dns.SRV(domain, "xmpps-server", "xmpp."+domain, port(s.Addr("https")), 5, 0)
				w.dns.Host("xmpp."+domain, "127.0.0.1")
			}
			romeo, juliet := a.Client("romeo@a.test/orchard"), b.Client("juliet@b.test/balcony")
			romeo.Online()
			juliet.Online()
			romeo.Send("<message to='juliet@b.test' type='chat' id='m1'><body>Wherefore art thou?</body></message>")
			juliet.Expect("<message to='juliet@b.test' from='romeo@a.test/orchard' type='chat' id='m1'><body>Wherefore art thou?</body></message>")
			juliet.Send("<message to='romeo@a.test/orchard' type='chat' id='m2'><body>Here</body></message>")
			romeo.Expect("<message to='romeo@a.test/orchard' from='juliet@b.test/balcony' type='chat' id='m2'><body>Here</body></message>")
			a.Eventually(tc.want, func() bool { return methods(a) == tc.want })
		})
	}
}

// direct takes a peer to the open stream on an https listener, with what a proxy in front of it says first.
func direct(s *xmpptest.Server, preamble, from, to string, cert *tls.Certificate) *stranger {
	c := s.DialListener("https")
	if preamble != "" {
		c.Write(preamble)
	}
	cfg := &tls.Config{InsecureSkipVerify: true, ServerName: to, NextProtos: []string{"xmpp-server"}}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	c.Handshake(cfg)
	x := &stranger{Client: c}
	x.open(from, to)
	return x
}

// TestOnePortForPeers: what is asked of another server on the https listener is what is asked on its own.
func TestOnePortForPeers(t *testing.T) {
	w := newWorld(t)
	s := w.server("a.test", onePort)
	juliet := s.Client("juliet@a.test/balcony")
	t.Run("no certificate", func(t *testing.T) {
		x := direct(s, "", "evil.test", "a.test", nil)
		if x.offers("EXTERNAL") {
			t.Error("EXTERNAL is offered")
		}
		x.Write("<message from='u@evil.test' to='juliet@a.test/balcony' id='evil'><body>x</body></message>")
		x.ends(t, "not-authorized")
	})
	t.Run("certificate of another", func(t *testing.T) {
		x := direct(s, "", "bank.test", "a.test", w.trusted("evil.test"))
		if x.offers("EXTERNAL") {
			t.Error("EXTERNAL is offered")
		}
		x.Write("<db:result from='bank.test' to='a.test'>k</db:result>")
		if e := x.Element(); e.Attr("type") != "error" || !strings.Contains(e.String(), "not-authorized") {
			t.Errorf("got %s", e)
		}
	})
	t.Run("its own certificate", func(t *testing.T) {
		x := direct(s, "", "good.test", "a.test", w.trusted("good.test"))
		x.external(t, "good.test", "a.test")
		x.Write("<message from='u@good.test' to='juliet@a.test/balcony' id='good'><body>x</body></message>")
		juliet.Expect("<message from='u@good.test' to='juliet@a.test/balcony' id='good'><body>x</body></message>")
	})
	t.Run("only servers are asked for one", func(t *testing.T) {
		for protocol, want := range map[string]bool{"xmpp-server": true, "xmpp-client": false, "http/1.1": false, "h2": false, "": false} {
			asked := false
			cfg := &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				asked = true
				return new(tls.Certificate), nil
			}}
			if protocol != "" {
				cfg.NextProtos = []string{protocol}
			}
			c, err := tls.Dial("tcp", s.Addr("https").String(), cfg)
			if err != nil {
				t.Fatalf("%q: %v", protocol, err)
			}
			if got := c.ConnectionState().NegotiatedProtocol; asked != want || got != protocol {
				t.Errorf("%q: asked %t, want %t; chosen %q", protocol, asked, want, got)
			}
			_ = c.Close()
		}
	})
	t.Run("a handshake that is too large", func(t *testing.T) {
		large := w.ca.Pair(func(c *x509.Certificate) {
			c.DNSNames = []string{"large.test"}
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Value: make([]byte, 30<<10)}}
		})
		large.Certificate = append(large.Certificate, large.Certificate[0], large.Certificate[0]) // a chain of 90 KiB, where crypto/tls takes 256
		c, err := tls.Dial("tcp", s.Addr("https").String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"xmpp-server"}, Certificates: []tls.Certificate{large}})
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(xmpptest.Patience))
		_, _ = io.WriteString(c, header("large.test", "a.test", ""))
		if n, err := c.Read(make([]byte, 100)); err == nil {
			t.Errorf("the server answers with %d bytes", n)
		}
	})
	juliet.ExpectNothing()
}

// TestOnePortBehindProxy: whose connection it is the proxy says, and its end is noticed by everybody who has counted it.
func TestOnePortBehindProxy(t *testing.T) {
	w := newWorld(t)
	s := w.server("a.test", onePort, func(c *config.Config) {
		c.Web.Proxies = []string{"127.0.0.1"}
		c.Limits.ConnectionsPerAddress = 1
	})
	const preamble = "PROXY TCP4 192.0.2.1 192.0.2.2 40000 443\r\n"
	x := direct(s, preamble, "b.test", "a.test", w.trusted("b.test"))
	x.external(t, "b.test", "a.test")
	list, err := s.Federation().Streams(context.Background())
	if err != nil || len(list) != 1 || list[0].Address != "192.0.2.1:40000" {
		t.Fatalf("%+v, %v", list, err)
	}
	open := func() bool {
		c := s.DialListener("https")
		c.Write(preamble)
		defer func() { _ = c.Conn().Close() }()
		_ = c.Conn().SetDeadline(time.Now().Add(xmpptest.Patience))
		return tls.Client(c.Conn(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"xmpp-server"}}).Handshake() == nil
	}
	if open() {
		t.Error("the address has two connections")
	}
	x.Write("</stream:stream>")
	x.End()
	s.Eventually("room for another connection", open)
}
