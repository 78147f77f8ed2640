package carbons

import (
	"hash/maphash"
	"sync"

	"mellium.im/xmpp/jid"
)

// direction is which way a message went, as the copies say it.
type direction string

const (
	sent     direction = "sent"
	received direction = "received"
)

// key tells the messages of an account apart.
func (m *Module) key(account, peer jid.JID, id string, d direction) uint64 {
	var h maphash.Hash
	h.SetSeed(m.seed)
	for _, part := range [...]string{account.Localpart(), account.Domainpart(), peer.Localpart(), peer.Domainpart(), id, string(d)} {
		_, _ = h.WriteString(part) // never fails
		_ = h.WriteByte(0)
	}
	return h.Sum64()
}

const maxMemory = 1 << 15 // chosen: about 1 MB; an error answers within seconds

// memory remembers the last maxMemory keys. The zero value is ready.
type memory struct {
	mu sync.Mutex
	// Guarded by mu.
	set  map[uint64]struct{}
	ring []uint64
	next int
}

func (m *memory) add(key uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.set == nil {
		m.set = make(map[uint64]struct{})
	}
	if _, ok := m.set[key]; ok {
		return
	}
	if len(m.ring) < maxMemory {
		m.ring = append(m.ring, key)
	} else {
		delete(m.set, m.ring[m.next])
		m.ring[m.next] = key
		m.next = (m.next + 1) % maxMemory
	}
	m.set[key] = struct{}{}
}

func (m *memory) has(key uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.set[key]
	return ok
}
