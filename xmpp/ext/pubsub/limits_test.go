package pubsub_test

import (
	"strings"
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
	// XEP-0060 §7.1.2: of a node that is full, by its own maximum or the service's, the oldest goes, or the new one is refused.
	second := ns + "<publish node='a'><item id='2'><x xmlns='urn:x'/></item></publish></pubsub>"
	juliet.Send("<iq type='set' to='pubsub.localhost' id='4'>" + second + "</iq>")
	juliet.Expect("<iq type='result' from='pubsub.localhost' to='juliet@localhost/balcony' id='4'>" + ns + "<publish node='a'><item id='2'/></publish></pubsub></iq>")
	juliet.Send("<iq type='get' to='pubsub.localhost' id='4a'>" + ns + "<items node='a'/></pubsub></iq>")
	juliet.Expect("<iq type='result' from='pubsub.localhost' to='juliet@localhost/balcony' id='4a'>" + ns + "<items node='a'><item id='2'><x xmlns='urn:x'/></item></items></pubsub></iq>")
	juliet.Send("<iq type='set' to='pubsub.localhost' id='4b'><pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><configure node='a'><x xmlns='jabber:x:data' type='submit'>" +
		"<field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#node_config</value></field><field var='pubsub#publish_node_full'><value>reject</value></field></x></configure></pubsub></iq>")
	juliet.Expect("<iq type='result' from='pubsub.localhost' to='juliet@localhost/balcony' id='4b'/>")
	third := ns + "<publish node='a'><item id='3'><x xmlns='urn:x'/></item></publish></pubsub>"
	juliet.Send("<iq type='set' to='pubsub.localhost' id='4c'>" + third + "</iq>")
	juliet.Expect("<iq type='error' from='pubsub.localhost' to='juliet@localhost/balcony' id='4c'>" + third +
		"<error type='cancel' code='409'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><node-full xmlns='http://jabber.org/protocol/pubsub#errors'/></error></iq>")
	// Bookmarks do not go by themselves.
	bookmark := func(id, room string) string {
		return "<iq type='set' id='" + id + "'>" + ns + "<publish node='urn:xmpp:bookmarks:1'><item id='" + room + "'><conference xmlns='urn:xmpp:bookmarks:1'/></item></publish></pubsub></iq>"
	}
	juliet.Send(bookmark("4d", "a@rooms.example"))
	juliet.Expect("<iq type='result' from='juliet@localhost' to='juliet@localhost/balcony' id='4d'>" + ns + "<publish node='urn:xmpp:bookmarks:1'><item id='a@rooms.example'/></publish></pubsub></iq>")
	juliet.Send(bookmark("4e", "b@rooms.example"))
	if e := juliet.Read().String(); !strings.Contains(e, "<node-full") {
		t.Errorf("one bookmark too many: %s", e)
	}
	// One node too many is the same error for who makes it by publishing.
	juliet.Send("<iq type='set' id='4f'>" + ns + "<publish node='b'><item id='1'><x xmlns='urn:x'/></item></publish></pubsub></iq>")
	if e := juliet.Read().String(); !strings.Contains(e, "<max-nodes-exceeded") {
		t.Errorf("one node too many by publishing: %s", e)
	}
	romeo.Send("<iq type='set' to='pubsub.localhost' id='5'>" + ns + "<subscribe node='a' jid='romeo@localhost'/></pubsub></iq>")
	romeo.Expect("<iq type='result' from='pubsub.localhost' to='romeo@localhost/orchard' id='5'>" + ns + "<subscription node='a' jid='romeo@localhost' subscription='subscribed'/></pubsub></iq>")
	more := ns + "<subscribe node='a' jid='romeo@localhost/orchard'/></pubsub>"
	romeo.Send("<iq type='set' to='pubsub.localhost' id='6'>" + more + "</iq>")
	romeo.Expect("<iq type='error' from='pubsub.localhost' to='romeo@localhost/orchard' id='6'>" + more +
		"<error type='wait' code='{any}'><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><too-many-subscriptions xmlns='http://jabber.org/protocol/pubsub#errors'/></error></iq>")
}
