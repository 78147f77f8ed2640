package web_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"

	"github.com/coder/websocket"
	"mellium.im/sasl"
)

const (
	open      = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>"
	closeElem = "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>"
)

// socket is a WebSocket without any help.
type socket struct {
	t  *testing.T
	ws *websocket.Conn
}

func dial(t *testing.T, s *xmpptest.Server, scheme string, header http.Header) (*socket, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), xmpptest.Patience)
	defer cancel()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}}
	listener := map[string]string{"wss": "https", "ws": "http"}[scheme]
	ws, resp, err := websocket.Dial(ctx, scheme+"://"+s.Addr(listener).String()+"/xmpp-websocket", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport}, Subprotocols: []string{"xmpp"}, HTTPHeader: header,
	})
	if err != nil {
		return nil, resp, err
	}
	ws.SetReadLimit(-1)
	t.Cleanup(func() { _ = ws.CloseNow(); transport.CloseIdleConnections() })
	return &socket{t, ws}, resp, nil
}

func mustDial(t *testing.T, s *xmpptest.Server) *socket {
	t.Helper()
	w, _, err := dial(t, s, "wss", nil)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *socket) say(messages ...string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), xmpptest.Patience)
	defer cancel()
	for _, m := range messages {
		if err := w.ws.Write(ctx, websocket.MessageText, []byte(m)); err != nil {
			w.t.Fatalf("write: %v", err)
		}
	}
}

func (w *socket) read() (string, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), xmpptest.Patience)
	defer cancel()
	_, b, err := w.ws.Read(ctx)
	return string(b), err
}

// hear reads a message that has all of want in it.
func (w *socket) hear(want ...string) string {
	w.t.Helper()
	m, err := w.read()
	if err != nil {
		w.t.Fatalf("read: %v, want %q", err, want)
	}
	for _, part := range want {
		if !strings.Contains(m, part) {
			w.t.Fatalf("message\n\t%s\nwant %q in it", m, part)
		}
	}
	return m
}

// ends reads the end of the stream and of the WebSocket, after the stream error of that condition.
func (w *socket) ends(condition string, code websocket.StatusCode) {
	w.t.Helper()
	if condition != "" {
		w.hear("<stream:error xmlns:stream='http://etherx.jabber.org/streams'><" + condition + " xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>") // RFC 7395 §3.5
	}
	if m := w.hear(); m != closeElem { // RFC 7395 §3.6
		w.t.Fatalf("message\n\t%s\nwant %s", m, closeElem)
	}
	w.say(closeElem)
	if m, err := w.read(); websocket.CloseStatus(err) != code {
		w.t.Fatalf("%q, %v, want the closing handshake with %d", m, err, code)
	}
}

func TestWebSocketChat(t *testing.T) {
	s := xmpptest.New(t)
	romeo := s.WebSocketClient("romeo@localhost/orchard")
	juliet := s.Client("juliet@localhost/balcony")
	romeo.Online()
	juliet.Online()
	romeo.Send("<message to='juliet@localhost/balcony' type='chat' id='1'><body>hi</body></message><message to='juliet@localhost' type='chat' id='2'><body>there</body></message>")
	juliet.Expect("<message from='romeo@localhost/orchard' to='juliet@localhost/balcony' type='chat' id='1'><body>hi</body></message>")
	juliet.Expect("<message from='romeo@localhost/orchard' to='juliet@localhost' type='chat' id='2'><body>there</body></message>")
	juliet.Send("<message to='romeo@localhost/orchard' type='chat' id='3'><body>you</body></message>")
	romeo.Expect("<message from='juliet@localhost/balcony' to='romeo@localhost/orchard' type='chat' id='3'><body>you</body></message>")
	// More than one record, larger than every buffer, in both directions.
	large := strings.Repeat("x", 100_000)
	romeo.Send("<message to='juliet@localhost/balcony' id='4'><body>" + large + "</body></message>")
	juliet.Expect("<message from='romeo@localhost/orchard' to='juliet@localhost/balcony' id='4'><body>" + large + "</body></message>")
	for range 20 {
		juliet.Send("<message to='romeo@localhost/orchard'><body>" + large[:5000] + "</body></message>")
	}
	for range 20 {
		romeo.Expect("<message from='juliet@localhost/balcony' to='romeo@localhost/orchard'><body>" + large[:5000] + "</body></message>")
	}
	romeo.Close()
}

