package pubsub

import (
	"context"
	"errors"
	"math"
	"slices"
	"strconv"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

const (
	nsRSM   = "http://jabber.org/protocol/rsm" // XEP-0059 §7
	nsOrder = "urn:xmpp:order-by:1"            // XEP-0413 §4

	maxPage = 1000 // items of one answer. chosen: more is asked for with XEP-0059
	maxIDs  = 100  // items that one request names. chosen: each costs a query
)

// subscriber is the JID that a request is about, which must be of who asks; other is the error when it is not.
func (r *request) subscriber(other error) (jid.JID, error) {
	s := r.el.Attr("jid")
	if s == "" {
		return jid.JID{}, errJIDRequired
	}
	j, err := jid.Parse(s)
	if err != nil {
		return j, errInvalidJID
	}
	if !j.Bare().Equal(r.who.Bare()) {
		return j, other
	}
	return j, nil
}

// own finds the subscription of one JID to a node.
func (m *Module) own(ctx context.Context, at place, name string, who jid.JID) (Subscription, bool, error) {
	_, all, err := m.store.PubSubStandings(ctx, at.jid, who.Bare())
	for _, s := range all {
		if s.Node == name && s.JID.Equal(who) {
			return s, true, err
		}
	}
	return Subscription{JID: who}, false, err
}

// subscribe: XEP-0060 §6.1.
func (m *Module) subscribe(ctx context.Context, r *request) (*xmpp.Element, error) {
	name, err := r.node()
	if err != nil {
		return nil, err
	}
	who, err := r.subscriber(errInvalidJID) // XEP-0060 §6.1.3.1
	if err != nil {
		return nil, err
	}
	var options *form
	if o := r.second("options"); o != nil { // XEP-0060 §6.3.7
		f, ok := readForm(child(o, nsForms, "x"))
		if !ok {
			return nil, errInvalidOptions
		}
		options = &f
	}
	var now Subscription
	err = m.queues.do(ctx, r.at.key, func() (func(context.Context), error) {
		f, err := m.load(ctx, r.at, name, r.who)
		if err != nil {
			return nil, err
		}
		v, err := f.may(r, Join)
		if err != nil {
			return nil, err
		}
		if !f.Config.Subscribe && f.Affiliation != Owner {
			return nil, unsupported("subscribe")
		}
		was, there, err := m.own(ctx, r.at, name, who)
		if err != nil {
			return nil, err
		}
		now = was
		switch {
		case v == pending && was.State == Pending:
			return nil, errPending // XEP-0060 §6.1.3.7
		case v == pending:
			now.State = Pending
		default:
			now.State = Subscribed
		}
		if options != nil && !now.Options.submit(*options) {
			return nil, errInvalidOptions
		}
		err = m.store.SetPubSubSubscription(ctx, r.at.jid, name, now)
		if errors.Is(err, ErrFull) {
			err = errTooMany // XEP-0060 §6.1.3.9
		}
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) {
			switch {
			case now.State == Pending:
				m.askOwners(ctx, r.at, f.Node, who)
			case !there || was.State != Subscribed:
				m.joined(ctx, r.at, f.Node, now)
			}
		}, nil
	})
	if err != nil {
		return nil, err
	}
	q := xmpp.El(NS, "pubsub").Add(subscriptionElement(name, now))
	if options != nil {
		q.Add(xmpp.El("", "options").Add(now.Options.form("result")))
	}
	return q, nil
}

func subscriptionElement(name string, s Subscription) *xmpp.Element {
	return xmpp.El("", "subscription", "node", name, "jid", s.JID.String(), "subscription", s.State.String())
}

// String is the name of the state: XEP-0060 §4.2.
func (s State) String() string {
	switch s {
	case Pending:
		return "pending"
	case Subscribed:
		return "subscribed"
	}
	return "none"
}

// joined sends what follows from a new subscription: the last item, XEP-0060 §6.1.7, and news for the owners, §12.11.
func (m *Module) joined(ctx context.Context, at place, n Node, s Subscription) {
	if n.Config.SendLast != Never && !s.Options.Silent {
		m.sendLast(ctx, at, n, s.JID)
	}
	m.tellOwners(ctx, at, n, s)
}

