package disco_test

import (
	"slices"
	"strings"
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/xmpp"
	"balcony/xmpp/ext/disco"
	"balcony/xmpp/xmpptest"
)

func TestTranscripts(t *testing.T) { xmpptest.Transcripts(t, "testdata/*.txt") }

// ask sends a request and returns the <query/> of its result.
func ask(t *testing.T, c *xmpptest.Client, to, ns, node string) *xmpp.Element {
	t.Helper()
	c.Send(xmpp.El("", "iq", "type", "get", "id", "q", "to", to).Add(xmpp.El(ns, "query", "node", node)).String())
	answer := c.Read()
	if answer.Attr("type") != "result" || answer.Attr("from") != to || len(answer.Children) != 1 {
		t.Fatalf("%s asked %s %s: %s", c.JID, to, node, answer)
	}
	q := answer.Children[0]
	if q.Space != ns || q.Local != "query" || q.Attr("node") != node { // XEP-0030 §3.2: the node is mirrored
		t.Fatalf("%s asked %s %s: %s", c.JID, to, node, answer)
	}
	return q
}

// values are an attribute of the children of that name.
func values(q *xmpp.Element, child, name string) (list []string) {
	for _, c := range q.Children {
		if c.Local == child {
			list = append(list, c.Attr(name))
		}
	}
	return list
}

// features checks what XEP-0030 §3.1 and XEP-0115 §5.4 demand of every answer, and one feature, and returns all.
func features(t *testing.T, q *xmpp.Element, category, typ, feature string) []string {
	t.Helper()
	list := values(q, "feature", "var")
	if !slices.Contains(list, feature) {
		t.Errorf("no feature %s in %s", feature, q)
	}
	if unique := slices.Compact(slices.Sorted(slices.Values(list))); len(unique) != len(list) {
		t.Errorf("a feature stands there twice: %s", list)
	}
	if c, ty := values(q, "identity", "category"), values(q, "identity", "type"); len(c) == 0 || c[0] != category || ty[0] != typ {
		t.Errorf("identities %s %s, want %s/%s first", c, ty, category, typ)
	}
	return list
}

func TestServerTellsWhatItCan(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) {
		c.Domains[0].Contact.Abuse = []string{"mailto:abuse@localhost", "xmpp:abuse@localhost"}
		c.Domains[0].Contact.Status = []string{"https://status.localhost/"}
	}))
	c := srv.Client("juliet@localhost/balcony")
	q := ask(t, c, "localhost", disco.NSInfo, "")
	list := features(t, q, "server", "im", disco.NSInfo)
	for _, want := range []string{
		disco.NSItems,                         // XEP-0030 §4
		"http://jabber.org/protocol/caps",     // XEP-0115 §7
		"http://jabber.org/protocol/commands", // XEP-0050 §2.1
		"jabber:iq:last",                      // XEP-0012 §6
		"jabber:iq:private",                   // XEP-0049
		"jabber:iq:version",                   // XEP-0092 §4
		"msgoffline",                          // XEP-0160 §4
		"urn:xmpp:blocking",                   // XEP-0191 §3.1
		"urn:xmpp:ping",                       // XEP-0199 §5
		"urn:xmpp:time",                       // XEP-0202 §4
		"vcard-temp",                          // XEP-0054 §4
	} {
		if !slices.Contains(list, want) {
			t.Errorf("the server does not tell of %s", want)
		}
	}
	// XEP-0157 §3 and XEP-0128 §2
	form := q.Children[len(q.Children)-1]
	want := "<x xmlns='jabber:x:data' type='result'>" +
		"<field xmlns='jabber:x:data' var='FORM_TYPE' type='hidden'><value>http://jabber.org/network/serverinfo</value></field>"
	if got := strings.ReplaceAll(form.String(), " xmlns='jabber:x:data'", ""); !strings.HasPrefix(got, strings.ReplaceAll(want, " xmlns='jabber:x:data'", "")) ||
		!strings.Contains(got, "<field var='abuse-addresses'><value>mailto:abuse@localhost</value><value>xmpp:abuse@localhost</value></field>") ||
		!strings.Contains(got, "<field var='status-addresses'><value>https://status.localhost/</value></field>") {
		t.Errorf("contact addresses: %s", got)
	}
	// XEP-0030 §4: the hosts beside the domain, in the order of their names. What has nothing to list has an empty list (§4.1).
	for i, item := range ask(t, c, "localhost", disco.NSItems, "").Children {
		name := item.Attrs[0].Value
		if i == 0 && !strings.HasSuffix(name, ".localhost") {
			t.Errorf("items of the server: %s", item)
		}
		if items := ask(t, c, name, disco.NSItems, ""); len(items.Children) != 0 {
			t.Errorf("items of %s: %s", name, items)
		}
	}
}

