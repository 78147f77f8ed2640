// Package register implements XEP-0077: In-Band Registration 2.4: accounts made before authentication where the domain allows it, passwords
// changed and accounts removed after it.
package register

import (
	"context"
	"log/slog"
	"net/netip"

	"balcony/xmpp"

	"mellium.im/xmpp/form"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// NS is the namespace of the requests and the disco feature (XEP-0077 §10).
const NS = "jabber:iq:register"

// NSFeature is the namespace of the stream feature (XEP-0077 §8).
const NSFeature = "http://jabber.org/features/iq-register"

// Policy says who may register an account at a domain.
type Policy string

// The policies. Invite answers like Closed: a registration without an invitation.
const (
	Closed Policy = "closed"
	Invite Policy = "invite"
	Open   Policy = "open"
)

// Accounts makes, changes and removes accounts. What the asker may know of an error is a stanza error: conflict for an account that
// exists, item-not-found for one that does not, not-acceptable for a password that cannot be one.
type Accounts interface {
	Register(ctx context.Context, account jid.JID, password string) error
	// SetPassword changes the password and ends all sessions of the account but spare (which may be nil): they do not outlive the password.
	SetPassword(ctx context.Context, account jid.JID, password string, spare xmpp.Session) error
	// Delete removes the account and all of its data and ends its sessions with <not-authorized/>. It does not wait for their end: the session
	// that is being handled still gets its answer.
	Delete(ctx context.Context, account jid.JID) error
}

// Config of the module.
type Config struct {
	// PerHour is how many accounts one address may register in an hour, 0 for any number. Loopback is exempt.
	PerHour int
}

// Module answers in-band registration.
type Module struct {
	accounts Accounts
	policy   func(domain string) Policy
	limiter  limiter
	log      *slog.Logger
	server   xmpp.Server // static after Register
}

var _ xmpp.Module = (*Module)(nil)

// New makes the module. policy is asked for every request.
func New(cfg Config, accounts Accounts, policy func(domain string) Policy, log *slog.Logger) *Module {
	return &Module{accounts: accounts, policy: policy, limiter: limiter{perHour: cfg.PerHour, all: allAccounts}, log: log}
}

// Protocol lists XEP-0077.
func (m *Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{{XEP: 77, Version: "2.4", Status: xmpp.Complete, Note: "account name and password, as fields or as a data form"}}
}

// Register adds the handlers for authenticated sessions.
func (m *Module) Register(r *xmpp.Registry) {
	m.server = r.Server
	r.Feature(xmpp.ToServer, NS) // XEP-0077 §10: passwords can be changed whatever the policy is
	for _, to := range []xmpp.Address{xmpp.ToServer, xmpp.ToSelf} {
		r.IQ(to, stanza.GetIQ, NS, "query", m.get)
		r.IQ(to, stanza.SetIQ, NS, "query", m.set)
	}
}

// StreamFeature announces registration before authentication (XEP-0077 §8), nil when the domain does not allow it.
func (m *Module) StreamFeature(domain string) *xmpp.Element {
	if m.policy(domain) != Open {
		return nil
	}
	return xmpp.El(NSFeature, "register")
}

// Unauthenticated answers a request on a stream to domain that has not authenticated (XEP-0077 §3.1.1). remote is the peer's address.
func (m *Module) Unauthenticated(ctx context.Context, domain string, remote netip.Addr, iq *xmpp.Stanza) (*xmpp.Element, error) {
	if m.policy(domain) != Open {
		return nil, xmpp.ErrServiceUnavailable // XEP-0077 §3.1: "If the host does not support In-Band Registration"
	}
	q, err := parse(iq)
	switch {
	case err != nil:
		return nil, err
	case iq.Type == string(stanza.GetIQ):
		return fields(), nil
	case q.Remove != nil:
		return nil, xmpp.ErrUnexpectedRequest // XEP-0077 §3.2: there is no account that asks
	}
	name, password := q.values()
	if name == "" || password == "" {
		return nil, xmpp.ErrNotAcceptable // XEP-0077 §3.1: some required information was not provided
	}
	account, err := jid.New(name, domain, "")
	if err != nil || len(password) > maxPassword {
		return nil, xmpp.ErrNotAcceptable
	}
	done, ok := m.limiter.begin(remote, m.server.Now())
	if !ok {
		return nil, xmpp.ErrResourceConstraint
	}
	err = m.accounts.Register(ctx, account, password)
	done(err == nil)
	return nil, err
}

// maxPassword bounds what is hashed. chosen: PRECIS and SCRAM set no bound; longer ones are no passwords.
const maxPassword = 1024

// fields are what an account is made of: the legacy fields, and the same as a data form for clients that know them (XEP-0077 §4, §6).
func fields() *xmpp.Element {
	const text = "Choose a username and password for use with this service."
	x, err := xmpp.Marshal(form.New(
		form.Title("Registration"), form.Instructions(text),
		form.Hidden("FORM_TYPE", form.Value(NS)),
		form.Text("username", form.Label("Username"), form.Required),
		form.TextPrivate("password", form.Label("Password"), form.Required),
	))
	if err != nil {
		x = nil // the legacy fields suffice
	}
	return xmpp.El(NS, "query").Add(xmpp.El("", "instructions").Say(text), xmpp.El("", "username"), xmpp.El("", "password"), x)
}

// own reports whether the asker is registered at the address that was asked: its own account, or the domain of it.
func own(s *xmpp.Stanza) bool {
	return s.To.Equal(s.From.Bare()) || s.To.Equal(s.From.Domain())
}

// get: XEP-0077 §3.1, "already registered".
func (m *Module) get(_ context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	if !own(s) {
		return nil, xmpp.ErrServiceUnavailable // accounts are for those who have none anywhere here
	}
	return xmpp.El(NS, "query").Add(
		xmpp.El("", "registered"),
		xmpp.El("", "instructions").Say("You are registered. Send a new password to change it."),
		xmpp.El("", "username").Say(s.From.Localpart()),
		xmpp.El("", "password"), // it MAY be empty, and nobody knows it
	), nil
}

// set changes the password (XEP-0077 §3.3) or removes the account (§3.2). Which account is never the payload's to say.
func (m *Module) set(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	q, err := parse(s)
	switch {
	case q.Remove != nil:
		err = m.remove(ctx, s, q)
	case err == nil:
		err = m.change(ctx, s, q)
	}
	if err == nil {
		return nil, nil
	}
	// XEP-0077 §3.3: the original XML, and with it the password, SHOULD NOT be in the error.
	e, expected := xmpp.AsStanzaError(err)
	if !expected {
		m.log.Error("change or remove account", "account", s.From.Bare().String(), "err", err)
	}
	bounce := xmpp.New(xmpp.IQ, string(stanza.ErrorIQ), s.From, s.To, xmpp.ErrorElement(e))
	bounce.ID = s.ID
	m.server.Route(ctx, bounce)
	return nil, xmpp.ErrDrop
}

func (m *Module) change(ctx context.Context, s *xmpp.Stanza, q query) error {
	name, password := q.values()
	switch {
	case !own(s):
		return xmpp.ErrNotAllowed
	case name == "" || password == "":
		return xmpp.ErrBadRequest // XEP-0077 §3.3: incomplete; an empty password MUST NOT be set
	case len(password) > maxPassword:
		return xmpp.ErrNotAcceptable
	case !names(name, s.From):
		return xmpp.ErrNotAllowed // neither somebody else's password nor a second account
	}
	var spare xmpp.Session
	for _, session := range m.server.Sessions(s.From.Bare()) {
		if session.JID().Equal(s.From) {
			spare = session
		}
	}
	return m.accounts.SetPassword(ctx, s.From.Bare(), password, spare)
}

// names reports whether username is from's: its localpart, or its bare JID as in XEP-0077 example 19.
func names(username string, from jid.JID) bool {
	if j, err := jid.New(username, from.Domainpart(), ""); err == nil {
		return j.Equal(from.Bare())
	}
	j, err := jid.Parse(username)
	return err == nil && j.Equal(from.Bare())
}

// remove: XEP-0077 §3.2. The result goes out before the streams end.
func (m *Module) remove(ctx context.Context, s *xmpp.Stanza, q query) error {
	switch {
	case !own(s):
		return xmpp.Fail(stanza.Auth, stanza.RegistrationRequired, "") // "was not previously registered"
	case q.children != 1:
		return xmpp.ErrBadRequest // "not the only child element"
	}
	return m.accounts.Delete(ctx, s.From.Bare())
}
