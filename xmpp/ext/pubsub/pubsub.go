// Package pubsub implements XEP-0060: Publish-Subscribe 1.30.0 with two faces: the service LABEL.DOMAIN beside every domain, and XEP-0163:
// Personal Eventing Protocol 1.2.2 on the bare JID of every account.
//
// The words of XEP-0060 name the files: publisher.go, subscriber.go and owner.go are its use cases, permission.go is who may do what, as one pure
// table, config.go and options.go are the forms, notify.go sends events. interest.go knows from entity capabilities which resource wants which
// node (XEP-0060 §9.2), login.go sends last items to a resource that comes, and profile.go keeps well-known nodes right.
package pubsub

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// The namespaces of XEP-0060 §16.1; NS is also the beginning of the disco features.
const (
	NS       = "http://jabber.org/protocol/pubsub"
	NSErrors = NS + "#errors"
	NSEvent  = NS + "#event"
	NSOwner  = NS + "#owner"
)

const (
	label     = "pubsub" // of the service's domain
	unbounded = 1 << 30  // items: the bounds of the store count
	maxName   = 1024     // bytes of the name of a node or an item. chosen: like a part of a JID, to which URIs and hashes come
)

// What is sent must not be larger than a stanza may be that another server takes, which else ends the stream. chosen: 256 KiB, our own bound. The
// envelope of what is listed, or of one item, are JIDs (RFC 7622 §3.1) and up to four names, each six times as long where all of it is escaped.
const (
	maxStanza   = 256 << 10
	maxEnvelope = 40 << 10
	maxAnswer   = maxStanza - maxEnvelope // bytes of what is listed
	maxPayload  = maxAnswer               // bytes of an item's payload: what was published can be sent
)

// Relations tells how entities stand to accounts.
type Relations interface {
	// Subscribed reports the two directions of the subscription in owner's roster: to, owner receives contact's presence; from, contact receives
	// owner's. An account is subscribed to itself.
	Subscribed(ctx context.Context, owner, contact jid.JID) (to, from bool, err error)
	// Subscribers are the contacts that receive the account's presence, as bare JIDs.
	Subscribers(ctx context.Context, account jid.JID) ([]jid.JID, error)
	// Subscriptions are the contacts whose presence the account receives, as bare JIDs.
	Subscriptions(ctx context.Context, account jid.JID) ([]jid.JID, error)
	// Groups are the groups of contact in owner's roster.
	Groups(ctx context.Context, owner, contact jid.JID) ([]string, error)
}

// Blocking tells who is blocked (XEP-0191).
type Blocking interface {
	// Blocks reports whether owner, a bare JID, has blocked contact.
	Blocks(ctx context.Context, owner, contact jid.JID) (bool, error)
	// Blocked returns what tells that of one contact after the other, as it is at the time of the call.
	Blocked(ctx context.Context, owner jid.JID) (func(contact jid.JID) bool, error)
}

// Module is the engine and its two faces. Its methods may be called from any goroutine once it is registered.
//
// It must be registered after the modules that block stanzas and that handle presence.
type Module struct {
	// Static after Register and Watch.
	store     Store
	relations Relations
	blocking  Blocking
	log       *slog.Logger
	srv       xmpp.Server
	watchers  map[string][]func(context.Context, Change)
	absent    map[string]func(context.Context, jid.JID)
	doomed    map[string]func(context.Context, jid.JID) error

	queues     queues
	listings   *xmpp.Cache[[]Node]         // of accounts; bytes
	remembered *xmpp.Cache[*members]       // by membersKey; bytes
	subscribed *xmpp.Cache[[]SubscribedTo] // by bare JID; bytes
	interests  sync.Mutex                  // held while the interest of a session here is compared and set
	resources  remotes
	caps       *xmpp.Cache[map[string]struct{}] // what verified capabilities are interested in
	asking     asking
}

var _ xmpp.Module = (*Module)(nil)

