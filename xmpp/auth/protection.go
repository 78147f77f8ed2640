package auth

import (
	"encoding/base64"
	"slices"
	"strings"
)

// offerText is what XEP-0474 §4.1 hashes: the mechanisms that a stream offered, and the types of channel binding that it announced
// (XEP-0440), none when it announced none. Both are sorted by octets, which is the order of Go's strings.
func offerText(mechanisms, bindings []string) string {
	const between, group = "\x1e", "\x1f"
	text := strings.Join(slices.Sorted(slices.Values(mechanisms)), between)
	if len(bindings) > 0 {
		text += group + strings.Join(slices.Sorted(slices.Values(bindings)), between)
	}
	return text
}

// protection is the optional attribute h of the server-first-message, with the comma before it (XEP-0474 §4.1): the hash of what was
// offered, made with the hash of the mechanism. The client's proof covers it, so nobody between can make the offer look weaker than it was.
func (h *scramHash) protection(offer string) string {
	if offer == "" {
		return ""
	}
	return ",h=" + base64.StdEncoding.EncodeToString(h.sum([]byte(offer)))
}
