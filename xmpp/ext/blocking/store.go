package blocking

import (
	"context"
	"errors"

	"mellium.im/xmpp/jid"
)

// ErrFull is what a Store returns when a block list has reached its bound.
var ErrFull = errors.New("block list is full")

// Store keeps the block list (XEP-0191) of each account. An entry is any JID: full, bare, domain or domain with resource.
type Store interface {
	// Blocked returns the account's block list in the order of blocking.
	Blocked(ctx context.Context, account jid.JID) ([]jid.JID, error)
	// Block adds entries; those that are there already stay. All or none are added; ErrFull at the bound.
	Block(ctx context.Context, account jid.JID, entries []jid.JID) error
	// Unblock removes entries; nil entries removes all.
	Unblock(ctx context.Context, account jid.JID, entries []jid.JID) error
}
