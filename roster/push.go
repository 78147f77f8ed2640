package roster

import (
	"context"
	"crypto/rand"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// pushOf is the roster push of an item (RFC 6121 §2.1.6) at a version of the roster (§2.6.3), without the addressee and the id. It has no
// from address, which stands for the account itself.
func pushOf(it Item, version int64) *xmpp.Stanza {
	return xmpp.New(xmpp.IQ, "set", jid.JID{}, jid.JID{}, queryElement(version).Add(it.Element()))
}

// pushTo addresses a push to a session. The answers of clients are addressed to the account, where nobody has asked for them and the
// router ignores them.
func pushTo(s xmpp.Session, push *xmpp.Stanza) *xmpp.Stanza {
	push = push.WithTo(s.JID())
	push.ID = rand.Text()
	return push
}

// push tells all interested resources how the item is now. The caller holds the turn of the change, so that the pushes come in the order
// of the versions (RFC 6121 §2.6.3).
func (m *Module) push(ctx context.Context, a *account, it Item) {
	if !it.Listed && !it.Removed {
		return
	}
	var push *xmpp.Stanza
	for _, s := range m.interested(a) {
		if push == nil {
			version, _ := a.currentVersion()
			push = pushOf(it, version)
		}
		s.Enqueue(ctx, pushTo(s, push))
	}
}

// interested are the account's sessions that have requested the roster (RFC 6121 §2.2). The caller holds the turn.
func (m *Module) interested(a *account) []xmpp.Session {
	var list []xmpp.Session
	for _, s := range m.srv.Sessions(a.bare) {
		if r := resourceOf(s); r != nil && r.interested {
			list = append(list, s)
		}
	}
	return list
}
