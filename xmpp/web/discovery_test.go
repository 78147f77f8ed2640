package web_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/xmpptest"

	"mellium.im/sasl"
)

// get asks a listener for a path as a client would that reaches it at host.
func get(t *testing.T, s *xmpptest.Server, listener, host, path string, header http.Header) (*http.Response, string) {
	t.Helper()
	scheme := listener
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://"+s.Addr(listener).String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for k, v := range header {
		req.Header[k] = v
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: xmpptest.Patience}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp, string(body)
}

type discovered struct {
	XMPP  *struct{ TTL int }
	Links []struct {
		Rel, Href, SNI         string
		Port, Priority, Weight int
		IPs                    []string
	}
}

// TestHostMeta: XEP-0156 §4, RFC 6415 §2 and appendix A.
func TestHostMeta(t *testing.T) {
	s := xmpptest.New(t, xmpptest.Config(func(c *config.Config) {
		c.Domains = []config.Domain{
			{Name: "localhost", Registration: config.Closed},
			{Name: "a.test", Registration: config.Closed, URL: "https://chat.a.test/xmpp"},
			{Name: "bücher.test", Registration: config.Closed},
		}
	}))
	https := s.Addr("https").(*net.TCPAddr).Port
	forwarded := http.Header{"X-Forwarded-Proto": {"https"}, "X-Forwarded-For": {"192.0.2.1"}}
	for _, tt := range []struct {
		listener, host string
		header         http.Header
		websocket      string // "" for 404
		bosh           string
	}{
		{"https", "localhost:443", nil, "wss://localhost:443/xmpp-websocket", "https://localhost:443/http-bind"},
		{"https", "LOCALHOST", nil, "wss://LOCALHOST/xmpp-websocket", "https://LOCALHOST/http-bind"},
		{"http", "localhost", forwarded, "wss://localhost/xmpp-websocket", "https://localhost/http-bind"},
		// Never a link in clear: whoever asks in clear is sent to TLS.
		{"http", "localhost:5280", nil, fmt.Sprintf("wss://localhost:%d/xmpp-websocket", https), fmt.Sprintf("https://localhost:%d/http-bind", https)},
		{"https", "a.test", nil, "wss://chat.a.test/xmpp/xmpp-websocket", "https://chat.a.test/xmpp/http-bind"},
		{"https", "chat.a.test", nil, "wss://chat.a.test/xmpp/xmpp-websocket", "https://chat.a.test/xmpp/http-bind"},
		{"https", "xn--bcher-kva.test", nil, "wss://xn--bcher-kva.test/xmpp-websocket", "https://xn--bcher-kva.test/http-bind"},
		{"https", "example.org", nil, "", ""},
		{"https", "192.0.2.1", nil, "", ""},
	} {
		resp, body := get(t, s, tt.listener, tt.host, "/.well-known/host-meta", tt.header)
		var xrd struct {
			XMLName xml.Name
			Links   []struct {
				Rel  string `xml:"rel,attr"`
				Href string `xml:"href,attr"`
			} `xml:"http://docs.oasis-open.org/ns/xri/xrd-1.0 Link"`
		}
		jresp, jbody := get(t, s, tt.listener, tt.host, "/.well-known/host-meta.json", tt.header)
		if tt.websocket == "" {
			if resp.StatusCode != 404 || jresp.StatusCode != 404 {
				t.Errorf("%s: %d %d", tt.host, resp.StatusCode, jresp.StatusCode)
			}
			continue
		}
		if err := xml.Unmarshal([]byte(body), &xrd); err != nil {
			t.Errorf("%s: %v: %s", tt.host, err, body)
		}
		want := [][2]string{{"urn:xmpp:alt-connections:websocket", tt.websocket}, {"urn:xmpp:alt-connections:xbosh", tt.bosh}}
		var got [][2]string
		for _, l := range xrd.Links {
			got = append(got, [2]string{l.Rel, l.Href})
		}
		if !reflect.DeepEqual(got, want) || xrd.XMLName.Local != "XRD" {
			t.Errorf("%s: %v, want %v", tt.host, got, want)
		}
		var jrd discovered
		if err := json.Unmarshal([]byte(jbody), &jrd); err != nil {
			t.Errorf("%s: %v: %s", tt.host, err, jbody)
		}
		got = nil
		for _, l := range jrd.Links {
			got = append(got, [2]string{l.Rel, l.Href})
		}
		if !reflect.DeepEqual(got, want) || jrd.XMPP != nil { // XEP-0487: without the object XEP-0156 applies
			t.Errorf("%s: %s, want %v", tt.host, jbody, want)
		}
		for _, r := range []*http.Response{resp, jresp} {
			if r.Header.Get("Access-Control-Allow-Origin") != "*" || r.Header.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s: %v", tt.host, r.Header) // XEP-0156 §5
			}
		}
		if resp.Header.Get("Content-Type") != "application/xrd+xml; charset=utf-8" || jresp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("types %q %q", resp.Header.Get("Content-Type"), jresp.Header.Get("Content-Type"))
		}
	}
}

