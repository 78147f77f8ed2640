package xmpptest

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"balcony/xmpp"

	"mellium.im/sasl"
	"mellium.im/xmpp/jid"
)

// Patience is how long a client waits for something that must come. It is only ever used up by a test that fails. chosen: busy machines stand still for
// seconds.
const Patience = 30 * time.Second

// Client is a client of the server under test that says exactly what the test tells it to.
type Client struct {
	// JID is the full JID that the server bound.
	JID jid.JID

	t      testing.TB
	srv    *Server
	conn   net.Conn
	tls    *tls.Conn
	framed bool // conn is over another transport than TCP
	buf    *bufio.Reader
	dec    *xml.Decoder
	vars   map[string]string

	pinged  string // whom Sync asks
	content string // content namespace, when it is another than jabber:client

	in    chan *xmpp.Element // what the reader has read; closed at the end of the stream
	err   error              // why; set before in is closed
	done  chan struct{}      // closed when the reader has ended
	inbox []*xmpp.Element    // read and not yet expected
	pings int
}

// Dial connects to the server's STARTTLS listener and says nothing.
func (s *Server) Dial() *Client { s.t.Helper(); return s.DialListener("c2s") }

// DialListener connects to a listener, by its name in the configuration, and says nothing.
func (s *Server) DialListener(name string) *Client { s.t.Helper(); return s.DialFrom("", name) }

// DialFrom is DialListener from an address of this machine, "" for any.
func (s *Server) DialFrom(local, name string) *Client {
	s.t.Helper()
	var d net.Dialer
	if local != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(local)}
	}
	conn, err := d.Dial("tcp", s.Addr(name).String())
	if err != nil {
		s.t.Fatal(err)
	}
	c := &Client{t: s.t, srv: s, conn: conn, buf: bufio.NewReader(conn), vars: make(map[string]string)}
	s.t.Cleanup(func() { _ = c.conn.Close(); c.wait() })
	return c
}

// DialTLS connects to the server's listener with direct TLS.
func (s *Server) DialTLS() *Client {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.Addr("c2s_tls").String())
	if err != nil {
		s.t.Fatal(err)
	}
	c := &Client{t: s.t, srv: s, conn: conn, vars: make(map[string]string)}
	s.t.Cleanup(func() { _ = c.conn.Close(); c.wait() })
	c.Handshake(&tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{"xmpp-client"}})
	return c
}

// Conn is the connection as it is now: TCP, or TLS after StartTLS.
func (c *Client) Conn() net.Conn {
	if c.tls != nil && !c.framed {
		return c.tls
	}
	return c.conn
}

// Open sends a stream header for domain and returns the attributes of the server's and its features.
func (c *Client) Open(domain string) (header map[string]string, features *xmpp.Element) {
	c.t.Helper()
	c.Write(fmt.Sprintf("<?xml version='1.0'?><stream:stream to='%s' version='1.0' xmlns='jabber:client' xmlns:stream='%s'>", domain, xmpp.NSStream))
	header = c.Header()
	return header, c.Element()
}

// Header reads the server's stream header.
func (c *Client) Header() map[string]string {
	c.t.Helper()
	c.patience()
	c.dec = xml.NewDecoder(c.buf)
	for {
		t, err := c.dec.Token()
		if err != nil {
			c.t.Fatalf("read stream header: %v", err)
		}
		if se, ok := t.(xml.StartElement); ok {
			if se.Name.Space != xmpp.NSStream || se.Name.Local != "stream" {
				c.t.Fatalf("the server's stream begins with {%s}%s", se.Name.Space, se.Name.Local)
			}
			m := make(map[string]string)
			for _, a := range se.Attr {
				m[a.Name.Local] = a.Value
			}
			return m
		}
	}
}

// Element reads the next element during the negotiation.
func (c *Client) Element() *xmpp.Element {
	c.t.Helper()
	c.patience()
	e, err := xmpp.ReadElement(c.dec)
	if err != nil {
		c.t.Fatalf("read element: %v", err)
	}
	return e
}

// End reads the end of the server's stream and of the connection during the negotiation.
func (c *Client) End() {
	c.t.Helper()
	c.patience()
	if _, err := xmpp.ReadElement(c.dec); !errors.Is(err, io.EOF) {
		c.t.Fatalf("want the end of the stream, got %v", err)
	}
	if n, err := io.Copy(io.Discard, c.buf); n != 0 || err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
		c.t.Fatalf("want the end of the connection, got %d bytes and %v", n, err)
	}
}

