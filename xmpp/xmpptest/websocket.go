package xmpptest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"balcony/xmpp"

	"github.com/coder/websocket"
	"mellium.im/sasl"
	"mellium.im/xmpp/jid"
)

// nsFraming is the namespace of RFC 7395 §3.3.2.
const nsFraming = "urn:ietf:params:xml:ns:xmpp-framing"

// DialWebSocket connects to the https listener over WebSocket and says nothing. What the test then writes and reads is put into messages and
// taken out of them (RFC 7395 §3.3): to the test it looks like a stream over TCP.
func (s *Server) DialWebSocket() *Client {
	s.t.Helper()
	c := &Client{t: s.t, srv: s, framed: true, vars: make(map[string]string)}
	transport := &http.Transport{DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}} // a certificate made for this test
		conn, err := d.DialContext(ctx, network, addr)
		if err == nil {
			c.tls = conn.(*tls.Conn)
		}
		return conn, err
	}}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "wss://"+s.Addr("https").String()+"/xmpp-websocket", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport}, Subprotocols: []string{"xmpp"},
	})
	if err != nil {
		s.t.Fatalf("dial WebSocket: %v", err)
	}
	ws.SetReadLimit(-1)
	c.conn = &overWebSocket{ws: ws, addr: c.tls.LocalAddr()}
	c.buf = bufio.NewReader(c.conn)
	s.t.Cleanup(func() { _ = c.conn.Close(); c.wait() })
	return c
}

// LoginWebSocket is Login over WebSocket.
func (s *Server) LoginWebSocket(account string) (*Client, *xmpp.Element) {
	s.t.Helper()
	c := s.DialWebSocket()
	return c, c.login(account)
}

// WebSocketClient is Client over WebSocket.
func (s *Server) WebSocketClient(full string) *Client {
	s.t.Helper()
	return s.bound(full, s.LoginWebSocket)
}

// login authenticates on a connection that is protected already, and opens the authenticated stream.
func (c *Client) login(account string) *xmpp.Element {
	c.t.Helper()
	j := jid.MustParse(account)
	c.Open(j.Domainpart())
	if err := c.Authenticate(sasl.ScramSha256, j.Localpart(), j.Localpart()); err != nil {
		c.t.Fatalf("authenticate %s: %v", account, err)
	}
	_, features := c.Open(j.Domainpart())
	return features
}

// frames cuts what a test writes into elements, each with its namespace; stream headers and ends become what open and end make of them.
func frames(text string, open func(xml.StartElement) string, end string) ([]string, error) {
	var out []string
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		if rest, ok := strings.CutPrefix(text, "</stream:stream>"); ok {
			out, text = append(out, end), rest
			continue
		}
		d := xml.NewDecoder(strings.NewReader(text))
		d.Strict = false
		depth := 0
		for done := false; !done; {
			t, err := d.RawToken()
			if err != nil {
				return nil, fmt.Errorf("cut %q: %w", text, err)
			}
			switch t := t.(type) {
			case xml.StartElement:
				if depth == 0 && t.Name.Local == "stream" {
					out = append(out, open(t))
					text = text[d.InputOffset():]
					done = true
				}
				depth++
			case xml.EndElement:
				if depth--; depth == 0 {
					element := text[:d.InputOffset()]
					text = text[d.InputOffset():]
					out = append(out, declared(strings.TrimSpace(element)))
					done = true
				}
			}
		}
	}
	return out, nil
}

// declared is a stanza with jabber:client declared, and any other element as it is.
func declared(element string) string {
	for _, kind := range []string{"<iq", "<message", "<presence"} {
		if strings.HasPrefix(element, kind) && !strings.Contains(element[:strings.Index(element, ">")], "xmlns=") {
			return kind + " xmlns='jabber:client'" + element[len(kind):]
		}
	}
	return element
}

