package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/router"

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
	a.s.modules.roster.Forget(account)
	a.s.modules.blocking.Forget(account)
	a.s.modules.push.Forget(account)
	a.s.modules.archive.Forget(account)
	a.s.modules.offline.Forget(account)
	if a.s.modules.upload != nil {
		a.s.modules.upload.Sweep()
	}
	a.s.modules.pubsub.Gone(account)
	a.s.modules.avatar.Forget(account)
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

// Restore brings back the sessions that wait for the next start, in a server that does not listen. Shutdown saves those that are left.
func (a *Accounts) Restore(ctx context.Context) error { return a.s.c2s.Restore(ctx) }

// Sessions returns the bound resources of an account and its tokens, or auth.ErrNoAccount.
func (a *Accounts) Sessions(ctx context.Context, account jid.JID) ([]router.Description, []auth.TokenInfo, error) {
	if err := a.check(account); err != nil {
		return nil, nil, err
	}
	tokens, err := a.s.auth.Tokens(ctx, account)
	if err != nil {
		return nil, nil, err
	}
	var list []router.Description
	for _, s := range a.s.router.Sessions(account) {
		if s, ok := s.(*router.Session); ok {
			list = append(list, s.Describe())
		}
	}
	return list, tokens, nil
}

// Kick ends the session of a full JID, or all of an account, and waits until nothing is routed to them any more. With tokens it revokes those of
// the session's client, or all of the account: what can log in without the password cannot any more. The error is auth.ErrNoAccount, or tells
// that there is no such session.
func (a *Accounts) Kick(ctx context.Context, who jid.JID, tokens bool) (sessions, revoked int, err error) {
	account := who.Bare()
	if err := a.check(account); err != nil {
		return 0, 0, err
	}
	var list []*router.Session
	for _, s := range a.s.router.Sessions(account) {
		if s, ok := s.(*router.Session); ok && (who.Resourcepart() == "" || s.JID().Equal(who)) {
			list = append(list, s)
		}
	}
	if len(list) == 0 {
		if _, err := a.s.auth.Tokens(ctx, account); err != nil {
			return 0, 0, err // there is no such account
		}
		if who.Resourcepart() != "" {
			return 0, 0, fmt.Errorf("%s has no session %q", account, who.Resourcepart())
		}
	}
	// Before the sessions end, so that no client is back by its token first.
	if tokens && who.Resourcepart() == "" {
		if revoked, err = a.s.auth.RevokeTokens(ctx, account, ""); err != nil {
			return 0, 0, err
		}
	} else if tokens {
		for _, s := range list {
			client := s.Describe().Client
			if client == "" {
				continue // it has no tokens
			}
			n, err := a.s.auth.RevokeTokens(ctx, account, client)
			if err != nil {
				return 0, revoked, err
			}
			revoked += n
		}
	}
	reason := streamerr.PolicyViolation // RFC 6120 §4.9.3.14
	reason.Text = append(reason.Text, struct{ Lang, Value string }{"en", "The session was ended by an operator."})
	for _, s := range list {
		s.Close(reason)
	}
	tick := time.NewTicker(10 * time.Millisecond) // chosen: a command waits for it
	defer tick.Stop()
	for _, s := range list {
		for a.s.router.Has(s) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return sessions, revoked, ctx.Err()
			}
		}
		sessions++
	}
	return sessions, revoked, nil
}
