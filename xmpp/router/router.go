// Package router knows who is online and where a stanza goes: RFC 6120 §10 and RFC 6121 §8. Every stanza of every connection passes
// Handle or Route; nothing else chooses a recipient.
package router

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// Config of the router.
type Config struct {
	// Resources is how many sessions an account may have at once.
	Resources int
	// AskTimeout is how long the server waits for the answer to a request of its own.
	AskTimeout time.Duration
}

// DefaultConfig returns the limits of a server that nobody configured.
func DefaultConfig() Config { return Config{Resources: 20, AskTimeout: 30 * time.Second} }

// Accounts tells which accounts exist.
type Accounts interface {
	AccountExists(ctx context.Context, account jid.JID) (bool, error)
}

// Subscriptions tells whether contact receives owner's presence: who may see more of an account than that it may exist.
type Subscriptions interface {
	// Subscribed reports the two directions of the subscription in owner's roster: to, owner receives contact's presence; from, contact receives
	// owner's.
	Subscribed(ctx context.Context, owner, contact jid.JID) (to, from bool, err error)
}

// Remote takes stanzas for domains that are not served here. It returns the stanza error for the sender, or nil when it took the stanza.
type Remote func(ctx context.Context, s *xmpp.Stanza) error

// Router routes stanzas. Its methods may be called from any goroutine.
type Router struct {
	// Static after Start.
	cfg      Config
	log      *slog.Logger
	reg      *xmpp.Registry
	accounts Accounts
	subs     Subscriptions
	remote   Remote
	named    map[string]named
	metrics  *Metrics

	hosts atomic.Pointer[map[string]Host]
	table table
	known known // accounts that were found to exist

	asksMu sync.Mutex
	asks   map[string]*ask // guarded by asksMu
}

// named is a host of its own with a name that is not made of a label.
type named struct {
	host   *xmpp.Host
	beside string
}

// Host is a domain that this server serves.
type Host struct {
	Admins []jid.JID // bare
}

// New makes a router. Modules register with Registry before Start.
func New(cfg Config, accounts Accounts, metrics *Metrics, log *slog.Logger) *Router {
	r := &Router{cfg: cfg, log: log, accounts: accounts, metrics: metrics, asks: make(map[string]*ask)}
	r.reg = xmpp.NewRegistry(r)
	r.table.init()
	r.known.init()
	r.SetHosts(nil)
	return r
}

// Registry is where modules register. It must not change once stanzas are routed.
func (r *Router) Registry() *xmpp.Registry { return r.reg }

// SetSubscriptions tells the router who knows the rosters; before the first stanza.
func (r *Router) SetSubscriptions(s Subscriptions) { r.subs = s }

// SetRemote tells the router who takes stanzas for other servers; before the first stanza. Without one they are answered
// remote-server-not-found.
func (r *Router) SetRemote(f Remote) { r.remote = f }

// SetNamed makes h the host that has that name, in place of one that is made of a label; before the first stanza. It stands beside the
// served domain beside.
func (r *Router) SetNamed(name, beside string, h *xmpp.Host) {
	if r.named == nil {
		r.named = make(map[string]named)
	}
	r.named[name] = named{h, beside}
}

// SetHosts replaces the domains that are served, by their canonical names.
func (r *Router) SetHosts(hosts map[string]Host) { r.hosts.Store(&hosts) }

// Serves reports whether domain is one of this server's.
func (r *Router) Serves(domain string) bool {
	_, ok := (*r.hosts.Load())[domain]
	return ok
}

// HostAt finds the host of its own that has this name, and the served domain that it stands beside. A served domain is never such a host.
func (r *Router) HostAt(name string) (h *xmpp.Host, domain string, ok bool) {
	if n, ok := r.named[name]; ok && !r.Serves(name) {
		return n.host, n.beside, true
	}
	label, domain, cut := strings.Cut(name, ".")
	if !cut || len(r.reg.Hosts) == 0 || !r.Serves(domain) || r.Serves(name) {
		return nil, "", false
	}
	h = r.reg.Hosts[label]
	return h, domain, h != nil
}

// IsAdmin reports whether bare may administer domain: a right on one domain is none on another.
func (r *Router) IsAdmin(bare jid.JID, domain string) bool {
	for _, a := range (*r.hosts.Load())[domain].Admins {
		if a.Equal(bare.Bare()) {
			return true
		}
	}
	return false
}

// Now is the time of day.
func (r *Router) Now() time.Time { return time.Now() }

// Sessions are the bound resources of a local account. The list is shared: not to be changed.
func (r *Router) Sessions(bare jid.JID) []xmpp.Session {
	o := r.table.get(bare.Bare().String())
	return o.targets(0, len(o.all))
}

