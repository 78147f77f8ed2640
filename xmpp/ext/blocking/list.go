package blocking

import "mellium.im/xmpp/jid"

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
