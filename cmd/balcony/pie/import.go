package pie

import (
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"balcony/roster"
	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/ext/mam"

	"mellium.im/xmpp/jid"
)

// importer is one import.
type importer struct {
	*reader
	ctx  context.Context
	t    Target
	done Imported

	// Of the account that is read.
	archived bool  // its archive is taken over
	order    int64 // of the last message in it
}

// Import reads a document and writes its accounts, each whole or not at all: an account that fails is as it was before, those before it stay. An
// error in the document says where it is.
func Import(ctx context.Context, in io.Reader, t Target) (Imported, error) {
	i := &importer{reader: newReader(in), ctx: ctx, t: t}
	err := i.document()
	return i.done, err
}

func (i *importer) warn(format string, args ...any) {
	if len(i.done.Warnings) < maxWarnings {
		line, _ := i.d.InputPos()
		i.done.Warnings = append(i.done.Warnings, fmt.Sprintf("line %d: ", line)+fmt.Sprintf(format, args...))
	}
}

func ours(n xml.Name, local string) bool {
	return n.Local == local && (n.Space == NS || n.Space == nsOld)
}

func (i *importer) document() error {
	root, err := i.root()
	if err != nil {
		return err
	}
	if !ours(root.Name, "server-data") {
		return i.at(fmt.Errorf("<%s> of %q: not a document of XEP-0227", root.Name.Local, root.Name.Space))
	}
	err = i.each(func(start xml.StartElement) error { // XEP-0227 §4.1
		if !ours(start.Name, "host") {
			return i.unknown(start)
		}
		domain, err := jid.New("", attr(start, "jid"), "")
		if err != nil || !i.t.Serves(domain.String()) {
			return i.at(fmt.Errorf("%q is not a domain of this server", attr(start, "jid")))
		}
		return i.each(func(start xml.StartElement) error {
			if !ours(start.Name, "user") {
				return i.unknown(start)
			}
			return i.user(start, domain.String())
		})
	})
	if err != nil {
		return err
	}
	return i.end()
}

// each calls f for every child of the element that is open. f reads the child.
func (i *importer) each(f func(xml.StartElement) error) error {
	for {
		start, ok, err := i.next()
		if err != nil || !ok {
			return err
		}
		if start.Name.Space == nsInclude {
			return i.at(errors.New("an XInclude that was not resolved"))
		}
		if err := f(start); err != nil {
			return err
		}
	}
}

// unknown: XEP-0227 §4, what is not understood is ignored and the operator told.
func (i *importer) unknown(start xml.StartElement) error {
	i.warn("<%s xmlns='%s'> is not taken over", start.Name.Local, start.Name.Space)
	return i.skip()
}

// user reads an account: XEP-0227 §4.2.
func (i *importer) user(start xml.StartElement, domain string) error {
	account, err := jid.New(attr(start, "name"), domain, "")
	if err != nil || account.Localpart() == "" {
		return i.at(fmt.Errorf("%q cannot be the name of an account", attr(start, "name")))
	}
	i.archived, i.order = false, 0
	restore, created, err := i.begin(account)
	if err != nil {
		return i.at(fmt.Errorf("%s: %w", account, err))
	}
	if err := i.content(account, created, attr(start, "password")); err != nil {
		p := i.place(err)
		p.error = fmt.Errorf("%s: %w", account, p.error)
		// Also when ctx has ended: half an account is none.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(i.ctx), time.Minute)
		defer cancel()
		if undo := restore(ctx); undo != nil {
			return errors.Join(p, fmt.Errorf("what was imported of %s could not be removed: %w", account, undo))
		}
		return p
	}
	i.done.Accounts = append(i.done.Accounts, account.String())
	return nil
}

// begin makes the account, or sees that it is empty. restore puts things back.
func (i *importer) begin(account jid.JID) (restore func(context.Context) error, created bool, err error) {
	exists, err := i.t.AccountExists(i.ctx, account)
	if err != nil {
		return nil, false, err
	}
	if !exists {
		// Nobody can log in before everything is there: it has no verifiers yet.
		return func(ctx context.Context) error { return i.t.DeleteAccount(ctx, account) }, true, i.t.CreateAccount(i.ctx, account, nil)
	}
	if err := empty(i.ctx, i.t, account); err != nil {
		return nil, false, err
	}
	verifiers, err := i.t.Verifiers(i.ctx, account)
	if err != nil {
		return nil, false, err
	}
	disabled, err := i.t.AccountDisabled(i.ctx, account)
	return func(ctx context.Context) error {
		err := i.t.DeleteAccount(ctx, account)
		if err == nil {
			err = i.t.CreateAccount(ctx, account, verifiers)
		}
		if err == nil && disabled {
			err = i.t.SetAccountDisabled(ctx, account, true)
		}
		return err
	}, false, err
}

