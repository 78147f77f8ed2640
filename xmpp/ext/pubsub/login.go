package pubsub

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// presence runs after the presence of a local session has changed: XEP-0163 §4.3.3. Its capabilities tell what it wants; what is new of that is sent.
func (m *Module) presence(ctx context.Context, c xmpp.PresenceChange) {
	session := c.Session
	if c.New == nil {
		m.become(session, nil)
		return
	}
	raw, before := rawCaps(c.New), interestOf(session)
	if before.sameRaw(raw) {
		return // XEP-0163 §4.3.3 rule 2: only initial presence, and what is new in a later one
	}
	account := session.JID().Bare()
	now := &interest{raw: raw}
	if before == nil {
		// Before anybody is asked: who subscribes from now on is sent the last item for that.
		now.comes = m.subscriptionsOf(ctx, account)
	}
	m.become(session, now)
	of, ok := readCaps(c.New)
	if raw == "" || !ok {
		if m.replace(session, now, &interest{raw: raw, known: true}) {
			m.comes(ctx, session, now.comes, new(arrival))
		}
		return
	}
	m.learn(ctx, &question{of: of, from: account, to: session.JID(), then: func(ctx context.Context, nodes map[string]struct{}) {
		if !m.replace(session, now, &interest{raw: raw, nodes: nodes, known: true}) {
			return // another presence has come meanwhile
		}
		a := &arrival{pace: xmpp.Pace{To: session}}
		if len(now.comes) > 0 {
			a.sent = make(map[string]struct{})
		}
		if fresh := without(nodes, now.nodes); len(fresh) > 0 && !m.arrive(ctx, account, session, fresh, a) {
			return
		}
		m.comes(ctx, session, now.comes, a)
	}, lost: func() {
		if m.asking.ctx.Err() != nil || !m.replace(session, now, &interest{raw: raw, nodes: now.nodes, known: true, again: true}) {
			return
		}
		ctx, cancel := context.WithTimeout(m.asking.ctx, sendTimeout)
		defer cancel()
		m.comes(ctx, session, now.comes, new(arrival))
	}})
}

// become sets the interest of a session, nil when it is not available. Until the capabilities of next are known, what is known from before counts, and what
// the session has not been sent yet is still to be sent.
func (m *Module) become(session xmpp.Session, next *interest) {
	m.interests.Lock()
	defer m.interests.Unlock()
	if before := interestOf(session); before != nil && next != nil {
		next.nodes, next.comes = before.nodes, before.comes
	}
	session.SetValue(interestKey{}, next)
}

// replace is become for what was learnt of now; false when that is not the session's interest any more.
func (m *Module) replace(session xmpp.Session, now, next *interest) bool {
	m.interests.Lock()
	defer m.interests.Unlock()
	if interestOf(session) != now {
		return false
	}
	session.SetValue(interestKey{}, next)
	return true
}

// kept is an interest as it is stored with a session.
type kept struct {
	Raw   string   `json:"raw,omitempty"`
	Nodes []string `json:"nodes,omitempty"`
	Again bool     `json:"again,omitempty"` // they were not known
}

// keep is xmpp.Keeper's Save.
func (m *Module) keep(s xmpp.Session) []byte {
	i := interestOf(s)
	if i == nil {
		return nil
	}
	b, err := json.Marshal(kept{i.raw, slices.Sorted(maps.Keys(i.nodes)), i.again || !i.known})
	if err != nil {
		m.log.Error("save interest of a session", "err", err) // its next presence tells
		return nil
	}
	return b
}

// restore is xmpp.Keeper's Restore: the session goes on hearing of what it wants, and its next presence is not its first.
func (m *Module) restore(_ context.Context, s xmpp.Session, b []byte) error {
	var k kept
	if err := json.Unmarshal(b, &k); err != nil {
		return err
	}
	i := &interest{raw: k.Raw, nodes: make(map[string]struct{}, len(k.Nodes)), known: true, again: k.Again}
	for _, n := range k.Nodes {
		i.nodes[n] = struct{}{}
	}
	s.SetValue(interestKey{}, i)
	return nil
}

// arrival is a resource that is sent last items.
type arrival struct {
	pace xmpp.Pace
	sent map[string]struct{} // the nodes whose last items it was sent, by membersKey; nil when that does not matter
}

// show sends the last item of a node, unless it was sent; false when the resource takes no more.
func (m *Module) show(ctx context.Context, at place, name string, to jid.JID, a *arrival, due func(found) bool) bool {
	key := membersKey(at.key, name)
	if _, done := a.sent[key]; done {
		return true
	}
	size := m.sendNewest(ctx, at, name, to, due)
	if size == 0 {
		return true
	}
	if a.sent != nil {
		a.sent[key] = struct{}{}
	}
	return a.pace.Sent(ctx, size)
}