// ExpectElement reads the next element during the negotiation and compares it.
func (c *Client) ExpectElement(want string) {
	c.t.Helper()
	c.compare(want, c.Element())
}

func (c *Client) patience() { _ = c.conn.SetReadDeadline(time.Now().Add(Patience)) }

// Write sends bytes as they are.
func (c *Client) Write(text string) {
	c.t.Helper()
	_ = c.conn.SetWriteDeadline(time.Now().Add(Patience))
	if _, err := io.WriteString(c.Conn(), text); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// StartTLS takes the opened stream into TLS. cfg may be nil.
func (c *Client) StartTLS(cfg *tls.Config) {
	c.t.Helper()
	c.Write("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
	if e := c.Element(); e.Local != "proceed" {
		c.t.Fatalf("starttls: %s", e)
	}
	c.Handshake(cfg)
}

// Handshake begins TLS at once. cfg may be nil.
func (c *Client) Handshake(cfg *tls.Config) {
	c.t.Helper()
	if cfg == nil {
		cfg = &tls.Config{InsecureSkipVerify: true} // a certificate made for this test
	}
	c.tls = tls.Client(c.conn, cfg)
	c.patience()
	if err := c.tls.Handshake(); err != nil {
		c.t.Fatalf("TLS handshake: %v", err)
	}
	c.buf = bufio.NewReader(c.tls)
}

// Authenticate runs a SASL mechanism of mellium.im/sasl to its end, as an independent peer would.
func (c *Client) Authenticate(m sasl.Mechanism, user, password string) error {
	c.t.Helper()
	options := []sasl.Option{sasl.Credentials(func() (u, p, id []byte) { return []byte(user), []byte(password), nil }), sasl.RemoteMechanisms(m.Name)}
	if c.tls != nil {
		options = append(options, sasl.TLSState(c.tls.ConnectionState()))
	}
	n := sasl.NewClient(m, options...)
	more, resp, err := n.Step(nil)
	if err != nil {
		return err
	}
	c.Write(fmt.Sprintf("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='%s'>%s</auth>", m.Name, encode(resp)))
	for {
		e := c.Element()
		if e.Local == "failure" {
			return errors.New(e.Children[0].Local)
		}
		data, err := base64.StdEncoding.DecodeString(e.Text)
		if err != nil {
			return err
		}
		if e.Local == "success" && !more {
			return nil
		}
		if more, resp, err = n.Step(data); err != nil {
			return err
		}
		if e.Local == "success" {
			return nil
		}
		c.Write("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>" + encode(resp) + "</response>")
	}
}

func encode(b []byte) string {
	if len(b) == 0 {
		return "="
	}
	return base64.StdEncoding.EncodeToString(b)
}

// Login takes a new connection through TLS and SASL and opens the authenticated stream; it returns its features. The password of a test
// account is its localpart.
func (s *Server) Login(account string) (*Client, *xmpp.Element) {
	s.t.Helper()
	j := jid.MustParse(account)
	c := s.Dial()
	c.Open(j.Domainpart())
	c.StartTLS(nil)
	c.Open(j.Domainpart())
	if err := c.Authenticate(sasl.ScramSha256, j.Localpart(), j.Localpart()); err != nil {
		s.t.Fatalf("authenticate %s: %v", account, err)
	}
	_, features := c.Open(j.Domainpart())
	return c, features
}

// Client logs an account in, which is made if it is not there, and binds the JID's resource. It sends no presence.
func (s *Server) Client(full string) *Client {
	s.t.Helper()
	return s.bound(full, s.Login)
}

// bound is Client with a login of some kind.
func (s *Server) bound(full string, login func(account string) (*Client, *xmpp.Element)) *Client {
	s.t.Helper()
	j := jid.MustParse(full)
	s.Account(j.Bare().String())
	c, _ := login(full)
	c.Bind(j.Resourcepart())
	return c
}

// Bind binds a resource, "" for one that the server makes, and begins to read stanzas.
func (c *Client) Bind(resource string) {
	c.t.Helper()
	el := xmpp.El("urn:ietf:params:xml:ns:xmpp-bind", "bind")
	if resource != "" {
		el.Add(xmpp.El("", "resource").Say(resource))
	}
	c.Write(fmt.Sprintf("<iq type='set' id='bind'>%s</iq>", el))
	e := c.Element()
	if e.Local != "iq" || len(e.Children) != 1 || len(e.Children[0].Children) != 1 {
		c.t.Fatalf("bind: %s", e)
	}
	c.JID = jid.MustParse(e.Children[0].Children[0].Text)
	c.Start()
}

// Start begins to read stanzas in the background.
func (c *Client) Start() {
	c.in, c.done = make(chan *xmpp.Element, 10000), make(chan struct{})
	_ = c.conn.SetReadDeadline(time.Time{})
	c.srv.add(c)
	go func() {
		defer close(c.done)
		defer close(c.in)
		for {
			e, err := xmpp.ReadElement(c.dec)
			if err != nil {
				c.err = err
				return
			}
			c.in <- c.asClient(e)
		}
	}()
}

func (c *Client) wait() {
	if c.done != nil {
		<-c.done
	}
}

// Send sends XML; {name} stands for what an expectation has captured.
func (c *Client) Send(text string) {
	c.t.Helper()
	c.Write(fill(text, c.vars))
}

// next is the next stanza, or an error when the stream ends or nothing comes.
func (c *Client) next() (*xmpp.Element, error) {
	if len(c.inbox) > 0 {
		e := c.inbox[0]
		c.inbox = c.inbox[1:]
		return e, nil
	}
	return c.receive()
}

func (c *Client) receive() (*xmpp.Element, error) {
	select {
	case e, ok := <-c.in:
		if !ok {
			return nil, fmt.Errorf("the stream has ended: %w", c.err)
		}
		return e, nil
	case <-time.After(Patience):
		return nil, errors.New("nothing came")
	}
}

// Read is the next stanza.
func (c *Client) Read() *xmpp.Element {
	c.t.Helper()
	e, err := c.next()
	if err != nil {
		c.t.Fatalf("%s: %v", c.JID, err)
	}
	return e
}

// Expect compares the next stanza with XML.
func (c *Client) Expect(want string) {
	c.t.Helper()
	e, err := c.next()
	if err != nil {
		c.t.Fatalf("%s: %v, want %s", c.JID, err, want)
	}
	c.compare(want, e)
}

func (c *Client) compare(want string, got *xmpp.Element) {
	c.t.Helper()
	w, err := parse(want)
	if err != nil || len(w) != 1 {
		c.t.Fatalf("expected XML: %d elements, %v: %s", len(w), err, want)
	}
	if err := match(w[0], got, c.vars); err != nil {
		c.t.Fatalf("%s received\n\t%s\nwant\n\t%s\n%v", c.JID, got, want, err)
	}
}

// ExpectAll compares the next stanzas with XML in any order.
func (c *Client) ExpectAll(wants ...string) {
	c.t.Helper()
	var want []*xmpp.Element
	for _, text := range wants {
		w, err := parse(text)
		if err != nil {
			c.t.Fatalf("expected XML: %v: %s", err, text)
		}
		want = append(want, w...)
	}
	for len(want) > 0 {
		got := c.Read()
		found := false
		var why []string
		for i, w := range want {
			vars := make(map[string]string, len(c.vars))
			for k, v := range c.vars {
				vars[k] = v
			}
			err := match(w, got, vars)
			if err == nil {
				for k, v := range vars {
					c.vars[k] = v
				}
				want = append(want[:i], want[i+1:]...)
				found = true
				break
			}
			why = append(why, fmt.Sprintf("\t%s\n\t(%v)", w, err))
		}
		if !found {
			c.t.Fatalf("%s received\n\t%s\nwant one of\n%s", c.JID, got, strings.Join(why, "\n"))
		}
	}
}

// Sync waits until the server has handled everything that the client sent, and has written everything that was caused by then.
func (c *Client) Sync() {
	c.t.Helper()
	c.pings++
	id := fmt.Sprintf("sync-%d", c.pings)
	to := c.pinged
	if to == "" {
		to = c.JID.Domainpart()
	}
	c.Write(fmt.Sprintf("<iq type='get' id='%s' to='%s'><ping xmlns='urn:xmpp:ping'/></iq>", id, to))
	for {
		e, err := c.receive()
		if err != nil {
			c.t.Fatalf("%s: ping: %v", c.JID, err)
		}
		if attributes(e)["id"] == id {
			return
		}
		c.inbox = append(c.inbox, e)
	}
}

// ExpectNothing shows that no stanza is there that was not expected: every client's stanzas are handled, then this one's stream is empty.
func (c *Client) ExpectNothing() {
	c.t.Helper()
	for _, o := range c.srv.clients() {
		if o != c {
			o.Sync()
		}
	}
	c.Sync()
	if len(c.inbox) > 0 {
		c.t.Fatalf("%s received\n\t%s\nwant nothing", c.JID, c.inbox[0])
	}
}

// ExpectClose reads up to the end of the stream; want is the stream error before it, "" for none.
func (c *Client) ExpectClose(want string) {
	c.t.Helper()
	if want != "" {
		e := c.Read()
		if e.Space != xmpp.NSStream || e.Local != "error" || len(e.Children) == 0 {
			c.t.Fatalf("%s received\n\t%s\nwant a stream error", c.JID, e)
		}
		c.compare(want, e.Children[0]) // a text may follow
	}
	if e, err := c.next(); err == nil {
		c.t.Fatalf("%s received\n\t%s\nwant the end of the stream", c.JID, e)
	}
	c.wait()
	if !errors.Is(c.err, io.EOF) || errors.Is(c.err, io.ErrUnexpectedEOF) {
		c.t.Fatalf("%s: the stream ended with %v, want </stream:stream>", c.JID, c.err)
	}
	c.srv.remove(c)
	_ = c.conn.Close()
}

// Online sends initial presence and reads its own echo.
func (c *Client) Online() {
	c.t.Helper()
	c.Send("<presence/>")
	if e := c.Read(); e.Local != "presence" || attributes(e)["from"] != c.JID.String() || attributes(e)["type"] != "" {
		c.t.Fatalf("%s received\n\t%s\nwant its own presence", c.JID, e)
	}
}

// Roster requests the roster, which makes the session interested in pushes (RFC 6121 §2.1.6), and returns the answer.
func (c *Client) Roster() *xmpp.Element {
	c.t.Helper()
	c.Send("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>")
	e := c.Read()
	if e.Local != "iq" || attributes(e)["type"] != "result" || attributes(e)["id"] != "roster" {
		c.t.Fatalf("%s received\n\t%s\nwant its roster", c.JID, e)
	}
	return e
}

// Disconnect cuts the TCP connection.
func (c *Client) Disconnect() {
	c.srv.remove(c)
	_ = c.conn.Close()
	c.wait()
}

// Close ends the stream as RFC 6120 §4.4 says.
func (c *Client) Close() {
	c.t.Helper()
	c.Write("</stream:stream>")
	for {
		_, err := c.receive()
		if err != nil {
			break
		}
	}
	c.Disconnect()
}

// Discard forgets every stanza that has come until now.
func (c *Client) Discard() {
	c.t.Helper()
	c.Sync()
	c.inbox = nil
}

// Take is what has come by the last Sync and was not expected yet.
func (c *Client) Take() []*xmpp.Element {
	list := c.inbox
	c.inbox = nil
	return list
}

// Resumed makes this client, whose session was resumed, take the place of the one that had it.
func (c *Client) Resumed(before *Client) {
	c.JID, c.vars = before.JID, before.vars
	c.Start()
}

// Next is the next element during the negotiation, or why there is none.
func (c *Client) Next() (*xmpp.Element, error) {
	c.patience()
	return xmpp.ReadElement(c.dec)
}

// Patient is Expect for what the server does on its own time, up to half a minute later.
func (c *Client) Patient(want string) {
	c.t.Helper()
	for end := time.Now().Add(2 * Patience); time.Now().Before(end); {
		if e, err := c.next(); err == nil {
			c.compare(want, e)
			return
		} else if !strings.Contains(err.Error(), "nothing came") {
			c.t.Fatalf("%s: %v", c.JID, err)
		}
	}
	c.t.Fatalf("%s: nothing came, want %s", c.JID, want)
}

// Pending is the next stanza that has come already, after Sync; ok is false when there is none.
func (c *Client) Pending() (e *xmpp.Element, ok bool) {
	if len(c.inbox) == 0 {
		return nil, false
	}
	e, c.inbox = c.inbox[0], c.inbox[1:]
	return e, true
}
