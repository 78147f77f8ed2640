package push

import (
	"context"

	"mellium.im/xmpp/jid"
)

// Registration says that a push service wants to hear of an account's messages (XEP-0357 §5).
type Registration struct {
	// ID tells this request from an earlier one for the same service and node. It grows within an account.
	ID int64
	// Service is the JID of the push service, Node the node there; Node is empty when the client named none.
	Service jid.JID
	Node    string
	// Resource is the resourcepart of the session that asked for it last: the device that the service wakes up.
	Resource string
	// Options is the form of publish-options, a complete <x xmlns='jabber:x:data'/>, nil when the client gave none.
	Options []byte
}

// Store keeps the registrations of each account.
type Store interface {
	// PushRegistrations returns the account's registrations, the one that was enabled last at the end.
	PushRegistrations(ctx context.Context, account jid.JID) ([]Registration, error)
	// EnablePush adds a registration, or replaces the one of the same service and node, and gives it an ID. At the bound it removes the
	// registration that was enabled first: an app that is gone does not say so.
	EnablePush(ctx context.Context, account jid.JID, r Registration) error
	// DisablePush removes the registration of service and node; with an empty node all of the service.
	DisablePush(ctx context.Context, account jid.JID, service jid.JID, node string) error
	// RemovePush removes the registration with that ID; nothing when it was replaced meanwhile.
	RemovePush(ctx context.Context, account jid.JID, id int64) error
}
