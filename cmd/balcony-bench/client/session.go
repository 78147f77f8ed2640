package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"time"
)

// Hub is the account whose presence, and what it publishes, goes to all contacts.
const Hub = "hub"

// loginTimeout bounds one login. Chosen: a server that is saturated by a login storm may need seconds.
const loginTimeout = 60 * time.Second

// Dialer holds what all sessions of a run share. Its fields are not changed once sessions are dialled.
type Dialer struct {
	Address   string // host:port of a STARTTLS listener
	WebSocket string // host:port of a listener with WebSocket over TLS; when set, Dial uses it in place of Address
	Domain    string
	Password  string // of every account
	Mechanism string // the SASL mechanism to use; PLAIN when the server does not offer it
	TLS       *tls.Config
	Keys      *KeyCache
}

// Session is a bound session. One goroutine may read while one other writes.
type Session struct {
	JID   string // full JID
	State tls.ConnectionState

	conn  *tls.Conn
	wire  net.Conn // conn, or the WebSocket on it
	frame *Framer
}

// Dial connects an account up to the bound resource: TCP, STARTTLS, SASL, resource binding (RFC 6120 §5–§7).
func (d *Dialer) Dial(ctx context.Context, account, resource string) (*Session, error) {
	s, err := d.dial(ctx, account, resource)
	if err != nil {
		return nil, fmt.Errorf("log in %s: %w", account, err)
	}
	return s, nil
}

func (d *Dialer) dial(ctx context.Context, account, resource string) (_ *Session, err error) {
	s, _, err := d.connect(ctx, account)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.conn.Close()
		}
	}()
	// RFC 6120 §7.7: binding.
	if err = s.WriteString(fmt.Sprintf(`<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>%s</resource></bind></iq>`, resource)); err != nil {
		return nil, err
	}
	answer, err := s.Next()
	if err != nil {
		return nil, err
	}
	full := Between(answer, "<jid>", "</jid>")
	if full == nil {
		return nil, fmt.Errorf("unexpected answer to bind: %s", answer)
	}
	s.JID = string(full)
	s.conn.SetDeadline(time.Time{})
	return s, nil
}

// connect takes an account through TCP, STARTTLS and SASL (RFC 6120 §5–§6) and opens the stream that follows; it returns the features. The deadline of
// a login is set.
func (d *Dialer) connect(ctx context.Context, account string) (_ *Session, features []byte, err error) {
	if d.WebSocket != "" {
		o, err := d.dialWebSocket(ctx)
		if err != nil {
			return nil, nil, err
		}
		s, features, err := d.login(o.Conn, o, NewFramer(o, 1024), account)
		if err != nil {
			o.Close()
		}
		return s, features, err
	}
	var nd net.Dialer
	raw, err := nd.DialContext(ctx, "tcp", d.Address)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			raw.Close()
		}
	}()
	raw.SetDeadline(time.Now().Add(loginTimeout))

	// RFC 6120 §5.4.2: STARTTLS.
	f := NewFramer(raw, 1024)
	if _, err = d.open(raw, f); err != nil {
		return nil, nil, err
	}
	if err = exchange(raw, f, `<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>`, "<proceed"); err != nil {
		return nil, nil, err
	}
	conn := tls.Client(raw, d.TLS)
	if err = conn.HandshakeContext(ctx); err != nil {
		return nil, nil, err
	}

	return d.login(conn, conn, f, account)
}

// login takes a stream over wire, which is conn or on it, through SASL (RFC 6120 §6.4).
func (d *Dialer) login(conn *tls.Conn, wire net.Conn, f *Framer, account string) (_ *Session, features []byte, err error) {
	f.Reset(wire)
	if features, err = d.open(wire, f); err != nil {
		return nil, nil, err
	}
	if err = d.authenticate(wire, f, account, features); err != nil {
		return nil, nil, err
	}
	f.Reset(wire)
	if features, err = d.open(wire, f); err != nil {
		return nil, nil, err
	}
	return &Session{State: conn.ConnectionState(), conn: conn, wire: wire, frame: f}, features, nil
}

// open sends a stream header and returns the features.
func (d *Dialer) open(w net.Conn, f *Framer) ([]byte, error) {
	if _, err := w.Write([]byte(d.header())); err != nil {
		return nil, err
	}
	return d.features(f)
}

func (d *Dialer) header() string {
	if d.WebSocket != "" {
		return fmt.Sprintf("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='%s' version='1.0' xml:lang='en'/>", d.Domain)
	}
	return fmt.Sprintf("<?xml version='1.0'?><stream:stream to='%s' version='1.0' xml:lang='en' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>", d.Domain)
}

// features reads the server's stream header and returns its features.
func (d *Dialer) features(f *Framer) ([]byte, error) {
	if _, err := f.Header(); err != nil {
		return nil, err
	}
	features, err := f.Next()
	if err == nil && !bytes.HasPrefix(features, []byte("<stream:features")) {
		err = fmt.Errorf("expected features, got %s", features)
	}
	return features, err
}

