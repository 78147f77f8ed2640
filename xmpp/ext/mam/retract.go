package mam

import (
	"context"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

const (
	nsRetract   = "urn:xmpp:message-retract:1"           // XEP-0424 §2
	nsTombstone = "urn:xmpp:message-retract:1#tombstone" // XEP-0424 §4
	nsCorrect   = "urn:xmpp:message-correct:0"           // XEP-0308
	nsMUCUser   = "http://jabber.org/protocol/muc#user"  // XEP-0045 §7.5: in private messages of rooms
)

// retractable is among how many of the newest messages with somebody the retracted one is looked for. chosen: that takes some milliseconds, and clients
// offer to retract what they show.
const retractable = 10_000

// retract puts a tombstone in place of the message that s retracts, and of its corrections, in the archive of owner: XEP-0424 §4. s was sent by owner,
// or received from peer. It is done before anybody gets s: whoever has s does not find the message.
func (m *Module) retract(ctx context.Context, owner, peer jid.JID, sent bool, s *xmpp.Stanza) error {
	if typ := s.MessageType(); typ == stanza.ErrorMessage || typ == stanza.GroupChatMessage {
		return nil // a room has an archive of its own
	}
	c, ok := s.Child(nsRetract, "retract")
	if !ok || s.ID == "" {
		return nil // §4: a tombstone "MUST include an 'id' attribute that's set to the value of the retraction's"
	}
	id := c.Attr("id")
	if id == "" {
		return nil
	}
	select { // one at a time: nobody can keep the database busy with them
	case m.retracting <- struct{}{}:
		defer func() { <-m.retracting }()
	case <-ctx.Done():
		return ctx.Err()
	}
	el := xmpp.El(nsRetract, "retracted", "id", s.ID, "stamp", stamp(m.server.Now()))
	return m.store.RewriteMessages(ctx, owner, peer.Bare(), retractable, id, func(old *xmpp.Stanza, by bool) (*xmpp.Stanza, bool) {
		if by != sent || !sameAuthor(old, s) || old.Has(nsRetract, "retract") || old.Has(nsRetract, "retracted") {
			return nil, true
		}
		original := old.ID == id
		if fix, ok := old.Child(nsCorrect, "replace"); !original && !(ok && fix.Attr("id") == id) {
			return nil, true
		}
		instead := xmpp.New(xmpp.Message, old.Type, old.To, old.From, el)
		instead.ID = old.ID
		return instead, !original // §7.1: ids may come more than once; it is the last one
	})
}

// sameAuthor: XEP-0424 §5, "from the same bare-JID (in a one-on-one conversation) or full-JID": what comes from a room comes from its occupants.
func sameAuthor(old, s *xmpp.Stanza) bool {
	if old.Has(nsMUCUser, "x") || s.Has(nsMUCUser, "x") {
		return old.From.Equal(s.From)
	}
	return old.From.Bare().Equal(s.From.Bare())
}
