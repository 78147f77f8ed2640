package push_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/ext/push"
)

// push5 is the window of the default configuration.
const push5 = 5 * time.Second

// answerTime is how long the router waits for answers.
const answerTime = 30 * time.Second

// latest is the end of the n-th wait after a failure.
func latest(n int) time.Duration {
	d := min(push.FirstRetry<<(n-1), push.LastRetry)
	return d + d/4
}

// XEP-0357 §7.1: which errors disable a service at once.
func TestErrorsOfThePushService(t *testing.T) {
	for _, tt := range []struct {
		typ, condition string
		removed        bool
	}{
		{"cancel", "item-not-found", true},
		{"auth", "not-authorized", true},
		{"auth", "forbidden", true},
		{"cancel", "gone", true},
		{"modify", "gone", true},
		{"cancel", "conflict", true}, // XEP-0060: precondition-not-met
		{"cancel", "not-allowed", true},
		{"modify", "not-acceptable", true},
		{"cancel", "policy-violation", true},
		{"auth", "registration-required", true},
		{"auth", "subscription-required", true},
		{"cancel", "feature-not-implemented", true},
		{"modify", "jid-malformed", true},
		{"wait", "item-not-found", false},
		{"wait", "resource-constraint", false},
		{"wait", "policy-violation", false},
		{"wait", "internal-server-error", false},
		{"cancel", "internal-server-error", false},
		{"cancel", "service-unavailable", false},
		{"cancel", "remote-server-not-found", false},
		{"wait", "remote-server-timeout", false},
		{"wait", "recipient-unavailable", false},
		{"modify", "bad-request", false},
		{"cancel", "undefined-condition", false},
		{"cancel", "unheard-of", false},
	} {
		run(t, func(h *host) {
			h.register("mobile")
			h.services(failing(tt.typ, tt.condition))
			h.message("1")
			h.count("a message", h.now(), 1)
			if removed := h.registrations() == 0; removed != tt.removed {
				t.Errorf("%s %s: removed %t", tt.typ, tt.condition, removed)
			}
			h.services(func(s *xmpp.Stanza) *xmpp.Stanza { return s.Result(nil) })
			again := h.after(latest(1))
			if tt.removed {
				h.count("retries", again, 0)
				h.message("2")
				h.count("after the removal", h.now(), 0)
				return
			}
			h.count("retries", again, 1)
			same(t, again[0], notified(1, "", ""))
			h.count("after success", h.after(time.Hour), 0)
		})
	}
}

// An error that is none, and an answer that is somebody else's.
func TestOddAnswers(t *testing.T) {
	for name, answer := range map[string]func(*xmpp.Stanza) *xmpp.Stanza{
		"no condition": func(s *xmpp.Stanza) *xmpp.Stanza {
			r := xmpp.New(xmpp.IQ, "error", s.From, s.To, xmpp.El("", "error", "type", "cancel"))
			r.ID = s.ID
			return r
		},
		"no error": func(s *xmpp.Stanza) *xmpp.Stanza {
			r := xmpp.New(xmpp.IQ, "error", s.From, s.To)
			r.ID = s.ID
			return r
		},
		"condition of another namespace": func(s *xmpp.Stanza) *xmpp.Stanza {
			r := xmpp.New(xmpp.IQ, "error", s.From, s.To, xmpp.El("", "error", "type", "cancel").Add(xmpp.El("urn:x", "item-not-found")))
			r.ID = s.ID
			return r
		},
		"from another": func(s *xmpp.Stanza) *xmpp.Stanza {
			r := failing("cancel", "item-not-found")(s)
			return r.WithFrom(juliet)
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(h *host) {
				h.register("mobile")
				h.services(answer)
				h.message("1")
				h.count("a message", h.now(), 1)
				h.count("retries", h.after(answerTime+latest(1)), 1)
				if h.registrations() != 1 {
					t.Error("removed")
				}
			})
		})
	}
}

