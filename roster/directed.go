package roster

import (
	"context"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// direct notes to whom a session sends directed presence (RFC 6121 §4.6.3).
func (m *Module) direct(ctx context.Context, o *xmpp.Outgoing) error {
	r := resourceOf(o.Sender)
	if r == nil {
		return nil
	}
	to := o.Stanza.To
	if o.Stanza.Type == "unavailable" {
		r.drop(to) // RFC 6121 §4.6.1: the server MUST remove the entity
		return nil
	}
	if o.Sender.Presence() != nil {
		// Rule 1: a subscriber gets every broadcast of an available resource anyhow.
		_, from, err := m.Subscribed(ctx, r.account.bare, to)
		if err != nil {
			return err
		}
		if from {
			return nil
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	key := to.String()
	if _, ok := r.directed[key]; !ok && len(r.directed) >= m.cfg.Directed {
		return xmpp.ErrResourceConstraint
	}
	if r.directed == nil {
		r.directed = make(map[string]jid.JID)
	}
	r.directed[key] = to
	return nil
}

// leave sends the unavailable presence s of a session to those who got directed presence from it and do not know yet that it left (RFC
// 6121 §4.6.3 rule 2). broadcast says that the account's own resources and its subscribers were told.
func (m *Module) leave(ctx context.Context, r *resource, s *xmpp.Stanza, broadcast bool) {
	r.mu.Lock()
	directed := r.directed
	r.directed = nil
	r.mu.Unlock()
	for _, to := range directed {
		if broadcast {
			bare := to.Bare()
			if bare.Equal(r.account.bare) || partsOf[r.account.contact(bare.String()).state].from {
				continue
			}
		}
		if m.blocks(ctx, r.account.bare, to) {
			continue // XEP-0191 §3.3: nothing is routed to a blocked JID
		}
		m.srv.Route(ctx, s.WithTo(to))
	}
}

// Withdraw ends the directed presence of an account's sessions to entities that the account has blocked: each gets unavailable presence
// (XEP-0191 §3.3) and is taken off the sessions' lists. blocked reports whether the block list applies to an entity. entries are the
// entries that are new in it: one that is a single resource of an entity that got presence at its bare JID is told too.
//
// Whoever sees a session's broadcast presence is left out: to tell the subscribers is the caller's part.
func (m *Module) Withdraw(ctx context.Context, account jid.JID, entries []jid.JID, blocked func(entity jid.JID) bool) {
	account = account.Bare()
	for _, sess := range m.srv.Sessions(account) {
		r := resourceOf(sess)
		if r == nil {
			continue
		}
		for _, to := range r.withdraw(entries, blocked) {
			bare := to.Bare()
			if bare.Equal(account) || sess.Presence() != nil && partsOf[r.account.contact(bare.String()).state].from {
				continue
			}
			m.hide(ctx, sess, to)
		}
	}
}

// withdraw takes blocked entities off the list and returns everybody who has to be told.
func (r *resource) withdraw(entries []jid.JID, blocked func(entity jid.JID) bool) (list []jid.JID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, to := range r.directed {
		if blocked(to) {
			list = append(list, to)
			delete(r.directed, key)
		}
	}
	for _, e := range entries {
		bare := e.Bare()
		if _, ok := r.directed[bare.String()]; ok && !bare.Equal(e) {
			list = append(list, e)
		}
	}
	return list
}

// ended runs when a session is over. One that was available has left before; one that was only connected may have sent directed presence.
func (m *Module) ended(ctx context.Context, s xmpp.Session) {
	r := resourceOf(s)
	if r == nil {
		return
	}
	m.leave(ctx, r, xmpp.New(xmpp.Presence, "unavailable", jid.JID{}, s.JID()), false)
	m.release(r.account)
}

// forget takes an entity that sends unavailable presence off the lists of the sessions that it tells (RFC 6121 §4.6.1).
func (m *Module) forget(d *xmpp.Delivery) {
	for _, t := range d.Targets {
		if r := resourceOf(t); r != nil {
			r.drop(d.Stanza.From)
		}
	}
}

func (r *resource) drop(entity jid.JID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.directed) > 0 {
		delete(r.directed, entity.String())
	}
}

// sharesDirected reports whether the resource that probe s asks for has sent directed presence to the one who asks.
func (m *Module) sharesDirected(s *xmpp.Stanza) bool {
	for _, sess := range m.srv.Sessions(s.To.Bare()) {
		if r := resourceOf(sess); r != nil && sess.JID().Equal(s.To) {
			r.mu.Lock()
			defer r.mu.Unlock()
			_, ok := r.directed[s.From.String()]
			return ok
		}
	}
	return false
}

// Directed are the addresses with that bare JID to which a session has sent directed presence, in no order.
func (m *Module) Directed(s xmpp.Session, bare jid.JID) (list []jid.JID) {
	r := resourceOf(s)
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, to := range r.directed {
		if to.Bare().Equal(bare) {
			list = append(list, to)
		}
	}
	return list
}

// sharesPresence reports whether a session has sent directed presence to an entity, or to another resource of the same bare JID: the other
// occupants of a room may ask when one of them knows.
func sharesPresence(sess xmpp.Session, entity jid.JID) bool {
	r := resourceOf(sess)
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.directed[entity.String()]; ok {
		return true
	}
	bare := entity.Bare()
	for _, to := range r.directed {
		if to.Bare().Equal(bare) {
			return true
		}
	}
	return false
}
