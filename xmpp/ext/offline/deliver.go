package offline

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

const (
	page     = 50               // chosen: messages that are read from the store at once
	portion  = 64 << 10         // chosen: bytes that are sent before waiting for the network; far below an outbox
	patience = 30 * time.Second // chosen: for the network to take a portion

	storeTime = 10 * time.Second // chosen: for the store to answer
	pause     = 5 * time.Second  // chosen: until a delivery that failed is tried again
)

// wants is the key of a session's mark: it found its account's spool owned by another session.
type wants struct{}

// outgoing runs before the presence of a session becomes visible. One that is going to receive messages owns the spool from here on.
func (m *Module) outgoing(ctx context.Context, o *xmpp.Outgoing) error {
	o.Stanza = m.strip(o.Stanza)
	// A claim that has led to nothing by the session's next stanza: the presence was refused.
	m.run(ctx, o.Sender)
	s := o.Stanza
	if s.Kind != xmpp.Presence || s.Type != "" || !s.To.Equal(jid.JID{}) || ready(o.Sender) {
		return nil
	}
	if begins(o.Sender) == math.MaxInt64 {
		m.CatchesUp(o.Sender, m.store.LastOrder())
	}
	if !m.claim(o.Sender) {
		o.Sender.SetValue(wants{}, true)
	} else if !m.bound(o.Sender.JID().Bare(), o.Sender) {
		m.run(ctx, o.Sender) // it has ended meanwhile, and ended may have run before the claim
	}
	return nil
}

// incoming keeps messages from overtaking older ones.
func (m *Module) incoming(ctx context.Context, d *xmpp.Delivery) error {
	if d.Again && d.Stanza.Order != 0 {
		if _, err := m.loadLedger(ctx, d.Account); err != nil {
			m.log.Error("read spool", "account", d.Account.String(), "err", err) // delivered twice rather than never
		}
		switch {
		case len(d.Targets) == 0:
			m.release(d.Account, d.Stanza.Order)
			return xmpp.ErrDrop
		case !m.obtain(d.Account, d.Stanza.Order, false):
			return xmpp.ErrDrop // another client has got it meanwhile
		}
		return nil
	}
	if d.Again {
		if at, _, ok := m.stamped(d.Stanza); ok && m.kept.take(d.Account, at) {
			return xmpp.ErrDrop // it is still in the spool
		}
		return nil
	}
	d.Stanza = m.strip(d.Stanza)
	if d.Stanza.Order != 0 && d.Waits && m.Spools(d.Stanza) {
		m.take(d.Account, d.Stanza.Order)
	}
	if d.Stanza.Kind == xmpp.Message && m.busyAccounts.Load() > 0 {
		m.divert(d)
	}
	return nil
}

// presence delivers the spool: XEP-0160 §2, step 5.
func (m *Module) presence(ctx context.Context, c xmpp.PresenceChange) {
	if c.New == nil {
		return
	}
	if c.Session.Value(wants{}) != nil {
		c.Session.SetValue(wants{}, nil)
		m.claim(c.Session) // the other session may have ended before it received everything
	}
	m.run(ctx, c.Session)
}

// ended frees what a session owned that has ended before it received its spool.
func (m *Module) ended(ctx context.Context, s xmpp.Session) {
	m.run(ctx, s)
	m.closed(s)
}

// run delivers the spool if s owns it: to s, or to another session when s does not take it. Then it lets go the messages that were held. What
// cannot be delivered for now, although somebody is there, is tried again later.
func (m *Module) run(ctx context.Context, s xmpp.Session) {
	a, ok := m.start(s)
	if !ok {
		return
	}
	bare := s.JID().Bare()
	key := bare.String()
	var failed []xmpp.Session
	n := 0
	for more, done := true, false; !done; {
		if more {
			wait, cancel := context.WithTimeout(ctx, storeTime)
			m.settle(wait, a)
			cancel()
			var later xmpp.Session
			if n, later = m.deliver(ctx, bare, a, s, &failed); later != nil {
				m.postpone(a, later, func() { m.run(context.Background(), later) })
				return
			}
		}
		var give []held
		give, more, done = m.next(key, a, n)
		m.give(ctx, bare, give)
	}
}

