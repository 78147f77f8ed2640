package s2s_test

import (
	"bufio"
	"crypto/tls"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/s2s/s2stest"
	"balcony/xmpp/xmpptest"
)

const nsDialback = "jabber:server:dialback"

// header is the stream header of a server.
func header(from, to, id string) string {
	h := "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'"
	for _, a := range [][2]string{{"from", from}, {"to", to}, {"id", id}} {
		if a[1] != "" {
			h += fmt.Sprintf(" %s='%s'", a[0], a[1])
		}
	}
	return h + ">"
}

// stranger is a connection to the server's listener for other servers, scripted.
type stranger struct {
	*xmpptest.Client
	id       string // of the stream that the server has given
	features *xmpp.Element
}

// knock takes a stranger through TLS, with a certificate or without one, and opens the stream.
func knock(s *xmpptest.Server, from, to string, cert *tls.Certificate) *stranger {
	return knockFrom(s, "", from, to, cert)
}

// knockFrom is knock from an address of this machine.
func knockFrom(s *xmpptest.Server, local, from, to string, cert *tls.Certificate) *stranger {
	c := s.DialFrom(local, "s2s")
	c.Write(header(from, to, ""))
	c.Header()
	c.Element()
	cfg := &tls.Config{InsecureSkipVerify: true}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	c.StartTLS(cfg)
	x := &stranger{Client: c}
	x.open(from, to)
	return x
}

func (x *stranger) open(from, to string) {
	x.Write(header(from, to, ""))
	x.id = x.Header()["id"]
	x.features = x.Element()
}

// external authenticates with SASL EXTERNAL and opens the stream that follows.
func (x *stranger) external(t *testing.T, from, to string) {
	t.Helper()
	x.Write("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>")
	if e := x.Element(); e.Local != "success" {
		t.Fatalf("EXTERNAL: %s", e)
	}
	x.open(from, to)
}

// ends checks that the stream ends with a stream error.
func (x *stranger) ends(t *testing.T, condition string) {
	t.Helper()
	for {
		e, err := x.Next()
		if err != nil {
			t.Fatalf("the stream ended with %v, want the error %s", err, condition)
		}
		if e.Space == xmpp.NSStream && e.Local == "error" {
			if e.Children[0].Local != condition {
				t.Fatalf("stream error %s, want %s", e.Children[0].Local, condition)
			}
			break
		}
	}
	if e, err := x.Next(); err == nil {
		t.Fatalf("%s after the stream error", e)
	}
}

// offers reports whether a mechanism is among the features.
func (x *stranger) offers(mechanism string) bool {
	for _, f := range x.features.Children {
		for _, m := range f.Children {
			if f.Local == "mechanisms" && m.Text == mechanism {
				return true
			}
		}
	}
	return false
}

// fake is a server of another domain that a test scripts.
type fake struct {
	t    *testing.T
	l    net.Listener
	cert tls.Certificate
	// verify answers a question about a dialback key; nil: nothing comes back.
	verify func(from, to, id, key string) string
	// result answers a dialback key; nil: nothing comes back.
	result func(from, to, key string) string
	got    chan *xmpp.Element // stanzas
	// reply answers a stanza; nil: nothing comes back.
	reply func(*xmpp.Element) string
	// features are beside dialback.
	features string
	// then is sent behind the answer to a dialback key.
	then string
	// ends is told the stream errors that come, and "" for a stream that ends otherwise; nil: nobody is.
	ends chan string

	wg sync.WaitGroup
	mu sync.Mutex
	cs []net.Conn // guarded by mu
}

// newFake starts a server for a domain with a certificate that nobody trusts, and puts it into DNS.
func (w *world) newFake(domain string) *fake {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	f := &fake{t: w.t, l: l, cert: s2stest.NewCA(w.t).Pair(s2stest.DNSNames(domain)), got: make(chan *xmpp.Element, 1000)}
	f.verify = func(from, to, id, key string) string {
		return fmt.Sprintf("<db:verify from='%s' to='%s' id='%s' type='valid'/>", to, from, id)
	}
	f.result = func(from, to, key string) string {
		return fmt.Sprintf("<db:result from='%s' to='%s' type='valid'/>", to, from)
	}
	w.dns.Server(domain, l.Addr())
	f.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.cs = append(f.cs, c)
			f.mu.Unlock()
			f.wg.Go(func() { f.serve(c, domain) })
		}
	})
	w.t.Cleanup(func() {
		_ = l.Close()
		f.mu.Lock()
		for _, c := range f.cs {
			_ = c.Close()
		}
		f.mu.Unlock()
		f.wg.Wait()
	})
	return f
}

// cut resets all connections.
func (f *fake) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.cs {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	f.cs = nil
}

func (f *fake) serve(c net.Conn, domain string) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	d, err := f.open(c, domain, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
	if err != nil {
		return
	}
	if _, err := xmpp.ReadElement(d); err != nil {
		return
	}
	_, _ = io.WriteString(c, "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
	t := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{f.cert}})
	if d, err = f.open(t, domain, f.features+"<dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback>"); err != nil {
		return
	}
	for {
		e, err := xmpp.ReadElement(d)
		if err != nil {
			f.ended("")
			return
		}
		answer := ""
		switch {
		case e.Space == xmpp.NSStream && e.Local == "error" && len(e.Children) > 0:
			f.ended(e.Children[0].Local)
		case e.Space == nsDialback && e.Local == "verify" && f.verify != nil:
			answer = f.verify(e.Attr("from"), e.Attr("to"), e.Attr("id"), e.Text)
		case e.Space == nsDialback && e.Local == "result" && f.result != nil:
			answer = f.result(e.Attr("from"), e.Attr("to"), e.Text) + f.then
		case e.Local == "message" || e.Local == "iq" || e.Local == "presence":
			f.got <- e
			if f.reply != nil {
				answer = f.reply(e)
			}
		}
		_, _ = io.WriteString(t, answer)
	}
}

func (f *fake) ended(condition string) {
	select {
	case f.ends <- condition:
	default:
	}
}

func (f *fake) open(c net.Conn, domain, features string) (*xml.Decoder, error) {
	d := xml.NewDecoder(bufio.NewReader(c))
	for {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		if _, ok := t.(xml.StartElement); ok {
			break
		}
	}
	_, err := io.WriteString(c, header(domain, "", "fake-1")+"<stream:features>"+features+"</stream:features>")
	return d, err
}
