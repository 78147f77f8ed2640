// Package roster implements RFC 6121 §2 to §4 and Appendix A: the roster, presence subscriptions and presence.
//
// The subscription states are a pure table (states.go); item.go and iq.go are the roster as clients read and write it, push.go tells them
// of changes, subscription.go carries out what a subscription stanza means, presence.go and probe.go are broadcast presence and probes,
// directed.go remembers who got directed presence, and cache.go keeps the subscriptions of accounts that are online, and rosters that were read a short while ago.
package roster

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// Namespaces.
const (
	NS            = "jabber:iq:roster"               // RFC 6121 §2.1
	NSVersion     = "urn:xmpp:features:rosterver"    // RFC 6121 §2.6.1
	NSPreApproval = "urn:xmpp:features:pre-approval" // RFC 6121 §3.4
)

// Config bounds what a client can make the module hold and send. How many items and requests a roster has is the Store's to bound.
type Config struct {
	Name     int // bytes of the longest name of an item (RFC 6121 §2.3.3)
	Group    int // bytes of the longest name of a group (RFC 6121 §2.3.3)
	Groups   int // groups of one item
	Request  int // bytes of a subscription request that is kept whole, at most what the Store takes; of a larger one only the addresses are (RFC 6121 §3.1.3)
	Directed int // entities that one session may have sent directed presence to at a time (RFC 6121 §4.6.1)
}

// DefaultConfig returns the limits of a server that nobody configured.
func DefaultConfig() Config {
	return Config{
		Name:     1023,    // chosen: the length of a JID's longest part
		Group:    1023,    // the same
		Groups:   64,      // chosen: people use a handful
		Request:  8 << 10, // chosen: a nickname, a caps hash and a long status fit
		Directed: 1000,    // chosen: every room that a person could join in one session
	}
}

// Blocking tells who is blocked (XEP-0191). The module asks it where the server sends an owner's presence by itself; what sessions send
// and receive passes the filters of the blocking module.
type Blocking interface {
	// Blocks reports whether owner, a bare JID, has blocked contact: the bare JID of a contact, or whom a session sent directed presence.
	Blocks(ctx context.Context, owner, contact jid.JID) (bool, error)
}

// Last tells when an account was online last (XEP-0012).
type Last interface {
	// LastActivity returns the time and the status of the account's last unavailable presence; the zero time when there is none.
	LastActivity(ctx context.Context, account jid.JID) (at time.Time, status string, err error)
}

// Module keeps rosters and handles presence. Its methods may be called from any goroutine once it is registered.
//
// It must be registered after the module that blocks stanzas: a subscription stanza ends in its filters, and what a filter before it
// stops changes no subscription.
type Module struct {
	// Static after Register, UseBlocking, UseLast and UseShown.
	cfg      Config
	store    Store
	log      *slog.Logger
	srv      xmpp.Server
	blocking Blocking // nil: nobody is blocked
	last     Last     // nil: not known
	shown    func(ctx context.Context, owner, contact jid.JID)
	read     *xmpp.Cache[whole] // bytes

	mu       sync.RWMutex
	accounts map[string]*account // guarded by mu, by bare JID: those with sessions, and those whose roster is being changed
}

var _ xmpp.Module = (*Module)(nil)

// New makes the module.
func New(cfg Config, store Store, log *slog.Logger) *Module {
	return &Module{cfg: cfg, store: store, log: log, read: xmpp.NewCache[whole](maxCache), accounts: make(map[string]*account)}
}

// UseBlocking tells the module who knows the block lists; before the first stanza.
func (m *Module) UseBlocking(b Blocking) { m.blocking = b }

// UseLast tells the module who knows when an offline account was online last; before the first stanza.
func (m *Module) UseLast(l Last) { m.last = l }

// UseShown makes f hear of every contact who has become subscribed to an owner's presence, after that was sent; before the first stanza. Both are bare
// JIDs, and the owner does not block the contact.
func (m *Module) UseShown(f func(ctx context.Context, owner, contact jid.JID)) { m.shown = f }

// Protocol lists what the module implements.
func (m *Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{
		{RFC: 6121, Status: xmpp.Complete, Note: "§2 to §4 and Appendix A; the delivery rules of §8 are the router's"},
		{XEP: 237, Version: "1.3", Status: xmpp.Complete, Note: "as it is in RFC 6121 §2.6"},
	}
}

// Register adds the module's handlers, filters, hooks and features.
func (m *Module) Register(r *xmpp.Registry) {
	m.srv = r.Server
	r.Feature(xmpp.ToServer, NS)
	r.IQ(xmpp.ToSelf, stanza.GetIQ, NS, "query", m.get)
	r.IQ(xmpp.ToSelf, stanza.SetIQ, NS, "query", m.set)
	r.Outgoing(m.outgoing)
	r.Incoming(m.incoming)
	r.Presence(m.presence)
	r.Bound(m.bound)
	r.Ended(m.ended)
	r.Deleted(m.deleted)
	r.Keep(xmpp.Keeper{Name: "roster", Save: m.save, Restore: m.restore})
	r.StreamFeature(func(string) *xmpp.Element { return xmpp.El(NSVersion, "ver") })     // RFC 6121 §2.6.1
	r.StreamFeature(func(string) *xmpp.Element { return xmpp.El(NSPreApproval, "sub") }) // RFC 6121 §3.4
}

// outgoing sees every stanza of a local session before it is routed.
func (m *Module) outgoing(ctx context.Context, o *xmpp.Outgoing) error {
	switch o.Stanza.Kind {
	case xmpp.IQ:
		return m.mayAsk(o)
	case xmpp.Presence:
		return m.sent(ctx, o)
	}
	return nil
}