// streamTag is a stream header with the attributes of what stands for it.
func streamTag(attrs []xml.Attr) string {
	var b strings.Builder
	b.WriteString("<stream:stream xmlns='jabber:client' xmlns:stream='" + xmpp.NSStream + "'")
	for _, a := range attrs {
		name := a.Name.Local
		if name == "xmlns" || a.Name.Space == "xmlns" {
			continue
		}
		if name == "lang" {
			name = "xml:lang"
		}
		fmt.Fprintf(&b, " %s='%s'", name, xmpp.AppendEscaped(nil, a.Value))
	}
	b.WriteString(">")
	return b.String()
}

// overWebSocket is a stream in WebSocket messages that looks like one over TCP.
type overWebSocket struct {
	ws   *websocket.Conn
	addr net.Addr
	in   bytes.Buffer // owned by the reader

	mu       sync.Mutex
	deadline time.Time // guarded by mu: for reading
}

func (o *overWebSocket) Read(p []byte) (int, error) {
	for o.in.Len() == 0 {
		o.mu.Lock()
		deadline := o.deadline
		o.mu.Unlock()
		ctx, cancel := context.WithCancel(context.Background())
		if !deadline.IsZero() {
			cancel()
			ctx, cancel = context.WithDeadline(context.Background(), deadline)
		}
		kind, b, err := o.ws.Read(ctx)
		cancel()
		if err != nil {
			if errors.As(err, &websocket.CloseError{}) {
				return 0, io.EOF
			}
			return 0, err
		}
		if kind != websocket.MessageText || len(b) == 0 || b[0] != '<' {
			return 0, fmt.Errorf("message of type %v: %q", kind, b) // RFC 7395 §3.2, §3.3.3
		}
		start, err := startOf(b)
		switch {
		case err != nil:
			return 0, fmt.Errorf("message %q: %w", b, err)
		case start.Name == xml.Name{Space: nsFraming, Local: "open"}:
			o.in.WriteString(streamTag(start.Attr))
		case start.Name == xml.Name{Space: nsFraming, Local: "close"}:
			o.in.WriteString("</stream:stream>")
		default:
			o.in.Write(b)
		}
	}
	return o.in.Read(p)
}

// startOf is the start tag of an element that must be complete, declare its namespaces and be alone (RFC 7395 §3.3.3).
func startOf(b []byte) (start xml.StartElement, err error) {
	d := xml.NewDecoder(bytes.NewReader(b))
	for depth, n := 0, 0; ; n++ {
		t, err := d.Token()
		if errors.Is(err, io.EOF) && depth == 0 && n > 0 {
			return start, nil
		}
		if err != nil {
			return start, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			if depth == 0 {
				if start.Name.Local != "" {
					return start, errors.New("a second element")
				}
				start = t.Copy()
			}
			if t.Name.Space == "" {
				return start, fmt.Errorf("%s is in no namespace", t.Name.Local)
			}
			depth++
		case xml.EndElement:
			depth--
		}
	}
}

func (o *overWebSocket) Write(p []byte) (int, error) {
	messages, err := frames(string(p), func(t xml.StartElement) string {
		el := "<open xmlns='" + nsFraming + "'"
		for _, a := range t.Attr {
			if a.Name.Local == "to" || a.Name.Local == "from" || a.Name.Local == "version" || a.Name.Local == "lang" {
				name := a.Name.Local
				if name == "lang" {
					name = "xml:lang"
				}
				el += fmt.Sprintf(" %s='%s'", name, xmpp.AppendEscaped(nil, a.Value))
			}
		}
		return el + "/>"
	}, "<close xmlns='"+nsFraming+"'/>")
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	for _, m := range messages {
		if err := o.ws.Write(ctx, websocket.MessageText, []byte(m)); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (o *overWebSocket) Close() error                     { return o.ws.CloseNow() }
func (o *overWebSocket) LocalAddr() net.Addr              { return o.addr }
func (o *overWebSocket) RemoteAddr() net.Addr             { return o.addr }
func (o *overWebSocket) SetWriteDeadline(time.Time) error { return nil }
func (o *overWebSocket) SetDeadline(t time.Time) error    { return o.SetReadDeadline(t) }

func (o *overWebSocket) SetReadDeadline(t time.Time) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.deadline = t
	return nil
}
