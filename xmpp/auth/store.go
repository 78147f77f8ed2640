package auth

import (
	"context"
	"errors"

	"mellium.im/xmpp/jid"
)

// ErrNoAccount is what a Store returns for a bare JID that is not an account.
var ErrNoAccount = errors.New("no such account")

// ErrAccountExists is what Create returns for a bare JID that already is one.
var ErrAccountExists = errors.New("account exists")

// Verifier is what is stored instead of a password (RFC 5802 §3) for one SCRAM hash.
type Verifier struct {
	Mechanism  string // "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"
	Salt       []byte
	Iterations int
	StoredKey  []byte
	ServerKey  []byte
}

// Store keeps the accounts.
type Store interface {
	// Verifiers returns all verifiers of an account, or ErrNoAccount.
	Verifiers(ctx context.Context, account jid.JID) ([]Verifier, error)
	// CreateAccount adds an account with its verifiers, or returns ErrAccountExists.
	CreateAccount(ctx context.Context, account jid.JID, v []Verifier) error
	// SetVerifiers replaces all verifiers of an account, or returns ErrNoAccount.
	SetVerifiers(ctx context.Context, account jid.JID, v []Verifier) error
	// DeleteAccount removes an account and everything that any table holds of it, or returns ErrNoAccount.
	DeleteAccount(ctx context.Context, account jid.JID) error
	// AccountExists reports whether account is one.
	AccountExists(ctx context.Context, account jid.JID) (bool, error)
	// AccountDisabled reports whether account may not log in, or returns ErrNoAccount.
	AccountDisabled(ctx context.Context, account jid.JID) (bool, error)
	// SetAccountDisabled forbids or allows account to log in, or returns ErrNoAccount.
	SetAccountDisabled(ctx context.Context, account jid.JID, disabled bool) error
	// Accounts returns up to limit accounts of a domain in the order of their localparts, beginning after the localpart after ("" from the start).
	Accounts(ctx context.Context, domain, after string, limit int) ([]jid.JID, error)
	// CountAccounts is the number of accounts of a domain.
	CountAccounts(ctx context.Context, domain string) (int, error)
}
