package xmpp

import (
	"context"
	"time"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
	streamerr "mellium.im/xmpp/stream"
)

// Target takes stanzas for one recipient. Enqueue never blocks; false means that the target has ended or its queue is full, and the
// stanza was not taken. The output is written when the batch of ctx ends, or at once without one.
type Target interface {
	Enqueue(ctx context.Context, s *Stanza) bool
}

// Session is one bound resource. All methods may be called from any goroutine.
type Session interface {
	Target
	// JID is the full JID that SASL and resource binding gave the session.
	JID() jid.JID
	// Presence is the last broadcast presence of the session, nil while it is unavailable (RFC 6121 §4.2).
	Presence() *Stanza
	// Priority is that presence's priority (RFC 6121 §4.7.2.3); 0 while unavailable.
	Priority() int8
	// Value is what a module keeps on the session under its own unexported key type, nil when unset.
	Value(key any) any
	// SetValue stores v under key and returns what was there.
	SetValue(key, v any) (old any)
	// Close ends the session with a stream error. It does not wait.
	Close(reason streamerr.Error)
}

// Outgoing is a stanza that a local session sent, on its way in. From is stamped. A filter may replace Stanza.
type Outgoing struct {
	Stanza *Stanza
	Sender Session
	// ArchiveID is the id under which the sender's archive has the stanza (XEP-0313), empty when it has not: for the copies that the sender's
	// other sessions get, and never for the recipient.
	ArchiveID string
}

// Delivery is a stanza on its way to a local account. A filter may replace Stanza and change Targets.
type Delivery struct {
	Stanza  *Stanza
	Account jid.JID // bare
	Key     string  // Account as a string
	// Targets are the sessions that RFC 6121 §8.5 chose; empty leads to the Undelivered filters. A filter that wants others replaces the list.
	Targets []Session
	// Waits reports that the message may wait for the account when no session takes it: otherwise its sender gets an error then.
	Waits bool
	// Again is set when the stanza was taken by a session that ended before it was written: what is done once a stanza is not repeated.
	Again bool
}

// PresenceChange is a broadcast presence of a local session: one without a to address, or the unavailable presence that the server
// makes when a session that was available ends without sending one (RFC 6121 §4.5).
type PresenceChange struct {
	Session  Session
	Old, New *Stanza // Old is nil on initial presence; New is nil when the session becomes unavailable
	Stanza   *Stanza // what is broadcast: New, or the unavailable presence, stamped with the full JID
	Ended    bool    // the session is over: nothing reaches it any more
}

// IQHandler answers a request: an element (nil for an empty result) or an error. A stanza.Error or Error is given to the asker, ErrDrop
// means that the handler sees to the answer itself, anything else is logged and answered internal-server-error. The stanza's From is
// authenticated.
type IQHandler func(ctx context.Context, s *Stanza) (*Element, error)

// Address says to what a request is addressed and who may ask; the router answers service-unavailable to everybody else, the same
// as for an account that does not exist or a payload that nobody handles.
type Address uint8

const (
	// ToServer is a domain that this server serves; anybody may ask, the handler decides.
	ToServer Address = iota
	// ToSelf is the bare JID of the asker's own account (also: no to address, RFC 6120 §10.3.3).
	ToSelf
	// ToContact is the bare JID of an account, asked by its owner or by somebody who is subscribed to its presence.
	ToContact
	// ToAccount is the bare JID of an account that exists, asked by anybody.
	ToAccount
	// ToHost is a host of its own beside the domains (Host) that has no handler for the payload itself; anybody may ask.
	ToHost
)

