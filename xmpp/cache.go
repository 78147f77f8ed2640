package xmpp

import (
	"container/list"
	"strings"
	"sync"
)

// Cache keeps in memory what was read from a database, by account or another key, up to a bound: what was used last stays. Its methods may be called
// from any goroutine. Nothing stale is kept: whoever changes what stands in the database calls Drop after the change, also after an error, which may
// have come after the commit.
type Cache[V any] struct {
	max int // static

	mu sync.Mutex
	// Guarded by mu.
	of    map[string]*list.Element // of *cached[V]
	order *list.List               // the one used last in front
	size  int
	gen   int // grows with every Drop: what was read before one is not kept after it
}

type cached[V any] struct {
	key   string
	value V
	size  int
}

// NewCache makes a cache for entries whose sizes are max together.
func NewCache[V any](max int) *Cache[V] {
	return &Cache[V]{max: max, of: make(map[string]*list.Element), order: list.New()}
}

// Get returns what is kept under key, which is not to be changed. gen is for Put.
func (c *Cache[V]) Get(key string) (v V, ok bool, gen int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.of[key]
	if e == nil {
		return v, false, c.gen
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached[V]).value, true, c.gen
}

// Put keeps what was read after Get returned gen, unless something was dropped since. size is what it takes in the units of the bound.
func (c *Cache[V]) Put(key string, v V, size, gen int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if gen != c.gen || c.of[key] != nil {
		return
	}
	c.of[key] = c.order.PushFront(&cached[V]{key, v, size})
	c.size += size
	for c.size > c.max && c.order.Len() > 0 {
		c.remove(c.order.Back())
	}
}

// Drop forgets what changes.
func (c *Cache[V]) Drop(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen++
	if e := c.of[key]; e != nil {
		c.remove(e)
	}
}

// DropAll is Drop for all keys that begin with prefix.
func (c *Cache[V]) DropAll(prefix string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen++
	for key, e := range c.of {
		if strings.HasPrefix(key, prefix) {
			c.remove(e)
		}
	}
}

// Change is Drop for a change whose outcome is known: what is kept under key becomes f of it, and takes as much as before.
func (c *Cache[V]) Change(key string, f func(V) V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen++
	if e := c.of[key]; e != nil {
		v := e.Value.(*cached[V])
		v.value = f(v.value)
	}
}

// remove is called with mu held.
func (c *Cache[V]) remove(e *list.Element) {
	v := c.order.Remove(e).(*cached[V])
	delete(c.of, v.key)
	c.size -= v.size
}
