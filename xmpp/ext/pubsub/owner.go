package pubsub

import (
	"context"
	"crypto/rand"
	"errors"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// create: XEP-0060 §8.1.
func (m *Module) create(ctx context.Context, r *request) (*xmpp.Element, error) {
	name := r.el.Attr("node")
	switch {
	case r.at.account() && !r.who.Bare().Equal(r.at.jid):
		return nil, xmpp.ErrForbidden // XEP-0163 §2.2
	case !r.at.account() && (r.who.Localpart() == "" || !m.srv.Serves(r.who.Domainpart())):
		return nil, xmpp.ErrForbidden // XEP-0060 §8.1.1: a service is for the accounts of its server
	case len(name) > maxName:
		return nil, xmpp.ErrNotAcceptable
	}
	instant := name == ""
	if instant {
		name = rand.Text() // XEP-0060 §8.1.1: an instant node
	}
	n := Node{Name: name, Config: serviceConfig(), Creator: r.who.Bare(), Created: m.srv.Now()}
	if r.at.account() {
		n.Config = fresh(name)
	}
	if c := r.second("configure"); c != nil { // XEP-0060 §8.1.3
		if x := child(c, nsForms, "x"); x != nil {
			if err := m.submit(r.at, &n, x); err != nil {
				return nil, err
			}
		}
	}
	err := m.queues.do(ctx, r.at.key, func() (func(context.Context), error) {
		return nil, m.store.CreatePubSubNode(ctx, r.at.jid, n)
	})
	if err != nil || !instant {
		return nil, err
	}
	return xmpp.El(NS, "pubsub").Add(xmpp.El("", "create", "node", name)), nil
}

// submit applies a configuration form to a node: XEP-0060 §8.2.4.
func (m *Module) submit(at place, n *Node, x *xmpp.Element) error {
	f, ok := readForm(x)
	if !ok || f.kind != "" && f.kind != formConfig {
		return xmpp.ErrBadRequest
	}
	if f.typ == "cancel" {
		return nil
	}
	if v, ok := f.value("pubsub#node_type"); ok && v == "collection" {
		return errNoCollections
	}
	before := n.Config.Access
	c := n.Config
	if err := c.submit(f); err != nil {
		if v, ok := f.value("pubsub#access_model"); ok && configIndex["pubsub#access_model"].set(&c, []string{v}) != nil {
			return errUnsupportedModel // XEP-0060 §8.1.2
		}
		return xmpp.ErrNotAcceptable // XEP-0060 §8.2.5.2
	}
	if wrong := c; at.account() && profileOf(n.Name).repair(&wrong) {
		if wrong.Access != c.Access && c.Access != before {
			return errUnsupportedModel // for this node
		}
		return xmpp.ErrNotAcceptable
	}
	n.Config = c
	return nil
}

// finder is look or load.
type finder func(ctx context.Context, at place, name string, who jid.JID) (found, error)

// mine finds the node that an owner's request names.
func (m *Module) mine(ctx context.Context, r *request, find finder, do Action) (found, error) {
	name, err := r.node()
	if err != nil {
		return found{}, err
	}
	f, err := find(ctx, r.at, name, r.who)
	if err == nil {
		_, err = f.may(r, do)
	}
	return f, err
}

// configuration: XEP-0060 §8.2.1.
func (m *Module) configuration(ctx context.Context, r *request) (*xmpp.Element, error) {
	f, err := m.mine(ctx, r, m.look, Configure)
	if err != nil {
		return nil, err
	}
	return xmpp.El(NSOwner, "pubsub").Add(xmpp.El("", "configure", "node", f.Name).Add(f.Config.form())), nil
}

// configure: XEP-0060 §8.2.4.
func (m *Module) configure(ctx context.Context, r *request) (*xmpp.Element, error) {
	return nil, m.queues.do(ctx, r.at.key, func() (func(context.Context), error) {
		f, err := m.mine(ctx, r, m.load, Configure)
		if err != nil {
			return nil, err
		}
		x := child(r.el, nsForms, "x")
		if x == nil {
			return nil, xmpp.ErrBadRequest
		}
		if x.Attr("type") == "cancel" {
			return nil, nil // XEP-0060 §8.2.4: the configuration stays
		}
		if err := m.submit(r.at, &f.Node, x); err != nil {
			return nil, err
		}
		return m.reconfigure(ctx, r.at, f.Node, saysAccess(x))
	})
}

// saysAccess reports whether a configuration form says who may read the node.
func saysAccess(x *xmpp.Element) bool {
	f, _ := readForm(x)
	_, access := f.value("pubsub#access_model")
	_, groups := f.value("pubsub#roster_groups_allowed")
	return access || groups
}

// reconfigure stores a configuration and says what to send for it; access is set when the owner has said who may read the node. The caller has the turn of
// the service.
func (m *Module) reconfigure(ctx context.Context, at place, n Node, access bool) (func(context.Context), error) {
	removed, err := m.store.ConfigurePubSubNode(ctx, at.jid, n.Name, n.Config, keepOf(n.Config))
	if err == nil {
		err = m.align(ctx, at, n, access)
	}
	if err != nil {
		return nil, err
	}
	cause := causeOf(ctx)
	return func(ctx context.Context) {
		m.changed(ctx, at, Change{Node: n.Name, Config: n.Config, Configured: true, Cause: cause})
		if n.Config.NotifyConfig { // XEP-0060 §8.2.5.3
			m.tell(ctx, at, n, event{configured: true})
		}
		if len(removed) > 0 && n.Config.NotifyRetract {
			m.tell(ctx, at, n, event{retracted: removed})
		}
	}, nil
}

// defaultConfig: XEP-0060 §8.3.
func (m *Module) defaultConfig(_ context.Context, r *request) (*xmpp.Element, error) {
	if r.el.Attr("type") == "collection" {
		return nil, unsupported("collections")
	}
	c := serviceConfig()
	if r.at.account() {
		if !r.who.Bare().Equal(r.at.jid) {
			return nil, xmpp.ErrForbidden
		}
		c = pepConfig()
	}
	return xmpp.El(NSOwner, "pubsub").Add(xmpp.El("", "default").Add(c.form())), nil
}

// deleteNode: XEP-0060 §8.4.
func (m *Module) deleteNode(ctx context.Context, r *request) (*xmpp.Element, error) {
	redirect := ""
	if c := child(r.el, NSOwner, "redirect"); c != nil {
		redirect = c.Attr("uri")
	}
	return nil, m.queues.do(ctx, r.at.key, func() (func(context.Context), error) {
		f, err := m.mine(ctx, r, m.load, Delete)
		if err != nil {
			return nil, err
		}
		var to []recipient
		if f.Config.NotifyDelete {
			if to, _, err = m.recipients(ctx, r.at, f.Node); err != nil { // while there are subscriptions
				return nil, err
			}
		}
		if before := m.doomed[f.Name]; before != nil && r.at.account() {
			if err := before(ctx, r.at.jid); err != nil {
				return nil, err
			}
		}
		if err := m.store.DeletePubSubNode(ctx, r.at.jid, f.Name); err != nil {
			return nil, err
		}
		cause := causeOf(ctx)
		return func(ctx context.Context) {
			m.changed(ctx, r.at, Change{Node: f.Name, Config: f.Config, Cause: cause})
			m.deliver(ctx, r.at, f.Node, event{deleted: true, redirect: redirect}, to)
		}, nil
	})
}

// purge: XEP-0060 §8.5.
func (m *Module) purge(ctx context.Context, r *request) (*xmpp.Element, error) {
	return nil, m.queues.do(ctx, r.at.key, func() (func(context.Context), error) {
		f, err := m.mine(ctx, r, m.load, Purge)
		if err != nil {
			return nil, err
		}
		if !f.Config.Persist {
			return nil, unsupported("persistent-items") // XEP-0060 §8.5.3.3
		}
		if err := m.store.PurgePubSubNode(ctx, r.at.jid, f.Name); err != nil {
			return nil, err
		}
		cause := causeOf(ctx)
		return func(ctx context.Context) {
			m.changed(ctx, r.at, Change{Node: f.Name, Config: f.Config, Cause: cause})
			m.tell(ctx, r.at, f.Node, event{purged: true})
		}, nil
	})
}

// nodeAffiliations: XEP-0060 §8.9.1.
func (m *Module) nodeAffiliations(ctx context.Context, r *request) (*xmpp.Element, error) {
	f, err := m.mine(ctx, r, m.look, Manage)
	if err != nil {
		return nil, err
	}
	all, err := m.store.PubSubAffiliations(ctx, r.at.jid, f.Name)
	if err != nil {
		return nil, err
	}
	list := xmpp.El("", "affiliations", "node", f.Name)
	for _, a := range all {
		list.Add(affiliationElement(a))
	}
	return r.portion(list)
}

func affiliationElement(a Affiliate) *xmpp.Element {
	return xmpp.El("", "affiliation", "jid", a.JID.String(), "affiliation", a.Affiliation.String())
}

// maxEntries bounds the entities of one request. chosen: each costs a transaction.
const maxEntries = 100

// entry is an entity in a request of an owner.
type entry struct {
	jid   jid.JID
	value string // of the attribute; "" leaves it alone
}

// entries reads the entities of a request: XEP-0060 §8.8.2 and §8.9.2.
func (r *request) entries(local, attribute string) (list []entry, err error) {
	seen := make(map[string]bool)
	for _, c := range r.el.Children {
		if c.Local != local || c.Space != NSOwner {
			continue
		}
		s := c.Attr("jid")
		if s == "" {
			return nil, errJIDRequired
		}
		j, err := jid.Parse(s)
		if err != nil {
			return nil, xmpp.ErrJIDMalformed
		}
		if local == "affiliation" {
			j = j.Bare() // XEP-0060 §4.1
		}
		key := j.String()
		if seen[key] || len(list) >= maxEntries {
			return nil, xmpp.ErrBadRequest // XEP-0060 §8.9.2.4
		}
		seen[key] = true
		list = append(list, entry{j, c.Attr(attribute)})
	}
	return list, nil
}

// setAffiliations: XEP-0060 §8.9.2.
func (m *Module) setAffiliations(ctx context.Context, r *request) (*xmpp.Element, error) {
	list, err := r.entries("affiliation", "affiliation")
	if err != nil {
		return nil, err
	}
	var failed *xmpp.Element
	err = m.queues.do(ctx, r.at.key, func() (func(context.Context), error) {
		f, err := m.mine(ctx, r, m.load, Manage)
		if err != nil {
			return nil, err
		}
		was, err := m.store.PubSubAffiliations(ctx, r.at.jid, f.Name)
		if err != nil {
			return nil, err
		}
		failed = xmpp.El("", "affiliations", "node", f.Name)
		var done []Affiliate
		tell := func(ctx context.Context) { // also of a request that fails later on
			for _, a := range done {
				// XEP-0060 §8.9.4
				if !a.JID.Equal(r.who.Bare()) {
					m.sendMessage(ctx, r.at, f.Node, a.JID, xmpp.El(NS, "pubsub").Add(xmpp.El("", "affiliations", "node", f.Name).Add(affiliationElement(a))))
				}
			}
		}
		for _, e := range list {
			if e.value == "" {
				continue // XEP-0060 §8.9.2.1: must not be changed
			}
			a, ok := affiliationOf(e.value)
			var err error
			if ok {
				err = m.store.SetPubSubAffiliation(ctx, r.at.jid, f.Name, e.jid, a)
			}
			if !ok || errors.Is(err, ErrLast) || errors.Is(err, ErrFull) {
				failed.Add(affiliationElement(affiliationAt(was, e.jid)))
				continue
			}
			if err != nil {
				return tell, err
			}
			done = append(done, Affiliate{JID: e.jid, Affiliation: a})
			if a == Outcast {
				if err := m.dismiss(ctx, r.at, f.Name, e.jid); err != nil {
					return tell, err
				}
			}
		}
		return tell, nil
	})
	return nil, m.answerPart(ctx, r, err, failed)
}

// answerPart is the end of a request of which entries may have failed. It is answered with what these still are: XEP-0060 §8.8.2.4 and §8.9.2.4.
func (m *Module) answerPart(ctx context.Context, r *request, err error, failed *xmpp.Element) error {
	if err != nil || failed == nil || len(failed.Children) == 0 {
		return err
	}
	e := xmpp.New(xmpp.IQ, "error", r.stanza.From, r.stanza.To, xmpp.El(NSOwner, "pubsub").Add(failed), xmpp.ErrorElement(xmpp.ErrNotAcceptable))
	e.ID = r.stanza.ID
	m.srv.Route(ctx, e)
	return xmpp.ErrDrop
}

func affiliationAt(list []Affiliate, who jid.JID) Affiliate {
	for _, a := range list {
		if a.JID.Equal(who) {
			return a
		}
	}
	return Affiliate{JID: who}
}

// dismiss ends the subscriptions of an entity, with all its resources.
func (m *Module) dismiss(ctx context.Context, at place, name string, who jid.JID) error {
	_, all, err := m.store.PubSubStandings(ctx, at.jid, who.Bare())
	for _, s := range all {
		if s.Node == name && err == nil {
			s.State = Unsubscribed
			err = m.store.SetPubSubSubscription(ctx, at.jid, name, s)
		}
	}
	return err
}

// nodeSubscriptions: XEP-0060 §8.8.1.
func (m *Module) nodeSubscriptions(ctx context.Context, r *request) (*xmpp.Element, error) {
	f, err := m.mine(ctx, r, m.look, Manage)
	if err != nil {
		return nil, err
	}
	all, err := m.store.PubSubSubscriptions(ctx, r.at.jid, f.Name)
	if err != nil {
		return nil, err
	}
	list := xmpp.El("", "subscriptions", "node", f.Name)
	for _, s := range all {
		list.Add(xmpp.El("", "subscription", "jid", s.JID.String(), "subscription", s.State.String()))
	}
	return r.portion(list)
}

// setSubscriptions: XEP-0060 §8.8.2.
func (m *Module) setSubscriptions(ctx context.Context, r *request) (*xmpp.Element, error) {
	list, err := r.entries("subscription", "subscription")
	if err != nil {
		return nil, err
	}
	var failed *xmpp.Element
	err = m.queues.do(ctx, r.at.key, func() (func(context.Context), error) {
		f, err := m.mine(ctx, r, m.load, Manage)
		if err != nil {
			return nil, err
		}
		failed = xmpp.El("", "subscriptions", "node", f.Name)
		var done []func(context.Context)
		tell := func(ctx context.Context) { // also of a request that fails later on
			for _, f := range done {
				f(ctx)
			}
		}
		for _, e := range list {
			if e.value == "" {
				continue
			}
			was, _, err := m.own(ctx, r.at, f.Name, e.jid)
			if err != nil {
				return tell, err
			}
			now := was
			ok := true
			switch e.value {
			case "none":
				now.State = Unsubscribed
			case "pending":
				now.State = Pending
			case "subscribed":
				now.State = Subscribed
			default:
				ok = false
			}
			if ok && now.State != was.State {
				err = m.store.SetPubSubSubscription(ctx, r.at.jid, f.Name, now)
			}
			if !ok || errors.Is(err, ErrFull) {
				failed.Add(xmpp.El("", "subscription", "jid", e.jid.String(), "subscription", was.State.String()))
				continue
			}
			if err != nil {
				return tell, err
			}
			if now.State != was.State {
				done = append(done, func(ctx context.Context) { m.stateChanged(ctx, r.at, f.Node, was, now) })
			}
		}
		return tell, nil
	})
	return nil, m.answerPart(ctx, r, err, failed)
}

// stateChanged tells a subscriber what an owner has decided: XEP-0060 §8.8.4 and §12.9.
func (m *Module) stateChanged(ctx context.Context, at place, n Node, was, now Subscription) {
	m.send(ctx, at, n, now.JID, subscriptionElement(n.Name, now))
	if now.State == Subscribed && was.State != Subscribed && n.Config.SendLast != Never && !now.Options.Silent {
		m.sendLast(ctx, at, n, now.JID)
	}
}
