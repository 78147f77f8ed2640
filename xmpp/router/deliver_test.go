package router_test

import (
	"fmt"
	"strings"
	"testing"

	"balcony/xmpp/xmpptest"
)

// TestMessageDelivery is the table of RFC 6121 §8.5.4 for messages, its choices made as §8.5.2 and §8.5.3 recommend. The recipient is juliet
// with the resources and priorities of each case; "-" is a connected resource that has sent no presence.
func TestMessageDelivery(t *testing.T) {
	const (
		none    = ""
		stored  = "stored"
		bounced = "bounced"
	)
	resources := []struct {
		name string
		prio []string // of balcony, chamber, …
	}{
		{"no resource", nil},
		{"connected only", []string{"-"}},
		{"negative only", []string{"-1"}},
		{"one", []string{"0"}},
		{"two and a negative one", []string{"0", "5", "-3"}},
	}
	names := []string{"balcony", "chamber", "garden"}
	type want struct {
		to      string // resources that receive it
		instead string // what happens when none does
	}
	bare := map[string]map[string]want{
		// §8.5.2.1.1, §8.5.2.2.1
		"normal":    {"no resource": {none, stored}, "connected only": {none, stored}, "negative only": {none, stored}, "one": {"balcony", none}, "two and a negative one": {"balcony chamber", none}},
		"chat":      {"no resource": {none, stored}, "connected only": {none, stored}, "negative only": {none, stored}, "one": {"balcony", none}, "two and a negative one": {"balcony chamber", none}},
		"headline":  {"no resource": {none, none}, "connected only": {none, none}, "negative only": {none, none}, "one": {"balcony", none}, "two and a negative one": {"balcony chamber", none}},
		"groupchat": {"no resource": {none, bounced}, "connected only": {none, bounced}, "negative only": {none, bounced}, "one": {none, bounced}, "two and a negative one": {none, bounced}},
		"error":     {"no resource": {none, none}, "connected only": {none, none}, "negative only": {none, none}, "one": {none, none}, "two and a negative one": {none, none}},
	}
	match := map[string]want{ // §8.5.3.1: to the resource that was named, whatever its presence
		"normal": {"balcony", none}, "chat": {"balcony", none}, "headline": {"balcony", none}, "groupchat": {"balcony", none}, "error": {"balcony", none},
	}
	absent := map[string]map[string]want{ // §8.5.3.2.1: nobody has the resource that was named
		"chat":      bare["chat"],
		"normal":    {"no resource": {none, bounced}, "connected only": {none, bounced}, "negative only": {none, bounced}, "one": {none, bounced}, "two and a negative one": {none, bounced}},
		"groupchat": {"no resource": {none, bounced}, "connected only": {none, bounced}, "negative only": {none, bounced}, "one": {none, bounced}, "two and a negative one": {none, bounced}},
		"headline":  {"no resource": {none, none}, "connected only": {none, none}, "negative only": {none, none}, "one": {none, none}, "two and a negative one": {none, none}},
		"error":     {"no resource": {none, none}, "connected only": {none, none}, "negative only": {none, none}, "one": {none, none}, "two and a negative one": {none, none}},
	}
	for _, rs := range resources {
		t.Run(rs.name, func(t *testing.T) {
			srv := xmpptest.New(t)
			srv.Account("juliet@localhost")
			romeo := srv.Client("romeo@localhost/orchard")
			juliet := make(map[string]*xmpptest.Client)
			for i, prio := range rs.prio {
				c := srv.Client("juliet@localhost/" + names[i])
				juliet[names[i]] = c
				if prio != "-" {
					c.Send("<presence><priority>" + prio + "</priority></presence>")
				}
				c.Sync()
			}
			for _, c := range juliet {
				c.Sync()
				c.Discard()
			}
			check := func(typ, to string, w want) {
				t.Helper()
				id := strings.ReplaceAll(typ+"-"+to, "@", "-")
				romeo.Send(fmt.Sprintf("<message to='%s' type='%s' id='%s'><body>hello</body></message>", to, typ, id))
				for _, name := range strings.Fields(w.to) {
					juliet[name].Expect(fmt.Sprintf("<message from='romeo@localhost/orchard' to='%s' type='%s' id='%s'><body>hello</body></message>", to, typ, id))
				}
				if w.instead == bounced {
					romeo.Expect(fmt.Sprintf("<message from='%s' to='romeo@localhost/orchard' type='error' id='%s'><body>hello</body>"+
						"<error type='cancel' code='503'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>", to, id))
				}
				romeo.ExpectNothing()
				for _, c := range juliet {
					c.ExpectNothing()
				}
				n := srv.Offline("juliet@localhost")
				if (n > 0) != (w.instead == stored) {
					t.Errorf("%s to %s: %d messages in the spool, want %q", typ, to, n, w.instead)
				}
				srv.EmptySpool("juliet@localhost")
			}
			for _, typ := range []string{"normal", "chat", "headline", "groupchat", "error"} {
				check(typ, "juliet@localhost", bare[typ][rs.name])
				check(typ, "juliet@localhost/nobody", absent[typ][rs.name])
				if len(rs.prio) > 0 {
					check(typ, "juliet@localhost/balcony", match[typ])
				}
			}
		})
	}
}

