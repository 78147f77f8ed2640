package offline_test

import (
	"context"
	"testing"

	"balcony/xmpp"
	"balcony/xmpp/ext/offline"
)

// restored brings a session back whose client is away, as the next process does.
func (h *host) restored(m *offline.Module, resource string, state map[string][]byte, queue ...*xmpp.Stanza) *client {
	h.t.Helper()
	c := &client{h: h, accept: -1, wake: make(chan struct{}), slow: true, away: true, queue: queue}
	s, err := h.Restore(h.t.Context(), juliet, resource, c, xmpp.New(xmpp.Presence, "", juliet, juliet), state)
	if err != nil {
		h.t.Fatal(err)
	}
	c.Session = s
	m.Restored(s, nil)
	return c
}

// back is its client's return.
func (c *client) back(m *offline.Module) {
	c.mu.Lock()
	c.slow, c.away = false, false
	c.mu.Unlock()
	c.read() // what the resumed stream begins with
	m.Returned(c.Session)
}

// RFC 6120 §10.1: the server ended before a session got all of its spool. What arrives for it in the next process goes behind that, whether the
// client comes back before or after the spool was looked into.
func TestWhatArrivesAfterARestartGoesBehindTheSpool(t *testing.T) {
	for name, late := range map[string]bool{"looked into first": false, "client first": true} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, nil)
			h.sendNumbers(0, 3)
			var m *offline.Module
			h = h.next(withModule(&m))
			c := h.restored(m, "balcony", nil)
			h.sendNumbers(3, 5)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			run := func() {
				go func() {
					defer close(done)
					m.Run(ctx)
				}()
			}
			if !late {
				run()
			}
			c.back(m)
			h.Eventually(func() bool { return len(c.messages()) == 5 && h.spooled() == 0 })
			if late {
				run()
			}
			h.sendNumbers(5, 7)
			h.Eventually(func() bool { return len(c.messages()) == 7 })
			cancel()
			<-done
			check(t, "messages", c.messages(), numbers(0, 7))
		})
	}
}

// Without anything in the spool a restored session gets what arrives at once, although its client is away.
func TestRestoredSessionWithoutASpool(t *testing.T) {
	var m *offline.Module
	h := newHost(t, nil, withModule(&m))
	c := h.restored(m, "balcony", nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Run(ctx)
	}()
	h.Eventually(func() bool { return !offline.Busy(m) })
	h.sendNumbers(0, 2)
	if n := h.spooled(); n != 0 {
		t.Errorf("%d messages in the spool", n)
	}
	c.read()
	check(t, "messages", c.messages(), numbers(0, 2))
	cancel()
	<-done
}

// What a session has in its queue from the spool, where it is as well until the client has it, comes once over a restart: to the client when it returns, or
// to another one when it does not.
func TestPortionOverARestart(t *testing.T) {
	for _, name := range []string{"it returns", "another is there first", "it does not return"} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, nil)
			n := offline.Page + 7
			h.sendNumbers(0, n)
			c := h.bind(juliet, "balcony", func(c *client) { c.slow, c.away = true, true })
			c.presence()
			state := h.Save(c.Session)
			h.Park(c.Session)
			var m *offline.Module
			h = h.next(withModule(&m))
			if name == "another is there first" {
				h.restored(m, "other", nil)
			}
			queue := c.queue
			c = h.restored(m, "balcony", state, queue...)
			if len(queue) != offline.Page {
				t.Fatalf("%d messages in its queue", len(queue))
			}
			if name == "it does not return" {
				other := h.bind(juliet, "tablet")
				c.cut()
				other.presence()
				c = other
			} else {
				c.back(m)
			}
			h.Eventually(func() bool { return h.spooled() == 0 })
			h.sendNumbers(n, n+1)
			h.Eventually(func() bool { return len(c.messages()) > n })
			check(t, "messages", c.messages(), numbers(0, n+1))
		})
	}
}
