package s2s_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/xmpptest"
)

// reach sends a message from a.test to b.test and tells how it went.
func reach(t *testing.T, a, b *xmpptest.Server, remote string) {
	t.Helper()
	romeo, juliet := a.Client("romeo@a.test/orchard"), b.Client("juliet@"+remote+"/balcony")
	juliet.Online()
	romeo.Send("<message to='juliet@" + remote + "' type='chat' id='m'><body>x</body></message>")
	expect(juliet, "message", "m")
}

// TestDiscovery: RFC 6120 §3.2, XEP-0368 §3, RFC 8305, XEP-0495, with records that lead nowhere beside those that work.
func TestDiscovery(t *testing.T) {
	for _, tt := range []struct {
		name   string
		remote string
		dns    func(w *world, b *xmpptest.Server)
		option func(b *xmpptest.Server) xmpptest.Option
		want   string
	}{
		{"direct TLS has the lower priority number", "b.test", func(w *world, b *xmpptest.Server) {
			w.dns.SRV("b.test", "xmpp-server", "x.b.test", port(b.Addr("s2s")), 20, 0)
			w.dns.SRV("b.test", "xmpps-server", "x.b.test", port(b.Addr("s2s_tls")), 10, 0)
			w.dns.Host("x.b.test", "127.0.0.1")
		}, nil, "out direct EXTERNAL valid bidi resumable"},
		{"STARTTLS has it", "b.test", func(w *world, b *xmpptest.Server) {
			w.dns.SRV("b.test", "xmpp-server", "x.b.test", port(b.Addr("s2s")), 10, 0)
			w.dns.SRV("b.test", "xmpps-server", "x.b.test", port(b.Addr("s2s_tls")), 20, 0)
			w.dns.Host("x.b.test", "127.0.0.1")
		}, nil, "out EXTERNAL valid bidi resumable"},
		{"direct TLS is not there", "b.test", func(w *world, b *xmpptest.Server) {
			w.dns.SRV("b.test", "xmpps-server", ".", 0, 0, 0)
			w.dns.Server("b.test", b.Addr("s2s"))
		}, nil, "out EXTERNAL valid bidi resumable"},
		{"the first target refuses", "b.test", func(w *world, b *xmpptest.Server) {
			w.dns.SRV("b.test", "xmpp-server", "x.b.test", free(w.t, "127.0.0.1").Port, 1, 0)
			w.dns.SRV("b.test", "xmpp-server", "missing.b.test", 5269, 2, 0)
			w.dns.SRV("b.test", "xmpp-server", "x.b.test", port(b.Addr("s2s")), 3, 0)
			w.dns.Host("x.b.test", "127.0.0.1")
		}, nil, "out EXTERNAL valid bidi resumable"},
		{"the first target is another domain's", "b.test", func(w *world, b *xmpptest.Server) {
			w.newFake("b.test") // its certificate is not valid
			w.dns.SRV("b.test", "xmpp-server", "x.b.test", port(b.Addr("s2s")), 90, 0)
			w.dns.Host("x.b.test", "127.0.0.1")
		}, nil, "out EXTERNAL valid bidi resumable"},
		{"the addresses of IPv6 lead nowhere", "b.test", func(w *world, b *xmpptest.Server) {
			w.dns.SRV("b.test", "xmpp-server", "x.b.test", port(b.Addr("s2s")), 1, 0)
			w.dns.Host("x.b.test", "::1") // nobody listens there
			w.dns.Host("x.b.test", "127.0.0.1")
		}, nil, "out EXTERNAL valid bidi resumable"},
		{"internationalised", "bücher.test", func(w *world, b *xmpptest.Server) {
			w.dns.Server("xn--bcher-kva.test", b.Addr("s2s"))
		}, nil, "out EXTERNAL valid bidi resumable"},
		{"configured", "b.test", func(*world, *xmpptest.Server) {}, func(b *xmpptest.Server) xmpptest.Option {
			return func(c *config.Config) {
				c.S2S.Peers = []config.Peer{{Domain: "b.test", Addresses: []string{b.Addr("s2s_tls").String()}, DirectTLS: true}}
			}
		}, "out direct EXTERNAL valid bidi resumable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			b := w.server(tt.remote)
			tt.dns(w, b)
			var options []xmpptest.Option
			if tt.option != nil {
				options = append(options, tt.option(b))
			}
			a := w.server("a.test", options...)
			reach(t, a, b, tt.remote)
			a.Eventually(tt.want, func() bool { return methods(a) == tt.want })
		})
	}
}

// TestNoServiceRecords: RFC 6120 §3.2.2: the domain itself, at the port of servers.
func TestNoServiceRecords(t *testing.T) {
	w := newWorld(t)
	host := fmt.Sprintf("127.%d.%d.%d", 10+rand.IntN(240), rand.IntN(250), 1+rand.IntN(250))
	a, b := w.server("a.test"), w.server("b.test", func(c *config.Config) { c.Listen.S2S, c.Listen.S2STLS = []string{host + ":5269"}, nil })
	w.dns.Host("b.test", host)
	w.found("a.test", a)
	reach(t, a, b, "b.test")
	const want = "out EXTERNAL valid bidi resumable"
	a.Eventually(want, func() bool { return methods(a) == want })
}

