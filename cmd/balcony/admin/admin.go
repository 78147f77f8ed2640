// Package admin lets the command line talk to a running server: HTTP with JSON over a unix socket in the data folder. Who may open the
// socket, the server's own user and root, may do everything; there is no other authentication.
package admin

import (
	"context"
	"io"

	"balcony/cmd/balcony/pie"
	"balcony/xmpp/auth"
	"balcony/xmpp/router"
	"balcony/xmpp/s2s"

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
	// Sessions returns the bound resources of an account, in the order of binding, and its tokens (XEP-0484).
	Sessions(ctx context.Context, account jid.JID) ([]router.Description, []auth.TokenInfo, error)
	// Kick ends the session of a full JID, or those of an account, also such as wait for their client, and returns how many there were. With
	// tokens it revokes those of the sessions' clients as well, for a bare JID all of the account, and returns how many there were.
	Kick(ctx context.Context, who jid.JID, tokens bool) (sessions, revoked int, err error)
	// Export writes everything that is held on an account as XEP-0227. After auth.ErrNoAccount nothing was written.
	Export(ctx context.Context, account jid.JID, w io.Writer) error
	// Import makes the accounts of a document of XEP-0227. Those that it returns beside an error are complete.
	Import(ctx context.Context, r io.Reader) (pie.Imported, error)
}

// Federation is what the command line may ask about other servers.
type Federation interface {
	// Streams lists the streams with other servers and what waits for one.
	Streams(ctx context.Context) ([]s2s.Stream, error)
	// Explain says, line by line, how a stream from local, a domain of this server, to remote would be opened. An empty local is the default
	// domain.
	Explain(ctx context.Context, local, remote string) ([]string, error)
}

// request is the body of POST (add) and PUT (set the password) /accounts. DELETE /accounts and GET /accounts have query parameters:
// jid, and domain, after, limit; GET /sessions has jid, and DELETE /sessions jid and tokens. GET /export has jid and is answered with the document,
// and the trailer errorTrailer when that is not whole; POST /import takes one.
// GET /federation has nothing, and GET /federation/explain from and domain.
type request struct {
	JID      string `json:"jid"`
	Password string `json:"password"`
}

// answer is the body of every answer.
type answer struct {
	Error    string   `json:"error,omitempty"`
	Accounts []string `json:"accounts,omitempty"`

	Sessions []router.Description `json:"sessions,omitempty"`
	Tokens   []auth.TokenInfo     `json:"tokens,omitempty"`
	Ended    int                  `json:"ended,omitempty"`
	Revoked  int                  `json:"revoked,omitempty"`
	Imported *pie.Imported        `json:"imported,omitempty"` // also beside an error
	Streams  []s2s.Stream         `json:"streams,omitempty"`
	Lines    []string             `json:"lines,omitempty"`
}

// errorTrailer has the error of an export that had begun.
const errorTrailer = "Balcony-Error"

const (
	// maxRequest: a JID has at most 3071 bytes (RFC 7622 §3.1), a password at most 1023 (RFC 7613 §4.1 leaves it open; chosen like a
	// localpart), and JSON may need six bytes for one.
	maxRequest = 32 << 10
	// maxPage is how many accounts one answer lists. chosen: an answer stays below 4 MiB.
	maxPage = 1000
)
