package pubsub

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// Change is what has happened to a node of an account, for those who watch it.
type Change struct {
	Account jid.JID // bare
	Node    string
	Config  Config // by now
	Item    *Item  // published; nil for the others
	Retract string // id of a retracted item
	// Configured is set when the owner has changed the configuration, and no item.
	Configured bool
	Cause      any // what WithCause has put into the context of the change
}

// Watch makes f see every change of a node of an account, after it is stored and before its notifications are sent; deletion and purging as a Change
// without Item and Retract. Call it before the first stanza.
func (m *Module) Watch(node string, f func(context.Context, Change)) {
	m.watchers[node] = append(m.watchers[node], f)
}

// Absent makes f hear that the owner of an account publishes to a node that is not there, or asks for its items, before that is done: it may make the node
// of what stands elsewhere. Call it before the first stanza.
func (m *Module) Absent(node string, f func(ctx context.Context, account jid.JID)) {
	m.absent[node] = f
}

// Doomed makes f see that the owner of an account deletes a node, before it is gone and while nobody else changes the account's nodes: it must not send
// anything. An error keeps the node. Call it before the first stanza.
func (m *Module) Doomed(node string, f func(ctx context.Context, account jid.JID) error) {
	m.doomed[node] = f
}

// beforeUse tells of a node that is not there. The caller has not the turn of the service.
func (m *Module) beforeUse(ctx context.Context, r *request, name string) {
	f := m.absent[name]
	if f == nil || !r.at.account() || !r.who.Bare().Equal(r.at.jid) {
		return
	}
	if _, _, err := m.node(ctx, r.at, name, r.who); errors.Is(err, ErrNoNode) {
		f(ctx, r.at.jid)
	}
}

func (m *Module) changed(ctx context.Context, at place, c Change) {
	if !at.account() {
		return
	}
	c.Account = at.jid
	for _, f := range m.watchers[c.Node] {
		f(ctx, c)
	}
}

// publish: XEP-0060 §7.1.
func (m *Module) publish(ctx context.Context, r *request) (*xmpp.Element, error) {
	name, err := r.node()
	if err != nil {
		return nil, err
	}
	item, given, err := readItem(r.el)
	if err != nil {
		return nil, err
	}
	var options *form
	if o := r.second("publish-options"); o != nil {
		f, ok := readForm(child(o, nsForms, "x"))
		// XEP-0060 §7.1.5: the form must be of that type.
		if !ok || f.kind != formOptions {
			return nil, xmpp.ErrBadRequest
		}
		options = &f
	}
	m.beforeUse(ctx, r, name)
	err = m.queues.do(ctx, r.at.key, func() (func(context.Context), error) {
		f, err := m.load(ctx, r.at, name, r.who)
		create := errors.Is(err, ErrNoNode) && r.at.account() && r.who.Bare().Equal(r.at.jid)
		switch {
		case create:
			f.Node, err = m.draft(r.at, name, options)
			f.Affiliation = Owner
		case err == nil:
			_, err = f.may(r, Publish)
			if err == nil && options != nil && !f.Config.meets(*options) {
				err = errPrecondition
			}
		}
		if err != nil {
			return nil, err
		}
		if item.Payload, err = f.Config.accepts(item, given); err != nil {
			return nil, err
		}
		if create {
			if err := m.store.CreatePubSubNode(ctx, r.at.jid, f.Node); err != nil {
				return nil, err
			}
		}
		if item.ID == "" && given {
			item.ID = rand.Text() // XEP-0060 §7.1.2.1: the service makes it
		}
		if !r.at.account() || !r.who.Bare().Equal(r.at.jid) {
			item.Publisher = r.who.Bare()
		}
		return m.write(ctx, r.at, f.Node, item, r.who)
	})
	if err != nil {
		return nil, err
	}
	done := xmpp.El("", "publish", "node", name)
	if given {
		done.Add(xmpp.El("", "item", "id", item.ID))
	}
	return xmpp.El(NS, "pubsub").Add(done), nil
}

// draft is a node of an account that is made by publishing to it: XEP-0060 §7.1.4 and §7.1.5.
func (m *Module) draft(at place, name string, options *form) (Node, error) {
	n := Node{Name: name, Config: fresh(name), Creator: at.jid, Created: m.srv.Now()}
	if options == nil {
		return n, nil
	}
	// What the node cannot be is a precondition that is not met: never is something published with less privacy than was asked for.
	if n.Config.apply(*options) != nil || profileOf(name).repair(&n.Config) && !n.Config.meets(*options) {
		return n, errPrecondition
	}
	return n, nil
}

// readItem reads the <item/> of a <publish/>; given is false when there is none.
func readItem(publish *xmpp.Element) (it Item, given bool, err error) {
	for _, c := range publish.Children {
		if c.Local != "item" || c.Space != NS {
			continue
		}
		if given {
			return it, true, xmpp.ErrBadRequest // XEP-0060 §7.1.1: one
		}
		given = true
		if it.ID = c.Attr("id"); len(it.ID) > maxName {
			return it, true, xmpp.ErrNotAcceptable
		}
		for _, p := range c.Children {
			if p.Local == "" {
				continue
			}
			if it.Payload != nil {
				return it, true, errInvalidPayload // XEP-0060 §7.1.3.5
			}
			it.Payload = p.AppendTo(nil, "")
		}
	}
	return it, given, nil
}

