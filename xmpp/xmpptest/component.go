package xmpptest

import (
	"bufio"
	"crypto/sha1"
	"fmt"
	"net"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

const nsComponent = "jabber:component:accept"

// DialComponent connects to the server's component listener and says nothing.
func (s *Server) DialComponent() *Client {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.Addr("component").String())
	if err != nil {
		s.t.Fatal(err)
	}
	c := &Client{t: s.t, srv: s, conn: conn, buf: bufio.NewReader(conn), vars: make(map[string]string), pinged: s.Config.Domains[0].Name, content: nsComponent}
	s.t.Cleanup(func() { _ = c.conn.Close(); c.wait() })
	return c
}

// OpenComponent sends a component's stream header and returns the id of the server's.
func (c *Client) OpenComponent(name string) (id string) {
	c.t.Helper()
	c.Write(fmt.Sprintf("<stream:stream to='%s' xmlns='%s' xmlns:stream='%s'>", name, nsComponent, xmpp.NSStream))
	h := c.Header()
	if h["from"] != name || h["id"] == "" {
		c.t.Fatalf("stream header: %v", h)
	}
	return h["id"]
}

// Handshake of XEP-0114 §3.
func Handshake(id, secret string) string {
	return fmt.Sprintf("<handshake>%x</handshake>", sha1.Sum([]byte(id+secret)))
}

// Component connects a component (XEP-0114). It reads and sends stanzas like a client; from is its name where it says nothing else.
func (s *Server) Component(name, secret string) *Client {
	s.t.Helper()
	c := s.DialComponent()
	c.Write(Handshake(c.OpenComponent(name), secret))
	if e := c.Element(); e.Local != "handshake" || len(e.Children) > 0 || e.Text != "" {
		s.t.Fatalf("handshake: %s", e)
	}
	c.JID = jid.MustParse(name)
	c.Start()
	return c
}

// asClient puts what is in the stream's own content namespace into that of clients, as expectations have it.
func (c *Client) asClient(e *xmpp.Element) *xmpp.Element {
	if c.content == "" {
		return e
	}
	if e.Space == c.content {
		e.Space = xmpp.NSClient
	}
	for _, child := range e.Children {
		c.asClient(child)
	}
	return e
}
