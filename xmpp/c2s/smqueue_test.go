package c2s

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// The queue against a list: whatever is sent and acknowledged, what is left is what was sent and not acknowledged, in order; across the
// wrap of the counter too (XEP-0198 §4).
func TestSMQueueModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := &smQueue{acked: rapid.SampledFrom([]uint32{0, 5, math.MaxUint32 - 3}).Draw(t, "start")}
		sent, acked := q.acked, q.acked // modulo 2^32
		var model []string
		n := 0
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				s := message(n)
				n++
				q.push(s)
				model = append(model, s.ID)
				sent++
			},
			"ack": func(t *rapid.T) {
				k := rapid.IntRange(0, len(model)).Draw(t, "k")
				if !q.ack(acked + uint32(k)) {
					t.Fatalf("h=%d refused with %d sent", acked+uint32(k), sent)
				}
				acked += uint32(k)
				model = model[k:]
			},
			"too high": func(t *rapid.T) {
				if q.ack(sent + rapid.Uint32Range(1, 1000).Draw(t, "over")) {
					t.Fatal("more than was sent is accepted")
				}
			},
			"": func(t *rapid.T) {
				if q.sent() != sent || q.acked != acked || len(q.items) != len(model) {
					t.Fatalf("sent %d acked %d left %d, want %d %d %d", q.sent(), q.acked, len(q.items), sent, acked, len(model))
				}
				size := 0
				for i, s := range q.items {
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
		q.push(message(n))
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