// The waits grow, messages in between do not shorten them, and after so many failures in a row the registration is removed.
func TestBackOffAndRemoval(t *testing.T) {
	for _, silence := range []bool{false, true} {
		run(t, func(h *host) {
			h.register("mobile")
			var at []time.Time
			h.services(func(s *xmpp.Stanza) *xmpp.Stanza {
				at = append(at, time.Now())
				if silence {
					return nil
				}
				return failing("wait", "resource-constraint")(s)
			})
			for i := range 10 * 24 * 6 { // ten days
				h.message(fmt.Sprint(i))
				h.after(10 * time.Minute)
			}
			if len(at) != 16 {
				t.Fatalf("%d notifications, want 16", len(at))
			}
			for n := 1; n < len(at); n++ {
				least, most := min(push.FirstRetry<<(n-1), push.LastRetry), latest(n)
				if silence {
					least, most = least+answerTime, most+answerTime
				}
				if d := at[n].Sub(at[n-1]); d < least || d > most {
					t.Errorf("wait after failure %d: %s, want %s to %s", n, d, least, most)
				}
			}
			if d := at[15].Sub(at[0]); d < 4*24*time.Hour {
				t.Errorf("a push service that is away for %s loses its registrations", d)
			}
			if h.registrations() != 0 {
				t.Error("not removed after 16 failures")
			}
		})
	}
}

func TestSuccessForgetsFailures(t *testing.T) {
	run(t, func(h *host) {
		h.register("mobile")
		for i := range 10 {
			h.services(failing("wait", "resource-constraint"))
			h.message(fmt.Sprint(i))
			h.count("a message", h.now(), 1)
			h.services(func(s *xmpp.Stanza) *xmpp.Stanza { return s.Result(nil) })
			h.count("its retry", h.after(latest(1)), 1)
			time.Sleep(push5)
		}
		if h.registrations() != 1 {
			t.Error("removed")
		}
	}, withBounds(func(b *push.Bounds) { b.Failures = 2 }))
}

// Whoever enables push anew does not wait for the failures of before, and keeps the registration when an answer to the old one comes.
func TestEnablingAnew(t *testing.T) {
	run(t, func(h *host) {
		h.register("mobile")
		h.services(failing("wait", "resource-constraint"))
		h.message("1")
		h.count("a message", h.now(), 1)
		h.services(func(s *xmpp.Stanza) *xmpp.Stanza { return s.Result(nil) })
		h.register("mobile")
		time.Sleep(push5)
		h.message("2")
		h.count("after enabling", h.now(), 1)

		var late *xmpp.Stanza
		h.services(func(s *xmpp.Stanza) *xmpp.Stanza { late = s; return nil })
		time.Sleep(push5)
		h.message("3")
		h.count("without an answer", h.now(), 1)
		h.register("mobile")
		h.Route(context.Background(), failing("cancel", "item-not-found")(late))
		h.count("the old one's error", h.now(), 0)
		if h.registrations() != 1 {
			t.Error("the new registration was removed")
		}
	})
}

// A client that comes back while its push service does not answer needs no retry.
func TestNoRetryForReturnedClient(t *testing.T) {
	run(t, func(h *host) {
		h.register("mobile")
		h.services(silent)
		h.message("1")
		h.count("a message", h.now(), 1)
		h.bind("mobile")
		h.count("retries", h.after(24*time.Hour), 0)
	})
}

// A call is not announced any more when it is over.
func TestRetriedCallIsAMessage(t *testing.T) {
	run(t, func(h *host) {
		h.register("mobile")
		h.services(failing("wait", "resource-constraint"))
		h.receive("<message type='chat' id='1' from='juliet@capulet.example/b' to='user@example.com'><propose xmlns='urn:xmpp:jingle-message:0' id='1'/></message>")
		h.count("a call", h.now(), 1)
		sent := h.after(latest(1))
		h.count("its retry", sent, 1)
		same(t, sent[0], notified(1, "", ""))
	})
}