// tellOwners: pubsub#notify_sub, XEP-0060 §16.4.4.
func (m *Module) tellOwners(ctx context.Context, at place, n Node, s Subscription) {
	if !n.Config.NotifySub {
		return
	}
	owners, err := m.owners(ctx, at, n.Name)
	if err != nil {
		m.log.Error("load owners", "service", at.key, "err", err)
		return
	}
	for _, o := range owners {
		if !o.Equal(s.JID.Bare()) {
			m.send(ctx, at, n, o, subscriptionElement(n.Name, s))
		}
	}
}

// unsubscribe: XEP-0060 §6.2.
func (m *Module) unsubscribe(ctx context.Context, r *request) (*xmpp.Element, error) {
	name, err := r.node()
	if err != nil {
		return nil, err
	}
	who, err := r.subscriber(xmpp.ErrForbidden) // XEP-0060 §6.2.3.3
	if err != nil {
		return nil, err
	}
	err = m.queues.do(ctx, r.at.key, func() (func(context.Context), error) {
		f, err := m.load(ctx, r.at, name, r.who)
		if err != nil {
			return nil, err
		}
		if _, err := f.may(r, Join); err != nil && f.Subscription == Unsubscribed {
			return nil, err
		}
		was, there, err := m.own(ctx, r.at, name, who)
		switch {
		case err != nil:
			return nil, err
		case !there:
			return nil, errNotSubscriber // XEP-0060 §6.2.3.2
		}
		// XEP-0060 §6.2.3.5: a SubID is ignored where there are none.
		was.State = Unsubscribed
		if err := m.store.SetPubSubSubscription(ctx, r.at.jid, name, was); err != nil {
			return nil, err
		}
		return func(ctx context.Context) { m.tellOwners(ctx, r.at, f.Node, was) }, nil
	})
	if err != nil {
		return nil, err
	}
	return xmpp.El(NS, "pubsub").Add(subscriptionElement(name, Subscription{JID: who})), nil
}

// configurable finds the subscription that a request for options is about: XEP-0060 §6.3.4.
func (m *Module) configurable(ctx context.Context, r *request, find finder) (name string, s Subscription, err error) {
	if name, err = r.node(); err != nil {
		return name, s, err
	}
	who, err := r.subscriber(xmpp.ErrForbidden) // XEP-0060 §6.3.4.1
	if err != nil {
		return name, s, err
	}
	f, err := find(ctx, r.at, name, r.who)
	if err != nil {
		return name, s, err
	}
	_, _ = f.may(r, Join)
	s, there, err := m.own(ctx, r.at, name, who)
	switch {
	case err != nil:
	case !there:
		err = fail(stanza.Modify, stanza.UnexpectedRequest, "not-subscribed") // XEP-0060 §6.3.4.2
	case r.el.Attr("subid") != "":
		err = errInvalidSubID // XEP-0060 §6.3.4.5
	}
	return name, s, err
}

// options: XEP-0060 §6.3.2.
func (m *Module) options(ctx context.Context, r *request) (*xmpp.Element, error) {
	name, s, err := m.configurable(ctx, r, m.look)
	if err != nil {
		return nil, err
	}
	return xmpp.El(NS, "pubsub").Add(xmpp.El("", "options", "node", name, "jid", s.JID.String()).Add(s.Options.form("form"))), nil
}

// setOptions: XEP-0060 §6.3.5.
func (m *Module) setOptions(ctx context.Context, r *request) (*xmpp.Element, error) {
	f, ok := readForm(child(r.el, nsForms, "x"))
	if !ok {
		return nil, xmpp.ErrBadRequest
	}
	return nil, m.queues.do(ctx, r.at.key, func() (func(context.Context), error) {
		name, s, err := m.configurable(ctx, r, m.load)
		if err != nil || f.typ == "cancel" {
			return nil, err
		}
		if !s.Options.submit(f) {
			return nil, errInvalidOptions
		}
		return nil, m.store.SetPubSubSubscription(ctx, r.at.jid, name, s)
	})
}

