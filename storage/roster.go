package storage

import (
	"context"
	"errors"

	"balcony/roster"

	"mellium.im/xmpp/jid"
)

var _ roster.Store = (*DB)(nil)

func (db *DB) Roster(ctx context.Context, owner jid.JID) (items []roster.Item, version int64, err error) {
	return nil, 0, errors.ErrUnsupported
}
func (db *DB) RosterSince(ctx context.Context, owner jid.JID, version int64) (items []roster.Item, now int64, ok bool, err error) {
	return nil, 0, false, errors.ErrUnsupported
}
func (db *DB) RosterItem(ctx context.Context, owner, contact jid.JID) (item roster.Item, found bool, err error) {
	return item, false, errors.ErrUnsupported
}
func (db *DB) UpdateItem(ctx context.Context, owner, contact jid.JID, change func(*roster.Item) bool) (roster.Item, error) {
	return roster.Item{}, errors.ErrUnsupported
}