// EachSession calls f for every bound resource until it returns false.
func (r *Router) EachSession(f func(xmpp.Session) bool) {
	r.table.each(func(s *Session) bool { return f(s) })
}

// Exists reports whether bare is an account here.
func (r *Router) Exists(ctx context.Context, bare jid.JID) (bool, error) {
	return r.exists(ctx, bare, bare.String())
}

func (r *Router) exists(ctx context.Context, bare jid.JID, key string) (bool, error) {
	if len(r.table.get(key).list) > 0 || r.known.has(key) {
		return true, nil
	}
	if !r.Serves(bare.Domainpart()) || bare.Localpart() == "" {
		return false, nil
	}
	gen := r.known.generation()
	ok, err := r.accounts.AccountExists(ctx, bare)
	if err == nil && ok {
		r.known.add(key, gen)
	}
	return ok, err
}

// Forget drops what the router remembers of an account that is being deleted. Call it after the data are gone.
func (r *Router) Forget(bare jid.JID) { r.known.drop(bare.String()) }

// known remembers which accounts exist, so that a message to an offline account asks the database once. Bounded.
type known struct {
	mu  sync.RWMutex
	set map[string]struct{}
	gen int // grows by every drop: an answer that was read before a deletion is not remembered after it
}

const maxKnown = 1 << 16 // chosen: about 6 MB at most

func (k *known) init() { k.set = make(map[string]struct{}) }

func (k *known) has(key string) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	_, ok := k.set[key]
	return ok
}

func (k *known) generation() int {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.gen
}

func (k *known) add(key string, gen int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if gen != k.gen {
		return
	}
	if len(k.set) >= maxKnown {
		clear(k.set)
	}
	k.set[key] = struct{}{}
}

func (k *known) drop(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gen++
	delete(k.set, key)
}

// Handle takes a stanza that a local session sent, with from stamped and its shape checked, through the Outgoing filters on its way.
func (r *Router) Handle(ctx context.Context, o *xmpp.Outgoing) {
	r.metrics.in(o.Stanza.Kind)
	sent := o.Stanza
	for _, f := range r.reg.OutgoingFilters {
		if err := f(ctx, o); err != nil {
			r.refuse(ctx, o.Sender, sent, err)
			return
		}
	}
	st := o.Stanza
	if st.Kind == xmpp.Presence && st.To.Equal(jid.JID{}) {
		s, ok := o.Sender.(*Session)
		if !ok || st.Type != "" && st.Type != "unavailable" {
			// RFC 6121 §4.7.1: the other types are directed at somebody.
			r.refuse(ctx, o.Sender, sent, xmpp.ErrBadRequest)
			return
		}
		s.setPresence(st)
		s.run(ctx, r.reg.PresenceHooks)
		return
	}
	r.Route(ctx, st)
}

// refuse answers a stanza that a local session sent with an error, on that session.
func (r *Router) refuse(ctx context.Context, to xmpp.Target, s *xmpp.Stanza, err error) {
	if errors.Is(err, xmpp.ErrDrop) {
		return
	}
	if b := s.Bounce(r.public(err)); b != nil {
		to.Enqueue(ctx, b)
	}
}

// public is what a peer may see of an error: stanza errors as they are, everything else is logged and becomes
// internal-server-error.
func (r *Router) public(err error) xmpp.Error {
	e, expected := xmpp.AsStanzaError(err)
	if !expected {
		r.log.Error("handle stanza", "err", err)
	}
	r.metrics.failed(e.Stanza.Condition)
	return e
}

// bounce sends the error answer to s back to its sender, wherever that is.
func (r *Router) bounce(ctx context.Context, s *xmpp.Stanza, err error) {
	if errors.Is(err, xmpp.ErrDrop) {
		return
	}
	b := s.Bounce(r.public(err))
	if b == nil || b.To.Equal(jid.JID{}) {
		return
	}
	r.Route(ctx, b)
}

// Route sends a stanza to its to address: the only switch on it. From is a local address or was checked by the stream that brought
// the stanza.
func (r *Router) Route(ctx context.Context, s *xmpp.Stanza) {
	switch domain := s.To.Domainpart(); {
	case !r.Serves(domain):
		if h, _, ok := r.HostAt(domain); ok {
			r.toHost(ctx, h, s)
			return
		}
		r.toRemote(ctx, s)
	case s.To.Localpart() == "":
		r.toServer(ctx, s)
	default:
		bare := s.To.Bare()
		r.toAccount(ctx, s, bare, bare.String(), false)
	}
}

