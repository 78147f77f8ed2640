// Package admin implements XEP-0133: Service Administration 1.3.1: commands for the administrators of a domain, on that domain only.
package admin

import (
	"context"
	"log/slog"
	"strconv"
	"strings"

	"balcony/xmpp"

	"mellium.im/xmpp/form"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
	streamerr "mellium.im/xmpp/stream"
)

// NS is the FORM_TYPE of the forms and the beginning of every command's node (XEP-0133 §8).
const NS = "http://jabber.org/protocol/admin"

// Accounts makes, changes and removes accounts. What the administrator may know of an error is a stanza error: conflict for an account that
// exists, item-not-found for one that does not, not-acceptable for a password that cannot be one.
type Accounts interface {
	Register(ctx context.Context, account jid.JID, password string) error
	// SetPassword changes the password and ends all sessions of the account but spare (which may be nil).
	SetPassword(ctx context.Context, account jid.JID, password string, spare xmpp.Session) error
	// Delete removes the account and all of its data and ends its sessions.
	Delete(ctx context.Context, account jid.JID) error
	// SetDisabled forbids the account to log in and ends its sessions, or allows it again. Its data stay.
	SetDisabled(ctx context.Context, account jid.JID, disabled bool) error
	// List returns up to limit accounts of a domain in the order of their localparts, beginning after the localpart after.
	List(ctx context.Context, domain, after string, limit int) ([]jid.JID, error)
	// Count is the number of accounts of a domain.
	Count(ctx context.Context, domain string) (int, error)
}

// Command is one command, for an engine of XEP-0050: Form is shown when Stages is 1, and Run does it. Both return stanza errors for what
// the administrator may know.
type Command struct {
	Node, Name string
	Allowed    func(from jid.JID, domain string) bool
	Stages     int
	Form       func(ctx context.Context, from jid.JID, domain string, submitted []*form.Data) (*form.Data, error)
	Run        func(ctx context.Context, from jid.JID, domain string, submitted []*form.Data) (result *form.Data, note string, err error)
}

// Module is the commands.
type Module struct {
	accounts Accounts
	log      *slog.Logger
	server   xmpp.Server // static after Register
}

var _ xmpp.Module = (*Module)(nil)

// New makes the module. What administrators do is logged, without passwords.
func New(accounts Accounts, log *slog.Logger) *Module {
	return &Module{accounts: accounts, log: log}
}

// Protocol lists XEP-0133.
func (m *Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{{XEP: 133, Version: "1.3.1", Status: xmpp.Partial,
		Note: "§4.1–4.5, 4.7, 4.10 (resources), 4.13, 4.15, 4.18, 4.20, 4.23; the others are up to an implementation"}}
}

// Register learns the server. The commands are registered by whoever executes them.
func (m *Module) Register(r *xmpp.Registry) { m.server = r.Server }

// Commands are the commands, in the order of XEP-0133.
func (m *Module) Commands() []Command {
	return []Command{
		m.form("add-user", "Add User", addUser, m.addUser),
		m.form("delete-user", "Delete User", accountJIDs("Deleting a User", "Fill out this form to delete a user.", "The Jabber ID(s) to delete"), m.deleteUser),
		m.form("disable-user", "Disable User", accountJIDs("Disabling a User", "Fill out this form to disable a user.", "The Jabber ID(s) to disable"), m.disableUser),
		m.form("reenable-user", "Re-Enable User", accountJIDs("Re-Enable a User", "Fill out this form to re-enable a user.", "The Jabber ID(s) to re-enable"), m.reenableUser),
		m.form("end-user-session", "End User Session", accountJIDs("Ending a User Session", "Fill out this form to end a user's session.", "The Jabber ID(s) for which to end sessions"), m.endSession),
		m.form("change-user-password", "Change User Password", changePassword, m.changePassword),
		m.form("user-stats", "Get User Statistics", userStats, m.userStats),
		m.form("get-registered-users-num", "Get Number of Registered Users", nil, m.countRegistered),
		m.form("get-online-users-num", "Get Number of Online Users", nil, m.countOnline),
		m.form("get-registered-users-list", "Get List of Registered Users", maxItems("Requesting List of Registered Users", "Fill out this form to request the registered users of this service."), m.listRegistered),
		m.form("get-online-users-list", "Get List of Online Users", maxItems("Requesting List of Online Users", "Fill out this form to request the online users of this service."), m.listOnline),
		m.form("announce", "Send Announcement to Online Users", announcement, m.announce),
	}
}

// call is one execution by an administrator.
type call struct {
	from   jid.JID // full
	domain string
	submission
}

