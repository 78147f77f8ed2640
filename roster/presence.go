package roster

import (
	"context"
	"crypto/rand"
	"strconv"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// checkPresence holds available presence of our own clients to RFC 6121 §4.7.2: at most one show and one priority, and values that are
// defined. What it refuses is answered bad-request, like an unknown type (§4.7.1): to pass it on would give contacts an invalid stanza,
// and to mend it would show them another availability than the client believes it has. Who leaves is let go with anything.
func checkPresence(s *xmpp.Stanza) error {
	if s.Type != "" {
		return nil
	}
	shows, priorities := 0, 0
	for _, c := range s.Spans() {
		if c.Space != "" {
			continue
		}
		switch c.Local {
		case "show":
			shows++
		case "priority":
			priorities++
		}
	}
	if shows > 1 || priorities > 1 {
		return xmpp.ErrBadRequest
	}
	if c, ok := s.Child("", "show"); ok {
		switch trim(c.Text()) { // RFC 6121 §4.7.2.1; clients made with go-xmpp say with an empty one that they are just available
		case "", "away", "chat", "dnd", "xa":
		default:
			return xmpp.ErrBadRequest
		}
	}
	if c, ok := s.Child("", "priority"); ok {
		// RFC 6121 §4.7.2.3: between -128 and +127.
		if _, err := strconv.ParseInt(trim(c.Text()), 10, 8); err != nil {
			return xmpp.ErrBadRequest
		}
	}
	return nil
}

// presence runs after the broadcast presence of a session has changed: RFC 6121 §4.2.2, §4.4.2 and §4.5.2.
func (m *Module) presence(ctx context.Context, c xmpp.PresenceChange) {
	r := resourceOf(c.Session)
	if r == nil {
		return
	}
	a := r.account
	if c.Old == nil && c.New == nil {
		m.leave(ctx, r, c.Stanza, false) // it was not available: only those with directed presence know it (RFC 6121 §4.6.3 rule 3)
		return
	}
	if err := m.load(ctx, a); err != nil {
		m.log.Error("load roster", "account", a.key, "err", err) // those who are known to be subscribed are told
	}
	if len(m.srv.Sessions(a.bare)) > 0 {
		m.srv.Route(ctx, c.Stanza.WithTo(a.bare)) // to all available resources, this one included
	}
	m.broadcast(ctx, a, c)
	if c.New == nil {
		if !c.Ended {
			c.Session.Enqueue(ctx, c.Stanza.WithTo(a.bare)) // RFC 6121 §4.5.2: and to the one that leaves
		}
		m.leave(ctx, r, c.Stanza, true)
	}
	if c.Old == nil {
		m.arrive(ctx, a, c.Session)
	}
}

// broadcast sends a presence to the contacts that are subscribed to it. Its payload is shared by all copies.
func (m *Module) broadcast(ctx context.Context, a *account, c xmpp.PresenceChange) {
	subscribers := a.subscribed()
	for _, to := range subscribers {
		if m.reaches(ctx, a, to) {
			m.srv.Route(ctx, c.Stanza.WithTo(to))
		}
	}
	if c.New == nil {
		return
	}
	// A contact whose subscription was cancelled meanwhile got unavailable presence, perhaps before this one (RFC 6121 §3.2.2).
	now := a.subscribed()
	if len(now) == len(subscribers) && (len(now) == 0 || &now[0] == &subscribers[0]) {
		return
	}
	for _, to := range subscribers {
		if !partsOf[a.contact(to.String()).state].from {
			m.hide(ctx, c.Session, to)
		}
	}
}

// reaches reports whether presence to a subscriber is worth sending: not to an account here that is offline (RFC 6121 §8.5.2.2.2), and
// not to a contact whom the account blocks (XEP-0191 §3.3).
func (m *Module) reaches(ctx context.Context, a *account, to jid.JID) bool {
	if m.srv.Serves(to.Domainpart()) && len(m.srv.Sessions(to)) == 0 {
		return false
	}
	return !m.blocks(ctx, a.bare, to)
}

// arrive gives a resource that has become available what it has missed: the presence of the account's other resources and of the
// contacts (RFC 6121 §4.2.2, §4.3.1), and subscription requests that wait for an answer (§3.1.3 rule 4).
func (m *Module) arrive(ctx context.Context, a *account, s xmpp.Session) {
	p := &xmpp.Pace{To: s}
	first := true
	for _, other := range m.available(a.bare) {
		if other != s {
			first = false
			if !p.Sent(ctx, m.show(ctx, other, s.JID())) {
				return
			}
		}
	}
	for _, to := range a.where(func(p parts) bool { return p.to }) {
		if !m.look(ctx, a, p, to) {
			return
		}
	}
	if first {
		m.askAgain(ctx, a)
	}
	m.showRequests(ctx, a, p)
}

// look fetches the presence of a contact for a session; false when that takes no more. RFC 6121 §4.3.1: no probe is needed for an
// account here.
func (m *Module) look(ctx context.Context, a *account, p *xmpp.Pace, to jid.JID) bool {
	if !m.srv.Serves(to.Domainpart()) {
		probe := xmpp.New(xmpp.Presence, "probe", to, a.bare)
		probe.ID = rand.Text()
		m.srv.Route(ctx, probe)
		return true
	}
	online := m.available(to)
	if len(online) == 0 || m.blocks(ctx, to, a.bare) {
		return true
	}
	_, from, err := m.Subscribed(ctx, to, a.bare)
	switch {
	case err != nil:
		m.log.Error("load roster", "account", to.String(), "err", err)
	case !from:
		// What a probe would be answered (RFC 6121 §4.3.2 rule 1): the two rosters disagree, and the contact's counts.
		m.srv.Route(ctx, xmpp.New(xmpp.Presence, "unsubscribed", a.bare, to))
	default:
		for _, o := range online {
			if !p.Sent(ctx, m.show(ctx, o, p.To.JID())) {
				return false
			}
		}
	}
	return true
}

// maxAskAgain bounds the requests that are sent again at one login. chosen: more than a person has waiting.
const maxAskAgain = 100

// askAgain repeats subscription requests that a contact of another server has not answered (RFC 6121 §3.1.2, the last paragraph).
func (m *Module) askAgain(ctx context.Context, a *account) {
	left := maxAskAgain
	for _, to := range a.where(func(p parts) bool { return p.ask }) {
		if m.srv.Serves(to.Domainpart()) || m.blocks(ctx, a.bare, to) {
			continue
		}
		if left--; left < 0 {
			return
		}
		s := xmpp.New(xmpp.Presence, "subscribe", to, a.bare)
		s.ID = rand.Text()
		m.srv.Route(ctx, s)
	}
}

// showRequests gives a session the subscription requests that wait for the owner's answer.
func (m *Module) showRequests(ctx context.Context, a *account, p *xmpp.Pace) {
	if len(a.where(func(p parts) bool { return p.in })) == 0 {
		return
	}
	items, _, err := m.roster(ctx, a.bare)
	if err != nil {
		m.log.Error("load subscription requests", "account", a.key, "err", err)
		return
	}
	for _, it := range items {
		if !it.In || m.blocks(ctx, a.bare, it.Contact) {
			continue
		}
		request := it.kept(a.bare)
		if !p.To.Enqueue(ctx, request) || !p.Sent(ctx, request.Size()) {
			return
		}
	}
}

// available are the account's available resources (RFC 6121 §2.2).
func (m *Module) available(bare jid.JID) []xmpp.Session {
	var list []xmpp.Session
	for _, s := range m.srv.Sessions(bare) {
		if s.Presence() != nil {
			list = append(list, s)
		}
	}
	return list
}

// show sends a session's current presence to somebody, and returns how many bytes that were. The session's reader may change it at the
// same time and be first with what comes later, so what was sent is compared with what is current afterwards.
func (m *Module) show(ctx context.Context, s xmpp.Session, to jid.JID) (size int) {
	p := s.Presence()
	if p == nil {
		return 0
	}
	for {
		m.srv.Route(ctx, p.WithTo(to))
		size += p.Size()
		switch now := s.Presence(); now {
		case p:
			return size
		case nil:
			m.hide(ctx, s, to)
			return size
		default:
			p = now
		}
	}
}

// hide sends unavailable presence of a session to somebody.
func (m *Module) hide(ctx context.Context, s xmpp.Session, to jid.JID) {
	m.srv.Route(ctx, xmpp.New(xmpp.Presence, "unavailable", to, s.JID()))
}
