package pie

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/ext/pubsub"

	"mellium.im/xmpp/jid"
)

const (
	nsPubSub = "http://jabber.org/protocol/pubsub"
	nsOwner  = "http://jabber.org/protocol/pubsub#owner"
	allItems = 1 << 30 // as many as the store keeps
)

// nodes is XEP-0227 §4.10. What the format has no place for, the times of nodes and items, are attributes of our own namespace.
func nodes(ctx context.Context, w *writer, src Source, account jid.JID) error {
	all, err := src.PubSubNodes(ctx, account, account)
	if err != nil || len(all) == 0 {
		return err
	}
	if err := w.text("<pubsub xmlns='" + nsOwner + "'>\n"); err != nil {
		return err
	}
	for _, n := range all {
		if err := node(ctx, w, src, account, n.Node); err != nil {
			return fmt.Errorf("node %q: %w", n.Node.Name, err)
		}
	}
	if err := w.text("</pubsub>\n<pubsub xmlns='" + nsPubSub + "'>\n"); err != nil {
		return err
	}
	for _, n := range all {
		if err := w.open(xmpp.El("", "items", "node", n.Node.Name), nsPubSub); err != nil {
			return err
		}
		if err := items(ctx, w, src, account, n.Node.Name); err != nil {
			return fmt.Errorf("items of %q: %w", n.Node.Name, err)
		}
		if err := w.text("</items>\n"); err != nil {
			return err
		}
	}
	return w.text("</pubsub>\n")
}

func node(ctx context.Context, w *writer, src Source, account jid.JID, n pubsub.Node) error {
	configure := xmpp.El("", "configure", "node", n.Name)
	timed(configure, "created", n.Created)
	if err := w.put(configure.Add(n.Config.Form()), nsOwner); err != nil {
		return err
	}
	subscriptions, err := src.PubSubSubscriptions(ctx, account, n.Name)
	if err != nil {
		return err
	}
	if len(subscriptions) > 0 {
		e := xmpp.El("", "subscriptions", "node", n.Name)
		for _, s := range subscriptions {
			state := "subscribed"
			if s.State == pubsub.Pending {
				state = "pending"
			}
			sub := xmpp.El("", "subscription", "jid", s.JID.String(), "subscription", state)
			if s.Options.Silent || len(s.Options.Show) > 0 {
				sub.Add(s.Options.Form())
			}
			e.Add(sub)
		}
		if err := w.put(e, nsOwner); err != nil {
			return err
		}
	}
	affiliations, err := src.PubSubAffiliations(ctx, account, n.Name)
	if err != nil || len(affiliations) == 0 {
		return err
	}
	e := xmpp.El("", "affiliations", "node", n.Name)
	for _, a := range affiliations {
		e.Add(xmpp.El("", "affiliation", "jid", a.JID.String(), "affiliation", a.Affiliation.String()))
	}
	return w.put(e, nsOwner)
}

func items(ctx context.Context, w *writer, src Source, account jid.JID, name string) error {
	for q := (pubsub.Query{Max: page, Bytes: 1 << 20}); ; {
		p, err := src.PubSubItems(ctx, account, name, q)
		if err != nil {
			return err
		}
		for _, it := range p.Items {
			e := xmpp.El("", "item", "id", it.ID)
			if !it.Publisher.Equal(jid.JID{}) {
				e.Attrs = append(e.Attrs, xmpp.Attr{Name: "publisher", Value: it.Publisher.String()})
			}
			timed(e, "published", it.Published)
			if len(it.Payload) > 0 {
				e.Add(xmpp.RawElement(it.Payload))
			}
			if err := w.put(e, nsPubSub); err != nil {
				return err
			}
			q.After = it.ID
		}
		if len(p.Items) == 0 || p.First+len(p.Items) >= p.Count {
			return nil
		}
	}
}

// timed adds a time as an attribute of our namespace.
func timed(e *xmpp.Element, name string, at time.Time) {
	if !at.IsZero() {
		e.Attrs = append(e.Attrs, xmpp.Attr{Name: "xmlns:b", Value: nsOurs}, xmpp.Attr{Name: "b:" + name, Value: at.UTC().Format(stampFormat)})
	}
}

// timeOf reads such a time; now when there is none.
func (i *importer) timeOf(start xml.StartElement, name string) (time.Time, error) {
	for _, a := range start.Attr {
		if a.Name.Space == nsOurs && a.Name.Local == name {
			at, err := parseTime(a.Value)
			return at, i.at(err)
		}
	}
	return time.Now(), nil
}

