package auth

import (
	"context"
	"unicode/utf8"

	"mellium.im/sasl"
	"mellium.im/xmpp/jid"
)

// plain is what the PLAIN mechanism of mellium.im/sasl, which has split the message (RFC 4616 §2), asks whether to let the client in.
func (e *Exchange) plain(n *sasl.Negotiator) bool {
	name, password, authzid := n.Credentials()
	e.refusal = e.checkPlain(string(name), string(password), string(authzid))
	return e.refusal == nil
}

func (e *Exchange) checkPlain(name, password, authzid string) error {
	// RFC 4616 §2: authcid and passwd are not empty; all is UTF-8. NUL separated the parts, so there is none in them.
	if name == "" || password == "" || !utf8.ValidString(name) || !utf8.ValidString(password) || !utf8.ValidString(authzid) {
		return failf(malformedRequest, "empty or not UTF-8")
	}
	account, err := e.identify(name, authzid)
	if err != nil {
		return err
	}
	t, err := e.begin(account)
	if err != nil {
		return err
	}
	change := e.auth.changes.of(account)
	v, right, err := e.auth.checkPassword(e.ctx, account, password)
	if err != nil {
		return err
	}
	if !right {
		e.auth.backoff.failed(t)
		return failf(notAuthorized, "wrong password, or no such account")
	}
	return e.admit(t, account, v, change)
}

// checkPassword reports whether password is that of account, and by which verifier: the strongest. It costs one PBKDF2 whether the
// account exists or not. The error is a Failure with temporary-auth-failure, or that of ctx.
func (a *Authenticator) checkPassword(ctx context.Context, account jid.JID, password string) (Verifier, bool, error) {
	all, err := a.verifiers(ctx, account)
	if err != nil {
		return Verifier{}, false, err
	}
	h := hashes[0]
	v, genuine := a.fake(h, account), false
	for _, candidate := range hashes {
		if found, ok := candidate.pick(all); ok {
			h, v, genuine = candidate, found, true
			break
		}
	}
	prepared, err := preparePassword(password)
	if err != nil {
		return v, false, nil // RFC 4616 §2: verification fails; it is no account's, so nothing is told by the time saved
	}
	if err := a.slots.acquire(ctx); err != nil {
		return v, false, temporary(ctx, "hash password", err)
	}
	salted, err := a.derive(h, prepared, v.Salt, v.Iterations)
	a.slots.release()
	if err != nil {
		return v, false, temporary(ctx, "hash password", err)
	}
	right := h.matches(v, h.mac(salted, "Client Key"))
	return v, right && genuine, nil
}
