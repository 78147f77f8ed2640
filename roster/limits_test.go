package roster_test

import (
	"fmt"
	"strings"
	"testing"

	"balcony/roster"
	"balcony/storage"

	"mellium.im/xmpp/jid"
)

const (
	badRequest    = "<error type='modify' code='400'><bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
	notAcceptable = "<error type='modify' code='406'><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
	constraint    = "<error type='wait' code='500'><resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
)

// RFC 6121 §2.3.3: names and groups above a server-configured limit are not acceptable, up to it they are.
func TestSizesInRosterSet(t *testing.T) {
	w := newWorld(t, func(c *roster.Config, _ *storage.Limits) { c.Name, c.Group, c.Groups = 10, 10, 3 })
	j := w.bind("juliet@localhost/balcony")
	ten := strings.Repeat("n", 10)
	for _, c := range []struct{ item, err string }{
		{"<item jid='nurse@localhost' name='" + ten + "'/>", ""},
		{"<item jid='nurse@localhost' name='" + ten + "n'/>", notAcceptable},
		{"<item jid='nurse@localhost'><group>" + ten + "</group></item>", ""},
		{"<item jid='nurse@localhost'><group>" + ten + "n</group></item>", notAcceptable},
		{"<item jid='nurse@localhost'><group>a</group><group>b</group><group>c</group></item>", ""},
		{"<item jid='nurse@localhost'><group>a</group><group>b</group><group>c</group><group>d</group></item>", notAcceptable},
		// Compared like resourceparts (RFC 7622 §3.4): by the OpaqueString profile, which maps other spaces to U+0020 and applies NFC.
		{"<item jid='nurse@localhost'><group>a\u00a0b</group><group>a b</group></item>", badRequest},
		{"<item jid='nurse@localhost'><group>Ame\u0301</group><group>Am\u00e9</group></item>", badRequest},
		{"<item jid='nurse@localhost'><group>a</group><group>A</group></item>", ""},
	} {
		j.send("<iq type='set' id='s'><query xmlns='jabber:iq:roster'>" + c.item + "</query></iq>")
		if c.err == "" {
			j.gets("<iq type='result' id='s' from='juliet@localhost' to='juliet@localhost/balcony'/>")
			continue
		}
		j.gets("<iq type='error' id='s' from='juliet@localhost' to='juliet@localhost/balcony'><query xmlns='jabber:iq:roster'>" + c.item + "</query>" + c.err + "</iq>")
	}
}

func TestFullRosterTakesNoMore(t *testing.T) {
	w := newWorld(t, func(_ *roster.Config, l *storage.Limits) { l.RosterItems = 1 })
	j := w.bind("juliet@localhost/balcony")
	j.send("<iq type='set' id='s1'><query xmlns='jabber:iq:roster'><item jid='nurse@localhost'/></query></iq>",
		"<iq type='set' id='s2'><query xmlns='jabber:iq:roster'><item jid='romeo@localhost'/></query></iq>",
		"<presence type='subscribe' id='s3' to='romeo@localhost'/>")
	j.gets("<iq type='result' id='s1' from='juliet@localhost' to='juliet@localhost/balcony'/>",
		"<iq type='error' id='s2' from='juliet@localhost' to='juliet@localhost/balcony'><query xmlns='jabber:iq:roster'><item jid='romeo@localhost'/></query>"+constraint+"</iq>",
		"<presence type='error' id='s3' from='romeo@localhost' to='juliet@localhost/balcony'>"+constraint+"</presence>")
}

