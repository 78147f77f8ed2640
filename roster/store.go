package roster

import (
	"context"
	"errors"

	"mellium.im/xmpp/jid"
)

// ErrFull is what a Store returns when the roster, or the list of waiting requests, has reached its bound.
var ErrFull = errors.New("roster is full")

// Item is a roster item as it is stored (RFC 6121 §2.1.2) together with the hidden parts of the subscription state (§3 and
// Appendix A): "None + Pending In" without any other trace is an Item too, with Listed false.
type Item struct {
	Contact  jid.JID // bare
	Name     string
	Groups   []string
	To       bool   // the owner receives the contact's presence
	From     bool   // the contact receives the owner's presence
	Ask      bool   // Pending Out: the owner asked and awaits the answer
	In       bool   // Pending In: the contact asked and awaits the owner's answer
	Approved bool   // pre-approved (§3.4)
	Listed   bool   // the item is in the roster that clients see
	Request  []byte // the contact's subscription request, as a presence stanza, while In is true
	Version  int64  // the roster version at which the item last changed
	Removed  bool   // only in Since: the item left the roster
}

// Store keeps rosters. Versions of one roster grow by every visible change.
type Store interface {
	// Roster returns all items of an account, listed or not, and the roster's version.
	Roster(ctx context.Context, owner jid.JID) (items []Item, version int64, err error)
	// RosterSince returns the listed items that changed after version, removed ones included, in the order of their change, and the present
	// version. ok is false when the store can no longer tell; the full roster must then be sent (RFC 6121 §2.6.3).
	RosterSince(ctx context.Context, owner jid.JID, version int64) (items []Item, now int64, ok bool, err error)
	// RosterItem returns one item; found is false when there is none.
	RosterItem(ctx context.Context, owner, contact jid.JID) (item Item, found bool, err error)
	// UpdateItem reads the item (the zero Item with Contact set when there is none), lets change alter it, and writes it, all in one
	// transaction; if change returns false nothing is written. An item that ends with none of To, From, Ask, In, Approved and Listed is deleted.
	// The version grows only when something that clients see changed (Listed before or after, and a difference in Name, Groups, To, From, Ask or
	// Approved). It returns the item as written. ErrFull when a new listed item would exceed maxItems, or a new request maxRequests (values of
	// Limits that the store was opened with).
	UpdateItem(ctx context.Context, owner, contact jid.JID, change func(*Item) bool) (Item, error)
	// RosterOwners returns up to limit accounts in whose rosters the item of contact has To, From, Ask, In or Approved, in an order of the
	// store's own. after is 0 at first and then what next was; no owners are left when next is 0.
	RosterOwners(ctx context.Context, contact jid.JID, after int64, limit int) (owners []jid.JID, next int64, err error)
}
