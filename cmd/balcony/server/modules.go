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
	"balcony/xmpp/ext/avatar"
	"balcony/xmpp/ext/blocking"
	"balcony/xmpp/ext/bookmarks"
	"balcony/xmpp/ext/carbons"
	"balcony/xmpp/ext/contact"
	"balcony/xmpp/ext/disco"
	"balcony/xmpp/ext/last"
	"balcony/xmpp/ext/mam"
	"balcony/xmpp/ext/offline"
	"balcony/xmpp/ext/ping"
	"balcony/xmpp/ext/private"
	"balcony/xmpp/ext/pubsub"
	"balcony/xmpp/ext/push"
	"balcony/xmpp/ext/register"
	"balcony/xmpp/ext/services"
	"balcony/xmpp/ext/time"
	"balcony/xmpp/ext/upload"
	"balcony/xmpp/ext/vcard"
	"balcony/xmpp/ext/vcard4"
	"balcony/xmpp/ext/version"

	"mellium.im/xmpp/jid"
)

// modules are the extensions of a server.
type modules struct {
	list     []xmpp.Module // in the order in which they see stanzas
	roster   *roster.Module
	blocking *blocking.Module
	register *register.Module
	archive  *mam.Module
	offline  *offline.Module
	push     *push.Module
	upload   *upload.Module // nil when it is turned off
	pubsub   *pubsub.Module
	avatar   *avatar.Module
}

// capsNode names the software in entity capabilities (XEP-0115 §4).
const capsNode = "urn:balcony:server"

// newModules makes the modules. The order of list is the order of the pipeline (docs/pipeline.txt): what may stop a stanza comes before what
// acts on it, and the spool comes last.
func (s *Server) newModules(up *upload.Module) modules {
	ro := roster.New(rosterConfig(), s.db, s.log)
	bl := blocking.New(s.db, ro)
	ro.UseBlocking(bl)
	ro.UseLast(s.db)
	re := register.New(register.Config{PerHour: orZero(s.cfg.Limits.RegistrationsPerHour)}, registrar{s}, s.registration, s.log)
	of := offline.New(s.db, s.log)
	of.UseBlocking(bl)
	ar := mam.New(archiveConfig(s.cfg), s.db, ro, of, s.log)
	ca := carbons.New(of, ro)
	ar.UseCopies(ca)
	pu := push.New(push.DefaultConfig(), s.db, s.log)
	pu.UseReachability(reachable{})
	ps := pubsub.New(s.db, ro, bl, s.log)
	ro.UseShown(ps.Subscribed)
	av := avatar.New(avatarNodes{ps}, s.db, s.log)
	v4 := vcard4.Module{Nodes: cardNodes{ps}, Cards: s.db, Log: s.log}
	bm := bookmarks.Module{Nodes: bookmarkNodes{ps}, Store: s.db, Log: s.log}
	mirror(ps, av, v4, bm)
	sa := admin.New(administrator{registrar{s}}, s.log)
	var commands []adhoc.Command
	for _, c := range sa.Commands() {
		commands = append(commands, adhoc.Command(c))
	}
	ad := adhoc.New(s.log, commands...)
	co := contact.Module{Of: s.contacts}
	di := &disco.Module{Name: "Balcony", Node: capsNode, Forms: []func(string) *xmpp.Element{co.Form}, Providers: []disco.Provider{ad, ps, connected{s.parts}}}
	mods := modules{
		roster: ro, blocking: bl, register: re, archive: ar, offline: of, push: pu, upload: up, pubsub: ps, avatar: av,
		list: []xmpp.Module{
			di,
			bl,
			av,
			ro,
			carbons.Guard{},
			ps,
			ar,
			pu,
			of,
			ca,
			&last.Module{Store: s.db, Subscriptions: ro, Start: s.started},
			vcard.Module{Store: s.db, Changed: cardsChanged(av, v4), Shown: v4.Shown},
			private.Module{Store: s.db, Mirror: bm},
			v4,
			bm,
			re,
			ad,
			sa,
			co,
			ping.Module{},
			time.Module{},
			version.Module{Name: "Balcony", Number: s.version},
			&services.Module{Services: external(s.cfg.Services)},
		},
	}
	if up != nil {
		mods.list = append(mods.list, up)
	}
	return mods
}

func rosterConfig() roster.Config { return roster.DefaultConfig() }

func archiveConfig(cfg *config.Config) mam.Config {
	c := mam.DefaultConfig()
	c.Enabled, c.Keep, c.Messages = cfg.Archive.Enabled, cfg.Archive.Keep.Std(), orZero(cfg.Archive.Messages)
	c.Domains = make(map[string]mam.Policy)
	for _, d := range cfg.Domains {
		j, err := jid.Parse(d.Name)
		if err != nil {
			continue // setHosts refuses it
		}
		keep, messages := cfg.Retention(d)
		c.Domains[j.Domainpart()] = mam.Policy{Enabled: cfg.Archives(d), Search: cfg.Searches(d), Keep: keep.Std(), Messages: orZero(messages)}
	}
	return c
}

func storageLimits(cfg *config.Config) storage.Limits {
	l, c := storage.DefaultLimits(), cfg.Limits
	l.RosterItems, l.RosterRequests, l.BlockList = c.RosterItems.Int(), c.SubscriptionRequests.Int(), c.BlockedJIDs.Int()
	l.OfflineMessages, l.OfflineBytes = c.OfflineMessages.Int(), c.OfflineBytes.Int()
	l.PrivateElements, l.PrivateBytes = c.PrivateElements.Int(), c.PrivateBytes.Int()
	l.PubSubNodes, l.PubSubServiceNodes = c.PubSubNodes.Int(), c.PubSubServiceNodes.Int()
	l.PubSubItems, l.PubSubBytes = c.PubSubItems.Int(), c.PubSubBytes.Int()
	l.PubSubAffiliations, l.PubSubSubscriptions, l.PubSubOwnSubscriptions = c.PubSubAffiliations.Int(), c.PubSubSubscriptions.Int(), c.PubSubOwnSubscriptions.Int()
	return l
}

// reachable tells push which sessions show what they get at once.
type reachable struct{}

func (reachable) Reachable(s xmpp.Session) bool {
	a, ok := s.(interface{ Active() bool })
	return !ok || a.Active()
}

// external are the external services of the configuration.
func external(list []config.Service) (all []services.Service) {
	for _, s := range list {
		all = append(all, services.Service{Type: s.Type, Host: s.Host, Port: int(s.Port), Transport: s.Transport, Name: s.Name,
			Secret: s.Secret, Lifetime: s.Lifetime.Std(), Username: s.Username, Password: s.Password})
	}
	return all
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
