package c2s

import (
	"balcony/xmpp"
)

// smQueue is what was sent to a client and not acknowledged yet (XEP-0198 §4), as a pure structure. Counters are modulo 2^32, as §4 says.
type smQueue struct {
	items []*xmpp.Stanza // in the order of sending
	bytes int
	acked uint32 // how many the client has acknowledged: the h of the stanza before items[0]
}

// push adds a stanza that is about to be sent.
func (q *smQueue) push(s *xmpp.Stanza) {
	q.items = append(q.items, s)
	q.bytes += s.Size()
}

// sent is how many stanzas were sent.
func (q *smQueue) sent() uint32 { return q.acked + uint32(len(q.items)) }

// ack forgets what the client says it has handled. ok is false, and nothing is forgotten, when h is more than was sent, or less than it
// said before (which looks the same modulo 2^32).
func (q *smQueue) ack(h uint32) (ok bool) {
	n := int(h - q.acked)
	if n > len(q.items) {
		return false
	}
	for i, s := range q.items[:n] {
		q.bytes -= s.Size()
		q.items[i] = nil
	}
	q.items = q.items[n:]
	q.acked = h
	if len(q.items) == 0 {
		q.items = nil // an idle session holds nothing
	}
	return true
}
