package vcard

import (
	"context"

	"mellium.im/xmpp/jid"
)

// Store keeps the vCard (XEP-0054) of each account.
type Store interface {
	// VCard returns the account's vCard element, nil when it has none.
	VCard(ctx context.Context, account jid.JID) ([]byte, error)
	// SetVCard stores the account's vCard element.
	SetVCard(ctx context.Context, account jid.JID, element []byte) error
}