// TestHostMeta2: XEP-0487 §2.1.
func TestHostMeta2(t *testing.T) {
	s := xmpptest.New(t, xmpptest.Config(func(c *config.Config) {
		c.Domains[0].URL, c.Domains[0].Addresses = "https://chat.example.org", []string{"192.0.2.7", "2001:db8::7"}
	}))
	for _, path := range []string{"host-meta.json", "host-meta-2.json"} {
		_, body := get(t, s, "https", "localhost", "/.well-known/"+path, nil)
		var m discovered
		if err := json.Unmarshal([]byte(body), &m); err != nil {
			t.Fatal(err)
		}
		if m.XMPP == nil || m.XMPP.TTL <= 0 || m.XMPP.TTL > 604800 || len(m.Links) != 3 {
			t.Fatalf("%s", body)
		}
		for i, want := range []struct {
			rel, href, sni string
			port           int
		}{
			{"urn:xmpp:alt-connections:tls", "", "localhost", s.Addr("c2s_tls").(*net.TCPAddr).Port},
			{"urn:xmpp:alt-connections:websocket", "wss://chat.example.org/xmpp-websocket", "chat.example.org", 0},
			{"urn:xmpp:alt-connections:xbosh", "https://chat.example.org/http-bind", "chat.example.org", 0},
		} {
			l := m.Links[i]
			if l.Rel != want.rel || l.Href != want.href || l.SNI != want.sni || l.Port != want.port || l.Priority != 10*(i+1) || strings.Join(l.IPs, " ") != "192.0.2.7 2001:db8::7" {
				t.Errorf("%+v, want %+v", l, want)
			}
		}
		if strings.Count(body, `"weight":0`) != 3 { // they are mandatory
			t.Error(body)
		}
	}
	// XRD has no place for it.
	if _, body := get(t, s, "https", "localhost", "/.well-known/host-meta", nil); strings.Contains(body, "192.0.2.7") || strings.Contains(body, "alt-connections:tls") {
		t.Error(body)
	}
}

// TestOnePortIsFound: XEP-0487 §2.1 names the port at which streams are taken.
func TestOnePortIsFound(t *testing.T) {
	s := xmpptest.New(t, xmpptest.Config(func(c *config.Config) {
		c.Web.OnePort, c.Domains[0].Addresses = true, []string{"192.0.2.7"}
		c.Domains[0].URL = "https://chat.example.org"
	}))
	_, body := get(t, s, "https", "localhost", "/.well-known/host-meta.json", nil)
	var m discovered
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatal(err)
	}
	ports := make(map[string]int)
	for _, l := range m.Links {
		ports[l.Rel] = l.Port
	}
	https := s.Addr("https").(*net.TCPAddr).Port
	if ports["urn:xmpp:alt-connections:tls"] != https || ports["urn:xmpp:alt-connections:s2s-tls"] != https {
		t.Errorf("%s, want port %d", body, https)
	}
}

