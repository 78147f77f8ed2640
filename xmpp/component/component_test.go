package component_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/xmpptest"
)

const (
	unavailable = "<error type='wait' code='503'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
	bad         = "<error type='modify' code='400'><bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
	secret      = "wherefore art thou"
)

// start is a server of two domains with components of every kind of name.
func start(t *testing.T) *xmpptest.Server {
	return xmpptest.New(t, xmpptest.Config(func(c *config.Config) {
		c.Domains = append(c.Domains, config.Domain{Name: "other.test", Registration: config.Closed})
		for _, name := range []string{"plays.localhost", "upload.localhost", "irc.other.test", "elsewhere.example"} {
			c.Components = append(c.Components, config.Component{Name: name, Secret: secret})
		}
	}))
}

// XEP-0114 §3: the examples, and stanzas of every kind in both directions.
func TestComponent(t *testing.T) {
	srv := start(t)
	romeo := srv.Client("romeo@localhost/orchard")
	plays := srv.Component("plays.localhost", secret)

	romeo.Send("<message to='hamlet@plays.localhost/scene 1' type='chat' id='m1'><body>To be?</body></message>" +
		"<iq to='plays.localhost' type='get' id='q1'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>" +
		"<presence to='hamlet@plays.localhost'/>" +
		"<presence to='hamlet@plays.localhost' type='subscribe' id='s'/>")
	plays.Expect("<message from='romeo@localhost/orchard' to='hamlet@plays.localhost/scene 1' type='chat' id='m1'><body>To be?</body></message>")
	plays.Expect("<iq from='romeo@localhost/orchard' to='plays.localhost' type='get' id='q1'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
	plays.Expect("<presence from='romeo@localhost/orchard' to='hamlet@plays.localhost'/>")
	plays.Expect("<presence from='romeo@localhost' to='hamlet@plays.localhost' type='subscribe' id='s'/>")

	plays.Send("<message from='hamlet@plays.localhost/scene 1' to='romeo@localhost/orchard' type='chat'><body>Or not <b xmlns='jabber:component:accept'/><x xmlns='urn:x'/></body></message>" +
		"<iq from='plays.localhost' to='romeo@localhost/orchard' type='result' id='q1'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>" +
		"<message to='romeo@localhost/orchard'><body>from nobody</body></message>")
	romeo.Expect("<message from='hamlet@plays.localhost/scene 1' to='romeo@localhost/orchard' type='chat'><body>Or not <b/><x xmlns='urn:x'/></body></message>")
	romeo.Expect("<iq from='plays.localhost' to='romeo@localhost/orchard' type='result' id='q1'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
	romeo.Expect("<message from='plays.localhost' to='romeo@localhost/orchard'><body>from nobody</body></message>")

	// It may ask the server like anybody, and learns of accounts what strangers learn.
	plays.Send("<iq from='plays.localhost' to='localhost' type='get' id='v'><query xmlns='jabber:iq:version'/></iq>" +
		"<iq from='hamlet@plays.localhost' to='romeo@localhost' type='get' id='l'><query xmlns='jabber:iq:last'/></iq>")
	plays.Expect("<iq from='localhost' to='plays.localhost' type='result' id='v'><query xmlns='jabber:iq:version'><name>Balcony</name><version>test</version></query></iq>")
	plays.Expect("<iq from='romeo@localhost' to='hamlet@plays.localhost' type='error' id='l'><query xmlns='jabber:iq:last'/>" +
		"<error type='cancel' code='503'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>")
	romeo.ExpectNothing()
	plays.ExpectNothing()
}

// What only the server says cannot be said by a component: promises of other domains hold for it too (XEP-0359 §3, XEP-0203 §5, XEP-0280 §11).
func TestComponentForgesNothing(t *testing.T) {
	srv := start(t)
	romeo, plays := srv.Client("romeo@localhost/orchard"), srv.Component("plays.localhost", secret)
	plays.Send("<message from='a@plays.localhost' to='romeo@localhost/orchard' type='chat'><body>x</body>" +
		"<stanza-id xmlns='urn:xmpp:sid:0' by='romeo@localhost' id='forged'/><stanza-id xmlns='urn:xmpp:sid:0' by='localhost' id='forged'/>" +
		"<stanza-id xmlns='urn:xmpp:sid:0' by='a@plays.localhost' id='its-own'/><delay xmlns='urn:xmpp:delay' from='localhost' stamp='2002-09-10T23:08:25Z'/>" +
		"<received xmlns='urn:xmpp:carbons:2'/></message>")
	m := romeo.Read().String()
	for _, forged := range []string{"forged", "delay", "received"} {
		if strings.Contains(m, forged) {
			t.Errorf("%s got through: %s", forged, m)
		}
	}
	if !strings.Contains(m, "its-own") {
		t.Error(m)
	}
}

// Names below a served domain, of a host that the server would have itself, and of neither; components speak to each other through the server.
func TestNames(t *testing.T) {
	srv := start(t)
	romeo := srv.Client("romeo@localhost/orchard")
	items := func(domain string, want ...string) {
		t.Helper()
		romeo.Send("<iq type='get' id='items' to='" + domain + "'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>")
		got := make(map[string]bool)
		for _, item := range romeo.Read().Children[0].Children {
			got[item.Attrs[0].Value] = true
		}
		for _, w := range want {
			if !got[strings.TrimPrefix(w, "-")] != strings.HasPrefix(w, "-") {
				t.Errorf("items of %s: %v, want %s", domain, got, w)
			}
		}
	}
	items("localhost", "-plays.localhost", "-upload.localhost", "-elsewhere.example", "-irc.other.test")
	items("other.test", "upload.other.test", "-irc.other.test")
	all := make(map[string]*xmpptest.Client)
	for _, name := range []string{"plays.localhost", "upload.localhost", "irc.other.test", "elsewhere.example"} {
		all[name] = srv.Component(name, secret)
		romeo.Send("<iq type='set' id='x' to='" + name + "'><request xmlns='urn:xmpp:http:upload:0'/></iq>")
		all[name].Expect("<iq type='set' id='x' from='romeo@localhost/orchard' to='" + name + "'><request xmlns='urn:xmpp:http:upload:0'/></iq>")
	}
	items("localhost", "plays.localhost", "upload.localhost", "elsewhere.example", "-irc.other.test")
	items("other.test", "irc.other.test", "-plays.localhost", "-elsewhere.example")
	all["elsewhere.example"].Send("<message from='a@elsewhere.example/b' to='x@irc.other.test'><body>hello</body></message>")
	all["irc.other.test"].Expect("<message from='a@elsewhere.example/b' to='x@irc.other.test'><body>hello</body></message>")
	all["plays.localhost"].Disconnect()
	srv.Eventually("its absence", func() bool {
		romeo.Send("<iq type='get' id='items' to='localhost'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>")
		return !strings.Contains(romeo.Read().String(), "plays.localhost")
	})
}

// What is sent to a component that is not there is answered, and its place is free for the next connection.
func TestAbsentComponent(t *testing.T) {
	srv := start(t)
	romeo := srv.Client("romeo@localhost/orchard")
	absent := func() {
		t.Helper()
		romeo.Send("<message to='hamlet@plays.localhost' type='chat' id='m'><body>hello?</body></message>" +
			"<iq to='plays.localhost' type='get' id='q'><ping xmlns='urn:xmpp:ping'/></iq>" +
			"<message to='plays.localhost' type='error'/><iq to='plays.localhost' type='result' id='r'/><presence to='hamlet@plays.localhost'/>" +
			"<presence to='hamlet@plays.localhost' type='subscribe' id='s'/>")
		romeo.Expect("<message from='hamlet@plays.localhost' to='romeo@localhost/orchard' type='error' id='m'><body>hello?</body>" + unavailable + "</message>")
		romeo.Expect("<iq from='plays.localhost' to='romeo@localhost/orchard' type='error' id='q'><ping xmlns='urn:xmpp:ping'/>" + unavailable + "</iq>")
		romeo.ExpectNothing() // the error about the subscription goes to available resources
	}
	absent()
	for range 3 {
		plays := srv.Component("plays.localhost", secret)
		romeo.Send("<message to='plays.localhost' id='m'><body>hello</body></message>")
		plays.Expect("<message from='romeo@localhost/orchard' to='plays.localhost' id='m'><body>hello</body></message>")
		plays.Disconnect()
		srv.Eventually("its absence", func() bool { return connected(t, srv) == 0 })
		absent()
	}
}

// connected is how many components are there.
func connected(t *testing.T, srv *xmpptest.Server) float64 {
	t.Helper()
	all, err := srv.Metrics().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == "balcony_components" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("no gauge of components")
	return 0
}

// XEP-0114 §3 and RFC 6120 §4.9.3: what is wrong with the stream ends it, behind a stream header.
func TestStreamErrors(t *testing.T) {
	srv := start(t)
	const stream = "http://etherx.jabber.org/streams"
	header := func(to, ns string) string {
		return "<stream:stream to='" + to + "' xmlns='" + ns + "' xmlns:stream='" + stream + "'>"
	}
	const ns = "jabber:component:accept"
	for _, tt := range []struct{ name, send, want string }{
		{"an unknown component", header("films.localhost", ns), "host-unknown"},
		{"a domain of the server", header("localhost", ns), "host-unknown"},
		{"no name", "<stream:stream xmlns='" + ns + "' xmlns:stream='" + stream + "'>", "improper-addressing"},
		{"a user", header("hamlet@plays.localhost", ns), "improper-addressing"},
		{"a client", header("plays.localhost", "jabber:client"), "invalid-namespace"},
		{"a server", header("plays.localhost", "jabber:server"), "invalid-namespace"},
		{"the other method", header("plays.localhost", "jabber:component:connect"), "invalid-namespace"},
		{"no XMPP", "GET / HTTP/1.1\r\n\r\n", "not-well-formed"},
		{"a document type", "<!DOCTYPE x><x/>", "restricted-xml"},
		{"too much before the handshake", header("plays.localhost", ns)[:60] + strings.Repeat(" ", 20000), "policy-violation"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := srv.DialComponent()
			c.Write(tt.send)
			c.Header()
			if e := c.Element(); e.Local != "error" || len(e.Children) == 0 || e.Children[0].Local != tt.want { // a text may follow
				t.Errorf("%s, want %s", e, tt.want)
			}
			c.End()
		})
	}
	for _, tt := range []struct{ name, send string }{
		{"a wrong secret", xmpptest.Handshake("{id}", "wrong")},
		{"an empty handshake", "<handshake/>"},
		{"no handshake", "<message from='plays.localhost' to='romeo@localhost'/>"},
		{"a handshake in another namespace", "<handshake xmlns='urn:x'>{right}</handshake>"},
		{"upper case", "<handshake>{RIGHT}</handshake>"},
		{"a part of it", "<handshake>{half}</handshake>"},
		{"the one of another stream", "<handshake>{other}</handshake>"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := srv.DialComponent()
			id := c.OpenComponent("plays.localhost")
			right := strings.TrimSuffix(strings.TrimPrefix(xmpptest.Handshake(id, secret), "<handshake>"), "</handshake>")
			other := strings.TrimSuffix(strings.TrimPrefix(xmpptest.Handshake("x"+id, secret), "<handshake>"), "</handshake>")
			c.Write(strings.NewReplacer("{right}", right, "{RIGHT}", strings.ToUpper(right), "{half}", right[:20], "{other}", other).Replace(tt.send))
			c.ExpectElement("<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>")
			c.End()
		})
	}
	for _, tt := range []struct{ name, send, want string }{
		{"from the server's domain", "<message from='localhost' to='romeo@localhost'/>", "invalid-from"},
		{"from an account", "<message from='romeo@localhost/orchard' to='romeo@localhost'/>", "invalid-from"},
		{"from another component", "<message from='upload.localhost' to='romeo@localhost'/>", "invalid-from"},
		{"from a name below its own", "<message from='a.plays.localhost' to='romeo@localhost'/>", "invalid-from"},
		{"from no JID", "<message from='@' to='romeo@localhost'/>", "invalid-from"},
		{"another handshake", "<handshake/>", "unsupported-stanza-type"},
		{"a client's stanza", "<message xmlns='jabber:client' from='plays.localhost' to='romeo@localhost'/>", "invalid-namespace"},
		{"text", "hello", "bad-format"},
		{"a large stanza", "<message from='plays.localhost' to='romeo@localhost'><body>" + strings.Repeat("x", 300_000), "policy-violation"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := srv.Component("plays.localhost", secret)
			c.Send(tt.send)
			c.ExpectClose("<" + tt.want + " xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>")
		})
	}
}

