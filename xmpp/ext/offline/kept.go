package offline

import (
	"sync"
	"time"

	"mellium.im/xmpp/jid"
)

// kept counts the copies of messages that a session has taken although the spool still has them: the session may end before it has
// written them, and then they come back as Delivery.Again.
type kept struct {
	mu   sync.Mutex
	list map[message]copies // guarded by mu
}

// message is a message of an account's spool.
type message struct {
	account string
	stamp   int64 // Unix microseconds; stamps.next makes no two the same
}

type copies struct {
	n      int
	stored bool      // the spool has the message
	since  time.Time // when the last copy was made, or the message left the spool
}

const (
	maxKept  = 100_000     // chosen: about 10 MB
	keptTime = time.Minute // chosen: a session's end takes seconds
	idleTime = time.Hour   // chosen: far longer than a session waits for its client
)

func (k *kept) add(account jid.JID, stamp time.Time) {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.list == nil {
		k.list = make(map[message]copies)
	}
	if len(k.list) >= maxKept {
		for m, c := range k.list {
			if age := now.Sub(c.since); age > idleTime || age > keptTime && !c.stored {
				delete(k.list, m)
			}
		}
	}
	m := message{account.String(), stamp.UnixMicro()}
	c, ok := k.list[m]
	if !ok && len(k.list) >= maxKept {
		return // the message may be delivered twice
	}
	if !c.stored && now.Sub(c.since) > keptTime {
		c.n = 0
	}
	k.list[m] = copies{c.n + 1, true, now}
}

// written forgets the copy of a message that leaves the spool now, because a session has written it.
func (k *kept) written(account jid.JID, stamp time.Time) {
	m := message{account.String(), stamp.UnixMicro()}
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.list[m]
	if c.n--; c.n <= 0 {
		delete(k.list, m)
		return
	}
	k.list[m] = copies{c.n, false, time.Now()}
}

// take forgets one copy, and reports whether there was one: then the spool has the message, or another session got it from there.
func (k *kept) take(account jid.JID, stamp time.Time) bool {
	m := message{account.String(), stamp.UnixMicro()}
	k.mu.Lock()
	defer k.mu.Unlock()
	c, ok := k.list[m]
	if c.n--; c.n > 0 {
		k.list[m] = c
	} else {
		delete(k.list, m)
	}
	return ok && (c.stored || time.Since(c.since) <= keptTime)
}
