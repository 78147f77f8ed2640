package auth

import (
	"context"
	"fmt"

	"mellium.im/xmpp/jid"
)

// changed is called after what a login depends on was changed in the store.
func (a *Authenticator) changed(account jid.JID) {
	a.recent.drop(account)
	a.changes.note(account)
}

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
		a.recent.drop(account) // it may have been stored all the same; when there was one before, nothing of its logins has changed
		return fmt.Errorf("register %s: %w", account, err)
	}
	a.changed(account)
	return nil
}

// Made tells of an account that was made behind the authenticator.
func (a *Authenticator) Made(account jid.JID) { a.recent.drop(account.Bare()) }

// SetPassword replaces the password of an account. The error wraps ErrNoAccount, or ErrPassword for a password that cannot be one. Logins
// under way with the old password fail from then on; it is for the caller to end the account's sessions afterwards.
func (a *Authenticator) SetPassword(ctx context.Context, account jid.JID, password string) error {
	account = account.Bare()
	verifiers, err := a.newVerifiers(ctx, password)
	if err != nil {
		return fmt.Errorf("set password of %s: %w", account, err)
	}
	if err := a.store.SetVerifiers(ctx, account, verifiers); err != nil {
		a.changed(account) // it may have been stored all the same
		return fmt.Errorf("set password of %s: %w", account, err)
	}
	a.changed(account)
	return nil
}

// SetVerifiers replaces how an account logs in by what another server knew of its password. The error wraps ErrNoAccount, or is that of
// Verifier.Check.
func (a *Authenticator) SetVerifiers(ctx context.Context, account jid.JID, verifiers []Verifier) error {
	account = account.Bare()
	for _, v := range verifiers {
		if err := v.Check(); err != nil {
			return fmt.Errorf("set verifiers of %s: %s: %w", account, v.Mechanism, err)
		}
	}
	err := a.store.SetVerifiers(ctx, account, verifiers)
	a.changed(account) // after an error as well: it may have been stored all the same
	if err != nil {
		return fmt.Errorf("set verifiers of %s: %w", account, err)
	}
	return nil
}

// SetDisabled forbids or allows an account to log in, without touching its password. The error wraps ErrNoAccount. It is for the caller to
// end the account's sessions afterwards.
func (a *Authenticator) SetDisabled(ctx context.Context, account jid.JID, disabled bool) error {
	account = account.Bare()
	err := a.store.SetAccountDisabled(ctx, account, disabled)
	a.changed(account)
	if err != nil {
		return fmt.Errorf("disable %s: %w", account, err)
	}
	return nil
}

// Delete removes an account and everything that is stored of it. The error wraps ErrNoAccount. It is for the caller to end the account's
// sessions afterwards.
func (a *Authenticator) Delete(ctx context.Context, account jid.JID) error {
	account = account.Bare()
	if err := a.store.DeleteAccount(ctx, account); err != nil {
		a.changed(account)
		return fmt.Errorf("delete %s: %w", account, err)
	}
	a.changed(account)
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