// RFC 6120 §8.2.3, §8.3.3.8 and XEP-0114 §3: stanzas that cannot be routed are answered, and the stream goes on.
func TestStanzaErrors(t *testing.T) {
	srv := start(t)
	c := srv.Component("plays.localhost", secret)
	for _, tt := range []struct{ send, want string }{
		{"<message from='a@plays.localhost' id='1'><body>x</body></message>", "<message to='a@plays.localhost' type='error' id='1'><body>x</body>" + bad + "</message>"},
		{"<message from='a@plays.localhost' to='@' id='2'/>", "<message to='a@plays.localhost' type='error' id='2'><error type='modify' code='400'><jid-malformed xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"},
		{"<iq from='plays.localhost' to='localhost' type='get' id='3'/>", "<iq from='localhost' to='plays.localhost' type='error' id='3'>" + bad + "</iq>"},
		{"<iq from='plays.localhost' to='localhost' type='get'><a xmlns='x'/></iq>", "<iq from='localhost' to='plays.localhost' type='error'><a xmlns='x'/>" + bad + "</iq>"},
		{"<iq from='plays.localhost' to='localhost' type='ask' id='4'><a xmlns='x'/></iq>", "<iq from='localhost' to='plays.localhost' type='error' id='4'><a xmlns='x'/>" + bad + "</iq>"},
		{"<iq from='plays.localhost' to='localhost' type='result'/>", ""},
	} {
		c.Send(tt.send)
		if tt.want != "" {
			c.Expect(tt.want)
		}
		c.ExpectNothing()
	}
}

