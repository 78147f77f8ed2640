// Package mam implements XEP-0313: Message Archive Management 1.1.3, with the preferences of XEP-0441, the stanza ids of XEP-0359,
// the tombstones of XEP-0424 and the full-text search of XEP-0431.
//
// A message is given its place in the archive of its sender when it is sent, and in that of its recipient before the first session gets it:
// what a client gets carries the id by which it finds the message in the archive. The bytes are written once.
//
// archive.go decides what is archived and hands it to the store, query.go answers queries, preferences.go keeps what the users want, trim.go
// deletes what is too old, retract.go puts tombstones in the place of what was retracted, words.go says by which words a message is found (XEP-0431), and
// search.go has them indexed.
package mam

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

const (
	NS          = "urn:xmpp:mam:2"                 // XEP-0313 §10.1
	nsExtended  = "urn:xmpp:mam:2#extended"        // XEP-0313 §7
	nsGroupchat = "urn:xmpp:mam:2#groupchat-field" // XEP-0313 §7
	NSStanzaID  = "urn:xmpp:sid:0"                 // XEP-0359
	nsForward   = "urn:xmpp:forward:0"             // XEP-0297
	nsForm      = "jabber:x:data"                  // XEP-0004
	nsRSM       = "http://jabber.org/protocol/rsm" // XEP-0059
	nsValidate  = "http://jabber.org/protocol/xdata-validate"
	nsHints     = "urn:xmpp:hints"      // XEP-0334
	nsFulltext  = "urn:xmpp:fulltext:0" // XEP-0431 §2.1

	fieldFulltext = "{" + nsFulltext + "}fulltext" // XEP-0431 §3.1
)

// Config bounds what is kept and what a query returns.
type Config struct {
	// Policy is that of the domains that are not in Domains.
	Policy
	Domains map[string]Policy
	// Page is how many messages a query returns that asks for no number, MaxPage at most.
	Page, MaxPage int
	// PageBytes is the size at which a page ends.
	PageBytes int
	// IDs is how many messages a query may ask for by their ids.
	IDs int
	// JIDs is how many JIDs each list of the preferences may have.
	JIDs int
}

// Policy is what is kept for the accounts of a domain.
type Policy struct {
	// Enabled is whether their messages are archived.
	Enabled bool
	// Search is whether their archives can be searched for words (XEP-0431).
	Search bool
	// Keep is how long; 0 for ever.
	Keep time.Duration
	// Messages is how many; 0 for all.
	Messages int
}

func (c *Config) policy(domain string) Policy {
	if p, ok := c.Domains[domain]; ok {
		return p
	}
	return c.Policy
}

// DefaultConfig archives everything for ever.
func DefaultConfig() Config {
	return Config{
		Policy:    Policy{Enabled: true},
		Page:      50,        // chosen: what Conversations and Gajim ask for
		MaxPage:   250,       // chosen: fewer round trips for those who catch up, some 100 KiB
		PageBytes: 256 << 10, // chosen: a page of the largest messages fits into an outbox with what else there is
		IDs:       250,       // chosen: a page
		JIDs:      500,       // chosen: they are compared with each message
	}
}

// Contacts tells who is in whose roster.
type Contacts interface {
	Listed(ctx context.Context, owner, contact jid.JID) (bool, error)
}

// Module archives messages and answers queries. Its methods may be called from any goroutine.
type Module struct {
	// Static after Register.
	cfg      Config
	store    Store
	contacts Contacts
	spool    Spool
	copies   Copies // nil: there are none
	log      *slog.Logger
	server   xmpp.Server

	preferences cache

	retracting chan struct{} // one slot: whoever has it looks for a message that is retracted
	searching  chan struct{} // one slot: whoever has it searches for words

	mu     sync.Mutex
	failed map[int64]struct{} // messages whose sender has heard that they could not be stored; guarded by mu
}

var _ xmpp.Module = (*Module)(nil)

// Spool keeps what waits for clients that do not read the archive.
type Spool interface {
	// Spools reports whether a message waits for an account that is not there.
	Spools(s *xmpp.Stanza) bool
	// CatchesUp tells that a session's client reads the archive up to an order itself; math.MaxInt64 for up to where it becomes available.
	CatchesUp(s xmpp.Session, order int64)
	// Fetched tells that a session is given everything of its account's archive between two orders; it has all of it once it has the stanza
	// with the order by.
	Fetched(ctx context.Context, account jid.JID, by, from, to int64)
}

