package blocking

import (
	"context"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// errBlocked answers a stanza to a JID that its sender has blocked: XEP-0191 §3.3.
var errBlocked = xmpp.Error{
	Stanza: xmpp.Fail(stanza.Cancel, stanza.NotAcceptable, ""),
	Detail: xmpp.El(NSErrors, "blocked"),
}

// outgoing keeps what a session sends from a JID that its account has blocked. Presence without a to address is for the roster, which asks
// Blocks.
func (m *Module) outgoing(ctx context.Context, o *xmpp.Outgoing) error {
	if o.Stanza.To.Equal(jid.JID{}) {
		return nil
	}
	blocked, err := m.Blocks(ctx, o.Sender.JID(), o.Stanza.To)
	if err != nil {
		return err
	}
	if blocked {
		return errBlocked
	}
	return nil
}

// incoming keeps stanzas of blocked JIDs from the account, from its offline spool too: XEP-0191 §3.3, so that the account appears offline.
func (m *Module) incoming(ctx context.Context, d *xmpp.Delivery) error {
	if d.Stanza.From.Bare().Equal(d.Account) {
		return nil // XEP-0191 §5
	}
	l, err := m.list(ctx, d.Account, d.Key)
	if err != nil || !l.blocks(d.Stanza.From) {
		return err
	}
	switch {
	case d.Stanza.Kind == xmpp.Presence:
		return xmpp.ErrDrop // no answer to notifications, subscriptions and probes
	case d.Stanza.Kind == xmpp.IQ && !d.Stanza.IsRequest():
		return xmpp.ErrDrop
	case d.Stanza.Kind == xmpp.Message && d.Stanza.MessageType() == stanza.HeadlineMessage:
		return xmpp.ErrDrop // RFC 6121 §8.5.2.2.1: what an offline account does with them
	}
	return xmpp.ErrServiceUnavailable
}

// audience is the present presence of the account's available resources, and the contacts that see it.
func (m *Module) audience(ctx context.Context, account jid.JID) (presence []*xmpp.Stanza, contacts []jid.JID, err error) {
	for _, session := range m.server.Sessions(account) {
		if p := session.Presence(); p != nil {
			presence = append(presence, p.WithFrom(session.JID()))
		}
	}
	if len(presence) > 0 {
		contacts, err = m.contacts.Subscribers(ctx, account)
	}
	return presence, contacts, err
}

// show sends presence where a change of the list begins or ends a block: XEP-0191 §3.3 (unavailable) and §3.4 (the present one), to those who are
// subscribed.
func (m *Module) show(ctx context.Context, presence []*xmpp.Stanza, contacts []jid.JID, before, after *blockList) {
	for _, to := range changed(contacts, before, after) {
		for _, p := range presence {
			if after.blocks(to) {
				p = xmpp.New(xmpp.Presence, "unavailable", to, p.From)
			}
			m.server.Route(ctx, p.WithTo(to))
		}
	}
}

// changed are the addresses of contacts to which the two lists do not apply in the same way.
func changed(contacts []jid.JID, before, after *blockList) (list []jid.JID) {
	subscribed := make(map[string]bool, len(contacts))
	for _, c := range contacts {
		subscribed[c.String()] = true
		if before.blocks(c) != after.blocks(c) {
			list = append(list, c)
		}
	}
	// One resource of a contact that is otherwise not blocked.
	for i, l := range []*blockList{before, after} {
		other := []*blockList{after, before}[i]
		for _, e := range l.entries {
			bare := e.Bare()
			if !bare.Equal(e) && subscribed[bare.String()] && !other.has(e) && !before.blocks(bare) && !after.blocks(bare) {
				list = append(list, e)
			}
		}
	}
	return list
}