// accepts holds an item to the event type of the node, XEP-0060 §7.1.3.6 and §4.3, and returns the payload that it keeps.
func (c *Config) accepts(it Item, given bool) ([]byte, error) {
	switch {
	case !given && c.Persist:
		return nil, errItemRequired
	case it.Payload == nil && c.Payloads:
		return nil, errPayloadRequired
	case given && !c.Persist && !c.Payloads:
		return nil, errItemForbidden
	case len(it.Payload) > maxPayload, c.MaxPayload > 0 && len(it.Payload) > c.MaxPayload:
		return nil, errPayloadTooBig // XEP-0060 §7.1.3.4
	}
	return it.Payload, nil
}

// write stores an item and says what to send for it. The caller has the turn of the service.
func (m *Module) write(ctx context.Context, at place, n Node, item Item, who jid.JID) (func(context.Context), error) {
	item.Published = m.srv.Now()
	var removed []string
	if n.Config.Persist {
		var err error
		removed, err = m.store.PublishPubSubItem(ctx, at.jid, n.Name, item, keepOf(n.Config), n.Config.NodeFull == Reject, n.Config.expiry(item.Published))
		if err != nil {
			return nil, err
		}
	}
	if err := m.align(ctx, at, n, false); err != nil {
		return nil, err
	}
	cause := causeOf(ctx)
	return func(ctx context.Context) {
		m.changed(ctx, at, Change{Node: n.Name, Config: n.Config, Item: &item, Cause: cause})
		m.tell(ctx, at, n, event{items: []Item{item}, by: who})
		// XEP-0060 §7.1.2.5: what had to go, unless each item takes the place of the one before.
		if len(removed) > 0 && n.Config.NotifyRetract && n.Config.NodeFull == RetractOldest && n.Config.MaxItems != 1 {
			m.tell(ctx, at, n, event{retracted: removed})
		}
	}, nil
}

// align gives an account's avatars the access of their metadata, so that those who hear of an avatar can get it: XEP-0084 §3.4. Only where the owner has
// configured that access it may let more in than before. What follows from publishing only takes away: who has asked for an access of the data (XEP-0060
// §7.1.5) may have asked for the default one. The caller has the turn of the service.
func (m *Module) align(ctx context.Context, at place, n Node, configured bool) error {
	if !at.account() || n.Name != nodeAvatarMetadata {
		return nil
	}
	data, _, err := m.store.PubSubNode(ctx, at.jid, nodeAvatarData, at.jid)
	if errors.Is(err, ErrNoNode) {
		return nil
	}
	if err != nil || data.Config.Access == n.Config.Access && slices.Equal(data.Config.Groups, n.Config.Groups) {
		return err
	}
	if !configured && n.Config.Access.openness() >= data.Config.Access.openness() {
		return nil
	}
	data.Config.Access, data.Config.Groups = n.Config.Access, n.Config.Groups
	_, err = m.store.ConfigurePubSubNode(ctx, at.jid, nodeAvatarData, data.Config, keepOf(data.Config))
	return err
}

// openness orders the access models by how many they may let in.
func (a AccessModel) openness() int {
	return slices.Index([]AccessModel{Whitelist, Authorize, Roster, Presence, Open}, a)
}

// expiry is the time before which items have expired, the zero time for none.
func (c *Config) expiry(now time.Time) time.Time {
	if c.ItemExpire == 0 {
		return time.Time{}
	}
	return now.Add(-time.Duration(c.ItemExpire) * time.Second)
}

// retract: XEP-0060 §7.2.
func (m *Module) retract(ctx context.Context, r *request) (*xmpp.Element, error) {
	name, err := r.node()
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, c := range r.el.Children {
		if c.Local == "item" && c.Space == NS {
			ids = append(ids, c.Attr("id"))
		}
	}
	if len(ids) == 0 || slices.Contains(ids, "") {
		return nil, errItemRequired // XEP-0060 §7.2.3.4
	}
	if len(ids) > 1 {
		return nil, xmpp.ErrBadRequest // XEP-0060 §7.2.1: one
	}
	notify, _ := boolean(r.el.Attr("notify"))
	return nil, m.queues.do(ctx, r.at.key, func() (func(context.Context), error) {
		f, err := m.load(ctx, r.at, name, r.who)
		if err != nil {
			return nil, err
		}
		if !f.Config.Persist {
			return nil, unsupported("persistent-items") // XEP-0060 §7.2.3.5
		}
		item, have, err := m.item(ctx, r.at, f.Node, ids[0])
		if err != nil {
			return nil, err
		}
		f.relation.Author = have && !item.Publisher.Equal(jid.JID{}) && item.Publisher.Equal(r.who.Bare())
		if _, err := f.may(r, Retract); err != nil {
			return nil, err
		}
		return m.remove(ctx, r.at, f.Node, ids[0], notify)
	})
}

// item finds one item.
func (m *Module) item(ctx context.Context, at place, n Node, id string) (Item, bool, error) {
	p, err := m.store.PubSubItems(ctx, at.jid, n.Name, Query{IDs: []string{id}, Max: 1, Since: n.Config.expiry(m.srv.Now())})
	if err != nil || len(p.Items) == 0 {
		return Item{}, false, err
	}
	return p.Items[0], true, nil
}

// remove takes an item away and says what to send for it. The caller has the turn of the service.
func (m *Module) remove(ctx context.Context, at place, n Node, id string, notify bool) (func(context.Context), error) {
	there, err := m.store.RetractPubSubItem(ctx, at.jid, n.Name, id)
	if err != nil {
		return nil, err
	}
	if !there {
		return nil, xmpp.ErrItemNotFound // XEP-0060 §7.2.3.2
	}
	cause := causeOf(ctx)
	return func(ctx context.Context) {
		m.changed(ctx, at, Change{Node: n.Name, Config: n.Config, Retract: id, Cause: cause})
		if notify || n.Config.NotifyRetract {
			m.tell(ctx, at, n, event{retracted: []string{id}})
		}
	}, nil
}
