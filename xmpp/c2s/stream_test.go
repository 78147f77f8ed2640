package c2s_test

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/xmpptest"

	"mellium.im/sasl"
)

const (
	header  = "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
	streams = "urn:ietf:params:xml:ns:xmpp-streams"
	ping    = "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>"
)

// hello is a header with changed words.
func hello(old, with string) string { return strings.Replace(header, old, with, 1) }

// streamErrors are what a stream ends with when it begins with these bytes: RFC 6120 §4.9.3, whatever the stage of the negotiation.
var streamErrors = []struct{ name, send, condition string }{
	{"not XML", "GET / HTTP/1.1\r\n\r\n", "not-well-formed"},
	{"wrong root element", "<html xmlns='http://etherx.jabber.org/streams'>", "bad-format"},
	{"wrong stream namespace", hello("http://etherx.jabber.org/streams", "http://wrong.namespace.example.org/"), "invalid-namespace"},
	{"wrong content namespace", hello("jabber:client", "jabber:wrong"), "invalid-namespace"},
	{"server namespace", hello("jabber:client", "jabber:server"), "invalid-namespace"},
	{"undeclared prefix", "<x:stream to='localhost' version='1.0'>", "not-well-formed"}, // XML-NAMES; §4.9.3.13,
	{"no to", hello("to='localhost'", ""), "improper-addressing"},
	{"malformed to", hello("localhost", "@"), "improper-addressing"},
	{"account in to", hello("localhost", "romeo@localhost"), "improper-addressing"},
	{"unknown host", hello("localhost", "elsewhere.test"), "host-unknown"},
	{"no version", hello("localhost' version='1.0'", "localhost'"), "unsupported-version"},
	{"old version", hello("localhost' version='1.0'", "localhost' version='0.9'"), "unsupported-version"},
	{"not a version", hello("localhost' version='1.0'", "localhost' version='one'"), "unsupported-version"},
	{"malformed from", hello("to=", "from='@' to="), "improper-addressing"},
	{"encoding", "<?xml version='1.0' encoding='ISO-8859-1'?>" + header[21:], "unsupported-encoding"},
	{"invalid UTF-8", hello("to=", "from='\xff' to="), "unsupported-encoding"},
	{"comment", header + "<!-- hi -->", "restricted-xml"},
	{"doctype", "<!DOCTYPE a [<!ENTITY b 'c'>]>" + header, "restricted-xml"},
	{"processing instruction", header + "<?php ?>", "restricted-xml"},
	{"entity", header + "<iq id='&lol;'/>", "restricted-xml"},
	{"not well-formed", header + "<iq></message>", "not-well-formed"},
	{"text between stanzas", header + "hello", "bad-format"},
	{"too large", header + "<iq id='" + strings.Repeat("a", 20000) + "'", "policy-violation"},
	{"too deep", header + strings.Repeat("<a xmlns='x'>", 100), "policy-violation"},
	{"stanza before authentication", header + ping, "not-authorized"},
	{"unknown element", header + "<foo xmlns='bar'/>", "not-authorized"},
}

// RFC 6120 §4.9.1.2: the server opens its stream before it ends it with an error; §4.9.1.1: then it closes.
func TestStreamErrors(t *testing.T) {
	srv := xmpptest.New(t)
	for _, stage := range []struct {
		name  string
		begin func() *xmpptest.Client
	}{
		{"in clear", srv.Dial},
		{"over TLS", func() *xmpptest.Client {
			c := srv.Dial()
			c.Open("localhost")
			c.StartTLS(nil)
			return c
		}},
	} {
		for _, e := range streamErrors {
			t.Run(stage.name+"/"+e.name, func(t *testing.T) {
				c := stage.begin()
				c.Write(e.send)
				h := c.Header()
				if h["id"] == "" || h["version"] != "1.0" || h["from"] != "localhost" { // §4.9.1.3: from is a domain of the server whatever to was
					t.Errorf("the server's header is %v", h)
				}
				got := c.Element()
				if got.Local == "features" {
					got = c.Element()
				}
				if got.Local != "error" || len(got.Children) == 0 || got.Children[0].Space != streams {
					t.Fatalf("got %s", got)
				}
				if cond := got.Children[0].Local; cond != e.condition {
					t.Errorf("got %s, want %s", cond, e.condition)
				}
				c.End()
			})
		}
	}
}

