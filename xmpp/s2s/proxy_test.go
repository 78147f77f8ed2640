package s2s_test

import (
	"io"
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/s2s/s2stest"
)

// TestBehindProxy: streams of other servers that a TCP proxy passes on, with STARTTLS and direct TLS, are those of the address that the proxy names.
func TestBehindProxy(t *testing.T) {
	for _, listener := range []string{"s2s", "s2s_tls"} {
		t.Run(listener, func(t *testing.T) {
			w := newWorld(t)
			a := w.server("a.test")
			b := w.server("b.test", func(c *config.Config) { c.Listen.Proxies = []string{"127.0.0.2"} })
			proxy := s2stest.NewCable(t, b.Addr(listener))
			proxy.From, proxy.Says = "127.0.0.2", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x09\xc0\x00\x02\x02\x9c\x40\x14\x95"
			w.found("a.test", a)
			w.dns.Host("b.test", "127.0.0.1")
			service := map[string]string{"s2s": "xmpp-server", "s2s_tls": "xmpps-server"}[listener]
			w.dns.SRV("b.test", service, "b.test", port(proxy.Addr()), 0, 0)
			romeo, juliet := a.Client("romeo@a.test/orchard"), b.Client("juliet@b.test/balcony")
			romeo.Send("<message to='juliet@b.test/balcony' id='1'><body>Wherefore?</body></message>")
			juliet.Expect("<message from='romeo@a.test/orchard' to='juliet@b.test/balcony' id='1'><body>Wherefore?</body></message>")
			juliet.Send("<message to='romeo@a.test/orchard' id='2'><body>Therefore.</body></message>")
			romeo.Expect("<message from='juliet@b.test/balcony' to='romeo@a.test/orchard' id='2'><body>Therefore.</body></message>")
			streams, err := b.Federation().Streams(t.Context())
			if err != nil || len(streams) == 0 {
				t.Fatal(streams, err)
			}
			for _, s := range streams {
				if s.Direction == "in" && (s.Address != "192.0.2.9:40000" || s.Direct != (listener == "s2s_tls")) {
					t.Errorf("%+v", s)
				}
			}
			// Without its word the proxy is nobody: there is no answer at all.
			silent := b.DialFrom("127.0.0.2", listener)
			silent.Write(header("a.test", "b.test", ""))
			if said, _ := io.ReadAll(silent.Conn()); len(said) > 0 {
				t.Errorf("a proxy that says nothing is told %q", said)
			}
		})
	}
}
