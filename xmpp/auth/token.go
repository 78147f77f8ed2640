package auth

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"mellium.im/xmpp/jid"
)

const (
	tokenSize    = 32        // bytes of a token, and of the salt it is kept with; the draft wants 128 bits
	maxAgentText = 128       // bytes of software and device; chosen: a line in a list
	noCount      = -1        // no count came with a token yet
	usedAccuracy = time.Hour // chosen: a client that comes back every few seconds on a bad network makes no disk sync each time
)

// UserAgent is <user-agent/>: XEP-0388 §2.3.
type UserAgent struct {
	// ID is a UUID, "" for none. It is stable for an installation of a client, and as good as a secret: it opens what is stored of the
	// client's tokens. Never store or show it; ClientID names the client.
	ID string
	// Software and Device are what the client says of itself, of any length and content.
	Software, Device string
}

// Token is <token/>: XEP-0484 §3.3.
type Token struct {
	Secret string    // 43 characters of base64url
	Expiry time.Time // UTC, whole seconds
}

// ClientID names the client of an account that has the user agent with that id, the same way for ever: 32 hexadecimal digits, from which
// the id cannot be found. "" when the id is not a UUID.
func ClientID(account jid.JID, userAgentID string) string {
	id, ok := parseUUID(userAgentID)
	if !ok {
		return ""
	}
	sum := sha256.Sum256([]byte("balcony client\x00" + account.Bare().String() + "\x00" + string(id)))
	return hex.EncodeToString(sum[:16])
}

// ResourceName is what the client of an account that has the user agent with that id, a text of any length, has as its part of a resource, the same
// way for ever: 12 characters of base64url. Others see it, so it is made with the server's secret: who knows an id, or has a guess at it, cannot
// tell whether it is this one, and the same client has other names with other accounts (XEP-0386 §4: the id "MUST NOT be exposed").
func (a *Authenticator) ResourceName(account jid.JID, userAgentID string) string {
	id, ok := parseUUID(userAgentID)
	if !ok {
		id = []byte(userAgentID)
	}
	m := hmac.New(sha256.New, a.secret)
	m.Write([]byte("balcony resource\x00" + account.Bare().String() + "\x00")) // never fails
	m.Write(id)
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil)[:9])
}

// parseUUID returns the 16 bytes of a UUID in the form of RFC 9562 §4. XEP-0388 §2.3 asks for version 4, and its schema for the form only;
// those of another version protect stored tokens less well and everything else as well.
func parseUUID(text string) ([]byte, bool) {
	if len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return nil, false
	}
	id, err := hex.DecodeString(text[:8] + text[9:13] + text[14:18] + text[19:23] + text[24:])
	return id, err == nil
}

// pad is what the key of a token is covered with while it is stored.
//
// An HT mechanism is an HMAC with the token itself (draft-schmaus-kitten-sasl-ht-09 §3.1), or, of a token longer than the hash's block,
// with its SHA-256: whatever the server needs to verify it is enough to log in with. So what is stored is made useless by itself: the
// id of the user agent, 122 random bits that the client sends with each login (XEP-0484 §4.1) and that are stored nowhere, opens it. Who
// has a copy of the database has no token. The salt makes each pad another, and the account and the mechanism are part of it.
func pad(userAgentID []byte, account jid.JID, mechanism string, salt []byte) []byte {
	p, err := hkdf.Key(sha256.New, userAgentID, salt, "balcony FAST token\x00"+account.String()+"\x00"+mechanism, tokenSize)
	if err != nil {
		panic("auth: " + err.Error()) // only for a length that HKDF cannot make
	}
	return p
}

