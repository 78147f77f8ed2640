package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"mellium.im/sasl"
	"mellium.im/xmpp/jid"
)

// htBindings are the HT mechanisms with SHA-256 (draft-schmaus-kitten-sasl-ht-09 §2), strongest first, each with its type of channel
// binding, "" for none.
//
// HT-SHA-256-NONE is offered because XEP-0484 §3.1 asks for one mechanism without channel binding, for clients whose platform gives them
// none (browsers). It makes the others no weaker: a token works with the mechanism only that it was requested for (§3.4), so nobody
// between can make a client with a bound token log in without the binding. What it lacks is protection against somebody who already
// reads inside TLS (§6), and he could take the session, or a password from PLAIN, as well.
var htBindings = []struct{ mechanism, binding string }{
	{"HT-SHA-256-EXPR", tlsExporter},
	{"HT-SHA-256-UNIQ", tlsUnique},
	{"HT-SHA-256-ENDP", tlsServerEndPoint},
	{"HT-SHA-256-NONE", ""},
}

// FastMechanisms returns the mechanisms that log in with a token (XEP-0484 §3.1) for a connection, strongest first; none without TLS. Those
// with channel binding are there when the binding works on this connection: HT-SHA-256-UNIQ never with TLS 1.3. There is no early data
// (0-RTT) with crypto/tls, so <fast/> has no tls-0rtt.
func (a *Authenticator) FastMechanisms(ch Channel) []string {
	if !ch.secure() || !htAllows(ch) {
		return nil // XEP-0484 §6: only over a secure connection
	}
	var names []string
	for _, b := range htBindings {
		if b.binding == "" || hasBinding(ch, b.binding) {
			names = append(names, b.mechanism)
		}
	}
	return names
}

// htAllows is draft-schmaus-kitten-sasl-ht-09 §6: the session hash extension (RFC 7627), which TLS 1.3 always has, or no resumption.
// Without the extension crypto/tls exports no key material.
func htAllows(ch Channel) bool {
	return ch.TLS == nil || ch.TLS.Version >= tls.VersionTLS13 || !ch.TLS.DidResume || hasBinding(ch, tlsExporter)
}

// htData returns the values that the channel binding of an HT mechanism may have on a connection; none when it does not work there or is
// no mechanism.
func htData(ch Channel, mechanism string) [][]byte {
	for _, b := range htBindings {
		switch {
		case b.mechanism != mechanism:
		case b.binding == "":
			return [][]byte{nil}
		default:
			return bindingData(ch, b.binding)
		}
	}
	return nil
}

// ht is the server's side of an HT mechanism in one exchange.
type ht struct {
	exchange *Exchange
	agent    []byte   // the user agent's id
	bindings [][]byte // the values that the channel binding may have
}

func (h ht) mechanism() sasl.Mechanism {
	return sasl.Mechanism{Name: h.exchange.mechanism, Next: h.next}
}

// next is called by the negotiator, once: draft-schmaus-kitten-sasl-ht-09 §3.
func (h ht) next(n *sasl.Negotiator, response []byte, _ any) (more bool, challenge []byte, _ any, err error) {
	if n.State()&sasl.StepMask != sasl.AuthTextSent {
		return false, nil, nil, sasl.ErrTooManySteps
	}
	name, proof, err := parseHT(response)
	if err != nil {
		return false, nil, nil, err
	}
	challenge, err = h.verify(name, proof)
	return false, challenge, nil, err
}

// parseHT takes an initiator-msg apart: draft-schmaus-kitten-sasl-ht-09 §3.1. The hashed token is any octets, NUL too.
func parseHT(message []byte) (name string, proof []byte, err error) {
	name, rest, found := strings.Cut(string(message), "\x00")
	if !found || name == "" || rest == "" || !utf8.ValidString(name) {
		return "", nil, malformed("initiator-msg")
	}
	return name, []byte(rest), nil
}

// htMAC is HMAC of draft-schmaus-kitten-sasl-ht-09 §3.1: the key is the token as a string.
func htMAC(key []byte, role string, binding []byte) []byte {
	m := hmac.New(sha256.New, []byte(secretOf(key)))
	m.Write([]byte(role)) // never fails
	m.Write(binding)
	return m.Sum(nil)
}

