package vcard

import (
	"context"

	"mellium.im/xmpp/jid"
)

// Store keeps the vCard (XEP-0054) of each account.
type Store interface {
	// VCard returns the account's vCard element, nil when it has none.
	VCard(ctx context.Context, account jid.JID) ([]byte, error)
	// UpdateVCard stores what change makes of the account's vCard element, nil for none, while nobody else changes it; when change returns nil it leaves what is
	// there. change may be called more than once, should take little time and must not keep or change what it is given.
	UpdateVCard(ctx context.Context, account jid.JID, change func(stored []byte) []byte) error
}