// empty returns ErrInUse for an account with data.
func empty(ctx context.Context, src Source, account jid.JID) error {
	items, _, err := src.Roster(ctx, account)
	if err != nil {
		return err
	}
	card, err := src.VCard(ctx, account)
	if err != nil {
		return err
	}
	elements, err := src.PrivateElements(ctx, account)
	if err != nil {
		return err
	}
	list, err := src.Blocked(ctx, account)
	if err != nil {
		return err
	}
	entries, err := src.Offline(ctx, account, 0, 1)
	if err != nil {
		return err
	}
	all, err := src.PubSubNodes(ctx, account, account)
	if err != nil {
		return err
	}
	if len(all) > 0 || len(items) > 0 || card != nil || len(elements) > 0 || len(list) > 0 || len(entries) > 0 {
		return ErrInUse
	}
	p, err := src.ReadArchive(ctx, account, 0, 1, 0)
	if err == nil && len(p.Messages) > 0 {
		err = ErrInUse // ids that its clients know would be in another order
	}
	if err != nil {
		return err
	}
	prefs, err := src.ArchivePreferences(ctx, account)
	if err == nil && !unset(prefs) {
		err = ErrInUse
	}
	return err
}

// content reads the children of <user/>.
func (i *importer) content(account jid.JID, created bool, password string) error {
	var verifiers []auth.Verifier
	disabled := false
	err := i.each(func(start xml.StartElement) error {
		switch n := start.Name; {
		case n.Space == nsScram && n.Local == "scram-credentials":
			v, err := i.credentials(start)
			for _, o := range verifiers {
				if v != nil && o.Mechanism == v.Mechanism {
					return i.at(fmt.Errorf("two credentials for %s", v.Mechanism)) // XEP-0227 §4.3
				}
			}
			if v != nil {
				verifiers = append(verifiers, *v)
			}
			return err
		case n.Space == nsRoster && n.Local == "query":
			return i.each(func(start xml.StartElement) error { return i.item(start, account) })
		case n.Space == xmpp.NSClient && n.Local == "presence":
			return i.request(start, account)
		case n.Space == nsVCard && n.Local == "vCard":
			c, err := i.payload(start)
			if err != nil {
				return err
			}
			return i.t.SetVCard(i.ctx, account, c.Standalone())
		case n.Space == nsPrivate && n.Local == "query":
			return i.each(func(start xml.StartElement) error {
				c, err := i.payload(start)
				if err != nil {
					return err
				}
				return i.t.SetPrivateXML(i.ctx, account, start.Name.Space, start.Name.Local, c.Standalone())
			})
		case n.Space == nsPrivacy && n.Local == "query":
			return i.privacy(start, account)
		case n.Space == nsBlocking && n.Local == "blocklist":
			return i.blocklist(start, account)
		case n.Space == nsOwner && n.Local == "pubsub":
			return i.owned(account)
		case n.Space == nsPubSub && n.Local == "pubsub":
			return i.published(account)
		case n.Space == nsArchive && n.Local == "archive":
			return i.archive(start, account)
		case n.Space == mam.NS && n.Local == "prefs":
			return i.preferences(start, account)
		case ours(n, "offline-messages"):
			return i.messages(account)
		case n.Space == nsOurs && n.Local == "disabled":
			disabled = true
			return i.skip()
		case n.Space == nsOurs && n.Local == "last-activity":
			return i.last(start, account)
		}
		return i.unknown(start)
	})
	if err != nil {
		return err
	}
	switch {
	case !created: // its owner knows how to log in
	case len(verifiers) > 0:
		err = i.t.SetVerifiers(i.ctx, account, verifiers)
	case password != "":
		err = i.t.SetPassword(i.ctx, account, password)
	default:
		i.warn("%s has no password: set one with balcony user passwd", account)
	}
	if err == nil && disabled {
		err = i.t.SetAccountDisabled(i.ctx, account, true)
	}
	return err
}

// credentials is XEP-0227 §4.3; nil for a mechanism that this server does not have.
func (i *importer) credentials(start xml.StartElement) (*auth.Verifier, error) {
	e, err := i.element(start)
	if err != nil {
		return nil, err
	}
	v := &auth.Verifier{Mechanism: attr(start, "mechanism")}
	var bad error
	for _, c := range e.Children {
		text := strings.TrimSpace(c.Text)
		if c.Local == "iter-count" {
			v.Iterations, err = strconv.Atoi(text)
		} else if to := map[string]*[]byte{"salt": &v.Salt, "server-key": &v.ServerKey, "stored-key": &v.StoredKey}[c.Local]; to != nil {
			*to, err = base64.StdEncoding.DecodeString(text)
		}
		bad = errors.Join(bad, err)
	}
	if bad == nil {
		bad = v.Check()
	}
	if errors.Is(bad, auth.ErrMechanism) {
		i.warn("credentials for %s are not taken over: this server does not have it", v.Mechanism)
		return nil, nil
	}
	if bad != nil {
		return nil, i.at(fmt.Errorf("credentials for %s: %w", v.Mechanism, bad))
	}
	return v, nil
}