// A second connection is refused while the first one is alive, and takes its place when it is not: a network that is cut without a word must
// not keep a component out.
func TestSecondConnection(t *testing.T) {
	srv := start(t)
	romeo := srv.Client("romeo@localhost/orchard")
	first := srv.Component("plays.localhost", secret)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		e := first.Read() // the server asks for a sign of life
		first.Send("<iq type='result' id='" + e.Attr("id") + "' from='plays.localhost' to='" + e.Attr("from") + "'/>")
	}()
	second := srv.DialComponent()
	second.Write(xmpptest.Handshake(second.OpenComponent("plays.localhost"), secret))
	second.ExpectElement("<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>")
	second.End()
	<-answered
	romeo.Send("<message to='plays.localhost' id='1'><body>x</body></message>")
	first.Expect("<message from='romeo@localhost/orchard' to='plays.localhost' id='1'><body>x</body></message>")

	began := time.Now() // this time it does not answer
	second = srv.Component("plays.localhost", secret)
	first.Disconnect()
	if took := time.Since(began); took < 4*time.Second {
		t.Errorf("replaced after %s", took)
	}
	romeo.Send("<message to='plays.localhost' id='2'><body>x</body></message>")
	second.Expect("<message from='romeo@localhost/orchard' to='plays.localhost' id='2'><body>x</body></message>")
	romeo.ExpectNothing()
}

