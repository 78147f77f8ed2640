// Package version implements XEP-0092: Software Version 1.1 for the server.
package version

import (
	"context"

	"balcony/xmpp"

	"mellium.im/xmpp/stanza"
)

// NS is the namespace of the payload and the disco feature.
const NS = "jabber:iq:version" // XEP-0092 §2

// Module tells everybody which software serves the domain.
type Module struct {
	Name   string // of the software
	Number string // its version
	OS     string // the operating system; empty, as it should be by default, tells nobody (XEP-0092 §5)
}

var _ xmpp.Module = Module{}

// Protocol lists XEP-0092.
func (Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{{XEP: 92, Version: "1.1", Status: xmpp.Complete}}
}

// Register adds the handler.
func (m Module) Register(r *xmpp.Registry) {
	r.Feature(xmpp.ToServer, NS) // XEP-0092 §4
	r.IQ(xmpp.ToServer, stanza.GetIQ, NS, "query", m.query)
}

// query: XEP-0092 §2, name and version are required, os is optional.
func (m Module) query(context.Context, *xmpp.Stanza) (*xmpp.Element, error) {
	q := xmpp.El(NS, "query").Add(xmpp.El("", "name").Say(m.Name), xmpp.El("", "version").Say(m.Number))
	if m.OS != "" {
		q.Add(xmpp.El("", "os").Say(m.OS))
	}
	return q, nil
}
