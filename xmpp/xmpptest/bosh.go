package xmpptest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"balcony/xmpp"
)

// NSBody is the namespace of the wrapper of XEP-0124.
const NSBody = "http://jabber.org/protocol/httpbind"

// DialBOSH is a client that speaks BOSH to the https listener (XEP-0124, XEP-0206). What the test writes goes in requests, and what it reads
// comes out of their answers: to the test it looks like a stream over TCP. There is always a request open.
func (s *Server) DialBOSH() *Client {
	s.t.Helper()
	c := &Client{t: s.t, srv: s, framed: true, vars: make(map[string]string)}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // a certificate made for this test
	o := &overBOSH{url: "https://" + s.Addr("https").String() + "/http-bind", client: &http.Client{Transport: transport}, rid: 1<<40 + 7, ready: make(map[uint64]string)}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	o.deliver = o.rid + 1
	o.changed.L = &o.mu
	c.conn = o
	c.buf = bufio.NewReader(o)
	s.t.Cleanup(func() { _ = o.Close(); c.wait() })
	return c
}

// LoginBOSH is Login over BOSH.
func (s *Server) LoginBOSH(account string) (*Client, *xmpp.Element) {
	s.t.Helper()
	c := s.DialBOSH()
	return c, c.login(account)
}

// BOSHClient is Client over BOSH.
func (s *Server) BOSHClient(full string) *Client {
	s.t.Helper()
	return s.bound(full, s.LoginBOSH)
}

// overBOSH is a stream in requests and answers that looks like one over TCP.
type overBOSH struct {
	url     string
	client  *http.Client
	ctx     context.Context
	cancel  context.CancelFunc
	polling sync.WaitGroup

	mu      sync.Mutex
	changed sync.Cond
	// Guarded by mu.
	sid, from string
	rid       uint64
	open      int               // requests without an answer
	deliver   uint64            // whose answer is read next
	ready     map[uint64]string // answers that came too early
	restarts  map[uint64]bool   // requests whose answer begins a stream
	in        bytes.Buffer
	end       error
	closed    bool
}

// post sends a request. It is called with mu held and waits for its turn.
func (o *overBOSH) post(attrs, content string, begins bool) error {
	for o.open >= 2 && o.end == nil && !o.closed {
		o.changed.Wait()
	}
	if o.end != nil || o.closed {
		return net.ErrClosed
	}
	o.rid++
	o.open++
	rid := o.rid
	if begins {
		if o.restarts == nil {
			o.restarts = make(map[uint64]bool)
		}
		o.restarts[rid] = true
	}
	if o.sid != "" {
		attrs += " sid='" + o.sid + "'"
	}
	body := fmt.Sprintf("<body rid='%d'%s xmlns='%s' xmlns:xmpp='urn:xmpp:xbosh'>%s</body>", rid, attrs, NSBody, content)
	o.polling.Go(func() {
		req, err := http.NewRequestWithContext(o.ctx, http.MethodPost, o.url, strings.NewReader(body))
		var resp *http.Response
		if err == nil {
			resp, err = o.client.Do(req)
		}
		var answer []byte
		if err == nil {
			answer, err = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("status %s", resp.Status)
			}
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		defer o.changed.Broadcast()
		o.open--
		if err != nil {
			o.end = err
			return
		}
		o.ready[rid] = string(answer)
		for b, ok := o.ready[o.deliver]; ok; b, ok = o.ready[o.deliver] {
			o.take(o.deliver, b)
			delete(o.ready, o.deliver)
			o.deliver++
		}
		if o.open == 0 && o.end == nil && !o.closed {
			_ = o.post("", "", false)
		}
	})
	return nil
}

// take reads an answer. It is called with mu held.
func (o *overBOSH) take(rid uint64, body string) {
	start, err := startOf([]byte(body))
	if err != nil || start.Name != (xml.Name{Space: NSBody, Local: "body"}) {
		o.end = fmt.Errorf("answer %q: %w", body, err)
		return
	}
	attrs := make(map[string]string)
	for _, a := range start.Attr {
		attrs[a.Name.Local] = a.Value
	}
	if attrs["sid"] != "" {
		o.sid, o.from = attrs["sid"], attrs["from"]
	}
	if o.restarts[rid] {
		o.in.WriteString(streamTag([]xml.Attr{{Name: xml.Name{Local: "from"}, Value: o.from}, {Name: xml.Name{Local: "id"}, Value: attrs["authid"]}}))
	}
	if i := strings.IndexByte(body, '>'); body[i-1] != '/' {
		o.in.WriteString(strings.TrimSuffix(body[i+1:], "</body>"))
	}
	if attrs["type"] == "terminate" {
		if c := attrs["condition"]; c != "" && c != "remote-stream-error" {
			o.in.WriteString("<stream:error><" + c + " xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>")
		}
		o.in.WriteString("</stream:stream>")
		o.end = io.EOF
	}
}

func (o *overBOSH) Read(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.in.Len() == 0 && o.end == nil && !o.closed {
		o.changed.Wait()
	}
	if o.in.Len() == 0 {
		if o.end != nil {
			return 0, o.end
		}
		return 0, net.ErrClosed
	}
	return o.in.Read(p)
}

func (o *overBOSH) Write(p []byte) (int, error) {
	const open, end = "\x00open", "\x00close"
	var header xml.StartElement
	elements, err := frames(string(p), func(t xml.StartElement) string { header = t.Copy(); return open }, end)
	if err != nil {
		return 0, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	content := ""
	flush := func() error {
		if content == "" {
			return nil
		}
		c := content
		content = ""
		return o.post("", c, false)
	}
	for _, e := range elements {
		switch e {
		case open:
			attrs := ""
			for _, a := range header.Attr {
				switch a.Name.Local {
				case "to", "from":
					attrs += fmt.Sprintf(" %s='%s'", a.Name.Local, xmpp.AppendEscaped(nil, a.Value))
				case "version":
					if o.sid == "" {
						attrs += fmt.Sprintf(" xmpp:version='%s'", xmpp.AppendEscaped(nil, a.Value))
					}
				}
			}
			if o.sid == "" {
				attrs += " ver='1.11' hold='1' wait='60' ack='1'"
			} else {
				attrs += " xmpp:restart='true'"
			}
			err = o.post(attrs, "", true)
		case end:
			c := content
			content = ""
			err = o.post(" type='terminate'", c, false)
		default:
			content += e
			continue
		}
		if err != nil {
			return 0, err
		}
	}
	if err := flush(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close goes away without a word.
func (o *overBOSH) Close() error {
	o.mu.Lock()
	o.closed = true
	o.changed.Broadcast()
	o.mu.Unlock()
	o.cancel()
	o.polling.Wait()
	o.client.CloseIdleConnections()
	return nil
}

func (o *overBOSH) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (o *overBOSH) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (o *overBOSH) SetWriteDeadline(time.Time) error { return nil }
func (o *overBOSH) SetReadDeadline(time.Time) error  { return nil }
func (o *overBOSH) SetDeadline(time.Time) error      { return nil }