func (d *Dialer) authenticate(conn net.Conn, f *Framer, account string, features []byte) error {
	const ns = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"
	b64 := base64.StdEncoding
	offered := bytes.Contains(features, []byte("<mechanism>"+d.Mechanism+"</mechanism>"))
	if d.Mechanism == "PLAIN" || !offered {
		text := b64.EncodeToString([]byte("\x00" + account + "\x00" + d.Password))
		return exchange(conn, f, "<auth "+ns+" mechanism='PLAIN'>"+text+"</auth>", "<success")
	}
	s := &scram{mechanism: d.Mechanism, account: account, password: d.Password, cache: d.Keys}
	_, err := fmt.Fprintf(conn, "<auth %s mechanism='%s'>%s</auth>", ns, d.Mechanism, b64.EncodeToString([]byte(s.first())))
	if err != nil {
		return err
	}
	challenge, err := payload(f, "<challenge")
	if err != nil {
		return err
	}
	final, err := s.final(challenge)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "<response %s>%s</response>", ns, b64.EncodeToString([]byte(final))); err != nil {
		return err
	}
	success, err := payload(f, "<success")
	if err != nil {
		return err
	}
	return s.verify(success)
}

// payload returns the decoded base64 text of the next element, which must begin with prefix.
func payload(f *Framer, prefix string) (string, error) {
	frame, err := f.Next()
	if err != nil {
		return "", err
	}
	if !bytes.HasPrefix(frame, []byte(prefix)) {
		return "", fmt.Errorf("expected %s>, got %s", prefix, frame)
	}
	text, err := base64.StdEncoding.DecodeString(string(Between(frame, ">", "<")))
	return string(text), err
}

// exchange sends an element and checks how the answer begins.
func exchange(w net.Conn, f *Framer, send, prefix string) error {
	if _, err := w.Write([]byte(send)); err != nil {
		return err
	}
	frame, err := f.Next()
	if err == nil && !bytes.HasPrefix(frame, []byte(prefix)) {
		err = fmt.Errorf("expected %s>, got %s", prefix, frame)
	}
	return err
}

// Write sends bytes as they are.
func (s *Session) Write(b []byte) error {
	_, err := s.wire.Write(b)
	return err
}

// WriteString sends a stanza, or anything else as it is. Over WebSocket a stanza declares its namespace (RFC 7395 §3.3.3).
func (s *Session) WriteString(text string) error {
	if s.Namespace() != "" {
		for _, kind := range []string{"<iq", "<presence", "<message"} {
			if rest, ok := strings.CutPrefix(text, kind); ok {
				text = kind + s.Namespace() + rest
				break
			}
		}
	}
	return s.Write([]byte(text))
}

// Namespace is the declaration that a stanza of this session needs, with a leading space; empty on a stream that has it in its header.
func (s *Session) Namespace() string {
	if _, ok := s.wire.(*overWebSocket); ok {
		return " xmlns='jabber:client'"
	}
	return ""
}

// Next returns the next stanza; the bytes are valid until the following call. It honours SetReadDeadline.
func (s *Session) Next() ([]byte, error) { return s.frame.Next() }

// Buffered reports whether received bytes wait to be read with Next.
func (s *Session) Buffered() bool { return s.frame.Buffered() }

// SetReadDeadline bounds Next, as on a net.Conn.
func (s *Session) SetReadDeadline(t time.Time) { s.conn.SetReadDeadline(t) }

// Until reads stanzas until match returns true and drops the others.
func (s *Session) Until(match func(stanza []byte) bool) error {
	for {
		st, err := s.Next()
		if err != nil {
			return err
		}
		if match(st) {
			return nil
		}
	}
}

// Roster requests the roster and waits for the result (RFC 6121 §2.1.3).
func (s *Session) Roster() error {
	return s.IQ(`<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>`, "roster")
}

// Ping waits until the server has handled everything that was sent before (XEP-0199 §4.2 over RFC 6120 §10.1, in-order processing).
func (s *Session) Ping(domain string) error {
	return s.IQ(`<iq type='get' id='ping' to='`+domain+`'><ping xmlns='urn:xmpp:ping'/></iq>`, "ping")
}

// IQ sends a request and waits for the answer with that id; an error answer is no failure.
func (s *Session) IQ(request, id string) error {
	if err := s.WriteString(request); err != nil {
		return err
	}
	return s.Until(func(st []byte) bool { return bytes.HasPrefix(st, []byte("<iq")) && string(Attr(st, "id")) == id })
}

// Online sends initial presence and waits for its own copy of it (RFC 6121 §4.2.2).
func (s *Session) Online() error {
	if err := s.WriteString("<presence/>"); err != nil {
		return err
	}
	return s.Until(func(st []byte) bool {
		return bytes.HasPrefix(st, []byte("<presence")) && string(Attr(st, "from")) == s.JID
	})
}

// Logout ends the stream and waits until the server has ended it too (RFC 6120 §4.4), then closes the connection.
func (s *Session) Logout() {
	s.conn.SetDeadline(time.Now().Add(5 * time.Second))
	if s.Namespace() != "" {
		s.WriteString("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>")
		s.Until(func(st []byte) bool { return bytes.HasPrefix(st, []byte("<close")) })
		s.conn.Close()
		return
	}
	s.WriteString("</stream:stream>")
	s.Until(func([]byte) bool { return false })
	s.conn.Close()
}

// Close ends the stream and the connection without waiting for the server's end tag.
func (s *Session) Close() {
	s.conn.SetDeadline(time.Now().Add(5 * time.Second))
	s.WriteString("</stream:stream>")
	s.conn.Close()
}
