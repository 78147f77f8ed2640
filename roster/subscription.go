package roster

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// outEvents are the events of the subscription stanzas that an owner sends; those that arrive follow in the same order.
var outEvents = map[string]Event{
	"subscribe": OutSubscribe, "unsubscribe": OutUnsubscribe, "subscribed": OutSubscribed, "unsubscribed": OutUnsubscribed,
}

// outbound carries out a subscription stanza of a local session: RFC 6121 §3.1.2, §3.1.5, §3.2.2, §3.3.2 and §3.4.2. It ends here,
// because presence has to precede and follow it on its way.
func (m *Module) outbound(ctx context.Context, o *xmpp.Outgoing) error {
	s := o.Stanza
	// RFC 6121 §3.1.2: both addresses become bare.
	owner, contact := o.Sender.JID().Bare(), s.To.Bare()
	if contact.Equal(owner) {
		return xmpp.ErrNotAllowed // an account is subscribed to itself (RFC 6121 §4.2.2)
	}
	if _, err := m.happen(ctx, owner, contact, outEvents[s.Type], s.With(contact, owner)); err != nil {
		return refusal(err)
	}
	return xmpp.ErrDrop
}

// inbound carries out a subscription stanza to a local account: RFC 6121 §3.1.3, §3.1.6, §3.2.3 and §3.3.3. Errors are not answered: the
// answer would tell that the account exists (§8.5.1).
func (m *Module) inbound(ctx context.Context, d *xmpp.Delivery) error {
	s := d.Stanza
	owner, contact := d.Account, s.From.Bare()
	e := outEvents[s.Type] + InSubscribe
	if contact.Equal(owner) || contact.Equal(jid.JID{}) {
		return xmpp.ErrDrop
	}
	if e != InSubscribe && s.To.Resourcepart() != "" && len(d.Targets) == 0 {
		return xmpp.ErrDrop // RFC 6121 §8.5.3.2.2
	}
	s = s.With(owner, contact) // RFC 6121 §3.1.3: as if it were to the bare JID
	tr, err := m.happen(ctx, owner, contact, e, s)
	switch {
	case errors.Is(err, ErrFull):
		// RFC 6121 §3.1.3, the security warning: bounded. The contact's server asks again later.
		m.log.Debug("subscription request not kept", "account", owner.String(), "err", err)
		return xmpp.ErrDrop
	case err != nil:
		m.log.Error("change roster", "account", owner.String(), "err", err)
		return xmpp.ErrDrop
	case e == InSubscribe && tr.Do&Deliver != 0:
		d.Stanza, d.Targets = s, m.available(owner) // RFC 6121 §3.1.3 rule 3: to all available resources
		return nil
	}
	return xmpp.ErrDrop
}

// remove takes a contact out of the owner's roster (RFC 6121 §2.5.2).
func (m *Module) remove(ctx context.Context, owner, contact jid.JID) error {
	_, err := m.happen(ctx, owner, contact, Remove, nil)
	return err
}

// happen carries out an event between owner and contact, bare JIDs. s is the stanza of the event, with these addresses.
func (m *Module) happen(ctx context.Context, owner, contact jid.JID, e Event, s *xmpp.Stanza) (Transition, error) {
	a := m.acquire(owner)
	defer m.release(a)
	tr, err := m.change(ctx, a, contact, e, s)
	if err != nil {
		return tr, err
	}
	a.send(ctx)
	return tr, nil
}

// change makes the event's change of the roster and queues what follows from it.
func (m *Module) change(ctx context.Context, a *account, contact jid.JID, e Event, s *xmpp.Stanza) (tr Transition, err error) {
	var request []byte
	if e == InSubscribe {
		request = m.keep(s)
	}
	if err := a.take(ctx); err != nil {
		return tr, err
	}
	defer a.give()
	listed := true
	it, err := m.update(ctx, a, contact, func(it *Item) bool {
		old := it.State()
		tr, listed = Next(old, e), it.Listed
		switch {
		case e == Remove && !listed:
			return false
		case e == Remove:
			*it = Item{Contact: it.Contact}
			return true
		case tr.New == old:
			return false
		}
		it.setState(tr.New)
		if tr.Do&Keep != 0 {
			it.Request = request
		}
		return true
	})
	switch {
	case err != nil:
		return tr, err
	case e == Remove && !listed:
		return tr, errNoItem // RFC 6121 §2.5.3
	}
	it.Removed = e == Remove
	if tr.Do&Deliver != 0 && e != InSubscribe {
		for _, sess := range m.interested(a) {
			sess.Enqueue(ctx, s) // RFC 6121 §3.1.6 rule 1: to the interested resources, before the push
		}
	}
	if tr.Do&Push != 0 {
		// The RFC has the push follow the stanza to the contact (§3.1.2). It is queued first, because the contact's answer may come back
		// with the next push while that stanza is being routed.
		m.push(ctx, a, it)
	}
	if tr.Do&(SendUnsubscribe|Hide|Route|SendUnsubscribed|SendSubscribed|Show) != 0 {
		a.after(func(ctx context.Context) { m.carryOut(ctx, a, contact, tr.Do, s) })
	}
	return tr, nil
}

