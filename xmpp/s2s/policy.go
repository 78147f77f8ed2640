package s2s

import "strings"

// Policy says which domains this server talks to, and what they have to prove.
type Policy struct {
	// Dialback accepts any certificate and lets the peer prove its domain by dialback over TLS (XEP-0220); else the certificate must be valid for it.
	Dialback bool
	// Blocked are domains that are never talked to, with their subdomains.
	Blocked []string
	// Allowed, when not empty, are the only domains that are talked to, with their subdomains.
	Allowed []string
	// Peers are the exceptions for single domains and their subdomains; the longest name counts.
	Peers []Peer
}

// Peer is what is different for one domain.
type Peer struct {
	Domain    string
	Auth      Auth
	Addresses []Address // in place of DNS, tried in order; empty: DNS
}

// Auth is what a peer has to prove its domain with.
type Auth uint8

// The values of Auth.
const (
	AsPolicy        Auth = iota // what Policy.Dialback says
	WithCertificate             // a certificate that is valid for the domain
	WithDialback                // dialback over TLS with any certificate
)

// Address is where a server listens.
type Address struct {
	HostPort  string
	DirectTLS bool // XEP-0368
}

// allowed reports whether domain is talked to.
func (p *Policy) allowed(domain string) bool {
	for _, b := range p.Blocked {
		if within(domain, b) {
			return false
		}
	}
	for _, a := range p.Allowed {
		if within(domain, a) {
			return true
		}
	}
	return len(p.Allowed) == 0
}

// dialback reports whether domain may prove itself without a valid certificate.
func (p *Policy) dialback(domain string) bool {
	auth, most := AsPolicy, -1
	for _, e := range p.Peers {
		if e.Auth != AsPolicy && len(e.Domain) > most && within(domain, e.Domain) {
			auth, most = e.Auth, len(e.Domain)
		}
	}
	if auth == AsPolicy {
		return p.Dialback
	}
	return auth == WithDialback
}

// route is where domain is found without DNS.
func (p *Policy) route(domain string) (list []Address) {
	most := -1
	for _, e := range p.Peers {
		if len(e.Addresses) > 0 && len(e.Domain) > most && within(domain, e.Domain) {
			list, most = e.Addresses, len(e.Domain)
		}
	}
	return list
}

// within reports whether domain is of or below it.
func within(domain, of string) bool {
	return domain == of || strings.HasSuffix(domain, of) && domain[len(domain)-len(of)-1] == '.'
}
