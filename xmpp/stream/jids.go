package stream

import (
	"mellium.im/xmpp/jid"
)

// maxJID bounds an address in bytes before it is prepared (RFC 7622 §3.1: three parts of at most 1,023 bytes and two separators).
const maxJID = 3*1023 + 2

// jidCache keeps the addresses that were parsed last: a client writes to the same few, and parsing one costs more than finding it.
type jidCache struct {
	entries []cachedJID
	next    int // the oldest, once the cache is full
}

type cachedJID struct {
	raw string
	jid jid.JID
}

// The size of a cache: chosen, the contacts of a few conversations at a time, in at most 4 KiB of addresses.
const (
	maxCachedJIDs  = 16
	maxCachedBytes = 128
)

// parse is the JID in attribute a; false when there is none.
func (c *jidCache) parse(b []byte, a *attr) (jid.JID, bool) {
	raw := b[a.vlo:a.vhi]
	if a.cooked {
		raw = appendValue(nil, raw)
	}
	for i := range c.entries {
		if e := &c.entries[i]; e.raw == string(raw) {
			return e.jid, true
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
		e := cachedJID{string(raw), j}
		if len(c.entries) < maxCachedJIDs {
			c.entries = append(c.entries, e)
		} else {
			c.entries[c.next] = e
			c.next = (c.next + 1) % maxCachedJIDs
		}
	}
	return j, true
}
