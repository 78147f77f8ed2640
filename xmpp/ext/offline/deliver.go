package offline

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

const (
	page     = 50               // chosen: messages that are read from the store at once
	portion  = 64 << 10         // chosen: bytes that are sent before waiting for the network; far below an outbox
	patience = 30 * time.Second // chosen: for the network to take a portion, for the store to answer
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
	if !m.claim(o.Sender) {
		o.Sender.SetValue(wants{}, true)
	} else if !m.bound(o.Sender.JID().Bare(), o.Sender) {
		m.run(ctx, o.Sender) // it has ended meanwhile, and ended may have run before the claim
	}
	return nil
}

// incoming holds messages while the account's spool is delivered.
func (m *Module) incoming(ctx context.Context, d *xmpp.Delivery) error {
	if d.Again {
		if at, _, ok := m.stamped(d.Stanza); ok && m.kept.take(d.Account, at) {
			return xmpp.ErrDrop // it is still in the spool
		}
		return nil
	}
	d.Stanza = m.strip(d.Stanza)
	if d.Stanza.Kind != xmpp.Message || m.owned.Load() == 0 {
		return nil
	}
	key := d.Account.String()
	if m.releasing(ctx, key) {
		return nil
	}
	held, err := m.hold(key, d.Stanza)
	if held {
		return xmpp.ErrDrop
	}
	return err
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
func (m *Module) ended(ctx context.Context, s xmpp.Session) { m.run(ctx, s) }

// run delivers the spool if s owns it: to s, or to another session when s does not take it. Then it lets go the messages that were held.
func (m *Module) run(ctx context.Context, s xmpp.Session) {
	a, ok := m.start(s)
	if !ok {
		return
	}
	bare := s.JID().Bare()
	key := bare.String()
	ctx = context.WithValue(context.WithoutCancel(ctx), release{}, key)
	var failed []xmpp.Session
	for more, done := true, false; !done; {
		if more {
			wait, cancel := context.WithTimeout(ctx, patience)
			m.settle(wait, a)
			cancel()
			m.deliver(ctx, bare, s, &failed)
		}
		var held []*xmpp.Stanza
		held, more, done = m.next(key, a)
		for _, h := range held {
			m.server.Route(ctx, h)
		}
	}
}

// deliver empties the spool into the first session that takes it, first first. Those that do not take it are added to failed.
func (m *Module) deliver(ctx context.Context, bare jid.JID, first xmpp.Session, failed *[]xmpp.Session) {
	for {
		var to xmpp.Session
		for _, s := range m.server.Sessions(bare) {
			if ready(s) && !slices.Contains(*failed, s) && (to == nil || s == first) {
				to = s
			}
		}
		if to == nil || m.empty(ctx, bare, to) {
			return
		}
		*failed = append(*failed, to)
	}
}

// empty delivers the spool to one session, in order. false when the session does not take it all; what it did not take stays in the spool.
func (m *Module) empty(ctx context.Context, bare jid.JID, to xmpp.Session) bool {
	var after int64
	for {
		entries, err := m.read(ctx, bare, after)
		if err != nil {
			m.log.Error("read spool", "account", bare.String(), "err", err)
			return true
		}
		last := len(entries) < page
		for len(entries) > 0 {
			n := part(entries)
			send, err := m.allowed(ctx, bare, entries[:n])
			if err != nil {
				m.log.Error("look up block list", "account", bare.String(), "err", err)
				return true
			}
			if !m.send(ctx, bare, to, send) {
				return false
			}
			after = entries[n-1].ID
			if err := m.remove(ctx, bare, after); err != nil {
				// They are delivered again at the next occasion: twice rather than never.
				m.log.Error("remove from spool", "account", bare.String(), "err", err)
				return true
			}
			entries = entries[n:]
		}
		if last {
			return true
		}
	}
}

func (m *Module) read(ctx context.Context, bare jid.JID, after int64) ([]Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return m.store.Offline(ctx, bare, after, page)
}

func (m *Module) remove(ctx context.Context, bare jid.JID, upTo int64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return m.store.RemoveOffline(ctx, bare, upTo)
}

// part is how many entries make a portion: at least one.
func part(entries []Entry) int {
	size := 0
	for i, e := range entries {
		if size += e.Stanza.Size(); size > portion && i > 0 {
			return i
		}
	}
	return len(entries)
}

// send gives a portion to a session and waits until the network has taken it. Until then the spool has it, and what comes back from a
// session that ended is dropped. Without stream management nothing later is known of it.
func (m *Module) send(ctx context.Context, bare jid.JID, to xmpp.Session, entries []Entry) bool {
	for _, e := range entries {
		m.kept.add(bare, e.Stamp)
		if !to.Enqueue(ctx, e.Stanza.Append(delay(bare.Domainpart(), e.Stamp))) {
			m.kept.take(bare, e.Stamp)
			return false
		}
	}
	if b := xmpp.BatchFrom(ctx); b != nil {
		b.Flush()
	}
	if w, ok := to.(xmpp.Waiter); ok {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if err := w.Written(ctx); err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				to.Close(streamerr.ResourceConstraint) // a client that does not read; its next session gets the rest
			}
			return false
		}
	}
	for _, e := range entries {
		m.kept.take(bare, e.Stamp)
	}
	return true
}

// allowed is entries without those whose sender was blocked meanwhile (XEP-0191 §3.3: "MUST NOT deliver any XML stanzas").
func (m *Module) allowed(ctx context.Context, account jid.JID, entries []Entry) ([]Entry, error) {
	if m.blocks == nil {
		return entries, nil
	}
	allowed := make([]Entry, 0, len(entries))
	for _, e := range entries {
		blocked, err := m.blocks.Blocks(ctx, account, e.Stanza.From)
		if err != nil {
			return nil, err
		}
		if !blocked {
			allowed = append(allowed, e)
		}
	}
	return allowed, nil
}

// kept counts the copies of messages that a session has taken although the spool still has them: the session may end before it has
// written them, and then they come back as Delivery.Again.
type kept struct {
	mu   sync.Mutex
	list map[message]copies // guarded by mu
}

// message is a message of an account's spool.
type message struct {
	account string
	stamp   int64 // Unix microseconds; stamps.next makes no two the same
}

type copies struct {
	n     int
	since time.Time
}

const (
	maxKept  = 100_000     // chosen: about 10 MB
	keptTime = time.Minute // chosen: a session's end takes seconds
)

func (k *kept) add(account jid.JID, stamp time.Time) {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.list == nil {
		k.list = make(map[message]copies)
	}
	if len(k.list) >= maxKept {
		for m, c := range k.list {
			if now.Sub(c.since) > keptTime {
				delete(k.list, m)
			}
		}
	}
	m := message{account.String(), stamp.UnixMicro()}
	c, ok := k.list[m]
	if !ok && len(k.list) >= maxKept {
		return // the message may be delivered twice
	}
	if now.Sub(c.since) > keptTime {
		c.n = 0
	}
	k.list[m] = copies{c.n + 1, now}
}

// take forgets one copy, and reports whether there was one.
func (k *kept) take(account jid.JID, stamp time.Time) bool {
	m := message{account.String(), stamp.UnixMicro()}
	k.mu.Lock()
	defer k.mu.Unlock()
	c, ok := k.list[m]
	if c.n--; c.n > 0 {
		k.list[m] = c
	} else {
		delete(k.list, m)
	}
	return ok && time.Since(c.since) <= keptTime
}
