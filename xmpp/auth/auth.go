// Package auth is SASL for the server (RFC 6120 §6): SCRAM (RFC 5802, RFC 7677) with SHA-512, SHA-256 and SHA-1, each with and without
// channel binding, and PLAIN (RFC 4616), on stored verifiers (RFC 5802 §3). No password is ever stored, and the identity of a session is
// what a verifier proved and nothing else.
//
// For SASL2 (XEP-0388) there are the HT mechanisms with the tokens of FAST (XEP-0484) and the SCRAM upgrade tasks (XEP-0480) as well.
//
// The mechanisms run in the Negotiator of mellium.im/sasl. Its own server side of SCRAM is not used: it wants the salted password, cannot
// do channel binding and puts the StoredKey into the text of an error.
package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"

	"mellium.im/sasl"
)

// plainMechanism is the name of the one mechanism that sends the password to the server.
const plainMechanism = "PLAIN"

// plus ends the name of a SCRAM mechanism with channel binding (RFC 5802 §4).
const plus = "-PLUS"

// Authenticator runs the SASL exchanges of all connections of a server, and makes verifiers. Its methods may be called from any goroutine.
type Authenticator struct {
	// Static after construction.
	store   Store
	secret  []byte
	cfg     Config
	slots   *slots
	backoff *backoff
	changes *changes
	recent  recent
	derive  derivation // deriveKey; tests count its work
}

// New returns an Authenticator of the accounts in store. secret are at least 32 random bytes that the server keeps for ever: the salts
// that unknown accounts seem to have are made of it. A Config field out of its range is brought into it.
func New(store Store, secret []byte, cfg Config) *Authenticator {
	cfg = cfg.clamp()
	return &Authenticator{
		store:   store,
		secret:  slices.Clone(secret),
		cfg:     cfg,
		slots:   newSlots(cfg.PlainConcurrency, cfg.PlainQueue),
		backoff: newBackoff(cfg.Delay, cfg.Wait),
		changes: newChanges(),
		derive:  deriveKey,
	}
}

// Channel is what SASL must know of a connection.
type Channel struct {
	// TLS is the state of its TLS, nil without TLS or when that is not the client's own.
	TLS *tls.ConnectionState
	// Secure tells of a connection without TLS here that nobody else can read: TLS ends at a proxy, or the client is on this machine. There
	// is no channel binding on it.
	Secure bool
	// Cert is the leaf certificate that the server presented, for tls-server-end-point; nil for none.
	Cert *x509.Certificate
	// Remote is the client's address, for the back-off. Loopback, and the zero Addr of a client without an address, are exempt from the
	// part of the back-off that goes by address.
	Remote netip.Addr
}

func (ch Channel) secure() bool { return ch.TLS != nil || ch.Secure }

// Mechanisms returns the mechanisms of a connection in the server's order of preference (RFC 6120 §6.3.3), and none without TLS. It is
// the list to offer, and the list to give to Start: there is no mechanism beside those that were offered.
func (a *Authenticator) Mechanisms(ch Channel) []string {
	if !ch.secure() {
		return nil // RFC 6120 §6.3.4: nothing is offered before TLS
	}
	var names []string
	// XEP-0438 §5.1 orders by channel binding first; within that the stronger hash comes first.
	if len(a.ChannelBindings(ch)) > 0 {
		for _, h := range hashes {
			names = append(names, h.name+plus)
		}
	}
	for _, h := range hashes {
		names = append(names, h.name)
	}
	return append(names, plainMechanism)
}

// Start begins an exchange of mechanism on a stream of domain, one of the domains that the server serves. offered are the mechanisms that
// this connection was offered in the profile that the client uses (SASL of RFC 6120, or SASL2); the types of channel binding that it
// announced with XEP-0440 have to be those of ChannelBindings. SCRAM protects both lists (XEP-0474). The error is a Failure:
// encryption-required for a mechanism of ours without TLS, invalid-mechanism for one that was not offered.
func (a *Authenticator) Start(_ context.Context, domain, mechanism string, ch Channel, offered []string) (*Exchange, error) {
	e := &Exchange{auth: a, domain: domain, mechanism: mechanism, channel: ch}
	e.plusOffered = slices.ContainsFunc(offered, func(name string) bool { return strings.HasSuffix(name, plus) })
	var m sasl.Mechanism
	if h := hashOf(mechanism); h != nil {
		m = scram{exchange: e, hash: h, plus: strings.HasSuffix(mechanism, plus)}.mechanism()
	} else if mechanism == plainMechanism {
		m = sasl.Plain
	} else {
		return nil, failf(invalidMechanism, "unknown mechanism") // RFC 6120 §6.5.7
	}
	if !ch.secure() {
		return nil, failf(encryptionRequired, "%s without TLS", mechanism) // RFC 6120 §6.5.4
	}
	if !slices.Contains(offered, mechanism) {
		return nil, failf(invalidMechanism, "%s was not offered", mechanism) // RFC 6120 §6.5.7
	}
	if mechanism != plainMechanism {
		e.offer = offerText(offered, a.ChannelBindings(ch))
	}
	e.negotiator = sasl.NewServer(m, e.plain)
	return e, nil
}
