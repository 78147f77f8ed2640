package auth

import (
	"context"
	"errors"
	"time"

	"mellium.im/xmpp/jid"
)

// ErrNoAccount is what a Store returns for a bare JID that is not an account.
var ErrNoAccount = errors.New("no such account")

// ErrAccountExists is what Create returns for a bare JID that already is one.
var ErrAccountExists = errors.New("account exists")

// Errors of a Store about what a client has proved.
var (
	// ErrOutdated is returned for a proof that has lost its worth: the verifier or the token is not the account's any more, or the account
	// may not log in any more.
	ErrOutdated = errors.New("what the client proved was changed")
	// ErrReplayed is returned for a count that does not exceed those that were seen with the token.
	ErrReplayed = errors.New("count of the token was seen before")
)

// Verifier is what is stored instead of a password (RFC 5802 §3) for one SCRAM hash.
type Verifier struct {
	Mechanism  string // "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"
	Salt       []byte
	Iterations int
	StoredKey  []byte
	ServerKey  []byte
}

// Credentials are what a login with a password depends on.
type Credentials struct {
	Verifiers []Verifier
	Disabled  bool // the account may not log in
}

// Store keeps the accounts.
type Store interface {
	// Credentials returns those of an account, or ErrNoAccount.
	Credentials(ctx context.Context, account jid.JID) (Credentials, error)
	// CreateAccount adds an account with its verifiers, or returns ErrAccountExists.
	CreateAccount(ctx context.Context, account jid.JID, v []Verifier) error
	// SetVerifiers replaces all verifiers of an account and removes all its tokens, or returns ErrNoAccount.
	SetVerifiers(ctx context.Context, account jid.JID, v []Verifier) error
	// AddVerifier adds v, unless the account has one for its mechanism already. proof is the verifier by which the client logged in; ErrOutdated
	// when the account does not have it any more or is disabled.
	AddVerifier(ctx context.Context, account jid.JID, v, proof Verifier) error
	// DeleteAccount removes an account and everything that any table holds of it, or returns ErrNoAccount.
	DeleteAccount(ctx context.Context, account jid.JID) error
	// AccountExists reports whether account is one.
	AccountExists(ctx context.Context, account jid.JID) (bool, error)
	// AccountDisabled reports whether account may not log in, or returns ErrNoAccount.
	AccountDisabled(ctx context.Context, account jid.JID) (bool, error)
	// SetAccountDisabled forbids or allows account to log in, or returns ErrNoAccount. Forbidding removes all its tokens.
	SetAccountDisabled(ctx context.Context, account jid.JID, disabled bool) error
	// Accounts returns up to limit accounts of a domain in the order of their localparts, beginning after the localpart after ("" from the start).
	Accounts(ctx context.Context, domain, after string, limit int) ([]jid.JID, error)
	// CountAccounts is the number of accounts of a domain.
	CountAccounts(ctx context.Context, domain string) (int, error)
	TokenStore
}

// TokenInfo is what may be told of a token, to the account's owner and to the operator.
type TokenInfo struct {
	Client    string    // ClientID of the user agent that it was issued to
	Mechanism string    // the one that it is for
	Software  string    // what the user agent said of itself; each at most 128 bytes of printable UTF-8, "" for nothing
	Device    string    //
	Issued    time.Time // all times in UTC, to the microsecond
	Expires   time.Time
	Used      time.Time // last use, as much as an hour earlier than it was; zero when it was never used
}

// StoredToken is what is kept of a token.
type StoredToken struct {
	TokenInfo
	Salt   []byte // 32 random bytes, by which the token is found among those of its client
	Sealed []byte // 32 bytes: the token's key, which only the id of the user agent opens
	Count  int64  // highest count that came with it (XEP-0484 §3.4), -1 for none
}

// TokenUse is what the use of a token leaves behind.
type TokenUse struct {
	At         time.Time
	Count      *uint32      // that came with it, nil for none
	Invalidate bool         // it is the last use
	Next       *StoredToken // a token that is issued to the same client, nil for none
}

// TokenStore keeps the tokens of FAST (XEP-0484): at most two for each client, one that was used and one that was not.
type TokenStore interface {
	// Tokens returns the tokens of one client of an account; none for an account that does not exist.
	Tokens(ctx context.Context, account jid.JID, client string) ([]StoredToken, error)
	// ListTokens returns what may be told of all tokens of an account, ordered by client and time of issue, or ErrNoAccount.
	ListTokens(ctx context.Context, account jid.JID) ([]TokenInfo, error)
	// AddToken puts a token into the place of the unused one of its client. Of too many clients that which was not heard of for the longest
	// time loses its tokens. proof is the verifier by which the client logged in; ErrOutdated when the account does not have it any more or
	// is disabled.
	AddToken(ctx context.Context, account jid.JID, t StoredToken, proof Verifier) error
	// UseToken notes the use of t, one of Tokens: the client's other tokens go if they were used or expire earlier. It returns ErrOutdated
	// when t is gone or the account is disabled, ErrReplayed when the count did not grow; then nothing is changed.
	UseToken(ctx context.Context, account jid.JID, t StoredToken, use TokenUse) error
	// DeleteTokens removes the tokens of one client, or with "" those of all, and returns how many there were, or ErrNoAccount.
	DeleteTokens(ctx context.Context, account jid.JID, client string) (int, error)
}