// comes sends a session that has become available the last items of what its account has subscribed to, whether there is a presence subscription or
// not: XEP-0163 §4.3.4, XEP-0060 §16.4.4 (on_sub_and_presence). What its capabilities have brought it is not sent again. What is subscribed to at other
// servers is theirs to send, and the service is that of the account's own domain.
func (m *Module) comes(ctx context.Context, session xmpp.Session, all []SubscribedTo, a *arrival) {
	if len(all) == 0 {
		return
	}
	if a.pace.To = session; a.sent == nil {
		a.sent = make(map[string]struct{}) // a bare and a full JID may be subscribed to one node
	}
	account := session.JID().Bare()
	for _, s := range all {
		if s.State != Subscribed || s.Options.Silent || s.JID.Resourcepart() != "" && !s.JID.Equal(session.JID()) {
			continue
		}
		presence := session.Presence()
		if presence == nil {
			return
		}
		if len(s.Options.Show) > 0 && !slices.Contains(s.Options.Show, showOf(presence)) {
			continue
		}
		at := m.placeOf(s.Service)
		if at.account() && m.blocks(ctx, at.jid, account) {
			continue // XEP-0163 §4.3.3 rule 3
		}
		if !m.show(ctx, at, s.Node, session.JID(), a, func(f found) bool { return f.Config.SendLast == OnSubAndPresence && f.Subscription == Subscribed }) {
			return
		}
	}
}

const (
	maxSubscribed      = 4 << 20            // bytes of the subscriptions of those who come that are remembered. chosen: some 20,000 accounts that have none, which is usual
	maxSubscribedOfOne = maxSubscribed / 16 // bytes of one of them. chosen: like maxMembersOfNode
	maxComes           = 1000               // subscriptions of which an account is sent the last items when it comes. chosen: each costs a turn and a read
)

// subscriptionsOf are the subscriptions of an account at accounts here, and at the service beside its domain, from memory if it has come lately.
func (m *Module) subscriptionsOf(ctx context.Context, account jid.JID) []SubscribedTo {
	key := account.String()
	all, ok, gen := m.subscribed.Get(key)
	if ok {
		return all
	}
	service, err := jid.New("", label+"."+account.Domainpart(), "")
	if err == nil {
		all, err = m.store.PubSubSubscriptionsOf(ctx, account, service, maxComes)
	}
	if err != nil {
		m.log.Error("load subscriptions", "account", key, "err", err)
		return nil
	}
	size := 200 + len(key) // chosen: about what the entry itself takes
	for _, s := range all {
		size += 300 + len(s.Node) + len(s.Service.String()) + len(s.JID.String())
	}
	if size <= maxSubscribedOfOne {
		m.subscribed.Put(key, all, size, gen)
	}
	return all
}

// without are the nodes that are not among old.
func without(nodes, old map[string]struct{}) map[string]struct{} {
	if len(old) == 0 {
		return nodes
	}
	left := make(map[string]struct{})
	for n := range nodes {
		if _, ok := old[n]; !ok {
			left[n] = struct{}{}
		}
	}
	return left
}

// arrive sends a session the last items of the nodes that it wants: those of its own account, and those of contacts here. Other servers send theirs
// themselves, when they get its presence. It is false when the session takes no more.
func (m *Module) arrive(ctx context.Context, account jid.JID, session xmpp.Session, nodes map[string]struct{}, a *arrival) bool {
	if !m.showLast(ctx, account, account, session.JID(), nodes, a) {
		return false
	}
	contacts, err := m.relations.Subscriptions(ctx, account)
	if err != nil {
		m.log.Error("load roster", "account", account.String(), "err", err)
	}
	for _, c := range contacts {
		if m.srv.Serves(c.Domainpart()) && !m.showLast(ctx, c, account, session.JID(), nodes, a) {
			return false
		}
	}
	return true
}

// showLast sends a resource of who the last items of an account's nodes; false when it takes no more.
func (m *Module) showLast(ctx context.Context, owner, who, to jid.JID, nodes map[string]struct{}, a *arrival) bool {
	all, err := m.listing(ctx, owner)
	if err != nil {
		m.log.Error("load nodes", "account", owner.String(), "err", err)
		return true
	}
	at := place{jid: owner, key: owner.String(), domain: owner.Domainpart()}
	asked := false
	for _, n := range all {
		if _, wanted := nodes[n.Name]; !wanted || n.Items == 0 {
			continue
		}
		if !asked && !m.sees(ctx, owner, who) {
			return true
		}
		asked = true
		// The list may say of a node what is put right when it is used: what counts is what it is in its turn.
		if !m.show(ctx, at, n.Name, to, a, func(f found) bool { return f.Config.SendLast == OnSubAndPresence }) {
			return false
		}
	}
	return true
}