// deliver empties the spool into the first session that takes it, first first. Those that do not take it are added to failed. It returns how
// many messages were taken; and, when some are left although a session is there, that session: the database does not answer, or the client
// is away but may come back (XEP-0198).
func (m *Module) deliver(ctx context.Context, bare jid.JID, a *account, first xmpp.Session, failed *[]xmpp.Session) (n int, later xmpp.Session) {
	for {
		var to xmpp.Session
		later = nil
		for _, s := range m.server.Sessions(bare) {
			if !ready(s) {
				continue
			}
			if later == nil || s == first {
				later = s
			}
			if !slices.Contains(*failed, s) && (to == nil || s == first) {
				to = s
			}
		}
		if to == nil {
			return n, later
		}
		taken, err := m.empty(ctx, bare, a, to)
		n += taken
		switch {
		case err == nil:
			return n, nil
		case !errors.Is(err, errNotTaken):
			m.log.Error("deliver spool", "account", bare.String(), "err", err)
			return n, to
		}
		*failed = append(*failed, to)
	}
}

// errNotTaken is for a session that does not take its spool. What it did not take stays there.
var errNotTaken = errors.New("the session does not take its spool")

// empty delivers the spool to one session, in order, and between its messages those that were held. It returns how many the session took.
func (m *Module) empty(ctx context.Context, bare jid.JID, a *account, to xmpp.Session) (n int, err error) {
	if a.handed.to != to {
		m.hand(a, handed{}) // delivered twice rather than never
	}
	if err := m.confirm(ctx, bare, a); err != nil {
		return 0, err
	}
	at := position{order: begins(to)}
	for last := false; !last; {
		var entries []Entry
		if entries, last, err = m.read(ctx, bare, &at); err != nil {
			return n, err
		}
		for len(entries) > 0 {
			m.give(ctx, bare, m.older(a, entries[0].Stamp))
			oldest, ok := m.oldest(a)
			k := part(entries, func(e Entry) bool { return ok && e.Stamp.After(oldest) })
			send, err := m.allowed(ctx, bare, entries[:k])
			if err != nil {
				return n, err
			}
			if !m.send(ctx, bare, to, send) {
				return n, errNotTaken
			}
			m.hand(a, handed{to: to, entries: entries[:k]})
			if err := m.confirm(ctx, bare, a); err != nil {
				return n, err
			}
			n, entries = n+k, entries[k:]
		}
	}
	return n, nil
}

// confirm waits until the network has taken the portion that a session was given last, and removes it from the spool. Until then the spool
// has it, and what comes back from a session that ended is dropped. Without stream management nothing later is known of it.
func (m *Module) confirm(ctx context.Context, bare jid.JID, a *account) error {
	h := a.handed
	if len(h.entries) == 0 {
		return nil
	}
	if w, ok := h.to.(xmpp.Waiter); ok && !h.written {
		wait, cancel := context.WithTimeout(ctx, patience)
		err := w.Written(wait)
		cancel()
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
				h.to.Close(streamerr.ResourceConstraint) // a client that does not read; its next session gets the rest
			}
			return errNotTaken
		}
	}
	if !h.written {
		h.written = true
		m.hand(a, h)
		for _, e := range h.entries {
			if e.ID != 0 {
				m.kept.written(bare, e.Stamp)
			}
		}
	}
	last := int64(0)
	for _, e := range h.entries {
		last = max(last, e.ID)
	}
	if last != 0 {
		if err := m.remove(ctx, bare, last); err != nil {
			return err
		}
	}
	m.hand(a, handed{})
	return nil
}

// hand notes what a session was given, for whoever runs.
func (m *Module) hand(a *account, h handed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a.handed = h
}

