package offline

import (
	"context"
	"errors"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// ErrFull ends a commit when the account's spool has reached its bound.
var ErrFull = errors.New("offline spool is full")

// Entry is a message in the spool.
type Entry struct {
	ID     int64 // grows in the order of arrival within an account
	Stamp  time.Time
	Stanza *xmpp.Stanza // nil when what is stored can no longer be read
}

// Store keeps the offline spool of every account.
type Store interface {
	// AppendOffline adds a message at the end of the account's spool; the commit ends when it is synced, with ErrFull at the bound. It does not block
	// on the disk: writes that arrive together share a transaction.
	AppendOffline(ctx context.Context, account jid.JID, stamp time.Time, s *xmpp.Stanza) *xmpp.Commit
	// Offline returns up to limit messages of the spool in order, beginning after the id after (0 from the start). Fewer than limit means that
	// the spool ends there.
	Offline(ctx context.Context, account jid.JID, after int64, limit int) ([]Entry, error)
	// RemoveOffline deletes the messages up to and including id upTo.
	RemoveOffline(ctx context.Context, account jid.JID, upTo int64) error
	// CountOffline is the number of messages in the spool.
	CountOffline(ctx context.Context, account jid.JID) (int, error)
}
