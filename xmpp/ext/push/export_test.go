package push

import (
	"log/slog"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// Bounds are small ones for tests.
type Bounds struct{ Queue, Devices, InFlight, PerService, Failures int }

// NewBounded makes a module with bounds.
func NewBounded(cfg Config, b Bounds, store Store, log *slog.Logger) *Module {
	return newModule(cfg, bounds{b.Queue, b.Devices, b.InFlight, b.PerService, b.Failures}, store, log)
}

// The limits of a request, and the times.
const (
	MaxNode    = maxNode
	MaxOptions = maxOptions
	MaxFields  = maxFields
	FirstRetry = firstRetry
	LastRetry  = lastRetry
	CallWindow = callWindow
)

// ReadEnable is what an <enable/> asks for.
var ReadEnable = readEnable

// NewsOf is what a stanza to an account is worth: "" for nothing.
func (m *Module) NewsOf(s *xmpp.Stanza, account jid.JID) (priority, body string) {
	n := m.newsOf(s, account)
	return [...]string{"", "normal", "high", "call"}[n.priority], n.body
}
