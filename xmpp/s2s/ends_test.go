package s2s_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/s2s/s2stest"
	"balcony/xmpp/xmpptest"
)

func (w *world) trusted(names ...string) *tls.Certificate {
	p := w.ca.Pair(s2stest.DNSNames(names...))
	return &p
}

// both takes a scripted peer to a stream for both directions (XEP-0288), proven by its certificate.
func (w *world) both(s *xmpptest.Server, from, to string, names ...string) *stranger {
	w.t.Helper()
	x := knock(s, from, to, w.trusted(append(names, from)...))
	x.Write("<bidi xmlns='urn:xmpp:bidi'/>")
	x.external(w.t, from, to)
	return x
}

func (x *stranger) prove(t *testing.T, from, to string) {
	t.Helper()
	x.Write(fmt.Sprintf("<db:result from='%s' to='%s'>k</db:result>", from, to))
	if e := x.Element(); e.Local != "result" || e.Attr("type") != "valid" {
		t.Fatalf("got %s", e)
	}
}

func (x *stranger) enable(t *testing.T) (id string) {
	t.Helper()
	x.Write("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	e := x.Element()
	if e.Local != "enabled" {
		t.Fatalf("got %s", e)
	}
	return e.Attr("id")
}

// message reads up to the next message.
func (x *stranger) message() string {
	for {
		if e := x.Element(); e.Local == "message" {
			return e.Attr("id")
		}
	}
}

func direction(s *xmpptest.Server, remote string) string {
	list, err := s.Federation().Streams(context.Background())
	if err != nil {
		return err.Error()
	}
	for _, e := range list {
		if e.Remote == remote {
			return e.Direction
		}
	}
	return ""
}

// TestRestartWhilePeerIsAway: what went over a stream of the peer's that broke, and waits for the peer to resume it, is not lost when the server stops.
func TestRestartWhilePeerIsAway(t *testing.T) {
	w := newWorld(t)
	data := t.TempDir()
	kept := func(c *config.Config) { c.Data, c.Storage.DSN = data, "" }
	a := w.server("a.test", kept, dialback)
	romeo := a.Client("romeo@a.test/orchard")
	x := w.both(a, "b.test", "a.test")
	x.enable(t)
	romeo.Send("<message to='juliet@b.test' type='chat' id='m1'/>")
	if id := x.message(); id != "m1" {
		t.Fatalf("got %s", id)
	}
	_ = x.Conn().Close() // without an acknowledgement
	a.Eventually("the end of the stream", func() bool { return direction(a, "b.test") == "none" })
	romeo.Send("<message to='juliet@b.test' type='chat' id='m2'/>")
	romeo.Sync()
	ctx, cancel := context.WithTimeout(context.Background(), xmpptest.Patience)
	defer cancel()
	if err := a.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	f := w.newFake("b.test")
	w.server("a.test", kept, dialback)
	for _, want := range []string{"m1", "m2"} {
		select {
		case e := <-f.got:
			if e.Attr("id") != want {
				t.Errorf("got %s, want %s", e, want)
			}
		case <-ctx.Done():
			t.Fatalf("%s is lost", want)
		}
	}
}

// TestResumedStreamProvesItsOwnDomains: a stream that is resumed carries nothing for a domain that only the stream before had proven.
func TestResumedStreamProvesItsOwnDomains(t *testing.T) {
	w := newWorld(t)
	a := w.server("a.test", dialback)
	romeo := a.Client("romeo@a.test/orchard")
	x := w.both(a, "b.test", "a.test", "c.test")
	x.prove(t, "c.test", "a.test")
	id := x.enable(t)
	for _, d := range []string{"b.test", "c.test"} {
		romeo.Send("<message to='u@" + d + "' type='chat' id='" + d + "'/>")
		if got := x.message(); got != d {
			t.Fatalf("got %s", got)
		}
	}
	x.Write("<a xmlns='urn:xmpp:sm:3' h='2'/>")
	a.Eventually("the acknowledgement", func() bool {
		list, err := a.Federation().Streams(context.Background())
		return err == nil && len(list) > 0 && list[0].Unacked == 0
	})
	_ = x.Conn().Close()
	a.Eventually("the end of the stream", func() bool { return direction(a, "c.test") == "none" })
	f := w.newFake("c.test") // c.test has moved
	y := w.both(a, "b.test", "a.test")
	y.Write("<resume xmlns='urn:xmpp:sm:3' previd='" + id + "' h='2'/>")
	if e := y.Element(); e.Local != "resumed" {
		t.Fatalf("got %s", e)
	}
	romeo.Send("<message to='u@c.test' type='chat' id='secret'/>")
	romeo.Send("<message to='u@b.test' type='chat' id='own'/>")
	if got := y.message(); got != "own" {
		t.Errorf("b.test gets %s", got)
	}
	select {
	case e := <-f.got:
		if e.Attr("id") != "secret" {
			t.Errorf("got %s", e)
		}
	case <-time.After(xmpptest.Patience):
		t.Error("c.test got nothing")
	}
}

// TestIdleStreamsEnd: a stream that carries nothing is closed, however its domain was proven and whether it has ever carried something.
func TestIdleStreamsEnd(t *testing.T) {
	w := newWorld(t)
	a := w.server("a.test", dialback, func(c *config.Config) { c.Limits.ServerIdle = config.Duration(200 * time.Millisecond) })
	w.newFake("old.test")
	external := knock(a, "b.test", "a.test", w.trusted("b.test"))
	external.external(t, "b.test", "a.test")
	old := knock(a, "old.test", "a.test", nil)
	old.prove(t, "old.test", "a.test")
	external.End()
	old.End()
	// One of this server's own.
	f := w.newFake("c.test")
	romeo := a.Client("romeo@a.test/orchard")
	romeo.Send("<message to='u@c.test' type='chat' id='1'/>")
	<-f.got
	a.Eventually("the end of the stream", func() bool { return direction(a, "c.test") == "" })
	romeo.Send("<message to='u@c.test' type='chat' id='2'/>")
	e := <-f.got
	for e.Local == "iq" { // whether it has got the first one
		e = <-f.got
	}
	if e.Attr("id") != "2" {
		t.Errorf("got %s", e)
	}
}

// TestPolicyChanges: what a stream has proven under a policy that does not hold any more counts no longer.
func TestPolicyChanges(t *testing.T) {
	w := newWorld(t)
	a := w.server("a.test", dialback)
	w.newFake("old.test")
	old := knock(a, "old.test", "a.test", nil)
	old.prove(t, "old.test", "a.test")
	good := knock(a, "b.test", "a.test", w.trusted("b.test"))
	good.external(t, "b.test", "a.test")
	many := knock(a, "c.test", "a.test", w.trusted("c.test", "d.test", "e.test"))
	for _, d := range []string{"c.test", "d.test", "e.test"} {
		many.prove(t, d, "a.test")
	}
	out := w.newFake("f.test")
	romeo := a.Client("romeo@a.test/orchard")
	romeo.Send("<message to='u@f.test' type='chat' id='1'/>")
	<-out.got
	cfg := *a.Config
	cfg.S2S.Auth, cfg.S2S.Blocked = config.AuthCertificate, []string{"d.test"}
	if err := a.Reload(&cfg); err != nil {
		t.Fatal(err)
	}
	// A stream that was opened before keeps to the new policy, from the first moment.
	good.Write("<db:result from='d.test' to='a.test'>k</db:result>")
	if e := good.Element(); e.Attr("type") != "error" || !strings.Contains(e.String(), "policy-violation") {
		t.Errorf("got %s", e)
	}
	old.ends(t, "policy-violation")
	many.ends(t, "policy-violation")
	// What f.test did not confirm waits: without stream management nobody knows whether it has got it.
	a.Eventually("the end of the stream", func() bool { return direction(a, "f.test") != "out" })
	good.Write("<message from='u@b.test' to='romeo@a.test/orchard' id='2'/>")
	expect(romeo, "message", "2")
}

// TestExplainPrintsNoControls: what another server says does not move the operator's cursor.
func TestExplainPrintsNoControls(t *testing.T) {
	w := newWorld(t)
	a := w.server("a.test", dialback)
	f := w.newFake("evil.test")
	f.features = "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>\u009b31m&#10;result: all is well" + strings.Repeat("x", 5000) +
		"</mechanism></mechanisms>"
	lines, err := a.Federation().Explain(context.Background(), "", "evil.test")
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for _, l := range lines {
		seen = seen || strings.Contains(l, "all is well")
		if strings.ContainsAny(l, "\n\u009b") || len(l) > 1100 {
			t.Errorf("%.200q (%d bytes)", l, len(l))
		}
	}
	if !seen {
		t.Errorf("%q", lines)
	}
}

// TestRateOfOneDomain: a domain that sends more than its rate, over however many streams, is read more slowly; nothing of it is lost, and nobody else waits.
func TestRateOfOneDomain(t *testing.T) {
	w := newWorld(t)
	a := w.server("a.test", func(c *config.Config) { c.Limits.ServerRate = 40 << 10 })
	romeo := a.Client("romeo@a.test/orchard")
	body := strings.Repeat("x", 10_000)
	quiet := knock(a, "quiet.test", "a.test", w.trusted("quiet.test"))
	quiet.external(t, "quiet.test", "a.test")
	var streams []*stranger
	for range 4 {
		x := knock(a, "loud.test", "a.test", w.trusted("loud.test"))
		x.external(t, "loud.test", "a.test")
		streams = append(streams, x)
	}
	begin := time.Now()
	for i, x := range streams {
		for k := range 3 {
			x.Write(fmt.Sprintf("<message from='u@loud.test' to='romeo@a.test/orchard' id='m%d'><body>%s</body></message>", 3*i+k, body))
		}
	}
	quiet.Write("<message from='u@quiet.test' to='romeo@a.test/orchard' id='quiet'/>")
	for loud, heard := 0, false; loud < 12 || !heard; {
		switch e := romeo.Read(); {
		case e.Attr("id") == "quiet":
			if heard = true; loud == 12 {
				t.Error("another domain waits until all has come")
			}
		case e.Local == "message":
			loud++
		}
	}
	// 120 KB, of which 40 KiB are free, and at most 16 KiB a stream are read before anybody waits.
	if d := time.Since(begin); d < 500*time.Millisecond {
		t.Errorf("it took %s", d)
	}
}

// TestComponentOfOurs: an external component (XEP-0114) talks to other servers under its own name, and is talked to.
func TestComponentOfOurs(t *testing.T) {
	w := newWorld(t)
	a := w.server("a.test", func(c *config.Config) {
		c.Listen.Component = []string{"127.0.0.1:0"}
		c.Components = []config.Component{{Name: "gate.a.test", Secret: "a secret of sixteen bytes"}}
	})
	b := w.server("b.test")
	w.found("b.test", b)
	w.found("gate.a.test", a)
	gate, juliet := a.Component("gate.a.test", "a secret of sixteen bytes"), b.Client("juliet@b.test/balcony")
	gate.Send("<message from='u@gate.a.test' to='juliet@b.test/balcony' id='1'><body>x</body></message>")
	juliet.Expect("<message from='u@gate.a.test' to='juliet@b.test/balcony' id='1'><body>x</body></message>")
	juliet.Send("<iq type='get' to='u@gate.a.test/r' id='2'><ping xmlns='urn:xmpp:ping'/></iq>")
	gate.Expect("<iq type='get' from='juliet@b.test/balcony' to='u@gate.a.test/r' id='2'><ping xmlns='urn:xmpp:ping'/></iq>")
	gate.Send("<iq type='result' from='u@gate.a.test/r' to='juliet@b.test/balcony' id='2'/>")
	juliet.Expect("<iq type='result' from='u@gate.a.test/r' to='juliet@b.test/balcony' id='2'/>")
	// What cannot be delivered comes back to the component.
	gate.Send("<message from='u@gate.a.test' to='u@gone.test' id='3' type='chat'><body>x</body></message>")
	if e := expect(gate, "message", "3"); e.Attr("type") != "error" || e.Attr("to") != "u@gate.a.test" {
		t.Errorf("got %s", e)
	}
	// While it is not there, its senders are told.
	gate.Close()
	a.Eventually("the end of the component", func() bool {
		juliet.Send("<iq type='get' to='u@gate.a.test/r' id='4'><ping xmlns='urn:xmpp:ping'/></iq>")
		return expect(juliet, "iq", "4").Attr("type") == "error"
	})
}

// TestVerifyingForOneAddress: a stranger whose domains do not answer does not keep others from being verified.
func TestVerifyingForOneAddress(t *testing.T) {
	w := newWorld(t)
	a := w.server("a.test", dialback)
	slow := w.newFake("slow.test")
	slow.verify = nil
	w.newFake("old.test")
	for i := range 20 {
		x := knock(a, "slow.test", "a.test", nil)
		for k := range 4 {
			d := fmt.Sprintf("s%d-%d.test", i, k)
			w.dns.Server(d, slow.l.Addr())
			x.Write(fmt.Sprintf("<db:result from='%s' to='a.test'>k</db:result>", d))
		}
	}
	x := knockFrom(a, "127.0.0.2", "old.test", "a.test", nil)
	x.prove(t, "old.test", "a.test")
}
