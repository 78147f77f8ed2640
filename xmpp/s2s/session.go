package s2s

import (
	"slices"
	"sync"
	"time"
)

// Management bounds stream management (XEP-0198) with one peer.
type Management struct {
	// Stanzas is how many stanzas may wait for the peer's acknowledgement before the others wait behind them.
	Stanzas int
	// Bytes is how large they may be altogether.
	Bytes int
	// Resumption is how long a lost stream waits for the peer that opened it. 0: it does not.
	Resumption time.Duration
}

// session is the state of stream management of a stream. It outlives the connection when the stream can be resumed.
type session struct {
	// Static once the stream is managed.
	id     string // SM-ID; empty when it cannot be resumed
	max    time.Duration
	domain pair // for whom the stream authenticated; whoever resumes it has to be the same

	mu sync.Mutex
	// Guarded by mu.
	confirmed bool   // both sides count; false between <enable/> and its answer
	in        uint32 // stanzas of the peer that were handled: everything that they must leave behind is durable
	unacked   []*item
	bytes     int
	acked     uint32 // the h of the stanza before unacked[0]
	asked     bool   // an <r/> is under way
	askedAt   time.Time
	conn      *conn     // nil while it waits
	expires   time.Time // while it waits
	over      bool      // it cannot be resumed any more
}

// push notes a stanza that is about to be sent. It is called with mu held.
func (s *session) push(it *item) {
	s.unacked = append(s.unacked, it)
	s.bytes += it.stanza.Size()
}

// ack takes off what the peer says it has handled; false when that is more than was sent, or less than before, which looks the same modulo 2^32
// (XEP-0198 §4). It is called with mu held.
func (s *session) ack(h uint32) (had []*item, ok bool) {
	n := int(h - s.acked)
	if n > len(s.unacked) {
		return nil, false
	}
	had = slices.Clone(s.unacked[:n])
	clear(s.unacked[:n])
	for _, it := range had {
		s.bytes -= it.stanza.Size()
	}
	if s.unacked = s.unacked[n:]; len(s.unacked) == 0 {
		s.unacked = nil
	}
	s.acked = h
	return had, true
}

// behind reports whether h is less than the peer said before: XEP-0198 §4, only more than before says anything. It is called with mu held.
func (s *session) behind(h uint32) bool { return int32(h-s.acked) < 0 }

// sent is how many stanzas were sent. It is called with mu held.
func (s *session) sent() uint32 { return s.acked + uint32(len(s.unacked)) }

// full reports whether further stanzas have to wait for acknowledgements.
func (s *session) full(m *Management) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.unacked) >= m.Stanzas || s.bytes >= m.Bytes
}

// take ends the session and returns what the peer has not acknowledged.
func (s *session) take() []*item {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.unacked
	s.unacked, s.bytes, s.over = nil, 0, true
	return left
}
