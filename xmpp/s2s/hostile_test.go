package s2s_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/s2s/s2stest"
	"balcony/xmpp/xmpptest"
)

func short(c *config.Config) {
	c.Limits.LoginTime, c.Limits.TLSTime = config.Duration(2*time.Second), config.Duration(2*time.Second)
}

// hasten gives connections from now on a short time.
func hasten(t *testing.T, s *xmpptest.Server) {
	t.Helper()
	cfg := *s.Config
	short(&cfg)
	if err := s.Reload(&cfg); err != nil {
		t.Fatal(err)
	}
}

// TestHostilePeers: what another server may not do, each on a stream of its own.
func TestHostilePeers(t *testing.T) {
	w := newWorld(t)
	s := w.server("a.test", dialback)
	juliet := s.Client("juliet@a.test/balcony")
	juliet.Online()
	trusted := func(names ...string) *tls.Certificate {
		p := w.ca.Pair(s2stest.DNSNames(names...))
		return &p
	}
	message := func(from, to string) string {
		return fmt.Sprintf("<message from='%s' to='%s' type='chat' id='evil'><body>x</body></message>", from, to)
	}
	good := func(from, to string) *stranger {
		x := knock(s, from, to, trusted(from))
		x.external(t, from, to)
		return x
	}
	result := func(from, to, key string) string {
		return fmt.Sprintf("<db:result from='%s' to='%s'>%s</db:result>", from, to, key)
	}
	answered := func(t *testing.T, x *stranger, typ, condition string) {
		t.Helper()
		e := x.Element()
		if e.Space != nsDialback || e.Local != "result" || e.Attr("type") != typ {
			t.Fatalf("got %s, want a result of type %s", e, typ)
		}
		if condition != "" && !strings.Contains(e.String(), "<"+condition+" ") {
			t.Fatalf("got %s, want %s", e, condition)
		}
	}

	t.Run("stanza before proof", func(t *testing.T) {
		x := knock(s, "evil.test", "a.test", nil)
		x.Write(message("u@evil.test", "juliet@a.test"))
		x.ends(t, "not-authorized")
	})
	t.Run("stanza before TLS", func(t *testing.T) {
		c := s.DialListener("s2s")
		c.Write(header("evil.test", "a.test", ""))
		c.Header()
		c.Element()
		c.Write(message("u@evil.test", "juliet@a.test"))
		(&stranger{Client: c}).ends(t, "not-authorized")
	})
	t.Run("dialback before TLS", func(t *testing.T) {
		c := s.DialListener("s2s")
		c.Write(header("evil.test", "a.test", ""))
		c.Header()
		c.Element()
		c.Write(result("evil.test", "a.test", "abc"))
		x := &stranger{Client: c}
		answered(t, x, "error", "policy-violation")
		x.ends(t, "policy-violation")
	})
	t.Run("bytes behind starttls", func(t *testing.T) {
		c := s.DialListener("s2s")
		c.Write(header("evil.test", "a.test", ""))
		c.Header()
		c.Element()
		c.Write("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>" + result("evil.test", "a.test", "abc"))
		if e := c.Element(); e.Local != "failure" {
			t.Fatalf("got %s", e)
		}
	})
	t.Run("another domain than the certificate's", func(t *testing.T) {
		x := knock(s, "bank.test", "a.test", trusted("evil.test"))
		if x.offers("EXTERNAL") {
			t.Error("EXTERNAL is offered")
		}
		x.Write("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>")
		if e := x.Element(); e.Local != "failure" || e.Children[0].Local != "invalid-mechanism" {
			t.Errorf("got %s", e)
		}
		x.Write(message("u@bank.test", "juliet@a.test"))
		x.ends(t, "not-authorized")
	})
	t.Run("authorization identity of another", func(t *testing.T) {
		x := knock(s, "evil.test", "a.test", trusted("evil.test"))
		x.Write("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>YmFuay50ZXN0</auth>") // bank.test
		if e := x.Element(); e.Local != "failure" || e.Children[0].Local != "invalid-authzid" {
			t.Errorf("got %s", e)
		}
	})
	t.Run("domain changes after proof", func(t *testing.T) {
		x := knock(s, "evil.test", "a.test", trusted("evil.test"))
		x.Write("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>")
		x.Element()
		x.Write(header("bank.test", "a.test", ""))
		x.Header()
		x.ends(t, "invalid-from")
	})
	t.Run("spoofed from", func(t *testing.T) {
		x := good("evil.test", "a.test")
		x.Write(message("u@bank.test", "juliet@a.test"))
		x.ends(t, "invalid-from")
	})
	t.Run("from of this server", func(t *testing.T) {
		x := good("evil.test", "a.test")
		x.Write(message("romeo@a.test", "juliet@a.test"))
		x.ends(t, "invalid-from")
	})
	t.Run("claims this server's domain", func(t *testing.T) {
		c := s.DialListener("s2s")
		c.Write(header("a.test", "a.test", ""))
		c.Header()
		(&stranger{Client: c}).ends(t, "invalid-from")
	})
	t.Run("no from", func(t *testing.T) {
		x := good("evil.test", "a.test")
		x.Write("<message to='juliet@a.test'><body>x</body></message>")
		x.ends(t, "improper-addressing")
	})
	t.Run("relay", func(t *testing.T) {
		x := good("evil.test", "a.test")
		x.Write(message("u@evil.test", "victim@elsewhere.test"))
		x.ends(t, "host-unknown")
	})
	t.Run("unknown domain in the header", func(t *testing.T) {
		c := s.DialListener("s2s")
		c.Write(header("evil.test", "nowhere.test", ""))
		if c.Header()["from"] != "" {
			t.Error("the server answers for a domain that it does not have")
		}
		(&stranger{Client: c}).ends(t, "host-unknown")
	})
	t.Run("wrong dialback key", func(t *testing.T) {
		f := w.newFake("evil1.test")
		f.verify = func(from, to, id, key string) string {
			return fmt.Sprintf("<db:verify from='%s' to='%s' id='%s' type='invalid'/>", to, from, id)
		}
		x := knock(s, "evil1.test", "a.test", nil)
		x.Write(result("evil1.test", "a.test", "wrong"))
		answered(t, x, "invalid", "")
		x.End() // XEP-0220 §2.2.1: MUST close the stream
	})
	t.Run("key for another domain", func(t *testing.T) {
		f := w.newFake("bank1.test")
		f.verify = func(from, to, id, key string) string {
			return fmt.Sprintf("<db:verify from='%s' to='%s' id='%s' type='invalid'/>", to, from, id)
		}
		w.newFake("evil2.test")
		x := knock(s, "evil2.test", "a.test", nil)
		x.Write(result("evil2.test", "a.test", "k"))
		answered(t, x, "valid", "")
		x.Write(result("bank1.test", "a.test", "k"))
		answered(t, x, "error", "forbidden") // the stream goes on for the domain that is proven
		x.Write(message("u@bank1.test", "juliet@a.test"))
		x.ends(t, "invalid-from")
	})
	t.Run("answers to other questions", func(t *testing.T) {
		f := w.newFake("evil3.test")
		f.verify = func(from, to, id, key string) string {
			return fmt.Sprintf("<db:verify from='%[1]s' to='%[2]s' id='other' type='valid'/><db:verify from='bank.test' to='%[2]s' id='%[3]s' type='valid'/>"+
				"<db:result from='%[1]s' to='%[2]s' type='valid'/><db:verify from='%[1]s' to='%[2]s' id='%[3]s' type='invalid'/>", to, from, id)
		}
		x := knock(s, "evil3.test", "a.test", nil)
		x.Write(result("evil3.test", "a.test", "k"))
		answered(t, x, "invalid", "")
	})
	t.Run("unsolicited results", func(t *testing.T) {
		x := knock(s, "evil4.test", "a.test", nil)
		x.Write("<db:result from='evil4.test' to='a.test' type='valid'/><db:verify from='evil4.test' to='a.test' id='" + x.id + "' type='valid'/>")
		x.Write(message("u@evil4.test", "juliet@a.test"))
		x.ends(t, "not-authorized")
	})
	t.Run("dialback for a domain that is not here", func(t *testing.T) {
		w.newFake("evil5.test")
		x := knock(s, "evil5.test", "a.test", nil)
		x.Write(result("evil5.test", "nowhere.test", "k"))
		answered(t, x, "error", "item-not-found")
		x.Write("<db:verify from='evil5.test' to='nowhere.test' id='1'>k</db:verify>")
		if e := x.Element(); e.Attr("type") != "error" || e.Attr("id") != "1" {
			t.Errorf("got %s", e)
		}
		x.Write("<db:verify from='evil5.test' to='a.test' id='1'>k</db:verify>")
		if e := x.Element(); e.Attr("type") != "invalid" || e.Attr("from") != "a.test" {
			t.Errorf("got %s", e)
		}
	})
	t.Run("authoritative server is not there", func(t *testing.T) {
		x := knock(s, "gone.test", "a.test", nil)
		x.Write(result("gone.test", "a.test", "k"))
		answered(t, x, "error", "remote-connection-failed")
	})
	t.Run("another pair than the proven one", func(t *testing.T) {
		x := good("evil.test", "a.test")
		x.Write(message("u@evil.test", "node@pubsub.a.test"))
		e, err := x.Next()
		if err == nil && e.Local != "error" {
			t.Errorf("got %s", e)
		}
	})
	t.Run("endless header", func(t *testing.T) {
		c := s.DialListener("s2s")
		_, err := io.WriteString(c.Conn(), "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' to='a.test' a='"+strings.Repeat("x", 20000))
		if err == nil {
			c.Header()
			(&stranger{Client: c}).ends(t, "policy-violation")
		}
	})
	t.Run("endless element before proof", func(t *testing.T) {
		x := knock(s, "evil.test", "a.test", nil)
		x.Write("<message from='u@evil.test' to='juliet@a.test'><body>" + strings.Repeat("x", 20000))
		x.ends(t, "policy-violation")
	})
	t.Run("document type", func(t *testing.T) {
		c := s.DialListener("s2s")
		c.Write("<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'b'>]>")
		c.Header()
		(&stranger{Client: c}).ends(t, "restricted-xml")
	})
	t.Run("a handshake without end", func(t *testing.T) {
		c := s.DialListener("s2s")
		c.Write(header("evil.test", "a.test", ""))
		c.Header()
		c.Element()
		c.Write("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
		c.Element()
		_ = c.Conn().SetDeadline(time.Now().Add(xmpptest.Patience))
		fragment := append([]byte{22, 3, 1, 0x40, 0, 1, 0x00, 0xFF, 0xFF}, make([]byte, 0x4000-4)...)
		var err error
		for i := 0; i < 1000 && err == nil; i++ {
			_, err = c.Conn().Write(fragment)
			fragment = append([]byte{22, 3, 1, 0x40, 0}, make([]byte, 0x4000)...)
		}
		if ne, ok := err.(net.Error); err == nil || ok && ne.Timeout() {
			t.Errorf("the server takes it: %v", err)
		}
	})
	t.Run("too many pairs are verified at once", func(t *testing.T) {
		x := knock(s, "evil.test", "a.test", nil)
		for i := range 10 {
			f := w.newFake(fmt.Sprintf("slow%d.test", i))
			f.verify = nil
			x.Write(result(fmt.Sprintf("slow%d.test", i), "a.test", "k"))
		}
		answered(t, x, "error", "resource-constraint")
	})
	t.Run("SM before proof", func(t *testing.T) {
		x := knock(s, "evil.test", "a.test", nil)
		x.Write("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
		if e := x.Element(); e.Local != "failed" {
			t.Errorf("got %s", e)
		}
	})
	t.Run("the session of another", func(t *testing.T) {
		x := good("b.test", "a.test")
		x.Write("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
		id := x.Element().Attr("id")
		y := good("evil.test", "a.test")
		y.Write("<resume xmlns='urn:xmpp:sm:3' previd='" + id + "' h='0'/>")
		if e := y.Element(); e.Local != "failed" {
			t.Errorf("got %s", e)
		}
	})
	juliet.ExpectNothing()
}

// TestStrangersEnd: a peer that proves nothing is not kept, however it drips.
func TestStrangersEnd(t *testing.T) {
	w := newWorld(t)
	s := w.server("a.test", short)
	silent := s.DialListener("s2s")
	dripping := knock(s, "evil.test", "a.test", nil)
	end := make(chan error, 1)
	go func() {
		var err error
		for begin := time.Now(); err == nil && time.Since(begin) < 2*xmpptest.Patience; {
			_, err = io.WriteString(dripping.Conn(), " ")
			time.Sleep(20 * time.Millisecond)
		}
		end <- err
	}()
	silent.Header()
	(&stranger{Client: silent}).ends(t, "connection-timeout")
	dripping.ends(t, "connection-timeout") // while it drips
	if err := <-end; err == nil {
		t.Error("the server still reads")
	}
}

// TestManyStrangers: thousands of connections that prove nothing keep nobody out, cost little while they are there, and leave nothing.
func TestManyStrangers(t *testing.T) {
	w := newWorld(t)
	s := w.server("a.test")
	connections := func() int {
		families, err := s.Metrics().Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "balcony_s2s_connections" {
				return int(f.GetMetric()[0].GetGauge().GetValue())
			}
		}
		t.Fatal("no such metric")
		return 0
	}
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	good := knock(s, "b.test", "a.test", w.trusted("b.test"))
	good.external(t, "b.test", "a.test")
	const count, rounds = 1000, 2
	before := memory()
	for range rounds {
		var strangers []net.Conn
		for range count {
			c, err := net.Dial("tcp", s.Addr("s2s").String())
			if err != nil {
				t.Fatal(err)
			}
			strangers = append(strangers, c)
			_, _ = io.WriteString(c, header("evil.test", "a.test", "")+"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'")
		}
		s.Eventually("the acceptance of all", func() bool { return connections() == count+1 })
		if each := (int64(memory()) - int64(before)) / count; each > 64<<10 {
			t.Errorf("a stranger takes %d bytes", each)
		}
		x := knock(s, "c.test", "a.test", w.trusted("c.test"))
		x.external(t, "c.test", "a.test") // others get through
		x.Write("</stream:stream>")
		x.End()
		good.Write("<db:verify from='b.test' to='a.test' id='1'>k</db:verify>")
		if e := good.Element(); e.Attr("type") != "invalid" {
			t.Errorf("got %s", e)
		}
		for _, c := range strangers {
			_ = c.Close()
		}
		s.Eventually("the end of all", func() bool { return connections() == 1 })
	}
	if got := methods(s); got != "in EXTERNAL valid" {
		t.Errorf("streams: %s", got)
	}
}

// TestHostileReceivers: what a server may not say over a stream that this one has opened to it.
func TestHostileReceivers(t *testing.T) {
	w := newWorld(t)
	s := w.server("a.test", dialback)
	juliet := s.Client("juliet@a.test/balcony")
	juliet.Online()
	romeo := s.Client("romeo@a.test/orchard")
	const bidi = "<bidi xmlns='urn:xmpp:features:bidi'/>"
	for name, tc := range map[string]struct{ features, says, condition string }{
		"stanzas on a stream for one direction": {"", "<message from='u@%s' to='juliet@a.test' id='evil'/>", "invalid-from"},
		"a domain to prove on such a stream":    {"", "<db:result from='%s' to='a.test'>k</db:result>", "not-authorized"},
		"spoofed from":                          {bidi, "<message from='u@bank.test' to='juliet@a.test' id='evil'/>", "invalid-from"},
		"from of this server":                   {bidi, "<message from='romeo@a.test' to='juliet@a.test' id='evil'/>", "invalid-from"},
		"relay":                                 {bidi, "<message from='u@%s' to='u@bank.test' id='evil'/>", "host-unknown"},
		"another of this server's domains":      {bidi, "<message from='u@%s' to='node@pubsub.a.test' id='evil'/>", "not-authorized"},
		"a stream in the stream":                {bidi, "<stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:server'/>", ""},
		"an element of nobody's":                {bidi, "<evil xmlns='urn:evil'/>", "unsupported-stanza-type"},
		"XML that is none":                      {bidi, "<message from='u@%s'></iq>", "not-well-formed"},
		"a stanza that is too large":            {bidi, "<message from='u@%s' to='juliet@a.test' id='evil'><body>" + strings.Repeat("x", 300<<10) + "</body></message>", "policy-violation"},
	} {
		t.Run(name, func(t *testing.T) {
			domain := strings.ReplaceAll(strings.ToLower(name), " ", "-") + ".test"
			domain = strings.ReplaceAll(domain, "'", "")
			f := w.newFake(domain)
			f.features, f.then = tc.features, strings.ReplaceAll(tc.says, "%s", domain)
			f.ends = make(chan string, 10)
			romeo.Send("<message to='u@" + domain + "' type='chat' id='m'><body>x</body></message>")
			select {
			case condition := <-f.ends:
				if tc.condition != "" && condition != tc.condition || condition == "" {
					t.Errorf("the stream ends with %q, want %q", condition, tc.condition)
				}
			case <-time.After(xmpptest.Patience):
				t.Error("the stream goes on")
			}
		})
	}
	juliet.ExpectNothing()
}

// TestDeadDomainsAndRosters: RFC 6121 §3.1.2, §3.2.2, §3.3.2: what cannot be told to a contact's server changes the own roster as if it could, and
// the errors that come back change nothing.
func TestDeadDomainsAndRosters(t *testing.T) {
	w := newWorld(t)
	s := w.server("a.test")
	romeo := s.Client("romeo@a.test/orchard")
	romeo.Roster()
	romeo.Online()
	item := func() string {
		romeo.Send("<iq type='get' id='check'><query xmlns='jabber:iq:roster'/></iq>")
		e := expect(romeo, "iq", "check")
		if items := e.Children[0].Children; len(items) == 1 {
			return strings.TrimSpace(items[0].Attr("subscription") + " " + items[0].Attr("ask"))
		}
		return ""
	}
	subscribe := func() {
		t.Helper()
		romeo.Send("<presence to='u@gone.test' type='subscribe' id='s'/>")
		if e := expect(romeo, "presence", "s"); e.Attr("type") != "error" || !strings.Contains(e.String(), "remote-server-not-found") {
			t.Errorf("got %s", e)
		}
		if got := item(); got != "none subscribe" {
			t.Errorf("after subscribe: %q", got) // it waits for the contact, and is repeated
		}
	}
	subscribe()
	romeo.Send("<presence to='u@gone.test' type='unsubscribe'/>")
	romeo.Sync()
	if got := item(); got != "none" {
		t.Errorf("after unsubscribe: %q", got)
	}
	subscribe()
	romeo.Send("<iq type='set' id='remove'><query xmlns='jabber:iq:roster'><item jid='u@gone.test' subscription='remove'/></query></iq>")
	if e := expect(romeo, "iq", "remove"); e.Attr("type") != "result" {
		t.Errorf("remove: %s", e)
	}
	romeo.Sync()
	if got := item(); got != "" {
		t.Errorf("after its removal: %q", got)
	}
}

// TestUnreachable: what senders are told, in bounded time (RFC 6120 §8.3.3.16, §8.3.3.17).
func TestUnreachable(t *testing.T) {
	w := newWorld(t)
	s := w.server("a.test", func(c *config.Config) { c.S2S.Blocked = []string{"blocked.test"} })
	refusing := free(t, "127.0.0.1")
	w.dns.Server("refusing.test", refusing)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	w.dns.Server("silent.test", silent.Addr())
	w.newFake("wrong.test") // its certificate is not valid
	w.dns.SRV("none.test", "xmpp-server", ".", 0, 0, 0)
	w.dns.SRV("nohost.test", "xmpp-server", "missing.nohost.test", 5269, 0, 0)
	other := w.server("b.test")
	w.dns.Server("notthere.test", other.Addr("s2s")) // a server that does not know the domain
	romeo := s.Client("romeo@a.test/orchard")
	hasten(t, s)
	var want []string
	for domain, condition := range map[string]string{
		"gone.test": "remote-server-not-found", "none.test": "remote-server-not-found", "nohost.test": "remote-server-not-found",
		"refusing.test": "remote-server-timeout", "silent.test": "remote-server-timeout", "wrong.test": "remote-server-timeout",
		"notthere.test": "remote-server-not-found", "blocked.test": "not-allowed",
	} {
		romeo.Send("<message to='u@" + domain + "' type='chat' id='" + domain + "'><body>x</body></message>")
		want = append(want, domain+" "+condition)
	}
	var got []string
	for range want {
		e := romeo.Read()
		if e.Attr("type") != "error" {
			t.Fatalf("got %s", e)
		}
		for _, c := range e.Children {
			if c.Local == "error" {
				got = append(got, e.Attr("id")+" "+c.Children[0].Local)
			}
		}
	}
	if missing := without(want, got); len(missing) > 0 {
		t.Errorf("got %q, not %q", got, missing)
	}
	// The next one does not wait for another attempt.
	asked := w.dns.Asked("_xmpp-server._tcp.silent.test")
	romeo.Send("<message to='u@silent.test' type='chat' id='again'><body>x</body></message>")
	expect(romeo, "message", "again")
	if again := w.dns.Asked("_xmpp-server._tcp.silent.test"); again != asked || asked == 0 {
		t.Errorf("asked for its server %d times, and then %d times", asked, again)
	}
	// RFC 6121 §3.1.2: who asks for a subscription is told; other presence is dropped.
	romeo.Online()
	romeo.Send("<presence to='u@gone.test' id='seen'/>")
	romeo.Send("<presence to='u@gone.test' type='subscribe' id='sub'/>")
	e := expect(romeo, "presence", "sub")
	if e.Attr("type") != "error" || e.Attr("from") != "u@gone.test" {
		t.Errorf("got %s", e)
	}
}

func without(list, drop []string) (rest []string) {
	for _, s := range list {
		found := false
		for _, d := range drop {
			found = found || s == d
		}
		if !found {
			rest = append(rest, s)
		}
	}
	return rest
}
