package client

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

const nsSM = "urn:xmpp:sm:3" // XEP-0198

// Managed is what a client remembers of a session with stream management, to resume it.
type Managed struct {
	Account  string // localpart
	JID      string // full
	ID       string // SM-ID
	Received int    // stanzas: its h

	Agent, Token, Version string // of DialModern: user agent's id, token (XEP-0484), version of the features (XEP-0509)
}

// Enable turns stream management on, with resumption (XEP-0198 §3).
func (s *Session) Enable(account string) (*Managed, error) {
	if err := s.WriteString("<enable xmlns='" + nsSM + "' resume='true'/>"); err != nil {
		return nil, err
	}
	m := &Managed{Account: account, JID: s.JID}
	err := s.Until(func(st []byte) bool {
		if !bytes.HasPrefix(st, []byte("<enabled")) {
			return false
		}
		m.ID = string(Attr(st, "id"))
		return true
	})
	if err == nil && m.ID == "" {
		err = fmt.Errorf("%s cannot resume", s.JID)
	}
	return m, err
}

// Acknowledge says that everything that was received is handled, and waits until the server has heard it.
func (s *Session) Acknowledge(m *Managed, domain string) error {
	m.Received++ // the answer of the ping
	if err := s.WriteString("<a xmlns='" + nsSM + "' h='" + strconv.Itoa(m.Received-1) + "'/>"); err != nil {
		return err
	}
	return s.Ping(domain)
}

// Cut ends the connection without ending the stream.
func (s *Session) Cut() {
	tcp, ok := s.conn.NetConn().(*net.TCPConn)
	if ok {
		tcp.SetLinger(0) // an error shows in Close
	}
	s.conn.NetConn().Close()
}

// Resume connects and takes up the session: TCP, STARTTLS, SASL, <resume/> in place of binding (XEP-0198 §5).
func (d *Dialer) Resume(ctx context.Context, m *Managed) (*Session, error) {
	s, _, err := d.connect(ctx, m.Account)
	if err != nil {
		return nil, fmt.Errorf("resume %s: %w", m.JID, err)
	}
	s.JID = m.JID
	err = s.WriteString(fmt.Sprintf("<resume xmlns='%s' previd='%s' h='%d'/>", nsSM, m.ID, m.Received))
	var answer []byte
	if err == nil {
		answer, err = s.Next()
	}
	if err == nil && !bytes.HasPrefix(answer, []byte("<resumed")) {
		err = fmt.Errorf("expected resumed, got %s", answer)
	}
	if err != nil {
		s.conn.Close()
		return nil, fmt.Errorf("resume %s: %w", m.JID, err)
	}
	s.conn.SetDeadline(time.Time{})
	return s, nil
}

// Modern is how DialModern connects.
type Modern struct {
	Direct   string // address of a listener with direct TLS; "" for STARTTLS at Dialer.Address
	Pipeline bool   // send what need not wait for an answer with what is sent before it (XEP-0509, and <starttls/> with the stream header)
	Token    bool   // by token; else by password, with PLAIN, and ask for a token
	Dial     func(ctx context.Context, address string) (net.Conn, error)
}

// DialModern connects with SASL2 (XEP-0388) and everything inline: it resumes the session of m if there is one, else it binds with Bind 2 and enables
// stream management. resumed tells which. m is brought up to date.
func (d *Dialer) DialModern(ctx context.Context, how Modern, m *Managed) (_ *Session, resumed bool, err error) {
	address := how.Direct
	if address == "" {
		address = d.Address
	}
	raw, err := how.Dial(ctx, address)
	if err != nil {
		return nil, false, err
	}
	defer func() {
		if err != nil {
			raw.Close()
		}
	}()
	raw.SetDeadline(time.Now().Add(loginTimeout))
	f := NewFramer(raw, 1024)
	config := d.TLS.Clone()
	config.ClientSessionCache = nil // no resumption of TLS: a phone's process has often ended meanwhile
	if how.Direct == "" {
		const starttls = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
		text := d.header()
		if how.Pipeline {
			text += starttls
		}
		if _, err = io.WriteString(raw, text); err != nil {
			return nil, false, err
		}
		if _, err = d.features(f); err != nil {
			return nil, false, err
		}
		if !how.Pipeline {
			if _, err = io.WriteString(raw, starttls); err != nil {
				return nil, false, err
			}
		}
		proceed, err := f.Next()
		if err != nil || !bytes.HasPrefix(proceed, []byte("<proceed")) {
			return nil, false, fmt.Errorf("expected proceed, got %s %v", proceed, err)
		}
	} else {
		config.NextProtos = []string{"xmpp-client"}
	}
	conn := tls.Client(raw, config)
	if err = conn.HandshakeContext(ctx); err != nil {
		return nil, false, err
	}
	f.Reset(conn)
	text := d.header()
	if how.Pipeline {
		text += d.authenticate2(how, m)
	}
	if _, err = io.WriteString(conn, text); err != nil {
		return nil, false, err
	}
	features, err := d.features(f)
	if err != nil {
		return nil, false, err
	}
	version := string(Between(features, "<config-version", "/>"))
	m.Version = string(Between([]byte(version), "value='", "'"))
	if !how.Pipeline {
		if _, err = io.WriteString(conn, d.authenticate2(how, m)); err != nil {
			return nil, false, err
		}
	}
	success, err := f.Next()
	if err != nil {
		return nil, false, err
	}
	if !bytes.HasPrefix(success, []byte("<success")) {
		return nil, false, fmt.Errorf("expected success, got %s", success)
	}
	if token := Between(success, "token='", "'"); token != nil {
		m.Token = string(token)
	}
	s := &Session{JID: string(Between(success, "<authorization-identifier>", "</")), State: conn.ConnectionState(), conn: conn, frame: f}
	if resumed = bytes.Contains(success, []byte("<resumed")); !resumed {
		enabled := Between(success, "<enabled", "/>")
		m.JID, m.ID, m.Received = s.JID, string(Between(enabled, " id='", "'")), 0
		if _, err = f.Next(); err != nil { // features
			return nil, false, err
		}
	}
	raw.SetDeadline(time.Time{})
	return s, resumed, nil
}

// authenticate2 is <authenticate/>: XEP-0388 §2.3, XEP-0484 §3.4.
func (d *Dialer) authenticate2(how Modern, m *Managed) string {
	b64 := base64.StdEncoding
	text := ""
	if how.Token {
		mac := hmac.New(sha256.New, []byte(m.Token))
		mac.Write([]byte("Initiator"))
		text = "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='HT-SHA-256-NONE'><initial-response>" +
			b64.EncodeToString(append([]byte(m.Account+"\x00"), mac.Sum(nil)...)) + "</initial-response><fast xmlns='urn:xmpp:fast:0'/>"
	} else {
		text = "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>" + b64.EncodeToString([]byte("\x00"+m.Account+"\x00"+d.Password)) +
			"</initial-response><request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>"
	}
	text += "<user-agent id='" + m.Agent + "'/>"
	if how.Pipeline && m.Version != "" {
		text += "<config-version xmlns='urn:xmpp:iap:0' scheme='opaque' value='" + m.Version + "'/>"
	}
	if m.ID != "" {
		text += fmt.Sprintf("<resume xmlns='%s' previd='%s' h='%d'/>", nsSM, m.ID, m.Received)
	}
	return text + "<bind xmlns='urn:xmpp:bind:0'><enable xmlns='" + nsSM + "' resume='true'/></bind></authenticate>"
}
