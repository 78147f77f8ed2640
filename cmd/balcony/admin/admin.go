// Package admin lets the command line talk to a running server: HTTP with JSON over a unix socket in the data folder. Who may open the
// socket, the server's own user and root, may do everything; there is no other authentication.
package admin

import (
	"context"

	"mellium.im/xmpp/jid"
)

// Accounts is what the command line may do with accounts. Account addresses are bare JIDs. Errors are auth.ErrAccountExists and
// auth.ErrNoAccount, wrapped or not, or texts for the operator.
type Accounts interface {
	// Add makes an account.
	Add(ctx context.Context, account jid.JID, password string) error
	// SetPassword changes a password and ends the account's sessions.
	SetPassword(ctx context.Context, account jid.JID, password string) error
	// Delete removes an account with everything that is stored of it, and ends its sessions.
	Delete(ctx context.Context, account jid.JID) error
	// List returns up to limit accounts of a domain in the order of their localparts, beginning after the localpart after.
	List(ctx context.Context, domain, after string, limit int) ([]jid.JID, error)
}

// request is the body of POST (add) and PUT (set the password) /accounts. DELETE /accounts and GET /accounts have query parameters:
// jid, and domain, after, limit.
type request struct {
	JID      string `json:"jid"`
	Password string `json:"password"`
}

// answer is the body of every answer.
type answer struct {
	Error    string   `json:"error,omitempty"`
	Accounts []string `json:"accounts,omitempty"`
}

const (
	// maxRequest: a JID has at most 3071 bytes (RFC 7622 §3.1), a password at most 1023 (RFC 7613 §4.1 leaves it open; chosen like a
	// localpart), and JSON may need six bytes for one.
	maxRequest = 32 << 10
	// maxPage is how many accounts one answer lists. chosen: an answer stays below 4 MiB.
	maxPage = 1000
)