func TestWebSocketHandshake(t *testing.T) {
	s := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Web.Origins = []string{"https://chat.example.org", "https://*.example.net"} }))
	upgrade := "GET /xmpp-websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	const xmpp = "Sec-WebSocket-Protocol: chat, xmpp\r\n"
	for _, tt := range []struct{ name, request, want string }{
		{"as RFC 7395 §3.1 has it", upgrade + xmpp + "\r\n", "101"},
		{"two headers", upgrade + "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n", "101"},
		{"no subprotocol", upgrade + "\r\n", "400"},
		{"another subprotocol", upgrade + "Sec-WebSocket-Protocol: chat\r\n\r\n", "400"},
		{"no upgrade", "GET /xmpp-websocket HTTP/1.1\r\nHost: localhost\r\n\r\n", "426"},
		{"not GET", "POST" + strings.TrimPrefix(upgrade, "GET") + xmpp + "Content-Length: 0\r\n\r\n", "405"},
		{"another version", strings.Replace(upgrade, "13", "8", 1) + xmpp + "\r\n", "400"},
		{"a key that is none", strings.Replace(upgrade, "dGhlIHNhbXBsZSBub25jZQ==", "x", 1) + xmpp + "\r\n", "400"},
		{"a page of an allowed origin", upgrade + xmpp + "Origin: https://chat.example.org\r\n\r\n", "101"},
		{"a page of an allowed subdomain", upgrade + xmpp + "Origin: https://a.b.example.net\r\n\r\n", "101"},
		{"a page of another origin", upgrade + xmpp + "Origin: https://evil.example\r\n\r\n", "403"},
		{"a page of another scheme", upgrade + xmpp + "Origin: http://chat.example.org\r\n\r\n", "403"},
		{"an origin that ends alike", upgrade + xmpp + "Origin: https://evilexample.net\r\n\r\n", "403"},
		{"an origin with a trick", upgrade + xmpp + "Origin: https://evil.example/.example.net\r\n\r\n", "403"},
		{"the origin null", upgrade + xmpp + "Origin: null\r\n\r\n", "403"},
		{"a proxy that was reached over TLS", upgrade + xmpp + "X-Forwarded-Proto: https\r\n\r\n", "101"},
		{"a proxy that was reached in clear", upgrade + xmpp + "X-Forwarded-Proto: http\r\n\r\n", "403"},
		{"a proxy that does not say", upgrade + xmpp + "X-Forwarded-For: 192.0.2.1\r\n\r\n", "403"},
	} {
		c, err := net.Dial("tcp", s.Addr("http").String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(xmpptest.Patience))
		if _, err := io.WriteString(c, tt.request); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if resp.Status[:3] != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, resp.Status, tt.want)
		}
		if tt.want == "101" && (resp.Header.Get("Sec-WebSocket-Protocol") != "xmpp" || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" ||
			resp.Header.Get("Sec-WebSocket-Extensions") != "") {
			t.Errorf("%s: %v", tt.name, resp.Header)
		}
		_ = c.Close()
	}
}

func TestWebSocketStream(t *testing.T) {
	s := xmpptest.New(t)
	w := mustDial(t, s)
	w.say("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' from='romeo@localhost' version='1.0' xml:lang='de'/>")
	w.hear("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' id='", " from='localhost' to='romeo@localhost' version='1.0' xml:lang='en'/>")
	features := w.hear("<stream:features xmlns:stream='http://etherx.jabber.org/streams'>", "<mechanism>SCRAM-SHA-256-PLUS</mechanism>", "urn:xmpp:sasl:2",
		"<channel-binding type='tls-exporter'/>")
	if strings.Contains(features, "xmpp-tls") {
		t.Errorf("TLS is offered inside of the WebSocket: %s", features) // RFC 7395 §3.9
	}
	w.say(closeElem)
	if m := w.hear(); m != closeElem {
		t.Fatalf("%s, want %s", m, closeElem)
	}
	// Who closed the stream closes the WebSocket: RFC 7395 §3.6.
	if err := w.ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("closing handshake: %v", err)
	}
}

