package carbons

import (
	"context"
	"slices"
	"sync"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// outgoing copies what a session sends: XEP-0280 §8.
func (m *Module) outgoing(ctx context.Context, o *xmpp.Outgoing) error {
	s := o.Stanza
	if s.Kind != xmpp.Message {
		return nil
	}
	from := deviceOf(o.Sender)
	if from == nil || !slices.ContainsFunc(from.account.list(), func(d *device) bool { return d != from }) {
		return nil
	}
	if sameBare(s.To, from.account.bare) {
		return nil // its delivery reaches the account's sessions, or copies it to them
	}
	t := traitsOf(s)
	if !m.eligible(s, &t, from.account.bare, s.To, sent) {
		return nil
	}
	if o.ArchiveID != "" { // XEP-0313 §3.3: by it the other devices find the message in their account's archive
		s = s.Append(xmpp.El(nsStanzaID, "stanza-id", "by", from.account.bare.String(), "id", o.ArchiveID))
	}
	c := copies{local: sent}
	for _, d := range m.audience(from, s, &t) {
		m.order.Behind(d.session).Enqueue(ctx, c.of(s).With(d.session.JID(), from.account.bare))
	}
	return nil
}

// audience are the sessions to copy to what from sends. XEP-0280 §6.1, note 4: private messages to an occupant of a room only to those that are
// the same occupant there.
func (m *Module) audience(from *device, s *xmpp.Stanza, t *traits) []*device {
	var as []jid.JID
	if t.room && s.To.Resourcepart() != "" {
		as = m.rooms.Directed(from.session, s.To.Bare())
	}
	list := make([]*device, 0, len(from.account.list()))
	for _, d := range from.account.list() {
		if d != from && (len(as) == 0 || m.anyOf(d.session, as)) {
			list = append(list, d)
		}
	}
	return list
}

// anyOf reports whether a session is one of the occupants of a room.
func (m *Module) anyOf(s xmpp.Session, occupants []jid.JID) bool {
	return slices.ContainsFunc(m.rooms.Directed(s, occupants[0].Bare()), func(j jid.JID) bool {
		return slices.ContainsFunc(occupants, j.Equal)
	})
}

// incoming copies what a session receives: XEP-0280 §7.
func (m *Module) incoming(ctx context.Context, d *xmpp.Delivery) error {
	a, direction := m.received(d)
	if a == nil {
		return nil
	}
	s := d.Stanza
	c := &copies{local: direction}
	for _, dev := range a.list() {
		if dev.session.JID().Equal(s.From) || slices.ContainsFunc(d.Targets, func(o xmpp.Session) bool { return deviceOf(o) == dev }) {
			continue // XEP-0280 §7: "MUST NOT send a forwarded copy to the client(s) the original was addressed to"
		}
		t := &target{Session: dev.session, m: m, account: a, copies: c}
		if dev.session.Priority() < 0 {
			// RFC 6121 §8.5.2.1.1: it is not there for the account's messages, so what it has may be all but lost.
			m.order.Behind(dev.session).Enqueue(ctx, t.copy(s))
			continue
		}
		d.Targets = append(d.Targets, t)
	}
	return nil
}

// received is the account with the sessions that may get copies of a message, nil when there are to be none.
func (m *Module) received(d *xmpp.Delivery) (*account, direction) {
	s := d.Stanza
	if s.Kind != xmpp.Message || d.Again {
		return nil, received // what comes back from a session that has ended was copied before
	}
	if s.MessageType() == stanza.HeadlineMessage {
		// News of nodes, of which there are many: who the account's sessions are does not matter.
		if t := traitsOf(s); !t.eligible(s) {
			return nil, received
		}
	}
	a := m.account(d)
	if a == nil || len(a.list()) == 0 {
		return nil, received
	}
	way := received
	if sameBare(s.From, a.bare) {
		way = sent // a message to oneself; clients take no other copy of what their account has sent
	}
	t := traitsOf(s)
	if t.room && way == received && s.From.Resourcepart() != "" && s.MessageType() != stanza.ErrorMessage {
		return nil, way // XEP-0280 §6.1: the room sends private messages to all sessions of the occupant
	}
	if !m.eligible(s, &t, a.bare, s.From, received) {
		return nil, way
	}
	return a, way
}

// Copied reports whether a message for which RFC 6121 §8.5 has no session will be delivered all the same: as a copy that counts.
func (m *Module) Copied(d *xmpp.Delivery) bool {
	a, _ := m.received(d)
	return a != nil && slices.ContainsFunc(a.list(), func(dev *device) bool {
		return dev.session.Priority() >= 0 && !dev.session.JID().Equal(d.Stanza.From)
	})
}

// account is that of a delivery, nil when it has no session.
func (m *Module) account(d *xmpp.Delivery) *account {
	for _, t := range d.Targets {
		if dev := deviceOf(t); dev != nil {
			return dev.account
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.accounts[d.Key]
}

// eligible is XEP-0280 §6.1. The errors of eligible messages are remembered to be eligible; what has no id cannot be told from other messages.
func (m *Module) eligible(s *xmpp.Stanza, t *traits, account, peer jid.JID, way direction) bool {
	if s.MessageType() == stanza.ErrorMessage {
		answers := sent
		if way == sent {
			answers = received
		}
		return !t.private && s.ID != "" && m.copied.has(m.key(account, peer, s.ID, answers))
	}
	if !t.eligible(s) {
		return false
	}
	if s.ID != "" {
		m.copied.add(m.key(account, peer, s.ID, way))
	}
	return true
}

func sameBare(j, bare jid.JID) bool {
	return j.Localpart() == bare.Localpart() && j.Domainpart() == bare.Domainpart()
}

// copies makes the copies of one message: they share their payload.
type copies struct {
	local direction

	mu       sync.Mutex
	original *xmpp.Stanza // guarded by mu
	forward  *xmpp.Stanza // guarded by mu
}

func (c *copies) of(s *xmpp.Stanza) *xmpp.Stanza {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.original != s {
		c.original, c.forward = s, s.Forward(NS, string(c.local))
	}
	return c.forward
}

// target is a session among those of a delivery that gets a copy.
type target struct {
	xmpp.Session
	m       *Module
	account *account
	copies  *copies
}

// Enqueue is xmpp.Target: what was chosen for the session is wrapped.
func (t *target) Enqueue(ctx context.Context, s *xmpp.Stanza) bool {
	if !s.IsShared() {
		s = s.Shared(1) // nobody else gets it
	}
	return t.m.order.Behind(t.Session).Enqueue(ctx, t.copy(s))
}

func (t *target) copy(s *xmpp.Stanza) *xmpp.Stanza {
	return t.copies.of(s).With(t.JID(), t.account.bare)
}