// New makes the module. Whoever starts the server calls Run.
func New(store Store, relations Relations, blocking Blocking, log *slog.Logger) *Module {
	m := &Module{relations: relations, blocking: blocking, log: log, watchers: make(map[string][]func(context.Context, Change)), absent: make(map[string]func(context.Context, jid.JID)), doomed: make(map[string]func(context.Context, jid.JID) error),
		listings: xmpp.NewCache[[]Node](maxListings), remembered: xmpp.NewCache[*members](maxMembers),
		subscribed: xmpp.NewCache[[]SubscribedTo](maxSubscribed), caps: xmpp.NewCache[map[string]struct{}](maxCaps)}
	m.store = forgetful{store, m.listings, m.remembered, m.subscribed}
	m.resources.init()
	m.asking.init()
	return m
}

// Run lets the module ask clients for their capabilities until ctx ends, and returns when nothing that it has begun is under way any more.
func (m *Module) Run(ctx context.Context) {
	<-ctx.Done()
	m.asking.close()
}

// Protocol lists what the module implements.
func (m *Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{
		{XEP: 60, Version: "1.30.0", Status: xmpp.Partial, Note: "leaf nodes; no collections, leases, digests and several subscriptions of one JID. The payload's namespace is not compared with pubsub#type, which is used for other things"},
		{XEP: 163, Version: "1.2.2", Status: xmpp.Complete},
		{XEP: 222, Version: "1.0", Status: xmpp.Complete},
		{XEP: 223, Version: "1.1.1", Status: xmpp.Complete},
		{XEP: 80, Version: "1.10.0", Status: xmpp.Complete, Note: "as any node"},
		{XEP: 107, Version: "1.2.2", Status: xmpp.Complete, Note: "as any node"},
		{XEP: 108, Version: "1.3", Status: xmpp.Complete, Note: "as any node"},
		{XEP: 118, Version: "1.3.0", Status: xmpp.Complete, Note: "as any node"},
		{XEP: 172, Version: "1.1", Status: xmpp.Complete, Note: "as any node"},
		{XEP: 84, Version: "1.1.4", Status: xmpp.Complete, Note: "the two nodes are kept equally accessible"},
		{XEP: 384, Version: "0.9.1", Status: xmpp.Complete, Note: "what it needs of the server, for the namespaces of 0.3 and 0.9: open nodes of the right size"},
		{XEP: 490, Version: "1.0.1", Status: xmpp.Complete, Note: "the node; no server assistance"},
		{XEP: 390, Version: "0.3.2", Status: xmpp.Partial, Note: "those of clients are read; the server announces XEP-0115 only"},
		{XEP: 59, Version: "1.0", Status: xmpp.Complete, Note: "items of nodes"},
	}
}

// features are the names of XEP-0060 §10 that both faces have.
var features = []string{
	"access-authorize", "access-open", "access-presence", "access-roster", "access-whitelist", "config-node", "config-node-max", "create-and-configure",
	"create-nodes", "delete-items", "delete-nodes", "instant-nodes", "item-ids", "manage-subscriptions", "member-affiliation",
	"meta-data", "modify-affiliations", "multi-items", "outcast-affiliation", "persistent-items", "presence-notifications", "publish",
	"publish-only-affiliation", "publish-options", "publisher-affiliation", "purge-nodes", "retract-items", "retrieve-affiliations", "retrieve-default",
	"retrieve-default-sub", "retrieve-items", "retrieve-subscriptions", "rsm", "subscribe", "subscription-notifications", "subscription-options",
}

// pepFeatures are those that an account has beside them: XEP-0163 §6.1.
var pepFeatures = []string{"auto-create", "auto-subscribe", "filtered-notifications"}