// RFC 6120 §4.7: the attributes of the server's header.
func TestStreamHeader(t *testing.T) {
	srv := xmpptest.New(t)
	ids := make(map[string]bool)
	c := srv.Dial()
	c.Write(hello("to=", "from='romeo@localhost' xml:lang='de' to="))
	h := c.Header()
	for name, want := range map[string]string{"from": "localhost", "to": "romeo@localhost", "version": "1.0", "lang": "en"} {
		if h[name] != want {
			t.Errorf("%s=%q, want %q", name, h[name], want)
		}
	}
	ids[h["id"]] = true
	c.ExpectElement("<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>")
	c.StartTLS(nil)
	for range 3 {
		d := srv.Dial()
		h, _ = d.Open("localhost")
		if _, ok := h["to"]; ok {
			t.Errorf("to=%q for a client that did not say who it is", h["to"])
		}
		ids[h["id"]] = true
	}
	h, _ = c.Open("localhost")
	ids[h["id"]] = true
	if len(ids) != 5 {
		t.Errorf("5 streams have %d ids", len(ids))
	}
	for id := range ids {
		if len(id) < 22 { // 128 bits in base64
			t.Errorf("stream id %q is short", id)
		}
	}
}

// RFC 6120 §4.3.2, §6.3.3; XEP-0440; XEP-0478: what is offered, in its order, and only over TLS.
func TestFeatures(t *testing.T) {
	srv := xmpptest.New(t)
	c := srv.Dial()
	c.Open("localhost")
	c.StartTLS(nil)
	c.Write(header)
	c.Header()
	c.ExpectElement(`<stream:features>
		<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>
			<mechanism>SCRAM-SHA-512-PLUS</mechanism><mechanism>SCRAM-SHA-256-PLUS</mechanism><mechanism>SCRAM-SHA-1-PLUS</mechanism>
			<mechanism>SCRAM-SHA-512</mechanism><mechanism>SCRAM-SHA-256</mechanism><mechanism>SCRAM-SHA-1</mechanism><mechanism>PLAIN</mechanism>
		</mechanisms>
		<authentication xmlns='urn:xmpp:sasl:2'>
			<mechanism>SCRAM-SHA-512-PLUS</mechanism><mechanism>SCRAM-SHA-256-PLUS</mechanism><mechanism>SCRAM-SHA-1-PLUS</mechanism>
			<mechanism>SCRAM-SHA-512</mechanism><mechanism>SCRAM-SHA-256</mechanism><mechanism>SCRAM-SHA-1</mechanism><mechanism>PLAIN</mechanism>
			<inline>
				<sm xmlns='urn:xmpp:sm:3'/>
				<bind xmlns='urn:xmpp:bind:0'><inline><feature var='urn:xmpp:sm:3'/><feature var='urn:xmpp:csi:0'/><feature var='urn:xmpp:carbons:2'/></inline></bind>
				<fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-EXPR</mechanism><mechanism>HT-SHA-256-ENDP</mechanism><mechanism>HT-SHA-256-NONE</mechanism></fast>
			</inline>
			<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-512</upgrade><upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-256</upgrade>
		</authentication>
		<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'><channel-binding type='tls-exporter'/><channel-binding type='tls-server-end-point'/></sasl-channel-binding>
		<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>10000</max-bytes><idle-seconds>300</idle-seconds></limits>
		<config-version xmlns='urn:xmpp:iap:0' scheme='opaque' value='{any}'/>
	</stream:features>`)
	srv.Account("romeo@localhost")
	_, features := srv.Login("romeo@localhost")
	var names []string
	for _, f := range features.Children {
		names = append(names, f.Local)
	}
	for _, want := range []string{"bind", "session", "ver", "sub", "limits", "c"} {
		if !strings.Contains(" "+strings.Join(names, " ")+" ", " "+want+" ") {
			t.Errorf("no feature %s in %s", want, features)
		}
	}
}

