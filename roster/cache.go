package roster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// account is a local account that has sessions, or whose roster is being changed. It keeps what presence needs of the roster, so that
// presence does not touch the database.
type account struct {
	// Static after acquire.
	bare jid.JID
	key  string

	refs int // guarded by Module.mu: bound sessions and changes under way

	// turn has one place. Who holds it reads or changes the roster in the database and queues the pushes of that change; changes of one
	// roster therefore happen one after the other, while readers of the cache never wait for the database.
	turn chan struct{}

	mu sync.RWMutex
	// Guarded by mu.
	loaded      bool
	contacts    map[string]contact // by bare JID
	subscribers []jid.JID          // the contacts with a subscription from; replaced, never changed
	version     int64

	outMu sync.Mutex
	// Guarded by outMu.
	out     []func(context.Context) // what has still to be sent, in the order of the changes
	sending bool                    // somebody is in send
	sent    chan struct{}           // closed when sending ends; nil when nobody waits
}

// maxCache bounds the rosters that are kept whole. chosen: more than 6,000 of twenty contacts.
const maxCache = 32 << 20

// whole is a roster as it is in the database. Read-only.
type whole struct {
	items   []Item
	version int64
}

// size is about what it takes in memory.
func (w whole) size(owner string) int {
	n := 256 + len(owner)
	for _, it := range w.items {
		n += 192 + len(it.Name) + len(it.Request) + 3*len(it.Contact.Localpart()) + len(it.Contact.Domainpart())
		for _, g := range it.Groups {
			n += 16 + len(g)
		}
	}
	return n
}

// roster is Store.Roster, for an account whose client comes back without the database. Read-only.
func (m *Module) roster(ctx context.Context, owner jid.JID) ([]Item, int64, error) {
	key := owner.String()
	w, ok, gen := m.read.Get(key)
	if ok {
		return w.items, w.version, nil
	}
	items, version, err := m.store.Roster(ctx, owner)
	if err != nil {
		return nil, 0, err
	}
	w = whole{items, version}
	m.read.Put(key, w, w.size(key), gen)
	return items, version, nil
}

// Forget drops what is known of an account's roster, whose sessions have ended. Call it after something else has changed the roster in the database.
func (m *Module) Forget(account jid.JID) { m.read.Drop(account.Bare().String()) }

// contact is what the cache keeps of a roster item.
type contact struct {
	jid    jid.JID
	state  State
	listed bool
}

// resource is what the module keeps on a session.
type resource struct {
	account    *account // static
	interested bool     // guarded by the account's turn: it has requested the roster (RFC 6121 §2.2)

	mu       sync.Mutex
	directed map[string]jid.JID // guarded by mu: who got directed presence (RFC 6121 §4.6)
}

type resourceKey struct{}

// resourceOf is the module's part of a session, nil for no session or one that is not bound yet.
func resourceOf(s xmpp.Session) *resource {
	if s == nil {
		return nil
	}
	r, _ := s.Value(resourceKey{}).(*resource)
	return r
}

// bound keeps the account while the session lasts.
func (m *Module) bound(_ context.Context, s xmpp.Session) {
	s.SetValue(resourceKey{}, &resource{account: m.acquire(s.JID().Bare())})
}

// acquire returns the account and keeps it until release.
func (m *Module) acquire(bare jid.JID) *account {
	key := bare.String()
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.accounts[key]
	if a == nil {
		a = &account{bare: bare, key: key, turn: make(chan struct{}, 1)}
		m.accounts[key] = a
	}
	a.refs++
	return a
}

func (m *Module) release(a *account) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a.refs--
	if a.refs == 0 && m.accounts[a.key] == a {
		delete(m.accounts, a.key)
	}
}

// abandon leaves what is kept of an account to the sessions that it has, without contacts: it is being deleted, and another account may
// get its name before these sessions have ended.
func (m *Module) abandon(bare jid.JID) {
	key := bare.String()
	m.mu.Lock()
	a := m.accounts[key]
	delete(m.accounts, key)
	m.mu.Unlock()
	if a != nil {
		a.fill(nil, 0)
	}
}

// online is the account if it has sessions (or is being changed), nil otherwise.
func (m *Module) online(bare jid.JID) *account {
	key := bare.String()
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.accounts[key]
}

