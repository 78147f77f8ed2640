// Package pie implements XEP-0227: Portable Import/Export Format for XMPP-IM Servers 1.1: everything that the server holds on an account as one XML
// document, and back.
//
// What belongs to this server or to a device alone is left out: sessions and their tokens, push registrations, uploaded files.
package pie

import (
	"context"
	"errors"
	"time"

	"balcony/roster"
	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/ext/mam"
	"balcony/xmpp/ext/offline"
	"balcony/xmpp/ext/pubsub"

	"mellium.im/xmpp/jid"
)

const (
	// NS is the namespace of the format: XEP-0227 §4.
	NS = "urn:xmpp:pie:0"
	// nsScram is that of credentials: XEP-0227 §4.3.
	nsScram = "urn:xmpp:pie:0#scram"
	// nsOurs is for what the format has no place for. XEP-0227 §4 allows elements of other namespaces at any point.
	nsOurs = "urn:balcony:pie:0"
	// nsOld is the namespace that ejabberd has written, from before the format had one.
	nsOld = "http://www.xmpp.org/extensions/xep-0227.html#ns"

	nsRoster   = "jabber:iq:roster"
	nsPrivate  = "jabber:iq:private"
	nsPrivacy  = "jabber:iq:privacy"
	nsVCard    = "vcard-temp"
	nsBlocking = "urn:xmpp:blocking"
)

// page is how many messages are read or written at once, pageBytes their size. chosen: one transaction of ten milliseconds.
const (
	page      = 100
	pageBytes = 1 << 20
)

// Source is what an export reads.
type Source interface {
	Verifiers(ctx context.Context, account jid.JID) ([]auth.Verifier, error)
	AccountDisabled(ctx context.Context, account jid.JID) (bool, error)
	Roster(ctx context.Context, owner jid.JID) ([]roster.Item, int64, error)
	VCard(ctx context.Context, account jid.JID) ([]byte, error)
	// PrivateElements returns all elements of private XML storage, in an order that does not change.
	PrivateElements(ctx context.Context, account jid.JID) ([][]byte, error)
	Blocked(ctx context.Context, account jid.JID) ([]jid.JID, error)
	LastActivity(ctx context.Context, account jid.JID) (at time.Time, status string, err error)
	Offline(ctx context.Context, account jid.JID, after int64, limit int) ([]offline.Entry, error)
	// SpoolState and Waiting are what of the archive waits in the spool.
	SpoolState(ctx context.Context, account jid.JID) (offline.State, error)
	Waiting(ctx context.Context, account jid.JID, in offline.Span, limit int) ([]offline.Entry, error)
	// ReadArchive reads up to limit messages behind an order, fewer when they come to so many bytes.
	ReadArchive(ctx context.Context, account jid.JID, after int64, limit, size int) (mam.Page, error)
	ArchivePreferences(ctx context.Context, account jid.JID) (mam.Preferences, error)
	PubSubNodes(ctx context.Context, service, peer jid.JID) ([]pubsub.Found, error)
	PubSubItems(ctx context.Context, service jid.JID, name string, q pubsub.Query) (pubsub.Page, error)
	PubSubAffiliations(ctx context.Context, service jid.JID, name string) ([]pubsub.Affiliate, error)
	PubSubSubscriptions(ctx context.Context, service jid.JID, name string) ([]pubsub.Subscription, error)
}

// Target is what an import writes to.
type Target interface {
	Source
	// Serves reports whether accounts of the domain can be here.
	Serves(domain string) bool
	AccountExists(ctx context.Context, account jid.JID) (bool, error)
	// CreateAccount makes an account, or returns auth.ErrAccountExists.
	CreateAccount(ctx context.Context, account jid.JID, v []auth.Verifier) error
	// DeleteAccount removes an account with everything of it.
	DeleteAccount(ctx context.Context, account jid.JID) error
	// SetVerifiers and SetPassword replace how the account logs in.
	SetVerifiers(ctx context.Context, account jid.JID, v []auth.Verifier) error
	SetPassword(ctx context.Context, account jid.JID, password string) error
	SetAccountDisabled(ctx context.Context, account jid.JID, disabled bool) error
	UpdateItem(ctx context.Context, owner, contact jid.JID, change func(*roster.Item) bool) (roster.Item, error)
	SetVCard(ctx context.Context, account jid.JID, element []byte) error
	SetPrivateXML(ctx context.Context, account jid.JID, space, local string, element []byte) error
	Block(ctx context.Context, account jid.JID, entries []jid.JID) error
	SetLastActivity(account jid.JID, at time.Time, status string) *xmpp.Commit
	AppendOffline(ctx context.Context, account jid.JID, stamp time.Time, s *xmpp.Stanza) *xmpp.Commit
	// Archives reports whether this server archives the messages of an account.
	Archives(account jid.JID) bool
	// ImportArchive adds messages in one transaction; after is what it returned for those before.
	ImportArchive(ctx context.Context, account jid.JID, after int64, items []mam.Foreign) (last int64, err error)
	SetArchivePreferences(ctx context.Context, account jid.JID, p mam.Preferences) error
	CreatePubSubNode(ctx context.Context, service jid.JID, n pubsub.Node) error
	ConfigurePubSubNode(ctx context.Context, service jid.JID, name string, c pubsub.Config, keep int) ([]string, error)
	SetPubSubAffiliation(ctx context.Context, service jid.JID, name string, who jid.JID, a pubsub.Affiliation) error
	SetPubSubSubscription(ctx context.Context, service jid.JID, name string, s pubsub.Subscription) error
	PublishPubSubItem(ctx context.Context, service jid.JID, name string, it pubsub.Item, keep int, reject bool, since time.Time) ([]string, error)
}

// ErrInUse is for an account that has data or sessions already: an import never mixes with what is there.
var ErrInUse = errors.New("the account has data already; an import is only for a new or an empty one")

// Imported is what an import has done.
type Imported struct {
	Accounts []string `json:"accounts"`           // bare JIDs, in the order of the document
	Warnings []string `json:"warnings,omitempty"` // what could not be taken over; the first of them
}

// maxWarnings bounds Imported.Warnings. chosen: nobody reads more.
const maxWarnings = 100
