package web

import (
	"context"
	"crypto/sha1" // XEP-0124 §15.3 has no other
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/stream"
)

var (
	errInactive = errors.New("the client makes no requests")
	errBinding  = errors.New("the client broke the rules of BOSH")
)

// boshRequest is an HTTP request of a session.
type boshRequest struct {
	rid    uint64
	body   *stream.Body
	answer chan []byte // takes one; nil for the HTTP error of condition

	// Guarded by the session's mu.
	condition string
	key       string
	expired   bool // it has waited as long as the client wants
	abandoned bool // its HTTP connection is gone
	passed    bool // what there is to say goes with a later one
	pause     bool
	repeats   int
}

// boshAnswer is an answer that may have to be sent again.
type boshAnswer struct {
	rid     uint64
	key     string
	body    []byte
	stanzas []*xmpp.Stanza
	repeats int
}

// boshSession is a stream.Transport over BOSH. Requests are taken in the order of their ids and answered in it. A request is answered when there
// is something to say; or else when it has waited long enough, or when the client has more of them open than it wants to have held, but not before
// what it brought was handled.
type boshSession struct {
	// Static after creation.
	b              *boshes
	id             string
	legacy         bool
	first          uint64 // rid of the creation
	wait           uint64 // seconds
	hold, requests uint64
	idle           time.Duration
	acks           bool // the client acknowledges
	version        string
	content        string
	wake           chan struct{} // told when Receive has something to look at

	mu sync.Mutex
	// Guarded by mu.
	limits   stream.Limits
	deadline time.Time
	arriving uint64                  // requests that are read, or wait to be taken
	rid      uint64                  // the last one that was taken in order
	early    map[uint64]*boshRequest // came before their turn
	key      string                  // K(n) of XEP-0124 §15.4, empty without
	queue    []boshEvent             // taken and not yet received
	queued   int                     // their size in bytes
	room     chan struct{}           // closed when there is room for more in queue, nil while nobody waits for that
	busy     uint64                  // the request whose event is being handled, 0 for none
	waiting  []*boshRequest          // taken and not yet answered
	answers  []boshAnswer            // the latest last
	header   *stream.Header          // of the server's stream, to be told with the next answer
	told     bool                    // the attributes of the session were told
	next     boshOut                 // sent and not yet flushed
	out      boshOut                 // flushed, for the next answer
	begin    *stream.Begin
	stalled  bool
	idleFor  time.Duration // until the client has to come back, if it has asked for a pause
	timer    *time.Timer   // of inactivity, nil while a request is open
	round    int           // of timer
	polled   time.Time     // when the last request was, if it was empty and so was its answer
	lost     error         // why Receive ends
	ending   bool          // the next answer ends the session
	verdict  string        // the condition in it
	last     []byte        // the stream error in it
	domain   string        // that the last header named
	finished bool          // that answer was given
	closed   bool
}

type boshEvent struct {
	stream.Event
	size int
	rid  uint64 // of the request it came with
}

type boshOut struct {
	raw     []byte
	stanzas []*xmpp.Stanza
}

var _ stream.Transport = (*boshSession)(nil)

func (s *boshSession) currentLimits() stream.Limits {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limits
}

func (s *boshSession) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// arrives counts a request before it is read; false when there are too many. chosen: as many as the client may have open, each once more over
// another connection before the end of the first one was noticed.
func (s *boshSession) arrives() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.arriving >= 2*(s.requests+1) {
		return false
	}
	s.arriving++
	return true
}

// arrived follows arrives: the request was taken, or refused, or is gone.
func (s *boshSession) arrived() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arriving--
}

// mayTake waits until what came before has been received, but for one request of the largest size. It returns false when the request is gone.
func (s *boshSession) mayTake(ctx context.Context) bool {
	for {
		s.mu.Lock()
		if s.queued <= s.limits.Bytes || s.lost != nil || s.closed {
			s.mu.Unlock()
			return true
		}
		if s.room == nil {
			s.room = make(chan struct{})
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return false
		}
	}
}

// emptied tells those who wait for room. It is called with mu held.
func (s *boshSession) emptied() {
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
}

// accept takes a request, or answers it with an error.
func (s *boshSession) accept(r *boshRequest) {
	s.mu.Lock()
	r.key, _ = r.body.Attr("", "key")
	if condition := s.place(r); condition != "" {
		s.end(condition)
		s.refuse(r, condition)
	}
	s.unlock(s.settle())
}

