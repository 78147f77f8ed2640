package blocking

import (
	"container/list"
	"sync"

	"mellium.im/xmpp/jid"
)

// blockList is an account's block list as stanzas are compared with it. It does not change.
type blockList struct {
	entries []jid.JID // in the order of blocking
	set     map[string]struct{}
	size    int // about the bytes it takes in memory
}

func newList(entries []jid.JID) *blockList {
	l := &blockList{entries: entries, size: 200} // chosen: a list with its place in the cache
	if len(entries) == 0 {
		return l
	}
	l.set = make(map[string]struct{}, len(entries))
	for _, e := range entries {
		key := e.String()
		l.set[key] = struct{}{}
		l.size += 2*len(key) + 100 // chosen: the JID twice, and its share of slice and map
	}
	return l
}

func (l *blockList) has(entry jid.JID) bool {
	_, ok := l.set[entry.String()]
	return ok
}

// without are the entries that other does not have.
func (l *blockList) without(other *blockList) (list []jid.JID) {
	for _, e := range l.entries {
		if !other.has(e) {
			list = append(list, e)
		}
	}
	return list
}

// blocks reports whether an entry matches peer: XEP-0191 §6.
func (l *blockList) blocks(peer jid.JID) bool {
	if len(l.set) == 0 {
		return false
	}
	return l.has(peer) || // user@domain/resource and domain/resource: only that resource
		l.has(peer.Bare()) || // user@domain: any resource
		l.has(peer.Domain()) // domain: itself, any user and any resource
}

// cache keeps the block lists that were used last, up to max bytes. Its methods may be called from any goroutine.
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
	list    *blockList
}

func newCache(max int) *cache {
	return &cache{max: max, lists: make(map[string]*list.Element), order: list.New()}
}

// get returns the list, nil when it is not there, and the generation to put it with.
func (c *cache) get(account string) (*blockList, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.lists[account]
	if e == nil {
		return nil, c.gen
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).list, c.gen
}

// put keeps a list that was read from the database after get returned gen.
func (c *cache) put(account string, l *blockList, gen int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if gen != c.gen || c.lists[account] != nil {
		return
	}
	c.lists[account] = c.order.PushFront(&cached{account, l})
	c.size += l.size
	for c.size > c.max && c.order.Len() > 0 {
		c.remove(c.order.Back())
	}
}

// drop forgets a list that changes.
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
	c.size -= v.list.size
}