// Redeliver sends a stanza on its way again that a session of account had taken but could not write before it ended.
func (r *Router) Redeliver(ctx context.Context, account jid.JID, s *xmpp.Stanza) {
	if s.Kind != xmpp.Message {
		if s.IsRequest() {
			r.bounce(ctx, s, xmpp.ErrServiceUnavailable)
		}
		return
	}
	original := s.Original()
	if original != nil && !s.IsShared() {
		return // a copy for that session alone (XEP-0280)
	}
	if s.MessageType() == stanza.HeadlineMessage {
		return // RFC 6121 §8.5.3.2.1: never to another resource, nor kept
	}
	if !s.Missed() {
		return // another session of the account has it, or will send it back
	}
	if original != nil { // nobody has it but as this copy
		if d, ok := s.Child(xmpp.NSDelay, "delay"); ok && !original.Has(xmpp.NSDelay, "delay") {
			original = original.Append(xmpp.RawElement(d.Standalone()))
		}
		s = original
	}
	s = s.Shared(1)
	r.toAccount(ctx, s, account.Bare(), account.Bare().String(), true)
}

// Received tells the modules that a client of an account has got a stanza.
func (r *Router) Received(account jid.JID, s *xmpp.Stanza) {
	if s.Order == 0 {
		return
	}
	for _, f := range r.reg.ReceivedHooks {
		f(account, s.Order)
	}
}

// toRemote: RFC 6120 §10.4.
func (r *Router) toRemote(ctx context.Context, s *xmpp.Stanza) {
	err := error(xmpp.ErrRemoteNotFound) // RFC 6120 §8.3.3.16
	if r.remote != nil {
		err = r.remote(ctx, s)
	}
	if err != nil {
		r.Fail(ctx, s, err)
	}
}

// Fail tells the sender of a stanza to another server that it could not be delivered.
func (r *Router) Fail(ctx context.Context, s *xmpp.Stanza, err error) {
	// RFC 6121 §3.1.2: whoever asks for a subscription is told that it cannot be delivered; an error for every presence to every contact of a
	// domain that is away helps nobody.
	if s.Kind != xmpp.Presence || s.Type == "subscribe" {
		r.bounce(ctx, s, err)
	}
}

// toHost: a stanza to a host of its own beside a domain. RFC 6120 §10.5: what it is addressed to there is the host's to know.
func (r *Router) toHost(ctx context.Context, h *xmpp.Host, s *xmpp.Stanza) {
	if took, err := h.TakeAll(ctx, s); took {
		if err != nil {
			r.Fail(ctx, s, err)
		}
		return
	}
	switch {
	case s.IsRequest():
		r.askHost(ctx, h, s)
		return
	case s.Kind == xmpp.IQ && r.answered(s):
		return
	}
	if err := h.Take(ctx, s); err != nil {
		r.bounce(ctx, s, err)
	}
}

// toServer: RFC 6120 §10.5.1 and RFC 6121 §8.4, a stanza to a domain that is served here.
func (r *Router) toServer(ctx context.Context, s *xmpp.Stanza) {
	switch {
	case s.Kind == xmpp.IQ && !s.IsRequest():
		r.answered(s)
	case s.Kind == xmpp.IQ && s.To.Resourcepart() == "":
		r.ask(ctx, s, xmpp.ToServer)
	case s.Kind == xmpp.Presence:
		// The server has no presence and accepts no subscription; RFC 6121 §8.4 leaves it to silence.
	case s.Kind == xmpp.Message && s.MessageType() == stanza.HeadlineMessage:
	default:
		r.bounce(ctx, s, xmpp.ErrServiceUnavailable)
	}
}

// toAccount: RFC 6121 §8.5, a stanza to localpart@domainpart of a domain that is served here, with or without resource. again marks
// a message that comes back from a session which ended.
func (r *Router) toAccount(ctx context.Context, s *xmpp.Stanza, bare jid.JID, key string, again bool) {
	if s.Kind == xmpp.IQ && s.To.Resourcepart() == "" {
		if !s.IsRequest() {
			r.answered(s) // RFC 6121 §8.5.2.1.3: the server asked on the account's behalf, or nobody did
			return
		}
		r.askAccount(ctx, s, bare)
		return
	}
	exists, err := r.exists(ctx, bare, key)
	switch {
	case err != nil:
		if s.Kind != xmpp.Presence {
			r.bounce(ctx, s, err)
		} else {
			r.log.Error("look up account", "err", err)
		}
		return
	case !exists:
		// RFC 6121 §8.5.1. A request learns nothing from it; a message does, see docs/decisions/0006-unknown-accounts.md.
		if s.Kind == xmpp.IQ || s.Kind == xmpp.Message && s.MessageType() != stanza.HeadlineMessage {
			r.bounce(ctx, s, xmpp.ErrServiceUnavailable)
		}
		return
	}
	d := &xmpp.Delivery{Stanza: s, Account: bare, Key: key, Again: again}
	d.Waits = r.pick(d, key)
	r.bring(ctx, d)
}

