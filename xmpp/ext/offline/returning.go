package offline

import (
	"context"
	"sync"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// gate keeps new messages to an account behind those that a session which ends sends back. Guarded by the module's mu.
type gate struct {
	returning int // sessions that are sending back
	list      []waiting
	size      int // of list, in bytes
}

// waiting is a message behind the gate.
type waiting struct {
	to      *detour // nil: nobody is there, it goes to the spool
	stanza  *xmpp.Stanza
	account jid.JID
	c       *xmpp.Commit // ends when the message was delivered or stored; nil for one that nobody stores
}

// add is called with the module's mu held. A message that may be stored is always taken, and its sender's connection waits for it: that
// bounds them, and what is acknowledged to the sender is stored or delivered. The others are bounded in bytes.
func (g *gate) add(w waiting, storable bool) (*xmpp.Commit, bool) {
	if !storable && g.size > 0 && g.size+w.stanza.Size() > maxHeld {
		return nil, false
	}
	if storable {
		w.c = new(xmpp.Commit)
	}
	g.list = append(g.list, w)
	g.size += w.stanza.Size()
	return w.c, true
}

// await lets the sender's connection wait for c, which may be nil.
func await(ctx context.Context, c *xmpp.Commit) {
	if c != nil {
		xmpp.Await(ctx, c, func(error) {})
	}
}

// returnTime bounds the writes of the messages that were kept behind what came back.
const returnTime = 10 * time.Second

// Returning keeps new messages to an account from overtaking what a session that ends sends back (Delivery.Again). It is called before that
// session leaves the table of sessions. The messages that come until done is called go out then, in their order; their senders'
// connections wait for that, so it has to be soon.
func (m *Module) Returning(account jid.JID) (done func()) {
	key := account.Bare().String()
	m.busyAccounts.Add(1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.get(key).gate.returning++
	return sync.OnceFunc(func() { m.returned(key) })
}

// returned opens the gate when nobody sends back any more and nothing waits.
func (m *Module) returned(key string) {
	ctx, cancel := context.WithTimeout(context.Background(), returnTime)
	defer cancel()
	var b xmpp.Batch // one commit for all, not one for each
	ctx = xmpp.WithBatch(ctx, &b)
	for list := m.waiting(key); len(list) > 0; list = m.waiting(key) {
		for _, w := range list {
			m.pass(ctx, key, w)
		}
		b.End(ctx)
		for _, w := range list {
			if w.c != nil {
				w.c.Complete(nil)
			}
		}
	}
}

// waiting takes the messages behind the gate. Without any, or while another session still sends back, the caller has done its part.
func (m *Module) waiting(key string) (list []waiting) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.get(key)
	if g := &a.gate; g.returning == 1 && len(g.list) > 0 {
		list, g.list, g.size = g.list, nil, 0
		return list
	}
	a.gate.returning--
	m.busyAccounts.Add(-1)
	m.put(key, a)
	return nil
}

// pass sends a message on that has waited behind the gate.
func (m *Module) pass(ctx context.Context, key string, w waiting) {
	if w.to == nil {
		m.mu.Lock()
		m.get(key).count()
		m.mu.Unlock()
		m.place(ctx, &xmpp.Delivery{Stanza: w.stanza, Account: w.account, Key: key}, key)
		return
	}
	w.to.passed = true
	if !w.to.Enqueue(ctx, w.stanza) {
		m.server.Redeliver(ctx, w.account, w.stanza)
	}
}
