package pubsub_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"balcony/xmpp/ext/pubsub"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
)

// XEP-0384 §5.3.1 and §5.3.2: nodes that were stored wrong, by another server or an older client, are right as soon as they are used: a stranger reads the
// device list that was closed, bundles are kept beside one another, and options that say how the nodes must be are met.
func TestWrongNodesAreRepaired(t *testing.T) {
	srv := xmpptest.New(t)
	juliet, romeo := srv.Client("juliet@localhost/balcony"), srv.Client("romeo@localhost/orchard")
	account := srv.Account("juliet@localhost")
	const devices, bundles = "urn:xmpp:omemo:2:devices", "urn:xmpp:omemo:2:bundles"
	for _, name := range []string{devices, bundles} {
		c := pubsub.DefaultConfig()
		c.Access, c.MaxItems, c.Persist, c.Deliver, c.Payloads = pubsub.Whitelist, 1, true, false, false
		if err := srv.DB().CreatePubSubNode(t.Context(), account, pubsub.Node{Name: name, Config: c, Creator: account, Created: time.Now()}); err != nil {
			t.Fatal(err)
		}
		item := pubsub.Item{ID: "1", Published: time.Now(), Payload: []byte("<x xmlns='urn:xmpp:omemo:2'/>")}
		if _, err := srv.DB().PublishPubSubItem(t.Context(), account, name, item, 1, false, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	const ns = "<pubsub xmlns='http://jabber.org/protocol/pubsub'>"
	for _, name := range []string{devices, bundles} {
		romeo.Send("<iq type='get' to='juliet@localhost' id='1'>" + ns + "<items node='" + name + "'/></pubsub></iq>")
		romeo.Expect("<iq type='result' from='juliet@localhost' to='romeo@localhost/orchard' id='1'>" + ns +
			"<items node='" + name + "'><item id='1'><x xmlns='urn:xmpp:omemo:2'/></item></items></pubsub></iq>")
		n, _, err := srv.DB().PubSubNode(t.Context(), account, name, account)
		if err != nil || n.Config.Access != pubsub.Open || !n.Config.Deliver || !n.Config.Payloads {
			t.Errorf("%s stays wrong: %+v, %v", name, n.Config, err)
		}
	}
	// A bundle of 200 KB: XEP-0384 has a hundred prekeys in it, and some clients more.
	big := strings.Repeat("QUJD", 50_000)
	options := "<publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>" +
		"<field var='pubsub#max_items'><value>max</value></field><field var='pubsub#access_model'><value>open</value></field></x></publish-options>"
	bundle := "<bundle xmlns='urn:xmpp:omemo:2'><spk id='1'>" + big + "</spk></bundle>"
	juliet.Send("<iq type='set' id='2'>" + ns + "<publish node='" + bundles + "'><item id='2'>" + bundle + "</item></publish>" + options + "</pubsub></iq>")
	juliet.Expect("<iq type='result' from='juliet@localhost' to='juliet@localhost/balcony' id='2'>" + ns + "<publish node='" + bundles + "'><item id='2'/></publish></pubsub></iq>")
	romeo.Send("<iq type='get' to='juliet@localhost' id='3'>" + ns + "<items node='" + bundles + "'><item id='2'/></items></pubsub></iq>")
	romeo.Expect("<iq type='result' from='juliet@localhost' to='romeo@localhost/orchard' id='3'>" + ns + "<items node='" + bundles + "'><item id='2'>" + bundle + "</item></items></pubsub></iq>")
	romeo.Send("<iq type='get' to='juliet@localhost' id='4'>" + ns + "<items node='" + bundles + "'><item id='1'/></items></pubsub></iq>")
	romeo.Expect("<iq type='result' from='juliet@localhost' to='romeo@localhost/orchard' id='4'>" + ns + "<items node='" + bundles + "'><item id='1'><x xmlns='urn:xmpp:omemo:2'/></item></items></pubsub></iq>")
}

// interrupted is a store of which one reading of a node is followed by something else, before who has read goes on.
type interrupted struct {
	pubsub.Store
	then func()
}

func (s *interrupted) PubSubNode(ctx context.Context, service jid.JID, name string, peer jid.JID) (pubsub.Node, pubsub.Standing, error) {
	n, st, err := s.Store.PubSubNode(ctx, service, name, peer)
	if f := s.then; f != nil {
		s.then = nil
		f()
	}
	return n, st, err
}

// Who only reads a node that is stored wrong puts it right in its turn: what its owner changes meanwhile stays.
func TestRepairDoesNotOvertake(t *testing.T) {
	for name, ask := range map[string]string{
		"items": "<items node='urn:xmpp:omemo:2:devices'/>", "default options": "<default node='urn:xmpp:omemo:2:devices'/>", "own affiliations": "<affiliations node='urn:xmpp:omemo:2:devices'/>",
	} {
		t.Run(name, func(t *testing.T) {
			store := new(interrupted)
			w := newWorldOver(t, func(s pubsub.Store) pubsub.Store { store.Store = s; return store }, "juliet@localhost")
			const node = "urn:xmpp:omemo:2:devices"
			account := jid.MustParse("juliet@localhost")
			c := pubsub.DefaultConfig()
			c.Access = pubsub.Whitelist
			if err := store.CreatePubSubNode(t.Context(), account, pubsub.Node{Name: node, Config: c, Creator: account, Created: time.Now()}); err != nil {
				t.Fatal(err)
			}
			store.then = func() {
				if got := w.request(t, "juliet@localhost/balcony", "juliet@localhost", "set", pubsub.NSOwner, "<configure node='"+node+"'><x xmlns='jabber:x:data' type='submit'>"+
					"<field var='pubsub#title'><value>Devices</value></field></x></configure>"); got != "" {
					t.Errorf("configure: %s", got)
				}
			}
			if got := w.request(t, "juliet@localhost/balcony", "juliet@localhost", "get", pubsub.NS, ask); !strings.Contains(got, node) {
				t.Errorf("%s: %s", ask, got)
			}
			n, _, err := store.PubSubNode(t.Context(), account, node, account)
			if err != nil || n.Config.Title != "Devices" || n.Config.Access != pubsub.Open {
				t.Errorf("the node is %+v, %v", n.Config, err)
			}
		})
	}
}
