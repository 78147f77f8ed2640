// Package last implements XEP-0012: Last Activity 2.0: the server's uptime, and when an account was last online for its owner and those who
// receive its presence.
package last

import (
	"context"
	"strconv"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// NS is the namespace of the payload and the disco feature.
const NS = "jabber:iq:last" // XEP-0012 §2

const maxStatus = 1024 // bytes. chosen: what people write as their status

// Subscriptions tells who may see an account's presence.
type Subscriptions interface {
	// Subscribed reports the two directions of the subscription in owner's roster; from: contact receives owner's presence.
	Subscribed(ctx context.Context, owner, contact jid.JID) (to, from bool, err error)
}

// Module answers how long ago an account was last online, and how long the server has been running.
type Module struct {
	Store         Store
	Subscriptions Subscriptions
	Start         time.Time // when the server started

	server xmpp.Server // static after Register
}

var _ xmpp.Module = (*Module)(nil)

// Protocol lists XEP-0012.
func (m *Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{{XEP: 12, Version: "2.0", Status: xmpp.Complete,
		Note: "who may not see an account's presence gets service-unavailable, as for an account that does not exist, instead of forbidden"}}
}

// Register adds the handlers.
func (m *Module) Register(r *xmpp.Registry) {
	m.server = r.Server
	r.Feature(xmpp.ToServer, NS) // XEP-0012 §6
	r.Feature(xmpp.ToContact, NS)
	r.IQ(xmpp.ToServer, stanza.GetIQ, NS, "query", m.uptime)
	r.IQ(xmpp.ToContact, stanza.GetIQ, NS, "query", m.account) // XEP-0012 §3 and §8: only who may see the account's presence
	r.Incoming(m.resource)
	r.Presence(m.presence)
}

// uptime: XEP-0012 §5.
func (m *Module) uptime(context.Context, *xmpp.Stanza) (*xmpp.Element, error) {
	return m.since(m.Start), nil
}

// account: XEP-0012 §3.
func (m *Module) account(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	owner := s.To.Bare()
	if m.available(owner) {
		return xmpp.El(NS, "query", "seconds", "0"), nil
	}
	at, status, err := m.Store.LastActivity(ctx, owner)
	if err != nil {
		return nil, err
	}
	if at.IsZero() {
		return nil, xmpp.ErrItemNotFound // never online
	}
	return m.since(at).Say(status), nil
}

// resource: XEP-0012 §4, a request to a full JID is the client's to answer, and does not reach it from somebody who may not see the account's
// presence. The answer is that of a resource that does not exist.
func (m *Module) resource(ctx context.Context, d *xmpp.Delivery) error {
	s := d.Stanza
	if s.To.Resourcepart() == "" || !s.IsRequest() || len(s.Spans()) == 0 || s.Spans()[0].Space != NS || s.From.Bare().Equal(d.Account) {
		return nil
	}
	_, from, err := m.Subscriptions.Subscribed(ctx, d.Account, s.From.Bare())
	if err == nil && !from {
		err = xmpp.ErrServiceUnavailable
	}
	return err
}

// presence keeps the time and status of the unavailable presence of the last available resource.
func (m *Module) presence(_ context.Context, c xmpp.PresenceChange) {
	owner := c.Session.JID().Bare()
	if c.New != nil || m.available(owner) {
		return
	}
	var status string
	if child, ok := c.Stanza.Child("", "status"); ok {
		status = cut(child.Text(), maxStatus)
	}
	m.Store.NoteLastActivity(owner, m.server.Now(), status)
}

// available reports whether a resource of the account is available: those that are merely connected are nobody's business.
func (m *Module) available(account jid.JID) bool {
	for _, s := range m.server.Sessions(account) {
		if s.Presence() != nil {
			return true
		}
	}
	return false
}

// since is an answer with the whole seconds that have passed, none if the clock was set back.
func (m *Module) since(t time.Time) *xmpp.Element {
	seconds := max(0, int64(m.server.Now().Sub(t)/time.Second))
	return xmpp.El(NS, "query", "seconds", strconv.FormatInt(seconds, 10))
}

// cut shortens s to at most n bytes of whole characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}