func TestWebSocketErrors(t *testing.T) {
	s := xmpptest.New(t)
	const normal = websocket.StatusNormalClosure
	for _, tt := range []struct {
		name      string
		say       []string
		condition string
		code      websocket.StatusCode
	}{
		{"another domain", []string{strings.Replace(open, "localhost", "example.org", 1)}, "host-unknown", normal},
		{"no domain", []string{"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' version='1.0'/>"}, "improper-addressing", normal},
		{"no version", []string{"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost'/>"}, "unsupported-version", normal},
		{"a stream of TCP", []string{"<stream:stream to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"}, "not-well-formed", normal},
		{"no open", []string{"<presence xmlns='jabber:client'/>"}, "bad-format", normal},
		{"open in no namespace of ours", []string{"<open xmlns='urn:x' to='localhost' version='1.0'/>"}, "bad-format", normal},
		{"whitespace", []string{" "}, "not-well-formed", normal}, // RFC 7395 §3.8: no whitespace keepalives
		{"an empty message", []string{""}, "not-well-formed", normal},
		{"whitespace before", []string{" " + open}, "not-well-formed", normal},
		{"two elements", []string{open + open}, "not-well-formed", normal},
		{"a document type", []string{"<!DOCTYPE a [<!ENTITY b 'c'>]>" + open}, "restricted-xml", normal},
		{"no UTF-8", []string{"<open\xff/>"}, "unsupported-encoding", normal},
		{"too large", []string{"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='" + strings.Repeat("x", 10_001) + "'/>"}, "policy-violation", websocket.StatusMessageTooBig},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := mustDial(t, s)
			w.say(tt.say...)
			w.hear("<open ") // RFC 7395 §3.5: the server's open comes first
			w.ends(tt.condition, tt.code)
		})
	}
	for _, tt := range []struct{ name, say, condition string }{
		{"open again", open, "not-authorized"},
		{"a stanza before login", "<message xmlns='jabber:client' to='a@localhost'><body>x</body></message>", "not-authorized"},
		{"STARTTLS", "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "not-authorized"}, // RFC 7395 §3.9
		{"half an element", "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>", "not-well-formed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := mustDial(t, s)
			w.say(open)
			w.hear("<open ")
			w.hear("<stream:features ")
			w.say(tt.say)
			w.ends(tt.condition, normal)
		})
	}
}

func TestWebSocketLimitAfterLogin(t *testing.T) {
	s := xmpptest.New(t)
	romeo := s.WebSocketClient("romeo@localhost/orchard")
	romeo.Send("<message to='romeo@localhost/orchard'><body>" + strings.Repeat("x", 200_000) + "</body></message>")
	if e := romeo.Read(); e.Local != "message" {
		t.Fatal(e)
	}
	romeo.Send("<message to='romeo@localhost/orchard'><body>" + strings.Repeat("x", 300_000) + "</body></message>")
	romeo.ExpectClose("<policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>")
}

// raw is a WebSocket at the level of frames: RFC 6455 §5.
type raw struct {
	t  *testing.T
	c  net.Conn
	br *bufio.Reader
}

func dialRaw(t *testing.T, s *xmpptest.Server) *raw {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr("http").String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(xmpptest.Patience))
	var key [16]byte
	_, _ = rand.Read(key[:])
	if _, err := fmt.Fprintf(c, "GET /xmpp-websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n", base64.StdEncoding.EncodeToString(key[:])); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	return &raw{t, c, br}
}

