package auth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// The conditions of RFC 6120 §6.5 that this package answers. The others are the caller's: aborted (§6.5.1) when the client sends
// <abort/>, encryption-required (§6.5.4) also for an <auth/> before TLS.
const (
	accountDisabled    = "account-disabled"       // §6.5.2: the password was right, and the account may not log in
	credentialsExpired = "credentials-expired"    // §6.5.3: the token was right, and its time is over
	encryptionRequired = "encryption-required"    // §6.5.4: a mechanism of ours without TLS
	incorrectEncoding  = "incorrect-encoding"     // §6.5.5: not base64
	invalidAuthzid     = "invalid-authzid"        // §6.5.6: an authorization identity other than the own account
	invalidMechanism   = "invalid-mechanism"      // §6.5.7: not a mechanism that was offered
	malformedRequest   = "malformed-request"      // §6.5.8: breaks the grammar of the mechanism
	mechanismTooWeak   = "mechanism-too-weak"     // §6.5.9: SCRAM without the channel binding that the client could do and we offered
	notAuthorized      = "not-authorized"         // §6.5.10: wrong password, unknown account, anything that does not verify
	temporaryFailure   = "temporary-auth-failure" // §6.5.11: the database is away, or too many wait to be verified
)

// Failure is a SASL failure (RFC 6120 §6.5). It is returned by value; use errors.As with a Failure.
type Failure struct {
	// Condition is the name of the element in <failure/>, for example "not-authorized".
	Condition string
	// Text is for <text/>: English, without anything that the client did not say itself; mostly empty.
	Text string
	// Unbound says that the exchange ended over channel binding before anything about a password was claimed: it is no guess. Clients that only
	// know tls-unique, or do not tell the lack of it from the lack of -PLUS, fail so with every SCRAM mechanism before they try PLAIN.
	Unbound bool

	cause error // for the log; holds no password, key, proof or nonce
}

// Error is for the log, never for the peer.
func (f Failure) Error() string {
	if f.cause == nil {
		return "SASL failure: " + f.Condition
	}
	return fmt.Sprintf("SASL failure: %s: %v", f.Condition, f.cause)
}

// Unwrap returns what made the exchange fail, nil when there is no more to say.
func (f Failure) Unwrap() error { return f.cause }

func fail(condition string, cause error) Failure { return Failure{Condition: condition, cause: cause} }

func failf(condition, format string, args ...any) Failure {
	return fail(condition, fmt.Errorf(format, args...))
}

// DecodeBase64 decodes the text of <auth/> or <response/>. present tells an absent response (no text) from an empty one (RFC 6120 §6.4.2:
// "="). The error is a Failure with incorrect-encoding.
func DecodeBase64(text string) (data []byte, present bool, err error) {
	if text == "" {
		return nil, false, nil
	}
	if text == "=" {
		return []byte{}, true, nil
	}
	data, err = decodeStrict(text)
	if err != nil {
		return nil, true, failf(incorrectEncoding, "response is not base64") // RFC 6120 §6.5.5
	}
	return data, true, nil
}

var errNotBase64 = errors.New("not base64")

// decodeStrict is base64 as RFC 6120 §6.3.5 and RFC 5802 §2.1 want it (RFC 4648 §4): with padding, unused bits zero, and without the
// line breaks that encoding/base64 passes over.
func decodeStrict(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, errNotBase64
	}
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errNotBase64
	}
	return data, nil
}
