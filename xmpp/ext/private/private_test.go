package private_test

import (
	"fmt"
	"strings"
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/xmpptest"
)

func TestTranscripts(t *testing.T) { xmpptest.Transcripts(t, "testdata/*.txt") }

const (
	result     = "<iq type='result' id='1' from='hamlet@localhost' to='hamlet@localhost/denmark'/>"
	constraint = "<error type='wait' code='500'><resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
	policy     = "<error type='modify' code='405'><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
)

func query(content string) string { return "<query xmlns='jabber:iq:private'>" + content + "</query>" }

func failure(content, err string) string {
	return "<iq type='error' id='1' from='hamlet@localhost' to='hamlet@localhost/denmark'>" + query(content) + err + "</iq>"
}

func TestAccountKeepsBoundedNumberOfElements(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Limits.PrivateElements = 3 }))
	c := srv.Client("hamlet@localhost/denmark")
	for i := range 3 {
		c.Send("<iq type='set' id='1'>" + query(fmt.Sprintf("<e%d xmlns='exodus:prefs'/>", i)) + "</iq>")
		c.Expect(result)
	}
	c.Send("<iq type='set' id='1'>" + query("<e3 xmlns='exodus:prefs'/>") + "</iq>")
	c.Expect(failure("<e3 xmlns='exodus:prefs'/>", constraint))
	c.Send("<iq type='set' id='1'>" + query("<e2 xmlns='exodus:prefs'>new</e2>") + "</iq>") // replaces
	c.Expect(result)
}

func TestRequestHasBoundedNumberOfElements(t *testing.T) {
	c := xmpptest.New(t).Client("hamlet@localhost/denmark")
	var content strings.Builder
	for i := range 21 {
		fmt.Fprintf(&content, "<e%d xmlns='exodus:prefs'/>", i)
	}
	for _, typ := range []string{"get", "set"} {
		c.Send("<iq type='" + typ + "' id='1'>" + query(content.String()) + "</iq>")
		c.Expect(failure(content.String(), policy))
	}
}