// TestSilentResolver: the error comes in bounded time.
func TestSilentResolver(t *testing.T) {
	w := newWorld(t)
	a := w.server("a.test", func(c *config.Config) { c.Limits.ServerQueueTime = config.Duration(2 * time.Second) })
	w.dns.Silent("_xmpp-server._tcp.b.test")
	romeo := a.Client("romeo@a.test/orchard")
	romeo.Send("<message to='juliet@b.test' type='chat' id='m'><body>x</body></message>")
	if e := expect(romeo, "message", "m"); !strings.Contains(e.String(), "remote-server-timeout") {
		t.Errorf("got %s", e)
	}
}

// TestQueueIsBounded: RFC 6120 §8.3.3.18 for what is too much.
func TestQueueIsBounded(t *testing.T) {
	w := newWorld(t)
	a := w.server("a.test", func(c *config.Config) { c.Limits.ServerQueue = 20000 })
	f := w.newFake("b.test")
	f.result = nil // it never says whether the key is valid
	w.dns.Server("b.test", f.l.Addr())
	romeo := a.Client("romeo@a.test/orchard")
	hasten(t, a)
	for i := range 10 {
		romeo.Send(fmt.Sprintf("<message to='juliet@b.test' type='chat' id='m%d'><body>%s</body></message>", i, strings.Repeat("x", 5000)))
	}
	constrained, late := 0, 0
	for range 10 {
		switch e := romeo.Read(); {
		case strings.Contains(e.String(), "resource-constraint"):
			constrained++
		case strings.Contains(e.String(), "remote-server-timeout"):
			late++
		default:
			t.Errorf("got %s", e)
		}
	}
	if constrained < 5 || late < 2 {
		t.Errorf("%d were too much and %d too late", constrained, late)
	}
}

// TestHosts: streams are for hosts beside a domain as well, each pair of its own.
func TestHosts(t *testing.T) {
	w := newWorld(t)
	a, b := w.server("a.test"), w.server("b.test")
	w.found("a.test", a)
	w.found("b.test", b)
	for h := range b.Registry().Hosts {
		w.found(h+".b.test", b)
		romeo := a.Client("romeo@a.test/" + h)
		romeo.Send("<iq type='get' to='" + h + ".b.test' id='d'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
		if e := expect(romeo, "iq", "d"); e.Attr("type") != "result" || e.Attr("from") != h+".b.test" {
			t.Errorf("got %s", e)
		}
	}
	if len(b.Registry().Hosts) == 0 {
		t.Error("there is no host")
	}
}

// TestBlockedLater: a domain that is blocked while it has streams loses them, and comes back when it is allowed.
func TestBlockedLater(t *testing.T) {
	w := newWorld(t)
	a, b := w.server("a.test"), w.server("b.test")
	w.found("a.test", a)
	w.found("b.test", b)
	reach(t, a, b, "b.test")
	next := *b.Config
	next.S2S.Blocked = []string{"a.test"}
	if err := b.Reload(&next); err != nil {
		t.Fatal(err)
	}
	b.Eventually("the end of the streams", func() bool { return methods(b) == "" })
	x := knock(b, "elsewhere.test", "b.test", nil)
	x.Write("<db:result from='a.test' to='b.test'>k</db:result>")
	if e := x.Element(); !strings.Contains(e.String(), "policy-violation") {
		t.Errorf("got %s", e)
	}
}

// TestPolicyOfOneDomain: who may prove itself by dialback is let in by name.
func TestPolicyOfOneDomain(t *testing.T) {
	w := newWorld(t)
	a := w.server("a.test", func(c *config.Config) {
		c.S2S.Peers = []config.Peer{{Domain: "old.test", Auth: config.AuthDialback}}
	})
	w.newFake("old.test")
	w.newFake("strict.test")
	for domain, want := range map[string]string{"old.test": "valid", "strict.test": "error"} {
		x := knock(a, domain, "a.test", nil)
		x.Write("<db:result from='" + domain + "' to='a.test'>k</db:result>")
		if e := x.Element(); e.Attr("type") != want {
			t.Errorf("%s got %s", domain, e)
		}
	}
}

// TestExplain: the steps that an operator reads.
func TestExplain(t *testing.T) {
	w := newWorld(t)
	a, b := w.server("a.test", func(c *config.Config) { c.S2S.Blocked = []string{"blocked.test"} }), w.server("b.test")
	w.found("b.test", b)
	w.newFake("wrong.test")
	for _, tt := range []struct {
		domain string
		want   []string
	}{
		{"b.test", []string{"policy: the certificate must be valid", "target: xmpp.b.test:", "SRV _xmpp-server", "address: 127.0.0.1:", "TLS: TLS 1.3",
			"certificate: for b.test, *.b.test", "certificate: valid for b.test", "features SASL EXTERNAL, dialback, bidi, sm", "with SASL EXTERNAL", "one stream for both directions"}},
		{"wrong.test", []string{"certificate: not valid for wrong.test: x509:", "result: no stream; senders get remote-server-timeout (the certificate"}},
		{"gone.test", []string{"no SRV record", "does not exist in DNS", "senders get remote-server-not-found"}},
		{"blocked.test", []string{"policy: blocked", "nothing is sent"}},
	} {
		lines, err := a.Federation().Explain(t.Context(), "", tt.domain)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(lines, "\n")
		for _, want := range tt.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", tt.domain, want, text)
			}
		}
	}
	for _, bad := range [][2]string{{"", "a.test"}, {"b.test", "c.test"}, {"", "u@b.test"}} {
		if _, err := a.Federation().Explain(t.Context(), bad[0], bad[1]); err == nil {
			t.Errorf("explain %q from %q", bad[1], bad[0])
		}
	}
	if methods(a) != "" {
		t.Errorf("streams are left: %s", methods(a))
	}
}