// Copies delivers copies of messages to sessions for which they were not meant.
type Copies interface {
	// Copied reports whether a message that no session is to get will be delivered as a copy, and so not be refused.
	Copied(d *xmpp.Delivery) bool
}

// UseCopies sets who knows. Before Register.
func (m *Module) UseCopies(c Copies) { m.copies = c }

// New makes the module. It comes after the modules that stop messages and
// before those that deliver copies or keep messages.
func New(cfg Config, store Store, contacts Contacts, spool Spool, log *slog.Logger) *Module {
	m := &Module{cfg: cfg, store: store, contacts: contacts, spool: spool, log: log, failed: make(map[int64]struct{}), retracting: make(chan struct{}, 1), searching: make(chan struct{}, 1)}
	m.preferences.list = make(map[string]Preferences)
	return m
}

// Protocol lists XEP-0313, XEP-0359, XEP-0424 and XEP-0441.
func (m *Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{
		{XEP: 59, Version: "1.0", Status: xmpp.Partial, Note: "in archive queries; without pages by index"},
		{XEP: 313, Version: "1.1.3", Status: xmpp.Complete, Note: "the archives of accounts"},
		{XEP: 359, Version: "0.7.0", Status: xmpp.Complete},
		{XEP: 424, Version: "0.4.2", Status: xmpp.Complete, Note: "tombstones in the archives of accounts, and in what waits for them"},
		{XEP: 431, Version: "0.2.0", Status: xmpp.Complete, Note: "where `archive.search` is on"},
		{XEP: 441, Version: "0.2.0", Status: xmpp.Complete},
	}
}

// Register adds the filters and handlers.
func (m *Module) Register(r *xmpp.Registry) {
	m.server = r.Server
	r.DomainFeature(xmpp.ToSelf, m.Enabled, NS, nsExtended, nsGroupchat) // XEP-0313 §7: on the archiving JID
	r.DomainFeature(xmpp.ToServer, m.Enabled, NS)                        // older clients look there
	r.DomainFeature(xmpp.ToSelf, m.Enabled, nsRetract, nsTombstone)      // XEP-0424 §2, §4
	r.DomainFeature(xmpp.ToServer, m.Enabled, nsRetract, nsTombstone)
	for _, h := range []struct {
		typ   stanza.IQType
		local string
		f     xmpp.IQHandler
	}{
		{stanza.SetIQ, "query", m.query},
		{stanza.GetIQ, "query", m.form},
		{stanza.GetIQ, "metadata", m.metadata},
		{stanza.GetIQ, "prefs", m.getPreferences},
		{stanza.SetIQ, "prefs", m.setPreferences},
	} {
		r.IQ(xmpp.ToSelf, h.typ, NS, h.local, func(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
			if !m.Enabled(s.From.Domainpart()) {
				return nil, xmpp.ErrServiceUnavailable // as if there were no such thing
			}
			return h.f(ctx, s)
		})
	}
	r.DomainFeature(xmpp.ToSelf, m.Searched, nsFulltext) // XEP-0431 §2.1: where XEP-0313 §7 has the others
	r.BindFeature(xmpp.BindFeature{Bind: m.bound})
	r.Feature(xmpp.ToAccount, NSStanzaID) // XEP-0359 §5
	r.Outgoing(m.outgoing)
	r.Incoming(m.incoming)
}

// Enabled reports whether the messages of a domain's accounts are archived.
func (m *Module) Enabled(domain string) bool { return m.cfg.policy(domain).Enabled }

// Searched reports whether the archives of a domain's accounts can be searched for words: it is on, and everything that they had is indexed.
func (m *Module) Searched(domain string) bool {
	p := m.cfg.policy(domain)
	return p.Enabled && p.Search && m.store.Searched(domain)
}

// Forget drops what is remembered of an account. Call it after the account's data were deleted.
func (m *Module) Forget(account jid.JID) { m.preferences.drop(account.Bare().String()) }