// Send is Route for a stanza to a session: who that is need not be looked up again.
func (r *Router) Send(ctx context.Context, to xmpp.Session, s *xmpp.Stanza) {
	s = s.WithTo(to.JID())
	t, ok := to.(*Session)
	if !ok {
		r.Route(ctx, s)
		return
	}
	r.bring(ctx, &xmpp.Delivery{Stanza: s, Account: t.bare, Key: t.bareKey, Targets: t.alone[:1:1], Waits: s.Kind == xmpp.Message}) // RFC 6121 §8.5.3.1
}

// bring takes a stanza past the filters to its targets.
func (r *Router) bring(ctx context.Context, d *xmpp.Delivery) {
	s := d.Stanza
	for _, f := range r.reg.IncomingFilters {
		if err := f(ctx, d); err != nil {
			r.bounce(ctx, s, err)
			return
		}
	}
	if r.deliver(ctx, d) {
		return
	}
	switch {
	case d.Stanza.Kind == xmpp.IQ:
		if d.Stanza.IsRequest() {
			r.bounce(ctx, s, xmpp.ErrServiceUnavailable) // RFC 6121 §8.5.3.2.3
		}
	case d.Stanza.Kind == xmpp.Message:
		r.undelivered(ctx, d, s)
	}
}

// pick chooses the recipients: the table of RFC 6121 §8.5.4. It reports whether the message may go to the offline spool when nobody takes
// it.
func (r *Router) pick(d *xmpp.Delivery, key string) (spool bool) {
	s := d.Stanza
	online := r.table.get(key)
	if resource := s.To.Resourcepart(); resource != "" {
		for i, t := range online.list {
			if t.full.Resourcepart() == resource {
				d.Targets = online.targets(i, i+1) // RFC 6121 §8.5.3.1
				return s.Kind == xmpp.Message
			}
		}
		// RFC 6121 §8.5.3.2: no resource matches.
		if s.Kind != xmpp.Message || !d.Again && s.MessageType() != stanza.ChatMessage {
			// Presence is ignored, requests are answered by the caller, and §8.5.3.2.1 wants an error for messages that are not chat.
			return false
		}
	}
	switch s.Kind {
	case xmpp.Presence:
		// RFC 6121 §8.5.2.1.2: to all available resources. Subscription stanzas and probes are the roster's, which replaces the targets.
		d.Targets = online.where(func(t *Session) bool {
			ok, _ := t.available()
			return ok
		})
		return false
	case xmpp.Message:
		switch s.MessageType() {
		case stanza.GroupChatMessage, stanza.ErrorMessage:
			return false // RFC 6121 §8.5.2.1.1: never to a bare JID
		}
		// RFC 6121 §8.5.2.1.1: to every available resource with a non-negative priority.
		d.Targets = online.where(func(t *Session) bool {
			ok, prio := t.available()
			return ok && prio >= 0
		})
		return true
	}
	return false
}

// deliver gives the stanza to its targets; false when none took it.
func (r *Router) deliver(ctx context.Context, d *xmpp.Delivery) bool {
	s := d.Stanza
	// A session that ends sends back what its client did not get, and the message must not reach the others twice for that.
	if s.Kind == xmpp.Message && len(d.Targets) > 1 {
		s = s.Shared(len(d.Targets))
	}
	lost := true
	for _, t := range d.Targets {
		if t.Enqueue(ctx, s) {
			lost = false
			r.metrics.out(s.Kind)
		} else {
			lost = s.Missed() // false while another has its copy; true too when those that took it have lost it by now
		}
	}
	return !lost
}

// undelivered is the end of a message that no session took: RFC 6121 §8.5.2.2.1 and §8.5.3.2.1.
func (r *Router) undelivered(ctx context.Context, d *xmpp.Delivery, sent *xmpp.Stanza) {
	if d.Waits {
		for _, f := range r.reg.UndeliveredFilters {
			if err := f(ctx, d); err != nil {
				r.bounce(ctx, sent, err)
				return
			}
		}
	}
	switch sent.MessageType() {
	case stanza.HeadlineMessage, stanza.ErrorMessage:
		// silence
	default:
		r.bounce(ctx, sent, xmpp.ErrServiceUnavailable)
	}
}
