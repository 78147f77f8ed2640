package mam_test

import (
	"fmt"
	"strings"
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/xmpptest"
)

func withSearch(c *config.Config) { c.Archive.Enabled, c.Archive.Search = true, true }

// search asks for messages with some words, and more fields; rest is what follows the form. It returns the bodies that are found, or the condition of the error.
func search(t *testing.T, c *xmpptest.Client, words, fields, rest string) (found []string, fin string) {
	t.Helper()
	c.Send("<iq type='set' id='s'><query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>" +
		"<field var='{urn:xmpp:fulltext:0}fulltext'><value>" + words + "</value></field>" + fields + "</x>" + rest + "</query></iq>")
	for {
		e := c.Read()
		text := string(e.AppendTo(nil, ""))
		if e.Local == "iq" {
			return found, text
		}
		_, body, _ := strings.Cut(text, "<body>")
		body, _, _ = strings.Cut(body, "</body>")
		found = append(found, body)
	}
}

func field(name, value string) string {
	return "<field var='" + name + "'><value>" + value + "</value></field>"
}

// XEP-0431: where it is on the form has the field, the account the feature, and a search finds the owner's messages, alone and with every other condition.
func TestSearch(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(withSearch))
	romeo, juliet := srv.Client("romeo@localhost/orchard"), srv.Client("juliet@localhost/balcony")
	srv.Account("nurse@localhost")
	if !has(features(juliet, ""), "urn:xmpp:fulltext:0") {
		t.Error("the feature is missing")
	}
	juliet.Send("<iq type='get' id='f'><query xmlns='urn:xmpp:mam:2'/></iq>")
	if form := string(juliet.Read().AppendTo(nil, "")); !strings.Contains(form, "<field type='text-single' var='{urn:xmpp:fulltext:0}fulltext'/>") {
		t.Errorf("form %s", form)
	}
	for i, b := range []string{"What's in a name?", "a rose by any other name", "would smell as sweet", "A Rosé by night", "roses &amp; names"} {
		to := "romeo@localhost"
		if i == 4 {
			to = "nurse@localhost"
		}
		juliet.Send(fmt.Sprintf("<message to='%s' type='chat' id='%d'><body>%s</body></message>", to, i, b))
	}
	juliet.Send("<message to='romeo@localhost' type='chat' id='e'><body>a rose for others</body><encrypted xmlns='eu.siacs.conversations.axolotl'/></message>")
	juliet.Sync()
	rose := []string{"a rose by any other name", "A Rosé by night", "roses &amp; names"}
	check := func(words, fields, rest string, want ...string) string {
		t.Helper()
		found, fin := search(t, juliet, words, fields, rest)
		same(t, words+" "+fields+" "+rest, found, want...)
		return fin
	}
	fin := check("rose", "", "", rose...)
	if !strings.Contains(fin, "complete='true'") || !strings.Contains(fin, "<count>3</count>") {
		t.Errorf("%s", fin)
	}
	check("ROSE name", "", "", rose[0], rose[2])
	check("rose", field("with", "romeo@localhost"), "", rose[:2]...)
	check("rose", field("with", "romeo@localhost/orchard"), "")
	check("rose", field("start", "2000-01-01T00:00:00Z")+field("end", "2100-01-01T00:00:00Z"), "", rose...)
	check("rose", field("end", "2000-01-01T00:00:00Z"), "")
	check("rose", "", "<flip-page/>", rose[2], rose[1], rose[0])
	const set = "<set xmlns='http://jabber.org/protocol/rsm'>"
	fin = check("rose", "", set+"<max>2</max></set>", rose[:2]...)
	_, last, _ := strings.Cut(fin, "<last>")
	last, _, _ = strings.Cut(last, "</last>")
	check("rose", "", set+"<max>2</max><after>"+last+"</after></set>", rose[2])
	check("rose", field("after-id", last), "", rose[2])
	check("rose", field("before-id", last), "", rose[0])
	check("rose", "", set+"<max>1</max><before/></set>", rose[2])
	fin = check("rose", "", set+"<max>1</max><before>"+last+"</before></set>", rose[0])
	if !strings.Contains(fin, "complete='true'") {
		t.Errorf("%s", fin)
	}
	check("rose", field("ids", last), "", rose[1])
	check("sweet", field("ids", last), "")
	if fin = check("rose", "", set+"<max>0</max></set>"); !strings.Contains(fin, "<count>3</count>") {
		t.Errorf("%s", fin)
	}
	check("nothing", "", "")
	check("  ", "", "", "What&apos;s in a name?", rose[0], "would smell as sweet", rose[1], rose[2], "a rose for others") // XEP-0431 §2.2
	for _, bad := range []string{"?!", strings.Repeat("long ", 300), "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17"} {
		if fin := check(bad, "", ""); !strings.Contains(fin, "<bad-request ") {
			t.Errorf("%q: %s", bad, fin)
		}
	}
	// Nobody else finds them.
	found, _ := search(t, romeo, "rose", "", "")
	same(t, "romeo's", found, rose[:2]...)
	// A search is a part of the archive: what waits goes on waiting.
	romeo.Online()
	bodies, _ := messages(t, romeo)
	if len(bodies) != 5 {
		t.Errorf("%d messages waited: %q", len(bodies), bodies)
	}
	// What is retracted is found no longer (XEP-0424), nor is what the retraction says to old clients.
	juliet.Send("<message to='romeo@localhost' type='chat' id='r'><retract xmlns='urn:xmpp:message-retract:1' id='3'/>" +
		"<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:message-retract:1'/><body>I retracted a rose</body></message>")
	juliet.Sync()
	check("rose", "", "", rose[0], rose[2])
	for romeo.Read().Local != "message" {
	}
	found, _ = search(t, romeo, "rose", "", "")
	same(t, "romeo's", found, rose[0])
}

// Where it is off there is no field, no feature, and a form with it is one with an unknown field (XEP-0313 §4.1.5).
func TestSearchOff(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive), xmpptest.Config(func(c *config.Config) {
		c.Domains = append(c.Domains, config.Domain{Name: "on.localhost", Registration: config.Closed, ArchiveSearch: "true"})
	}))
	off, on := srv.Client("juliet@localhost/balcony"), srv.Client("romeo@on.localhost/orchard")
	if has(features(off, ""), "urn:xmpp:fulltext") || !has(features(on, ""), "urn:xmpp:fulltext") {
		t.Errorf("features %q and %q", features(off, ""), features(on, ""))
	}
	off.Send("<iq type='get' id='f'><query xmlns='urn:xmpp:mam:2'/></iq>")
	if form := string(off.Read().AppendTo(nil, "")); strings.Contains(form, "fulltext") {
		t.Errorf("form %s", form)
	}
	send(off, "romeo@on.localhost", "hello")
	if _, fin := search(t, off, "hello", "", ""); !strings.Contains(fin, "<feature-not-implemented ") {
		t.Errorf("%s", fin)
	}
	found, _ := search(t, on, "hello", "", "")
	same(t, "found", found, "hello")
}