// A service that does not answer does not keep those of others waiting.
func TestSilentServiceHoldsNobodyUp(t *testing.T) {
	request := func(jid, node string) string {
		return fmt.Sprintf("<iq type='set' id='1'><enable xmlns='urn:xmpp:push:0' jid='%s' node='%s'/></iq>", jid, node)
	}
	run(t, func(h *host) {
		h.register("mobile", request("silent.example", "a"), request("silent.example", "b"), request("x@silent.example/y", "c"), request("other.example", "d"))
		h.services(func(s *xmpp.Stanza) *xmpp.Stanza {
			if s.To.Domainpart() == "silent.example" {
				return nil
			}
			return s.Result(nil)
		})
		h.message("1")
		sent := h.now()
		h.count("a message", sent, 2) // one to each domain
		h.count("while the first waits", h.after(answerTime-time.Second), 0)
		h.count("when it gave up", h.after(3*time.Second), 1)
	}, withBounds(func(b *push.Bounds) { b.PerService = 1 }))
	run(t, func(h *host) {
		h.register("mobile", request("a.example", "a"), request("b.example", "b"), request("c.example", "c"))
		h.services(silent)
		h.message("1")
		h.count("a message", h.now(), 2)
		h.count("when they gave up", h.after(answerTime+2*time.Second), 1)
	}, withBounds(func(b *push.Bounds) { b.InFlight = 2 }))
}

// What is remembered is bounded: a device without news makes room, one with news does not.
func TestDeviceBound(t *testing.T) {
	run(t, func(h *host) {
		var clients []*client
		for _, r := range []string{"a", "b", "c"} {
			h.register(r, "<iq type='set' id='1'><enable xmlns='urn:xmpp:push:0' jid='p.example' node='"+r+"'/></iq>")
			clients = append(clients, h.bind(r))
		}
		notify := func(c int) {
			h.module.Notify(clients[c].Session, parse(t, "<message from='juliet@capulet.example'><body>x</body></message>"))
		}
		notify(0)
		notify(1)
		h.count("two devices", h.now(), 2)
		notify(2)
		h.count("a third in the place of the first", h.now(), 1)
		notify(1)
		notify(2)
		notify(0)
		h.count("both places taken", h.after(time.Minute), 2)
		notify(0)
		h.count("free again", h.after(time.Minute), 1)
	}, withBounds(func(b *push.Bounds) { b.Devices = 2 }))
}

// Notify and the filters never wait.
func TestQueueBound(t *testing.T) {
	run(t, func(h *host) {
		h.register("mobile")
		for i := range 10_000 {
			h.message(fmt.Sprint(i))
		}
		h.count("without Run", h.after(time.Hour), 0)
	}, func(s *setup) { s.noRun = true })
}

// Shutdown waits for nobody's answer, and removes nothing.
func TestShutdown(t *testing.T) {
	run(t, func(h *host) {
		h.register("mobile")
		h.services(silent)
		h.message("1")
		h.count("a message", h.now(), 1)
		start := time.Now()
		h.stop()
		if d := time.Since(start); d != 0 {
			t.Errorf("Run ended after %s", d)
		}
		if h.registrations() != 1 {
			t.Error("removed")
		}
	}, withBounds(func(b *push.Bounds) { b.Failures = 1 }))
}

// Everything at once, for the race detector.
func TestConcurrentUse(t *testing.T) {
	run(t, func(h *host) {
		h.register("mobile")
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for n := range 20 {
					h.message(fmt.Sprint(i, n))
					c := h.bind(fmt.Sprint("r", i))
					c.succeeds(enable)
					h.module.Notify(c.Session, parse(t, "<message from='juliet@capulet.example'><body>x</body></message>"))
					h.module.Returned(c.Session)
					h.module.Forget(user)
					c.sends("<message type='groupchat' id='1' to='room@muc.example'><body>x</body></message>")
					c.unbind()
				}
			})
		}
		wg.Wait()
		h.after(time.Minute)
	})
}