// frame makes a masked frame.
func frame(first byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := [4]byte{1, 2, 3, 4}
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

func (r *raw) write(frames ...[]byte) {
	r.t.Helper()
	for _, f := range frames {
		if _, err := r.c.Write(f); err != nil {
			r.t.Fatal(err)
		}
	}
}

// read returns the next frame; the server's are whole and never masked (RFC 6455 §5.1).
func (r *raw) read() (first byte, payload string, err error) {
	var h [2]byte
	if _, err := io.ReadFull(r.br, h[:]); err != nil {
		return 0, "", err
	}
	if h[1]&0x80 != 0 {
		return 0, "", errors.New("the server masks")
	}
	n := int(h[1])
	if n == 126 {
		var l [2]byte
		if _, err := io.ReadFull(r.br, l[:]); err != nil {
			return 0, "", err
		}
		n = int(binary.BigEndian.Uint16(l[:]))
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r.br, b)
	return h[0], string(b), err
}

func (r *raw) expect(first byte, prefix string) {
	r.t.Helper()
	f, p, err := r.read()
	if err != nil || f != first || !strings.HasPrefix(p, prefix) {
		r.t.Fatalf("frame %#x %q, %v, want %#x %q", f, p, err, first, prefix)
	}
}

func TestWebSocketFrames(t *testing.T) {
	s := xmpptest.New(t)
	t.Run("fragments with a ping between them", func(t *testing.T) {
		r := dialRaw(t, s)
		r.write(frame(0x01, open[:10]), frame(0x89, "are you there"), frame(0x00, open[10:20]), frame(0x80, open[20:]))
		r.expect(0x8A, "are you there") // RFC 6455 §5.5.3: a pong with the same payload
		r.expect(0x81, "<open ")
		r.expect(0x81, "<stream:features ")
	})
	t.Run("the client closes at once", func(t *testing.T) {
		r := dialRaw(t, s)
		r.write(frame(0x81, open), frame(0x88, "\x03\xe8"))
		r.expect(0x81, "<open ")
		r.expect(0x81, "<stream:features ")
		r.expect(0x88, "\x03\xe8") // RFC 6455 §5.5.1: the answer
	})
	huge := binary.BigEndian.AppendUint64([]byte{0x81, 0x80 | 127}, 1<<62)
	unmasked := append([]byte{0x81, byte(len(open))}, open...)
	for _, tt := range []struct {
		name  string
		frame []byte
		first byte // of the answer, 0 for the end of the connection
		code  string
	}{
		{"not masked", unmasked, 0, ""},
		{"a reserved bit", frame(0xC1, open), 0x88, "\x03\xea"}, // compression was not agreed on
		{"a reserved opcode", frame(0x83, ""), 0x88, "\x03\xea"},
		{"a fragmented ping", frame(0x09, "x"), 0x88, "\x03\xea"},
		{"a ping too large", frame(0x89, strings.Repeat("x", 126)), 0x88, "\x03\xea"},
		{"a continuation of nothing", frame(0x80, "x"), 0x88, "\x03\xea"},
		{"a message inside of another", append(frame(0x01, "<open "), frame(0x81, open)...), 0x88, "\x03\xea"},
		{"a close code that is none", frame(0x88, "\x03\xed"), 0x88, "\x03\xea"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := dialRaw(t, s)
			r.write(tt.frame)
			if tt.first != 0 {
				r.expect(tt.first, tt.code)
			}
			if f, p, err := r.read(); err == nil {
				t.Errorf("frame %#x %q, want the end", f, p)
			}
		})
	}
	t.Run("a binary message", func(t *testing.T) {
		r := dialRaw(t, s)
		r.write(frame(0x82, open))
		r.expect(0x81, "<open ")
		r.expect(0x81, "<stream:error ") // RFC 7395 §3.2
		r.expect(0x81, "<close ")
		r.expect(0x88, "\x03\xeb") // RFC 6455 §7.4.1: 1003
	})
	t.Run("a length of many years", func(t *testing.T) {
		r := dialRaw(t, s)
		r.write(huge, []byte(strings.Repeat("x", 20_000)))
		r.expect(0x81, "<open ")
		r.expect(0x81, "<stream:error ")
		r.expect(0x81, "<close ")
		r.expect(0x88, "\x03\xf1") // RFC 6455 §7.4.1: 1009
	})
	s.Eventually("the end of every connection", func() bool { return connections(t, s) == 0 })
}