// verify answers a hashed token with the responder-msg.
func (h ht) verify(name string, proof []byte) ([]byte, error) {
	e := h.exchange
	account, err := e.identify(name, "")
	if err != nil {
		return nil, err
	}
	t, err := e.begin(account)
	if err != nil {
		return nil, err
	}
	change := e.auth.changes.of(account)
	client := ClientID(account, e.request.Agent.ID)
	all, err := e.auth.store.Tokens(e.ctx, account, client)
	if err != nil {
		return nil, temporary(e.ctx, "read tokens", err)
	}
	token, reply := h.match(account, all, proof)
	if token == nil {
		// RFC 6120 §6.5.10: no token, another's, one for another mechanism, a wrong one, no such account: all look alike.
		e.auth.backoff.failed(t)
		return nil, failf(notAuthorized, "wrong token, or no such account")
	}
	now := time.Now()
	if !now.Before(token.Expires) {
		// XEP-0484 §4.2. Only who has the token learns that its time is over.
		return nil, failf(credentialsExpired, "token expired at %s", token.Expires)
	}
	if err := h.admit(t, account, *token, all, change, now); err != nil {
		return nil, err
	}
	return reply, nil
}

// match returns the token, of those of a client, that a hashed token was made with, and the responder-msg; nil for none. It computes the
// same for every account, whether it exists or has tokens or not.
func (h ht) match(account jid.JID, all []StoredToken, proof []byte) (token *StoredToken, reply []byte) {
	for i := range max(len(all), 2) {
		stored := StoredToken{Salt: make([]byte, tokenSize), Sealed: make([]byte, tokenSize)}
		genuine := i < len(all) && len(all[i].Sealed) == tokenSize
		if genuine {
			stored = all[i]
		}
		key := make([]byte, tokenSize)
		subtle.XORBytes(key, stored.Sealed, pad(h.agent, account, h.exchange.mechanism, stored.Salt))
		for _, binding := range h.bindings {
			right := subtle.ConstantTimeCompare(htMAC(key, "Initiator", binding), proof) == 1
			answer := htMAC(key, "Responder", binding)
			// XEP-0484 §3.4: a token is bound to the mechanism that it was requested for.
			if right && genuine && stored.Mechanism == h.exchange.mechanism {
				token, reply = &stored, answer
			}
		}
	}
	return token, reply
}

// admit lets the client in that has token, one of all, which were read when the changes were at change.
func (h ht) admit(t try, account jid.JID, token StoredToken, all []StoredToken, change uint32, now time.Time) error {
	e := h.exchange
	if err := e.mayLogIn(account); err != nil {
		return err
	}
	use, next := h.use(account, token, now)
	change, err := h.note(account, token, all, use, change)
	switch {
	case errors.Is(err, ErrReplayed):
		// XEP-0484 §3.4: a count that does not grow MUST be rejected.
		e.auth.backoff.failed(t)
		return failf(notAuthorized, "count of the token did not grow")
	case errors.Is(err, ErrOutdated), errors.Is(err, ErrNoAccount):
		return failf(notAuthorized, "token was revoked during the login")
	case err != nil:
		return temporary(e.ctx, "note use of token", err)
	}
	e.auth.backoff.succeeded(t)
	e.account, e.change, e.token, e.next = account, change, &token, next
	return nil
}

// use is what the use of token leaves behind, and the token that takes its place, nil for none.
func (h ht) use(account jid.JID, token StoredToken, now time.Time) (TokenUse, *Token) {
	e := h.exchange
	use := TokenUse{At: now, Count: e.request.Fast.Count, Invalidate: e.request.Fast.Invalidate}
	mechanism := ""
	switch {
	case e.wantsToken():
		mechanism = e.request.Token
	case use.Invalidate:
		// XEP-0484 §3.6: MUST NOT include a new token, even if the token was due for rotation.
	case now.Sub(token.Issued) >= e.auth.cfg.TokenRotation:
		mechanism = token.Mechanism // XEP-0484 §3.5
	}
	if mechanism == "" {
		return use, nil
	}
	next, stored := e.auth.newToken(account, e.request.Agent, mechanism, now)
	use.Next = &stored
	return use, &next
}

// note makes the store note a use. One that leaves nothing behind but its time costs no write, if the time was noted not long ago. The token
// was read when the changes were at change; note returns where they were when it was last seen.
func (h ht) note(account jid.JID, token StoredToken, all []StoredToken, use TokenUse, change uint32) (uint32, error) {
	e := h.exchange
	latest := e.auth.changes.of(account)
	rest := use.At.Sub(token.Used)
	if len(all) > 1 || use.Count != nil || use.Invalidate || use.Next != nil || token.Used.IsZero() || rest < 0 || rest > usedAccuracy {
		return latest, e.auth.store.UseToken(e.ctx, account, token, use)
	}
	if latest == change {
		return change, nil
	}
	again, err := e.auth.store.Tokens(e.ctx, account, token.Client)
	if err != nil {
		return change, err
	}
	for _, other := range again {
		if subtle.ConstantTimeCompare(other.Salt, token.Salt) == 1 {
			return latest, nil
		}
	}
	return change, ErrOutdated
}