// Server is what a module may ask of the server. All methods may be called from any goroutine; none may be called with a lock held.
type Server interface {
	// Route sends a stanza from a local address (or one that was checked) on its way: the only way to send.
	Route(ctx context.Context, s *Stanza)
	// Send is Route for a stanza to a session that the caller has from Sessions: one of many. It gets a copy of s with its full JID as the to address.
	Send(ctx context.Context, to Session, s *Stanza)
	// Redeliver sends a stanza on its way again that a session of account had taken, or was to take, and could not write before it ended:
	// Delivery.Again. It is dropped when another session has it (Stanza.Missed). Of a copy (Stanza.Forward) the original is sent again, if that is shared.
	Redeliver(ctx context.Context, account jid.JID, s *Stanza)
	// Ask sends a request and waits for its answer, which is matched by sender, id and kind. It sets the id. Never call it on the
	// goroutine that handles a stanza. The answer may be of type error; err is for none.
	Ask(ctx context.Context, s *Stanza) (*Stanza, error)
	// Serves reports whether domain is one of this server's: it has accounts.
	Serves(domain string) bool
	// HostAt finds the host of its own that has this name, and the served domain that it stands beside.
	HostAt(name string) (h *Host, domain string, ok bool)
	// Exists reports whether bare is an account here.
	Exists(ctx context.Context, bare jid.JID) (bool, error)
	// Sessions are the bound resources of a local account, in the order of binding. The list is not to be changed.
	Sessions(bare jid.JID) []Session
	// EachSession calls f for every bound resource of every account until it returns false.
	EachSession(f func(Session) bool)
	// IsAdmin reports whether bare may administer domain.
	IsAdmin(bare jid.JID, domain string) bool
	// Now is the time of day.
	Now() time.Time
}

// Status of an implementation, in the words of XEP-0453.
type Status string

// The values of Status.
const (
	Complete Status = "complete"
	Partial  Status = "partial"
)

// Protocol is a specification that a module implements: one of XEP and RFC is set.
type Protocol struct {
	XEP     int
	RFC     int
	Version string // the XEP's version that was read
	Status  Status
	Note    string // what is partial, or where it is done
}

// Module is one protocol extension.
type Module interface {
	// Protocol lists what the module implements; docs/protocols.md is generated from it.
	Protocol() []Protocol
	// Register adds the module's handlers. It does no I/O.
	Register(*Registry)
}

// IQKey names a handler in the IQ table.
type IQKey struct {
	To           Address
	Type         stanza.IQType
	Space, Local string
}

// Registry is where modules put their handlers; lists keep the order of the modules. The router reads its fields.
type Registry struct {
	// Server is the server that the modules run in. Its methods work once every module is registered.
	Server Server

	IQs        map[IQKey]IQHandler
	Features   map[Address][]string
	Identities map[Address][]Identity
	// DomainFeatures are those that not every domain has.
	DomainFeatures map[Address][]DomainFeature

	OutgoingFilters    []func(context.Context, *Outgoing) error
	IncomingFilters    []func(context.Context, *Delivery) error
	UndeliveredFilters []func(context.Context, *Delivery) error
	PresenceHooks      []func(context.Context, PresenceChange)
	BoundHooks         []func(context.Context, Session)
	EndedHooks         []func(context.Context, Session)
	ReceivedHooks      []func(account jid.JID, order int64)
	DeletedHooks       []func(context.Context, jid.JID)
	StreamFeatures     []func(domain string) *Element
	BindFeatures       []BindFeature
	Keepers            []Keeper
	Hosts              map[string]*Host // by label
}

// DomainFeature is a disco feature of those domains, or of the accounts at them, for which On is true.
type DomainFeature struct {
	On func(domain string) bool
	NS []string
}

// Identity is a disco identity (XEP-0030 §3.1).
type Identity struct{ Category, Type, Name string }

// NewRegistry makes an empty registry for a server.
func NewRegistry(s Server) *Registry {
	return &Registry{Server: s, IQs: make(map[IQKey]IQHandler), Features: make(map[Address][]string), Identities: make(map[Address][]Identity),
		DomainFeatures: make(map[Address][]DomainFeature), Hosts: make(map[string]*Host)}
}

