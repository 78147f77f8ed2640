package xmpp

import "net/netip"

// Network is what limits by address count as one: of IPv6 the /64 that a customer gets as a rule (RFC 6177 §2), in which one machine has as many
// addresses as it likes. Loopback stays what it is.
func Network(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() && !a.IsLoopback() {
		p, _ := a.Prefix(64) // fails for no IPv6 address
		return p.Addr()
	}
	return a
}