// unlock gives mu back and goes on with what was stalled.
func (s *boshSession) unlock(drained bool) {
	b := s.begin
	s.mu.Unlock()
	if drained && b != nil {
		b.Drained(nil)
	}
}

// refuse answers a request that the session does not take. It is called with mu held.
func (s *boshSession) refuse(r *boshRequest, condition string) {
	if r.condition = condition; s.legacy {
		switch condition {
		case "bad-request", "policy-violation", "item-not-found":
			r.answer <- nil
			return
		}
	}
	r.answer <- terminate(condition, nil)
}

// extra is how many more requests than allowed may be open with r: XEP-0124 §11, one to pause or end the session.
func extra(r *boshRequest) uint64 {
	typ, _ := r.body.Attr("", "type")
	if _, pause := r.body.Attr("", "pause"); typ == "terminate" || pause {
		return 1
	}
	return 0
}

// place finds the place of a request; the condition is why the session has to end. It is called with mu held.
func (s *boshSession) place(r *boshRequest) (condition string) {
	if s.closed || s.finished || s.lost != nil && !s.ending {
		s.refuse(r, "item-not-found")
		return ""
	}
	switch {
	case r.rid == 0:
		return "bad-request"
	case r.rid <= s.rid:
		return s.repeat(r)
	case s.early[r.rid] != nil:
		s.early[r.rid].answer <- recoverable
		s.early[r.rid] = r
		return ""
	case r.rid > s.rid+s.requests+extra(r):
		return "item-not-found" // XEP-0124 §14.2
	}
	if s.early == nil {
		s.early = make(map[uint64]*boshRequest)
	}
	s.early[r.rid] = r
	for n := s.early[s.rid+1]; n != nil; n = s.early[s.rid+1] {
		delete(s.early, n.rid)
		switch condition := s.take(n); {
		case condition == "":
		case n == r:
			return condition
		default: // r waits for its answer
			s.end(condition)
			s.refuse(n, condition)
			return ""
		}
	}
	return ""
}

// recoverable is XEP-0124 §17.3.
var recoverable = []byte("<body type='error'" + bodyNS + "/>")

// repeat answers a request that came before: XEP-0124 §14.3. It is called with mu held.
func (s *boshSession) repeat(r *boshRequest) (condition string) {
	for i, w := range s.waiting {
		if w.rid != r.rid {
			continue
		}
		if !sameKey(w.key, r.key) {
			return "item-not-found"
		}
		if r.repeats = w.repeats + 1; r.repeats > maxRepeats {
			return "policy-violation"
		}
		if !w.abandoned {
			w.answer <- recoverable
		}
		r.pause, r.body = w.pause, nil
		s.waiting[i] = r
		s.watch()
		return ""
	}
	for i := range s.answers {
		a := &s.answers[i]
		if a.rid != r.rid {
			continue
		}
		if !sameKey(a.key, r.key) {
			return "item-not-found"
		}
		if a.repeats++; a.repeats > maxRepeats {
			return "policy-violation"
		}
		r.answer <- a.body
		return ""
	}
	if r.rid+2*s.requests > s.rid {
		// A copy that was held up on its way. The client has had its answer and waits for none here: its session goes on.
		s.refuse(r, "item-not-found")
		return ""
	}
	return "item-not-found"
}

func sameKey(a, b string) bool {
	return subtle.ConstantTimeCompare([]byte(strings.ToLower(a)), []byte(strings.ToLower(b))) == 1
}