// Many connections that prove to be the same component at once: one gets in.
func TestConnectionsAtOnce(t *testing.T) {
	srv := start(t)
	var mu sync.Mutex
	in, out := 0, 0
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			c := srv.DialComponent()
			c.Write(xmpptest.Handshake(c.OpenComponent("plays.localhost"), secret))
			for e := c.Element(); ; e = c.Element() {
				switch {
				case e.Local == "handshake":
					mu.Lock()
					in++
					mu.Unlock()
				case e.Local == "iq": // the others made the server ask; each answer is a sign of life
					c.Write("<iq type='result' id='" + e.Attr("id") + "' from='plays.localhost' to='" + e.Attr("from") + "'/>")
				default:
					if e.Local == "error" && len(e.Children) == 1 && (e.Children[0].Local == "conflict" || e.Children[0].Local == "system-shutdown") {
						mu.Lock()
						out++
						mu.Unlock()
						return
					}
					t.Errorf("%s", e)
					return
				}
			}
		})
	}
	srv.Eventually("an end of all but one", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return in > 0 && out == 7 && srv.Components() == 1
	})
	if err := srv.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	wait.Wait()
	if in != 1 {
		t.Errorf("%d connections are the component", in)
	}
}

// A component that does not read costs only itself: its queue is bounded, and who wrote to it is told.
func TestSlowReader(t *testing.T) {
	srv := noRate(t)
	romeo := srv.Client("romeo@localhost/orchard")
	c := srv.DialComponent()
	c.Write(xmpptest.Handshake(c.OpenComponent("plays.localhost"), secret))
	if e := c.Element(); e.Local != "handshake" {
		t.Fatal(e)
	}
	body := strings.Repeat("x", 100_000)
	const most = 400 // 40 MB: the outbox and the buffers of the network
	told := 0
	for i := range most {
		romeo.Send(fmt.Sprintf("<message to='plays.localhost' id='m%d'><body>%s</body></message>", i, body))
		romeo.Sync()
		for _, e := range romeo.Take() {
			if !strings.Contains(e.String(), "<service-unavailable ") || e.Attr("type") != "error" {
				t.Fatalf("%.500s", e)
			}
			told++
		}
		if told > 0 {
			break
		}
	}
	if told == 0 {
		t.Fatal("nobody is told that the component does not read")
	}
	srv.Eventually("its end", func() bool { return srv.Components() == 0 })
	srv.Eventually("an answer to what waited in the outbox", func() bool {
		romeo.Sync()
		told += len(romeo.Take())
		return told > 20
	})
}

