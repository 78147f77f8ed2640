package s2s_test

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/xmpp"
	"balcony/xmpp/s2s/s2stest"
	"balcony/xmpp/xmpptest"
)

func TestInteropProsody(t *testing.T)  { interop(t, prosody) }
func TestInteropEjabberd(t *testing.T) { interop(t, ejabberd) }

// interop has users of this server talk to those of one that we did not write.
func interop(t *testing.T, r recipe) {
	w := newWorld(t)
	p := w.startPeer(r)
	for i, tc := range []struct {
		name    string
		direct  bool
		trusted bool
		bidi    bool
		onePort bool                // this server is reached on its https listener
		want    map[string][]string // how the streams are opened and proven, by software
	}{
		{"EXTERNAL", false, true, false, false, map[string][]string{
			"prosody":  {"in EXTERNAL valid, out EXTERNAL valid on", "in EXTERNAL valid on, out EXTERNAL valid on"},
			"ejabberd": {"in EXTERNAL valid, out EXTERNAL valid"}}},
		{"EXTERNAL with bidi", false, true, true, false, map[string][]string{
			"prosody":  {"out EXTERNAL valid bidi on"},
			"ejabberd": {"in EXTERNAL valid, out EXTERNAL valid"}}}, // it has no bidi
		{"dialback", false, false, false, false, map[string][]string{
			"prosody":  {"in dialback, out dialback"},
			"ejabberd": {"in dialback, out dialback"}}},
		{"direct TLS", true, true, true, false, map[string][]string{
			"prosody":  {"out direct EXTERNAL valid bidi on"},
			"ejabberd": {"in direct EXTERNAL valid, out direct EXTERNAL valid"}}},
		{"dialback with bidi", false, false, true, false, map[string][]string{
			"prosody":  {"out dialback bidi", "in dialback bidi", "in dialback bidi, out dialback bidi"},
			"ejabberd": {"in dialback, out dialback"}}},
		{"direct TLS to one port", true, true, false, true, map[string][]string{
			"prosody":  {"in direct EXTERNAL valid on, out direct EXTERNAL valid on"},
			"ejabberd": {"in direct EXTERNAL valid, out direct EXTERNAL valid"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := p.in(t)
			v := &world{t: t, dns: w.dns, ca: w.ca}
			domain, remote := fmt.Sprintf("balcony%d.test", i), p.trusted // a new one each time: peers do not connect at once again to what was lost
			options := []xmpptest.Option{xmpptest.Archive, func(c *config.Config) { c.S2S.Bidi, c.Web.OnePort = tc.bidi, tc.onePort }}
			if !tc.trusted {
				remote = p.other
				options = append(options, v.selfSigned(domain), dialback)
			}
			s := v.server(domain, options...)
			p.found(w.dns, tc.direct)
			line := s2stest.NewCable(t, p.s2s)
			if i == 0 {
				w.dns.Remove("_xmpp-server._tcp." + remote)
				w.dns.SRV(remote, "xmpp-server", "localhost", port(line.Addr()), 10, 0)
			}
			service, listener := "xmpp-server", "s2s"
			if tc.direct {
				service, listener = "xmpps-server", "s2s_tls"
			}
			if tc.onePort {
				listener = "https"
			}
			// ejabberd asks the test's name server for SRV records only, and the system for addresses.
			w.dns.SRV(domain, service, "localhost", port(s.Addr(listener)), 10, 0)
			w.dns.Remove("localhost")
			w.dns.Host("localhost", "127.0.0.1")
			romeo := s.Client("romeo@" + domain + "/orchard")
			juliet := p.login("juliet", remote, "balcony")
			converse(t, romeo, juliet, s.Client("romeo@"+domain+"/phone"), p.login("juliet", remote, "phone"))
			if got := methods(s); !slices.Contains(tc.want[r.name], got) {
				t.Errorf("streams: %s, want one of %q", got, tc.want[r.name])
			}
			if i == 0 {
				restart(p, line, romeo, juliet.JID.String())
			}
		})
	}
	t.Run("certificate that proves nothing", func(t *testing.T) {
		p := p.in(t)
		v := &world{t: t, dns: w.dns, ca: w.ca}
		s := v.server("strict.test") // takes no dialback
		p.found(w.dns, false)
		w.dns.SRV("strict.test", "xmpp-server", "localhost", port(s.Addr("s2s")), 10, 0)
		romeo, juliet := s.Client("romeo@strict.test/orchard"), p.login("juliet", p.other, "balcony")
		for _, c := range [][2]*xmpptest.Client{{romeo, juliet}, {juliet, romeo}} {
			from, to := c[0], c[1].JID.Bare()
			from.Send(fmt.Sprintf("<message to='%s' type='chat' id='refused'><body>Wherefore art thou?</body></message>", to))
			if e := expect(from, "message", "refused"); e.Attr("type") != "error" || e.Attr("from") != to.String() {
				t.Errorf("%s got %s", from.JID, e)
			}
		}
		romeo.ExpectNothing()
		if got := methods(s); strings.Contains(got, "in") || strings.Contains(got, "out") {
			t.Errorf("streams: %s", got)
		}
	})
}

// converse has two users do with each other what people do: messages with their copies to the other clients of both, questions, a subscription in both
// directions, presence, avatars, and the archives of both.
func converse(t *testing.T, romeo, juliet, romeos, juliets *xmpptest.Client) {
	t.Helper()
	r, j := romeo.JID, juliet.JID
	for _, c := range []*xmpptest.Client{romeo, juliet, romeos, juliets} {
		c.Send("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>")
		expect(c, "iq", "roster")
		c.Send("<iq type='set' id='carbons'><enable xmlns='urn:xmpp:carbons:2'/></iq>")
		if e := expect(c, "iq", "carbons"); e.Attr("type") != "result" {
			t.Errorf("carbons: %s", e)
		}
	}
	for _, c := range []*xmpptest.Client{romeos, juliets, romeo, juliet} {
		c.Send(hello("", c == romeo || c == juliet))
		c.Send("<iq type='get' id='here' to='" + c.JID.Domainpart() + "'><ping xmlns='urn:xmpp:ping'/></iq>")
		expect(c, "iq", "here")
	}
	const question, answer = "Wherefore art thou, <Juliet>?", "Here"
	romeo.Send(fmt.Sprintf("<message to='%s' type='chat' id='m1'><body>Wherefore art thou, &lt;Juliet&gt;?</body></message>", j))
	if e := expect(juliet, "message", "m1"); e.Attr("from") != r.String() || body(e) != question {
		t.Errorf("got %s", e)
	}
	juliet.Send(fmt.Sprintf("<message to='%s' type='chat' id='m2'><body>Here</body></message>", r))
	if e := expect(romeo, "message", "m2"); e.Attr("from") != j.String() || body(e) != answer {
		t.Errorf("got %s", e)
	}
	for _, c := range []struct {
		client    *xmpptest.Client
		direction string
		from, to  string
		text      string
	}{
		{romeos, "sent", r.String(), j.String(), question}, {romeos, "received", j.String(), r.String(), answer},
		{juliets, "received", r.String(), j.String(), question}, {juliets, "sent", j.String(), r.String(), answer},
	} {
		copied := carbon(c.client, c.direction)
		if copied.Attr("from") != c.from || copied.Attr("to") != c.to || body(copied) != c.text {
			t.Errorf("copy for %s: got %s", c.client.JID, copied)
		}
	}
	// The servers themselves, and the accounts.
	for _, c := range []struct {
		asker, asked *xmpptest.Client
	}{{romeo, juliet}, {juliet, romeo}} {
		domain, bare := c.asked.JID.Domainpart(), c.asked.JID.Bare().String()
		ask := func(typ, to, id, payload, want string) {
			c.asker.Send(fmt.Sprintf("<iq type='%s' to='%s' id='%s'>%s</iq>", typ, to, id, payload))
			if e := expect(c.asker, "iq", id); e.Attr("type") != "result" || !strings.Contains(e.String(), want) {
				t.Errorf("%s asked %s: got %s, want %s", c.asker.JID, to, e, want)
			}
		}
		ask("get", domain, "ping", "<ping xmlns='urn:xmpp:ping'/>", "")
		ask("get", domain, "disco", "<query xmlns='http://jabber.org/protocol/disco#info'/>", "category='server'")
		c.asked.Send("<iq type='set' id='vset'><vCard xmlns='vcard-temp'><FN>" + c.asked.JID.Localpart() + " of another house</FN></vCard></iq>")
		if e := expect(c.asked, "iq", "vset"); e.Attr("type") != "result" {
			t.Errorf("set vCard: %s", e)
		}
		ask("get", bare, "vcard", "<vCard xmlns='vcard-temp'/>", "of another house")
	}
	// RFC 6121 §3.1: Romeo asks, Juliet agrees and asks back.
	romeo.Send(fmt.Sprintf("<presence to='%s' type='subscribe' id='s1'/>", j.Bare()))
	wait(juliet, "presence", "type", "subscribe", r.Bare().String())
	juliet.Send(fmt.Sprintf("<presence to='%s' type='subscribed'/>", r.Bare()))
	wait(romeo, "presence", "type", "", j.String())
	juliet.Send(fmt.Sprintf("<presence to='%s' type='subscribe' id='s2'/>", r.Bare()))
	wait(romeo, "presence", "type", "subscribe", j.Bare().String())
	romeo.Send(fmt.Sprintf("<presence to='%s' type='subscribed'/>", j.Bare()))
	wait(juliet, "presence", "type", "", r.String())
	for _, c := range []struct {
		client  *xmpptest.Client
		contact string
	}{{romeo, j.Bare().String()}, {juliet, r.Bare().String()}} {
		c.client.Send("<iq type='get' id='check'><query xmlns='jabber:iq:roster'/></iq>")
		e := expect(c.client, "iq", "check")
		found := false
		for _, item := range e.Children[0].Children {
			found = found || item.Attr("jid") == c.contact && item.Attr("subscription") == "both"
		}
		if !found {
			t.Errorf("roster of %s: %s", c.client.JID, e)
		}
	}
	romeo.Send(hello("away", true))
	for {
		if e := wait(juliet, "presence", "type", "", r.String()); strings.Contains(e.String(), "away") {
			break
		}
	}
	juliet.Send(hello("dnd", true))
	for {
		if e := wait(romeo, "presence", "type", "", j.String()); strings.Contains(e.String(), "dnd") {
			break
		}
	}
	avatar(t, romeo, juliet)
	avatar(t, juliet, romeo)
	archived(t, romeo, j.Bare().String(), question, answer)
	archived(t, juliet, r.Bare().String(), question, answer)
	for _, c := range []*xmpptest.Client{romeos, juliets} {
		c.Write("</stream:stream>")
	}
	wait(juliet, "presence", "type", "unavailable", romeos.JID.String())
	wait(romeo, "presence", "type", "unavailable", juliets.JID.String())
}

// interests are what the clients of a conversation answer to disco#info; their order is that of XEP-0115 §5.1.
var interests = []string{"http://jabber.org/protocol/caps", "http://jabber.org/protocol/disco#info", "urn:xmpp:avatar:metadata+notify"}

// hello is presence; a curious one says by its capabilities that it wants to see avatars.
func hello(show string, curious bool) string {
	p := "<presence>"
	if show != "" {
		p += "<show>" + show + "</show>"
	}
	if curious {
		sum := sha1.Sum([]byte("client/pc//<" + strings.Join(interests, "<") + "<"))
		p += "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:test' ver='" + base64.StdEncoding.EncodeToString(sum[:]) + "'/>"
	}
	return p + "</presence>"
}

// read is the next stanza for c that is no question about its capabilities; those it answers.
func read(c *xmpptest.Client) *xmpp.Element {
	for {
		e := c.Read()
		if e.Local != "iq" || e.Attr("type") != "get" || len(e.Children) != 1 || e.Children[0].Space != "http://jabber.org/protocol/disco#info" {
			return e
		}
		c.Send(fmt.Sprintf("<iq type='result' to='%s' id='%s'><query xmlns='http://jabber.org/protocol/disco#info' node='%s'><identity category='client' type='pc'/>"+
			"<feature var='%s'/></query></iq>", e.Attr("from"), e.Attr("id"), e.Children[0].Attr("node"), strings.Join(interests, "'/><feature var='")))
	}
}

// carbon reads stanzas until a copy (XEP-0280) in that direction, and returns what was copied.
func carbon(c *xmpptest.Client, direction string) *xmpp.Element {
	for {
		e := read(c)
		if e.Local != "message" || e.Attr("from") != c.JID.Bare().String() {
			continue
		}
		for _, copied := range e.Children {
			if copied.Space == "urn:xmpp:carbons:2" && copied.Local == direction {
				return copied.Children[0].Children[0]
			}
		}
	}
}

// avatar publishes one (XEP-0084): who has subscribed to the presence of its owner and wants to see avatars is told, and gets it.
func avatar(t *testing.T, owner, watcher *xmpptest.Client) {
	t.Helper()
	var picture bytes.Buffer
	one := image.NewRGBA(image.Rect(0, 0, 1, 1))
	one.Set(0, 0, color.RGBA{byte(rand.Int()), byte(rand.Int()), byte(rand.Int()), 255})
	if err := png.Encode(&picture, one); err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("%x", sha1.Sum(picture.Bytes()))
	data := base64.StdEncoding.EncodeToString(picture.Bytes())
	metadata := fmt.Sprintf("<metadata xmlns='urn:xmpp:avatar:metadata'><info id='%s' bytes='%d' type='image/png' width='1' height='1'/></metadata>", id, picture.Len())
	for _, p := range [][2]string{{"data", "<data xmlns='urn:xmpp:avatar:data'>" + data + "</data>"}, {"metadata", metadata}} {
		node, payload := p[0], p[1]
		owner.Send(fmt.Sprintf("<iq type='set' id='%s'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:avatar:%s'><item id='%s'>%s</item></publish></pubsub></iq>",
			node, node, id, payload))
		if e := expect(owner, "iq", node); e.Attr("type") != "result" {
			t.Errorf("publish: %s", e)
		}
	}
	for {
		e := read(watcher)
		if e.Local == "message" && e.Attr("from") == owner.JID.Bare().String() && strings.Contains(e.String(), "urn:xmpp:avatar:metadata") && strings.Contains(e.String(), id) {
			break
		}
	}
	watcher.Send(fmt.Sprintf("<iq type='get' to='%s' id='avatar'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:avatar:data'><item id='%s'/></items></pubsub></iq>",
		owner.JID.Bare(), id))
	if e := expect(watcher, "iq", "avatar"); e.Attr("type") != "result" || !strings.Contains(e.String(), data) {
		t.Errorf("avatar of %s: %s", owner.JID, e)
	}
}

// archived asks for the messages with a contact that c's own server has kept (XEP-0313).
func archived(t *testing.T, c *xmpptest.Client, with string, want ...string) {
	t.Helper()
	var got []string
	for end := time.Now().Add(xmpptest.Patience); ; {
		got = nil
		c.Send("<iq type='set' id='archive'><query xmlns='urn:xmpp:mam:2' queryid='q'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>urn:xmpp:mam:2</value></field>" +
			"<field var='with'><value>" + with + "</value></field></x></query></iq>")
		for {
			e := read(c)
			if e.Local == "iq" && e.Attr("id") == "archive" {
				if e.Attr("type") != "result" {
					t.Fatalf("archive of %s: %s", c.JID, e)
				}
				break
			}
			if e.Local == "message" && len(e.Children) > 0 && e.Children[0].Space == "urn:xmpp:mam:2" && e.Children[0].Attr("queryid") == "q" {
				for _, m := range e.Children[0].Children[0].Children {
					if m.Local == "message" && body(m) != "" {
						got = append(got, body(m))
					}
				}
			}
		}
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("archive of %s: %q, want %q", c.JID, got, want)
		}
		time.Sleep(10 * time.Millisecond) // a peer may write it later
	}
}