// newToken makes a token for a client of account.
func (a *Authenticator) newToken(account jid.JID, agent UserAgent, mechanism string, now time.Time) (Token, StoredToken) {
	id, _ := parseUUID(agent.ID)
	key, salt := make([]byte, tokenSize), make([]byte, tokenSize)
	rand.Read(key) // never fails
	rand.Read(salt)
	sealed := make([]byte, tokenSize)
	subtle.XORBytes(sealed, key, pad(id, account, mechanism, salt))
	// The client learns whole seconds (XEP-0082), so no more than these count.
	expiry := now.Add(a.cfg.TokenLifetime).UTC().Truncate(time.Second)
	info := TokenInfo{Client: ClientID(account, agent.ID), Mechanism: mechanism, Software: AgentText(agent.Software), Device: AgentText(agent.Device),
		Issued: now.UTC().Truncate(time.Microsecond), Expires: expiry}
	return Token{secretOf(key), expiry}, StoredToken{TokenInfo: info, Salt: salt, Sealed: sealed, Count: noCount}
}

// secretOf is the token string of a key.
func secretOf(key []byte) string { return base64.RawURLEncoding.EncodeToString(key) }

// AgentText makes what a client says of itself fit for a list on a terminal: printable, one line, at most maxAgentText bytes.
func AgentText(text string) string {
	text = strings.ToValidUTF8(text[:min(len(text), 4*maxAgentText)], "")
	text = strings.Join(strings.Fields(text), " ")
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), maxAgentText)], "")
}

// Tokens lists the tokens of an account, ordered by client and time of issue. The error wraps ErrNoAccount.
func (a *Authenticator) Tokens(ctx context.Context, account jid.JID) ([]TokenInfo, error) {
	all, err := a.store.ListTokens(ctx, account.Bare())
	if err != nil {
		return nil, fmt.Errorf("list tokens of %s: %w", account, err)
	}
	return all, nil
}

// RevokeTokens ends the tokens of one client of an account (a ClientID), or with "" those of all, and returns how many there were. The
// error wraps ErrNoAccount. Logins under way with one of them fail from then on, or are Outdated; it is for the caller to end sessions
// afterwards.
func (a *Authenticator) RevokeTokens(ctx context.Context, account jid.JID, client string) (int, error) {
	account = account.Bare()
	n, err := a.store.DeleteTokens(ctx, account, client)
	if err != nil {
		return 0, fmt.Errorf("revoke tokens of %s: %w", account, err)
	}
	a.changes.note(account)
	return n, nil
}

// Token returns the token that goes with <success/>, none when ok is false. After a login with a token it is the one that takes its place,
// if it was due for that or the client asked; after any other login a new one is made here, if the client asked for one (Request.Token).
// XEP-0484 §3.3: it must be called only when the client is fully authenticated, after all tasks, and at most once.
//
// The error is a Failure, or that of ctx. With not-authorized, what the client proved is not valid any more and the login must fail; with
// temporary-auth-failure only the token could not be stored, and the login may succeed without it.
func (e *Exchange) Token(ctx context.Context) (token Token, ok bool, err error) {
	switch {
	case e.account.String() == "": // not authenticated
		return Token{}, false, nil
	case e.token != nil:
		if e.next != nil {
			return *e.next, true, nil
		}
		return Token{}, false, nil
	case !e.wantsToken():
		return Token{}, false, nil
	}
	token, stored := e.auth.newToken(e.account, e.request.Agent, e.request.Token, time.Now())
	switch err := e.auth.store.AddToken(ctx, e.account, stored, e.used); {
	case errors.Is(err, ErrOutdated), errors.Is(err, ErrNoAccount):
		return Token{}, false, failf(notAuthorized, "account was changed during the login")
	case err != nil:
		return Token{}, false, temporary(ctx, "store token", err)
	}
	return token, true, nil
}

// wantsToken reports whether the client asked for a token that it could use here. XEP-0484 §3.2: for a mechanism that was advertised;
// §4.1: and with a user agent's id. Who asks for anything else gets none.
func (e *Exchange) wantsToken() bool {
	_, identified := parseUUID(e.request.Agent.ID)
	return identified && slices.Contains(e.fastOffered, e.request.Token)
}
