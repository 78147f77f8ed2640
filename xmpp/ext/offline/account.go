package offline

import (
	"context"
	"slices"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// maxHeld bounds the messages to one account that wait in memory while its spool is delivered, and those that wait for what an ended
// session sends back. chosen: a quarter of an outbox, where they would be otherwise.
const maxHeld = 256 << 10

// account is the state of one account's spool. Guarded by the module's mu.
type account struct {
	appends int           // messages on their way into the spool
	settled chan struct{} // closed when appends is 0 again; nil when nobody waits
	more    bool          // the owner has to look into the spool again

	owner   xmpp.Session   // the session that receives the spool, from before it becomes available
	also    []xmpp.Session // sessions that became available, or tried to, since then: the spool is theirs if the owner does not take it
	running bool           // the spool is being delivered
	short   bool           // little is left of it: live messages wait in memory, so that the delivery comes to an end
	retry   *time.Timer    // set while the delivery waits for the database, or for the owner's client
	held    []held         // behind everything in the spool that is older
	size    int            // of held, in bytes
	handed  handed         // written by whoever runs, who may read it without mu

	gate gate
}

// held is a message for a session that has to receive older ones first.
type held struct {
	to     xmpp.Session
	stanza *xmpp.Stanza
	at     time.Time
}

// handed is the portion of the spool that a session has taken last, and that is still in the spool.
type handed struct {
	to      xmpp.Session
	entries []Entry
	written bool // it is known that the network has it
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
	if a.appends == 0 && a.owner == nil && a.gate.returning == 0 {
		delete(m.accounts, key)
	}
}

// receives reports whether the spool is or may be delivered to s. It is called with the module's mu held.
func (a *account) receives(s xmpp.Session) bool {
	return a.owner != nil && (a.owner == s || slices.Contains(a.also, s))
}

// join is called with the module's mu held.
func (a *account) join(s xmpp.Session) {
	if !slices.Contains(a.also, s) {
		a.also = append(a.also, s)
	}
}

// count counts a message as on its way into the spool until end. Whoever delivers the spool waits for those. It is called with the module's
// mu held.
func (a *account) count() {
	a.appends++
	a.more = a.owner != nil
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

// claim makes s the owner of its account's spool unless another session is, which then looks into the spool once more before it lets it go:
// s may be the one who receives it. An owner to whom nothing can be delivered for now has to stand back.
func (m *Module) claim(s xmpp.Session) bool {
	key := s.JID().Bare().String()
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.get(key)
	switch {
	case a.owner == s:
		return false
	case a.owner == nil:
		m.busyAccounts.Add(1)
	case a.running || a.retry == nil:
		a.more = true
		a.join(s)
		return false
	default:
		a.join(a.owner) // order is kept for it, too
		a.retry.Stop()
		a.retry = nil
	}
	a.owner = s
	return true
}

// start begins the delivery to s if s owns the spool; whoever gets true calls next until it is done, or postpone.
func (m *Module) start(s xmpp.Session) (*account, bool) {
	if m.busyAccounts.Load() == 0 {
		return nil, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.accounts[s.JID().Bare().String()]
	if a == nil || a.owner != s || a.running {
		return nil, false
	}
	if a.retry != nil {
		a.retry.Stop()
		a.retry = nil
	}
	a.running = true
	return a, true
}

// next tells the owner's goroutine what there is to do after it has delivered n messages of the spool: the spool again, held messages to
// give, or nothing, in which case the account is free.
func (m *Module) next(key string, a *account, n int) (give []held, more, done bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a.more {
		a.more, a.short = false, n <= page
		return nil, true, false
	}
	if len(a.held) > 0 {
		give, a.held, a.size = a.held, nil, 0
		return give, false, false
	}
	if l := m.ledgers[key]; l != nil {
		l.emptied = true
	}
	a.owner, a.also, a.running, a.short, a.handed = nil, nil, false, false, handed{}
	m.busyAccounts.Add(-1)
	m.put(key, a)
	return nil, false, true
}

// postpone leaves the spool to owner, and the delivery for later: by its next stanza, or after a while by run.
func (m *Module) postpone(a *account, owner xmpp.Session, run func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a.owner != owner {
		a.join(a.owner)
	}
	a.owner, a.running, a.short, a.more = owner, false, false, true
	a.retry = time.AfterFunc(m.pause, run)
}

// older takes the held messages that are older than at.
func (m *Module) older(a *account, at time.Time) (give []held) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for ; n < len(a.held) && a.held[n].at.Before(at); n++ {
		a.size -= a.held[n].stanza.Size()
	}
	give, a.held = a.held[:n:n], a.held[n:]
	return give
}

// oldest is the time of the first held message.
func (m *Module) oldest(a *account) (at time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(a.held) == 0 {
		return time.Time{}, false
	}
	return a.held[0].at, true
}

// bound reports whether s is in the table of sessions.
func (m *Module) bound(account jid.JID, s xmpp.Session) bool {
	return slices.Contains(m.server.Sessions(account), s)
}