// form makes a command of at most one form. What XEP-0133 calls a user is an account.
func (m *Module) form(name, title string, ask []form.Field, run func(context.Context, call) (*form.Data, string, error)) Command {
	c := Command{Node: NS + "#" + name, Name: title, Allowed: func(from jid.JID, domain string) bool {
		return m.server.IsAdmin(from.Bare(), domain) // XEP-0133 §6
	}}
	if ask != nil {
		c.Stages = 1
		c.Form = func(context.Context, jid.JID, string, []*form.Data) (*form.Data, error) { return form.New(ask...), nil }
	}
	c.Run = func(ctx context.Context, from jid.JID, domain string, submitted []*form.Data) (*form.Data, string, error) {
		in := call{from: from, domain: domain}
		if ask != nil {
			in.submission = submission{submitted[len(submitted)-1]}
			if t := in.one("FORM_TYPE"); t != "" && t != NS {
				return nil, "", errBadPayload
			}
		}
		return run(ctx, in)
	}
	return c
}

func (m *Module) done(c call, what string, account jid.JID) {
	m.log.Info(what, "account", account.String(), "admin", c.from.String())
}

// addUser: XEP-0133 §4.1.
func (m *Module) addUser(ctx context.Context, c call) (*form.Data, string, error) {
	account, err := c.account()
	if err != nil {
		return nil, "", err
	}
	password, err := c.password()
	if err != nil {
		return nil, "", err
	}
	if c.has("password-verify") && c.one("password-verify") != password {
		return nil, "", notAcceptable("The two passwords differ.")
	}
	if err := m.accounts.Register(ctx, account, password); err != nil {
		return nil, "", err // §5: conflict when there is one already
	}
	m.done(c, "account added", account)
	return nil, "", nil
}

// each does f for every account of the form, after all of them were found to exist.
func (m *Module) each(ctx context.Context, c call, what string, f func(jid.JID) error) (*form.Data, string, error) {
	accounts, err := c.accounts()
	if err != nil {
		return nil, "", err
	}
	for _, a := range accounts {
		exists, err := m.server.Exists(ctx, a)
		if err != nil {
			return nil, "", err
		}
		if !exists {
			return nil, "", xmpp.ErrItemNotFound
		}
	}
	for _, a := range accounts {
		if err := f(a); err != nil {
			return nil, "", err
		}
		m.done(c, what, a)
	}
	return nil, "", nil
}

// others is each for what administrators cannot do to themselves: nobody would be left to mend it.
func (m *Module) others(ctx context.Context, c call, what string, f func(jid.JID) error) (*form.Data, string, error) {
	accounts, err := c.accounts()
	if err != nil {
		return nil, "", err
	}
	for _, a := range accounts {
		if a.Equal(c.from.Bare()) {
			return nil, "", xmpp.Fail(stanza.Cancel, stanza.NotAllowed, "That is your own account.")
		}
	}
	return m.each(ctx, c, what, f)
}

// deleteUser: XEP-0133 §4.2.
func (m *Module) deleteUser(ctx context.Context, c call) (*form.Data, string, error) {
	return m.others(ctx, c, "account deleted", func(a jid.JID) error { return m.accounts.Delete(ctx, a) })
}

// disableUser: XEP-0133 §4.3.
func (m *Module) disableUser(ctx context.Context, c call) (*form.Data, string, error) {
	return m.others(ctx, c, "account disabled", func(a jid.JID) error { return m.accounts.SetDisabled(ctx, a, true) })
}

// reenableUser: XEP-0133 §4.4.
func (m *Module) reenableUser(ctx context.Context, c call) (*form.Data, string, error) {
	return m.each(ctx, c, "account enabled", func(a jid.JID) error { return m.accounts.SetDisabled(ctx, a, false) })
}

// endSession: XEP-0133 §4.5, all sessions of a bare JID and the one of a full JID.
func (m *Module) endSession(_ context.Context, c call) (*form.Data, string, error) {
	jids, err := c.jids()
	if err != nil {
		return nil, "", err
	}
	for _, j := range jids {
		for _, s := range m.server.Sessions(j.Bare()) {
			if j.Resourcepart() == "" || s.JID().Equal(j) {
				s.Close(streamerr.PolicyViolation) // RFC 6120 §4.9.3.14
				m.done(c, "session ended by administrator", s.JID())
			}
		}
	}
	return nil, "", nil
}