// TestOnePort: ALPN decides on the https listener (XEP-0368 §4).
func TestOnePort(t *testing.T) {
	s := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Web.OnePort = true }))
	s.Account("romeo@localhost")
	c := s.DialListener("https")
	c.Handshake(&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"xmpp-client"}})
	c.Open("localhost")
	if err := c.Authenticate(sasl.ScramSha256Plus, "romeo", "romeo"); err != nil {
		t.Fatal(err)
	}
	c.Open("localhost")
	c.Bind("orchard")
	c.Online()
	if resp, _ := get(t, s, "https", "localhost", "/healthz", nil); resp.StatusCode != 200 {
		t.Errorf("HTTP: %d", resp.StatusCode)
	}
	romeo := s.WebSocketClient("romeo@localhost/web")
	romeo.Send("<message to='romeo@localhost/orchard' id='1'><body>x</body></message>")
	c.Expect("<message from='romeo@localhost/web' to='romeo@localhost/orchard' id='1'><body>x</body></message>")
	// What chooses no protocol gets HTTP, what knows none of ours gets no connection (RFC 7301 §3.2).
	conn, err := tls.Dial("tcp", s.Addr("https").String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(xmpptest.Patience))
	_, _ = io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != 200 {
		t.Error(resp, err)
	}
	if c, err := tls.Dial("tcp", s.Addr("https").String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"imap"}}); err == nil {
		_ = c.Close()
		t.Error("a protocol that nobody speaks was accepted")
	}
	c.Close()
}

// TestOnePortIsOff: without the key an https listener is for HTTP.
func TestOnePortIsOff(t *testing.T) {
	s := xmpptest.New(t)
	if c, err := tls.Dial("tcp", s.Addr("https").String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"xmpp-client"}}); err == nil {
		_ = c.Close()
		t.Error("a stream was accepted")
	}
}

// TestMetricsAreForOperators: and not for whoever a proxy lets through.
func TestMetricsAreForOperators(t *testing.T) {
	s := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Web.Metrics = []string{"127.0.0.1", "198.51.100.0/24"} }))
	for _, tt := range []struct {
		listener, forwarded string
		want                int
	}{
		{"http", "", 200}, {"http", "198.51.100.7", 200}, {"http", "192.0.2.1", 404}, {"http", "198.51.100.7, 192.0.2.1", 404}, {"http", "192.0.2.1, 127.0.0.1", 404}, {"https", "", 404},
	} {
		header := http.Header{}
		if tt.forwarded != "" {
			header.Set("X-Forwarded-For", tt.forwarded)
		}
		if resp, _ := get(t, s, tt.listener, "localhost", "/metrics", header); resp.StatusCode != tt.want {
			t.Errorf("%s %q: %d, want %d", tt.listener, tt.forwarded, resp.StatusCode, tt.want)
		}
	}
}

// TestProxyProtocol: from a trusted address the header is taken, in front of TLS too; from others it is no HTTP.
func TestProxyProtocol(t *testing.T) {
	s := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Web.Metrics = []string{"192.0.2.1"} }))
	ask := func(header string) int {
		conn, err := net.Dial("tcp", s.Addr("http").String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(xmpptest.Patience))
		_, _ = io.WriteString(conn, header+"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	const version1 = "PROXY TCP4 192.0.2.1 192.0.2.2 40000 443\r\n"
	version2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x9c\x40\x01\xbb"
	for _, tt := range []struct {
		header string
		want   int
	}{{"", 404}, {version1, 200}, {version2, 200}, {"PROXY UNKNOWN\r\n", 404}} {
		if got := ask(tt.header); got != tt.want {
			t.Errorf("%q: %d, want %d", tt.header, got, tt.want)
		}
	}
	// Nobody is trusted: the header is a malformed request.
	s = xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Web.Proxies = nil }))
	if got := ask(version1); got != 400 {
		t.Errorf("from an address that is not trusted: %d, want 400", got)
	}
}