// Register adds the handlers of both faces.
func (m *Module) Register(r *xmpp.Registry) {
	m.srv = r.Server
	host := r.Host(label)
	host.Identity(xmpp.Identity{Category: "pubsub", Type: "service", Name: "Publish-Subscribe"}) // XEP-0060 §5.1
	r.Identity(xmpp.ToContact, xmpp.Identity{Category: "pubsub", Type: "pep"})                   // XEP-0163 §6.1
	host.Feature(NS)
	r.Feature(xmpp.ToContact, NS)
	for _, f := range features {
		host.Feature(NS + "#" + f)
		r.Feature(xmpp.ToContact, NS+"#"+f)
	}
	r.Feature(xmpp.ToContact, NS+"#last-published") // XEP-0060 §4.3: only where nodes send their last item unless they are configured otherwise
	for _, f := range pepFeatures {
		r.Feature(xmpp.ToContact, NS+"#"+f)
		// Profanity looks for publish-options on the domain, and others for the whole of PEP there, as an earlier XEP-0163 had it.
		r.Feature(xmpp.ToServer, NS+"#"+f)
	}
	r.Feature(xmpp.ToServer, NS+"#publish-options")
	for _, typ := range []stanza.IQType{stanza.GetIQ, stanza.SetIQ} {
		for _, ns := range []string{NS, NSOwner} {
			host.IQ(typ, ns, "pubsub", m.request)
			r.IQ(xmpp.ToAccount, typ, ns, "pubsub", m.request)
		}
	}
	host.IQ(stanza.GetIQ, nsInfo, "query", m.serviceInfo)
	host.IQ(stanza.GetIQ, nsItems, "query", m.serviceItems)
	host.Handle(m.serviceMessage)
	r.Incoming(m.incoming)
	r.Presence(m.presence)
	r.Keep(xmpp.Keeper{Name: "pubsub", Save: m.keep, Restore: m.restore})
	r.Deleted(func(_ context.Context, account jid.JID) { m.Forget(account) })
}

// Store is the store for who changes nodes and who belongs to them behind the module: what is remembered of them is dropped with each change.
func (m *Module) Store() Store { return m.store }

// Gone drops what is remembered of an account that was deleted, also of what it had at the nodes of others: whoever gets that name must not find it there.
// Call it after its data are gone. It is rare, and who belongs to which nodes is in the database alone: the memory begins anew.
func (m *Module) Gone(account jid.JID) {
	m.Forget(account)
	m.remembered.DropAll("")
}

// Forget drops what is remembered of an account and its nodes.
func (m *Module) Forget(account jid.JID) {
	key := account.Bare().String()
	m.listings.Drop(key)
	m.remembered.DropAll(membersKey(key, ""))
	m.subscribed.Drop(key)
	m.resources.forget(key)
}

// place is a service: an account's bare JID, or the domain of a pubsub service.
type place struct {
	jid    jid.JID
	key    string // of jid
	domain string // the served domain that it is or stands beside
}

// account reports whether the place is an account's.
func (p place) account() bool { return p.jid.Localpart() != "" }

func (m *Module) placeOf(to jid.JID) place {
	p := place{jid: to.Bare(), domain: to.Domainpart()}
	if _, domain, ok := m.srv.HostAt(p.domain); ok {
		p.jid, p.domain = to.Domain(), domain
	}
	p.key = p.jid.String()
	return p
}

// request is one request while it is handled.
type request struct {
	stanza *xmpp.Stanza
	at     place
	who    jid.JID // who asks, with its resource
	root   *xmpp.Element
	el     *xmpp.Element // what is asked: the first child of <pubsub/> that is a use case

	known bool // that the account exists is no secret to who asks
}

// second is another child of <pubsub/>.
func (r *request) second(local string) *xmpp.Element { return child(r.root, r.root.Space, local) }

// node is the node that a request names.
func (r *request) node() (string, error) {
	name := r.el.Attr("node")
	switch {
	case name == "":
		return "", errNodeRequired
	case len(name) > maxName:
		return "", xmpp.ErrNotAcceptable
	}
	return name, nil
}

