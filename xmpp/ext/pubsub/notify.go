package pubsub

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

const nsAddress = "http://jabber.org/protocol/address" // XEP-0033 §2

// event is what subscribers are told: XEP-0060 §12.2.
type event struct {
	items      []Item
	retracted  []string
	purged     bool
	deleted    bool
	redirect   string // with deleted
	configured bool
	by         jid.JID   // who published, with the resource
	stamp      time.Time // of a last item; the zero time for news
}

// element is the child of <event/>.
func (e event) element(n Node) *xmpp.Element {
	switch {
	case e.purged:
		return xmpp.El("", "purge", "node", n.Name) // XEP-0060 §8.5.2
	case e.deleted:
		el := xmpp.El("", "delete", "node", n.Name) // XEP-0060 §8.4.2
		if e.redirect != "" {
			el.Add(xmpp.El("", "redirect", "uri", e.redirect))
		}
		return el
	case e.configured:
		el := xmpp.El("", "configuration", "node", n.Name) // XEP-0060 §8.2.5.3
		if n.Config.Payloads {
			el.Add(n.Config.result())
		}
		return el
	}
	el := xmpp.El("", "items", "node", n.Name) // XEP-0060 §7.1.2 and §7.2.2
	for _, it := range e.items {
		if it.ID == "" {
			continue // XEP-0060 §4.3: what is published to a transient node that only notifies is no item
		}
		el.Add(itemElement(it, n.Config, n.Config.Payloads))
	}
	for _, id := range e.retracted {
		el.Add(xmpp.El("", "retract", "id", id))
	}
	return el
}

// parts are the events that tell of e, each of which fits into a stanza: a smaller max_items may have taken thousands of items with long ids.
func (e event) parts() (list []event) {
	from, size := 0, 0
	for i, id := range e.retracted {
		n := len(xmpp.El("", "retract", "id", id).AppendTo(nil, ""))
		if size += n; size > maxAnswer {
			list, from, size = append(list, event{retracted: e.retracted[from:i], by: e.by}), i, n
		}
	}
	if len(list) == 0 {
		return []event{e}
	}
	return append(list, event{retracted: e.retracted[from:], by: e.by})
}

// message makes the stanza once; it is sent to all with their addresses.
func (e event) message(at place, n Node, replyTo bool) *xmpp.Stanza {
	children := []*xmpp.Element{xmpp.El(NSEvent, "event").Add(e.element(n))}
	if replyTo && e.by.Resourcepart() != "" {
		// XEP-0163 §4.3.1 rule 4: which resource has published, for those alone who know the account's resources.
		children = append(children, xmpp.El(nsAddress, "addresses").Add(xmpp.El("", "address", "type", "replyto", "jid", e.by.String())))
	}
	if !e.stamp.IsZero() {
		children = append(children, xmpp.El(xmpp.NSDelay, "delay", "stamp", e.stamp.UTC().Format(time.RFC3339))) // XEP-0060 §6.1.7
	}
	s := xmpp.New(xmpp.Message, messageType(n.Config), jid.JID{}, at.jid, children...)
	s.ID = rand.Text()
	return s
}

// messageType: XEP-0060 §16.4.4; a message without a type is a normal one (RFC 6121 §5.2.2).
func messageType(c Config) string {
	if c.Notification == "normal" {
		return ""
	}
	return string(stanza.HeadlineMessage)
}

// recipient is somebody to whom an event goes.
type recipient struct {
	to       jid.JID
	session  xmpp.Session // that has the address to; nil for who is no session here, or not known as one
	presence bool         // it is subscribed to the account's presence, or its own
}

// tell sends an event of a node to all who are to have it.
func (m *Module) tell(ctx context.Context, at place, n Node, e event) {
	to, lost, err := m.recipients(ctx, at, n)
	if err != nil {
		m.log.Error("find subscribers", "service", at.key, "node", n.Name, "err", err)
		return
	}
	for _, part := range e.parts() {
		m.deliver(ctx, at, n, part, to)
	}
	for _, s := range lost {
		if err := m.lapse(ctx, at, n.Name, s); err != nil && !errors.Is(err, ErrNoNode) {
			m.log.Error("end subscription", "service", at.key, "node", n.Name, "err", err)
		}
	}
}

// lapse takes a subscription away from who has lost access, XEP-0163 §7.1, unless it has got it back meanwhile. The caller has not the turn of the
// service.
func (m *Module) lapse(ctx context.Context, at place, name string, who jid.JID) error {
	return m.queues.do(ctx, at.key, func() (func(context.Context), error) {
		b, err := m.members(ctx, at, name)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(b.subscriptions, func(s Subscription) bool { return s.JID.Equal(who) && s.State == Subscribed })
		if i < 0 {
			return nil, nil
		}
		f, err := m.load(ctx, at, name, who)
		if err != nil || f.decide(Retrieve) == allowed {
			return nil, err
		}
		s := b.subscriptions[i]
		s.State = Unsubscribed
		return nil, m.store.SetPubSubSubscription(ctx, at.jid, name, s)
	})
}