// XEP-0115 §6.3: what the stream features announce is the answer to node#ver.
func TestCapabilitiesOfTheServer(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("juliet@localhost")
	c, offered := srv.Login("juliet@localhost")
	var caps *xmpp.Element
	for _, f := range offered.Children {
		if f.Space == disco.NSCaps && f.Local == "c" {
			caps = f
		}
	}
	if caps == nil {
		t.Fatalf("no capabilities in %s", offered)
	}
	if caps.Attr("hash") != "sha-1" || caps.Attr("node") == "" {
		t.Errorf("capabilities: %s", caps)
	}
	c.Bind("balcony")
	node := caps.Attr("node") + "#" + caps.Attr("ver")
	q := ask(t, c, "localhost", disco.NSInfo, node)
	plain := ask(t, c, "localhost", disco.NSInfo, "")
	q.Attrs, plain.Attrs = nil, nil
	if q.String() != plain.String() {
		t.Errorf("%s\nis not\n%s", q, plain)
	}
	if got := disco.Ver(plain); got != caps.Attr("ver") {
		t.Errorf("the answer's verification string is %s, announced is %s", got, caps.Attr("ver"))
	}
	c.Send("<iq type='get' id='old' to='localhost'><query xmlns='" + disco.NSInfo + "' node='" + caps.Attr("node") + "#AAAAAAAAAAAAAAAAAAAAAAAAAAA='/></iq>")
	if e := c.Read(); e.Attr("type") != "error" {
		t.Errorf("capabilities that are not the server's: %s", e)
	}
}

// XEP-0030 §8: the owner sees all features of the account, a contact those that are for contacts.
func TestAccountAnswersOwnerAndContact(t *testing.T) {
	srv := xmpptest.New(t)
	juliet, romeo := srv.Client("juliet@localhost/balcony"), srv.Client("romeo@localhost/orchard")
	romeo.Send("<presence to='juliet@localhost' type='subscribe'/>")
	romeo.Sync()
	juliet.Send("<presence to='romeo@localhost' type='subscribed'/>")
	juliet.Sync()
	own := features(t, ask(t, juliet, "juliet@localhost", disco.NSInfo, ""), "account", "registered", disco.NSInfo)
	contact := features(t, ask(t, romeo, "juliet@localhost", disco.NSInfo, ""), "account", "registered", disco.NSInfo)
	for _, tt := range []struct {
		feature      string
		own, contact bool
	}{
		{"urn:xmpp:ping", true, false},
		{"jabber:iq:private", true, false},
		{"jabber:iq:last", true, true},
		{"vcard-temp", true, true},
		{disco.NSItems, true, true},
	} {
		if slices.Contains(own, tt.feature) != tt.own || slices.Contains(contact, tt.feature) != tt.contact {
			t.Errorf("%s: owner %v, contact %v; want %v, %v", tt.feature, !tt.own, !tt.contact, tt.own, tt.contact)
		}
	}
}

// XEP-0050 §2.2 through a provider: the node of another module, seen by who may.
func TestNodesOfOtherModules(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Domains[0].Admins = []string{"admin@localhost"} }))
	admin, juliet := srv.Client("admin@localhost/console"), srv.Client("juliet@localhost/balcony")
	const commands = "http://jabber.org/protocol/commands"
	for _, c := range []*xmpptest.Client{admin, juliet} {
		features(t, ask(t, c, "localhost", disco.NSInfo, commands), "automation", "command-list", commands)
	}
	nodes := values(ask(t, admin, "localhost", disco.NSItems, commands), "item", "node")
	if len(nodes) == 0 {
		t.Fatal("the admin sees no commands")
	}
	features(t, ask(t, admin, "localhost", disco.NSInfo, nodes[0]), "automation", "command-node", commands)
	if seen := values(ask(t, juliet, "localhost", disco.NSItems, commands), "item", "node"); slices.Contains(seen, nodes[0]) {
		t.Errorf("everybody sees %s", seen)
	}
}
