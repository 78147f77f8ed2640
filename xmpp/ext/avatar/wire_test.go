package avatar_test

import (
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
