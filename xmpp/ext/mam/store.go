package mam

import (
	"context"
	"errors"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// ErrNoSearch says that the archives of a domain cannot be searched, or not yet.
var ErrNoSearch = errors.New("there is no full-text search")

// ErrNoMessage says that an id of a query is not in the archive.
var ErrNoMessage = errors.New("no such message in the archive")

// Item is a message that is to be kept for an account.
type Item struct {
	Owner  jid.JID // bare
	Peer   jid.JID // the other end: to of what the owner has sent, from of what it has received
	Stanza *xmpp.Stanza
	Stamp  time.Time

	Sent     bool // by the owner
	Archived bool // queries find it
	Spool    bool // it waits in the offline spool until a client of the owner has got it
}

// Foreign is a message of an archive that was exported, here or elsewhere.
type Foreign struct {
	ID     string  // in that archive
	Peer   jid.JID // the other end: to of what the owner has sent, from of what it has received
	Stanza *xmpp.Stanza
	Stamp  time.Time
	Sent   bool // by the owner
	Spool  bool // it waits until a client of the owner has got it
}

// Kept is what becomes of an Item.
type Kept struct {
	ID     string       // XEP-0313 §3.3: opaque and unpredictable; stanza-id and archive id
	Order  int64        // the place among the owner's messages
	Commit *xmpp.Commit // ends when the message is synced
}

// Message is a message in an archive.
type Message struct {
	ID    string
	Order int64
	Stamp time.Time
	XML   []byte // the stanza as it goes on a stream with the content namespace as default; read-only
	Sent  bool   // by the owner
	Spool bool   // it was to wait in the offline spool; whether it still does is told there
}

// Query says which messages of an archive are wanted: those that meet every condition.
type Query struct {
	With       jid.JID   // the other end; bare also for all its resources; the zero JID for anybody
	Start, End time.Time // both included; zero for open
	After      []string  // ids: only what is behind each of them
	Before     []string  // ids: only what is before each of them
	IDs        []string  // only these, when not nil
	Words      []Term    // only what has every one of these, when not nil

	Max      int  // size of the page; 0 for none, which with Count gives the count alone
	Bytes    int  // with so many bytes the page is full; 0 for no bound
	Backward bool // the last page, not the first
	Count    int  // count the messages up to this number
}

// Page is a part of what a query finds.
type Page struct {
	Messages []Message // in the order of the archive
	Complete bool      // nothing was left out in the direction of the query
	Count    int       // messages that meet the query, at most Query.Count
}

// Preferences are what an account wants to have archived: XEP-0441 §2.1.
type Preferences struct {
	Default       Default
	Always, Never []jid.JID
}

// Default is what is archived of those who are in no list.
type Default string

// The values of Default: XEP-0441 §2.1.1.
const (
	Always Default = "always"
	Never  Default = "never"
	Roster Default = "roster"
)

// Visit is shown a stored message, and whether its owner has sent it. It returns what takes its place, nil for nothing, and whether it wants to see
// more. It may be shown a message more than once.
type Visit func(s *xmpp.Stanza, sent bool) (instead *xmpp.Stanza, more bool)

// Store keeps the archive of every account.
type Store interface {
	// AppendMessage keeps a message for an account, behind everything that was kept before. It does not block; what is kept for two owners is written
	// once when the second gets Stanza.Row from the first's Order.
	AppendMessage(ctx context.Context, it Item) Kept
	// LastOrder is the greatest order that was given to a message of any account.
	LastOrder() int64
	// ArchiveID is the id of a message by its Order.
	ArchiveID(owner jid.JID, order int64) string
	// QueryArchive reads a page; ErrNoMessage when an id of the query is not in the archive, ErrNoSearch for one with Words when Searched is false. It sees what AppendMessage was called for before.
	QueryArchive(ctx context.Context, owner jid.JID, q Query) (Page, error)
	// SetSearch makes those domains have full-text search, and no others. What was archived before is found when IndexArchive has seen it.
	SetSearch(ctx context.Context, domains []string) error
	// IndexArchive makes up to limit messages with orders up to upTo found by searches of a domain; more reports whether there are others.
	IndexArchive(ctx context.Context, domain string, upTo int64, limit int) (more bool, err error)
	// Searched reports whether the archives of a domain can be searched: everything is found that was archived before the program began.
	Searched(domain string) bool
	// RewriteMessages shows visit the message with that id and its corrections (XEP-0308) among the limit newest messages that owner has with peer (bare), the
	// newest first, and then those that wait and are not in the archive; perhaps others too. What takes a message's place does so in the archive of this owner
	// alone, with id and stamp, and does not wait for the owner's clients.
	RewriteMessages(ctx context.Context, owner, peer jid.JID, limit int, id string, visit Visit) error
	// ArchivePreferences are what the account has set, those of a new account without.
	ArchivePreferences(ctx context.Context, owner jid.JID) (Preferences, error)
	// SetArchivePreferences replaces them.
	SetArchivePreferences(ctx context.Context, owner jid.JID, p Preferences) error
	// TrimArchive deletes up to limit of the oldest messages of an account that are older than before (unless zero), or more than the newest keep
	// (unless 0). It returns how many.
	TrimArchive(ctx context.Context, owner jid.JID, before time.Time, keep, limit int) (int, error)
	// Accounts returns up to limit accounts of a domain by their localparts, beginning after the localpart after.
	Accounts(ctx context.Context, domain, after string, limit int) ([]jid.JID, error)
}