// handlers are the use cases by namespace, type and element.
var handlers = map[[3]string]func(*Module, context.Context, *request) (*xmpp.Element, error){
	{NS, "set", "publish"}:       (*Module).publish,
	{NS, "set", "retract"}:       (*Module).retract,
	{NS, "get", "items"}:         (*Module).items,
	{NS, "set", "subscribe"}:     (*Module).subscribe,
	{NS, "set", "unsubscribe"}:   (*Module).unsubscribe,
	{NS, "get", "options"}:       (*Module).options,
	{NS, "set", "options"}:       (*Module).setOptions,
	{NS, "get", "default"}:       (*Module).defaultOptions,
	{NS, "get", "subscriptions"}: (*Module).subscriptions,
	{NS, "get", "affiliations"}:  (*Module).affiliations,
	{NS, "set", "create"}:        (*Module).create,

	{NSOwner, "get", "configure"}:     (*Module).configuration,
	{NSOwner, "set", "configure"}:     (*Module).configure,
	{NSOwner, "get", "default"}:       (*Module).defaultConfig,
	{NSOwner, "set", "delete"}:        (*Module).deleteNode,
	{NSOwner, "set", "purge"}:         (*Module).purge,
	{NSOwner, "get", "affiliations"}:  (*Module).nodeAffiliations,
	{NSOwner, "set", "affiliations"}:  (*Module).setAffiliations,
	{NSOwner, "get", "subscriptions"}: (*Module).nodeSubscriptions,
	{NSOwner, "set", "subscriptions"}: (*Module).setSubscriptions,
}

// request answers a <pubsub/>. Who is a stranger to an account, and got nothing from it that everybody may have, is answered as if there were no
// account: docs/decisions/0013-strangers-and-nodes.md.
func (m *Module) request(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	r := &request{stanza: s, at: m.placeOf(s.To), who: s.From}
	if !r.at.account() && !s.To.Equal(r.at.jid) {
		return nil, xmpp.ErrServiceUnavailable // a service is its domain
	}
	if err := m.acquaint(ctx, r); err != nil {
		return nil, err
	}
	el, err := m.handle(ctx, r, s)
	if err == nil {
		return el, nil
	}
	if err = storeError(err); !r.known && !errors.Is(err, xmpp.ErrDrop) {
		if _, expected := xmpp.AsStanzaError(err); expected {
			err = xmpp.ErrServiceUnavailable
		}
	}
	return nil, err
}

// acquaint finds out whether who asks may know that the account exists.
func (m *Module) acquaint(ctx context.Context, r *request) error {
	if !r.at.account() || r.who.Bare().Equal(r.at.jid) {
		r.known = true
		return nil
	}
	_, from, err := m.relations.Subscribed(ctx, r.at.jid, r.who.Bare())
	r.known = from
	return err
}

func (m *Module) handle(ctx context.Context, r *request, s *xmpp.Stanza) (*xmpp.Element, error) {
	p, _ := s.Payload()
	root, err := p.Element()
	if err != nil {
		return nil, xmpp.ErrBadRequest
	}
	r.root = root
	for _, c := range root.Children {
		if c.Local == "" || c.Space != root.Space {
			continue // white space, or what goes with the use case: XEP-0059's <set/>, XEP-0413's <order/>
		}
		if h := handlers[[3]string{root.Space, s.Type, c.Local}]; h != nil {
			r.el = c
			return h(m, ctx, r)
		}
	}
	for _, c := range root.Children {
		if c.Local != "" && c.Space == root.Space {
			return nil, xmpp.ErrFeatureNotImpl
		}
	}
	return nil, xmpp.ErrBadRequest
}

// found is a node with what is known of who asks.
type found struct {
	Node
	Standing
	relation Relation
}

// look finds a node and how who stands to it. The caller has not the turn of the service: a node that must be put right is put right in a turn of
// its own.
func (m *Module) look(ctx context.Context, at place, name string, who jid.JID) (found, error) {
	f, wrong, err := m.find(ctx, at, name, who)
	if err == nil && wrong {
		err = m.queues.do(ctx, at.key, func() (func(context.Context), error) {
			f, err = m.load(ctx, at, name, who)
			return nil, err
		})
	}
	return f, err
}