// noRate is a server with a component, and without limits on what peers send in a second.
func noRate(t *testing.T) *xmpptest.Server {
	return xmpptest.New(t, xmpptest.Config(func(c *config.Config) {
		c.Components = []config.Component{{Name: "plays.localhost", Secret: secret}}
		c.Limits.ClientRate, c.Limits.ServerRate = config.Off, config.Off
	}))
}

// A component that is busy: everything that many clients ask it is answered once, to each in order.
func TestLoad(t *testing.T) {
	srv := noRate(t)
	const clients, each = 4, 1000
	all := make([]*xmpptest.Client, clients)
	for i := range all {
		all[i] = srv.Client(fmt.Sprintf("romeo%d@localhost/orchard", i))
	}
	plays := srv.Component("plays.localhost", secret)
	var wait sync.WaitGroup
	for i, c := range all {
		wait.Go(func() {
			for n := range each {
				if _, err := fmt.Fprintf(c.Conn(), "<message to='hamlet@plays.localhost' id='%d-%d'><body>%[2]d</body></message>", i, n); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range clients * each { // the component sends back what it gets
		m := plays.Read()
		plays.Send("<message from='hamlet@plays.localhost' to='" + m.Attr("from") + "' id='" + m.Attr("id") + "'><body>" + m.Children[0].Text + "</body></message>")
	}
	for i, c := range all {
		for n := range each {
			if m := c.Read(); m.Attr("id") != fmt.Sprintf("%d-%d", i, n) || m.Attr("type") == "error" {
				t.Fatalf("%s, want %d-%d", m, i, n)
			}
		}
		c.ExpectNothing()
	}
	wait.Wait()
	plays.ExpectNothing()
}

// A component that reads late gets what has waited for it, in order; nobody is told that it failed.
func TestLateReader(t *testing.T) {
	srv := noRate(t)
	romeo := srv.Client("romeo@localhost/orchard")
	c := srv.DialComponent()
	c.Write(xmpptest.Handshake(c.OpenComponent("plays.localhost"), secret))
	if e := c.Element(); e.Local != "handshake" {
		t.Fatal(e)
	}
	body := strings.Repeat("x", 100_000)
	const n = 70 // 7 MB, the outbox is 8 MiB
	for i := range n {
		romeo.Send(fmt.Sprintf("<message to='plays.localhost' id='%d'><body>%s</body></message>", i, body))
	}
	romeo.Sync()
	for i := range n {
		if m := c.Element(); m.Attr("id") != fmt.Sprint(i) || m.Children[0].Text != body {
			t.Fatalf("%.200s, want %d", m, i)
		}
	}
	romeo.ExpectNothing()
}

// A stream that the server ends gets what was sent to it before.
func TestShutdown(t *testing.T) {
	srv := start(t)
	romeo := srv.Client("romeo@localhost/orchard")
	c := srv.Component("plays.localhost", secret)
	romeo.Send("<message to='plays.localhost' id='last'><body>x</body></message>")
	romeo.Sync()
	if err := srv.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	c.Expect("<message from='romeo@localhost/orchard' to='plays.localhost' id='last'><body>x</body></message>")
	c.ExpectClose("<system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>")
}

// The limits before the handshake are the listener's: time, however it drips, and connections.
func TestBeforeTheHandshake(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) {
		c.Components = []config.Component{{Name: "plays.localhost", Secret: secret}}
		c.Limits.TLSTime = config.Duration(300 * time.Millisecond)
	}))
	c := srv.DialComponent()
	c.Write("<stream:stream to='plays.localhost' xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'>")
	c.Header()
	stop := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				_, _ = c.Conn().Write([]byte(" ")) // until the server has closed
			}
		}
	})
	c.ExpectElement("<stream:error><connection-timeout xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>")
	close(stop)
	wait.Wait()
	srv.DialComponent() // and nothing
	srv.Eventually("the end of all", func() bool { return srv.Components() == 0 })
}