// take waits for the turn. Whoever has it must not route a stanza: handling it could need the same turn.
func (a *account) take(ctx context.Context) error {
	select {
	case a.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *account) give() { <-a.turn }

// load reads the roster into the cache unless it is there.
func (m *Module) load(ctx context.Context, a *account) error {
	if _, ok := a.currentVersion(); ok {
		return nil
	}
	if err := a.take(ctx); err != nil {
		return err
	}
	defer a.give()
	if _, ok := a.currentVersion(); ok {
		return nil
	}
	items, version, err := m.roster(ctx, a.bare)
	if err != nil {
		return err
	}
	a.fill(items, version)
	return nil
}

// fill makes the cache agree with items. The caller holds the turn, unless nobody else will find the account.
func (a *account) fill(items []Item, version int64) {
	contacts := make(map[string]contact, len(items))
	var subscribers []jid.JID
	for _, it := range items {
		contacts[it.Contact.String()] = contact{it.Contact, it.State(), it.Listed}
		if it.From {
			subscribers = append(subscribers, it.Contact)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.loaded, a.contacts, a.subscribers, a.version = true, contacts, subscribers, version
}

// update changes an item in the store and in the cache. The caller holds the turn.
func (m *Module) update(ctx context.Context, a *account, contact jid.JID, change func(*Item) bool) (Item, error) {
	it, err := m.store.UpdateItem(ctx, a.bare, contact, change)
	m.Forget(a.bare)
	if err != nil {
		if !errors.Is(err, ErrFull) {
			a.doubt() // the change may have been written all the same
		}
		return Item{}, err
	}
	a.put(it)
	return it, nil
}

// doubt makes the next reader ask the store again. Until that succeeds, presence goes to those who were subscribed.
func (a *account) doubt() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.loaded = false
}

// put makes the cache agree with an item that was written.
func (a *account) put(it Item) {
	key := it.Contact.String()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version = max(a.version, it.Version)
	if !a.loaded {
		return
	}
	had := partsOf[a.contacts[key].state].from
	if s := it.State(); s == None && !it.Listed {
		delete(a.contacts, key)
	} else {
		a.contacts[key] = contact{it.Contact, s, it.Listed}
	}
	switch {
	case it.From && !had:
		a.subscribers = append(slices.Clone(a.subscribers), it.Contact)
	case !it.From && had:
		a.subscribers = slices.DeleteFunc(slices.Clone(a.subscribers), it.Contact.Equal)
	}
}

// contact is what is known of a contact; the zero value when it is not in the roster.
func (a *account) contact(key string) contact {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.contacts[key]
}

// subscribed are the contacts that receive the account's presence. Read-only.
func (a *account) subscribed() []jid.JID {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.subscribers
}

// where lists the contacts for which keep is true.
func (a *account) where(keep func(parts) bool) []jid.JID {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var list []jid.JID
	for _, c := range a.contacts {
		if keep(partsOf[c.state]) {
			list = append(list, c.jid)
		}
	}
	return list
}

// currentVersion is the newest version of the roster that was seen; false when the cache is not filled, and there may be newer ones.
func (a *account) currentVersion() (int64, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.version, a.loaded
}

// sendTimeout bounds each step of send. chosen: like the server's other deadlines for one stanza.
const sendTimeout = 30 * time.Second

type sendingKey struct{}

// after queues f for send. The caller holds the turn, so that the order is that of the changes.
func (a *account) after(f func(context.Context)) {
	a.outMu.Lock()
	defer a.outMu.Unlock()
	a.out = append(a.out, f)
}

// send carries out what is queued, one step at a time and in order, without the turn: routing a stanza to a contact may come back
// to this roster. When another goroutine is at it, send waits until that one is done, so that a flood does not gather; a call from within a
// step does not wait, the one further up goes on with what it has queued. The steps outlive the stanza's deadline, because the change
// that they follow from is written.
func (a *account) send(ctx context.Context) {
	a.outMu.Lock()
	if a.sending {
		if ctx.Value(sendingKey{}) != nil {
			a.outMu.Unlock()
			return
		}
		if a.sent == nil {
			a.sent = make(chan struct{})
		}
		sent := a.sent
		a.outMu.Unlock()
		select {
		case <-sent:
		case <-ctx.Done():
		}
		return
	}
	a.sending = true
	defer func() {
		a.sending = false
		if a.sent != nil {
			close(a.sent)
			a.sent = nil
		}
		a.outMu.Unlock()
	}()
	ctx = context.WithValue(context.WithoutCancel(ctx), sendingKey{}, true)
	for len(a.out) > 0 {
		f := a.out[0]
		a.out = a.out[1:]
		a.outMu.Unlock()
		func() {
			defer a.outMu.Lock() // also when a step panics, which ends one stream alone
			step, cancel := context.WithTimeout(ctx, sendTimeout)
			defer cancel()
			f(step)
		}()
	}
}
