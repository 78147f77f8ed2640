package roster

import (
	"context"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// probed answers a presence probe to a local account (RFC 6121 §4.3.2). Blocked contacts do not come this far.
func (m *Module) probed(ctx context.Context, d *xmpp.Delivery) error {
	s := d.Stanza
	_, from, err := m.Subscribed(ctx, d.Account, s.From)
	full := s.To.Resourcepart() != ""
	switch {
	case err != nil:
		m.log.Error("load roster", "account", d.Account.String(), "err", err)
	case from && full:
		m.answerFull(ctx, s)
	case from:
		m.answerBare(ctx, d.Account, s)
	case full && m.sharesDirected(s):
		// RFC 6121 §4.6.6: mere presence, of this resource only.
		m.srv.Route(ctx, reply(s, "", s.To))
	default:
		m.refuseProbe(ctx, d.Account, s)
	}
	return xmpp.ErrDrop
}

// reply is presence for the one who sent probe s, with the probe's id (RFC 6121 §4.3.2.1).
func reply(s *xmpp.Stanza, typ string, from jid.JID, children ...*xmpp.Element) *xmpp.Stanza {
	p := xmpp.New(xmpp.Presence, typ, s.From, from, children...)
	p.ID = s.ID
	return p
}

// answerBare: RFC 6121 §4.3.2 rules 3 and 4.
func (m *Module) answerBare(ctx context.Context, account jid.JID, s *xmpp.Stanza) {
	online := m.available(account)
	for _, o := range online {
		m.show(ctx, o, s.From)
	}
	if len(online) > 0 {
		return
	}
	var delay *xmpp.Element
	if m.last != nil {
		at, _, err := m.last.LastActivity(ctx, account)
		if err != nil {
			m.log.Error("load last activity", "account", account.String(), "err", err)
		} else if !at.IsZero() {
			delay = xmpp.El(xmpp.NSDelay, "delay", "stamp", at.UTC().Format(time.RFC3339)) // XEP-0203 §2
		}
	}
	p := reply(s, "unavailable", account)
	if delay != nil {
		p = p.Append(delay)
	}
	m.srv.Route(ctx, p)
}

// answerFull: RFC 6121 §4.3.2, the paragraph after rule 4: nothing but that the resource is available, or is not.
func (m *Module) answerFull(ctx context.Context, s *xmpp.Stanza) {
	for _, o := range m.available(s.To.Bare()) {
		if !o.JID().Equal(s.To) {
			continue
		}
		p := reply(s, "", s.To)
		if now := o.Presence(); now != nil {
			p.ID = now.ID // RFC 6121 §4.3.2.1
			m.srv.Route(ctx, p)
			return
		}
	}
	m.srv.Route(ctx, reply(s, "unavailable", s.To))
}

// refuseProbe answers one who is not subscribed. RFC 6121 §4.3.2 rule 1 wants "unsubscribed", for accounts that do not exist too, and
// §8.5.1 allows silence for these. The router is silent about them, so this server is silent to strangers, who thus learn nothing. One whom
// the owner has in the roster may know that the account exists (§8.1), and "unsubscribed" mends a roster that still says otherwise.
func (m *Module) refuseProbe(ctx context.Context, account jid.JID, s *xmpp.Stanza) {
	contact := s.From.Bare()
	state, listed, err := m.state(ctx, account, contact)
	if err != nil || !listed || partsOf[state].in {
		return // a request that waits for the owner is not refused by a probe
	}
	p := xmpp.New(xmpp.Presence, "unsubscribed", contact, account)
	p.ID = s.ID
	m.srv.Route(ctx, p)
}
