package pubsub_test

import (
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/xmpptest"
)

// The limits of the configuration hold: nodes (XEP-0060 §11, max-nodes-exceeded), items, and subscriptions of one account to a node (§6.1.3.9).
func TestLimits(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) {
		c.Limits.PubSubNodes, c.Limits.PubSubItems, c.Limits.PubSubOwnSubscriptions = 1, 1, 1
	}))
	juliet, romeo := srv.Client("juliet@localhost/balcony"), srv.Client("romeo@localhost/orchard")
	const ns = "<pubsub xmlns='http://jabber.org/protocol/pubsub'>"
	juliet.Send("<iq type='set' to='pubsub.localhost' id='1'>" + ns + "<create node='a'/></pubsub></iq>")
	juliet.Expect("<iq type='result' from='pubsub.localhost' to='juliet@localhost/balcony' id='1'/>")
	juliet.Send("<iq type='set' to='pubsub.localhost' id='2'>" + ns + "<create node='b'/></pubsub></iq>")
	juliet.Expect("<iq type='error' from='pubsub.localhost' to='juliet@localhost/balcony' id='2'>" + ns + "<create node='b'/></pubsub>" +
		"<error type='cancel' code='409'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><max-nodes-exceeded xmlns='http://jabber.org/protocol/pubsub#errors'/></error></iq>")
	juliet.Send("<iq type='set' to='pubsub.localhost' id='3'>" + ns + "<publish node='a'><item id='1'><x xmlns='urn:x'/></item></publish></pubsub></iq>")
	juliet.Expect("<iq type='result' from='pubsub.localhost' to='juliet@localhost/balcony' id='3'>" + ns + "<publish node='a'><item id='1'/></publish></pubsub></iq>")
	// §7.1.2.5: retract-oldest is the default, and the server's bound is the maximum.
	juliet.Send("<iq type='set' to='pubsub.localhost' id='4'>" + ns + "<publish node='a'><item id='2'><x xmlns='urn:x'/></item></publish></pubsub></iq>")
	juliet.Expect("<iq type='result' from='pubsub.localhost' to='juliet@localhost/balcony' id='4'>" + ns + "<publish node='a'><item id='2'/></publish></pubsub></iq>")
	juliet.Send("<iq type='get' to='pubsub.localhost' id='4a'>" + ns + "<items node='a'/></pubsub></iq>")
	juliet.Expect("<iq type='result' from='pubsub.localhost' to='juliet@localhost/balcony' id='4a'>" + ns + "<items node='a'><item id='2'><x xmlns='urn:x'/></item></items></pubsub></iq>")
	// §7.1.3.4: a node that rejects.
	juliet.Send("<iq type='set' to='pubsub.localhost' id='4b'><pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><configure node='a'><x xmlns='jabber:x:data' type='submit'>" +
		"<field var='pubsub#publish_node_full'><value>reject</value></field></x></configure></pubsub></iq>")
	juliet.Expect("<iq type='result' from='pubsub.localhost' to='juliet@localhost/balcony' id='4b'/>")
	third := ns + "<publish node='a'><item id='3'><x xmlns='urn:x'/></item></publish></pubsub>"
	juliet.Send("<iq type='set' to='pubsub.localhost' id='4c'>" + third + "</iq>")
	juliet.Expect("<iq type='error' from='pubsub.localhost' to='juliet@localhost/balcony' id='4c'>" + third +
		"<error type='cancel' code='409'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><node-full xmlns='http://jabber.org/protocol/pubsub#errors'/></error></iq>")
	// A node that publishing would make (§7.1.4) is one too many as well.
	auto := func(node string) string {
		return ns + "<publish node='" + node + "'><item id='1'><x xmlns='urn:x'/></item></publish></pubsub>"
	}
	juliet.Send("<iq type='set' id='auto1'>" + auto("a") + "</iq>")
	juliet.Expect("<iq type='result' from='juliet@localhost' to='juliet@localhost/balcony' id='auto1'>" + ns + "<publish node='a'><item id='1'/></publish></pubsub></iq>")
	juliet.Send("<iq type='set' id='auto2'>" + auto("b") + "</iq>")
	juliet.Expect("<iq type='error' from='juliet@localhost' to='juliet@localhost/balcony' id='auto2'>" + auto("b") +
		"<error type='cancel' code='409'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><max-nodes-exceeded xmlns='http://jabber.org/protocol/pubsub#errors'/></error></iq>")
	romeo.Send("<iq type='set' to='pubsub.localhost' id='5'>" + ns + "<subscribe node='a' jid='romeo@localhost'/></pubsub></iq>")
	romeo.Expect("<iq type='result' from='pubsub.localhost' to='romeo@localhost/orchard' id='5'>" + ns + "<subscription node='a' jid='romeo@localhost' subscription='subscribed'/></pubsub></iq>")
	// XEP-0060 example 38.
	more := ns + "<subscribe node='a' jid='romeo@localhost/orchard'/></pubsub>"
	romeo.Send("<iq type='set' to='pubsub.localhost' id='6'>" + more + "</iq>")
	romeo.Expect("<iq type='error' from='pubsub.localhost' to='romeo@localhost/orchard' id='6'>" + more +
		"<error type='wait' code='{any}'><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><too-many-subscriptions xmlns='http://jabber.org/protocol/pubsub#errors'/></error></iq>")
}
