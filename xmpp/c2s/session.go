package c2s

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/router"

	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

// session is the transport of a bound resource. Mostly it lives as long as its connection; with stream management (XEP-0198) it waits for
// the next one when that is lost.
type session struct {
	// Static after binding.
	server *Server
	bound  *router.Session
	since  time.Time
	agent  *agent // nil for none

	takeover chan struct{} // holds one token: whoever resumes the session has it

	mu sync.Mutex
	// Guarded by mu.
	conn    *conn // nil while hibernating
	last    link  // the connection that it has, or had last
	ending  bool  // it is going to end and cannot be resumed; what comes until then is taken, so that it does not overtake what is sent back
	over    bool  // it has ended and takes nothing
	taken   bool  // a resumption is taking it from conn
	sm      *management
	expires time.Time // while hibernating

	inactive bool // client state indication (XEP-0352)
	held     held // while inactive
}

// link is what is told of a connection, also after it has ended.
type link struct {
	remote    netip.Addr
	transport string
	version   uint16 // of TLS; 0: none
	suite     uint16
}

var _ router.Outbox = (*session)(nil)

// Enqueue is router.Outbox.
func (s *session) Enqueue(ctx context.Context, st *xmpp.Stanza) bool {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return false
	}
	if s.inactive && s.conn != nil {
		what, key := classify(st)
		if what == drop || what == replace && !s.held.hold(st, key) {
			s.mu.Unlock()
			return true
		}
		// What was held goes before what cannot wait: order is kept.
		for _, h := range s.held.take() {
			s.pass(h)
		}
		if what == replace {
			return s.passed(ctx, true)
		}
	}
	return s.passed(ctx, s.pass(st))
}

// pass gives a stanza to the queue of stream management and to the outbox. It is called with mu held.
func (s *session) pass(st *xmpp.Stanza) (taken bool) {
	if (s.conn == nil || s.inactive) && s.bound != nil {
		s.server.missed(s.bound, st)
	}
	var o *outbox
	if s.conn != nil {
		o = s.conn.out.Load()
	}
	if s.sm == nil {
		return o != nil && o.append(entry{stanza: st, last: st.Order != 0})
	}
	if l := s.server.config.Load().Management; s.sm.queue.bytes > 2*l.Bytes || len(s.sm.queue.items) > 2*l.Stanzas {
		return false
	}
	s.sm.queue.push(st, time.Now())
	if o != nil {
		// What the outbox does not take is not lost: it is in the queue.
		o.append(entry{stanza: st})
		if !s.sm.asked {
			s.sm.asked = true
			o.append(entry{raw: askForAck})
		}
	}
	return true
}

// passed ends what pass began: it gives mu back and sees to the writing.
func (s *session) passed(ctx context.Context, taken bool) bool {
	c := s.conn
	full := s.sm != nil && !s.ending && s.sm.full(&s.server.config.Load().Management)
	log := s.server.log
	if full {
		s.ending = true
		if s.bound != nil { // not while it is being bound
			log = newLog(s)
		}
	}
	s.mu.Unlock()
	if full {
		// The bound of XEP-0198's queue: the session ends, and everything that the client did not acknowledge goes the way of undelivered
		// stanzas.
		log.Warn("client does not acknowledge", "limit", s.server.config.Load().Management.Stanzas)
		if c != nil {
			c.broken(errUnacknowledged)
		} else {
			s.server.conns.Go(s.end)
		}
	} else if c != nil && taken {
		if o := c.out.Load(); o != nil {
			o.schedule(ctx)
		}
	}
	return taken
}

// Written is xmpp.Waiter. A client that is not there has got nothing.
func (s *session) Written(ctx context.Context) error {
	s.mu.Lock()
	c, ending := s.conn, s.ending
	s.mu.Unlock()
	if c == nil || ending {
		return errEnded
	}
	return c.Written(ctx)
}

// Close ends the session with a stream error. It may be called from any goroutine and does not wait.
func (s *session) Close(reason streamerr.Error) {
	s.mu.Lock()
	c, ending := s.conn, s.ending
	s.ending = true
	s.mu.Unlock()
	switch {
	case c != nil:
		c.Close(reason)
	case !ending:
		s.server.conns.Go(s.end)
	}
}

