package avatar_test

import (
	"fmt"
	"strings"
	"testing"

	"balcony/xmpp/xmpptest"
)

// What a client stores in its vCard is not lost when another one publishes an avatar at the same moment.
func TestCardIsNotLostForPhoto(t *testing.T) {
	srv := xmpptest.New(t)
	phone, laptop := srv.Client("juliet@localhost/phone"), srv.Client("juliet@localhost/laptop")
	const hash = "5f4aa7df54cefcdcfb37d1ca38645c4d30db57cd"
	publish := func(node, payload string) string {
		return "<iq type='set' id='p'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:avatar:" + node + "'><item id='" + hash + "'>" + payload +
			"</item></publish><publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>" +
			"<field var='pubsub#access_model'><value>open</value></field></x></publish-options></pubsub></iq>"
	}
	published := func(node string) string {
		return "<iq type='result' id='p' from='juliet@localhost' to='juliet@localhost/phone'><pubsub xmlns='http://jabber.org/protocol/pubsub'>" +
			"<publish node='urn:xmpp:avatar:" + node + "'><item id='" + hash + "'/></publish></pubsub></iq>"
	}
	phone.Send(publish("data", "<data xmlns='urn:xmpp:avatar:data'>iVBORyBmYWtlIGltYWdl</data>"))
	phone.Expect(published("data"))
	const rounds = 40
	rest := "<DESC>" + strings.Repeat("long", 5000) + "</DESC>" // so that changing it takes its time
	for i := range rounds {
		info := "<info bytes='15' id='" + hash + "' type='image/png'/>"
		if i%2 == 0 {
			info = ""
		}
		phone.Send(publish("metadata", "<metadata xmlns='urn:xmpp:avatar:metadata'>"+info+"</metadata>"))
	}
	for i := range rounds {
		laptop.Send(fmt.Sprintf("<iq type='set' id='v'><vCard xmlns='vcard-temp'><NOTE>%d</NOTE>%s</vCard></iq>", i, rest))
		laptop.Expect("<iq type='result' id='v' from='juliet@localhost' to='juliet@localhost/laptop'/>")
		laptop.Send("<iq type='get' id='g'><vCard xmlns='vcard-temp'/></iq>")
		card := laptop.Read().Children[0]
		if note := card.Children[0]; note.Local != "NOTE" || note.Text != fmt.Sprint(i) {
			t.Fatalf("after NOTE %d was stored: %s", i, note)
		}
	}
	for range rounds {
		phone.Expect(published("metadata"))
	}
}
