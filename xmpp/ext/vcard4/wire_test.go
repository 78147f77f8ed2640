package vcard4_test

import (
	"fmt"
	"strings"
	"testing"

	"balcony/xmpp/xmpptest"
)

func TestTranscripts(t *testing.T) { xmpptest.Transcripts(t, "testdata/*.txt") }

// What a client stores in its vCard of XEP-0054 is not lost when another one publishes a vCard4 at the same moment.
func TestCardIsNotLost(t *testing.T) {
	srv := xmpptest.New(t)
	phone, laptop := srv.Client("juliet@localhost/phone"), srv.Client("juliet@localhost/laptop")
	const rounds = 40
	rest := "<NOTE>" + strings.Repeat("long", 5000) + "</NOTE>" // so that changing it takes its time
	for i := range rounds {
		publish(phone, fmt.Sprintf("<fn><text>%d</text></fn>", i))
	}
	for i := range rounds {
		laptop.Send(fmt.Sprintf("<iq type='set' id='v'><vCard xmlns='vcard-temp'>%s<LABEL>%d</LABEL></vCard></iq>", rest, i))
		laptop.Expect("<iq type='result' id='v' from='juliet@localhost' to='juliet@localhost/laptop'/>")
		laptop.Send("<iq type='get' id='g'><vCard xmlns='vcard-temp'/></iq>")
		card := laptop.Read().Children[0]
		if label := card.Children[len(card.Children)-1]; label.Local != "LABEL" || label.Text != fmt.Sprint(i) {
			t.Fatalf("after LABEL %d was stored: %s", i, label)
		}
	}
	for range rounds {
		phone.Expect(published)
	}
}

const published = "<iq type='result' id='p' from='juliet@localhost' to='juliet@localhost/phone'><pubsub xmlns='http://jabber.org/protocol/pubsub'>" +
	"<publish node='urn:xmpp:vcard4'><item id='current'/></publish></pubsub></iq>"

func publish(c *xmpptest.Client, properties string) {
	c.Send("<iq type='set' id='p'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:vcard4'><item id='current'>" +
		"<vcard xmlns='urn:ietf:params:xml:ns:vcard-4.0'>" + properties + "</vcard></item></publish></pubsub></iq>")
}
