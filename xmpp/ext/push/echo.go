package push

import (
	"context"
	"sync"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// outgoing remembers what is sent to rooms: the rooms send it back to every device of the account.
func (m *Module) outgoing(_ context.Context, o *xmpp.Outgoing) error {
	s := o.Stanza
	if s.Kind == xmpp.Message && s.ID != "" && s.MessageType() == stanza.GroupChatMessage {
		m.echoes.add(m.echoKey(o.Sender.JID().Bare(), s.To, s.ID))
	}
	return nil
}

// echoKey is of a message of an account in a room; XEP-0045 §7.4: the room keeps its id.
func (m *Module) echoKey(account, room jid.JID, id string) uint64 {
	return m.key(account, room.Bare().String()+"\x00"+id)
}

const maxEchoes = 4096 // chosen: seconds' worth on a busy server; a room answers in less

// echoes remembers the last maxEchoes keys. The zero value is ready.
type echoes struct {
	mu sync.Mutex
	// Guarded by mu.
	set  map[uint64]struct{}
	ring []uint64
	next int
}

func (e *echoes) add(key uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.set == nil {
		e.set = make(map[uint64]struct{})
	}
	if _, ok := e.set[key]; ok {
		return
	}
	if len(e.ring) < maxEchoes {
		e.ring = append(e.ring, key)
	} else {
		delete(e.set, e.ring[e.next])
		e.ring[e.next] = key
		e.next = (e.next + 1) % maxEchoes
	}
	e.set[key] = struct{}{}
}

func (e *echoes) has(key uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.set[key]
	return ok
}
