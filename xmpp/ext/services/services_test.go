package services_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"strconv"
	"strings"
	"testing"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/xmpp"
	"balcony/xmpp/xmpptest"
)

func configured(c *config.Config) {
	c.Services = []config.Service{
		{Type: "stun", Host: "stun.shakespeare.lit", Port: 9998, Transport: "udp"},
		{Type: "turn", Host: "relay.shakespeare.lit", Port: 9999, Transport: "udp", Secret: "shared", Lifetime: config.Duration(time.Hour)},
		{Type: "turn", Host: "relay.shakespeare.lit", Port: 10000, Transport: "tcp", Secret: "shared", Lifetime: config.Duration(time.Hour)},
		{Type: "ftp", Host: "ftp.shakespeare.lit", Port: 20, Transport: "tcp", Name: "Shakespearean File Server", Username: "guest", Password: "guest"},
	}
	c.Components = []config.Component{{Name: "elsewhere.example", Secret: "sesame open"}}
}

func TestTranscripts(t *testing.T) { xmpptest.Transcripts(t, "testdata/*.txt", configured) }

// The credentials are what coturn computes with use-auth-secret, each account's own, and last as long as they say.
func TestCredentials(t *testing.T) {
	srv := xmpptest.New(t, configured)
	seen := make(map[string]bool)
	for _, name := range []string{"romeo@localhost/orchard", "juliet@localhost/balcony"} {
		c := srv.Client(name)
		c.Send("<iq type='get' id='1' to='localhost'><credentials xmlns='urn:xmpp:extdisco:2'><service host='relay.shakespeare.lit' type='turn' port='9999'/></credentials></iq>")
		e := c.Read()
		if len(e.Children) != 1 || len(e.Children[0].Children) != 1 {
			t.Fatal(e)
		}
		a := attributes(e.Children[0].Children[0])
		mac := hmac.New(sha1.New, []byte("shared"))
		mac.Write([]byte(a["username"]))
		if want := base64.StdEncoding.EncodeToString(mac.Sum(nil)); a["password"] != want {
			t.Errorf("password %q, want %q", a["password"], want)
		}
		end, _, _ := strings.Cut(a["username"], ":")
		unix, err := strconv.ParseInt(end, 10, 64)
		if left := time.Until(time.Unix(unix, 0)); err != nil || left < 59*time.Minute || left > time.Hour {
			t.Errorf("username %q ends in %s, %v", a["username"], left, err)
		}
		if at, err := time.Parse(time.RFC3339, a["expires"]); err != nil || at.Unix() != unix || !strings.HasSuffix(a["expires"], "Z") {
			t.Errorf("expires %q, username %q", a["expires"], a["username"])
		}
		if strings.Contains(e.Children[0].String(), "romeo") || seen[a["username"]] {
			t.Errorf("the service learns who it is, or takes two for one: %s", e)
		}
		seen[a["username"]] = true
	}
}

func attributes(e *xmpp.Element) map[string]string {
	m := make(map[string]string)
	for _, a := range e.Attrs {
		m[a.Name] = a.Value
	}
	return m
}

// Who has no account here sees the services and gets no credentials.
func TestStrangersGetNoCredentials(t *testing.T) {
	srv := xmpptest.New(t, configured)
	stranger := srv.Component("elsewhere.example", "sesame open")
	stranger.Send("<iq type='get' id='1' to='localhost' from='tybalt@elsewhere.example'><services xmlns='urn:xmpp:extdisco:2'/></iq>")
	stranger.Expect(`<iq type='result' id='1' from='localhost' to='tybalt@elsewhere.example'><services xmlns='urn:xmpp:extdisco:2'>
		<service type='stun' host='stun.shakespeare.lit' port='9998' transport='udp'/>
		<service type='turn' host='relay.shakespeare.lit' port='9999' transport='udp' restricted='true'/>
		<service type='turn' host='relay.shakespeare.lit' port='10000' transport='tcp' restricted='true'/>
		<service type='ftp' host='ftp.shakespeare.lit' port='20' transport='tcp' name='Shakespearean File Server' restricted='true'/>
		</services></iq>`)
	const request = "<credentials xmlns='urn:xmpp:extdisco:2'><service host='relay.shakespeare.lit' type='turn'/></credentials>"
	stranger.Send("<iq type='get' id='2' to='localhost' from='tybalt@elsewhere.example'>" + request + "</iq>")
	stranger.Expect("<iq type='error' id='2' from='localhost' to='tybalt@elsewhere.example'>" + request +
		"<error type='auth' code='403'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>")
}

// Without services the server does not speak the protocol.
func TestWithoutServices(t *testing.T) {
	c := xmpptest.New(t).Client("romeo@localhost/orchard")
	c.Send("<iq type='get' id='1' to='localhost'><services xmlns='urn:xmpp:extdisco:2'/></iq>")
	c.Expect("<iq type='error' id='1' from='localhost' to='romeo@localhost/orchard'><services xmlns='urn:xmpp:extdisco:2'/>" +
		"<error type='cancel' code='503'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>")
	c.Send("<iq type='get' id='2' to='localhost'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
	if e := c.Read(); strings.Contains(e.String(), "extdisco") {
		t.Errorf("announced: %s", e)
	}
}
