package vcard_test

import (
	"strings"
	"testing"

	"balcony/xmpp/xmpptest"
)

func TestTranscripts(t *testing.T) { xmpptest.Transcripts(t, "testdata/*.txt") }

// A photo of usual size fits into a stanza, and so into the vCard.
func TestLargeCard(t *testing.T) {
	srv := xmpptest.New(t)
	jer, stpeter := srv.Client("jer@localhost/home"), srv.Client("stpeter@localhost/roundabout")
	card := "<vCard xmlns='vcard-temp'><PHOTO><TYPE>image/png</TYPE><BINVAL>" + strings.Repeat("QUJD", 60_000) + "</BINVAL></PHOTO></vCard>"
	jer.Send("<iq type='set' id='1'>" + card + "</iq>")
	jer.Expect("<iq type='result' id='1' from='jer@localhost' to='jer@localhost/home'/>")
	stpeter.Send("<iq type='get' id='2' to='jer@localhost'><vCard xmlns='vcard-temp'/></iq>")
	stpeter.Expect("<iq type='result' id='2' from='jer@localhost' to='stpeter@localhost/roundabout'>" + card + "</iq>")
}
