package xmpp

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// A cache never has more than it may, never returns what was dropped after it was read, and what it returns is what was put last.
func TestCacheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := NewCache[int64](4000)
		stored := map[string]int64{} // the database
		account := rapid.SampledFrom([]string{"a@x", "b@x", "c@x", "d@x", "e@x"})
		type read struct {
			account string
			id      int64
			gen     int
		}
		var reads []read // by goroutines that have not put yet
		var next int64
		t.Repeat(map[string]func(*rapid.T){
			"change": func(t *rapid.T) {
				a := account.Draw(t, "account")
				next++
				stored[a] = next
				c.Drop(a)
			},
			"known change": func(t *rapid.T) {
				a := account.Draw(t, "account")
				stored[a]++
				c.Change(a, func(id int64) int64 { return id + 1 })
			},
			"read": func(t *rapid.T) {
				a := account.Draw(t, "account")
				id, known, gen := c.Get(a)
				if !known {
					reads = append(reads, read{a, stored[a], gen})
				} else if id != stored[a] {
					t.Fatalf("%s: %d in the cache, %d in the database", a, id, stored[a])
				}
			},
			"put": func(t *rapid.T) {
				if len(reads) == 0 {
					return
				}
				i := rapid.IntRange(0, len(reads)-1).Draw(t, "read")
				r := reads[i]
				reads = append(reads[:i], reads[i+1:]...)
				c.Put(r.account, r.id, rapid.SampledFrom([]int{1, 500, 1000, 5000}).Draw(t, "size"), r.gen)
			},
			"": func(t *rapid.T) {
				size := 0
				for e := c.order.Front(); e != nil; e = e.Next() {
					size += e.Value.(*cached[int64]).size
				}
				if size != c.size || size > c.max || len(c.of) != c.order.Len() {
					t.Fatalf("size %d of %d, counted as %d; %d entries of %d", size, c.max, c.size, len(c.of), c.order.Len())
				}
			},
		})
	})
}

// BenchmarkCacheGet is what a look into a cache costs every stanza, from one goroutine and, with -cpu, from some at once.
func BenchmarkCacheGet(b *testing.B) {
	c := NewCache[int](1 << 20)
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprint("user", i, "@example.org")
		c.Put(keys[i], i, 1, 0)
	}
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			c.Get(keys[i%len(keys)])
		}
	})
}

// DropAll forgets what begins with the prefix and nothing else, and what was read before it is not kept.
func TestCacheDropAll(t *testing.T) {
	c := NewCache[int](10)
	for i, key := range []string{"a/1", "a/2", "ab/1"} {
		_, _, gen := c.Get(key)
		c.Put(key, i, 1, gen)
	}
	_, _, gen := c.Get("a/3")
	c.DropAll("a/")
	c.Put("a/3", 3, 1, gen)
	for key, want := range map[string]bool{"a/1": false, "a/2": false, "a/3": false, "ab/1": true} {
		if _, ok, _ := c.Get(key); ok != want {
			t.Errorf("%s: kept %v, want %v", key, ok, want)
		}
	}
}
