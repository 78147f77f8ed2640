package private

import (
	"context"
	"errors"

	"mellium.im/xmpp/jid"
)

// ErrFull is what a Store returns when an account keeps too many or too large elements.
var ErrFull = errors.New("private storage is full")

// Store keeps private XML (XEP-0049), one element per account and expanded name.
type Store interface {
	// PrivateXML returns the stored element, nil when there is none.
	PrivateXML(ctx context.Context, account jid.JID, space, local string) ([]byte, error)
	// SetPrivateXML stores an element, replacing the one before.
	SetPrivateXML(ctx context.Context, account jid.JID, space, local string, element []byte) error
}