// defaultOptions: XEP-0060 §6.4.
func (m *Module) defaultOptions(ctx context.Context, r *request) (*xmpp.Element, error) {
	name := r.el.Attr("node")
	if name == "" && !r.known {
		return nil, xmpp.ErrServiceUnavailable // the answer would tell that there is an account
	}
	if name != "" {
		f, err := m.look(ctx, r.at, name, r.who)
		if err != nil {
			return nil, err
		}
		if _, err := f.may(r, Join); err != nil {
			return nil, err
		}
	}
	return xmpp.El(NS, "pubsub").Add(xmpp.El("", "default", "node", name).Add(Options{}.form("result"))), nil
}

// items: XEP-0060 §6.5.
func (m *Module) items(ctx context.Context, r *request) (*xmpp.Element, error) {
	name, err := r.node()
	if err != nil {
		return nil, err
	}
	q, asked, set, err := r.query()
	if err != nil {
		return nil, err
	}
	m.beforeUse(ctx, r, name)
	f, err := m.look(ctx, r.at, name, r.who)
	if err != nil {
		return nil, err
	}
	if _, err := f.may(r, Retrieve); err != nil {
		return nil, err
	}
	if r.el.Attr("subid") != "" {
		return nil, errInvalidSubID // XEP-0060 §6.5.9.2
	}
	if !f.Config.Persist {
		return nil, unsupported("persistent-items") // XEP-0060 §6.5.9.4
	}
	q.Since = f.Config.expiry(m.srv.Now())
	p, err := m.store.PubSubItems(ctx, r.at.jid, name, q)
	if err != nil {
		return nil, err
	}
	if p.Gone {
		return nil, xmpp.ErrItemNotFound // XEP-0059 §2.2
	}
	all := make([]*xmpp.Element, len(p.Items))
	for i, it := range p.Items {
		all[i] = itemElement(it, f.Config, true)
	}
	low, high := within(all, q.Last)
	p.Items, p.First = p.Items[low:high], p.First+low
	answer := xmpp.El(NS, "pubsub").Add(xmpp.El("", "items", "node", name).Add(all[low:high]...))
	if set || len(p.Items) < min(p.Count, asked) {
		answer.Add(resultSet(p)) // XEP-0060 §6.5.4: also where the answer would be too large; the rest is asked for with it
	}
	return answer, nil
}

// itemElement is an <item/>. XEP-0060 §7.1.2.3: where a node says who has published its items, it says so everywhere.
func itemElement(it Item, c Config, payload bool) *xmpp.Element {
	el := xmpp.El("", "item", "id", it.ID)
	if c.ItemReply == "publisher" && !it.Publisher.Equal(jid.JID{}) {
		el.Attrs = append(el.Attrs, xmpp.Attr{Name: "publisher", Value: it.Publisher.String()})
	}
	if payload && it.Payload != nil {
		el.Raw = it.Payload
	}
	return el
}

// resultSet: XEP-0059 §2.1 and §2.6.
func resultSet(p Page) *xmpp.Element {
	set := xmpp.El(nsRSM, "set")
	if n := len(p.Items); n > 0 {
		set.Add(xmpp.El("", "first", "index", strconv.Itoa(p.First)).Say(p.Items[0].ID), xmpp.El("", "last").Say(p.Items[n-1].ID))
	}
	return set.Add(xmpp.El("", "count").Say(strconv.Itoa(p.Count)))
}

