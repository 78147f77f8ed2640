package server

import (
	"context"
	"errors"

	"balcony/cmd/balcony/config"
	"balcony/roster"
	"balcony/storage"
	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/ext/adhoc"
	"balcony/xmpp/ext/admin"
	"balcony/xmpp/ext/blocking"
	"balcony/xmpp/ext/contact"
	"balcony/xmpp/ext/disco"
	"balcony/xmpp/ext/last"
	"balcony/xmpp/ext/offline"
	"balcony/xmpp/ext/ping"
	"balcony/xmpp/ext/private"
	"balcony/xmpp/ext/push"
	"balcony/xmpp/ext/register"
	"balcony/xmpp/ext/time"
	"balcony/xmpp/ext/vcard"
	"balcony/xmpp/ext/version"

	"mellium.im/xmpp/jid"
)

// modules are the extensions of a server.
type modules struct {
	list     []xmpp.Module // in the order in which they see stanzas
	roster   *roster.Module
	blocking *blocking.Module
	register *register.Module
	offline  *offline.Module
	push     *push.Module
}

// capsNode names the software in entity capabilities (XEP-0115 §4).
const capsNode = "urn:balcony:server"

// newModules makes the modules. The order of list is the order of the pipeline (docs/pipeline.txt): what may stop a stanza comes before what
// acts on it, and the spool comes last.
func (s *Server) newModules() modules {
	ro := roster.New(rosterConfig(), s.db, s.log)
	bl := blocking.New(s.db, ro)
	ro.UseBlocking(bl)
	ro.UseLast(s.db)
	re := register.New(register.Config{PerHour: orZero(s.cfg.Limits.RegistrationsPerHour)}, registrar{s}, s.registration, s.log)
	of := offline.New(s.db, s.log)
	of.UseBlocking(bl)
	pu := push.New(push.DefaultConfig(), s.db, s.log)
	pu.UseReachability(reachable{})
	sa := admin.New(administrator{registrar{s}}, s.log)
	var commands []adhoc.Command
	for _, c := range sa.Commands() {
		commands = append(commands, adhoc.Command(c))
	}
	ad := adhoc.New(s.log, commands...)
	co := contact.Module{Of: s.contacts}
	di := &disco.Module{Name: "Balcony", Node: capsNode, Forms: []func(string) *xmpp.Element{co.Form}, Providers: []disco.Provider{ad}}
	return modules{
		roster: ro, blocking: bl, register: re, offline: of, push: pu,
		list: []xmpp.Module{
			di,
			bl,
			ro,
			pu,
			of,
			&last.Module{Store: s.db, Subscriptions: ro, Start: s.started, Log: s.log},
			vcard.Module{Store: s.db},
			private.Module{Store: s.db},
			re,
			ad,
			sa,
			co,
			ping.Module{},
			time.Module{},
			version.Module{Name: "Balcony", Number: s.version},
		},
	}
}

func rosterConfig() roster.Config { return roster.DefaultConfig() }

func storageLimits(cfg *config.Config) storage.Limits {
	l, c := storage.DefaultLimits(), cfg.Limits
	l.RosterItems, l.RosterRequests, l.BlockList = c.RosterItems.Int(), c.SubscriptionRequests.Int(), c.BlockedJIDs.Int()
	l.OfflineMessages, l.OfflineBytes = c.OfflineMessages.Int(), c.OfflineBytes.Int()
	l.PrivateElements, l.PrivateBytes = c.PrivateElements.Int(), c.PrivateBytes.Int()
	return l
}

// reachable tells push which sessions show what they get at once.
type reachable struct{}

func (reachable) Reachable(s xmpp.Session) bool {
	a, ok := s.(interface{ Active() bool })
	return !ok || a.Active()
}

// registration is the policy of a domain.
func (s *Server) registration(domain string) register.Policy {
	d, _ := s.domain(domain)
	return register.Policy(d.Registration)
}

// contacts are the contact addresses of a domain.
func (s *Server) contacts(domain string) contact.Addresses {
	d, _ := s.domain(domain)
	c := d.Contact
	return contact.Addresses{Abuse: c.Abuse, Admin: c.Admin, Feedback: c.Feedback, Sales: c.Sales, Security: c.Security, Status: c.Status, Support: c.Support}
}

// registrar is what in-band registration may do with accounts.
type registrar struct{ s *Server }

func (r registrar) Register(ctx context.Context, account jid.JID, password string) error {
	return translate(r.s.Accounts().Add(ctx, account, password))
}

func (r registrar) SetPassword(ctx context.Context, account jid.JID, password string, spare xmpp.Session) error {
	return translate(r.s.Accounts().setPassword(ctx, account, password, spare))
}

func (r registrar) Delete(ctx context.Context, account jid.JID) error {
	return translate(r.s.Accounts().Delete(ctx, account))
}

// translate turns errors of accounts into those of modules, which do not know package auth.
func translate(err error) error {
	switch {
	case errors.Is(err, auth.ErrAccountExists):
		return xmpp.ErrConflict
	case errors.Is(err, auth.ErrNoAccount):
		return xmpp.ErrItemNotFound
	case errors.Is(err, auth.ErrPassword):
		return xmpp.ErrNotAcceptable
	}
	return err
}

// administrator is what a domain's administrators may do with accounts.
type administrator struct{ registrar }

func (a administrator) SetDisabled(ctx context.Context, account jid.JID, disabled bool) error {
	return translate(a.s.Accounts().SetDisabled(ctx, account, disabled))
}

func (a administrator) List(ctx context.Context, domain, after string, limit int) ([]jid.JID, error) {
	return a.s.Accounts().List(ctx, domain, after, limit)
}

func (a administrator) Count(ctx context.Context, domain string) (int, error) {
	return a.s.db.CountAccounts(ctx, domain)
}