// carryOut sends what an event makes the server send to the contact, in the order of the actions.
func (m *Module) carryOut(ctx context.Context, a *account, contact jid.JID, do Action, s *xmpp.Stanza) {
	id := rand.Text()
	if s != nil && s.ID != "" {
		id = s.ID // RFC 6121 §3.1.3: the answer in the example has the request's id
	}
	send := func(when Action, typ string) {
		if do&when != 0 {
			p := xmpp.New(xmpp.Presence, typ, contact, a.bare)
			p.ID = id
			m.srv.Route(ctx, p)
		}
	}
	send(SendUnsubscribe, "unsubscribe")
	if do&Hide != 0 && !m.blocks(ctx, a.bare, contact) { // XEP-0191 §3.3: one who is blocked was told when the block began
		for _, sess := range m.available(a.bare) {
			m.hide(ctx, sess, contact)
		}
	}
	if do&Route != 0 {
		m.srv.Route(ctx, s)
	}
	send(SendUnsubscribed, "unsubscribed")
	send(SendSubscribed, "subscribed")
	if do&Show != 0 && !m.blocks(ctx, a.bare, contact) {
		for _, sess := range m.available(a.bare) {
			m.show(ctx, sess, contact)
		}
		if m.shown != nil {
			m.shown(ctx, a.bare, contact)
		}
	}
}

// deleted runs before an account is removed.
func (m *Module) deleted(ctx context.Context, bare jid.JID) {
	m.abandon(bare)
	m.leaveContacts(ctx, bare)
	m.leaveRosters(ctx, bare)
}

// leaveContacts tells the contacts of an account that is being removed, as if it had removed each of them from its roster.
func (m *Module) leaveContacts(ctx context.Context, bare jid.JID) {
	a := m.acquire(bare)
	defer m.release(a)
	items, _, err := m.roster(ctx, bare)
	if err != nil {
		m.log.Error("tell contacts of a deleted account", "account", bare.String(), "err", err)
		return
	}
	for _, it := range items {
		m.carryOut(ctx, a, it.Contact, Next(it.State(), Remove).Do, nil)
	}
}

// maxOwners is how many rosters with a deleted account are looked up at a time. chosen: a few KiB of addresses.
const maxOwners = 100

// leaveRosters ends what other rosters here still say of an account that is being removed: a pre-approval (RFC 6121 §3.4), of which the account
// does not know, or a subscription that its own roster does not have, or that a block list kept from being ended. Whoever gets the name
// next would be shown presence by it.
func (m *Module) leaveRosters(ctx context.Context, bare jid.JID) {
	for after := int64(0); ; {
		owners, next, err := m.store.RosterOwners(ctx, bare, after, maxOwners)
		if err != nil {
			m.log.Error("end subscriptions to a deleted account", "account", bare.String(), "err", err)
			return
		}
		for _, owner := range owners {
			if _, err := m.happen(ctx, owner, bare, Gone, nil); err != nil {
				m.log.Error("end subscription to a deleted account", "account", owner.String(), "contact", bare.String(), "err", err)
			}
		}
		if after = next; next == 0 {
			return
		}
	}
}

// keep makes the bytes of a subscription request that is kept for the owner (RFC 6121 §3.1.3 rule 4).
func (m *Module) keep(s *xmpp.Stanza) []byte {
	if s.Size() <= m.cfg.Request {
		if b := s.AppendTo(nil); len(b) <= m.cfg.Request {
			return b
		}
	}
	return xmpp.New(xmpp.Presence, "subscribe", s.To, s.From).AppendTo(nil)
}

// kept makes the stanza of a request again that keep has stored.
func (it Item) kept(owner jid.JID) *xmpp.Stanza {
	e, err := xmpp.ReadElement(xml.NewDecoder(bytes.NewReader(it.Request)))
	if err != nil {
		return xmpp.New(xmpp.Presence, "subscribe", owner, it.Contact)
	}
	var children []*xmpp.Element
	for _, c := range e.Children {
		if c.Local != "" { // white space between children is left out
			children = append(children, c)
		}
	}
	s := xmpp.New(xmpp.Presence, "subscribe", owner, it.Contact, children...)
	for _, attr := range e.Attrs {
		switch attr.Name {
		case "id":
			s.ID = attr.Value
		case "xml:lang":
			s.Lang = attr.Value
		}
	}
	return s
}