// position is how far the spool was read: what has a place of its own there, and what waits in the archive.
type position struct{ id, order int64 }

// read reads a page of both parts of the spool, by their stamps. last tells that nothing is behind it.
func (m *Module) read(ctx context.Context, bare jid.JID, at *position) (entries []Entry, last bool, err error) {
	st, err := m.loadLedger(ctx, bare)
	if err != nil {
		return nil, false, err
	}
	var own []Entry
	if st == nil || st.Own { // what comes into the spool from now on makes the account's owner look again
		short, cancel := context.WithTimeout(ctx, storeTime)
		own, err = m.store.Offline(short, bare, at.id, page)
		cancel()
		if err != nil {
			return nil, false, err
		}
	}
	archived, err := m.waits(ctx, bare, at.order, page)
	if err != nil {
		return nil, false, err
	}
	last = len(own) < page && len(archived) < page
	for len(entries) < page && len(own)+len(archived) > 0 {
		if len(archived) == 0 || len(own) > 0 && !archived[0].Stamp.Before(own[0].Stamp) {
			at.id = own[0].ID
			entries, own = append(entries, own[0]), own[1:]
			continue
		}
		at.order = archived[0].Order + 1
		entries, archived = append(entries, archived[0]), archived[1:]
	}
	return entries, last && len(own)+len(archived) == 0, nil
}

func (m *Module) remove(ctx context.Context, bare jid.JID, upTo int64) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	return m.store.RemoveOffline(ctx, bare, upTo)
}

// part is how many entries make a portion: at least one, and none after the first for which end is true.
func part(entries []Entry, end func(Entry) bool) int {
	size := 0
	for i, e := range entries {
		if e.Stanza != nil {
			size += e.Stanza.Size()
		}
		if i > 0 && (size > portion || end(e)) {
			return i
		}
	}
	return len(entries)
}

// send gives a portion to a session; false when that does not take it.
func (m *Module) send(ctx context.Context, bare jid.JID, to xmpp.Session, entries []Entry) bool {
	for _, e := range entries {
		if e.ID == 0 {
			if !m.obtain(bare, e.Order, true) {
				continue
			}
			if s := e.Stanza.Append(mark(bare, e.Mark)).Append(delay(bare.Domainpart(), e.Stamp)); !to.Enqueue(ctx, s.Kept(0, e.Order)) {
				m.release(bare, e.Order)
				return false
			}
			continue
		}
		m.kept.add(bare, e.Stamp)
		if !to.Enqueue(ctx, e.Stanza.Append(delay(bare.Domainpart(), e.Stamp))) {
			m.kept.take(bare, e.Stamp)
			return false
		}
	}
	if b := xmpp.BatchFrom(ctx); b != nil {
		b.Flush()
	}
	return true
}

// allowed is entries without those that cannot be read, and without those whose sender was blocked meanwhile (XEP-0191 §3.3: "MUST NOT deliver any XML
// stanzas").
func (m *Module) allowed(ctx context.Context, account jid.JID, entries []Entry) ([]Entry, error) {
	allowed := make([]Entry, 0, len(entries))
	for _, e := range entries {
		if e.Stanza == nil {
			m.log.Error("spooled message cannot be read and is dropped", "account", account.String(), "id", e.ID, "order", e.Order, "stamp", e.Stamp)
			m.drop(account, e)
			continue
		}
		blocked, err := false, error(nil)
		if m.blocks != nil {
			blocked, err = m.blocks.Blocks(ctx, account, e.Stanza.From)
		}
		if err != nil {
			return nil, fmt.Errorf("look up block list: %w", err)
		}
		if blocked {
			m.drop(account, e)
			continue
		}
		allowed = append(allowed, e)
	}
	return allowed, nil
}

// drop ends the waiting of a message that nobody is to get.
func (m *Module) drop(account jid.JID, e Entry) {
	if e.ID == 0 {
		m.received(account, e.Order)
	}
}
