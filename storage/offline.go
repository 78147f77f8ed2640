package storage

import (
	"context"
	"errors"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/ext/offline"

	"mellium.im/xmpp/jid"
)

var _ offline.Store = (*DB)(nil)

func (db *DB) AppendOffline(ctx context.Context, account jid.JID, stamp time.Time, s *xmpp.Stanza) *xmpp.Commit {
	c := new(xmpp.Commit)
	c.Complete(errors.ErrUnsupported)
	return c
}
func (db *DB) Offline(ctx context.Context, account jid.JID, after int64, limit int) ([]offline.Entry, error) {
	return nil, errors.ErrUnsupported
}
func (db *DB) RemoveOffline(ctx context.Context, account jid.JID, upTo int64) error {
	return errors.ErrUnsupported
}
func (db *DB) CountOffline(ctx context.Context, account jid.JID) (int, error) {
	return 0, errors.ErrUnsupported
}
