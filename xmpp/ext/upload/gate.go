package upload

import "sync"

// gate bounds what goes on at the same time: in total and for each key.
type gate struct {
	total, each int

	mu sync.Mutex
	// Guarded by mu.
	n  int
	by map[string]int // keys with something going on
}

func newGate(total, each int) *gate {
	return &gate{total: total, each: each, by: make(map[string]int)}
}

// enter reports whether one more may go on; leave follows then. The empty key is bounded in total only.
func (g *gate) enter(key string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n >= g.total || key != "" && g.by[key] >= g.each {
		return false
	}
	g.n++
	if key != "" {
		g.by[key]++
	}
	return true
}

func (g *gate) leave(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n--
	if key == "" {
		return
	}
	if g.by[key]--; g.by[key] <= 0 {
		delete(g.by, key)
	}
}
