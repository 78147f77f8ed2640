package push

import (
	"container/heap"
	"container/list"
	"math/rand/v2"
	"time"

	"mellium.im/xmpp/jid"
)

const (
	callWindow = time.Second      // chosen: a call must not wait for Window, and a flood of calls is bounded too
	firstRetry = 30 * time.Second // chosen: push services that limit rates do so in seconds
	lastRetry  = 24 * time.Hour   // XEP-0357 §7.1 gives it as an example
)

// device is what is known of one registration between notifications. Run owns it.
type device struct {
	account  jid.JID
	service  jid.JID
	node     string
	resource string
	id       int64 // of the registration that failures and notBefore are about

	count    int // messages since the client was last there
	last     news
	priority priority // of what is to be told; none: nothing
	seen     [32]uint64
	nextSeen int

	inFlight  bool
	told      time.Time // when the last notification was sent
	failures  int       // in a row
	notBefore time.Time // because of failures, or because others are in flight

	place *list.Element // in the dispatcher's order
	index int           // in the heap, -1 when not in it
}

// tell adds news, unless the device was told of them before.
func (d *device) tell(n news) {
	if n.key != 0 {
		for _, k := range d.seen {
			if k == n.key {
				return
			}
		}
		d.seen[d.nextSeen] = n.key
		d.nextSeen = (d.nextSeen + 1) % len(d.seen)
	}
	if n.message {
		d.count++
		d.last = n
	}
	d.priority = max(d.priority, n.priority)
}

// adopt takes over what the present registration says.
func (d *device) adopt(r Registration) {
	if d.id != r.ID { // enabled anew: its failures are history
		d.id, d.failures, d.notBefore = r.ID, 0, time.Time{}
	}
	d.resource = r.Resource
}

// returned forgets what the client learns by itself.
func (d *device) returned() {
	d.count, d.last, d.priority = 0, news{}, none
}

// due is when the next notification may be sent.
func (d *device) due(window time.Duration) time.Time {
	if d.priority == call {
		window = min(window, callWindow)
	}
	if at := d.told.Add(window); at.After(d.notBefore) && !d.told.IsZero() {
		return at
	}
	return d.notBefore
}

// fail counts a failure. What was to be told is told later.
func (d *device) fail(s summary, now time.Time) {
	d.failures++
	if d.count > 0 || !s.last.message { // else the client has come back meanwhile
		d.priority = max(d.priority, min(s.priority, high)) // nobody waits for an answer that long
	}
	wait := min(firstRetry<<min(d.failures-1, 20), lastRetry)
	d.notBefore = now.Add(wait + rand.N(wait/4)) // spread: those of one service fail together
}

// schedule is a heap of the devices that have something to be told, by the time when that may be.
type schedule struct {
	window time.Duration
	list   []*device
	at     []time.Time
}

func (s *schedule) Len() int           { return len(s.list) }
func (s *schedule) Less(i, j int) bool { return s.at[i].Before(s.at[j]) }
func (s *schedule) Swap(i, j int) {
	s.list[i], s.list[j] = s.list[j], s.list[i]
	s.at[i], s.at[j] = s.at[j], s.at[i]
	s.list[i].index, s.list[j].index = i, j
}

// Push and Pop are for container/heap.
func (s *schedule) Push(x any) {
	d := x.(*device)
	d.index = len(s.list)
	s.list = append(s.list, d)
	s.at = append(s.at, d.due(s.window))
}

func (s *schedule) Pop() any {
	n := len(s.list) - 1
	d := s.list[n]
	s.list[n] = nil
	s.list, s.at = s.list[:n], s.at[:n]
	d.index = -1
	return d
}

// update puts a device in its place, or takes it out when there is nothing to do.
func (s *schedule) update(d *device) {
	idle := d.priority == none || d.inFlight
	switch {
	case idle && d.index >= 0:
		heap.Remove(s, d.index)
	case idle:
	case d.index >= 0:
		s.at[d.index] = d.due(s.window)
		heap.Fix(s, d.index)
	default:
		heap.Push(s, d)
	}
}

// next is when the first device is due; ok is false when there is none.
func (s *schedule) next() (at time.Time, ok bool) {
	if len(s.list) == 0 {
		return time.Time{}, false
	}
	return s.at[0], true
}
