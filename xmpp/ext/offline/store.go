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
	ID     int64  // grows in the order of arrival within an account; 0 for one that waits in the archive
	Order  int64  // of one that waits in the archive: its place there
	Mark   string // the archive's id of it
	Stamp  time.Time
	Stanza *xmpp.Stanza // nil when what is stored can no longer be read
}

// Span is a range of orders, both ends included.
type Span struct{ From, To int64 }

// State says what of an account's archived messages waits: what is behind Top, and what lies in the Gaps, which are in order and do not
// touch.
type State struct {
	Account jid.JID
	Top     int64
	Gaps    []Span

	// Only in what SpoolState returns, as it was when that was called.
	Behind bool // there are messages behind Top that may wait
	Own    bool // Offline returns something
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
	// LastOrder is the greatest order that was given to a message of any account.
	LastOrder() int64
	// SpoolState is what was saved last; a Top of 0 and no Gaps, by which everything waits, when nothing was. Behind and Own see everything that was appended and
	// archived before.
	SpoolState(ctx context.Context, account jid.JID) (State, error)
	// SaveSpoolStates replaces the states of accounts; of those that are gone nothing is saved. It does not block.
	SaveSpoolStates(ctx context.Context, states []State) *xmpp.Commit
	// Waiting returns up to limit archived messages in a span that may wait in the spool, in order. It sees every message that was archived before.
	Waiting(ctx context.Context, account jid.JID, in Span, limit int) ([]Entry, error)
	// CountOffline is the number of messages in the spool.
	CountOffline(ctx context.Context, account jid.JID) (int, error)
}