// What is offered follows a reload of the configuration, although it is remembered.
func TestFeaturesAfterReload(t *testing.T) {
	srv := xmpptest.New(t)
	offers := func(want bool) {
		t.Helper()
		c := srv.Dial()
		c.Open("localhost")
		c.StartTLS(nil)
		_, features := c.Open("localhost")
		if got := strings.Contains(features.String(), "http://jabber.org/features/iq-register"); got != want {
			t.Errorf("registration offered: %v, want %v: %s", got, want, features)
		}
	}
	offers(false)
	offers(false)
	open := *srv.Config
	open.Domains = []config.Domain{{Name: "localhost", Registration: config.Open}}
	if err := srv.Reload(&open); err != nil {
		t.Fatal(err)
	}
	offers(true)
	if err := srv.Reload(srv.Config); err != nil {
		t.Fatal(err)
	}
	offers(false)
}

// RFC 6120 §5.4.3.3: bytes behind <starttls/> that came in clear are never taken for the client's words over TLS.
func TestStartTLSInjection(t *testing.T) {
	for _, injected := range []string{header, "\n" + header, "<", " x", "</stream:stream>", "\x00", "<?xml version='1.0'?>"} {
		srv := xmpptest.New(t)
		c := srv.Dial()
		c.Open("localhost")
		c.Write("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>" + injected)
		c.ExpectElement("<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
		c.End()
	}
}

// go-xmpp sends a line end behind <starttls/>, which RFC 6120 §5.3.3 forbids and which is dropped.
func TestStartTLSWhitespace(t *testing.T) {
	srv := xmpptest.New(t)
	c := srv.Dial()
	c.Open("localhost")
	c.Write("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>\n")
	c.ExpectElement("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
	c.Handshake(nil)
	c.Open("localhost")
}

// RFC 6120 §6.5.4: no authentication without TLS.
func TestAuthWithoutTLS(t *testing.T) {
	srv := xmpptest.New(t)
	c := srv.Dial()
	c.Open("localhost")
	c.Write("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHJvbWVv</auth>")
	c.ExpectElement("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><encryption-required/></failure>")
	c.StartTLS(nil) // the stream goes on
	c.Open("localhost")
}

// RFC 7590 §3.1 and RFC 8996: TLS 1.2 and 1.3 only; XEP-0368 §4: ALPN xmpp-client on the direct listener.
func TestTLSVersions(t *testing.T) {
	srv := xmpptest.New(t)
	for _, c := range []struct {
		name string
		cfg  *tls.Config
		ok   bool
	}{
		{"1.3", &tls.Config{MinVersion: tls.VersionTLS13}, true},
		{"1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		{"1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		{"1.2 without ECDHE", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}}, false},
		{"1.2 with CBC", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, false},
		{"ALPN xmpp-client", &tls.Config{NextProtos: []string{"xmpp-client"}}, true},
		{"ALPN h2", &tls.Config{NextProtos: []string{"h2"}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", srv.Addr("c2s_tls").String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(xmpptest.Patience))
			c.cfg.InsecureSkipVerify = true // a certificate made for this test
			tc := tls.Client(conn, c.cfg)
			if err := tc.Handshake(); (err == nil) != c.ok {
				t.Fatalf("handshake: %v, want success %v", err, c.ok)
			}
			if !c.ok {
				return
			}
			fmt.Fprint(tc, header)
			b := make([]byte, 64)
			if n, err := tc.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "<?xml") {
				t.Fatalf("read %q, %v", b[:n], err)
			}
		})
	}
}

