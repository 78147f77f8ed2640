package server

import (
	"context"
	"errors"
	"fmt"

	"balcony/xmpp"
	"balcony/xmpp/auth"

	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

// Accounts are the accounts of a running server: what is changed here takes effect at once.
type Accounts struct{ s *Server }

// Accounts returns the server's accounts.
func (s *Server) Accounts() *Accounts { return &Accounts{s} }

// ErrNotServed is the error for an account of a domain that this server does not serve.
var ErrNotServed = errors.New("this server does not serve that domain")

func (a *Accounts) check(account jid.JID) error {
	if account.Localpart() == "" || account.Resourcepart() != "" {
		return fmt.Errorf("%q is not a bare JID of the form name@domain", account)
	}
	if !a.s.router.Serves(account.Domainpart()) {
		return fmt.Errorf("%w: %s", ErrNotServed, account.Domainpart())
	}
	return nil
}

// Add makes an account, or returns auth.ErrAccountExists.
func (a *Accounts) Add(ctx context.Context, account jid.JID, password string) error {
	if err := a.check(account); err != nil {
		return err
	}
	return a.s.auth.Register(ctx, account, password)
}

// SetPassword changes a password and ends the account's sessions: whoever knew the old one is out. auth.ErrNoAccount if there is none.
func (a *Accounts) SetPassword(ctx context.Context, account jid.JID, password string) error {
	return a.setPassword(ctx, account, password, nil)
}

// setPassword spares one session: the one that asked for the change.
func (a *Accounts) setPassword(ctx context.Context, account jid.JID, password string, spare xmpp.Session) error {
	if err := a.check(account); err != nil {
		return err
	}
	if err := a.s.auth.SetPassword(ctx, account, password); err != nil {
		return err
	}
	for _, s := range a.s.router.Sessions(account) {
		if s != spare {
			s.Close(streamerr.NotAuthorized)
		}
	}
	return nil
}

// Delete removes an account and everything that is stored of it, tells its contacts, and ends its sessions. auth.ErrNoAccount if there is
// none.
func (a *Accounts) Delete(ctx context.Context, account jid.JID) error {
	if err := a.check(account); err != nil {
		return err
	}
	exists, err := a.s.db.AccountExists(ctx, account)
	if err != nil {
		return err
	}
	if !exists {
		return auth.ErrNoAccount
	}
	for _, h := range a.s.router.Registry().DeletedHooks {
		h(ctx, account)
	}
	// Once before and once after the data go: a session that was bound between the two sees that its account is gone, or is seen here.
	a.end(account)
	if err := a.s.auth.Delete(ctx, account); err != nil {
		return err
	}
	a.s.router.Forget(account)
	a.s.modules.blocking.Forget(account)
	a.s.modules.push.Forget(account)
	a.end(account)
	return nil
}

func (a *Accounts) end(account jid.JID) {
	for _, s := range a.s.router.Sessions(account) {
		s.Close(streamerr.NotAuthorized)
	}
}

// SetDisabled forbids an account to log in, or allows it again; its sessions end.
func (a *Accounts) SetDisabled(ctx context.Context, account jid.JID, disabled bool) error {
	if err := a.check(account); err != nil {
		return err
	}
	if err := a.s.auth.SetDisabled(ctx, account, disabled); err != nil {
		return err
	}
	if disabled {
		a.end(account)
	}
	return nil
}

// List returns up to limit accounts of a domain, beginning after a localpart.
func (a *Accounts) List(ctx context.Context, domain, after string, limit int) ([]jid.JID, error) {
	if !a.s.router.Serves(domain) {
		return nil, fmt.Errorf("%w: %s", ErrNotServed, domain)
	}
	return a.s.db.Accounts(ctx, domain, after, limit)
}
