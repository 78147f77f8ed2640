package pubsub_test

import (
	"context"
	"testing"

	"balcony/xmpp"
	"balcony/xmpp/ext/pubsub"

	"mellium.im/xmpp/jid"
)

// failing is a store that can change nothing of one entity.
type failing struct {
	pubsub.Store
	who string
}

func (s *failing) SetPubSubSubscription(ctx context.Context, service jid.JID, name string, sub pubsub.Subscription) error {
	if sub.JID.String() == s.who {
		return xmpp.ErrResourceConstraint
	}
	return s.Store.SetPubSubSubscription(ctx, service, name, sub)
}

func (s *failing) SetPubSubAffiliation(ctx context.Context, service jid.JID, name string, who jid.JID, a pubsub.Affiliation) error {
	if who.String() == s.who {
		return xmpp.ErrResourceConstraint
	}
	return s.Store.SetPubSubAffiliation(ctx, service, name, who, a)
}

// XEP-0060 §8.8.4 and §8.9.4: whoever was changed is told, also when the database fails behind that and the owner gets an error.
func TestPartOfARequestIsTold(t *testing.T) {
	for local, entries := range map[string][2]string{
		"subscriptions": {"<subscription jid='a@remote' subscription='subscribed'/>", "<subscription jid='b@remote' subscription='subscribed'/>"},
		"affiliations":  {"<affiliation jid='a@remote' affiliation='publisher'/>", "<affiliation jid='b@remote' affiliation='publisher'/>"},
	} {
		t.Run(local, func(t *testing.T) {
			w := newWorldOver(t, func(s pubsub.Store) pubsub.Store { return &failing{s, "b@remote"} })
			w.request(t, "juliet@localhost/balcony", "pubsub.localhost", "set", pubsub.NS, "<create node='princely_musings'/>")
			w.take()
			got := w.request(t, "juliet@localhost/balcony", "pubsub.localhost", "set", pubsub.NSOwner,
				"<"+local+" node='princely_musings'>"+entries[0]+entries[1]+"</"+local+">")
			if got != "resource-constraint" {
				t.Errorf("the owner gets %s", got)
			}
			sent := w.take()
			if len(sent) != 1 || sent[0].To.String() != "a@remote" {
				t.Errorf("told: %v", sent)
			}
		})
	}
}
