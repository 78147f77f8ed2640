package auth

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"

	"mellium.im/sasl"
	"mellium.im/xmpp/jid"
)

// maxMessage is the longest response in bytes. chosen: the longest user name, the longest bare JID and a nonce fit, as do the three times
// 255 octets of RFC 4616 §2.
const maxMessage = 4096

// maxName is the longest user name in bytes: RFC 7622 §3.3, a localpart. RFC 4616 §2 wants 255 octets at least.
const maxName = 1023

// errEnded is returned by Step after the exchange has ended: a mistake of the caller.
var errEnded = errors.New("step of a SASL exchange that has ended")

// Exchange is one SASL exchange, from <auth/> to <success/> or <failure/>. It belongs to one goroutine at a time.
type Exchange struct {
	// Static after construction.
	auth        *Authenticator
	domain      string
	mechanism   string
	channel     Channel
	plusOffered bool   // was any mechanism with channel binding offered?
	offer       string // offerText of what the stream offered; "" leaves XEP-0474 out
	negotiator  *sasl.Negotiator
	// Of SASL2, zero with the SASL of RFC 6120.
	request     Request
	fastOffered []string // the mechanisms of FAST that were offered
	nonce       []byte   // in place of the negotiator's, in tests; nil

	// Of the exchange so far.
	asked   bool            // has the client been asked for its first message?
	ended   bool            // with success or failure
	ctx     context.Context // of the Step that runs, for what the negotiator calls
	refusal error           // why plain said no
	account jid.JID         // that was proved
	change  uint32          // of Authenticator.changes, before the verifiers were read
	used    Verifier        // by which it was proved, zero for a token
	token   *StoredToken    // by which it was proved, nil for a verifier
	next    *Token          // that takes the place of token, nil for none
}

// Step takes the client's initial response or response, decoded. present tells an absent response from an empty one (see DecodeBase64).
// While done is false challenge is to be sent and is not nil, though it may be empty. With done the client has authenticated, and
// challenge goes with <success/> unless it is nil.
//
// The error is a Failure, which ends the exchange, or that of ctx when ctx ended. Step may wait: for the database, for its turn to hash a
// password, and as long as Config.Wait after failed logins.
func (e *Exchange) Step(ctx context.Context, response []byte, present bool) (challenge []byte, done bool, err error) {
	if e.ended {
		return nil, false, errEnded
	}
	if !present && !e.asked && e.request.Fast == nil {
		// RFC 6120 §6.3.10, RFC 4422 §5: all our mechanisms begin with the client; one that sent nothing yet is asked for it by an empty
		// challenge.
		e.asked = true
		return []byte{}, false, nil
	}
	e.asked = true
	if len(response) > maxMessage {
		e.ended = true
		return nil, false, failf(malformedRequest, "response of %d bytes", len(response))
	}
	e.ctx = ctx
	more, challenge, err := e.negotiator.Step(response)
	e.ctx = nil
	if err != nil {
		e.ended = true
		return nil, false, e.translate(err)
	}
	e.ended = !more
	return challenge, !more, nil
}

// translate turns what the mechanism of the library says into a Failure; ours return one themselves.
func (e *Exchange) translate(err error) error {
	switch {
	case e.refusal != nil:
		return e.refusal
	case errors.Is(err, sasl.ErrInvalidChallenge):
		return fail(malformedRequest, err)
	case errors.Is(err, sasl.ErrAuthn):
		return fail(notAuthorized, err)
	}
	return err
}

// Mechanism is the name of the mechanism.
func (e *Exchange) Mechanism() string { return e.mechanism }

// Account is the bare JID of the account whose verifier the client's password matched, or whose token it has: the identity of the session (RFC 6120 §4.3.6). It
// is the zero JID before Step returned done.
func (e *Exchange) Account() jid.JID { return e.account }

// Outdated reports whether the account's verifiers, or whether it may log in, may have changed since this exchange looked. Who ends an
// account's sessions upon such a change asks after a new session has become known to be ended with them: a login that is under way
// during the change would escape otherwise.
func (e *Exchange) Outdated() bool { return e.auth.changes.of(e.account) != e.change }

