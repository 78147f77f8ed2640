// Package offline implements XEP-0160: Best Practices for Handling Offline Messages 1.0.1: messages that no session takes are spooled, and
// delivered when the account is next available, with the stamps of XEP-0203 and by the hints of XEP-0334.
//
// The order of messages is kept between the spool and what arrives live. From just before a session becomes available until the spool is
// empty, that session owns the spool: messages to it wait, in the spool itself or, when they must not be stored, in memory, and go out behind the
// older ones. The account's other sessions get theirs at once. A message that was about to be spooled when the session came is waited for. New
// messages also wait while a session that ends sends back what its client has not got (Returning).
package offline

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

const (
	nsHints      = "urn:xmpp:hints"                        // XEP-0334 §4
	nsChatStates = "http://jabber.org/protocol/chatstates" // XEP-0085
	nsStanzaID   = "urn:xmpp:sid:0"                        // XEP-0359
)

// Module spools messages.
type Module struct {
	// Static after Register.
	store  Store
	log    *slog.Logger
	server xmpp.Server
	blocks Blocks // nil: nobody is blocked

	pause time.Duration // until a delivery that failed is tried again

	stamps stamps
	kept   kept

	busyAccounts atomic.Int32 // owners of spools, and sessions that send back

	mu       sync.Mutex
	accounts map[string]*account // by bare JID, guarded by mu; those that are in use
	ledgers  map[string]*ledger  // by bare JID, guarded by mu; of accounts with sessions
	restored []xmpp.Session      // guarded by mu; until Run
}

var _ xmpp.Module = (*Module)(nil)

// New makes the module. It comes after the modules that stop messages and before those that act on a message that is delivered.
func New(store Store, log *slog.Logger) *Module {
	return &Module{store: store, log: log, pause: pause, accounts: make(map[string]*account), ledgers: make(map[string]*ledger)}
}

// Blocks tells whom an account has blocked (XEP-0191).
type Blocks interface {
	Blocks(ctx context.Context, account, peer jid.JID) (bool, error)
}

// UseBlocking sets who knows the block lists: what was spooled before its sender was blocked is not delivered. Before Register.
func (m *Module) UseBlocking(b Blocks) { m.blocks = b }

// Protocol lists XEP-0160, XEP-0203 and XEP-0334.
func (m *Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{
		{XEP: 160, Version: "1.0.1", Status: xmpp.Complete},
		{XEP: 203, Version: "2.0", Status: xmpp.Complete},
		{XEP: 334, Version: "1.0.0", Status: xmpp.Partial, Note: "<store/> and <no-store/> for offline messages; <no-permanent-store/> allows these"},
	}
}

// Register adds the filters and hooks.
func (m *Module) Register(r *xmpp.Registry) {
	m.server = r.Server
	r.Feature(xmpp.ToServer, "msgoffline") // XEP-0160 §4
	r.Outgoing(m.outgoing)
	r.Incoming(m.incoming)
	r.Undelivered(m.undelivered)
	r.Presence(m.presence)
	r.Bound(m.opened)
	r.Ended(m.ended)
	r.Received(m.received)
	r.Keep(xmpp.Keeper{Name: "offline", Save: m.keep, Restore: m.restore})
}

// fate is what becomes of a message that no session takes.
type fate uint8

const (
	refuse fate = iota // the router's answer: an error, or silence for headlines and errors
	drop               // silence
	spool
)

// decide: XEP-0160 §3, RFC 6121 §8.5.2.2.1 and XEP-0334 §4.
func decide(s *xmpp.Stanza) fate {
	hint := func(name string) bool { return s.Has(nsHints, name) }
	switch s.MessageType() {
	case stanza.ErrorMessage:
		return refuse // XEP-0334 §5: hints in errors are those of the message that failed
	case stanza.GroupChatMessage:
		// RFC 6121 §8.5.2.2.1: "MUST return an error", whatever the hints: a room has to learn that its occupant is gone.
		return refuse
	case stanza.HeadlineMessage:
		// XEP-0334 §1, §4.4: storing is what the hint asks for against the rule of RFC 6121 for headlines.
		if hint("store") && !hint("no-store") {
			return spool
		}
		return refuse
	}
	switch {
	case hint("no-store") && standalone(s):
		return drop
	case hint("no-store"):
		return refuse // XEP-0334 §4.2; the sender learns that nobody got it
	case hint("store"):
		return spool // XEP-0334 §4.4
	case standalone(s):
		return drop // XEP-0160 §3 and XEP-0085 §5.8: stale when it arrives, and no loss
	}
	return spool // also with <no-permanent-store/>: XEP-0334 §3.3 allows storing "as a normal part of delivery"
}

