// Package blocking implements XEP-0191: Blocking Command 1.3.
package blocking

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// The namespaces of XEP-0191 §8.1; NS is also the disco feature.
const (
	NS       = "urn:xmpp:blocking"
	NSErrors = "urn:xmpp:blocking:errors"
)

const maxCache = 32 << 20 // bytes. chosen: more than 100,000 accounts with short lists

// Contacts tells who receives an account's presence, and ends what sessions have sent to others.
type Contacts interface {
	// Subscribers are the contacts that are subscribed to the account's presence (subscription "from" or "both"), as bare JIDs.
	Subscribers(ctx context.Context, account jid.JID) ([]jid.JID, error)
	// Withdraw sends unavailable presence of the account's sessions to those who got directed presence (RFC 6121 §4.6), are no subscribers, and
	// are blocked now; entries are new in the block list.
	Withdraw(ctx context.Context, account jid.JID, entries []jid.JID, blocked func(entity jid.JID) bool)
}

// Module keeps the block lists and applies them to every stanza.
type Module struct {
	store    Store
	contacts Contacts
	cache    *xmpp.Cache[*blockList]
	server   xmpp.Server // static after Register
}

var _ xmpp.Module = (*Module)(nil)

// New makes the module. It comes before every other module that filters stanzas: blocking is the first delivery rule.
func New(store Store, contacts Contacts) *Module {
	return &Module{store: store, contacts: contacts, cache: xmpp.NewCache[*blockList](maxCache)}
}

// Protocol lists XEP-0191.
func (m *Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{{XEP: 191, Version: "1.3", Status: xmpp.Complete}}
}

// Register adds the handlers and filters.
func (m *Module) Register(r *xmpp.Registry) {
	m.server = r.Server
	r.Feature(xmpp.ToServer, NS) // XEP-0191 §3.1
	r.IQ(xmpp.ToSelf, stanza.GetIQ, NS, "blocklist", m.get)
	r.IQ(xmpp.ToSelf, stanza.SetIQ, NS, "block", m.block)
	r.IQ(xmpp.ToSelf, stanza.SetIQ, NS, "unblock", m.unblock)
	r.Outgoing(m.outgoing)
	r.Incoming(m.incoming)
	r.Keep(xmpp.Keeper{
		Name: "blocking",
		Save: func(s xmpp.Session) []byte {
			if s.Value(interested{}) == nil {
				return nil
			}
			return []byte{1}
		},
		Restore: func(_ context.Context, s xmpp.Session, _ []byte) error {
			s.SetValue(interested{}, true)
			return nil
		},
	})
}

// Blocks reports whether account has blocked peer. Nobody blocks an account's own resources (XEP-0191 §5).
func (m *Module) Blocks(ctx context.Context, account, peer jid.JID) (bool, error) {
	account = account.Bare()
	if peer.Bare().Equal(account) {
		return false, nil
	}
	l, err := m.list(ctx, account, account.String())
	return err == nil && l.blocks(peer), err
}

// Blocked returns what tells whether account has blocked a peer, by the list as it is now.
func (m *Module) Blocked(ctx context.Context, account jid.JID) (func(peer jid.JID) bool, error) {
	account = account.Bare()
	l, err := m.list(ctx, account, account.String())
	if err != nil {
		return nil, err
	}
	return func(peer jid.JID) bool { return l.blocks(peer) && !peer.Bare().Equal(account) }, nil
}

// Forget drops what is remembered of an account. Call it after the account's data were deleted: until then stanzas may read them again.
func (m *Module) Forget(account jid.JID) { m.cache.Drop(account.Bare().String()) }

// list is the account's block list, from memory if it was used lately. key is the account as a string.
func (m *Module) list(ctx context.Context, account jid.JID, key string) (*blockList, error) {
	l, ok, gen := m.cache.Get(key)
	if ok {
		return l, nil
	}
	entries, err := m.store.Blocked(ctx, account)
	if err != nil {
		return nil, fmt.Errorf("load block list of %s: %w", key, err)
	}
	l = newList(entries)
	m.cache.Put(key, l, l.size, gen)
	return l, nil
}

// interested marks a session that has asked for the block list.
type interested struct{}

// get: XEP-0191 §3.2.
func (m *Module) get(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	account := s.From.Bare()
	// Before the list is read, so that no change falls between the answer and the first push.
	for _, session := range m.server.Sessions(account) {
		if session.JID().Equal(s.From) {
			session.SetValue(interested{}, true)
		}
	}
	l, err := m.list(ctx, account, account.String())
	if err != nil {
		return nil, err
	}
	return xmpp.El(NS, "blocklist").Add(items(l.entries)...), nil
}

