package last

import (
	"context"
	"time"

	"mellium.im/xmpp/jid"
)

// Store keeps when an account was last online (XEP-0012 §4).
type Store interface {
	// LastActivity returns the time and status of the account's last unavailable presence; the zero time when there is none.
	LastActivity(ctx context.Context, account jid.JID) (at time.Time, status string, err error)
	// NoteLastActivity stores them soon, without waiting; LastActivity sees them at once.
	NoteLastActivity(account jid.JID, at time.Time, status string)
}
