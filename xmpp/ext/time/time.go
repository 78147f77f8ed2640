// Package time implements XEP-0202: Entity Time 2.0 for the server.
package time

import (
	"context"

	"balcony/xmpp"

	"mellium.im/xmpp/stanza"
)

// NS is the namespace of the payload and the disco feature.
const NS = "urn:xmpp:time" // XEP-0202 §2

// Module tells everybody the server's time of day.
type Module struct{}

var _ xmpp.Module = Module{}

// Protocol lists XEP-0202.
func (Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{{XEP: 202, Version: "2.0", Status: xmpp.Complete}}
}

// Register adds the handler.
func (Module) Register(r *xmpp.Registry) {
	r.Feature(xmpp.ToServer, NS) // XEP-0202 §4
	r.IQ(xmpp.ToServer, stanza.GetIQ, NS, "time", func(context.Context, *xmpp.Stanza) (*xmpp.Element, error) {
		now := r.Server.Now()
		return xmpp.El(NS, "time").Add(
			// XEP-0202 §2: the numeric offset, in the TZD format of XEP-0082 §2.2.
			xmpp.El("", "tzo").Say(now.Format("-07:00")),
			// XEP-0202 §2: dateTime of XEP-0082 §2.2, expressed in UTC.
			xmpp.El("", "utc").Say(now.UTC().Format("2006-01-02T15:04:05Z")),
		), nil
	})
}
