package offline

import (
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// layout is the DateTime profile of XEP-0082 §3.2 in UTC.
const layout = "2006-01-02T15:04:05.000000Z"

// delay is the notation of XEP-0203 §2 by this server.
func delay(domain string, at time.Time) *xmpp.Element {
	return xmpp.El(xmpp.NSDelay, "delay", "from", domain, "stamp", at.UTC().Format(layout)).Say("Offline Storage")
}

// mark is the id that the archive has a message under: XEP-0359 §2.1.
func mark(by jid.JID, id string) *xmpp.Element {
	return xmpp.El(nsStanzaID, "stanza-id", "by", by.String(), "id", id)
}

// ours reports whether a delay was, or pretends to have been, made by a domain of this server.
func (m *Module) ours(c xmpp.Child) bool {
	if c.Space != xmpp.NSDelay || c.Local != "delay" {
		return false
	}
	from, err := jid.Parse(c.Attr("from"))
	return err == nil && from.Localpart() == "" && from.Resourcepart() == "" && m.server.Serves(from.Domainpart())
}

// strip removes the delays that a sender put in our name: XEP-0203 §5, "SHOULD discard".
func (m *Module) strip(s *xmpp.Stanza) *xmpp.Stanza {
	if s.Kind == xmpp.IQ || !s.Has(xmpp.NSDelay, "delay") || s.From.Localpart() == "" && m.server.Serves(s.From.Domainpart()) {
		return s
	}
	forged := make(map[int]bool)
	for _, c := range s.Children() {
		if m.ours(c) {
			forged[c.Start] = true
		}
	}
	return s.Without(func(c xmpp.Span) bool { return forged[c.Start] })
}

// stamped finds the delay that delivery from the spool has added, and returns its time and the message without it.
func (m *Module) stamped(s *xmpp.Stanza) (at time.Time, rest *xmpp.Stanza, ok bool) {
	for _, c := range s.Children() {
		if !m.ours(c) {
			continue
		}
		at, err := time.Parse(layout, c.Attr("stamp"))
		if err != nil {
			continue
		}
		return at, s.Without(func(o xmpp.Span) bool { return o.Start == c.Start }), true
	}
	return time.Time{}, s, false
}
