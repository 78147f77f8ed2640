// Package ping implements XEP-0199: XMPP Ping 2.0.1, the answering side. Pings of the server's own are sent by package c2s.
package ping

import (
	"context"

	"balcony/xmpp"

	"mellium.im/xmpp/stanza"
)

// NS is the namespace of the payload and the disco feature.
const NS = "urn:xmpp:ping" // XEP-0199 §3

// Module answers pings to the server and to the asker's own account. A ping to anybody else's bare JID is answered as if there were no such
// account, one to a full JID is the client's to answer.
type Module struct{}

var _ xmpp.Module = Module{}

// Protocol lists XEP-0199.
func (Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{{XEP: 199, Version: "2.0.1", Status: xmpp.Complete}}
}

// Register adds the handlers.
func (Module) Register(r *xmpp.Registry) {
	// XEP-0199 §4.2: a client pings the domain, its own bare JID, or sends no to address.
	for _, to := range []xmpp.Address{xmpp.ToServer, xmpp.ToSelf, xmpp.ToHost} {
		r.Feature(to, NS) // XEP-0199 §5
		r.IQ(to, stanza.GetIQ, NS, "ping", pong)
	}
}

// pong: XEP-0199 §4.2, an empty result.
func pong(context.Context, *xmpp.Stanza) (*xmpp.Element, error) { return nil, nil }
