package pubsub

import (
	"context"
	"errors"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

const (
	maxMembers       = 16 << 20 // bytes of nodes with their members that are remembered. chosen: some 10,000 nodes of accounts
	maxMembersOfNode = 1 << 20  // bytes of one of them. chosen: some thousand subscriptions; who has more can wait for the database
)

// members are a node with its affiliations and subscriptions, in the forms in which they are needed. They do not change.
type members struct {
	node          Node // without the number of its items
	affiliates    []Affiliate
	subscriptions []Subscription

	own          Affiliation            // of the account whose node it is
	affiliations map[string]Affiliation // of the others by bare JID; nil where there are none, which is usual
	states       map[string]State       // the best subscription by bare JID; nil where there are none, which is usual
	owners       []jid.JID              // whose rosters count
}

func newMembers(service jid.JID, n Node, affiliates []Affiliate, subscriptions []Subscription) *members {
	n.Items = 0
	b := &members{node: n, affiliates: affiliates, subscriptions: subscriptions}
	account := service.Localpart() != ""
	if account {
		b.owners = []jid.JID{service}
	}
	for _, a := range affiliates {
		if account && a.JID.Equal(service) {
			b.own = a.Affiliation
			continue
		}
		if !account && a.Affiliation == Owner {
			b.owners = append(b.owners, a.JID)
		}
		if b.affiliations == nil {
			b.affiliations = make(map[string]Affiliation, len(affiliates))
		}
		b.affiliations[a.JID.String()] = a.Affiliation
	}
	for _, s := range subscriptions {
		if b.states == nil {
			b.states = make(map[string]State, len(subscriptions))
		}
		key := s.JID.Bare().String()
		b.states[key] = max(b.states[key], s.State)
	}
	return b
}

// standing is how a bare JID stands to the node.
func (b *members) standing(service, who jid.JID) Standing {
	var s Standing
	if b.affiliations != nil || b.states != nil {
		key := who.String()
		s = Standing{Affiliation: b.affiliations[key], Subscription: b.states[key]}
	}
	if b.own != None && who.Equal(service) {
		s.Affiliation = b.own
	}
	return s
}

// size is about what they take in memory.
func (b *members) size(key string) int {
	size := 700 + len(key) + listedSize("", []Node{b.node}) // chosen: with the entry itself and the first member
	for _, a := range b.affiliates {
		size += 200 + 2*len(a.JID.String())
	}
	for _, s := range b.subscriptions {
		size += 400 + 2*len(s.JID.String())
	}
	return size
}

// listed is a node without what its owner has written about it, which no login asks for.
func (n Node) listed() Node {
	c := &n.Config
	c.Title, c.Description, c.Type, c.Language, c.Contact, c.Groups = "", "", "", "", nil, nil
	return n
}

// listedSize is about what the nodes of an account take in memory.
func listedSize(account string, nodes []Node) int {
	size := 200 + len(account) // chosen: about what the entry itself takes
	for i := range nodes {
		size += 400 + len(nodes[i].Name) + nodes[i].Config.Texts()
	}
	return size
}

// membersKey names a node in the memory. No JID has a line break.
func membersKey(service, node string) string { return service + "\n" + node }

// members are a node with its members, from memory if they were used lately. A node that is not there has none.
func (m *Module) members(ctx context.Context, at place, name string) (*members, error) {
	key := membersKey(at.key, name)
	b, ok, gen := m.remembered.Get(key)
	if ok {
		return b, nil
	}
	n, _, err := m.store.PubSubNode(ctx, at.jid, name, at.jid)
	if errors.Is(err, ErrNoNode) {
		return newMembers(at.jid, Node{Name: name}, nil, nil), nil
	}
	if err != nil {
		return nil, err
	}
	affiliates, err := m.store.PubSubAffiliations(ctx, at.jid, name)
	if err != nil {
		return nil, err
	}
	subscriptions, err := m.store.PubSubSubscriptions(ctx, at.jid, name)
	if err != nil {
		return nil, err
	}
	b = newMembers(at.jid, n, affiliates, subscriptions)
	if size := b.size(key); size <= maxMembersOfNode {
		m.remembered.Put(key, b, size, gen)
	}
	return b, nil
}

// node is a node and how somebody stands to it, from memory if its members were used lately. The number of its items is not told.
func (m *Module) node(ctx context.Context, at place, name string, who jid.JID) (Node, Standing, error) {
	if b, ok, _ := m.remembered.Get(membersKey(at.key, name)); ok {
		return b.node, b.standing(at.jid, who.Bare()), nil
	}
	return m.store.PubSubNode(ctx, at.jid, name, who)
}

// forgetful is a store that makes the memory forget what it changes, also after an error, which may have come after the commit.
type forgetful struct {
	Store
	listings   *xmpp.Cache[[]Node]
	remembered *xmpp.Cache[*members]
	subscribed *xmpp.Cache[[]SubscribedTo]
}

// changed is called after a node has changed, or who belongs to it.
func (f forgetful) changed(service jid.JID, name string) {
	key := service.String()
	f.listings.Drop(key)
	f.remembered.Drop(membersKey(key, name))
}

func (f forgetful) CreatePubSubNode(ctx context.Context, service jid.JID, n Node) error {
	defer f.changed(service, n.Name)
	return f.Store.CreatePubSubNode(ctx, service, n)
}

func (f forgetful) ConfigurePubSubNode(ctx context.Context, service jid.JID, name string, c Config, keep int) ([]string, error) {
	defer f.changed(service, name)
	return f.Store.ConfigurePubSubNode(ctx, service, name, c, keep)
}

func (f forgetful) DeletePubSubNode(ctx context.Context, service jid.JID, name string) error {
	defer f.changed(service, name)
	return f.Store.DeletePubSubNode(ctx, service, name)
}

func (f forgetful) PublishPubSubItem(ctx context.Context, service jid.JID, name string, it Item, keep int, reject bool, since time.Time) ([]string, error) {
	defer f.listings.Drop(service.String())
	return f.Store.PublishPubSubItem(ctx, service, name, it, keep, reject, since)
}

func (f forgetful) RetractPubSubItem(ctx context.Context, service jid.JID, name, id string) (bool, error) {
	defer f.listings.Drop(service.String())
	return f.Store.RetractPubSubItem(ctx, service, name, id)
}

func (f forgetful) PurgePubSubNode(ctx context.Context, service jid.JID, name string) error {
	defer f.listings.Drop(service.String())
	return f.Store.PurgePubSubNode(ctx, service, name)
}

func (f forgetful) SetPubSubAffiliation(ctx context.Context, service jid.JID, name string, who jid.JID, a Affiliation) error {
	defer f.changed(service, name)
	return f.Store.SetPubSubAffiliation(ctx, service, name, who, a)
}

func (f forgetful) SetPubSubSubscription(ctx context.Context, service jid.JID, name string, s Subscription) error {
	defer f.changed(service, name)
	defer f.subscribed.Drop(s.JID.Bare().String())
	return f.Store.SetPubSubSubscription(ctx, service, name, s)
}
