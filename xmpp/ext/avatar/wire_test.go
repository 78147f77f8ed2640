package avatar_test

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
	"testing"

	"balcony/xmpp/xmpptest"
)

func TestTranscripts(t *testing.T) { xmpptest.Transcripts(t, "testdata/*.txt") }

// XEP-0398, examples 1 and 2: the feature is the account's.
func TestFeature(t *testing.T) {
	srv := xmpptest.New(t)
	romeo := srv.Client("romeo@localhost/garden")
	romeo.Send("<iq type='get' id='01' to='romeo@localhost'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
	if got := romeo.Read().String(); !strings.Contains(got, "<feature var='urn:xmpp:pep-vcard-conversion:0'/>") {
		t.Errorf("the account: %s", got)
	}
	romeo.Send("<iq type='get' id='02' to='localhost'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
	if got := romeo.Read().String(); strings.Contains(got, "urn:xmpp:pep-vcard-conversion:0") {
		t.Errorf("the server: %s", got)
	}
}

// A vCard that would with its photo be larger than a stanza may be goes without it, and presence says so: XEP-0153 §4.1.
func TestPhotoThatDoesNotFit(t *testing.T) {
	srv := xmpptest.New(t)
	juliet, romeo := srv.Client("juliet@localhost/balcony"), srv.Client("romeo@localhost/orchard")
	const ns = "<pubsub xmlns='http://jabber.org/protocol/pubsub'>"
	publish := func(node, id, payload string) {
		juliet.Send("<iq type='set' id='p'>" + ns + "<publish node='urn:xmpp:avatar:" + node + "'><item id='" + id + "'>" + payload + "</item></publish><publish-options>" +
			"<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>" +
			"<field var='pubsub#access_model'><value>open</value></field></x></publish-options></pubsub></iq>")
		juliet.Expect("<iq type='result' id='p' from='juliet@localhost' to='juliet@localhost/balcony'>" + ns + "<publish node='urn:xmpp:avatar:" + node + "'><item id='" + id +
			"'/></publish></pubsub></iq>")
	}
	text := "<DESC>" + strings.Repeat("long", 25_000) + "</DESC>"
	juliet.Send("<iq type='set' id='v'><vCard xmlns='vcard-temp'>" + text + "</vCard></iq>")
	juliet.Expect("<iq type='result' id='v' from='juliet@localhost' to='juliet@localhost/balcony'/>")
	for _, tt := range []struct {
		size int // of the image; a third more in base64
		fits bool
	}{{30, true}, {100_000, false}, {90_000, true}} {
		image := []byte(strings.Repeat("i", tt.size))
		sum, binval := sha1.Sum(image), base64.StdEncoding.EncodeToString(image)
		hash, photo := hex.EncodeToString(sum[:]), "<PHOTO><TYPE>image/png</TYPE><BINVAL>"+binval+"</BINVAL></PHOTO>"
		publish("data", hash, "<data xmlns='urn:xmpp:avatar:data'>"+binval+"</data>")
		publish("metadata", hash, "<metadata xmlns='urn:xmpp:avatar:metadata'><info bytes='"+strconv.Itoa(tt.size)+"' id='"+hash+"' type='image/png'/></metadata>")
		if !tt.fits {
			hash, photo = "", ""
		}
		romeo.Send("<iq type='get' id='v' to='juliet@localhost'><vCard xmlns='vcard-temp'/></iq>")
		romeo.Expect("<iq type='result' id='v' from='juliet@localhost' to='romeo@localhost/orchard'><vCard xmlns='vcard-temp'>" + text + photo + "</vCard></iq>")
		juliet.Send("<presence to='romeo@localhost/orchard'/>")
		romeo.Expect("<presence from='juliet@localhost/balcony' to='romeo@localhost/orchard'><x xmlns='vcard-temp:x:update'><photo>" + hash + "</photo></x></presence>")
	}
}