// RFC 6121 §5.2.2: an absent or unknown type is normal. RFC 6120 §8.1.2.1: from is stamped.
func TestMessageWithoutTypeIsNormal(t *testing.T) {
	srv := xmpptest.New(t)
	romeo, juliet := srv.Client("romeo@localhost/orchard"), srv.Client("juliet@localhost/balcony")
	juliet.Online()
	romeo.Send("<message to='juliet@localhost'><body>a</body></message><message to='juliet@localhost' type='telegram'><body>b</body></message>")
	juliet.Expect("<message from='romeo@localhost/orchard' to='juliet@localhost'><body>a</body></message>")
	juliet.Expect("<message from='romeo@localhost/orchard' to='juliet@localhost' type='telegram'><body>b</body></message>")
	juliet.ExpectNothing()
}

// RFC 6120 §10.3.1: a message without to is for the account itself.
func TestMessageWithoutToGoesToOwnAccount(t *testing.T) {
	srv := xmpptest.New(t)
	romeo := srv.Client("romeo@localhost/orchard")
	romeo.Online()
	romeo.Send("<message id='note'><body>buy milk</body></message>")
	romeo.Expect("<message from='romeo@localhost/orchard' to='romeo@localhost' id='note'><body>buy milk</body></message>")
}

// RFC 6121 §8.5.1: what is sent to an account that does not exist is answered like what nobody takes.
func TestUnknownAccount(t *testing.T) {
	srv := xmpptest.New(t)
	romeo := srv.Client("romeo@localhost/orchard")
	const unavailable = "<error type='cancel' code='503'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
	for _, to := range []string{"nobody@localhost", "nobody@localhost/home"} {
		for _, typ := range []string{"chat", "normal", "groupchat"} {
			romeo.Send(fmt.Sprintf("<message to='%s' type='%s' id='m'><body>hi</body></message>", to, typ))
			romeo.Expect(fmt.Sprintf("<message from='%s' to='romeo@localhost/orchard' type='error' id='m'><body>hi</body>%s</message>", to, unavailable))
		}
		romeo.Send(fmt.Sprintf("<iq to='%s' type='get' id='q'><query xmlns='some:namespace'/></iq>", to))
		romeo.Expect(fmt.Sprintf("<iq from='%s' to='romeo@localhost/orchard' type='error' id='q'><query xmlns='some:namespace'/>%s</iq>", to, unavailable))
		for _, typ := range []string{"error", "headline"} {
			romeo.Send(fmt.Sprintf("<message to='%s' type='%s' id='m'><body>hi</body></message>", to, typ))
		}
		romeo.Send(fmt.Sprintf("<presence to='%s'/>", to))
		romeo.Send(fmt.Sprintf("<iq to='%s' type='result' id='r'/>", to))
		romeo.ExpectNothing()
	}
}