// sees reports whether somebody gets an account's events by presence: it is the owner, or subscribed to the owner's presence and not blocked.
func (m *Module) sees(ctx context.Context, owner, who jid.JID) bool {
	if owner.Equal(who) {
		return true
	}
	_, from, err := m.relations.Subscribed(ctx, owner, who)
	if err != nil {
		m.log.Error("look up subscription", "account", owner.String(), "err", err)
		return false
	}
	return from && !m.blocks(ctx, owner, who)
}

// sendNewest sends the last item of a node, if who gets it may have it and due says of the node, as it is then, that it is wanted. All of that is
// one turn of the service: the item is not seen after one that has replaced it, nor by who has been shut out before it was read. It returns how many
// bytes were sent.
func (m *Module) sendNewest(ctx context.Context, at place, name string, to jid.JID, due func(found) bool) (size int) {
	err := m.queues.do(ctx, at.key, func() (func(context.Context), error) {
		f, err := m.load(ctx, at, name, to)
		if errors.Is(err, ErrNoNode) {
			return nil, nil
		}
		if err != nil || f.decide(Retrieve) != allowed || !due(f) {
			return nil, err
		}
		it, ok, err := m.last(ctx, at, f.Node)
		if err != nil || !ok {
			return nil, err
		}
		s := event{items: []Item{it}, stamp: it.Published}.message(at, f.Node, false).WithTo(to)
		size = s.Size()
		return func(ctx context.Context) { m.srv.Route(ctx, s) }, nil
	})
	if err != nil {
		m.log.Error("load last item", "service", at.key, "node", name, "err", err)
	}
	return size
}

// Subscribed sends a contact who has become subscribed to the account's presence the last items of its nodes: XEP-0163 §4.3.4.
func (m *Module) Subscribed(ctx context.Context, account, contact jid.JID) {
	if !m.srv.Serves(contact.Domainpart()) {
		m.resources.each(account.String(), contact.String(), func(full jid.JID, i *interest) {
			if i != nil {
				m.showLast(ctx, account, contact, full, i.nodes, new(arrival))
			}
		})
		return
	}
	for _, s := range m.srv.Sessions(contact) {
		if i := interestOf(s); s.Presence() != nil && i != nil {
			m.showLast(ctx, account, contact, s.JID(), i.nodes, new(arrival))
		}
	}
}

// remotePresence learns from the presence of a contact elsewhere what its resource wants, and sends that when it comes: XEP-0163 §4.3.3 rule 2.
func (m *Module) remotePresence(ctx context.Context, d *xmpp.Delivery) {
	s := d.Stanza
	from := s.From
	if m.srv.Serves(from.Domainpart()) || s.To.Resourcepart() != "" {
		return // presence that is directed at a resource is no sign of a subscription
	}
	account, key := d.Account, d.Key
	if s.Type == "unavailable" {
		m.resources.drop(key, from)
		return
	}
	if s.Type != "" || from.Resourcepart() == "" {
		return
	}
	raw, before := rawCaps(s), m.resources.known(key, from)
	if before.sameRaw(raw) {
		return
	}
	if _, subscribed, err := m.relations.Subscribed(ctx, account, from.Bare()); err != nil || !subscribed {
		return // strangers are not remembered
	}
	now := &interest{raw: raw, size: len(raw)}
	if before != nil {
		now.nodes, now.size = before.nodes, before.size-len(before.raw)+len(raw)
	}
	m.resources.put(key, from, now)
	of, ok := readCaps(s)
	if raw == "" || !ok {
		return
	}
	m.learn(ctx, &question{of: of, from: account, to: from, elsewhere: true, then: func(ctx context.Context, nodes map[string]struct{}) {
		size := len(raw)
		if _, shared, _ := m.caps.Get(of.key()); !shared {
			size += sizeOf(nodes)
		}
		if !m.resources.replace(key, from, now, &interest{raw: raw, nodes: nodes, size: size}) {
			return
		}
		if fresh := without(nodes, now.nodes); len(fresh) > 0 {
			m.showLast(ctx, account, from.Bare(), from, fresh, new(arrival))
		}
	}, lost: func() {
		m.resources.replace(key, from, now, &interest{raw: raw, nodes: now.nodes, again: true, size: now.size})
	}})
}

// maxListings bounds what is remembered of accounts' nodes. chosen: the nodes of some 10,000 accounts.
const maxListings = 16 << 20

// listing are the nodes of an account, without items: at a login those of every contact are looked through, and most have none that is wanted.
func (m *Module) listing(ctx context.Context, account jid.JID) ([]Node, error) {
	key := account.String()
	nodes, ok, gen := m.listings.Get(key)
	if ok {
		return nodes, nil
	}
	all, err := m.store.PubSubNodes(ctx, account, account)
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		nodes = append(nodes, f.Node.listed())
	}
	m.listings.Put(key, nodes, listedSize(key, nodes), gen)
	return nodes, nil
}