// deliver sends an event. The stanza is made once for those who may see the publishing resource, and once for the others.
func (m *Module) deliver(ctx context.Context, at place, n Node, e event, to []recipient) {
	if !n.Config.Deliver {
		return
	}
	var forms [2]*xmpp.Stanza
	for _, r := range to {
		i := 0
		if r.presence && at.account() && e.by.Bare().Equal(at.jid) {
			i = 1
		}
		if forms[i] == nil {
			forms[i] = e.message(at, n, i == 1)
		}
		if r.session != nil {
			m.srv.Send(ctx, r.session, forms[i])
		} else {
			m.srv.Route(ctx, forms[i].WithTo(r.to))
		}
	}
}

// recipients are all to whom news of a node go: XEP-0060 §12.3, XEP-0163 §4.3. lost are subscribers who may not have them any more.
func (m *Module) recipients(ctx context.Context, at place, n Node) (to []recipient, lost []jid.JID, err error) {
	b, err := m.members(ctx, at, n.Name)
	if err != nil {
		return nil, nil, err
	}
	c := &circle{m: m, at: at, n: n, members: b, has: make(map[string]bool)}
	if at.account() {
		if len(b.subscriptions) > 0 {
			c.full = make(map[string]bool)
		}
		if err := c.interested(ctx); err != nil {
			return nil, nil, err
		}
	}
	for _, s := range b.subscriptions {
		if err := c.subscribed(ctx, s); err != nil {
			return nil, nil, err
		}
	}
	return c.to, c.lost, nil
}

// circle is a list of recipients in the making.
type circle struct {
	*members
	m       *Module
	at      place
	n       Node
	full    map[string]bool    // bare JIDs of which a resource is among the recipients; nil without subscriptions, which is usual
	blocked func(jid.JID) bool // by the account; nil until it is asked for
	to      []recipient
	lost    []jid.JID
	has     map[string]bool // addresses of the first indexed ones of to
	indexed int
}

// among reports whether an address is one of a recipient.
func (c *circle) among(who jid.JID) bool {
	for ; c.indexed < len(c.to); c.indexed++ {
		c.has[c.to[c.indexed].to.String()] = true
	}
	return c.has[who.String()]
}

// interested adds the resources that have told their interest in their capabilities: those of the account itself, XEP-0163 §4.2, and those of contacts
// that may retrieve the items, §3.4.
func (c *circle) interested(ctx context.Context) error {
	if c.resources(c.at.jid); len(c.to) > 0 && c.full != nil {
		c.full[c.at.key] = true
	}
	if c.n.Config.Access == Whitelist || c.n.Config.Access == Authorize {
		// Nobody else may: the roster need not be gone through.
		for _, a := range c.affiliates {
			if a.JID.Equal(c.at.jid) {
				continue
			}
			if err := c.contact(ctx, a.JID); err != nil {
				return err
			}
		}
		return nil
	}
	contacts, err := c.m.relations.Subscribers(ctx, c.at.jid)
	if err != nil {
		return err
	}
	c.to = slices.Grow(c.to, len(contacts))
	for _, contact := range contacts {
		if err := c.add(ctx, contact); err != nil {
			return err
		}
	}
	return nil
}

// contact adds one who has an affiliation, if it is a contact.
func (c *circle) contact(ctx context.Context, who jid.JID) error {
	_, from, err := c.m.relations.Subscribed(ctx, c.at.jid, who)
	if err != nil || !from {
		return err
	}
	return c.add(ctx, who)
}

// add adds the interested resources of a contact, who is subscribed to the account's presence, if the node is for it. Who has none is not looked at
// any further: of a large roster those are the most.
func (c *circle) add(ctx context.Context, contact jid.JID) error {
	before := len(c.to)
	c.resources(contact)
	if len(c.to) == before {
		return nil
	}
	ok, err := c.admits(ctx, contact)
	if err != nil {
		return err
	}
	if !ok {
		c.to = c.to[:before]
	} else if c.full != nil {
		c.full[contact.String()] = true
	}
	return nil
}

// admits reports whether news of the node may go to a contact.
func (c *circle) admits(ctx context.Context, contact jid.JID) (bool, error) {
	r := Relation{Presence: true}
	if c.n.Config.Access == Roster {
		groups, err := c.m.relations.Groups(ctx, c.at.jid, contact)
		if err != nil {
			return false, err
		}
		r.Group = overlap(groups, c.n.Config.Groups)
	}
	var affiliation Affiliation
	if c.affiliations != nil || c.states != nil {
		key := contact.String()
		affiliation, r.Subscribed = c.affiliations[key], c.states[key] == Subscribed
	}
	return decide(affiliation, r, c.n.Config.Access, c.n.Config.PublishModel, Retrieve) == allowed && !c.blocks(ctx, contact), nil
}

// blocks reports whether the account has blocked somebody. When that cannot be found out, nothing is sent.
func (c *circle) blocks(ctx context.Context, contact jid.JID) bool {
	if c.blocked == nil {
		f, err := c.m.blocking.Blocked(ctx, c.at.jid)
		if err != nil {
			c.m.log.Error("look up block list", "err", err)
			f = func(jid.JID) bool { return true }
		}
		c.blocked = f
	}
	return c.blocked(contact)
}

