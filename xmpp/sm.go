package xmpp

import (
	"fmt"
	"strconv"

	"mellium.im/xmpp/stanza"
	streamerr "mellium.im/xmpp/stream"
)

// NSSM is the namespace of stream management (XEP-0198), which clients and servers speak alike.
const NSSM = "urn:xmpp:sm:3"

// SMFailed is <failed/> (XEP-0198 §7). h is how many stanzas of the peer were handled, "" where that is not known.
func SMFailed(c stanza.Condition, h string) *Element {
	return El(NSSM, "failed", "h", h).Add(El(NSStanzas, string(c)))
}

// SMTooHigh is the stream error for an h that was never reached, and its application-specific condition: XEP-0198 §7.
func SMTooHigh(h, sent uint32) (e streamerr.Error, detail *Element) {
	return StreamText(streamerr.UndefinedCondition, fmt.Sprintf("You acknowledged %d stanzas, but I only sent you %d so far.", h, sent)),
		El(NSSM, "handled-count-too-high", "h", strconv.FormatUint(uint64(h), 10), "send-count", strconv.FormatUint(uint64(sent), 10))
}

// StreamText is a stream error with a text for people (RFC 6120 §4.9.2).
func StreamText(e streamerr.Error, text string) streamerr.Error {
	e.Text = append(e.Text[:0:0], struct{ Lang, Value string }{"en", text})
	return e
}
