package s2s_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/xmpp"
	"balcony/xmpp/s2s/s2stest"
	"balcony/xmpp/xmpptest"

	"golang.org/x/net/idna"
)

// world is what the servers of a test share.
type world struct {
	t       *testing.T
	dns     *s2stest.DNS
	ca      *s2stest.CA
	servers []*xmpptest.Server
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dns: s2stest.NewDNS(t), ca: s2stest.NewCA(t)}
	return w
}

// server starts a server for a domain, with a certificate of the authority.
func (w *world) server(domain string, options ...xmpptest.Option) *xmpptest.Server {
	w.t.Helper()
	name, err := idna.Lookup.ToASCII(domain)
	if err != nil {
		w.t.Fatal(err)
	}
	cert, key := w.ca.Files(name, "*."+name)
	base := func(c *config.Config) {
		c.Domains = []config.Domain{{Name: domain, Certificate: cert, Key: key, Registration: config.Closed}}
		c.TLS.CA = []string{w.ca.File}
		c.S2S.DNS = w.dns.Addr
		c.Listen.S2S = []string{"127.0.0.1:0"}
		c.Listen.S2STLS = []string{"127.0.0.1:0"}
	}
	s := xmpptest.New(w.t, append([]xmpptest.Option{base}, options...)...)
	w.servers = append(w.servers, s)
	// All of them, before the first one looks for goroutines that are left.
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), xmpptest.Patience)
		defer cancel()
		for _, s := range w.servers {
			_ = s.Stop(ctx)
		}
	})
	return s
}

// found puts a server into DNS under its domain.
func (w *world) found(domain string, s *xmpptest.Server) { w.dns.Server(domain, s.Addr("s2s")) }

func port(a net.Addr) int { return a.(*net.TCPAddr).Port }

func dialback(c *config.Config) { c.S2S.Auth = config.AuthDialback }

// selfSigned gives a server a certificate that nobody trusts.
func (w *world) selfSigned(domain string) xmpptest.Option {
	return func(c *config.Config) {
		c.Domains[0].Certificate, c.Domains[0].Key = s2stest.NewCA(w.t).Files(domain)
	}
}

// methods says how the streams of a server are opened and proven.
func methods(s *xmpptest.Server) string {
	list, err := s.Federation().Streams(context.Background())
	if err != nil {
		return err.Error()
	}
	var lines []string
	for _, e := range list {
		words := []string{e.Direction}
		for _, w := range []struct {
			word string
			on   bool
		}{{"direct", e.Direct}, {e.Method, e.Method != ""}, {"valid", e.Valid}, {"bidi", e.Bidi}, {e.SM, e.SM != ""}} {
			if w.on {
				words = append(words, w.word)
			}
		}
		lines = append(lines, strings.Join(words, " "))
	}
	return strings.Join(lines, ", ")
}

func TestMessageBothWays(t *testing.T) {
	for _, tc := range []struct {
		name    string
		options func(w *world, domain string) []xmpptest.Option
		want    string
	}{
		{"EXTERNAL", func(*world, string) []xmpptest.Option { return nil }, "out EXTERNAL valid bidi resumable"},
		{"dialback", func(w *world, domain string) []xmpptest.Option {
			return []xmpptest.Option{w.selfSigned(domain), dialback}
		}, "out dialback bidi resumable"},
		{"EXTERNAL without bidi", func(w *world, domain string) []xmpptest.Option {
			return []xmpptest.Option{func(c *config.Config) { c.S2S.Bidi = false }}
		}, "in EXTERNAL valid resumable, out EXTERNAL valid resumable"},
		{"dialback without bidi", func(w *world, domain string) []xmpptest.Option {
			return []xmpptest.Option{w.selfSigned(domain), dialback, func(c *config.Config) { c.S2S.Bidi = false }}
		}, "in dialback resumable, out dialback resumable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			a, b := w.server("a.test", tc.options(w, "a.test")...), w.server("b.test", tc.options(w, "b.test")...)
			w.found("a.test", a)
			w.found("b.test", b)
			romeo, juliet := a.Client("romeo@a.test/orchard"), b.Client("juliet@b.test/balcony")
			romeo.Online()
			juliet.Online()
			romeo.Send("<message to='juliet@b.test' type='chat' id='m1'><body>Wherefore art thou?</body></message>")
			juliet.Expect("<message to='juliet@b.test' from='romeo@a.test/orchard' type='chat' id='m1'><body>Wherefore art thou?</body></message>")
			juliet.Send("<message to='romeo@a.test/orchard' type='chat' id='m2'><body>Here</body></message>")
			romeo.Expect("<message to='romeo@a.test/orchard' from='juliet@b.test/balcony' type='chat' id='m2'><body>Here</body></message>")
			if got := methods(a); got != tc.want {
				t.Errorf("streams of a.test: %s, want %s", got, tc.want)
			}
			juliet.Send("<iq to='a.test' type='get' id='p1'><ping xmlns='urn:xmpp:ping'/></iq>")
			juliet.Expect("<iq to='juliet@b.test/balcony' from='a.test' type='result' id='p1'/>")
		})
	}
}

// expect reads stanzas until the one with that name and id.
func expect(c *xmpptest.Client, name, id string) *xmpp.Element {
	for {
		e := read(c)
		if e.Local == name && e.Attr("id") == id {
			return e
		}
	}
}
