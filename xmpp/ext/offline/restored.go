package offline

import (
	"context"
	"encoding/json"
	"time"

	"balcony/xmpp"
)

// Restored tells of a session from the process before, and of the messages that it has for its client, by their orders. It does not wait for those that
// another client of the account has got. Before Run, and before anything arrives: what may wait in the spool is older than that.
func (m *Module) Restored(s xmpp.Session, orders []int64) {
	account := s.JID().Bare()
	m.mu.Lock()
	l := m.open(account)
	for _, order := range orders {
		switch {
		case !l.loaded:
			l.claimed = append(l.claimed, order)
			l.hold(order)
		case l.waits(order):
			l.cut(Span{order, order})
			l.hold(order)
		}
	}
	if ready(s) {
		m.restored = append(m.restored, s)
	}
	m.mu.Unlock()
	if ready(s) {
		m.claim(s)
	}
}

// deliverRestored looks once into the spool of each session that was restored.
func (m *Module) deliverRestored(ctx context.Context) {
	m.mu.Lock()
	list := m.restored
	m.restored = nil
	m.mu.Unlock()
	for _, s := range list {
		if ctx.Err() != nil {
			return
		}
		m.run(ctx, s)
	}
}

// Returned goes on with the spool of a session whose client has come back. It does not block.
func (m *Module) Returned(s xmpp.Session) {
	key := s.JID().Bare().String()
	m.mu.Lock()
	a, l := m.accounts[key], m.ledgers[key]
	owner := a != nil && a.owner == s
	done := l == nil || l.emptied && len(l.waiting) == 0
	m.mu.Unlock()
	if owner || !done && ready(s) && m.claim(s) {
		time.AfterFunc(0, func() { m.run(context.Background(), s) })
	}
}

// portionKept is the portion of a spool that a session was given, and that is still in the spool, as it is stored with the session: the session has it in
// its queue, so that it must not come from there too. What waits in the archive is not among it: the ledger knows of that.
type portionKept struct {
	Written bool        `json:"written,omitempty"`
	Entries []entryKept `json:"entries"`
}

type entryKept struct {
	ID    int64 `json:"id"`
	Stamp int64 `json:"stamp"` // Unix microseconds
}

// keep is xmpp.Keeper's Save.
func (m *Module) keep(s xmpp.Session) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.accounts[s.JID().Bare().String()]
	if a == nil || a.handed.to != s {
		return nil
	}
	k := portionKept{Written: a.handed.written}
	for _, e := range a.handed.entries {
		if e.ID != 0 {
			k.Entries = append(k.Entries, entryKept{e.ID, e.Stamp.UnixMicro()})
		}
	}
	if len(k.Entries) == 0 {
		return nil
	}
	b, err := json.Marshal(k)
	if err != nil {
		m.log.Error("save spool of a session", "err", err) // delivered twice rather than never
		return nil
	}
	return b
}

// restore is xmpp.Keeper's Restore. The spool is first of all that session's.
func (m *Module) restore(_ context.Context, s xmpp.Session, b []byte) error {
	var k portionKept
	if err := json.Unmarshal(b, &k); err != nil {
		return err
	}
	h := handed{to: s, written: k.Written}
	for _, e := range k.Entries {
		stamp := time.UnixMicro(e.Stamp).UTC()
		h.entries = append(h.entries, Entry{ID: e.ID, Stamp: stamp})
		if !k.Written {
			m.kept.add(s.JID().Bare(), stamp)
		}
	}
	m.claim(s)
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.get(s.JID().Bare().String())
	if a.owner != s {
		a.join(a.owner)
		a.owner = s
	}
	a.handed = h
	return nil
}