// load is look for a caller that has the turn of the service.
func (m *Module) load(ctx context.Context, at place, name string, who jid.JID) (found, error) {
	f, wrong, err := m.find(ctx, at, name, who)
	if err == nil && wrong {
		if _, err = m.store.ConfigurePubSubNode(ctx, at.jid, name, f.Config, keepOf(f.Config)); err == nil {
			m.log.Info("node had a wrong configuration", "account", at.key, "node", name)
		}
	}
	return f, err
}

// find reads a node as it has to be; wrong reports that it is not stored so.
func (m *Module) find(ctx context.Context, at place, name string, who jid.JID) (f found, wrong bool, err error) {
	if f.Node, f.Standing, err = m.node(ctx, at, name, who); err != nil {
		return f, false, err
	}
	wrong = at.account() && profileOf(name).repair(&f.Config)
	if !at.account() && m.srv.IsAdmin(who.Bare(), at.domain) {
		f.Affiliation = Owner
	}
	f.relation, err = m.relation(ctx, at, f, who.Bare())
	return f, wrong, err
}

// relation is what the access model asks about an entity. It is not looked up where it does not count.
func (m *Module) relation(ctx context.Context, at place, f found, who jid.JID) (r Relation, err error) {
	owners := []jid.JID{at.jid}
	if !at.account() && f.asksRoster() {
		if owners, err = m.owners(ctx, at, f.Name); err != nil {
			return r, err
		}
	}
	return m.relationTo(ctx, owners, f, who)
}

// asksRoster reports whether the rosters of the owners count for an entity.
func (f found) asksRoster() bool {
	return f.Affiliation == None && (f.Config.Access == Presence || f.Config.Access == Roster)
}

func (m *Module) relationTo(ctx context.Context, owners []jid.JID, f found, who jid.JID) (r Relation, err error) {
	r.Subscribed = f.Subscription == Subscribed
	if !f.asksRoster() {
		return r, nil
	}
	for _, owner := range owners {
		if !m.srv.Serves(owner.Domainpart()) {
			continue // its roster is elsewhere
		}
		_, from, err := m.relations.Subscribed(ctx, owner, who)
		if err != nil {
			return r, err
		}
		if !from {
			continue
		}
		r.Presence = true
		if f.Config.Access == Roster && !r.Group {
			groups, err := m.relations.Groups(ctx, owner, who)
			if err != nil {
				return r, err
			}
			r.Group = overlap(groups, f.Config.Groups)
		}
	}
	return r, nil
}

func overlap(a, b []string) bool {
	for _, x := range a {
		for _, y := range b {
			if x == y {
				return true
			}
		}
	}
	return false
}

// owners are the bare JIDs of a node's owners.
func (m *Module) owners(ctx context.Context, at place, name string) (list []jid.JID, err error) {
	all, err := m.store.PubSubAffiliations(ctx, at.jid, name)
	for _, a := range all {
		if a.Affiliation == Owner {
			list = append(list, a.JID)
		}
	}
	return list, err
}

// decide is the verdict for who asks.
func (f found) decide(do Action) verdict {
	return decide(f.Affiliation, f.relation, f.Config.Access, f.Config.PublishModel, do)
}

// may is nil when who asks may do it. What everybody may, or who has a place at the node, is no secret.
func (f found) may(r *request, do Action) (verdict, error) {
	v := f.decide(do)
	if v == allowed || v == pending || f.Affiliation != None || f.Subscription != Unsubscribed {
		r.known = true
	}
	return v, v.refusal()
}

// keepOf is how many items a node keeps.
func keepOf(c Config) int {
	switch {
	case !c.Persist:
		return 0
	case c.MaxItems == MaxItems:
		return unbounded
	}
	return c.MaxItems
}