// RFC 6120 §8.2.3, §8.4, §10.3.3; RFC 6121 §8.5.2.1.3, §8.5.3.2.3.
func TestIQRules(t *testing.T) {
	srv := xmpptest.New(t)
	romeo, juliet := srv.Client("romeo@localhost/orchard"), srv.Client("juliet@localhost/balcony")
	failed := func(c, cond, code string) string {
		return fmt.Sprintf("<error type='%s' code='%s'><%s xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>", c, code, cond)
	}
	bad, unavailable := failed("modify", "bad-request", "400"), failed("cancel", "service-unavailable", "503")
	for _, c := range []struct{ name, send, want string }{
		{"no id", "<iq type='get'><ping xmlns='urn:xmpp:ping'/></iq>", "<iq to='romeo@localhost/orchard' type='error'><ping xmlns='urn:xmpp:ping'/>" + bad + "</iq>"},
		{"no child", "<iq type='get' id='1'/>", "<iq to='romeo@localhost/orchard' type='error' id='1'>" + bad + "</iq>"},
		{"two children", "<iq type='set' id='1'><a xmlns='x'/><b xmlns='x'/></iq>", "<iq to='romeo@localhost/orchard' type='error' id='1'><a xmlns='x'/><b xmlns='x'/>" + bad + "</iq>"},
		{"unknown type", "<iq type='ask' id='1'><a xmlns='x'/></iq>", "<iq to='romeo@localhost/orchard' type='error' id='1'><a xmlns='x'/>" + bad + "</iq>"},
		{"no type", "<iq id='1'><a xmlns='x'/></iq>", "<iq to='romeo@localhost/orchard' type='error' id='1'><a xmlns='x'/>" + bad + "</iq>"},
		{"unknown payload to the server", "<iq type='get' id='1' to='localhost'><a xmlns='x'/></iq>", "<iq from='localhost' to='romeo@localhost/orchard' type='error' id='1'><a xmlns='x'/>" + unavailable + "</iq>"},
		{"unknown payload to oneself", "<iq type='get' id='1'><a xmlns='x'/></iq>", "<iq from='romeo@localhost' to='romeo@localhost/orchard' type='error' id='1'><a xmlns='x'/>" + unavailable + "</iq>"},
		{"unknown payload to a bare JID", "<iq type='get' id='1' to='juliet@localhost'><a xmlns='x'/></iq>", "<iq from='juliet@localhost' to='romeo@localhost/orchard' type='error' id='1'><a xmlns='x'/>" + unavailable + "</iq>"},
		{"absent resource", "<iq type='get' id='1' to='juliet@localhost/nowhere'><a xmlns='x'/></iq>", "<iq from='juliet@localhost/nowhere' to='romeo@localhost/orchard' type='error' id='1'><a xmlns='x'/>" + unavailable + "</iq>"},
		{"resource of the server", "<iq type='get' id='1' to='localhost/nowhere'><a xmlns='x'/></iq>", "<iq from='localhost/nowhere' to='romeo@localhost/orchard' type='error' id='1'><a xmlns='x'/>" + unavailable + "</iq>"},
		{"malformed to", "<iq type='get' id='1' to='@@'><a xmlns='x'/></iq>", "<iq to='romeo@localhost/orchard' type='error' id='1'><a xmlns='x'/>" + failed("modify", "jid-malformed", "400") + "</iq>"},
		{"other server", "<iq type='get' id='1' to='elsewhere.test'><a xmlns='x'/></iq>", "<iq from='elsewhere.test' to='romeo@localhost/orchard' type='error' id='1'><a xmlns='x'/>" + failed("cancel", "remote-server-not-found", "404") + "</iq>"},
		{"legacy session", "<iq type='set' id='1'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>", "<iq to='romeo@localhost/orchard' type='result' id='1'/>"},
		{"second bind", "<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "<iq to='romeo@localhost/orchard' type='error' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>" + failed("cancel", "not-allowed", "405") + "</iq>"},
	} {
		t.Run(c.name, func(t *testing.T) {
			romeo.Send(c.send)
			romeo.Expect(c.want)
			romeo.ExpectNothing()
		})
	}
	// RFC 6121 §8.5.3.1: who shares no presence with a resource learns not even that it is there.
	romeo.Send("<iq type='get' id='s' to='juliet@localhost/balcony'><a xmlns='x'/></iq>")
	romeo.Expect("<iq from='juliet@localhost/balcony' to='romeo@localhost/orchard' type='error' id='s'><a xmlns='x'/>" + unavailable + "</iq>")
	juliet.ExpectNothing()
	// A request to a resource that does is that client's to answer, and its answer comes back.
	juliet.Send("<presence to='romeo@localhost'/>")
	juliet.Sync()
	romeo.Send("<iq type='get' id='v' to='juliet@localhost/balcony'><query xmlns='jabber:iq:version'/></iq>")
	juliet.Expect("<iq type='get' id='v' to='juliet@localhost/balcony' from='romeo@localhost/orchard'><query xmlns='jabber:iq:version'/></iq>")
	juliet.Send("<iq type='result' id='v' to='romeo@localhost/orchard'><query xmlns='jabber:iq:version'><name>x</name></query></iq>")
	romeo.Expect("<iq type='result' id='v' from='juliet@localhost/balcony' to='romeo@localhost/orchard'><query xmlns='jabber:iq:version'><name>x</name></query></iq>")
	// Answers that nobody asked for are ignored (RFC 6120 §8.2.3, RFC 6121 §8.5.2.1.3).
	for _, to := range []string{"", "to='localhost'", "to='juliet@localhost'", "to='juliet@localhost/nowhere'"} {
		romeo.Send("<iq type='result' id='zz' " + to + "/><iq type='error' id='zz' " + to + ">" + bad + "</iq>")
	}
	romeo.ExpectNothing()
	juliet.ExpectNothing()
}

// RFC 6121 §3.1.2: a subscription request that cannot be routed is answered with an error; other presence is not.
func TestSubscribeToUnreachableDomain(t *testing.T) {
	srv := xmpptest.New(t)
	romeo := srv.Client("romeo@localhost/orchard")
	romeo.Online()
	romeo.Send("<presence to='juliet@elsewhere.test'/><presence type='subscribe' id='s' to='juliet@elsewhere.test'/>")
	romeo.Expect("<presence type='error' id='s' from='juliet@elsewhere.test' to='romeo@localhost'>" +
		"<error type='cancel' code='404'><remote-server-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>")
	romeo.ExpectNothing()
}

// RFC 6120 §7.7.2.2: the new session wins, the old one is told, and contacts see the old one go before the new one comes.
func TestResourceConflict(t *testing.T) {
	srv := xmpptest.New(t)
	other := srv.Client("romeo@localhost/phone")
	other.Online()
	old := srv.Client("romeo@localhost/orchard")
	old.Online()
	other.Expect("<presence from='romeo@localhost/orchard' to='{any}'/>")
	old.Discard()
	fresh := srv.Client("romeo@localhost/orchard")
	// RFC 6121 §4.5.2: its own unavailable presence goes to it as well, if that is written before the end.
	if e := old.Read(); e.Local == "presence" {
		old.ExpectClose("<conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>")
	} else if e.Local != "error" || e.Children[0].Local != "conflict" {
		t.Fatalf("the old session received %s", e)
	}
	old.Disconnect()
	other.Expect("<presence from='romeo@localhost/orchard' to='{any}' type='unavailable'/>")
	fresh.Send("<presence/>")
	other.Expect("<presence from='romeo@localhost/orchard' to='{any}'/>")
	other.ExpectNothing()
	fresh.Discard()
	other.Send("<message to='romeo@localhost/orchard' type='chat'><body>still there?</body></message>")
	if got := fresh.Read(); got.Local != "message" {
		t.Fatalf("the new session received %s", got)
	}
}
