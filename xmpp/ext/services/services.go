// Package services implements XEP-0215: External Service Discovery 1.0.0: the STUN and TURN servers of the configuration, with credentials
// that are made for each asker and end.
package services

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"strconv"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// NS is the namespace of the protocol (XEP-0215 §7.1).
const NS = "urn:xmpp:extdisco:2"

// Service is one external service.
type Service struct {
	Type      string // "stun", "stuns", "turn", "turns" …
	Host      string
	Port      int    // 0: not told
	Transport string // "udp" or "tcp"; empty: not told
	Name      string // for people
	// Secret is shared with the service: each asker gets a username and password made with it, which last for Lifetime. Without it Username and
	// Password are everybody's, or none are needed.
	Secret             string
	Lifetime           time.Duration
	Username, Password string
}

// restricted reports whether the service wants credentials.
func (s Service) restricted() bool { return s.Secret != "" || s.Username != "" }

// Module answers for the services.
type Module struct {
	// Services are those of all domains of the server. It is not registered without any.
	Services []Service

	server xmpp.Server // static after Register
}

var _ xmpp.Module = (*Module)(nil)

// Protocol lists XEP-0215.
func (m *Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{{XEP: 215, Version: "1.0.0", Status: xmpp.Complete, Note: "when services are configured; no push, as the list changes with a restart only"}}
}

// Register adds the handlers; none when there is nothing to tell.
func (m *Module) Register(r *xmpp.Registry) {
	m.server = r.Server
	if len(m.Services) == 0 {
		return
	}
	r.Feature(xmpp.ToServer, NS) // XEP-0215 §5
	r.IQ(xmpp.ToServer, stanza.GetIQ, NS, "services", m.services)
	r.IQ(xmpp.ToServer, stanza.GetIQ, NS, "credentials", m.credentials)
}

// local reports whether somebody has an account here: credentials are for nobody else.
func (m *Module) local(j jid.JID) bool {
	return j.Localpart() != "" && m.server.Serves(j.Domainpart())
}

// services: XEP-0215 §3.1 and §3.2. Strangers see the list without credentials.
func (m *Module) services(_ context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	p, _ := s.Payload()
	typ := p.Attr("type")
	answer := xmpp.El(NS, "services", "type", typ)
	for _, service := range m.Services {
		if typ == "" || service.Type == typ {
			answer.Add(m.element(service, s.From, m.local(s.From)))
		}
	}
	return answer, nil
}

// credentials: XEP-0215 §3.3.
func (m *Module) credentials(_ context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	if !m.local(s.From) {
		return nil, xmpp.ErrForbidden
	}
	var r struct {
		XMLName  xml.Name
		Services []struct {
			Host string `xml:"host,attr"`
			Type string `xml:"type,attr"`
			Port string `xml:"port,attr"`
		} `xml:"urn:xmpp:extdisco:2 service"`
	}
	p, _ := s.Payload()
	if p.Decode(&r) != nil || len(r.Services) != 1 || r.Services[0].Host == "" || r.Services[0].Type == "" {
		return nil, xmpp.ErrBadRequest
	}
	asked := r.Services[0]
	answer := xmpp.El(NS, "credentials")
	for _, service := range m.Services {
		if service.Host == asked.Host && service.Type == asked.Type && (asked.Port == "" || asked.Port == strconv.Itoa(service.Port)) && service.restricted() {
			answer.Add(m.element(service, s.From, true))
		}
	}
	if len(answer.Children) == 0 {
		return nil, xmpp.ErrItemNotFound
	}
	return answer, nil
}

// element is a <service/>: XEP-0215 §2.
func (m *Module) element(s Service, asker jid.JID, credentials bool) *xmpp.Element {
	port, username, password, expires, restricted := "", s.Username, s.Password, "", ""
	if s.Port != 0 {
		port = strconv.Itoa(s.Port)
	}
	if s.restricted() {
		restricted = "true"
	}
	if s.Secret != "" && credentials {
		end := m.server.Now().Add(s.Lifetime)
		username, password = temporary(s.Secret, asker.Bare().String(), end)
		expires = end.UTC().Format("2006-01-02T15:04:05Z") // XEP-0082 §3.2
	}
	if !credentials {
		username, password = "", ""
	}
	return xmpp.El("", "service", "type", s.Type, "host", s.Host, "port", port, "transport", s.Transport, "name", s.Name,
		"restricted", restricted, "username", username, "password", password, "expires", expires)
}

// temporary makes credentials as the TURN REST API has it (draft-uberti-behave-turn-rest §2.2), which coturn calls use-auth-secret: the username
// begins with the time of its end, the password is its HMAC. The rest of the username stands for the account without naming it, so
// that the service can hold quotas.
func temporary(secret, account string, end time.Time) (username, password string) {
	name := hmac.New(sha256.New, []byte(secret))
	name.Write([]byte("account\x00" + account))
	username = fmt.Sprintf("%d:%s", end.Unix(), hex.EncodeToString(name.Sum(nil)[:8]))
	mac := hmac.New(sha1.New, []byte(secret))
	mac.Write([]byte(username))
	return username, base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