// restart kills the peer in the middle of a conversation: what is sent meanwhile is there when it is back.
func restart(p *peer, line *s2stest.Cable, romeo *xmpptest.Client, juliet string) {
	p.t.Helper()
	p.kill()
	line.Unplug() // until Juliet is back: what her server does with messages to her before that is not our matter
	bare := strings.Split(juliet, "/")[0]
	romeo.Send(fmt.Sprintf("<message to='%s' type='chat' id='during'><body>Art thou gone?</body></message>", bare))
	romeo.Sync()
	p.start()
	again := p.login("juliet", strings.Split(bare, "@")[1], "balcony")
	again.Send("<presence/>")
	again.Sync()
	line.Plug()
	if e := expect(again, "message", "during"); body(e) != "Art thou gone?" {
		p.t.Errorf("got %s", e)
	}
	again.Send(fmt.Sprintf("<message to='%s' type='chat' id='back'><body>No</body></message>", romeo.JID))
	expect(romeo, "message", "back")
}

// wait reads stanzas until one of that name, from somebody, whose attribute has the value.
func wait(c *xmpptest.Client, name, attribute, value, from string) *xmpp.Element {
	for {
		e := read(c)
		if e.Local == name && e.Attr(attribute) == value && e.Attr("from") == from {
			return e
		}
	}
}

func body(e *xmpp.Element) string {
	for _, c := range e.Children {
		if c.Local == "body" {
			return c.Text
		}
	}
	return ""
}

// TestContactsElsewhere: what people do with each other is the same whether their accounts are on one server or on two.
func TestContactsElsewhere(t *testing.T) {
	w := newWorld(t)
	a, b := w.server("a.test", xmpptest.Archive), w.server("b.test", xmpptest.Archive)
	w.found("a.test", a)
	w.found("b.test", b)
	for _, domain := range []string{"a.test", "b.test"} {
		t.Run(domain, func(t *testing.T) {
			s := map[string]*xmpptest.Server{"a.test": a, "b.test": b}[domain]
			romeo := "romeo-of-" + strings.TrimSuffix(domain, ".test") + "@a.test"
			converse(t, a.Client(romeo+"/orchard"), s.Client("juliet@"+domain+"/balcony"), a.Client(romeo+"/phone"), s.Client("juliet@"+domain+"/phone"))
		})
	}
}