// Host is a host of its own beside every served domain, with the name LABEL.DOMAIN: pubsub.example.org, upload.example.org. Every stanza to
// an address at it comes here, with or without localpart and resource; From is authenticated. It is listed among the domain's items (XEP-0030 §4).
type Host struct {
	Label      string
	IQs        map[IQKey]IQHandler // with To = ToHost
	Features   []string
	Identities []Identity
	Forms      []func(domain string) *Element

	handle func(context.Context, *Stanza) error
	all    func(context.Context, *Stanza) error
}

// Host returns the host with that label, which is made when it is asked for the first time.
func (r *Registry) Host(label string) *Host {
	h := r.Hosts[label]
	if h == nil {
		h = &Host{Label: label, IQs: make(map[IQKey]IQHandler)}
		r.Hosts[label] = h
	}
	return h
}

// IQ registers the handler of requests to the host with that payload. It goes before one that is registered for ToHost.
func (h *Host) IQ(typ stanza.IQType, space, local string, f IQHandler) {
	k := IQKey{ToHost, typ, space, local}
	if h.IQs[k] != nil {
		panic("xmpp: two handlers for " + space + " " + local + " at " + h.Label)
	}
	h.IQs[k] = f
}

// Feature adds namespaces to the host's disco#info answer.
func (h *Host) Feature(ns ...string) { h.Features = append(h.Features, ns...) }

// Identity adds a disco identity; the first one's name is the host's in the domain's items.
func (h *Host) Identity(id Identity) { h.Identities = append(h.Identities, id) }

// Form adds a form to the host's disco#info answer (XEP-0128); f is called for each answer with the domain that the host stands beside, and
// may return nil.
func (h *Host) Form(f func(domain string) *Element) { h.Forms = append(h.Forms, f) }

// Handle makes f take what is no request: messages, presence, and answers that the server did not ask for (Server.Ask). An error is answered as for a
// request. Without it messages are answered service-unavailable and everything else is dropped.
func (h *Host) Handle(f func(context.Context, *Stanza) error) { h.handle = f }

// HandleAll makes f take every stanza, requests too, which are answered by whoever is behind it. An error of f is told to the sender: of a presence
// only if it asks for a subscription.
func (h *Host) HandleAll(f func(context.Context, *Stanza) error) { h.all = f }

// TakeAll gives the host a stanza of any kind; ok is false when it has no handler for all of them.
func (h *Host) TakeAll(ctx context.Context, s *Stanza) (ok bool, err error) {
	if h.all == nil {
		return false, nil
	}
	return true, h.all(ctx, s)
}

// Take gives the host a stanza that is no request.
func (h *Host) Take(ctx context.Context, s *Stanza) error {
	switch {
	case h.handle != nil:
		return h.handle(ctx, s)
	case s.Kind == Message:
		return ErrServiceUnavailable
	}
	return ErrDrop
}

// IQ registers the handler of requests with that payload. Two handlers for one key are a mistake of the build and panic.
func (r *Registry) IQ(to Address, typ stanza.IQType, space, local string, h IQHandler) {
	k := IQKey{to, typ, space, local}
	if r.IQs[k] != nil {
		panic("xmpp: two handlers for " + space + " " + local)
	}
	r.IQs[k] = h
}

// Feature adds namespaces to the disco#info answer of the server (ToServer) or of an account (ToSelf: only its owner sees it;
// ToContact: contacts too; ToAccount: everybody).
func (r *Registry) Feature(to Address, ns ...string) { r.Features[to] = append(r.Features[to], ns...) }

// DomainFeature is Feature for the domains for which on is true. Of a server it never changes (XEP-0115).
func (r *Registry) DomainFeature(to Address, on func(domain string) bool, ns ...string) {
	r.DomainFeatures[to] = append(r.DomainFeatures[to], DomainFeature{on, ns})
}

// Identity adds a disco identity to the server or to an account.
func (r *Registry) Identity(to Address, id Identity) {
	r.Identities[to] = append(r.Identities[to], id)
}

