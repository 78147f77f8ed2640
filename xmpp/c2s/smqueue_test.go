package c2s

import (
	"math"
	"strings"
	"testing"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"pgregory.net/rapid"
)

// The queue against a list: whatever is sent and acknowledged, what is left is what was sent and not acknowledged, in order; across the
// wrap of the counter too (XEP-0198 §4).
func TestSMQueueModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := &smQueue{acked: rapid.SampledFrom([]uint32{0, 5, math.MaxUint32 - 3}).Draw(t, "start")}
		sent, acked := q.acked, q.acked // modulo 2^32
		var model []string
		var numbers []int
		n := 0
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				s := message(n)
				n++
				q.push(s, time.Unix(int64(n), 0))
				model, numbers = append(model, s.ID), append(numbers, n)
				sent++
			},
			"ack": func(t *rapid.T) {
				k := rapid.IntRange(0, len(model)).Draw(t, "k")
				if !q.ack(acked + uint32(k)) {
					t.Fatalf("h=%d refused with %d sent", acked+uint32(k), sent)
				}
				acked += uint32(k)
				model, numbers = model[k:], numbers[k:]
			},
			"too high": func(t *rapid.T) {
				if q.ack(sent + rapid.Uint32Range(1, 1000).Draw(t, "over")) {
					t.Fatal("more than was sent is accepted")
				}
			},
			"": func(t *rapid.T) {
				if q.sent() != sent || q.acked != acked || len(q.items) != len(model) || len(q.times) != len(model) {
					t.Fatalf("sent %d acked %d left %d, want %d %d %d", q.sent(), q.acked, len(q.items), sent, acked, len(model))
				}
				size := 0
				for i, s := range q.items {
					if want := time.Unix(int64(numbers[i]), 0); !q.times[i].Equal(want) {
						t.Fatalf("place %d is of %s, want %s", i, q.times[i], want)
					}
					if s.ID != model[i] {
						t.Fatalf("place %d has %s, want %s", i, s.ID, model[i])
					}
					size += s.Size()
				}
				if q.bytes != size {
					t.Fatalf("%d bytes, want %d", q.bytes, size)
				}
			},
		})
	})
}

func TestSMQueueLowerH(t *testing.T) {
	q := &smQueue{}
	for n := range 5 {
		q.push(message(n), time.Now())
	}
	for _, c := range []struct {
		h    uint32
		ok   bool
		left int
	}{{3, true, 2}, {3, true, 2}, {2, false, 2}, {6, false, 2}, {5, true, 0}, {5, true, 0}, {6, false, 0}} {
		if ok := q.ack(c.h); ok != c.ok || len(q.items) != c.left {
			t.Errorf("ack(%d) = %v with %d left, want %v and %d", c.h, ok, len(q.items), c.ok, c.left)
		}
	}
}

// The counters are 32 bits wide: XEP-0198 §4, "reset from 2^32-1 back to zero".
func TestSMQueueWraps(t *testing.T) {
	q := &smQueue{acked: math.MaxUint32 - 1}
	for n := range 4 {
		q.push(message(n), time.Now())
	}
	if q.sent() != 2 {
		t.Errorf("%d sent, want 2: 2^32-2 and four more", q.sent())
	}
	for _, c := range []struct {
		h    uint32
		ok   bool
		left int
	}{{3, false, 4}, {math.MaxUint32 - 2, false, 4}, {math.MaxUint32, true, 3}, {0, true, 2}, {math.MaxUint32, false, 2}, {3, false, 2}, {2, true, 0}} {
		if ok := q.ack(c.h); ok != c.ok || len(q.items) != c.left {
			t.Errorf("ack(%d) = %v with %d left, want %v and %d", c.h, ok, len(q.items), c.ok, c.left)
		}
	}
}

// XEP-0198 §4: what is sent again late says when it was sent first, unless it says so already.
func TestDelayed(t *testing.T) {
	at := time.Date(2026, 11, 25, 22, 0, 0, 123e6, time.UTC)
	plain := xmpp.New(xmpp.Message, "chat", jid.MustParse("juliet@localhost"), jid.MustParse("romeo@localhost/orchard"), xmpp.El("", "body").Say("hi"))
	stamped := plain.Append(xmpp.El(xmpp.NSDelay, "delay", "stamp", "2002-09-10T23:08:25Z"))
	presence := xmpp.New(xmpp.Presence, "", jid.JID{}, jid.MustParse("romeo@localhost/orchard"))
	for _, c := range []struct {
		s     *xmpp.Stanza
		after time.Duration
		late  bool
	}{{plain, 0, false}, {plain, lateBy - 1, false}, {plain, lateBy, true}, {plain, -time.Hour, false}, {stamped, time.Hour, false}, {presence, time.Hour, false}} {
		want := c.s.String()
		if c.late {
			want = strings.Replace(want, "</message>", "<delay xmlns='urn:xmpp:delay' from='localhost' stamp='2026-11-25T22:00:00.123Z'/></message>", 1)
		}
		if got := delayed(c.s, at, at.Add(c.after), "localhost").String(); got != want {
			t.Errorf("%s after %s: got %s", c.s, c.after, got)
		}
	}
}