// take takes the request whose turn it is. It is called with mu held.
func (s *boshSession) take(r *boshRequest) (condition string) {
	if uint64(len(s.waiting)) >= s.requests+extra(r) {
		return "policy-violation" // XEP-0124 §11: too many, and none of them answered
	}
	// XEP-0124 §15.5
	if s.key != "" && r.rid != s.first {
		sum := sha1.Sum([]byte(r.key))
		if r.key == "" || !sameKey(hex.EncodeToString(sum[:]), s.key) {
			return "item-not-found"
		}
		s.key = r.key
		if v, ok := r.body.Attr("", "newkey"); ok {
			s.key = v
		}
	}
	s.rid = r.rid
	if s.begin != nil {
		s.begin.Alive()
	}
	typ, _ := r.body.Attr("", "type")
	restart, _ := r.body.Attr(nsXBOSH, "restart")
	empty := len(r.body.Events) == 0 && typ == "" && restart == ""
	if s.hold == 0 && empty {
		// XEP-0124 §12: two empty requests in a row, too soon, the first of which brought nothing.
		if !s.polled.IsZero() && time.Since(s.polled) < polling {
			return "policy-violation"
		}
		s.polled = time.Now()
	} else {
		s.polled = time.Time{}
	}
	s.acknowledged(r, empty, typ == "terminate")
	size := 0
	add := func(ev stream.Event) {
		s.queue = append(s.queue, boshEvent{ev, size, r.rid})
		s.queued += size
	}
	switch {
	case r.rid == s.first || restart == "true" || restart == "1":
		h := &stream.Header{Version: "1.0", Content: xmpp.NSClient} // XEP-0206 §2: it should be there, and clients forget it
		h.To, _ = r.body.Attr("", "to")
		h.From, _ = r.body.Attr("", "from")
		h.Lang, _ = r.body.Attr(xmpp.NSXML, "lang")
		if v, ok := r.body.Attr(nsXBOSH, "version"); ok {
			h.Version = v
		}
		if h.To == "" {
			h.To = s.domain // XEP-0206 §5: it SHOULD be there
		}
		s.domain = h.To
		add(stream.Event{Kind: stream.Open, Header: h}) // XEP-0206 §5: what else is in it is passed over
	default:
		for _, ev := range r.body.Events {
			if ev.Kind == stream.Stanzas {
				size = ev.Stanza.Size()
			} else {
				size = len(ev.Element.XML())
			}
			add(ev)
		}
		size = 0
	}
	if typ == "terminate" {
		add(stream.Event{Kind: stream.Close}) // XEP-0124 §13
	}
	if v, ok := r.body.Attr("", "pause"); ok {
		n, err := strconv.ParseUint(v, 10, 32)
		if d := time.Duration(n) * time.Second; err == nil && d <= maxPause { // XEP-0124 §10
			r.pause, s.idleFor = true, d
		}
	} else {
		s.idleFor = 0
	}
	r.body = nil
	s.waiting = append(s.waiting, r)
	s.watch()
	s.poke()
	return ""
}

// acknowledged forgets the answers that the client has got: XEP-0124 §9, §14.3. It is called with mu held.
func (s *boshSession) acknowledged(r *boshRequest, empty, last bool) {
	again := uint64(0) // up to here it cannot ask again: it may not have more requests open
	if open := s.requests + extra(r); r.rid > open {
		again = r.rid - open
	}
	got := again
	if last || empty && s.hold <= 1 {
		got = r.rid - 1 // it leaves, or it has no request open any more: it would not send one with nothing in it
	}
	if v, ok := r.body.Attr("", "ack"); s.acks && r.rid != s.first && !last {
		if got = r.rid - 1; ok { // without ack it has all of them
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				n = 0
			}
			got = min(n, got)
		}
		again = max(again, got)
	}
	s.answers = slices.DeleteFunc(s.answers, func(a boshAnswer) bool { return a.rid <= again })
	for i := range s.answers {
		if s.answers[i].rid <= got {
			s.answers[i].stanzas = nil
		}
	}
}

// read reports whether everything that a request brought was handled. It is called with mu held.
func (s *boshSession) read(rid uint64) bool {
	return (s.busy == 0 || s.busy > rid) && (len(s.queue) == 0 || s.queue[0].rid > rid)
}

// settle answers what can be answered, in order (XEP-0124 §8.2), and tells the outbox whether more can go out. It is called with mu held; drained
// means that the caller calls Begin.Drained without it.
func (s *boshSession) settle() (drained bool) {
	paused := false
	for _, w := range s.waiting {
		paused = paused || w.pause
	}
	for len(s.waiting) > 0 {
		r := s.waiting[0]
		empty := len(s.out.raw) == 0 && s.header == nil
		if !s.ending && (empty && !s.read(r.rid) || !s.told && s.header == nil) {
			break
		}
		if r.abandoned && !r.pause {
			// A page that is loaded again goes on with the next request, and does not ask for the answer to this one.
			if r.passed = len(s.waiting) > 1; r.passed {
				s.answer(r, s.compose(r))
				continue
			} else if !s.ending {
				break
			}
		}
		switch {
		case s.ending && !s.finished:
			s.finished = true
			if s.legacy && (s.verdict == "bad-request" || s.verdict == "policy-violation" || s.verdict == "item-not-found") {
				s.waiting = s.waiting[1:]
				s.refuse(r, s.verdict)
				continue
			}
			content := s.last
			if s.lost == nil {
				content = append(s.out.raw, s.last...) // XEP-0206 §7: stanzas, then the error
			}
			s.answer(r, terminate(s.verdict, content))
		case !empty && !r.pause:
			s.answer(r, s.compose(r))
			s.polled = time.Time{}
		case r.expired || r.pause || paused || s.finished || uint64(len(s.waiting)) > s.hold:
			s.answer(r, s.compose(r))
		default:
			return s.flow()
		}
	}
	return s.flow()
}