// owned reads the configuration of nodes, and who may do what at them: XEP-0227 §4.10.1.
func (i *importer) owned(account jid.JID) error {
	return i.each(func(start xml.StartElement) error {
		name := attr(start, "node")
		if start.Name.Space != nsOwner || name == "" {
			return i.unknown(start)
		}
		e, err := i.element(start)
		if err != nil {
			return err
		}
		switch start.Name.Local {
		case "configure":
			var form *xmpp.Element
			for _, c := range e.Children {
				if c.Local == "x" {
					form = c
				}
			}
			config, err := pubsub.ParseConfig(form)
			if err != nil { // also a value that is not known: it could be what keeps the node private
				return i.at(fmt.Errorf("node %q: %w", name, err))
			}
			created, err := i.timeOf(start, "created")
			if err != nil {
				return err
			}
			err = i.t.CreatePubSubNode(i.ctx, account, pubsub.Node{Name: name, Config: config, Creator: account, Created: created})
			if errors.Is(err, pubsub.ErrExists) { // its items came first
				_, err = i.t.ConfigurePubSubNode(i.ctx, account, name, config, allItems)
			}
			return err
		case "affiliations":
			for _, c := range e.Children {
				who, err := jid.Parse(c.Attr("jid"))
				a, ok := pubsub.ParseAffiliation(c.Attr("affiliation"))
				if c.Local == "" || err == nil && who.Bare().Equal(account) {
					continue
				}
				if err != nil || !ok {
					return i.at(fmt.Errorf("node %q: affiliation %q of %q", name, c.Attr("affiliation"), c.Attr("jid")))
				}
				if err := i.node(account, name, i.t.SetPubSubAffiliation(i.ctx, account, name, who.Bare(), a)); err != nil {
					return err
				}
			}
			return nil
		case "subscriptions":
			return i.subscriptions(account, name, e)
		}
		i.warn("<%s> of the node %q is not taken over", start.Name.Local, name)
		return nil
	})
}

func (i *importer) subscriptions(account jid.JID, name string, e *xmpp.Element) error {
	for _, c := range e.Children {
		if c.Local == "" {
			continue
		}
		who, err := jid.Parse(c.Attr("jid"))
		s := pubsub.Subscription{JID: who, State: map[string]pubsub.State{"subscribed": pubsub.Subscribed, "pending": pubsub.Pending}[c.Attr("subscription")]}
		if err != nil {
			return i.at(fmt.Errorf("node %q: a subscription of %q", name, c.Attr("jid")))
		}
		if s.State == pubsub.Unsubscribed {
			i.warn("the subscription %q of %s to the node %q is not taken over", c.Attr("subscription"), who, name)
			continue
		}
		for _, x := range c.Children {
			if x.Local == "" {
				continue
			}
			ok := false
			if s.Options, ok = pubsub.ParseOptions(x); !ok {
				i.warn("options of %s at the node %q are not taken over", who, name)
			}
		}
		if err := i.node(account, name, i.t.SetPubSubSubscription(i.ctx, account, name, s)); err != nil {
			return err
		}
	}
	return nil
}

// node tells what a store says of a node that the document has not described.
func (i *importer) node(_ jid.JID, name string, err error) error {
	if errors.Is(err, pubsub.ErrNoNode) {
		return i.at(fmt.Errorf("the node %q was not described before", name))
	}
	return err
}

// published reads the items of nodes: XEP-0227 §4.10.2.
func (i *importer) published(account jid.JID) error {
	return i.each(func(start xml.StartElement) error {
		name := attr(start, "node")
		if start.Name.Space != nsPubSub || start.Name.Local != "items" || name == "" {
			return i.unknown(start)
		}
		err := i.t.CreatePubSubNode(i.ctx, account, pubsub.Node{Name: name, Config: pubsub.DefaultConfig(), Creator: account, Created: time.Now()})
		if err != nil && !errors.Is(err, pubsub.ErrExists) {
			return err
		}
		return i.each(func(start xml.StartElement) error {
			if start.Name.Space != nsPubSub || start.Name.Local != "item" {
				return i.unknown(start)
			}
			return i.published1(start, account, name)
		})
	})
}

func (i *importer) published1(start xml.StartElement, account jid.JID, name string) error {
	at, err := i.timeOf(start, "published")
	if err != nil {
		return err
	}
	c, err := i.payload(start)
	if err != nil {
		return err
	}
	it := pubsub.Item{ID: attr(start, "id"), Published: at}
	if it.ID == "" {
		return i.at(fmt.Errorf("an item of %q without an id", name))
	}
	if p := attr(start, "publisher"); p != "" {
		who, err := jid.Parse(p)
		if err != nil {
			return i.at(fmt.Errorf("item %q of %q: publisher %q", it.ID, name, p))
		}
		if !who.Bare().Equal(account) {
			it.Publisher = who.Bare()
		}
	}
	e, err := c.Element()
	if err != nil {
		return i.at(err)
	}
	for _, child := range e.Children {
		if child.Local == "" {
			continue
		}
		if it.Payload != nil {
			return i.at(fmt.Errorf("item %q of %q has more than one element", it.ID, name))
		}
		it.Payload = child.AppendTo(nil, "-") // no namespace has that name, so it declares its own
	}
	_, err = i.t.PublishPubSubItem(i.ctx, account, name, it, allItems, true, time.Time{}) // an import drops nothing
	return err
}