// query reads which items are wanted; asked is how many at most, and set tells whether XEP-0059 was used.
func (r *request) query() (q Query, asked int, set bool, err error) {
	q.Max, q.Bytes, asked = maxPage, maxAnswer, math.MaxInt
	for _, c := range r.el.Children {
		if c.Local == "item" && c.Space == NS {
			id := c.Attr("id")
			if id == "" {
				return q, asked, false, errItemRequired
			}
			if !slices.Contains(q.IDs, id) {
				q.IDs = append(q.IDs, id)
			}
			if len(q.IDs) > maxIDs {
				return q, asked, false, xmpp.ErrPolicyViolation
			}
		}
	}
	q.Newest = child(r.root, nsOrder, "order") != nil // XEP-0413 §3.1: the newest first, by the creation of what stands there now
	if s := r.el.Attr("max_items"); s != "" {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return q, asked, false, xmpp.ErrBadRequest
		}
		asked = int(n)
		q.Max, q.Last = min(asked, maxPage), !q.Newest // XEP-0060 §6.5.7: the most recent ones
		return q, asked, false, nil
	}
	rsm := child(r.root, nsRSM, "set")
	if rsm == nil {
		return q, asked, false, nil
	}
	for _, c := range rsm.Children {
		if c.Space != nsRSM {
			continue
		}
		switch c.Local {
		case "max":
			n, err := strconv.ParseUint(c.Text, 10, 31)
			if err != nil {
				return q, asked, true, xmpp.ErrBadRequest
			}
			q.Max = min(int(n), maxPage)
		case "after":
			q.After = c.Text
		case "before":
			q.Before, q.Last = c.Text, true
		case "index":
			n, err := strconv.ParseUint(c.Text, 10, 31)
			if err != nil {
				return q, asked, true, xmpp.ErrBadRequest
			}
			q.Index = int(n)
		}
	}
	if q.IDs != nil && (q.Last || q.Index > 0) {
		return q, asked, true, xmpp.ErrFeatureNotImpl // a list that the client has made itself is gone through in its order alone
	}
	return q, asked, true, nil
}

// subscriptions: XEP-0060 §5.6.
func (m *Module) subscriptions(ctx context.Context, r *request) (*xmpp.Element, error) {
	name := r.el.Attr("node")
	_, all, err := m.standings(ctx, r, name)
	if err != nil {
		return nil, err
	}
	list := xmpp.El("", "subscriptions", "node", name)
	for _, s := range all {
		if name == "" || s.Node == name {
			list.Add(subscriptionElement(s.Node, s))
		}
	}
	return r.portion(list)
}

// affiliations: XEP-0060 §5.7.
func (m *Module) affiliations(ctx context.Context, r *request) (*xmpp.Element, error) {
	name := r.el.Attr("node")
	all, _, err := m.standings(ctx, r, name)
	if err != nil {
		return nil, err
	}
	list := xmpp.El("", "affiliations", "node", name)
	for _, a := range all {
		if name == "" || a.Node == name {
			list.Add(xmpp.El("", "affiliation", "node", a.Node, "affiliation", a.Affiliation.String()))
		}
	}
	return r.portion(list)
}

// standings are what who asks has at the nodes of the service; name is the node that was asked about, if one was.
func (m *Module) standings(ctx context.Context, r *request, name string) ([]Affiliate, []Subscription, error) {
	if name != "" {
		if _, err := m.look(ctx, r.at, name, r.who); err != nil {
			return nil, nil, err
		}
	}
	affiliations, subscriptions, err := m.store.PubSubStandings(ctx, r.at.jid, r.who.Bare())
	if err != nil {
		return nil, nil, err
	}
	if len(affiliations)+len(subscriptions) > 0 {
		r.known = true
	}
	if !r.known {
		return nil, nil, xmpp.ErrServiceUnavailable // an empty list would tell that there is an account
	}
	return affiliations, subscriptions, nil
}

// affiliationNames are those of XEP-0060 §4.1.
var affiliationNames = [...]string{None: "none", Outcast: "outcast", Member: "member", PublishOnly: "publish-only", Publisher: "publisher", Owner: "owner"}

// String is the name of the affiliation.
func (a Affiliation) String() string {
	if int(a) < len(affiliationNames) {
		return affiliationNames[a]
	}
	return affiliationNames[None]
}

// affiliationOf finds an affiliation by its name.
func affiliationOf(name string) (Affiliation, bool) {
	i := slices.Index(affiliationNames[:], name)
	return Affiliation(max(i, 0)), i >= 0
}
