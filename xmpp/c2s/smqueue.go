package c2s

import (
	"time"

	"balcony/xmpp"
)

// smQueue is what was sent to a client and not acknowledged yet (XEP-0198 §4), as a pure structure. Counters are modulo 2^32, as §4 says.
type smQueue struct {
	items []*xmpp.Stanza // in the order of sending
	times []time.Time    // when each was to be sent first
	bytes int
	got   func(*xmpp.Stanza) // hears of each that is acknowledged; nil: nobody
	acked uint32             // how many the client has acknowledged: the h of the stanza before items[0]
}

// push adds a stanza that is about to be sent, now for the first time.
func (q *smQueue) push(s *xmpp.Stanza, now time.Time) {
	q.items, q.times = append(q.items, s), append(q.times, now)
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
		if q.got != nil {
			q.got(s)
		}
	}
	q.items, q.times = q.items[n:], q.times[n:]
	q.acked = h
	if len(q.items) == 0 {
		q.items, q.times = nil, nil // an idle session holds nothing
	}
	return true
}

// behind reports whether h is less than the client said before: what it has not got since then cannot be told.
func (q *smQueue) behind(h uint32) bool { return int32(h-q.acked) < 0 }

// take empties the queue.
func (q *smQueue) take() (items []*xmpp.Stanza, times []time.Time) {
	items, times = q.items, q.times
	q.items, q.times, q.bytes = nil, nil, 0
	return items, times
}

// lateBy is from when on a message that is sent again says when it was sent first. chosen: people do not notice less on a clock that shows
// minutes.
const lateBy = 10 * time.Second

// delayed is s as it is sent again, with its first time where that matters and nothing tells it yet: XEP-0198 §4, XEP-0203 §2.
func delayed(s *xmpp.Stanza, at, now time.Time, domain string) *xmpp.Stanza {
	if s.Kind != xmpp.Message || now.Sub(at) < lateBy || s.Has(xmpp.NSDelay, "delay") {
		return s
	}
	return s.Append(xmpp.El(xmpp.NSDelay, "delay", "from", domain, "stamp", at.UTC().Format("2006-01-02T15:04:05.000Z"))) // XEP-0082 §3.2
}
