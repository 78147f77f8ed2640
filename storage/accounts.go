package storage

import (
	"context"
	"errors"

	"balcony/xmpp/auth"

	"mellium.im/xmpp/jid"
)

var _ auth.Store = (*DB)(nil)

func (db *DB) Verifiers(ctx context.Context, account jid.JID) ([]auth.Verifier, error) {
	return nil, errors.ErrUnsupported
}
func (db *DB) CreateAccount(ctx context.Context, account jid.JID, v []auth.Verifier) error {
	return errors.ErrUnsupported
}
func (db *DB) SetVerifiers(ctx context.Context, account jid.JID, v []auth.Verifier) error {
	return errors.ErrUnsupported
}
func (db *DB) DeleteAccount(ctx context.Context, account jid.JID) error { return errors.ErrUnsupported }
func (db *DB) AccountExists(ctx context.Context, account jid.JID) (bool, error) {
	return false, errors.ErrUnsupported
}
func (db *DB) AccountDisabled(ctx context.Context, account jid.JID) (bool, error) {
	return false, errors.ErrUnsupported
}
func (db *DB) SetAccountDisabled(ctx context.Context, account jid.JID, disabled bool) error {
	return errors.ErrUnsupported
}
func (db *DB) Accounts(ctx context.Context, domain, after string, limit int) ([]jid.JID, error) {
	return nil, errors.ErrUnsupported
}
func (db *DB) CountAccounts(ctx context.Context, domain string) (int, error) {
	return 0, errors.ErrUnsupported
}
