package bookmarks_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"balcony/xmpp/ext/pubsub"
	"balcony/xmpp/xmpptest"
)

// XEP-0402 §5.3: bookmarks that another server has left in an older place are seen in all three, whichever is used first, and nothing that is stored then
// makes them go.
func TestBookmarksOfAnotherServer(t *testing.T) {
	const (
		native = "urn:xmpp:bookmarks:1"
		old    = "storage:bookmarks"
		list   = "<storage xmlns='" + old + "'><conference jid='a@rooms.example' name='A'/><conference jid='b@rooms.example'/><url url='https://xmpp.org/'/></storage>"
		ps     = "<pubsub xmlns='http://jabber.org/protocol/pubsub'>"
	)
	get := func(node string) string {
		return "<iq type='get' id='1'>" + ps + "<items node='" + node + "'/></pubsub></iq>"
	}
	private := "<iq type='get' id='1'><query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'/></query></iq>"
	publish := "<iq type='set' id='1'>" + ps + "<publish node='" + native + "'><item id='c@rooms.example'><conference xmlns='" + native + "'/></item></publish>" +
		"<publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>" +
		"<field var='pubsub#persist_items'><value>true</value></field><field var='pubsub#max_items'><value>max</value></field><field var='pubsub#send_last_published_item'><value>never</value></field>" +
		"<field var='pubsub#access_model'><value>whitelist</value></field></x></publish-options></pubsub></iq>" // XEP-0402 §3.3
	for _, place := range []string{"private XML", "the old node"} {
		for name, first := range map[string]string{"items": get(native), "old items": get(old), "private XML": private, "publishing": publish} {
			t.Run(fmt.Sprint(place, "/", name), func(t *testing.T) {
				srv := xmpptest.New(t)
				juliet := srv.Client("juliet@localhost/balcony")
				account := srv.Account("juliet@localhost")
				if place == "private XML" {
					if err := srv.DB().SetPrivateXML(t.Context(), account, old, "storage", []byte(list)); err != nil {
						t.Fatal(err)
					}
				} else {
					c := pubsub.DefaultConfig()
					c.Access = pubsub.Whitelist
					if err := srv.DB().CreatePubSubNode(t.Context(), account, pubsub.Node{Name: old, Config: c, Creator: account, Created: time.Now()}); err != nil {
						t.Fatal(err)
					}
					if _, err := srv.DB().PublishPubSubItem(t.Context(), account, old, pubsub.Item{ID: "current", Published: time.Now(), Payload: []byte(list)}, 1, false, time.Time{}); err != nil {
						t.Fatal(err)
					}
				}
				for _, ask := range []string{first, get(native), get(old), private} {
					juliet.Send(ask)
					answer := juliet.Read().String()
					if ask == publish {
						if !strings.Contains(answer, "type='result'") {
							t.Fatalf("publish: %s", answer)
						}
						continue
					}
					for _, room := range []string{"a@rooms.example", "b@rooms.example"} {
						if !strings.Contains(answer, room) {
							t.Errorf("%s\nis without %s: %s", ask, room, answer)
						}
					}
					if strings.Contains(answer, "c@rooms.example") != (first == publish) {
						t.Errorf("%s\n%s", ask, answer)
					}
					if ask != get(native) && place == "private XML" == (ask == private) && !strings.Contains(answer, "https://xmpp.org/") {
						t.Errorf("%s\nhas lost what is no conference: %s", ask, answer)
					}
				}
			})
		}
	}
}
