package storage

import (
	"context"
	"errors"
	"time"

	"balcony/xmpp/ext/blocking"
	"balcony/xmpp/ext/last"
	"balcony/xmpp/ext/private"
	"balcony/xmpp/ext/vcard"

	"mellium.im/xmpp/jid"
)

var (
	_ private.Store  = (*DB)(nil)
	_ vcard.Store    = (*DB)(nil)
	_ blocking.Store = (*DB)(nil)
	_ last.Store     = (*DB)(nil)
)

func (db *DB) PrivateXML(ctx context.Context, account jid.JID, space, local string) ([]byte, error) {
	return nil, errors.ErrUnsupported
}
func (db *DB) SetPrivateXML(ctx context.Context, account jid.JID, space, local string, element []byte) error {
	return errors.ErrUnsupported
}
func (db *DB) VCard(ctx context.Context, account jid.JID) ([]byte, error) {
	return nil, errors.ErrUnsupported
}
func (db *DB) SetVCard(ctx context.Context, account jid.JID, element []byte) error {
	return errors.ErrUnsupported
}
func (db *DB) Blocked(ctx context.Context, account jid.JID) ([]jid.JID, error) {
	return nil, errors.ErrUnsupported
}
func (db *DB) Block(ctx context.Context, account jid.JID, entries []jid.JID) error {
	return errors.ErrUnsupported
}
func (db *DB) Unblock(ctx context.Context, account jid.JID, entries []jid.JID) error {
	return errors.ErrUnsupported
}
func (db *DB) LastActivity(ctx context.Context, account jid.JID) (at time.Time, status string, err error) {
	return at, "", errors.ErrUnsupported
}
func (db *DB) SetLastActivity(ctx context.Context, account jid.JID, at time.Time, status string) error {
	return errors.ErrUnsupported
}
