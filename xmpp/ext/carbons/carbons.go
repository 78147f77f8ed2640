// Package carbons implements XEP-0280: Message Carbons 1.0.1.
//
// A message that a session sends or receives is copied to the account's other sessions that have enabled that. What is received is copied in the
// delivery itself: each copy is a target beside those that RFC 6121 §8.5 chose, so it keeps the order of messages, and the message counts as
// delivered while one of them has it. What ends with a session unread is never a copy again: the message itself goes on when nobody else has it.
package carbons

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

const (
	NS      = "urn:xmpp:carbons:2"       // XEP-0280 §11.1
	NSRules = "urn:xmpp:carbons:rules:0" // XEP-0280 §6.2
)

// Order keeps copies behind older messages.
type Order interface {
	// Behind returns what takes copies for a session, so that they do not overtake older messages that are still on their way to it.
	Behind(s xmpp.Session) xmpp.Target
}

// Rooms tells which rooms a session is in.
type Rooms interface {
	// Directed are the addresses with that bare JID to which the session has sent directed presence: in a room, the occupant that it is.
	Directed(s xmpp.Session, bare jid.JID) []jid.JID
}

// Module copies messages. Its methods may be called from any goroutine.
type Module struct {
	// Static after Register.
	order  Order
	rooms  Rooms
	server xmpp.Server
	seed   maphash.Seed

	copied memory // messages whose errors are copied too

	mu       sync.Mutex
	accounts map[string]*account // by bare JID, those with sessions; guarded by mu
}

var _ xmpp.Module = (*Module)(nil)

// New makes the module. It comes behind every other module that filters messages: what is copied passes all of them first. Guard has to come before
// those that keep messages.
func New(order Order, rooms Rooms) *Module {
	return &Module{order: order, rooms: rooms, seed: maphash.MakeSeed(), accounts: make(map[string]*account)}
}

// Protocol lists XEP-0280.
func (m *Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{{XEP: 280, Version: "1.0.1", Status: xmpp.Complete}}
}

// Register adds the handlers, filters and hooks.
func (m *Module) Register(r *xmpp.Registry) {
	m.server = r.Server
	r.Feature(xmpp.ToServer, NS, NSRules) // XEP-0280 §3, §6.2
	r.IQ(xmpp.ToSelf, stanza.SetIQ, NS, "enable", m.switcher(true))
	r.IQ(xmpp.ToSelf, stanza.SetIQ, NS, "disable", m.switcher(false))
	r.Outgoing(m.outgoing)
	r.Incoming(m.incoming)
	r.Bound(m.bound)
	r.Ended(m.ended)
	r.BindFeature(xmpp.BindFeature{Name: NS, Space: NS, Local: "enable", Bind: func(_ context.Context, s xmpp.Session, request *xmpp.Element) *xmpp.Element {
		if request != nil {
			set(s, true)
		}
		return nil // XEP-0386 §2.2: "no response is necessary"
	}})
	r.Keep(xmpp.Keeper{
		Name: "carbons",
		Save: func(s xmpp.Session) []byte {
			if d := deviceOf(s); d == nil || !slices.Contains(d.account.list(), d) {
				return nil
			}
			return []byte{1}
		},
		Restore: func(_ context.Context, s xmpp.Session, _ []byte) error {
			set(s, true)
			return nil
		},
	})
}

// account is an account with sessions.
type account struct {
	bare     jid.JID
	sessions int // guarded by the module's mu

	mu      sync.Mutex                // for who replaces enabled
	enabled atomic.Pointer[[]*device] // the sessions that have enabled carbons, in that order; the list is never changed
}

// device is a bound session.
type device struct {
	session xmpp.Session
	account *account
	gone    bool // the session has ended; guarded by the account's mu
}

type deviceKey struct{}

// deviceOf is nil for a session that is not bound yet.
func deviceOf(s xmpp.Session) *device {
	d, _ := s.Value(deviceKey{}).(*device)
	return d
}

// list are the sessions that have enabled carbons. Read-only.
func (a *account) list() []*device {
	if l := a.enabled.Load(); l != nil {
		return *l
	}
	return nil
}

// set enables or disables carbons for a session. XEP-0280 §10.1: once more is no error.
func set(s xmpp.Session, on bool) {
	if d := deviceOf(s); d != nil {
		d.account.mu.Lock()
		defer d.account.mu.Unlock()
		d.set(on && !d.gone)
	}
}

// set is called with the account's mu held.
func (d *device) set(on bool) {
	a := d.account
	old := a.list()
	if slices.Contains(old, d) == on {
		return
	}
	list := make([]*device, 0, len(old)+1)
	for _, o := range old {
		if o != d {
			list = append(list, o)
		}
	}
	if on {
		list = append(list, d)
	}
	a.enabled.Store(&list)
}

func (m *Module) bound(_ context.Context, s xmpp.Session) {
	bare := s.JID().Bare()
	key := bare.String()
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.accounts[key]
	if a == nil {
		a = &account{bare: bare}
		m.accounts[key] = a
	}
	a.sessions++
	s.SetValue(deviceKey{}, &device{session: s, account: a})
}

func (m *Module) ended(_ context.Context, s xmpp.Session) {
	d := deviceOf(s)
	if d == nil {
		return
	}
	d.account.mu.Lock()
	d.gone = true
	d.set(false)
	d.account.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if d.account.sessions--; d.account.sessions == 0 {
		delete(m.accounts, d.account.bare.String())
	}
}

// switcher answers XEP-0280 §4 and §5.
func (m *Module) switcher(on bool) xmpp.IQHandler {
	return func(_ context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
		for _, session := range m.server.Sessions(s.From.Bare()) {
			if session.JID().Equal(s.From) {
				set(session, on)
			}
		}
		return nil, nil
	}
}