// resources adds the resources of a bare JID that are interested in the node.
func (c *circle) resources(bare jid.JID) {
	if !c.m.srv.Serves(bare.Domainpart()) {
		for _, full := range c.m.resources.interested(c.at.key, bare.String(), c.n.Name) {
			c.to = append(c.to, recipient{to: full, presence: true})
		}
		return
	}
	for _, s := range c.m.srv.Sessions(bare) {
		if interestOf(s).wants(c.n.Name) && s.Presence() != nil {
			c.to = append(c.to, recipient{to: s.JID(), session: s, presence: true})
		}
	}
}

// subscribed adds one who has subscribed: XEP-0163 §4.3.2. A bare JID of which a resource has told its interest gets the event there.
func (c *circle) subscribed(ctx context.Context, s Subscription) error {
	bare := s.JID.Bare()
	key := bare.String()
	if s.State != Subscribed || s.Options.Silent || c.full[key] && s.JID.Resourcepart() == "" {
		return nil
	}
	if c.among(s.JID) {
		return nil
	}
	f := found{Node: c.n, Standing: Standing{Affiliation: c.standing(c.at.jid, bare).Affiliation, Subscription: Subscribed}}
	var err error
	if f.relation, err = c.m.relationTo(ctx, c.owners, f, bare); err != nil {
		return err
	}
	if f.decide(Retrieve) != allowed {
		c.lost = append(c.lost, s.JID)
		return nil
	}
	if c.at.account() && c.blocks(ctx, bare) {
		return nil // XEP-0163 §4.3.3 rule 3
	}
	c.to = c.m.present(c.to, c.n, s, bare.Equal(c.at.jid) || f.relation.Presence)
	return nil
}

// present adds the address of a subscription, unless it is offline and the node or the subscription says that this counts: XEP-0060 §12.6 and
// §16.4.2. Of a subscriber elsewhere it is not known.
func (m *Module) present(to []recipient, n Node, s Subscription, presence bool) []recipient {
	if !m.srv.Serves(s.JID.Domainpart()) || !n.Config.PresenceBased && len(s.Options.Show) == 0 {
		return append(to, recipient{to: s.JID, presence: presence})
	}
	for _, session := range m.srv.Sessions(s.JID.Bare()) {
		p := session.Presence()
		if p == nil || s.JID.Resourcepart() != "" && !session.JID().Equal(s.JID) {
			continue
		}
		if len(s.Options.Show) == 0 {
			return append(to, recipient{to: s.JID, presence: presence})
		}
		if slices.Contains(s.Options.Show, showOf(p)) {
			to = append(to, recipient{to: session.JID(), session: session, presence: presence})
		}
	}
	return to
}

// showOf is the availability of a presence in the words of pubsub#show-values.
func showOf(p *xmpp.Stanza) string {
	c, ok := p.Child("", "show")
	if !ok || c.Text() == "" {
		return "online"
	}
	return c.Text()
}

// blocks reports whether an account has blocked somebody. When that cannot be found out, nothing is sent.
func (m *Module) blocks(ctx context.Context, owner, contact jid.JID) bool {
	b, err := m.blocking.Blocks(ctx, owner, contact)
	if err != nil {
		m.log.Error("look up block list", "err", err)
		return true
	}
	return b
}

// send sends an event of another kind to one entity.
func (m *Module) send(ctx context.Context, at place, n Node, to jid.JID, el *xmpp.Element) {
	m.sendMessage(ctx, at, n, to, xmpp.El(NSEvent, "event").Add(el))
}

func (m *Module) sendMessage(ctx context.Context, at place, n Node, to jid.JID, el *xmpp.Element) {
	if at.account() && m.blocks(ctx, at.jid, to) {
		return
	}
	s := xmpp.New(xmpp.Message, messageType(n.Config), to, at.jid, el)
	s.ID = rand.Text()
	m.srv.Route(ctx, s)
}

// sendLast sends the last item of a node to one who is new: XEP-0060 §6.1.7.
func (m *Module) sendLast(ctx context.Context, at place, n Node, to jid.JID) {
	if at.account() && m.blocks(ctx, at.jid, to) {
		return // XEP-0163 §4.3.3 rule 3
	}
	m.sendNewest(ctx, at, n.Name, to, func(f found) bool { return f.Config.SendLast != Never && f.Subscription == Subscribed })
}

// last finds the last published item.
func (m *Module) last(ctx context.Context, at place, n Node) (Item, bool, error) {
	if !n.Config.Persist || !n.Config.Deliver {
		return Item{}, false, nil
	}
	p, err := m.store.PubSubItems(ctx, at.jid, n.Name, Query{Max: 1, Last: true, Since: n.Config.expiry(m.srv.Now())})
	if err != nil || len(p.Items) == 0 {
		return Item{}, false, err
	}
	return p.Items[0], true, nil
}
