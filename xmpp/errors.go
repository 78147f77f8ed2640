package xmpp

import (
	"errors"

	"mellium.im/xmpp/stanza"
)

// ErrDrop ends the handling of a stanza without an answer.
var ErrDrop = errors.New("stanza dropped")

// Error is a stanza error with an application-specific condition (RFC 6120 §8.3.4). A plain stanza.Error serves where there is none.
type Error struct {
	Stanza stanza.Error
	Detail *Element // the application-specific condition, may be nil
}

// Error is the text of the stanza error.
func (e Error) Error() string { return e.Stanza.Error() }

// Unwrap gives errors.As the stanza.Error.
func (e Error) Unwrap() error { return e.Stanza }

// Fail makes a stanza error; text is for people and may be empty. It must not carry SQL, paths or keys.
func Fail(t stanza.ErrorType, c stanza.Condition, text string) stanza.Error {
	e := stanza.Error{Type: t, Condition: c}
	if text != "" {
		e.Text = map[string]string{"en": text}
	}
	return e
}

// The stanza errors that many places give (RFC 6120 §8.3.3); the error types are those that the RFC recommends.
var (
	ErrBadRequest         = Fail(stanza.Modify, stanza.BadRequest, "")
	ErrConflict           = Fail(stanza.Cancel, stanza.Conflict, "")
	ErrFeatureNotImpl     = Fail(stanza.Cancel, stanza.FeatureNotImplemented, "")
	ErrForbidden          = Fail(stanza.Auth, stanza.Forbidden, "")
	ErrInternal           = Fail(stanza.Wait, stanza.InternalServerError, "")
	ErrItemNotFound       = Fail(stanza.Cancel, stanza.ItemNotFound, "")
	ErrJIDMalformed       = Fail(stanza.Modify, stanza.JIDMalformed, "")
	ErrNotAcceptable      = Fail(stanza.Modify, stanza.NotAcceptable, "")
	ErrNotAllowed         = Fail(stanza.Cancel, stanza.NotAllowed, "")
	ErrNotAuthorized      = Fail(stanza.Auth, stanza.NotAuthorized, "")
	ErrPolicyViolation    = Fail(stanza.Modify, stanza.PolicyViolation, "")
	ErrRemoteNotFound     = Fail(stanza.Cancel, stanza.RemoteServerNotFound, "")
	ErrRemoteTimeout      = Fail(stanza.Wait, stanza.RemoteServerTimeout, "")
	ErrResourceConstraint = Fail(stanza.Wait, stanza.ResourceConstraint, "")
	ErrServiceUnavailable = Fail(stanza.Cancel, stanza.ServiceUnavailable, "")
	ErrUnexpectedRequest  = Fail(stanza.Wait, stanza.UnexpectedRequest, "")
)

// legacyCodes are XEP-0086's numbers, which some clients still read (Profanity publishes its first device list only on 404).
var legacyCodes = map[stanza.Condition]string{
	stanza.BadRequest: "400", stanza.Conflict: "409", stanza.FeatureNotImplemented: "501", stanza.Forbidden: "403", stanza.Gone: "302",
	stanza.InternalServerError: "500", stanza.ItemNotFound: "404", stanza.JIDMalformed: "400", stanza.NotAcceptable: "406",
	stanza.NotAllowed: "405", stanza.NotAuthorized: "401", stanza.PolicyViolation: "405", stanza.RecipientUnavailable: "404",
	stanza.Redirect: "302", stanza.RegistrationRequired: "407", stanza.RemoteServerNotFound: "404", stanza.RemoteServerTimeout: "504",
	stanza.ResourceConstraint: "500", stanza.ServiceUnavailable: "503", stanza.SubscriptionRequired: "407",
	stanza.UndefinedCondition: "500", stanza.UnexpectedRequest: "400",
}

// AsStanzaError finds the stanza error in err. What is none becomes internal-server-error without text: such an error's own words
// are for the log only.
func AsStanzaError(err error) (e Error, expected bool) {
	if errors.As(err, &e) {
		return e, true
	}
	var se stanza.Error
	if errors.As(err, &se) {
		return Error{Stanza: se}, true
	}
	return Error{Stanza: ErrInternal}, false
}

// ErrorElement is the <error/> child of an error stanza (RFC 6120 §8.3.2) with the legacy code of XEP-0086.
func ErrorElement(err error) *Element {
	e, _ := AsStanzaError(err)
	st := e.Stanza
	el := El("", "error", "type", string(st.Type), "code", legacyCodes[st.Condition], "by", st.By.String())
	el.Add(El(NSStanzas, string(st.Condition)))
	for lang, text := range st.Text {
		el.Add(El(NSStanzas, "text", "xml:lang", lang).Say(text))
	}
	return el.Add(e.Detail)
}