// flow tells the outbox. It is called with mu held.
func (s *boshSession) flow() (drained bool) {
	s.watch()
	full := len(s.out.raw) > 0
	switch {
	case s.begin == nil || full == s.stalled:
		return false
	case full:
		s.stalled = true
		s.begin.Stall()
		return false
	}
	s.stalled = false
	s.begin.Unstall()
	return true
}

// compose makes the body that answers r. It is called with mu held.
func (s *boshSession) compose(r *boshRequest) []byte {
	b := []byte("<body")
	attr := func(name, value string) {
		if value != "" {
			b = append(append(append(b, ' '), name...), "='"...)
			b = append(xmpp.AppendEscaped(b, value), '\'')
		}
	}
	n := func(v uint64) string { return strconv.FormatUint(v, 10) }
	content := s.out.raw
	nothing := r.pause || r.passed // XEP-0124 §10: no payloads with the answer to a pause
	if nothing {
		content = nil
	}
	if s.header != nil && !nothing {
		if !s.told {
			// XEP-0124 §7.2
			s.told = true
			attr("sid", s.id)
			attr("wait", n(s.wait))
			attr("hold", n(s.hold))
			attr("requests", n(s.requests))
			attr("inactivity", n(uint64(s.idle/time.Second)))
			attr("polling", n(uint64(polling/time.Second)))
			attr("maxpause", n(uint64(maxPause/time.Second)))
			attr("ver", s.version)
			if s.acks {
				attr("ack", n(r.rid))
			}
			attr("from", s.header.From)
			attr("authid", s.header.ID)
			attr("xmpp:restartlogic", "true")
			attr("xmpp:version", s.header.Version)
			attr("xmlns:xmpp", nsXBOSH)
			attr("xml:lang", s.header.Lang)
		}
		s.header = nil
	} else if s.acks && s.rid > r.rid {
		attr("ack", n(s.rid)) // XEP-0124 §9.1
	}
	return closeBody(append(b, bodyNS...), content)
}

// answer answers the first of those that wait. It is called with mu held.
func (s *boshSession) answer(r *boshRequest, body []byte) {
	s.waiting = s.waiting[1:]
	a := boshAnswer{rid: r.rid, key: r.key, body: body}
	if !r.pause && !r.passed {
		a.stanzas, s.out = s.out.stanzas, boshOut{}
	}
	if !r.pause {
		// XEP-0124 §14.3: as many as there may be requests.
		if s.answers = append(s.answers, a); uint64(len(s.answers)) > s.requests {
			s.answers = slices.Delete(s.answers, 0, 1)
		}
	}
	if !r.abandoned {
		r.answer <- body
	}
}

// watch starts the time of inactivity when no request is open, and stops it when one is: XEP-0124 §10. It is called with mu held.
func (s *boshSession) watch() {
	open := s.closed
	for _, r := range s.waiting {
		open = open || !r.abandoned
	}
	if open == (s.timer == nil) {
		return
	}
	s.round++
	if open {
		s.timer.Stop()
		s.timer = nil
		return
	}
	d, round := s.idle, s.round
	if s.idleFor > 0 {
		d = s.idleFor
	}
	s.timer = time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.round == round && s.lost == nil {
			s.lost = errInactive
			s.poke()
		}
	})
}

// expire is called when a request has waited as long as it may.
func (s *boshSession) expire(r *boshRequest) {
	s.mu.Lock()
	for _, w := range s.waiting { // those before it have to be answered first
		w.expired = w.expired || w.rid <= r.rid
	}
	s.unlock(s.settle())
}

// abandon is called when a request's connection is gone. The request stays: the client repeats it.
func (s *boshSession) abandon(r *boshRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.abandoned = true
	if s.early[r.rid] == r {
		delete(s.early, r.rid)
	}
	s.watch()
}

// fail ends the session for what a request was.
func (s *boshSession) fail(condition string) {
	s.mu.Lock()
	s.end(condition)
	s.unlock(s.settle())
}

