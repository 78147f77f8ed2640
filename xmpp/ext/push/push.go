// Package push implements XEP-0357: Push Notifications 0.4.1, the user's server: it tells push services that there is something for a
// device that is not there.
//
// A registration belongs to the resource that asked for it, the device. A device is notified of a message when it has no session and the
// message goes to the offline spool, and when its session cannot be reached: whoever queues a stanza for a session that hibernates
// (XEP-0198) or is inactive (XEP-0352) calls Notify. The first message is told at once; more of them within Config.Window are told
// together.
package push

import (
	"context"
	"hash/maphash"
	"log/slog"
	"sync/atomic"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

const (
	NS         = "urn:xmpp:push:0"        // XEP-0357 §11.1
	NSSummary  = "urn:xmpp:push:summary"  // XEP-0357 §11.3.1
	NSPriority = "tigase:push:priority:0" // Tigase's "Priority of notifications", which Prosody and Siskin IM speak too
	nsForm     = "jabber:x:data"          // XEP-0004
	nsPubSub   = "http://jabber.org/protocol/pubsub"
	nsOptions  = "http://jabber.org/protocol/pubsub#publish-options" // XEP-0060 §7.1.5
)

// Config says what push services are told, and how often.
type Config struct {
	// Sender puts the sender of the last message into notifications, Body its text. XEP-0357 §9: both pass through third parties, so they
	// are off, and it is for the operator alone to change that.
	Sender, Body bool
	// Placeholder stands for the body of an important message while Body is false, for push services that tell by it which ones are. Empty: none.
	Placeholder string
	// Archive notifies devices without a session also of messages that another session takes, which they find in the archive (XEP-0313).
	Archive bool
	// Window is the time between two notifications of a device.
	Window time.Duration
}

// DefaultConfig tells push services that there is something, and how many messages.
func DefaultConfig() Config {
	return Config{Window: 5 * time.Second} // chosen: a device that was woken up is there by then
}

// bounds are what others can make the module hold or do.
type bounds struct {
	queue      int // news that wait to be looked at
	devices    int // devices that are remembered
	inFlight   int // notifications that wait for their answers
	perService int // of them to one domain, so that one that does not answer takes not all of them
	failures   int // in a row until a registration is removed
}

// chosen: 20,000 devices are some 20 MB; 16 failures take some five days.
var defaultBounds = bounds{queue: 4096, devices: 20_000, inFlight: 256, perService: 16, failures: 16}

// Reachability tells whether a stanza that a session takes reaches its client now.
type Reachability interface {
	// Reachable is false while the session hibernates or its client is inactive. It must not block.
	Reachable(s xmpp.Session) bool
}

// Module keeps the registrations and notifies push services. Its methods may be called from any goroutine.
type Module struct {
	// Static after Register.
	cfg    Config
	bounds bounds
	store  Store
	log    *slog.Logger
	server xmpp.Server
	reach  Reachability // nil: every session is reachable
	seed   maphash.Seed

	cache   *xmpp.Cache[[]Registration]
	echoes  echoes
	events  chan event
	dropped atomic.Int64 // news that found no place since the last log line
}

var _ xmpp.Module = (*Module)(nil)

// New makes the module. It comes after the modules that stop messages, and before the offline spool, which ends the way of those that it
// takes. Run must be running for notifications to leave.
func New(cfg Config, store Store, log *slog.Logger) *Module {
	return newModule(cfg, defaultBounds, store, log)
}

func newModule(cfg Config, b bounds, store Store, log *slog.Logger) *Module {
	return &Module{cfg: cfg, bounds: b, store: store, log: log, seed: maphash.MakeSeed(), cache: xmpp.NewCache[[]Registration](maxCache), events: make(chan event, b.queue)}
}

// UseReachability sets who knows which sessions can be reached. Before Register.
func (m *Module) UseReachability(r Reachability) { m.reach = r }

// Protocol lists XEP-0357.
func (m *Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{{XEP: 357, Version: "0.4.1", Status: xmpp.Complete, Note: "the user's server; notifications with the priority of tigase:push:priority:0"}}
}

// Register adds the handlers, filters and hooks.
func (m *Module) Register(r *xmpp.Registry) {
	m.server = r.Server
	r.Feature(xmpp.ToSelf, NS, NSPriority) // XEP-0357 §4.1: on the account
	r.IQ(xmpp.ToSelf, stanza.SetIQ, NS, "enable", m.enable)
	r.IQ(xmpp.ToSelf, stanza.SetIQ, NS, "disable", m.disable)
	r.Outgoing(m.outgoing)
	r.Incoming(m.incoming)
	r.Undelivered(m.undelivered)
	r.Bound(func(_ context.Context, s xmpp.Session) { m.Returned(s) })
}

// Forget drops what is remembered of an account. Call it after the account's data were deleted.
func (m *Module) Forget(account jid.JID) { m.cache.Drop(account.Bare().String()) }
