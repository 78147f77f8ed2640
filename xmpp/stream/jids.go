package stream

import (
	"mellium.im/xmpp/jid"
)

// maxJID bounds an address in bytes before it is prepared (RFC 7622 §3.1: three parts of at most 1,023 bytes and two separators).
const maxJID = 3*1023 + 2

// jidCache keeps the addresses that were parsed last: a client writes to the same few, and parsing one costs more than finding it.
type jidCache struct {
	entries []cachedJID
	next    int            // the oldest, once the cache is full
	index   map[string]int // of entries, by raw; nil while they are few enough to look at all of them
}

type cachedJID struct {
	raw string
	jid jid.JID
}

// The size of a cache: chosen, the contacts of a few conversations at a time, in at most 4 KiB of addresses; and for a stream of many people the
// conversations of a few hundred, in at most 64 KiB.
const (
	maxCachedJIDs  = 16
	manyCachedJIDs = 256
	maxCachedBytes = 128
)

// ManyAddresses is for a stream that carries the stanzas of many people, such as that of a server: it remembers more of their addresses.
func (d *Decoder) ManyAddresses() {
	if d.jids.index != nil {
		return
	}
	d.jids.index = make(map[string]int)
	for i, e := range d.jids.entries {
		d.jids.index[e.raw] = i
	}
	d.jids.next = 0 // what follows is added behind them first
}

// parse is the JID in attribute a; false when there is none.
func (c *jidCache) parse(b []byte, a *attr) (jid.JID, bool) {
	raw := b[a.vlo:a.vhi]
	if a.cooked {
		raw = appendValue(nil, raw)
	}
	if c.index != nil {
		if i, ok := c.index[string(raw)]; ok {
			return c.entries[i].jid, true
		}
	} else {
		for i := range c.entries {
			if e := &c.entries[i]; e.raw == string(raw) {
				return e.jid, true
			}
		}
	}
	if len(raw) > maxJID {
		return jid.JID{}, false
	}
	j, err := jid.Parse(string(raw))
	if err != nil {
		return jid.JID{}, false
	}
	if len(raw) <= maxCachedBytes {
		c.add(cachedJID{string(raw), j})
	}
	return j, true
}

func (c *jidCache) add(e cachedJID) {
	most := maxCachedJIDs
	if c.index != nil {
		most = manyCachedJIDs
	}
	if len(c.entries) < most {
		if c.index != nil {
			c.index[e.raw] = len(c.entries)
		}
		c.entries = append(c.entries, e)
		return
	}
	if c.index != nil {
		delete(c.index, c.entries[c.next].raw)
		c.index[e.raw] = c.next
	}
	c.entries[c.next] = e
	c.next = (c.next + 1) % most
}