// connections is the number of client connections that the server has.
func connections(t *testing.T, s *xmpptest.Server) int {
	t.Helper()
	families, err := s.Metrics().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "balcony_c2s_connections" {
			return int(f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	t.Fatal("no such metric")
	return 0
}

// TestWebSocketChannelBinding: over TLS that ends here the exporter of this connection is what SCRAM binds to.
func TestWebSocketChannelBinding(t *testing.T) {
	s := xmpptest.New(t)
	s.Account("romeo@localhost")
	c := s.DialWebSocket()
	c.Open("localhost")
	if err := c.Authenticate(sasl.ScramSha256Plus, "romeo", "romeo"); err != nil {
		t.Fatal(err)
	}
	c.Open("localhost")
	c.Bind("orchard")
	// Behind a proxy the TLS here is not the client's: nothing is offered that would have to bind to it.
	for _, tt := range []struct {
		scheme string
		header http.Header
	}{
		{"ws", nil},
		{"ws", http.Header{"X-Forwarded-Proto": {"https"}, "X-Forwarded-For": {"192.0.2.1"}}},
		{"wss", http.Header{"X-Forwarded-Proto": {"https"}, "X-Forwarded-For": {"192.0.2.1"}}},
	} {
		w, _, err := dial(t, s, tt.scheme, tt.header)
		if err != nil {
			t.Fatal(err)
		}
		w.say(open)
		w.hear("<open ")
		if f := w.hear("<mechanism>SCRAM-SHA-256</mechanism>", "<mechanism>PLAIN</mechanism>", "<mechanism>HT-SHA-256-NONE</mechanism>"); strings.Contains(f, "-PLUS") ||
			strings.Contains(f, "sasl-channel-binding") || strings.Contains(f, "EXPR") || strings.Contains(f, "ENDP") {
			t.Errorf("%s %v: %s", tt.scheme, tt.header, f)
		}
		w.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256-PLUS'>cD10bHMtZXhwb3J0ZXI=</auth>")
		w.hear("<failure ", "<invalid-mechanism/>")
	}
}

// TestWebSocketSASL2: XEP-0388 needs no restart, and Bind 2 and stream management are done inline.
func TestWebSocketSASL2(t *testing.T) {
	s := xmpptest.New(t)
	s.Account("romeo@localhost")
	w := mustDial(t, s)
	w.say(open)
	w.hear("<open ")
	w.hear("<bind xmlns='urn:xmpp:bind:0'>")
	w.say("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>" + base64.StdEncoding.EncodeToString([]byte("\x00romeo\x00romeo")) +
		"</initial-response><bind xmlns='urn:xmpp:bind:0'><tag>web</tag><enable xmlns='urn:xmpp:sm:3' resume='true'/></bind></authenticate>")
	w.hear("<success xmlns='urn:xmpp:sasl:2'>", "<authorization-identifier>romeo@localhost/web", "<enabled xmlns='urn:xmpp:sm:3'")
	if m := w.hear("<stream:features "); strings.Contains(m, "<sm ") { // in a message of its own
		t.Errorf("stream management is offered, and is on: %s", m)
	}
	w.say("<iq xmlns='jabber:client' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>", "<r xmlns='urn:xmpp:sm:3'/>")
	w.hear("<iq xmlns='jabber:client' ", " type='result' id='1'")
	for { // the question for an acknowledgement and the answer to ours, in any order
		if m := w.hear("urn:xmpp:sm:3"); strings.Contains(m, "<a ") {
			if !strings.Contains(m, "h='1'") {
				t.Error(m)
			}
			break
		}
	}
}

// TestWebSocketResumption: a session is the same over either transport (RFC 7395 §3.6, XEP-0198 §5).
func TestWebSocketResumption(t *testing.T) {
	s := xmpptest.New(t)
	juliet := s.Client("juliet@localhost/balcony")
	romeo := s.WebSocketClient("romeo@localhost/orchard")
	romeo.Online()
	romeo.Send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	romeo.Expect("<enabled xmlns='urn:xmpp:sm:3' id='{sm}' resume='true' max='900'/>")
	if list, _, err := s.Accounts().Sessions(t.Context(), jid.MustParse("romeo@localhost")); err != nil || len(list) != 1 || list[0].Transport != "WebSocket" || list[0].Address == "" {
		t.Errorf("the operator is told %+v, %v", list, err)
	}
	message := func(id string) string {
		return "<message from='juliet@localhost/balcony' to='romeo@localhost/orchard' type='chat' id='" + id + "'><body>x</body></message>"
	}
	say := func(id string) {
		juliet.Send("<message to='romeo@localhost/orchard' type='chat' id='" + id + "'><body>x</body></message>")
		juliet.Sync()
	}
	romeo.Disconnect() // the WebSocket goes without <close/>
	say("1")
	over, _ := s.Login("romeo@localhost")
	over.Resumed(romeo)
	over.Send("<resume xmlns='urn:xmpp:sm:3' previd='{sm}' h='0'/>")
	over.Expect("<resumed xmlns='urn:xmpp:sm:3' previd='{sm}' h='0'/>")
	over.Expect(message("1"))
	over.Expect("<r xmlns='urn:xmpp:sm:3'/>")
	over.Disconnect()
	say("2")
	back, _ := s.LoginWebSocket("romeo@localhost")
	back.Resumed(over)
	back.Send("<resume xmlns='urn:xmpp:sm:3' previd='{sm}' h='1'/>")
	back.Expect("<resumed xmlns='urn:xmpp:sm:3' previd='{sm}' h='0'/>")
	back.Expect(message("2"))
	back.Expect("<r xmlns='urn:xmpp:sm:3'/>")
	// Taken over while the former WebSocket is still open.
	third, _ := s.LoginWebSocket("romeo@localhost")
	third.Resumed(back)
	third.Send("<resume xmlns='urn:xmpp:sm:3' previd='{sm}' h='2'/>")
	back.ExpectClose("<conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>")
	third.Expect("<resumed xmlns='urn:xmpp:sm:3' previd='{sm}' h='0'/>")
	// A stream that its client closes is over.
	third.Close()
	last, _ := s.LoginWebSocket("romeo@localhost")
	last.Resumed(third)
	last.Send("<resume xmlns='urn:xmpp:sm:3' previd='{sm}' h='2'/>")
	last.Expect("<failed xmlns='urn:xmpp:sm:3' h='0'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>")
}

func TestWebSocketShutdown(t *testing.T) {
	s := xmpptest.New(t)
	romeo := s.WebSocketClient("romeo@localhost/orchard")
	go romeo.ExpectClose("<system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>")
	ctx, cancel := context.WithTimeout(t.Context(), xmpptest.Patience)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func TestWebSocketMoved(t *testing.T) {
	s := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Domains[0].WebSocketMoved = "wss://new.example.org/ws?" }))
	w := mustDial(t, s)
	w.say(open)
	w.hear("<open ", " from='localhost'")
	if m := w.hear(); m != "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing' see-other-uri='wss://new.example.org/ws?'/>" { // RFC 7395 §3.6.1
		t.Error(m)
	}
}