// detach takes the connection c, which has ended with err, from the session. It reports whether the session goes on without it.
func (s *session) detach(c *conn, err error) (hibernates bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return true // it has another one by now
	}
	s.conn = nil
	now := time.Now()
	for _, h := range s.held.take() {
		if s.sm != nil {
			s.sm.queue.push(h, now)
		}
	}
	s.inactive = false // XEP-0352 §4.1: a resumed stream begins as active
	if s.ending {
		return false
	}
	if s.taken {
		return true
	}
	if s.sm == nil || !s.sm.resume || !unfinished(err, s.server.ctx.Err() != nil) {
		s.ending = true
		return false
	}
	s.sm.asked = false
	s.expires = now.Add(s.sm.max)
	for _, st := range s.sm.queue.items {
		s.server.missed(s.bound, st)
	}
	return true
}

// unfinished reports whether a stream that ended with err may be resumed (XEP-0198 §6): it was neither closed by the client nor ended for
// what the client did. A server that stops leaves its streams unfinished.
func unfinished(err error, stopping bool) bool {
	var se streamerr.Error
	if errors.Is(err, errClosed) {
		return false
	}
	if errors.As(err, &se) {
		return se.Err == streamerr.ConnectionTimeout.Err || stopping && se.Err == streamerr.SystemShutdown.Err
	}
	return !errors.Is(err, errUnacknowledged)
}

// leaveTime bounds what is done for a session that has ended.
const leaveTime = 10 * time.Second

// remove takes the session out of the table, before what it sends back: nothing new comes to it. The messages to its account that arrive
// until the returned function is called go out after those.
func (s *session) remove() (back func()) {
	back = s.gate()
	s.server.unmanage(s)
	s.server.router.Remove(s.bound)
	return back
}

// gate keeps what arrives for the account until the returned function is called.
func (s *session) gate() (back func()) {
	if s.server.returning == nil {
		return func() {}
	}
	return s.server.returning(s.bound.Bare())
}

// leave ends the session: its contacts see it go.
func (s *session) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	_ = guard(newLog(s), s.server.metrics, func() error {
		s.server.router.Unbind(ctx, s.bound)
		return nil
	})
}

// salvage sends on what the session had taken and the client has not got: with stream management what it has not acknowledged, without it
// left, what was not written.
func (s *session) salvage(left []*xmpp.Stanza) {
	s.mu.Lock()
	s.ending, s.over = true, true
	if s.sm != nil {
		now, domain := time.Now(), s.bound.JID().Domainpart()
		items, times := s.sm.queue.take()
		left = make([]*xmpp.Stanza, len(items))
		for i, st := range items {
			left[i] = delayed(st, times[i], now, domain)
		}
	}
	s.mu.Unlock()
	s.server.redeliver(newLog(s), s.bound.Bare(), left)
}

// unsure takes back that the client has got some stanzas: without stream management they counted as received when they were written. What other sessions
// have stays theirs.
func (s *session) unsure(list []*xmpp.Stanza) {
	s.mu.Lock()
	managed := s.sm != nil
	s.mu.Unlock()
	if managed {
		return
	}
	for _, st := range list {
		if n := st.Copies(); st.Order != 0 && (n == nil || n.Load() <= 1) {
			s.server.held(s.bound.Bare(), st.Order)
		}
	}
}

// redeliver sends on what a session of account had taken and its client has not got.
func (s *Server) redeliver(log *slog.Logger, account jid.JID, left []*xmpp.Stanza) {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	var b xmpp.Batch // one commit for all, not one for each
	ctx = xmpp.WithBatch(ctx, &b)
	for _, st := range left {
		_ = guard(log, s.metrics, func() error {
			s.router.Redeliver(ctx, account, st)
			return nil
		})
	}
	_ = guard(log, s.metrics, func() error { b.End(ctx); return nil })
}

// end ends a session that has no connection.
func (s *session) end() {
	back := s.remove()
	s.salvage(nil)
	_ = guard(newLog(s), s.server.metrics, func() error { back(); return nil })
	s.leave()
}
