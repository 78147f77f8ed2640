package mam_test

import (
	"strings"
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/xmpptest"
)

// features are those of an address, by disco#info; of the client's account without one.
func features(c *xmpptest.Client, to string) (list []string) {
	if to != "" {
		to = " to='" + to + "'"
	}
	c.Send("<iq type='get' id='disco'" + to + "><query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
	for _, q := range c.Read().Children {
		for _, f := range q.Children {
			for _, a := range f.Attrs {
				if f.Local == "feature" && a.Name == "var" {
					list = append(list, a.Value)
				}
			}
		}
	}
	return list
}

func has(list []string, prefix string) bool {
	for _, f := range list {
		if strings.HasPrefix(f, prefix) {
			return true
		}
	}
	return false
}

// A domain may have another answer than [archive]: where it is off nothing is archived, nobody is told of an archive, requests to it are those of a server
// without one, and messages wait in the spool that has a place of its own.
func TestArchiveOfADomain(t *testing.T) {
	for _, c := range []struct {
		name   string
		server bool // archive.enabled
	}{{"off in a domain", true}, {"on in a domain", false}} {
		t.Run(c.name, func(t *testing.T) {
			srv := xmpptest.New(t, xmpptest.Config(func(cfg *config.Config) {
				cfg.Archive.Enabled = c.server
				cfg.Domains = append(cfg.Domains, config.Domain{Name: "off.localhost", Registration: config.Closed}, config.Domain{Name: "on.localhost", Registration: config.Closed})
				if c.server {
					cfg.Domains[1].Archive = "false"
				} else {
					cfg.Domains[2].Archive = "true"
				}
			}))
			romeo, juliet := srv.Client("romeo@on.localhost/orchard"), srv.Client("juliet@off.localhost/balcony")
			for _, to := range []string{"", "on.localhost"} {
				if !has(features(romeo, to), "urn:xmpp:mam:2") || !has(features(romeo, to), "urn:xmpp:message-retract:1") {
					t.Errorf("on, %q: %q", to, features(romeo, to))
				}
			}
			for _, to := range []string{"", "off.localhost"} {
				if f := features(juliet, to); has(f, "urn:xmpp:mam") || has(f, "urn:xmpp:message-retract:1") {
					t.Errorf("off, %q: %q", to, f)
				}
			}
			for _, request := range []string{"set'><query", "get'><query", "get'><metadata", "get'><prefs", "set'><prefs default='always'"} {
				juliet.Send("<iq id='1' type='" + request + " xmlns='urn:xmpp:mam:2'/></iq>")
				if got := string(juliet.Read().AppendTo(nil, "")); !strings.Contains(got, "type='error'") || !strings.Contains(got, "<service-unavailable ") {
					t.Errorf("%s: %s", request, got)
				}
			}
			// To her: it is in his archive and waits for her without an id.
			send(romeo, "juliet@off.localhost", "a")
			juliet.Online()
			bodies, ids := messages(t, juliet)
			same(t, "waiting", bodies, "a")
			same(t, "ids", ids, "")
			send(romeo, "juliet@off.localhost", "b")
			bodies, ids = messages(t, juliet)
			same(t, "live", bodies, "b live")
			same(t, "ids", ids, "")
			// From her: it is in his.
			romeo.Online()
			send(juliet, "romeo@on.localhost", "c")
			bodies, ids = messages(t, romeo)
			same(t, "live", bodies, "c live")
			if len(ids) != 1 || ids[0] == "" {
				t.Errorf("ids %q", ids)
			}
			same(t, "his archive", texts(t, srv, "romeo@on.localhost"), "a", "b", "c")
			same(t, "her archive", texts(t, srv, "juliet@off.localhost"))
			// Her own copies (XEP-0280) have no id either.
			second := srv.Client("juliet@off.localhost/chamber")
			second.Send("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>")
			second.Read()
			send(juliet, "romeo@on.localhost", "d")
			second.Expect("<message type='chat' from='juliet@off.localhost' to='juliet@off.localhost/chamber'><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>" +
				"<message xmlns='jabber:client' type='chat' id='d' from='juliet@off.localhost/balcony' to='romeo@on.localhost'><body>d</body></message></forwarded></sent></message>")
		})
	}
}
