package push

import (
	"context"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// event is something that happens to devices of an account, for Run.
type event struct {
	account  jid.JID
	resource string // the device; empty: all that have no session that can be reached
	news     news
	returned bool // the device is there again
}

// Notify tells that a stanza waits for the device of a session that cannot be reached: it was queued while the session hibernates or its client
// is inactive, or it was not acknowledged when the connection broke. Every stanza may be given, and more than once: Notify looks itself
// whether it is worth a notification. It does not block, and calls nothing outside of this package: locks may be held.
func (m *Module) Notify(s xmpp.Session, st *xmpp.Stanza) {
	j := s.JID()
	m.news(event{account: j.Bare(), resource: j.Resourcepart()}, st)
}

// Returned tells that the client of a session can be reached again: it has resumed the session or become active. What it was to be told of
// reaches it now. Binding a resource does the same by itself.
func (m *Module) Returned(s xmpp.Session) {
	j := s.JID()
	e := event{account: j.Bare(), resource: j.Resourcepart(), returned: true}
	if !m.surelyNot(e.account.String(), e.resource) {
		m.send(e)
	}
}

// news sends the event with the news of st, if it has any and somebody may want them.
func (m *Module) news(e event, st *xmpp.Stanza) {
	if st.Kind == xmpp.IQ || m.surelyNot(e.account.String(), e.resource) {
		return
	}
	if e.news = m.newsOf(st, e.account); e.news.priority != none {
		m.send(e)
	}
}

func (m *Module) send(e event) {
	select {
	case m.events <- e:
	default:
		m.dropped.Add(1)
	}
}

// undelivered notifies the devices of an account without sessions. It stands before the offline spool and knows what that takes.
func (m *Module) undelivered(_ context.Context, d *xmpp.Delivery) error {
	s := d.Stanza
	switch s.MessageType() {
	case stanza.GroupChatMessage:
		return nil // RFC 6121 §8.5.2.2.1: answered with an error
	case stanza.HeadlineMessage:
		if !s.Has(nsHints, "store") {
			return nil
		}
	}
	if !s.Has(nsHints, "no-store") { // XEP-0334 §4.2: there will be nothing to fetch
		m.news(event{account: d.Account}, s)
	}
	return nil
}

// incoming looks for services that disable themselves, and for messages that only other devices get.
func (m *Module) incoming(ctx context.Context, d *xmpp.Delivery) error {
	s := d.Stanza
	if s.Kind != xmpp.Message {
		return nil
	}
	if s.Has(nsPubSub, "pubsub") {
		m.affiliation(ctx, d)
	}
	if m.cfg.Archive && len(d.Targets) > 0 && !d.Again && archived(s) {
		m.news(event{account: d.Account}, s)
	}
	return nil
}

// archived reports whether a device that comes later finds a message in the archive: XEP-0313 §5.1.1 and XEP-0334 §4.
func archived(s *xmpp.Stanza) bool {
	t := s.MessageType()
	return (t == stanza.ChatMessage || t == stanza.NormalMessage) && !s.Has(nsHints, "no-store") && !s.Has(nsHints, "no-permanent-store")
}

// affiliation: XEP-0357 §8, a push service withdraws the account's right to publish. The message goes on its way.
func (m *Module) affiliation(ctx context.Context, d *xmpp.Delivery) {
	var notice struct {
		Node         string `xml:"node,attr"`
		Affiliations []struct {
			JID         string `xml:"jid,attr"`
			Affiliation string `xml:"affiliation,attr"`
		} `xml:"http://jabber.org/protocol/pubsub affiliation"`
	}
	c, _ := d.Stanza.Child(nsPubSub, "pubsub")
	if c.Decode(&notice) != nil || notice.Node == "" {
		return
	}
	for _, a := range notice.Affiliations {
		j, err := jid.Parse(a.JID)
		if err != nil || !j.Equal(d.Account) || a.Affiliation != "none" {
			continue
		}
		list, err := m.registrations(ctx, d.Account)
		for _, r := range list {
			if r.Service.Equal(d.Stanza.From) && r.Node == notice.Node {
				err = m.remove(ctx, d.Account, r, "affiliation none")
			}
		}
		if err != nil {
			m.log.Error("disable push", "account", d.Account.String(), "err", err)
		}
		return
	}
}

// remove deletes a registration for a reason that the log tells.
func (m *Module) remove(ctx context.Context, account jid.JID, r Registration, reason string) error {
	err := m.store.RemovePush(ctx, account, r.ID)
	m.Forget(account)
	if err == nil {
		m.log.Info("push registration removed", "account", account.String(), "resource", r.Resource, "service", r.Service.String(), "reason", reason)
	}
	return err
}
