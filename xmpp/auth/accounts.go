package auth

import (
	"context"
	"fmt"

	"mellium.im/xmpp/jid"
)

// Register creates an account (a bare JID of a domain of the server) with a password. The error wraps ErrAccountExists, or ErrPassword
// for a password that cannot be one. Whether the password is strong enough is for the caller to judge.
func (a *Authenticator) Register(ctx context.Context, account jid.JID, password string) error {
	// RFC 7622 §3.3. Only what a login comes to as well (Exchange.identify) is an account.
	again, err := jid.New(account.Localpart(), account.Domainpart(), "")
	if err != nil || account.Localpart() == "" || !again.Equal(account) {
		return fmt.Errorf("register %s: not the bare JID of an account", account)
	}
	verifiers, err := a.newVerifiers(ctx, password)
	if err != nil {
		return fmt.Errorf("register %s: %w", account, err)
	}
	if err := a.store.CreateAccount(ctx, account, verifiers); err != nil {
		return fmt.Errorf("register %s: %w", account, err)
	}
	a.changes.note(account)
	return nil
}

// SetPassword replaces the password of an account. The error wraps ErrNoAccount, or ErrPassword for a password that cannot be one. Logins
// under way with the old password fail from then on; it is for the caller to end the account's sessions afterwards.
func (a *Authenticator) SetPassword(ctx context.Context, account jid.JID, password string) error {
	account = account.Bare()
	verifiers, err := a.newVerifiers(ctx, password)
	if err != nil {
		return fmt.Errorf("set password of %s: %w", account, err)
	}
	if err := a.store.SetVerifiers(ctx, account, verifiers); err != nil {
		return fmt.Errorf("set password of %s: %w", account, err)
	}
	a.changes.note(account)
	return nil
}

// SetDisabled forbids or allows an account to log in, without touching its password. The error wraps ErrNoAccount. It is for the caller to
// end the account's sessions afterwards.
func (a *Authenticator) SetDisabled(ctx context.Context, account jid.JID, disabled bool) error {
	account = account.Bare()
	if err := a.store.SetAccountDisabled(ctx, account, disabled); err != nil {
		return fmt.Errorf("disable %s: %w", account, err)
	}
	a.changes.note(account)
	return nil
}

// Delete removes an account and everything that is stored of it. The error wraps ErrNoAccount. It is for the caller to end the account's
// sessions afterwards.
func (a *Authenticator) Delete(ctx context.Context, account jid.JID) error {
	account = account.Bare()
	if err := a.store.DeleteAccount(ctx, account); err != nil {
		return fmt.Errorf("delete %s: %w", account, err)
	}
	a.changes.note(account)
	return nil
}

// CheckPassword reports whether password is that of account; false when there is no such account. It takes no account of back-off and of
// whether the account is disabled.
func (a *Authenticator) CheckPassword(ctx context.Context, account jid.JID, password string) (bool, error) {
	_, right, err := a.checkPassword(ctx, account.Bare(), password)
	if err != nil {
		return false, fmt.Errorf("check password of %s: %w", account, err)
	}
	return right, nil
}

// newVerifiers makes verifiers, with a slot.
func (a *Authenticator) newVerifiers(ctx context.Context, password string) ([]Verifier, error) {
	prepared, err := preparePassword(password)
	if err != nil {
		return nil, err
	}
	if err := a.slots.acquire(ctx); err != nil {
		return nil, err
	}
	defer a.slots.release()
	return makeVerifiers(a.derive, prepared, a.cfg.Iterations)
}
