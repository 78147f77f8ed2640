package carbons

import (
	"balcony/xmpp"

	"mellium.im/xmpp/stanza"
)

const (
	nsHints      = "urn:xmpp:hints"                        // XEP-0334
	nsReceipts   = "urn:xmpp:receipts"                     // XEP-0184
	nsChatStates = "http://jabber.org/protocol/chatstates" // XEP-0085
	nsMarkers    = "urn:xmpp:chat-markers:0"               // XEP-0333
	nsConference = "jabber:x:conference"                   // XEP-0249
	nsStanzaID   = "urn:xmpp:sid:0"                        // XEP-0359
	nsMUCUser    = "http://jabber.org/protocol/muc#user"   // XEP-0045
)

// traits of a message, for the rules.
type traits struct {
	private, body, im bool
	invitation        bool // XEP-0249, or mediated
	room              bool // it carries what a room adds to private messages (XEP-0045 §7.5), and no invitation
}

func traitsOf(s *xmpp.Stanza) (t traits) {
	for _, sp := range s.Spans() {
		switch sp.Space {
		case "":
			t.body = t.body || sp.Local == "body"
		case NS:
			t.private = t.private || sp.Local == "private" // XEP-0280 §9
		case nsHints:
			t.private = t.private || sp.Local == "no-copy" // XEP-0334 §4.3
		case nsReceipts, nsChatStates, nsMarkers:
			t.im = true
		case nsConference:
			t.invitation = t.invitation || sp.Local == "x"
		case nsMUCUser:
			t.room = t.room || sp.Local == "x"
		}
	}
	if t.room {
		c, _ := s.Child(nsMUCUser, "x")
		if el, err := c.Element(); err == nil {
			for _, child := range el.Children {
				if child.Local == "invite" { // XEP-0045 §7.8.2
					t.room, t.invitation = false, true
				}
			}
		}
	}
	return t
}

// eligible is XEP-0280 §6.1 for everything but errors, which follow the message that they answer.
func (t *traits) eligible(s *xmpp.Stanza) bool {
	if t.private {
		return false
	}
	switch s.MessageType() {
	case stanza.GroupChatMessage, stanza.ErrorMessage:
		return false
	case stanza.ChatMessage:
		return true
	case stanza.NormalMessage:
		if t.body {
			return true
		}
	}
	return t.im || t.invitation
}
