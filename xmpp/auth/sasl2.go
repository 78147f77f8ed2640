package auth

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"mellium.im/sasl"
	"mellium.im/xmpp/jid"
)

// Request is what a client says with SASL2 (XEP-0388 §2.3) beside the mechanism and its first message.
type Request struct {
	From  jid.JID   // of the stream header, the zero JID for none
	Agent UserAgent // <user-agent/>
	Token string    // mechanism of <request-token/> (XEP-0484 §3.2), "" for none
	Fast  *Fast     // <fast/> (XEP-0484 §3.4), nil for none
}

// Fast is <fast/>, with which a client says that it logs in with a token: XEP-0484 §3.4 and §3.6.
type Fast struct {
	Count      *uint32 // nil for none
	Invalidate bool    // the token is to be used for the last time
}

// ParseFast reads the attributes of <fast/>, each "" when it is not there. The error is a Failure with malformed-request.
func ParseFast(count, invalidate string) (*Fast, error) {
	var f Fast
	if count != "" {
		// The schema says xs:int, of which XEP-0484 §3.4 leaves the positive ones; 0 is let pass, as a token without a use may count from it.
		n, err := strconv.ParseUint(count, 10, 31)
		if err != nil {
			return nil, malformed("count of fast")
		}
		c := uint32(n)
		f.Count = &c
	}
	switch invalidate { // xs:boolean
	case "", "0", "false":
	case "1", "true":
		f.Invalidate = true
	default:
		return nil, malformed("invalidate of fast")
	}
	return &f, nil
}

// StartSASL2 begins an exchange like Start, with SASL2. offered are the mechanisms in <authentication/> (Mechanisms), fast those in its
// <fast/> (FastMechanisms). A client that sends <fast/> has to use one of the latter, and one of the former otherwise.
//
// Step takes <initial-response/> and <response/>, decoded with DecodeData; with done the challenge is <additional-data/> unless it is nil.
// Then come the tasks (Upgrades), if any, and Token. An exchange with a token ends with its first Step, in success or failure.
//
// The error is a Failure: what Start says, and malformed-request for <fast/> without a user agent's id.
func (a *Authenticator) StartSASL2(ctx context.Context, domain, mechanism string, ch Channel, offered, fast []string, r Request) (*Exchange, error) {
	if r.Fast == nil {
		e, err := a.Start(ctx, domain, mechanism, ch, offered)
		if err != nil {
			return nil, err
		}
		e.request, e.fastOffered = r, fast
		return e, nil
	}
	e := &Exchange{auth: a, domain: domain, mechanism: mechanism, channel: ch, request: r, fastOffered: fast}
	if !ch.secure() {
		return nil, failf(encryptionRequired, "%s without TLS", mechanism) // XEP-0484 §6
	}
	bindings := htData(ch, mechanism)
	if bindings == nil || !slices.Contains(fast, mechanism) {
		return nil, failf(invalidMechanism, "%s was not offered for tokens", mechanism) // XEP-0388 §2.3: MUST fail
	}
	agent, ok := parseUUID(r.Agent.ID)
	if !ok {
		return nil, failf(malformedRequest, "fast without the id of a user agent") // XEP-0484 §4.1: MUST provide it
	}
	e.negotiator = sasl.NewServer(ht{exchange: e, agent: agent, bindings: bindings}.mechanism(), nil)
	return e, nil
}

// DecodeData decodes the text of an element of SASL2 that is there (XEP-0388 §2.2): no text is an empty string, and "=" is not special.
// Whitespace around it, which clients should leave out, is passed over. The error is a Failure with incorrect-encoding.
func DecodeData(text string) ([]byte, error) {
	data, err := decodeStrict(strings.Trim(text, " \t\r\n"))
	if err != nil {
		return nil, failf(incorrectEncoding, "data are not base64")
	}
	return data, nil
}
