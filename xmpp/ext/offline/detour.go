package offline

import (
	"context"
	"slices"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// detour stands for a session among the targets of a message that must not overtake older ones on their way to it.
type detour struct {
	xmpp.Session
	m       *Module
	account jid.JID
	key     string
	alone   bool // the message has no other target
	passed  bool // the message has waited for what came back
}

// divert puts detours in the place of the sessions that have to receive older messages first. The others get theirs at once.
func (m *Module) divert(d *xmpp.Delivery) {
	key := d.Key
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.accounts[key]
	if a == nil || a.owner == nil && a.gate.returning == 0 {
		return
	}
	d.Targets = slices.Clone(d.Targets)
	for i, t := range d.Targets {
		if a.gate.returning > 0 || a.receives(t) {
			d.Targets[i] = &detour{Session: t, m: m, account: d.Account, key: key, alone: len(d.Targets) == 1}
		}
	}
}

// Behind returns what takes copies of messages (Stanza.Forward) for a session, so that they do not overtake older messages on their way to it. They are
// never stored.
func (m *Module) Behind(s xmpp.Session) xmpp.Target {
	if m.busyAccounts.Load() == 0 {
		return s
	}
	account := s.JID().Bare()
	return &detour{Session: s, m: m, account: account, key: account.String()}
}

// way is what becomes of a message on its detour.
type way uint8

const (
	refused way = iota
	straight
	waits   // in memory
	spooled // the owner finds it in the spool
)

// Enqueue is xmpp.Target. A message that nobody else has and that may be stored is never in memory alone while the bulk of the spool is
// delivered: that may take long.
func (t *detour) Enqueue(ctx context.Context, s *xmpp.Stanza) bool {
	at := t.m.stamps.next(t.m.server.Now())
	switch w, c := t.choose(held{t.Session, s, at}, s.Original() == nil && decide(s) == spool); w {
	case straight:
		return t.Session.Enqueue(ctx, s)
	case spooled:
		t.m.append(ctx, &xmpp.Delivery{Stanza: s, Account: t.account, Key: t.key}, t.key, at, t.Session)
		return true
	case waits:
		await(ctx, c)
		return true
	}
	return false
}

// choose is Enqueue's decision, carried out but for what spooled and straight ask for.
func (t *detour) choose(h held, storable bool) (way, *xmpp.Commit) {
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	a := t.m.accounts[t.key]
	if a == nil {
		return straight, nil
	}
	if a.gate.returning > 0 && !t.passed {
		c, ok := a.gate.add(waiting{to: t, stanza: h.stanza, account: t.account}, storable)
		if !ok {
			return refused, nil
		}
		return waits, c
	}
	fits := a.size == 0 || a.size+h.stanza.Size() <= maxHeld
	switch {
	case !a.receives(t.Session):
		return straight, nil
	case storable && t.Session == a.owner && (t.alone && !a.short || !fits):
		a.count()
		return spooled, nil
	case !fits:
		return refused, nil
	}
	a.held = append(a.held, h)
	a.size += h.stanza.Size()
	return waits, nil
}

// give lets held messages go. What their sessions do not take goes the way of what ended sessions send back.
func (m *Module) give(ctx context.Context, account jid.JID, list []held) {
	for _, h := range list {
		if !h.to.Enqueue(ctx, h.stanza) {
			m.server.Redeliver(ctx, account, h.stanza)
		}
	}
}
