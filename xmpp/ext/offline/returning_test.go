package offline_test

import (
	"context"
	"strings"
	"testing"

	"balcony/xmpp"
	"balcony/xmpp/ext/mam"
	"balcony/xmpp/ext/offline"
)

// withModule remembers the module.
func withModule(m **offline.Module) option {
	return func(_ *host, o *offline.Module) { *m = o }
}

// sent routes a message on its sender's connection, which may have to wait; wait waits until it goes on.
func (h *host) sent(s *xmpp.Stanza) (wait func()) {
	var b xmpp.Batch
	ctx := xmpp.WithBatch(context.Background(), &b)
	h.Route(ctx, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.End(ctx)
	}()
	return func() { <-done }
}

// What a session that ends sends back is not overtaken, neither on the way to another session nor in the spool.
func TestNewMessagesGoBehindThoseThatComeBack(t *testing.T) {
	for _, other := range []bool{true, false} {
		var m *offline.Module
		h := newHost(t, nil, withModule(&m))
		a := h.bind(juliet, "a", func(c *client) { c.slow = true })
		a.presence()
		h.sendNumbers(0, 2)
		var b *client
		if other {
			b = h.bind(juliet, "b")
			b.presence()
		}
		done, second := m.Returning(juliet), m.Returning(juliet)
		h.Remove(a.Session)
		waits := []func(){h.sent(text("2")), h.sent(text("3"))}
		if !other && h.spooled() != 0 {
			t.Error("a message has overtaken those that come back")
		}
		a.cut()
		done()
		waits = append(waits, h.sent(text("4")))
		if b != nil {
			check(t, "while another one sends back", b.messages(), numbers(0, 2))
		}
		second()
		second() // does nothing
		for _, w := range waits {
			w()
		}
		h.send(text("5"))
		if b == nil {
			if n := h.spooled(); n != 6 {
				t.Errorf("%d messages in the spool", n)
			}
			b = h.bind(juliet, "b")
			b.presence()
		}
		check(t, "messages", b.messages(), numbers(0, 6))
	}
}

// What nobody stores is bounded while it waits; what has to arrive keeps its sender waiting instead.
func TestMessagesBehindThoseThatComeBackAreBounded(t *testing.T) {
	var m *offline.Module
	h := newHost(t, nil, withModule(&m))
	sender := h.bind(romeo.Bare(), "orchard")
	c := h.bind(juliet, "balcony")
	c.presence()
	done := m.Returning(juliet)
	const size = 32 << 10
	for range 2 * offline.MaxHeld / size {
		sender.handle(xmpp.New(xmpp.Message, "groupchat", c.JID(), romeo, xmpp.El("", "body").Say(strings.Repeat(".", size))))
	}
	refused := len(sender.errors())
	if refused < offline.MaxHeld/size {
		t.Errorf("%d errors", refused)
	}
	wait := h.sent(text("0"))
	check(t, "before", c.messages(), nil)
	done()
	wait()
	if got := c.messages(); len(got) != 2*offline.MaxHeld/size-refused+1 || got[len(got)-1] != "0" {
		t.Errorf("%d messages", len(got))
	}
}

// A session that receives its spool while another one sends back.
func TestSpoolIsDeliveredWhileMessagesComeBack(t *testing.T) {
	var m *offline.Module
	h := newHost(t, nil, withModule(&m))
	c, end := h.beginSlow("balcony", 3)
	done := m.Returning(juliet)
	wait := h.sent(text("3"))
	end()
	check(t, "the spool", c.messages(), numbers(0, 3))
	done()
	wait()
	check(t, "then", c.messages(), numbers(0, 4))
}

// Copies for a session (XEP-0280) go the way of its messages: behind those that come back and behind its spool, and never into it.
func TestCopiesGoBehindOlderMessages(t *testing.T) {
	var m *offline.Module
	h := newHost(t, nil, withModule(&m))
	forward := func(body string) *xmpp.Stanza {
		return text(body).Forward("urn:xmpp:carbons:2", "sent").With(juliet, juliet)
	}
	all := func(c *client) (list []string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, s := range c.got {
			if o := s.Original(); o != nil {
				b, _ := o.Child("", "body")
				list = append(list, b.Text())
			} else if b, ok := s.Child("", "body"); ok {
				list = append(list, b.Text())
			}
		}
		return list
	}
	a := h.bind(juliet, "a")
	a.presence()
	done := m.Returning(juliet)
	wait := h.sent(text("0"))
	if !m.Behind(a.Session).Enqueue(t.Context(), forward("copy")) || len(all(a)) != 0 {
		t.Errorf("while a session sends back: %q", all(a))
	}
	done()
	wait()
	h.send(text("1"))
	check(t, "messages", all(a), []string{"0", "copy", "1"})
	a.cut()

	b, end := h.beginSlow("b", 120)
	if !m.Behind(b.Session).Enqueue(t.Context(), forward("copy")) {
		t.Error("not taken")
	}
	end()
	check(t, "messages", all(b), append(numbers(0, 120), "copy"))
	if n := h.spooled(); n != 0 {
		t.Errorf("%d messages in the spool", n)
	}
}

// archived keeps a message to juliet in her archive, as it is before a session gets it.
func (h *host) archived(body string) *xmpp.Stanza {
	h.t.Helper()
	s := text(body)
	k := h.db.AppendMessage(h.t.Context(), mam.Item{Owner: juliet, Peer: romeo, Stanza: s, Stamp: h.Now(), Archived: true, Spool: true})
	if err := k.Commit.Wait(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	return s.Kept(k.Order, k.Order)
}

// A session that is replaced by one with its resource sends back what its client has not got when the new one is available already: the new client
// gets it once.
func TestReplacedSessionSendsBack(t *testing.T) {
	var m *offline.Module
	h := newHost(t, nil, withModule(&m))
	before := h.bind(juliet, "phone", func(c *client) { c.slow = true })
	before.presence()
	s := h.archived("1")
	h.send(s)
	if err := m.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
	now := h.bind(juliet, "phone")
	now.presence()
	h.Redeliver(t.Context(), juliet, s)
	if len(now.got) != 1 {
		t.Errorf("the client gets it %d times", len(now.got))
	}
}
