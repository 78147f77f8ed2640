package carbons

import (
	"context"

	"balcony/xmpp"

	"mellium.im/xmpp/stanza"
)

// Guard keeps forged copies out: only the server makes them, and those pass no filter. XEP-0280 §12 has clients ignore what does not come from their
// own bare JID; many did not (CVE-2017-5589, CVE-2019-16235, CVE-2020-26547), so nothing of the kind leaves a client of this server or reaches one.
type Guard struct{}

var _ xmpp.Module = Guard{}

// Protocol lists nothing of its own.
func (Guard) Protocol() []xmpp.Protocol { return nil }

// Register adds the filters.
func (g Guard) Register(r *xmpp.Registry) {
	r.Outgoing(g.outgoing)
	r.Incoming(g.incoming)
}

var errForged = xmpp.Fail(stanza.Modify, stanza.NotAcceptable, "Only a server makes carbon copies.")

func isCopy(sp xmpp.Span) bool {
	return sp.Space == NS && (sp.Local == "sent" || sp.Local == "received")
}

// outgoing refuses what a client sends.
func (Guard) outgoing(_ context.Context, o *xmpp.Outgoing) error {
	if o.Stanza.Kind != xmpp.Message {
		return nil
	}
	for _, sp := range o.Stanza.Spans() {
		if isCopy(sp) {
			return errForged
		}
	}
	return nil
}

// incoming strips what comes from elsewhere: an error could make a room expel the one who did not send it.
func (Guard) incoming(_ context.Context, d *xmpp.Delivery) error {
	if d.Stanza.Kind == xmpp.Message {
		d.Stanza = d.Stanza.Without(isCopy)
	}
	return nil
}
