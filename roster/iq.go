package roster

import (
	"context"

	"balcony/xmpp"

	"mellium.im/xmpp/stanza"
)

// errNoItem is the error of RFC 6121 §2.5.3, with the type of its example.
var errNoItem = xmpp.Fail(stanza.Modify, stanza.ItemNotFound, "")

// maxInterim is how many interim pushes a client gets before the whole roster is the shorter answer (RFC 6121 §2.6.3). chosen: a push is
// about twice an item.
const maxInterim = 100

// get answers a roster get (RFC 6121 §2.1.3, §2.2, §2.6.2) and makes the session an interested resource. The answer is queued before
// any push of a later change, so it is sent here and not by the router.
func (m *Module) get(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	p, _ := s.Payload()
	var q query
	if err := p.Decode(&q); err != nil || len(q.Items) > 0 {
		return nil, xmpp.ErrBadRequest // RFC 6121 §2.1.3: without items
	}
	sess := m.session(s)
	if sess == nil || resourceOf(sess) == nil {
		return nil, xmpp.ErrDrop // it has ended
	}
	after := xmpp.Pace{To: sess}
	size, err := m.answer(ctx, sess, s, q.Ver)
	if err != nil {
		return nil, err
	}
	after.Sent(ctx, size) // a roster may be larger than all the rest that a login brings
	return nil, xmpp.ErrDrop
}

// answer sends the answer to a roster get and returns how many bytes that were.
func (m *Module) answer(ctx context.Context, sess xmpp.Session, s *xmpp.Stanza, ver *string) (size int, err error) {
	r := resourceOf(sess)
	a := r.account
	if err := a.take(ctx); err != nil {
		return 0, err
	}
	defer a.give()
	if ver != nil {
		if known, ok := parseVersion(*ver); ok {
			if size, err = m.catchUp(ctx, a, sess, s, known); err != nil || size > 0 {
				return size, err
			}
		}
	}
	items, version, err := m.roster(ctx, a.bare)
	if err != nil {
		return 0, err
	}
	a.fill(items, version)
	el := queryElement(version)
	for _, it := range items {
		if it.Listed {
			el.Children = append(el.Children, it.Element())
		}
	}
	r.interested = true
	result := s.Result(el)
	if b := xmpp.BatchFrom(ctx); b != nil && result.Size() > xmpp.Portion {
		b.Flush() // an empty outbox takes any stanza
	}
	sess.Enqueue(ctx, result)
	return result.Size(), nil
}

// catchUp answers a client that knows a version: an empty result, then one push for every item that has changed since (RFC 6121 §2.6.3).
// It returns how many bytes that were, 0 when the client needs the whole roster. The caller holds the turn.
func (m *Module) catchUp(ctx context.Context, a *account, sess xmpp.Session, s *xmpp.Stanza, known int64) (size int, err error) {
	var items []Item
	if now, ok := a.currentVersion(); !ok || now != known {
		items, _, ok, err = m.store.RosterSince(ctx, a.bare, known)
		if err != nil || !ok || len(items) > maxInterim {
			return 0, err
		}
	}
	resourceOf(sess).interested = true
	send := func(s *xmpp.Stanza) {
		sess.Enqueue(ctx, s)
		size += s.Size()
	}
	send(s.Result(nil))
	for _, it := range items {
		send(pushTo(sess, pushOf(it, it.Version)))
	}
	return size, nil
}

// set carries out a roster set (RFC 6121 §2.3, §2.4, §2.5). The pushes are queued before the result, which §2.3.2 leaves open.
func (m *Module) set(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	owner := s.From.Bare()
	p, _ := s.Payload()
	c, err := m.cfg.parseSet(owner, p)
	if err != nil {
		return nil, err
	}
	if c.remove {
		return nil, m.remove(ctx, owner, c.contact)
	}
	a := m.acquire(owner)
	defer m.release(a)
	if err := a.take(ctx); err != nil {
		return nil, err
	}
	defer a.give()
	it, err := m.update(ctx, a, c.contact, c.put)
	if err != nil {
		return nil, refusal(err)
	}
	m.push(ctx, a, it) // RFC 6121 §2.4.2: also when it was so already
	return nil, nil
}

// mayAsk refuses requests for the roster of another account, whether that account exists or not: RFC 6121 §2 and §2.3.3. What other
// servers ask is refused by the router, which knows no handler for it.
func (m *Module) mayAsk(o *xmpp.Outgoing) error {
	s := o.Stanza
	if sp := s.Spans(); len(sp) == 0 || sp[0].Space != NS || !s.IsRequest() {
		return nil
	}
	if to := s.To; to.Resourcepart() == "" && to.Localpart() != "" && !to.Equal(o.Sender.JID().Bare()) && m.srv.Serves(to.Domainpart()) {
		return xmpp.ErrForbidden
	}
	return nil
}

// refusePush answers roster pushes to a local client that come from somebody else than its own account: many clients believed them
// (CVE-2015-8688, CVE-2016-9928). The answer is the one of RFC 6121 §2.1.6, and the same as for a resource that does not exist.
func refusePush(d *xmpp.Delivery) error {
	s := d.Stanza
	if sp := s.Spans(); s.Type != "set" || len(sp) == 0 || sp[0].Space != NS {
		return nil
	}
	if s.To.Resourcepart() == "" || s.From.Bare().Equal(d.Account) {
		return nil
	}
	return xmpp.ErrServiceUnavailable
}

// refuseStranger keeps requests to a full JID from those who may not know that the resource is there: RFC 6121 §8.5.3.1. Their answer is
// that for a resource that is not. The domains of this server are no strangers: they ask on its behalf.
func (m *Module) refuseStranger(ctx context.Context, d *xmpp.Delivery) error {
	s := d.Stanza
	if !s.IsRequest() || len(d.Targets) == 0 || s.From.Localpart() == "" && m.srv.Serves(s.From.Domainpart()) {
		return nil
	}
	_, from, err := m.Subscribed(ctx, d.Account, s.From)
	if err != nil {
		return err
	}
	if !from && !sharesPresence(d.Targets[0], s.From) {
		return xmpp.ErrServiceUnavailable
	}
	return nil
}

// session is the local session that sent s, nil when it has ended.
func (m *Module) session(s *xmpp.Stanza) xmpp.Session {
	for _, sess := range m.srv.Sessions(s.From.Bare()) {
		if sess.JID().Equal(s.From) {
			return sess
		}
	}
	return nil
}
