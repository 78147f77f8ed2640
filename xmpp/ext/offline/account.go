package offline

import (
	"context"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// maxHeld bounds the messages to one account that wait in memory while its spool is delivered. chosen: a quarter of an outbox, where
// they would be otherwise.
const maxHeld = 256 << 10

// account is the state of one account's spool.
type account struct {
	appends int           // messages on their way into the spool
	settled chan struct{} // closed when appends is 0 again; nil when nobody waits
	more    bool          // the owner has to look into the spool again

	owner   xmpp.Session // the session that receives the spool, from before it becomes available
	running bool         // the spool is being delivered
	held    []*xmpp.Stanza
	size    int // of held, in bytes
}

// get returns the state of an account. It is called with mu held.
func (m *Module) get(key string) *account {
	a := m.accounts[key]
	if a == nil {
		a = new(account)
		m.accounts[key] = a
	}
	return a
}

// put forgets a state that says nothing. It is called with mu held.
func (m *Module) put(key string, a *account) {
	if a.appends == 0 && a.owner == nil {
		delete(m.accounts, key)
	}
}

// admit decides what becomes of a message that no session took: held while the account's spool has an owner, or else, when it is to be
// spooled, counted as on its way into the spool until end. Whoever delivers the spool waits for those.
func (m *Module) admit(key string, s *xmpp.Stanza, mayHold, mayAppend bool) (held bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.get(key)
	defer m.put(key, a)
	switch {
	case a.owner != nil && mayHold:
		err = a.hold(s)
		return err == nil, err
	case mayAppend:
		a.appends++
		a.more = a.owner != nil
	}
	return false, nil
}

func (m *Module) end(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.get(key)
	if a.appends--; a.appends == 0 && a.settled != nil {
		close(a.settled)
		a.settled = nil
	}
	m.put(key, a)
}

// busy reports whether the account's spool has an owner.
func (m *Module) busy(key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.accounts[key]
	return a != nil && a.owner != nil
}

// settle waits until no message is on its way into the spool.
func (m *Module) settle(ctx context.Context, a *account) {
	m.mu.Lock()
	if a.appends == 0 {
		m.mu.Unlock()
		return
	}
	if a.settled == nil {
		a.settled = make(chan struct{})
	}
	settled := a.settled
	m.mu.Unlock()
	select {
	case <-settled:
	case <-ctx.Done():
	}
}

// claim makes s the owner of its account's spool unless another session is.
func (m *Module) claim(s xmpp.Session) bool {
	key := s.JID().Bare().String()
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.get(key)
	if a.owner != nil {
		return false
	}
	a.owner = s
	m.owned.Add(1)
	return true
}

// start begins the delivery to s if s owns the spool; whoever gets true calls deliver.
func (m *Module) start(s xmpp.Session) (*account, bool) {
	if m.owned.Load() == 0 {
		return nil, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.accounts[s.JID().Bare().String()]
	if a == nil || a.owner != s || a.running {
		return nil, false
	}
	a.running = true
	return a, true
}

// hold keeps a message back while the account's spool has an owner.
func (m *Module) hold(key string, s *xmpp.Stanza) (held bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.accounts[key]
	if a == nil || a.owner == nil {
		return false, nil
	}
	err = a.hold(s)
	return err == nil, err
}

// hold is called with the module's mu held.
func (a *account) hold(s *xmpp.Stanza) error {
	if a.size+s.Size() > maxHeld && a.size > 0 {
		return xmpp.ErrResourceConstraint // never silently; the sender may try again
	}
	a.held = append(a.held, s)
	a.size += s.Size()
	return nil
}

// next tells the owner's goroutine what there is to do after the spool was delivered: held messages to send, the spool again, or
// nothing, in which case the account is free.
func (m *Module) next(key string, a *account) (held []*xmpp.Stanza, more, done bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a.more {
		a.more = false
		return nil, true, false
	}
	if len(a.held) > 0 {
		held, a.held, a.size = a.held, nil, 0
		return held, false, false
	}
	a.owner, a.running = nil, false
	m.owned.Add(-1)
	m.put(key, a)
	return nil, false, true
}

// release marks a context in which messages to an account are no longer held.
type release struct{}

func (m *Module) releasing(ctx context.Context, key string) bool {
	k, _ := ctx.Value(release{}).(string)
	return k == key
}

// bound reports whether s is in the table of sessions.
func (m *Module) bound(account jid.JID, s xmpp.Session) bool {
	for _, o := range m.server.Sessions(account) {
		if o == s {
			return true
		}
	}
	return false
}
