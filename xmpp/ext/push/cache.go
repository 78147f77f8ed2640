package push

import (
	"container/list"
	"context"
	"fmt"
	"sync"

	"mellium.im/xmpp/jid"
)

const maxCache = 16 << 20 // bytes. chosen: more than 30,000 accounts with a device or two

// registrations are those of an account, from memory if they were used lately.
func (m *Module) registrations(ctx context.Context, account jid.JID) ([]Registration, error) {
	key := account.String()
	list, known, gen := m.cache.get(key)
	if known {
		return list, nil
	}
	list, err := m.store.PushRegistrations(ctx, account)
	if err != nil {
		return nil, fmt.Errorf("load push registrations of %s: %w", key, err)
	}
	m.cache.put(key, list, gen)
	return list, nil
}

// surelyNot reports without a look into the database that a device has no registration.
func (m *Module) surelyNot(account, resource string) bool {
	list, known, _ := m.cache.get(account)
	for _, r := range list {
		if r.Resource == resource || resource == "" {
			return false
		}
	}
	return known
}

// cache keeps the registrations that were used last, up to max bytes. Its methods may be called from any goroutine.
type cache struct {
	mu    sync.Mutex
	max   int
	size  int
	lists map[string]*list.Element // of *cached, by bare JID
	order *list.List               // the one used last in front
	gen   int                      // grows with every drop: what was read from the database before one is not kept after it
}

type cached struct {
	account string
	list    []Registration // not changed
	size    int
}

func newCache(max int) *cache {
	return &cache{max: max, lists: make(map[string]*list.Element), order: list.New()}
}

// get returns the registrations; known is false when they are not there. gen is what to put them with.
func (c *cache) get(account string) (all []Registration, known bool, gen int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.lists[account]
	if e == nil {
		return nil, false, c.gen
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).list, true, c.gen
}

// put keeps what was read from the database after get returned gen.
func (c *cache) put(account string, all []Registration, gen int) {
	size := len(account) + 200 // chosen: an entry with its places in list and map
	for _, r := range all {
		size += len(r.Node) + len(r.Resource) + len(r.Options) + len(r.Service.String()) + 200
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if gen != c.gen || c.lists[account] != nil {
		return
	}
	c.lists[account] = c.order.PushFront(&cached{account, all, size})
	c.size += size
	for c.size > c.max && c.order.Len() > 0 {
		c.remove(c.order.Back())
	}
}

// drop forgets what changes.
func (c *cache) drop(account string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen++
	if e := c.lists[account]; e != nil {
		c.remove(e)
	}
}

// remove is called with mu held.
func (c *cache) remove(e *list.Element) {
	v := c.order.Remove(e).(*cached)
	delete(c.lists, v.account)
	c.size -= v.size
}
