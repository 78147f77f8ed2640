package push

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestEchoesAreBounded(t *testing.T) {
	var e echoes
	for i := range uint64(3 * maxEchoes) {
		e.add(i)
		e.add(i)
	}
	if len(e.set) != maxEchoes || len(e.ring) != maxEchoes {
		t.Errorf("%d and %d keys", len(e.set), len(e.ring))
	}
	for i, want := range map[uint64]bool{0: false, 2*maxEchoes - 1: false, 2 * maxEchoes: true, 3*maxEchoes - 1: true} {
		if e.has(i) != want {
			t.Errorf("key %d: %t", i, !want)
		}
	}
}

// A device that hears the same message twice is told once, as long as it is among the last ones.
func TestDeviceRemembersWhatItWasTold(t *testing.T) {
	var d device
	for range 2 {
		for i := range uint64(len(d.seen)) {
			d.tell(news{priority: high, message: true, key: i + 1})
		}
	}
	if d.count != len(d.seen) {
		t.Errorf("count %d", d.count)
	}
	for range 3 {
		d.tell(news{priority: high, message: true}) // without an id
	}
	if d.count != len(d.seen)+3 {
		t.Errorf("count %d", d.count)
	}
}

// The schedule gives the device first that is due first, whatever changes.
func TestScheduleModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := schedule{}
		devices := make([]*device, 8)
		for i := range devices {
			devices[i] = &device{node: fmt.Sprint(i), index: -1}
		}
		t.Repeat(map[string]func(*rapid.T){
			"change": func(t *rapid.T) {
				d := devices[rapid.IntRange(0, len(devices)-1).Draw(t, "device")]
				d.priority = rapid.SampledFrom([]priority{none, normal, high, call}).Draw(t, "priority")
				d.inFlight = rapid.Bool().Draw(t, "in flight")
				d.notBefore = d.notBefore.Add(time.Duration(rapid.IntRange(-9, 9).Draw(t, "seconds")) * time.Second)
				s.update(d)
			},
			"": func(t *rapid.T) {
				n := 0
				for _, d := range devices {
					waiting := d.priority != none && !d.inFlight
					if waiting != (d.index >= 0) {
						t.Fatalf("device %s: waits %t, index %d", d.node, waiting, d.index)
					}
					if !waiting {
						continue
					}
					n++
					if s.list[d.index] != d {
						t.Fatalf("device %s is not at its index", d.node)
					}
					if at, ok := s.next(); !ok || at.After(d.due(s.window)) {
						t.Fatalf("device %s is due before the first one", d.node)
					}
				}
				if n != s.Len() {
					t.Fatalf("%d devices, want %d", s.Len(), n)
				}
			},
		})
	})
}