// block: XEP-0191 §3.3.
func (m *Module) block(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	entries, err := read(s)
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, xmpp.ErrBadRequest
	}
	for _, e := range entries {
		if vital(s.From, e) {
			return nil, errVital
		}
	}
	return m.change(ctx, s, entries, m.store.Block, func(before *blockList) []jid.JID {
		return append(before.entries[:len(before.entries):len(before.entries)], entries...)
	})
}

// errVital refuses a block that the account would suffer from itself, or that would do nothing.
var errVital = xmpp.Fail(stanza.Cancel, stanza.NotAllowed, "Your own account and its server cannot be blocked.")

// vital reports whether an entry names from's own account or its server. XEP-0191 says nothing of the server: its answers would be dropped
// like a stranger's, so that the client waits for them in vain. An entry for the own account has no effect (§5), and clients would show that it had.
// Another domain is like any other, whether it is served here or not.
func vital(from, entry jid.JID) bool {
	return entry.Bare().Equal(from.Bare()) || entry.Equal(from.Domain())
}

// unblock: XEP-0191 §3.4, and without items §3.5, everybody.
func (m *Module) unblock(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	entries, err := read(s)
	if err != nil {
		return nil, err
	}
	return m.change(ctx, s, entries, m.store.Unblock, func(before *blockList) (left []jid.JID) {
		gone := newList(entries)
		for _, e := range before.entries {
			if len(entries) > 0 && !gone.has(e) {
				left = append(left, e)
			}
		}
		return left
	})
}

// change writes a change of the list, answers the request, pushes the change and shows it in presence.
func (m *Module) change(ctx context.Context, s *xmpp.Stanza, entries []jid.JID,
	write func(context.Context, jid.JID, []jid.JID) error, after func(*blockList) []jid.JID) (*xmpp.Element, error) {
	account := s.From.Bare()
	before, err := m.list(ctx, account, account.String())
	if err != nil {
		return nil, err
	}
	presence, contacts, err := m.audience(ctx, account)
	if err != nil {
		return nil, err
	}
	err = write(ctx, account, entries)
	m.Forget(account) // also after an error, which may have come after the commit
	if errors.Is(err, ErrFull) {
		return nil, xmpp.ErrResourceConstraint
	}
	if err != nil {
		return nil, err
	}
	m.server.Route(ctx, s.Result(nil))
	m.push(ctx, s, entries)
	now := newList(after(before))
	m.show(ctx, presence, contacts, before, now)
	if added := now.without(before); len(added) > 0 {
		m.contacts.Withdraw(ctx, account, added, now.blocks) // XEP-0191 §3.3: unavailable presence to whoever the session has shown itself
	}
	return nil, xmpp.ErrDrop // answered above, before the pushes as in XEP-0191's examples
}

// push: XEP-0191 §3.3 to §3.5, to all resources that have asked for the list.
func (m *Module) push(ctx context.Context, s *xmpp.Stanza, entries []jid.JID) {
	p, _ := s.Payload()
	for _, session := range m.server.Sessions(s.From.Bare()) {
		if session.Value(interested{}) == nil {
			continue
		}
		push := xmpp.New(xmpp.IQ, "set", session.JID(), s.From.Bare(), xmpp.El(NS, p.Local).Add(items(entries)...))
		push.ID = rand.Text()
		m.server.Route(ctx, push)
	}
}

func items(entries []jid.JID) []*xmpp.Element {
	list := make([]*xmpp.Element, len(entries))
	for i, e := range entries {
		list[i] = xmpp.El("", "item", "jid", e.String())
	}
	return list
}

// read returns the entries of a <block/> or <unblock/>, each once.
func read(s *xmpp.Stanza) ([]jid.JID, error) {
	var request struct {
		Items []struct {
			JID *string `xml:"jid,attr"`
		} `xml:"urn:xmpp:blocking item"`
		Others []struct{} `xml:",any"`
	}
	p, _ := s.Payload()
	// An <unblock/> with something else inside is not the empty one that unblocks everybody.
	if p.Decode(&request) != nil || len(request.Items) == 0 && len(request.Others) > 0 {
		return nil, xmpp.ErrBadRequest
	}
	seen := make(map[string]bool, len(request.Items))
	var entries []jid.JID
	for _, i := range request.Items {
		if i.JID == nil {
			return nil, xmpp.ErrBadRequest
		}
		j, err := jid.Parse(*i.JID)
		if err != nil {
			return nil, xmpp.ErrJIDMalformed
		}
		if key := j.String(); !seen[key] {
			seen[key] = true
			entries = append(entries, j)
		}
	}
	return entries, nil
}