// sent handles a presence stanza of a local session by its type (RFC 6121 §4.7.1).
func (m *Module) sent(ctx context.Context, o *xmpp.Outgoing) error {
	s := o.Stanza
	broadcast := s.To.Equal(jid.JID{})
	switch s.Type {
	case "", "unavailable":
		if err := checkPresence(s); err != nil {
			return err
		}
		if !broadcast {
			return m.direct(ctx, o)
		}
		if r := resourceOf(o.Sender); r != nil {
			// Before the router shows the presence: when the roster cannot be read the client gets an error and stays as it was.
			return m.load(ctx, r.account)
		}
		return nil
	case "subscribe", "unsubscribe", "subscribed", "unsubscribed":
		if broadcast {
			return xmpp.ErrBadRequest // RFC 6121 §3.1.1: directed at a contact
		}
		return m.outbound(ctx, o)
	case "probe", "error":
		if broadcast {
			return xmpp.ErrDrop // RFC 6121 §4.3: a probe of a client is no cause for an error
		}
		return nil
	}
	return xmpp.ErrBadRequest // RFC 6121 §4.7.1
}

// incoming sees every stanza to an existing local account.
func (m *Module) incoming(ctx context.Context, d *xmpp.Delivery) error {
	s := d.Stanza
	switch s.Kind {
	case xmpp.IQ:
		if err := refusePush(d); err != nil {
			return err
		}
		return m.refuseStranger(ctx, d)
	case xmpp.Presence:
		switch s.Type {
		case "", "error":
			return nil
		case "unavailable":
			m.forget(d)
			return nil
		case "subscribe", "unsubscribe", "subscribed", "unsubscribed":
			return m.inbound(ctx, d)
		case "probe":
			return m.probed(ctx, d)
		}
		// RFC 6121 §4.7.1 lets the recipient answer bad-request. What our own clients send was answered on its way out; from elsewhere the
		// answer would tell that the account exists.
		return xmpp.ErrDrop
	}
	return nil
}

// Subscribed reports the two directions of the subscription in owner's roster: to, owner receives contact's presence; from, contact
// receives owner's. Only the bare JIDs count. An account is subscribed to itself (RFC 6121 §4.2.2). For an account that is online it
// does not touch the database.
func (m *Module) Subscribed(ctx context.Context, owner, contact jid.JID) (to, from bool, err error) {
	owner, contact = owner.Bare(), contact.Bare()
	if owner.Equal(contact) {
		return true, true, nil
	}
	s, _, err := m.state(ctx, owner, contact)
	p := partsOf[s]
	return p.to, p.from, err
}

// Listed reports whether contact is in the roster that owner's clients see. Only the bare JIDs count.
func (m *Module) Listed(ctx context.Context, owner, contact jid.JID) (bool, error) {
	_, listed, err := m.state(ctx, owner.Bare(), contact.Bare())
	return listed, err
}

// Subscribers are the contacts that receive the account's presence (subscription "from" or "both"), as bare JIDs. For an account that is
// online it does not touch the database.
func (m *Module) Subscribers(ctx context.Context, account jid.JID) ([]jid.JID, error) {
	account = account.Bare()
	if a := m.online(account); a != nil {
		err := m.load(ctx, a)
		return slices.Clone(a.subscribed()), err
	}
	items, _, err := m.roster(ctx, account)
	if err != nil {
		return nil, err
	}
	var list []jid.JID
	for _, it := range items {
		if it.From {
			list = append(list, it.Contact)
		}
	}
	return list, nil
}

// Subscriptions are the contacts whose presence the account receives (subscription "to" or "both"), as bare JIDs. For an account that is
// online it does not touch the database.
func (m *Module) Subscriptions(ctx context.Context, account jid.JID) ([]jid.JID, error) {
	account = account.Bare()
	if a := m.online(account); a != nil {
		err := m.load(ctx, a)
		return a.where(func(p parts) bool { return p.to }), err
	}
	items, _, err := m.roster(ctx, account)
	if err != nil {
		return nil, err
	}
	var list []jid.JID
	for _, it := range items {
		if it.To {
			list = append(list, it.Contact)
		}
	}
	return list, nil
}

// Groups are the groups of contact in owner's roster (RFC 6121 §2.1.2.5).
func (m *Module) Groups(ctx context.Context, owner, contact jid.JID) ([]string, error) {
	it, found, err := m.store.RosterItem(ctx, owner.Bare(), contact.Bare())
	if err != nil || !found || !it.Listed {
		return nil, err
	}
	return it.Groups, nil
}

// state is the subscription state between owner and contact, bare JIDs, and whether the contact is in the roster that clients see.
func (m *Module) state(ctx context.Context, owner, contact jid.JID) (s State, listed bool, err error) {
	if a := m.online(owner); a != nil {
		err := m.load(ctx, a)
		if err != nil {
			return None, false, err
		}
		c := a.contact(contact.String())
		return c.state, c.listed, nil
	}
	it, found, err := m.store.RosterItem(ctx, owner, contact)
	if err != nil || !found {
		return None, false, err
	}
	return it.State(), it.Listed, nil
}

// blocks reports whether owner has blocked contact. When that cannot be found out, presence stays at home.
func (m *Module) blocks(ctx context.Context, owner, contact jid.JID) bool {
	if m.blocking == nil {
		return false
	}
	b, err := m.blocking.Blocks(ctx, owner, contact)
	if err != nil {
		m.log.Error("look up block list", "err", err)
		return true
	}
	return b
}

// refusal is what a client is told of an error of the store.
func refusal(err error) error {
	if errors.Is(err, ErrFull) {
		return xmpp.ErrResourceConstraint
	}
	return err
}