// RFC 6121 §3.1.3, the security warning: the number and the size of requests are bounded, and who is refused learns nothing.
func TestRequestsAreBounded(t *testing.T) {
	w := newWorld(t, func(c *roster.Config, l *storage.Limits) { c.Request, l.RosterRequests = 300, 2 })
	w.account("juliet@localhost")
	w.arrives("<presence type='subscribe' id='1' from='a@example.net' to='juliet@localhost'><status>short</status></presence>")
	w.arrives("<presence type='subscribe' id='2' from='b@example.net' to='juliet@localhost'><status>" + strings.Repeat("long", 100) + "</status></presence>")
	w.arrives("<presence type='subscribe' id='3' from='c@example.net' to='juliet@localhost'/>")
	w.sent()
	j := w.online("juliet@localhost/balcony")
	j.send("<presence type='unavailable'/>")
	j.take()
	j.send("<presence/>")
	j.gets("<presence from='juliet@localhost/balcony' to='juliet@localhost'/>",
		"<presence type='subscribe' id='1' from='a@example.net' to='juliet@localhost'><status>short</status></presence>",
		"<presence type='subscribe' from='b@example.net' to='juliet@localhost'/>")
	// The third finds room once another was answered.
	j.send("<presence type='unsubscribed' to='a@example.net'/>")
	j.take()
	w.arrives("<presence type='subscribe' id='4' from='c@example.net' to='juliet@localhost'/>")
	j.gets("<presence type='subscribe' id='4' from='c@example.net' to='juliet@localhost'/>")
}

// RFC 6121 §4.6.1: the list of those who got directed presence is bounded for each session.
func TestDirectedPresenceIsBounded(t *testing.T) {
	w := newWorld(t, func(c *roster.Config, _ *storage.Limits) { c.Directed = 2 })
	j := w.online("juliet@localhost/balcony")
	to := func(room int, typ string) string {
		return fmt.Sprintf("<presence id='d' to='room%d@example.net/juliet'%s/>", room, typ)
	}
	j.send(to(1, ""), to(2, ""), to(1, ""))
	j.gets()
	w.sent("<presence id='d' from='juliet@localhost/balcony' to='room1@example.net/juliet'/>",
		"<presence id='d' from='juliet@localhost/balcony' to='room1@example.net/juliet'/>",
		"<presence id='d' from='juliet@localhost/balcony' to='room2@example.net/juliet'/>")
	j.send(to(3, ""))
	j.gets("<presence id='d' type='error' from='room3@example.net/juliet' to='juliet@localhost/balcony'>" + constraint + "</presence>")
	w.sent()
	// Room 1 is left, room 2 has ended her stay; there is room for others, and these alone are told at the end.
	j.send(to(1, " type='unavailable'"))
	w.arrives("<presence type='unavailable' from='room2@example.net/juliet' to='juliet@localhost/balcony'/>")
	j.send(to(3, ""), to(4, ""))
	w.mu.Lock()
	w.remote = nil
	w.mu.Unlock()
	j.close()
	w.sent("<presence type='unavailable' from='juliet@localhost/balcony' to='room3@example.net/juliet'/>",
		"<presence type='unavailable' from='juliet@localhost/balcony' to='room4@example.net/juliet'/>")
}

// RFC 6121 §2.6.3: the complete roster is sent when the interim pushes would be many.
func TestManyChangesGetTheWholeRoster(t *testing.T) {
	w := newWorld(t)
	j := w.bind("juliet@localhost/balcony")
	j.send("<iq type='get' id='g1'><query xmlns='jabber:iq:roster' ver=''/></iq>")
	_, version, err := w.db.Roster(w.ctx, jid.MustParse("juliet@localhost"))
	if err != nil {
		t.Fatal(err)
	}
	get := fmt.Sprintf("<iq type='get' id='g2'><query xmlns='jabber:iq:roster' ver='%d'/></iq>", version)
	for i := range 101 {
		j.send(fmt.Sprintf("<iq type='set' id='s'><query xmlns='jabber:iq:roster'><item jid='c%d@localhost'/></query></iq>", i))
		if i == 99 {
			c := w.bind("juliet@localhost/chamber")
			c.send(get)
			if got := c.take(); len(got) != 101 {
				t.Errorf("100 changes: %d stanzas, want the result and 100 pushes", len(got))
			}
		}
	}
	c := w.bind("juliet@localhost/kitchen")
	c.send(get)
	if got := c.take(); len(got) != 1 || strings.Count(got[0].String(), "<item ") != 101 {
		t.Errorf("101 changes: %d stanzas, want the roster alone", len(got))
	}
}
