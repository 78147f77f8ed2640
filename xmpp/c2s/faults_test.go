package c2s_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/xmpp"
	"balcony/xmpp/xmpptest"

	"mellium.im/sasl"
)

// deaf logs in, binds, sends presence and never reads.
func deaf(srv *xmpptest.Server, account, resource string) *xmpptest.Client {
	srv.Account(account)
	c, _ := srv.Login(account)
	c.Write("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>" + resource + "</resource></bind></iq><presence/>")
	srv.Eventually("presence of "+resource, func() bool { return srv.Available(account + "/" + resource) })
	return c
}

// The language of a stream goes with every stanza of it (RFC 6120 §8.1.5), so it is short.
func TestStreamLanguageIsBounded(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("romeo@localhost")
	c := srv.Dial()
	c.Open("localhost")
	c.StartTLS(nil)
	c.Open("localhost")
	if err := c.Authenticate(sasl.ScramSha256, "romeo", "romeo"); err != nil {
		t.Fatal(err)
	}
	c.Write(strings.Replace(header, "to=", "xml:lang='"+strings.Repeat("a", 200)+"' to=", 1))
	c.Header()
	c.ExpectElement("<stream:error><policy-violation xmlns='" + streams + "'/></stream:error>")
}

// A client that asks for much at once and reads the answers is not one that does not read.
func TestPipelinedRequests(t *testing.T) {
	srv := xmpptest.New(t)
	c := srv.Client("romeo@localhost/y")
	c.Send("<iq type='set' id='s'><vCard xmlns='vcard-temp'><NOTE>" + strings.Repeat("x", 60<<10) + "</NOTE></vCard></iq>")
	c.Expect("<iq type='result' id='s' from='romeo@localhost' to='romeo@localhost/y'/>")
	var all string
	for n := range 40 {
		all += fmt.Sprintf("<iq type='get' id='%d'><vCard xmlns='vcard-temp'/></iq>", n)
	}
	c.Send(all)
	for range 40 {
		c.Read()
	}
}

// RFC 6120 §10.1: what overflows an outbox comes after what waited in it.
func TestOverflowKeepsOrder(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) {
		c.Limits.Outbox = 256 << 10
		c.Limits.OfflineMessages = 10_000
		c.Limits.ClientRate = config.Off
	}))
	romeo := srv.Client("romeo@localhost/orchard")
	deaf(srv, "juliet@localhost", "x")
	body := strings.Repeat("x", 8<<10)
	for n := 0; srv.Available("juliet@localhost/x"); n++ {
		romeo.Send(fmt.Sprintf("<message to='juliet@localhost' type='chat' id='%d'><body>%s</body></message>", n, body))
		romeo.Sync()
	}
	srv.Eventually("the spool", func() bool { return srv.Offline("juliet@localhost") > 20 })
	juliet := srv.Client("juliet@localhost/z")
	juliet.Send("<presence/>")
	juliet.Sync()
	last := -1
	for {
		e, ok := juliet.Pending()
		if !ok {
			break
		}
		if e.Local != "message" {
			continue
		}
		var n int
		for _, a := range e.Attrs {
			if a.Name == "id" {
				fmt.Sscan(a.Value, &n)
			}
		}
		if n < last {
			t.Fatalf("message %d after %d", n, last)
		}
		last = n
	}
}

// A panic ends one stream, and what was gathered for others before it is written.
func TestPanicEndsOneStream(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Registry().Outgoing(func(_ context.Context, o *xmpp.Outgoing) error {
		if o.Stanza.ID == "boom" {
			panic("boom")
		}
		return nil
	})
	romeo, juliet := srv.Client("romeo@localhost/x"), srv.Client("juliet@localhost/y")
	juliet.Online()
	romeo.Send("<message to='juliet@localhost/y' id='a'><body>a</body></message><message id='boom'/>")
	juliet.Read()
}

// RFC 6120 §5.4.3.2: no XML in clear where a TLS handshake is under way.
func TestHandshakeTimeout(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Limits.TLSTime = config.Duration(300 * time.Millisecond) }))
	proceeded := false
	for _, l := range []string{"c2s_tls", "c2s", "c2s", "c2s", "c2s", "c2s"} {
		if proceeded { // on a busy machine the time may be over before
			break
		}
		conn, err := net.Dial("tcp", srv.Addr(l).String())
		if err != nil {
			t.Fatal(err)
		}
		if l == "c2s" {
			fmt.Fprint(conn, header+"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
		}
		_ = conn.SetDeadline(time.Now().Add(xmpptest.Patience))
		b, _ := io.ReadAll(conn)
		s := string(b)
		i := strings.Index(s, "<proceed")
		if proceeded = i >= 0; proceeded {
			s = s[i:]
		}
		if (l == "c2s_tls" || proceeded) && (strings.Contains(s, "stream:error") || strings.Contains(s, "</stream")) {
			t.Errorf("%s: %q", l, s)
		}
		conn.Close()
	}
	if !proceeded {
		t.Error("TLS never began")
	}
}

// RFC 6120 §6.4.2: a new <auth/> replaces the handshake that is under way.
func TestSecondAuthReplacesFirst(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("romeo@localhost")
	c := srv.Dial()
	c.Open("localhost")
	c.StartTLS(nil)
	c.Open("localhost")
	c.Write("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>")
	c.ExpectElement("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
	c.Write("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHJvbWVv</auth>")
	c.ExpectElement("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
}

// What a phone has not acknowledged when its session expires does not come to the desktop, which has it, a second time.
func TestExpiredSessionDoublesNothing(t *testing.T) {
	srv := xmpptest.New(t)
	romeo := srv.Client("romeo@localhost/o")
	phone, desktop := srv.Client("juliet@localhost/phone"), srv.Client("juliet@localhost/desktop")
	phone.Online()
	desktop.Send("<presence/>")
	desktop.Discard()
	phone.Discard()
	phone.Send("<enable xmlns='urn:xmpp:sm:3' resume='true' max='1'/>")
	phone.Read()
	phone.Disconnect()
	romeo.Send("<message to='juliet@localhost' type='chat' id='1'><body>hi</body></message>")
	desktop.Expect("<message to='juliet@localhost' from='romeo@localhost/o' type='chat' id='1'><body>hi</body></message>")
	desktop.Patient("<presence from='juliet@localhost/phone' to='juliet@localhost' type='unavailable'/>")
	desktop.ExpectNothing()
}
