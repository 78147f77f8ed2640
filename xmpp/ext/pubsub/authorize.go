package pubsub

import (
	"context"
	"crypto/rand"
	"errors"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// askOwners asks the owners of a node to approve a subscription: XEP-0060 §8.6. The message is kept for them while they are offline.
func (m *Module) askOwners(ctx context.Context, at place, n Node, who jid.JID) {
	owners, err := m.owners(ctx, at, n.Name)
	if err != nil {
		m.log.Error("load owners", "service", at.key, "err", err)
		return
	}
	x := newForm("form", formAuthorize)
	x.Children = append([]*xmpp.Element{
		xmpp.El("", "title").Say("PubSub subscriber request"),
		xmpp.El("", "instructions").Say("Do you allow " + who.String() + " to subscribe to the node " + n.Name + "?"),
	}, x.Children...)
	x.Add(newField("pubsub#node", "text-single", "Node ID", n.Name), newField("pubsub#subscriber_jid", "jid-single", "Subscriber Address", who.String()),
		newField("pubsub#allow", "boolean", "Allow this JID to subscribe to this pubsub node?", "0"))
	s := xmpp.New(xmpp.Message, string(stanza.NormalMessage), jid.JID{}, at.jid, x)
	s.ID = rand.Text()
	for _, o := range owners {
		m.srv.Route(ctx, s.WithTo(o))
	}
}

// incoming takes what an owner answers to its own account, and what comes of notifications and from resources elsewhere.
func (m *Module) incoming(ctx context.Context, d *xmpp.Delivery) error {
	s := d.Stanza
	switch s.Kind {
	case xmpp.Presence:
		m.remotePresence(ctx, d)
	case xmpp.Message:
		if s.To.Resourcepart() != "" || s.MessageType() == stanza.ErrorMessage && !s.Has(NSEvent, "event") {
			return nil
		}
		if s.MessageType() == stanza.ErrorMessage {
			m.bounced(ctx, place{jid: d.Account, key: d.Key, domain: d.Account.Domainpart()}, s)
			return xmpp.ErrDrop
		}
		if s.From.Bare().Equal(d.Account) && m.authorized(ctx, s) {
			return xmpp.ErrDrop
		}
	}
	return nil
}

// serviceMessage takes what is no request at a service.
func (m *Module) serviceMessage(ctx context.Context, s *xmpp.Stanza) error {
	switch {
	case s.Kind != xmpp.Message || s.MessageType() == stanza.HeadlineMessage:
		return xmpp.ErrDrop
	case s.MessageType() == stanza.ErrorMessage:
		m.bounced(ctx, m.placeOf(s.To), s)
		return xmpp.ErrDrop
	case s.To.Localpart() == "" && m.authorized(ctx, s):
		return nil
	}
	return xmpp.ErrServiceUnavailable
}

// authorized carries out an owner's answer to askOwners: XEP-0060 §8.6. It reports whether the message was one.
func (m *Module) authorized(ctx context.Context, s *xmpp.Stanza) bool {
	c, ok := s.Child(nsForms, "x")
	if !ok {
		return false
	}
	x, err := c.Element()
	if err != nil {
		return false
	}
	f, ok := readForm(x)
	if !ok || f.kind != formAuthorize {
		return false
	}
	name, _ := f.value("pubsub#node")
	who, _ := f.value("pubsub#subscriber_jid")
	answer, _ := f.value("pubsub#allow")
	allow, decided := boolean(answer)
	subscriber, err := jid.Parse(who)
	if f.typ != "submit" || !decided || err != nil {
		return true // XEP-0060 §8.6: the subscription stays pending
	}
	at := m.placeOf(s.To)
	err = m.queues.do(ctx, at.key, func() (func(context.Context), error) {
		fd, err := m.load(ctx, at, name, s.From)
		if err != nil || fd.decide(Manage) != allowed {
			return nil, err
		}
		was, _, err := m.own(ctx, at, name, subscriber)
		if err != nil || was.State != Pending {
			return nil, err
		}
		now := was
		now.State = Unsubscribed
		if allow {
			now.State = Subscribed
		}
		if err := m.store.SetPubSubSubscription(ctx, at.jid, name, now); err != nil {
			return nil, err
		}
		return func(ctx context.Context) { m.stateChanged(ctx, at, fd.Node, was, now) }, nil
	})
	if err != nil && !errors.Is(err, ErrNoNode) {
		m.log.Error("authorize subscription", "service", at.key, "err", err)
	}
	return true
}

// bounced ends the subscription of an address that is gone: XEP-0060 §12.4.
func (m *Module) bounced(ctx context.Context, at place, s *xmpp.Stanza) {
	var v struct {
		Type string    `xml:"type,attr"`
		Gone *struct{} `xml:"urn:ietf:params:xml:ns:xmpp-stanzas gone"`
		None *struct{} `xml:"urn:ietf:params:xml:ns:xmpp-stanzas item-not-found"`
		Away *struct{} `xml:"urn:ietf:params:xml:ns:xmpp-stanzas remote-server-not-found"`
	}
	c, ok := s.Child("", "error")
	if !ok || c.Decode(&v) != nil || v.Gone == nil && v.None == nil && v.Away == nil {
		return
	}
	ev, ok := s.Child(NSEvent, "event")
	if !ok {
		return
	}
	el, err := ev.Element()
	if err != nil {
		return
	}
	for _, c := range el.Children {
		name := c.Attr("node")
		if name == "" {
			continue
		}
		err := m.queues.do(ctx, at.key, func() (func(context.Context), error) {
			was, there, err := m.own(ctx, at, name, s.From)
			if err != nil || !there {
				return nil, err
			}
			was.State = Unsubscribed
			return nil, m.store.SetPubSubSubscription(ctx, at.jid, name, was)
		})
		if err != nil {
			m.log.Error("end subscription", "service", at.key, "err", err)
		}
		return
	}
}
