package s2s_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"balcony/xmpp"
)

// TestWithoutManagement: a peer that has no stream management says by the answer to a ping, or by the end of its stream, what it has got; what it may have
// lost with the stream is sent again, and says so.
func TestWithoutManagement(t *testing.T) {
	w := newWorld(t)
	b := w.newFake("b.test")
	b.features = "<bidi xmlns='urn:xmpp:features:bidi'/>" // it answers over the same stream
	answers, over := make(chan string), make(chan struct{})
	var mute atomic.Bool
	var downs atomic.Int32
	b.reply = func(e *xmpp.Element) string {
		switch {
		case e.Attr("id") == "m3":
			return "</stream:stream>"
		case e.Attr("id") == "m6":
			return "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
		case e.Attr("id") == "m5" && downs.Add(1) == 1:
			return "<stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
		case e.Local != "iq" || mute.Load():
			return ""
		}
		select {
		case how := <-answers:
			return fmt.Sprintf("<iq from='b.test' to='a.test' id='%s' %s", e.Attr("id"), how)
		case <-over:
			return ""
		}
	}
	defer close(over)
	a := w.server("a.test", dialback)
	romeo := a.Client("romeo@a.test/orchard")
	send := func(id string) {
		romeo.Send("<message to='juliet@b.test' type='chat' id='" + id + "'><body>" + id + "</body></message>")
	}
	next := func() *xmpp.Element {
		for {
			if e := <-b.got; e.Local == "message" {
				return e
			}
		}
	}
	stored := func() (ids []string) {
		list, err := a.DB().Unsent(context.Background(), 0, 100)
		if err != nil {
			t.Error(err)
		}
		for _, u := range list {
			ids = append(ids, u.Stanza.ID)
		}
		return ids
	}
	empty := func() { a.Eventually("an empty store", func() bool { return len(stored()) == 0 }) }
	for i, how := range []string{"type='result'/>", "type='error'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"} {
		id := fmt.Sprint("m", i)
		send(id)
		if e := next(); e.Attr("id") != id || len(e.Children) != 1 {
			t.Errorf("the peer got %s", e)
		}
		if e := <-b.got; e.Local != "iq" || e.Attr("from") != "a.test" || e.Attr("to") != "b.test" || e.Children[0].Local != "ping" {
			t.Errorf("the peer got %s, want a ping", e)
		}
		if got := stored(); fmt.Sprint(got) != "["+id+"]" {
			t.Errorf("before the peer has answered %v are stored", got)
		}
		answers <- how
		empty()
	}

	mute.Store(true)
	send("m2")
	next()
	b.cut()
	if e := next(); e.Attr("id") != "m2" || len(e.Children) != 3 || e.Children[1].Local != "delay" || e.Children[1].Attr("from") != "a.test" || e.Children[2].Local != "again" {
		t.Errorf("after the stream was lost the peer got %s", e)
	}
	send("m3")
	if e := next(); e.Attr("id") != "m3" {
		t.Errorf("the peer got %s", e)
	}
	empty() // with m2, which went before it
	send("m4")
	if e := next(); e.Attr("id") != "m4" {
		t.Errorf("the peer got %s once more", e)
	}

	// RFC 6120 §4.9.1.1: who ends a stream with an error need not have read what came meanwhile, also if it closes the connection in order.
	send("m5")
	if e := next(); e.Attr("id") != "m5" {
		t.Errorf("the peer got %s", e)
	}
	late := time.After(time.Minute)
	for want := []string{"m4", "m5"}; len(want) > 0; {
		select {
		case e := <-b.got:
			if e.Local != "message" {
				continue
			}
			if e.Attr("id") != want[0] {
				t.Errorf("after the peer has ended the stream with an error it got %s, want %s", e, want[0])
			}
			want = want[1:]
		case <-late:
			t.Fatalf("%v are lost", want)
		}
	}

	// What the peer ends the stream for does not come again and again.
	send("m6")
	if e := next(); e.Attr("id") != "m6" {
		t.Errorf("the peer got %s", e)
	}
	empty()
	send("m7")
	if e := next(); e.Attr("id") != "m7" {
		t.Errorf("the peer got %s once more", e)
	}
}

// TestStanzaEndsStreams: a peer with stream management that ends the stream for a stanza does not get it for ever; its sender gets an error, and the others
// their turn.
func TestStanzaEndsStreams(t *testing.T) {
	w := newWorld(t)
	b := w.newFake("b.test")
	b.features = "<sm xmlns='urn:xmpp:sm:3'/>"
	b.reply = func(e *xmpp.Element) string {
		if e.Attr("id") == "m1" {
			return "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
		}
		return ""
	}
	a := w.server("a.test", dialback)
	romeo := a.Client("romeo@a.test/orchard")
	romeo.Send("<message to='juliet@b.test' type='chat' id='m1'><body>m1</body></message>")
	if e := expect(romeo, "message", "m1"); e.Attr("type") != "error" {
		t.Errorf("the sender got %s", e)
	}
	if n := len(b.got); n != 3 {
		t.Errorf("the peer got it %d times, want 3", n)
	}
	romeo.Send("<message to='juliet@b.test' type='chat' id='m2'><body>m2</body></message>")
	for range 3 {
		<-b.got
	}
	if e := <-b.got; e.Attr("id") != "m2" {
		t.Errorf("the peer got %s", e)
	}
}