// signIn logs in with SASL2 and Bind 2 and returns the full JID.
func (w *socket) signIn(user string) string {
	w.t.Helper()
	w.say(open)
	w.hear("<open ")
	w.hear("<stream:features ")
	w.say("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>" + base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+user)) +
		"</initial-response><bind xmlns='urn:xmpp:bind:0'/></authenticate>")
	success := w.hear("<success ")
	w.hear("<stream:features ")
	return success[strings.Index(success, user+"@localhost/"):strings.Index(success, "</authorization-identifier>")]
}

// TestWebSocketSlowReader: who does not read is closed at the bound of its outbox, and what waits goes into the spool.
func TestWebSocketSlowReader(t *testing.T) {
	s := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Limits.Outbox, c.Limits.ClientRate = 64<<10, config.Off }))
	s.Account("romeo@localhost")
	w := mustDial(t, s)
	full := w.signIn("romeo")
	w.say("<presence xmlns='jabber:client'/>")
	w.hear("<presence ")
	juliet := s.Client("juliet@localhost/balcony")
	sent := 0
	for connections(t, s) > 1 {
		if sent++; sent > 2000 {
			t.Fatal("the session does not end")
		}
		juliet.Send(fmt.Sprintf("<message to='%s' type='chat' id='%d'><body>%s</body></message>", full, sent, strings.Repeat("x", 20_000)))
		juliet.Sync()
	}
	s.Eventually("the spool", func() bool { return s.Offline("romeo@localhost") > 0 })
}