// Outgoing adds a filter for every stanza that a local session sends. An error ends the stanza: a stanza error is its answer.
func (r *Registry) Outgoing(f func(context.Context, *Outgoing) error) {
	r.OutgoingFilters = append(r.OutgoingFilters, f)
}

// Incoming adds a filter for every stanza to an existing local account, its full JIDs included, after the recipients were chosen. A request
// to a bare JID passes it without Targets before the IQ table answers; not the account's own requests to itself.
func (r *Registry) Incoming(f func(context.Context, *Delivery) error) {
	r.IncomingFilters = append(r.IncomingFilters, f)
}

// Undelivered adds a filter for messages to an existing local account that no session took. nil passes on to the next and in the end
// to the sender's error (RFC 6121 §8.5.2.2.1); ErrDrop means that the message is taken care of.
func (r *Registry) Undelivered(f func(context.Context, *Delivery) error) {
	r.UndeliveredFilters = append(r.UndeliveredFilters, f)
}

// Presence adds a hook that runs after a session's broadcast presence has changed, on its reader; the session already shows the new
// presence.
func (r *Registry) Presence(f func(context.Context, PresenceChange)) {
	r.PresenceHooks = append(r.PresenceHooks, f)
}

// Bound adds a hook that runs when a session is bound, before its first stanza.
func (r *Registry) Bound(f func(context.Context, Session)) { r.BoundHooks = append(r.BoundHooks, f) }

// Ended adds a hook that runs when a session has ended, after its unavailable presence; it is no longer in the table.
func (r *Registry) Ended(f func(context.Context, Session)) { r.EndedHooks = append(r.EndedHooks, f) }

// Received adds a hook that runs when a client has got a stanza with an Order: it has acknowledged it (XEP-0198), or, without stream management, the
// network has taken it. It may run on any goroutine and must not block, nor call a session.
func (r *Registry) Received(f func(account jid.JID, order int64)) {
	r.ReceivedHooks = append(r.ReceivedHooks, f)
}

// Deleted adds a hook that runs before an account's data are deleted, while its roster can still be read.
func (r *Registry) Deleted(f func(context.Context, jid.JID)) {
	r.DeletedHooks = append(r.DeletedHooks, f)
}

// StreamFeature adds an informational element to the stream features of a bound-to-be stream (after authentication); nil adds none.
func (r *Registry) StreamFeature(f func(domain string) *Element) {
	r.StreamFeatures = append(r.StreamFeatures, f)
}

// BindFeature is what a client may ask for while it binds its resource with Bind 2 (XEP-0386 §2.2).
type BindFeature struct {
	// Name is the feature's name in the stream features (XEP-0386 §2.1), empty for one that is not listed there.
	Name string
	// Space and Local are the name of the element in <bind/> that asks for it; both are empty for none.
	Space, Local string
	// Bind runs when the session is bound, after the Bound hooks and before its first stanza. request is nil when the client did not ask. The
	// answer stands in <bound/>; nil is none. What is routed to the session meanwhile goes out after the answer.
	Bind func(ctx context.Context, s Session, request *Element) *Element
}

// BindFeature adds a feature of Bind 2.
func (r *Registry) BindFeature(f BindFeature) { r.BindFeatures = append(r.BindFeatures, f) }

// SavedSession is a session that waits for its client across a restart of the server (XEP-0198).
type SavedSession struct {
	Account  jid.JID // bare
	Resource string
	Expires  time.Time
	Data     []byte // the transport's and the modules' state
}

// Unsent is a stanza on its way to another server, as it is stored.
type Unsent struct {
	Row    int64
	Since  time.Time // when it was sent; zero when that is not known
	Stanza *Stanza   // nil when it is there no more
}

// Keeper saves what a module keeps on a session, and puts it back on the session of the next process. Save returns nil for nothing.
type Keeper struct {
	Name    string
	Save    func(Session) []byte
	Restore func(context.Context, Session, []byte) error
}

// Keep adds a keeper. Its name stands in the database.
func (r *Registry) Keep(k Keeper) { r.Keepers = append(r.Keepers, k) }