// end makes every request end with a terminal binding condition. It is called with mu held.
func (s *boshSession) end(condition string) {
	if s.lost == nil {
		s.lost = errBinding
	}
	if !s.ending {
		s.ending, s.verdict = true, condition
	}
	s.poke()
}

// Wait does not: Receive tells that what came before is handled, and waits without anything on the stack.
func (s *boshSession) Wait() error { return nil }

// Receive returns what the requests brought.
func (s *boshSession) Receive() (ev stream.Event, size int, more bool, err error) {
	s.mu.Lock()
	s.busy = 0 // what it got before is handled
	s.unlock(s.settle())
	for {
		s.mu.Lock()
		now, deadline := time.Now(), s.deadline
		switch {
		case !deadline.IsZero() && !now.Before(deadline):
			s.mu.Unlock()
			return ev, 0, false, os.ErrDeadlineExceeded
		case len(s.queue) > 0:
			e := s.queue[0]
			s.queue = s.queue[1:]
			s.queued -= e.size
			s.busy = e.rid
			if s.queued <= s.limits.Bytes {
				s.emptied()
			}
			more = len(s.queue) > 0
			if !more {
				s.queue = nil
			}
			s.mu.Unlock()
			return e.Event, e.size, more, nil
		case s.lost != nil:
			err := s.lost
			s.mu.Unlock()
			return ev, 0, false, err
		}
		s.mu.Unlock()
		if deadline.IsZero() {
			<-s.wake
			continue
		}
		t := time.NewTimer(deadline.Sub(now))
		select {
		case <-s.wake:
		case <-t.C:
		}
		t.Stop()
	}
}

func (s *boshSession) SetLimits(l stream.Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.Bytes = min(l.Bytes, maxBody)
	s.limits = l
}

// maxBody bounds a request where there is no limit on stanzas. chosen: what one request may make the server hold.
const maxBody = 16 << 20

// Restart: a request with xmpp:restart comes next (XEP-0206 §5).
func (s *boshSession) Restart() {}

func (s *boshSession) SetDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	s.poke()
	return nil
}

// Open: the header of the stream goes as attributes of the next answer.
func (s *boshSession) Open(h stream.Header) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.header = &h
	return nil
}

func (s *boshSession) Send(e stream.Sent) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost != nil || s.ending {
		return errEnded
	}
	s.next.raw = e.AppendTo(s.next.raw)
	if e.Stanza != nil {
		s.next.stanzas = append(s.next.stanzas, e.Stanza)
	}
	return nil
}

func (s *boshSession) Flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.raw = append(s.out.raw, s.next.raw...)
	s.out.stanzas = append(s.out.stanzas, s.next.stanzas...)
	s.next = boshOut{}
	s.settle()
	return nil
}

func (s *boshSession) Begin(b stream.Begin) {
	s.mu.Lock()
	s.begin = &b
	if s.stalled = len(s.out.raw) > 0; !s.stalled {
		b.Unstall()
	}
	s.mu.Unlock()
}

// Ping does nothing: requests that are not answered come back after a while by themselves.
func (s *boshSession) Ping() {}

func (s *boshSession) End(streamError []byte) error {
	s.mu.Lock()
	if !s.ending {
		s.ending = true
		if streamError != nil {
			var whole bool
			if s.verdict, whole = condition(streamError); !whole {
				s.last = streamError // XEP-0206 §7
			}
		}
	}
	s.header = nil // a session that ends before it began has nothing to tell
	s.unlock(s.settle())
	return nil
}

// Linger waits until the client has fetched the end.
func (s *boshSession) Linger() {
	t := time.NewTimer(closeTime)
	defer t.Stop()
	for {
		s.mu.Lock()
		finished := s.finished
		s.mu.Unlock()
		if finished {
			return
		}
		select {
		case <-s.wake:
		case <-t.C:
			return
		}
	}
}

func (s *boshSession) Close() {
	s.b.remove(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.end("remote-connection-failed")
	s.settle()
	for _, r := range s.early {
		if !r.abandoned {
			s.refuse(r, "item-not-found")
		}
	}
	s.early, s.queue = nil, nil
	s.emptied()
	s.watch()
}

// Unacknowledged are the stanzas of answers that the client may not have got (XEP-0124 §9, §14.3).
func (s *boshSession) Unacknowledged() []*xmpp.Stanza {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*xmpp.Stanza
	for _, a := range s.answers {
		all = append(all, a.stanzas...)
	}
	return all
}