// RFC 6120 §6.4.5: five tries on a stream, then policy-violation.
func TestLoginTries(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("romeo@localhost")
	c := srv.Dial()
	c.Open("localhost")
	c.StartTLS(nil)
	c.Open("localhost")
	for range 4 {
		c.Write("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='NONSENSE'/>")
		c.ExpectElement("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><invalid-mechanism/></failure>")
	}
	c.Write("<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
	c.ExpectElement("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><aborted/></failure>")
	c.ExpectElement("<stream:error><policy-violation xmlns='" + streams + "'/></stream:error>")
	c.End()
}

// A client that knows no channel binding of ours, and says of every SCRAM mechanism that it could do better, still gets to PLAIN: these
// failures are not guesses. slixmpp before 1.8.6 behaves so on TLS 1.3.
func TestLoginWithoutUsableChannelBinding(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("romeo@localhost")
	c := srv.Dial()
	c.Open("localhost")
	c.StartTLS(nil)
	c.Open("localhost")
	for mechanism, first := range map[string]string{
		"SCRAM-SHA-512-PLUS": "p=tls-unique,,n=romeo,r=abc", "SCRAM-SHA-256-PLUS": "p=tls-unique,,n=romeo,r=abc", "SCRAM-SHA-1-PLUS": "p=tls-unique,,n=romeo,r=abc",
		"SCRAM-SHA-512": "y,,n=romeo,r=abc", "SCRAM-SHA-256": "y,,n=romeo,r=abc", "SCRAM-SHA-1": "y,,n=romeo,r=abc",
	} {
		c.Write("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='" + mechanism + "'>" + base64.StdEncoding.EncodeToString([]byte(first)) + "</auth>")
		if e := c.Element(); e.Local != "failure" {
			t.Fatalf("%s: %s", mechanism, e)
		}
	}
	if err := c.Authenticate(sasl.Plain, "romeo", "romeo"); err != nil {
		t.Fatal(err)
	}
}

// A failed try is followed by a good one on the same stream (RFC 6120 §6.4.5).
func TestLoginAfterFailure(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("romeo@localhost")
	for _, m := range []sasl.Mechanism{sasl.ScramSha1, sasl.ScramSha256, sasl.ScramSha1Plus, sasl.ScramSha256Plus, sasl.Plain} {
		t.Run(m.Name, func(t *testing.T) {
			c := srv.Dial()
			c.Open("localhost")
			c.StartTLS(nil)
			c.Open("localhost")
			if err := c.Authenticate(m, "romeo", "wrong"); err == nil || err.Error() != "not-authorized" {
				t.Fatalf("a wrong password: %v", err)
			}
			if err := c.Authenticate(m, "nobody", "wrong"); err == nil || err.Error() != "not-authorized" {
				t.Fatalf("an unknown account: %v", err)
			}
			if err := c.Authenticate(m, "romeo", "romeo"); err != nil {
				t.Fatalf("the right password: %v", err)
			}
			c.Open("localhost")
			c.Bind("")
			c.Close()
		})
	}
}

// RFC 6120 §7.1: nothing but binding is accepted before a resource is bound.
func TestStanzaBeforeBind(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("romeo@localhost")
	c, _ := srv.Login("romeo@localhost")
	c.Write("<message to='romeo@localhost'><body>hi</body></message>")
	c.ExpectElement("<stream:error><not-authorized xmlns='" + streams + "'/></stream:error>")
	c.End()
}

// RFC 6120 §7.6.2, §7.7.2: errors of resource binding leave the stream open.
func TestBindErrors(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Limits.Resources = 2 }))
	srv.Account("romeo@localhost")
	const bad = "<error type='modify' code='400'><bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
	c, _ := srv.Login("romeo@localhost")
	c.Write("<iq type='get' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
	c.ExpectElement("<iq type='error' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>" + bad + "</iq>")
	long := strings.Repeat("r", 1024)
	c.Write("<iq type='set' id='2'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>" + long + "</resource></bind></iq>")
	c.ExpectElement("<iq type='error' id='2'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>" + long + "</resource></bind>" + bad + "</iq>")
	c.Bind("balcony")
	if c.JID.String() != "romeo@localhost/balcony" {
		t.Errorf("bound %s", c.JID)
	}
	srv.Client("romeo@localhost/two")
	d, _ := srv.Login("romeo@localhost")
	d.Write("<iq type='set' id='3'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
	d.ExpectElement("<iq type='error' id='3'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><error type='wait' code='500'><resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>")
}

// RFC 6120 §8.1.2.1: from is the session's full JID, whatever the client says.
func TestFromIsOverridden(t *testing.T) {
	srv := xmpptest.New(t)
	juliet := srv.Client("juliet@localhost/balcony")
	c := srv.Client("romeo@localhost/orchard")
	for _, from := range []string{"", "from='romeo@localhost' ", "from='romeo@localhost/orchard' ", "from='Romeo@LOCALHOST/other' "} {
		c.Send("<message " + from + "to='juliet@localhost/balcony' id='1'/>")
		juliet.Expect("<message from='romeo@localhost/orchard' to='juliet@localhost/balcony' id='1'/>")
		c.Send("<iq " + from + "type='get' id='2' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
		c.Expect("<iq type='result' id='2' from='localhost' to='romeo@localhost/orchard'/>")
	}
}

// RFC 6120 §4.9.3.9: a from that no session of the account could have ends the stream.
func TestInvalidFrom(t *testing.T) {
	srv := xmpptest.New(t)
	for _, from := range []string{"juliet@localhost", "localhost", "romeo@elsewhere.test/orchard", "romeo@sub.localhost", "@@"} {
		c := srv.Client("romeo@localhost/orchard")
		c.Send("<message from='" + from + "' to='romeo@localhost'><body>hi</body></message>")
		c.ExpectClose("<invalid-from xmlns='" + streams + "'/>")
	}
}

// RFC 6120 §4.9.3.24, and errors of §4.9.3 on a bound stream.
func TestStreamErrorsAfterBind(t *testing.T) {
	srv := xmpptest.New(t)
	for send, condition := range map[string]string{
		"<letter/>":                   "unsupported-stanza-type",
		"<foo xmlns='bar'/>":          "unsupported-stanza-type",
		"<message><body></message>":   "not-well-formed",
		"<message><!-- --></message>": "restricted-xml",
		"<a:message/>":                "not-well-formed",
		"<message/>hello":             "bad-format",
		"<message><body>" + strings.Repeat("x", 300<<10): "policy-violation",
	} {
		c := srv.Client("romeo@localhost/orchard")
		c.Write(send)
		c.ExpectClose("<" + condition + " xmlns='" + streams + "'/>")
	}
}

// RFC 6120 §4.6.1: white space between stanzas keeps a stream alive and does nothing else.
func TestWhitespaceKeepalive(t *testing.T) {
	srv := xmpptest.New(t)
	c := srv.Client("romeo@localhost/orchard")
	for range 3 {
		c.Write(" \r\n\t ")
		c.ExpectNothing()
	}
}

// RFC 6120 §4.4: a stream that the client closes is closed by the server.
func TestCloseStream(t *testing.T) {
	srv := xmpptest.New(t)
	c := srv.Client("romeo@localhost/orchard")
	c.Write("</stream:stream>")
	c.ExpectClose("")
}

// A client that pipelines everything after TLS in one write loses no byte.
func TestPipelinedLogin(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("romeo@localhost")
	c := srv.Dial()
	c.Open("localhost")
	c.StartTLS(nil)
	c.Write(header + "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHJvbWVv</auth>" + header +
		"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>x</resource></bind></iq>" + ping)
	c.Header()
	c.Element()
	c.ExpectElement("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
	c.Header()
	c.Element()
	c.ExpectElement("<iq type='result' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>romeo@localhost/x</jid></bind></iq>")
	c.ExpectElement("<iq type='result' id='p' from='romeo@localhost' to='romeo@localhost/x'/>")
}

// A client that does not read costs only itself: its session is closed when its outbox is full, and its sender is told of every message that
// was not written.
func TestSlowReader(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) {
		c.Limits.Outbox = 256 << 10
		c.Limits.OfflineMessages = 10_000
		c.Limits.ClientRate = config.Off
	}))
	srv.Account("juliet@localhost")
	romeo := srv.Client("romeo@localhost/orchard")
	juliet, _ := srv.Login("juliet@localhost")
	juliet.Write("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>x</resource></bind></iq><presence/>")
	srv.Eventually("juliet's presence", func() bool { return srv.Available("juliet@localhost/x") })
	body := strings.Repeat("x", 8<<10)
	for n := 0; srv.Available("juliet@localhost/x"); n++ {
		romeo.Send(fmt.Sprintf("<message to='juliet@localhost' type='chat' id='%d'><body>%s</body></message>", n, body))
		romeo.Sync()
		if n > 10_000 {
			t.Fatal("the session of a client that does not read goes on for ever")
		}
	}
	romeo.ExpectNothing() // no error: what was not written is in the spool
	srv.Eventually("the spool", func() bool { return srv.Offline("juliet@localhost") > 0 })
}