// TestProxyProtocolSpeaksForTheClient: behind the PROXY protocol the headers are the client's own, and a connection is not the machine's.
func TestProxyProtocolSpeaksForTheClient(t *testing.T) {
	s := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Web.Metrics = []string{"192.0.2.1"} }))
	ask := func(request string, header ...string) int {
		conn, err := net.Dial("tcp", s.Addr("http").String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(xmpptest.Patience))
		_, _ = io.WriteString(conn, "PROXY TCP4 192.0.2.7 192.0.2.2 40000 80\r\n"+request+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+strings.Join(header, "")+"\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	for _, tt := range []struct {
		request string
		header  string
		want    int
	}{
		{"OPTIONS /http-bind", "", 403}, // in clear from elsewhere, though the proxy is on this machine
		{"OPTIONS /http-bind", "X-Forwarded-Proto: http\r\n", 403},
		{"OPTIONS /http-bind", "X-Forwarded-Proto: https\r\n", 204},
		{"GET /metrics", "X-Forwarded-For: 192.0.2.1\r\n", 404}, // the client says so, and not the proxy
	} {
		if got := ask(tt.request, tt.header); got != tt.want {
			t.Errorf("%s %q: %d, want %d", tt.request, tt.header, got, tt.want)
		}
	}
}

// TestConnectionsBehindATCPProxy: the PROXY protocol says whose connection it is before anything else, so that it counts as one of that address.
func TestConnectionsBehindATCPProxy(t *testing.T) {
	s := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Limits.ConnectionsPerAddress = 2 }))
	ask := func(addr string) (conn net.Conn, served bool) {
		conn, err := net.Dial("tcp", s.Addr("http").String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(xmpptest.Patience))
		_, _ = io.WriteString(conn, "PROXY TCP4 "+addr+" 192.0.2.2 40000 80\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		return conn, err == nil && resp.StatusCode == http.StatusOK
	}
	first, served := ask("192.0.2.1")
	if _, second := ask("192.0.2.1"); !served || !second {
		t.Fatal("two are allowed")
	}
	if _, served := ask("192.0.2.1"); served {
		t.Error("a third one was served")
	}
	if _, served := ask("192.0.2.3"); !served {
		t.Error("another client pays for it")
	}
	for range 3 {
		if _, served := ask("127.0.0.1"); !served {
			t.Error("the proxy's own health checks are refused")
		}
	}
	_ = first.Close()
	s.Eventually("room for another one", func() bool { _, served := ask("192.0.2.1"); return served })
}

// TestAddressesBehindAProxy: the limit of connections counts the clients, not their proxy.
func TestAddressesBehindAProxy(t *testing.T) {
	s := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Limits.ConnectionsPerAddress = 2 }))
	from := func(addr string) http.Header {
		return http.Header{"X-Forwarded-Proto": {"https"}, "X-Forwarded-For": {addr}}
	}
	for range 2 {
		for _, addr := range []string{"192.0.2.1", "192.0.2.2", "2001:db8::1"} {
			w, _, err := dial(t, s, "ws", from(addr))
			if err != nil {
				t.Fatal(err)
			}
			w.say(open)
			w.hear("<open ")
		}
	}
	for _, addr := range []string{"192.0.2.1", "2001:db8::2"} { // the same customer: RFC 6177
		w, _, err := dial(t, s, "ws", from(addr))
		if err != nil {
			t.Fatal(err)
		}
		w.hear("<policy-violation ")
		w.hear("<close ")
	}
	w, _, err := dial(t, s, "ws", from("192.0.2.3"))
	if err != nil {
		t.Fatal(err)
	}
	w.say(open)
	w.hear("<open ")
}

// TestReady: /readyz beside /healthz.
func TestReady(t *testing.T) {
	s := xmpptest.New(t)
	for _, listener := range []string{"http", "https"} {
		for _, path := range []string{"/healthz", "/readyz"} {
			if resp, body := get(t, s, listener, "localhost", path, nil); resp.StatusCode != 200 || body != "ok\n" {
				t.Errorf("%s %s: %d %q", listener, path, resp.StatusCode, body)
			}
		}
	}
}
