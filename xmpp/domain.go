package xmpp

import (
	"strings"

	"golang.org/x/net/idna"
)

// ASCII is the form of a domain name that DNS, handshakes and certificates use (RFC 5890 §2.3.2.1).
func ASCII(domain string) string {
	name := strings.TrimSuffix(strings.ToLower(domain), ".")
	for i := range len(name) {
		if name[i] >= 0x80 {
			if a, err := idna.Lookup.ToASCII(name); err == nil {
				return a
			}
			break
		}
	}
	return name
}