// changePassword: XEP-0133 §4.7.
func (m *Module) changePassword(ctx context.Context, c call) (*form.Data, string, error) {
	account, err := c.account()
	if err != nil {
		return nil, "", err
	}
	password, err := c.password()
	if err != nil {
		return nil, "", err
	}
	var spare xmpp.Session // one's own session goes on
	for _, s := range m.server.Sessions(account) {
		if s.JID().Equal(c.from) {
			spare = s
		}
	}
	if err := m.accounts.SetPassword(ctx, account, password, spare); err != nil {
		return nil, "", err
	}
	m.done(c, "password changed", account)
	return nil, "", nil
}

// userStats: XEP-0133 §4.10, of which the resources are known.
func (m *Module) userStats(ctx context.Context, c call) (*form.Data, string, error) {
	account, err := c.account()
	if err != nil {
		return nil, "", err
	}
	exists, err := m.server.Exists(ctx, account)
	if err != nil {
		return nil, "", err
	}
	if !exists {
		return nil, "", xmpp.ErrItemNotFound
	}
	options := []form.Option{form.Label("The names of the account's online sessions")}
	for _, s := range m.server.Sessions(account) {
		options = append(options, form.Value(s.JID().Resourcepart()))
	}
	return result(form.TextMulti("onlineresources", options...)), "", nil
}

// countRegistered: XEP-0133 §4.13.
func (m *Module) countRegistered(ctx context.Context, c call) (*form.Data, string, error) {
	n, err := m.accounts.Count(ctx, c.domain)
	if err != nil {
		return nil, "", err
	}
	return result(form.Text("registeredusersnum", form.Label("The number of registered users"), form.Value(strconv.Itoa(n)))), "", nil
}

// online lists the accounts of a domain that have a session (XEP-0133 §4.15), up to max of them; 0 for all.
func (m *Module) online(domain string, max int) (list []jid.JID, more bool) {
	seen := make(map[string]struct{})
	m.server.EachSession(func(s xmpp.Session) bool {
		if s.JID().Domainpart() != domain {
			return true
		}
		bare := s.JID().Bare()
		if _, ok := seen[bare.String()]; ok {
			return true
		}
		if max > 0 && len(list) == max {
			more = true
			return false
		}
		seen[bare.String()] = struct{}{}
		list = append(list, bare)
		return true
	})
	return list, more
}

// countOnline: XEP-0133 §4.15.
func (m *Module) countOnline(_ context.Context, c call) (*form.Data, string, error) {
	list, _ := m.online(c.domain, 0)
	return result(form.Text("onlineusersnum", form.Label("The number of online users"), form.Value(strconv.Itoa(len(list))))), "", nil
}

// listRegistered: XEP-0133 §4.18.
func (m *Module) listRegistered(ctx context.Context, c call) (*form.Data, string, error) {
	max, err := c.maxItems()
	if err != nil {
		return nil, "", err
	}
	list, err := m.accounts.List(ctx, c.domain, "", max+1)
	if err != nil {
		return nil, "", err
	}
	more := len(list) > max
	return users("registereduserjids", "The list of all users", list[:min(max, len(list))], more)
}

// listOnline: XEP-0133 §4.20.
func (m *Module) listOnline(_ context.Context, c call) (*form.Data, string, error) {
	max, err := c.maxItems()
	if err != nil {
		return nil, "", err
	}
	list, more := m.online(c.domain, max)
	return users("onlineuserjids", "The list of all online users", list, more)
}

func users(name, label string, list []jid.JID, more bool) (*form.Data, string, error) {
	options := []form.Option{form.Label(label)}
	for _, j := range list {
		options = append(options, form.Value(j.String()))
	}
	note := ""
	if more {
		note = "There are more than the " + strconv.Itoa(len(list)) + " in this list."
	}
	return result(form.JIDMulti(name, options...)), note, nil
}

// announce: XEP-0133 §4.23, to everybody of the domain who has a session.
func (m *Module) announce(ctx context.Context, c call) (*form.Data, string, error) {
	text := strings.Join(c.all("announcement"), "\n")
	if strings.TrimSpace(text) == "" {
		return nil, "", errBadPayload
	}
	var to []jid.JID
	m.server.EachSession(func(s xmpp.Session) bool {
		if s.JID().Domainpart() == c.domain {
			to = append(to, s.JID())
		}
		return true
	})
	from, err := jid.New("", c.domain, "")
	if err != nil {
		return nil, "", err
	}
	for _, j := range to {
		// RFC 6121 §5.2.2: an alert to which no reply is expected, and which is not kept for later.
		m.server.Route(ctx, xmpp.New(xmpp.Message, string(stanza.HeadlineMessage), j, from, xmpp.El("", "body").Say(text)))
	}
	m.log.Info("announcement sent", "domain", c.domain, "sessions", len(to), "admin", c.from.String())
	return nil, "", nil
}
