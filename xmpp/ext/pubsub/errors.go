package pubsub

import (
	"errors"

	"balcony/xmpp"

	"mellium.im/xmpp/stanza"
)

// fail is a stanza error with the pubsub-specific condition of XEP-0060 §11; local may be empty.
func fail(t stanza.ErrorType, c stanza.Condition, local string, attrs ...string) error {
	e := xmpp.Error{Stanza: xmpp.Fail(t, c, "")}
	if local != "" {
		e.Detail = xmpp.El(NSErrors, local, attrs...)
	}
	return e
}

// The errors of XEP-0060, each with the section that wants it.
var (
	errNodeRequired     = fail(stanza.Modify, stanza.BadRequest, "nodeid-required")             // §8.2.3.3
	errItemRequired     = fail(stanza.Modify, stanza.BadRequest, "item-required")               // §7.1.3.6, §7.2.3.4
	errItemForbidden    = fail(stanza.Modify, stanza.BadRequest, "item-forbidden")              // §7.1.3.6
	errPayloadRequired  = fail(stanza.Modify, stanza.BadRequest, "payload-required")            // §7.1.3.6
	errInvalidPayload   = fail(stanza.Modify, stanza.BadRequest, "invalid-payload")             // §7.1.3.5
	errPayloadTooBig    = fail(stanza.Modify, stanza.NotAcceptable, "payload-too-big")          // §7.1.3.4
	errNodeFull         = fail(stanza.Cancel, stanza.Conflict, "node-full")                     // §7.1.3.4
	errPrecondition     = fail(stanza.Cancel, stanza.Conflict, "precondition-not-met")          // §7.1.5
	errInvalidJID       = fail(stanza.Modify, stanza.BadRequest, "invalid-jid")                 // §6.1.3.1
	errJIDRequired      = fail(stanza.Modify, stanza.BadRequest, "jid-required")                // §6.3.4.3
	errInvalidSubID     = fail(stanza.Modify, stanza.NotAcceptable, "invalid-subid")            // §6.2.3.5
	errInvalidOptions   = fail(stanza.Modify, stanza.BadRequest, "invalid-options")             // §6.3.6.2
	errPending          = fail(stanza.Auth, stanza.NotAuthorized, "pending-subscription")       // §6.1.3.7
	errNotSubscriber    = fail(stanza.Cancel, stanza.UnexpectedRequest, "not-subscribed")       // §6.2.3.2
	errTooMany          = fail(stanza.Wait, stanza.PolicyViolation, "too-many-subscriptions")   // §6.1.3.9
	errUnsupportedModel = fail(stanza.Modify, stanza.NotAcceptable, "unsupported-access-model") // §8.1.2
	errMaxNodes         = fail(stanza.Cancel, stanza.Conflict, "max-nodes-exceeded")            // §11, the schema of pubsub#errors
	errNoCollections    = unsupported("collections")
)

// unsupported is the error for a feature that a node or the service does not have.
func unsupported(feature string) error {
	return fail(stanza.Cancel, stanza.FeatureNotImplemented, "unsupported", "feature", feature)
}

// refusal is the error for a verdict, nil for one that lets the entity.
func (v verdict) refusal() error {
	switch v {
	case allowed, pending:
		return nil
	case presenceRequired:
		return fail(stanza.Auth, stanza.NotAuthorized, "presence-subscription-required")
	case notInGroup:
		return fail(stanza.Auth, stanza.NotAuthorized, "not-in-roster-group")
	case closed:
		return fail(stanza.Cancel, stanza.NotAllowed, "closed-node")
	case notSubscribed:
		return fail(stanza.Auth, stanza.NotAuthorized, "not-subscribed")
	}
	return xmpp.ErrForbidden
}

// storeError is what the one who asked is told of an error of the store.
func storeError(err error) error {
	switch {
	case errors.Is(err, ErrNoNode):
		return xmpp.ErrItemNotFound
	case errors.Is(err, ErrExists):
		return xmpp.ErrConflict // XEP-0060 §8.1.1
	case errors.Is(err, ErrNodeFull):
		return errNodeFull
	case errors.Is(err, ErrMaxNodes):
		return errMaxNodes
	case errors.Is(err, ErrFull):
		return xmpp.ErrResourceConstraint
	case errors.Is(err, ErrLast):
		return xmpp.ErrNotAcceptable // XEP-0060 §8.9.2.4
	case errors.Is(err, ErrAccount):
		return xmpp.ErrServiceUnavailable
	}
	return err
}