// identify returns the account that a client claims to be. Nothing is looked up, so no answer tells whether the account exists.
func (e *Exchange) identify(name, authzid string) (jid.JID, error) {
	if len(name) > maxName { // before it is prepared
		return jid.JID{}, failf(notAuthorized, "user name of %d bytes", len(name))
	}
	// RFC 6120 §6.3.7: the user name is the localpart. RFC 7622 §3.3: prepared with the UsernameCaseMapped profile of RFC 8265.
	account, err := jid.New(name, e.domain, "")
	if err != nil || account.Localpart() == "" {
		return jid.JID{}, failf(notAuthorized, "user name is no localpart")
	}
	// RFC 8264 §7: preparing can have to be repeated. One spelling must not lead to another: such a name is none.
	if again, err := jid.New(account.Localpart(), e.domain, ""); err != nil || !again.Equal(account) {
		return jid.JID{}, failf(notAuthorized, "user name is no stable localpart")
	}
	if authzid != "" {
		// RFC 6120 §6.3.8: a bare JID, and here nobody acts for another.
		if id, err := jid.Parse(authzid); err != nil || !id.Equal(account) {
			return jid.JID{}, failf(invalidAuthzid, "authorization identity is not the account's bare JID")
		}
		// XEP-0388 §2.3: with SASL2 it has to be what the stream's from says, too.
		if from := e.request.From; from.String() != "" && !from.Bare().Equal(account) {
			return jid.JID{}, failf(invalidAuthzid, "authorization identity is not the stream's from")
		}
	}
	return account, nil
}

// credentials are those of an account, not to be changed; without verifiers for an account that does not exist.
func (a *Authenticator) credentials(ctx context.Context, account jid.JID) (Credentials, error) {
	key := account.String()
	c, ok, drops := a.recent.get(key)
	if ok {
		return c, nil
	}
	c, err := a.store.Credentials(ctx, account)
	if errors.Is(err, ErrNoAccount) {
		c, err = Credentials{}, nil
	}
	if err != nil {
		return Credentials{}, temporary(ctx, "read credentials", err)
	}
	a.recent.put(key, c, drops)
	return c, nil
}

// verifiers are credentials without what is asked only once a password is proved.
func (a *Authenticator) verifiers(ctx context.Context, account jid.JID) ([]Verifier, error) {
	c, err := a.credentials(ctx, account)
	return c.Verifiers, err
}

// begin waits until the back-off lets a try for account go on.
func (e *Exchange) begin(account jid.JID) (try, error) {
	t, wait, ok := e.auth.backoff.begin(e.channel.Remote, account.String())
	if !ok {
		f := failf(temporaryFailure, "too many failed logins from %s", e.channel.Remote)
		f.Text = "Too many failed logins from this address, try again later."
		return t, f
	}
	if err := sleep(e.ctx, wait); err != nil {
		return t, temporary(e.ctx, "wait after failed logins", err)
	}
	return t, nil
}

// admit lets the client in whose password matched used, a verifier of the account that was read when the changes were at change.
func (e *Exchange) admit(t try, account jid.JID, used Verifier, change uint32) error {
	a := e.auth
	now := a.changes.of(account)
	c, err := a.credentials(e.ctx, account)
	if err != nil {
		return err
	}
	if now != change {
		// The password was, or may have been, replaced since the verifier was read.
		v, ok := hashOf(used.Mechanism).pick(c.Verifiers)
		if !ok || subtle.ConstantTimeCompare(v.StoredKey, used.StoredKey) != 1 {
			return failf(notAuthorized, "password was changed during the login")
		}
		change = now
	}
	if c.Disabled {
		return failf(accountDisabled, "%s", account) // RFC 6120 §6.5.2; only who knows the password learns it
	}
	a.backoff.succeeded(t)
	e.account, e.change, e.used = account, change, used
	return nil
}

// mayLogIn is asked about an account whose token the client has proved.
func (e *Exchange) mayLogIn(account jid.JID) error {
	disabled, err := e.auth.store.AccountDisabled(e.ctx, account)
	switch {
	case errors.Is(err, ErrNoAccount):
		return failf(notAuthorized, "account was deleted during the login")
	case err != nil:
		return temporary(e.ctx, "read whether account is disabled", err)
	case disabled:
		return failf(accountDisabled, "%s", account) // RFC 6120 §6.5.2; only who knows the password learns it
	}
	return nil
}

// temporary is the error for an operation that failed for no fault of the client: that of ctx when ctx ended, else a Failure (RFC 6120
// §6.5.11).
func temporary(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", op, ctx.Err())
	}
	return fail(temporaryFailure, fmt.Errorf("%s: %w", op, err))
}