// Spools reports whether a message waits in the spool when no session takes it.
func (m *Module) Spools(s *xmpp.Stanza) bool { return decide(s) == spool }

// standalone reports whether a message has no other content than a chat state (XEP-0085 §2), or none at all.
func standalone(s *xmpp.Stanza) bool {
	for _, c := range s.Spans() {
		switch c.Space {
		case nsChatStates, nsHints, nsStanzaID, xmpp.NSDelay:
		case "":
			if c.Local != "thread" {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// undelivered spools a message.
func (m *Module) undelivered(ctx context.Context, d *xmpp.Delivery) error {
	switch decide(d.Stanza) {
	case drop:
		return xmpp.ErrDrop
	case refuse:
		return nil
	}
	key := d.Key
	c, wait := m.admit(key, d)
	if wait {
		await(ctx, c)
	} else {
		m.place(ctx, d, key)
	}
	return xmpp.ErrDrop
}

// admit counts a message as on its way into the spool, unless it has to wait for what comes back.
func (m *Module) admit(key string, d *xmpp.Delivery) (c *xmpp.Commit, wait bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.get(key)
	if a.gate.returning > 0 && !d.Again {
		return a.gate.add(waiting{stanza: d.Stanza, account: d.Account}, true)
	}
	a.count()
	return nil, false
}

// place gives a message that was counted to sessions that have come since its recipients were chosen, or to the spool.
func (m *Module) place(ctx context.Context, d *xmpp.Delivery, key string) {
	if m.late(ctx, d, key) {
		m.end(key)
		return
	}
	m.append(ctx, d, key, m.stamps.next(m.server.Now()), nil)
}

// late gives the message to the sessions that became available and received the whole spool since the recipients were chosen.
func (m *Module) late(ctx context.Context, d *xmpp.Delivery, key string) (taken bool) {
	var there []xmpp.Session
	for _, s := range m.server.Sessions(d.Account) {
		if ready(s) {
			there = append(there, s)
		}
	}
	if len(there) == 0 || m.busy(key) {
		return false // whoever receives the spool waits for this message
	}
	s := d.Stanza.Shared(len(there))
	lost := false
	for _, t := range there {
		lost = !t.Enqueue(ctx, s) && s.Missed()
	}
	return !lost
}

// append writes the message, which was counted, to the spool. When that fails it goes to live, a session that would have found it there. Without
// one its sender hears of it.
func (m *Module) append(ctx context.Context, d *xmpp.Delivery, key string, stamp time.Time, live xmpp.Session) {
	s := d.Stanza
	if s.Order != 0 {
		m.release(d.Account, s.Order) // the archive has it
		m.end(key)
		return
	}
	if at, rest, ok := m.stamped(s); ok && d.Again {
		stamp, s = at, rest // a session that got it from the spool has ended: it was sent when it was sent
	}
	c := m.store.AppendOffline(ctx, d.Account, stamp, s)
	c.Then(func(error) { m.end(key) })
	xmpp.Await(ctx, c, func(err error) {
		var answer error
		ctx := ctx
		if err != nil {
			ctx = xmpp.Detach(ctx)
		}
		switch {
		case err == nil:
			return
		case live != nil && live.Enqueue(ctx, d.Stanza):
			return // before older ones rather than not at all
		case errors.Is(err, ErrFull):
			// XEP-0160 §2 names this error. It is also that of an account that does not exist, so a stranger does not learn how it stands with
			// somebody's spool; what the server itself lacks is told as internal-server-error with type wait.
			answer = xmpp.ErrServiceUnavailable
		default:
			m.log.Error("spool message", "account", key, "err", err)
			answer = xmpp.ErrInternal
		}
		if b := d.Stanza.Bounce(answer); b != nil && !b.To.Equal(jid.JID{}) {
			m.server.Route(ctx, b)
		}
	})
}

// ready reports whether a session receives messages to its account (RFC 6121 §8.5.2.1.1).
func ready(s xmpp.Session) bool { return s.Presence() != nil && s.Priority() >= 0 }

// stamps makes times that are all different, so that a time tells the messages of an account apart.
type stamps struct{ last atomic.Int64 }

// next is now, to the microsecond, or a little later.
func (s *stamps) next(now time.Time) time.Time {
	for {
		last := s.last.Load()
		next := max(now.UnixMicro(), last+1)
		if s.last.CompareAndSwap(last, next) {
			return time.UnixMicro(next).UTC()
		}
	}
}