// item is one contact of the roster: XEP-0227 §4.4, RFC 6121 §2.1.2.
func (i *importer) item(start xml.StartElement, account jid.JID) error {
	e, err := i.element(start)
	if err != nil {
		return err
	}
	contact, err := jid.Parse(attr(start, "jid"))
	if err != nil || e.Local != "item" {
		return i.at(fmt.Errorf("%q is no contact", attr(start, "jid")))
	}
	subscription := attr(start, "subscription")
	switch subscription {
	case "", "none", "to", "from", "both":
	default:
		return i.at(fmt.Errorf("subscription %q", subscription))
	}
	_, err = i.t.UpdateItem(i.ctx, account, contact.Bare(), func(it *roster.Item) bool {
		it.Listed, it.Name, it.Groups = true, attr(start, "name"), nil
		it.To = subscription == "to" || subscription == "both"
		it.From = subscription == "from" || subscription == "both"
		it.Ask = attr(start, "ask") == "subscribe" && !it.To
		approved := attr(start, "approved")
		it.Approved = (approved == "true" || approved == "1") && !it.From
		for _, c := range e.Children {
			if c.Local == "group" && c.Text != "" {
				it.Groups = append(it.Groups, c.Text)
			}
		}
		return true
	})
	return err
}

// request is a subscription request that nobody has answered: XEP-0227 §4.9.
func (i *importer) request(start xml.StartElement, account jid.JID) error {
	s, err := i.stanza(start)
	if err != nil {
		return err
	}
	if s.Type != "subscribe" || s.From.Domainpart() == "" {
		return i.at(errors.New("only subscription requests can be kept as presence"))
	}
	if !s.To.Bare().Equal(account) {
		s = s.WithTo(account)
	}
	_, err = i.t.UpdateItem(i.ctx, account, s.From.Bare(), func(it *roster.Item) bool {
		it.In, it.Request = !it.From, s.AppendTo(nil)
		return it.In
	})
	return err
}

// privacy takes from privacy lists (XEP-0227 §4.8) what a block list can say: XEP-0191 §5.
func (i *importer) privacy(start xml.StartElement, account jid.JID) error {
	e, err := i.element(start)
	if err != nil {
		return err
	}
	name := blocked
	for _, c := range e.Children {
		if c.Local == "default" {
			name = c.Attr("name")
		}
	}
	var entries []jid.JID
	for _, list := range e.Children {
		if list.Local != "list" {
			continue
		}
		if list.Attr("name") != name {
			i.warn("the privacy list %q is not taken over: it is not the default", list.Attr("name"))
			continue
		}
		for _, it := range list.Children {
			switch {
			case it.Local != "item":
			case it.Attr("type") == "jid" && it.Attr("action") == "deny" && !hasElements(it):
				j, err := jid.Parse(it.Attr("value"))
				if err != nil {
					return i.at(fmt.Errorf("privacy list: %q is no address", it.Attr("value")))
				}
				entries = append(entries, j)
			default:
				i.warn("a privacy rule that is not a block (type %q, action %q) is not taken over", it.Attr("type"), it.Attr("action"))
			}
		}
	}
	return i.block(account, entries)
}

// blocklist is the block list as XEP-0191 §3.2 shows it.
func (i *importer) blocklist(start xml.StartElement, account jid.JID) error {
	e, err := i.element(start)
	if err != nil {
		return err
	}
	var entries []jid.JID
	for _, it := range e.Children {
		if it.Local != "item" {
			continue
		}
		j, err := jid.Parse(it.Attr("jid"))
		if err != nil {
			return i.at(fmt.Errorf("block list: %q is no address", it.Attr("jid")))
		}
		entries = append(entries, j)
	}
	return i.block(account, entries)
}

func (i *importer) block(account jid.JID, entries []jid.JID) error {
	kept := entries[:0]
	for _, j := range entries {
		if j.Bare().Equal(account) || j.Equal(account.Domain()) {
			i.warn("%s is not blocked: the account needs it", j)
			continue
		}
		kept = append(kept, j)
	}
	if len(kept) == 0 {
		return nil
	}
	return i.t.Block(i.ctx, account, kept)
}

func (i *importer) last(start xml.StartElement, account jid.JID) error {
	e, err := i.element(start)
	if err != nil {
		return err
	}
	at, err := parseTime(attr(start, "stamp"))
	if err != nil {
		return i.at(fmt.Errorf("last activity: %w", err))
	}
	return i.t.SetLastActivity(account, at, e.Text).Wait(i.ctx)
}

func hasElements(e *xmpp.Element) bool {
	for _, c := range e.Children {
		if c.Local != "" {
			return true
		}
	}
	return false
}
