package c2s

import (
	"context"
	"errors"
	"log/slog"
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
	log    *slog.Logger

	takeover chan struct{} // holds one token: whoever resumes the session has it

	mu sync.Mutex
	// Guarded by mu.
	conn    *conn // nil while hibernating
	ending  bool  // it is going to end and cannot be resumed; what comes until then is taken, so that it does not overtake what is sent back
	over    bool  // it has ended and takes nothing
	taken   bool  // a resumption is taking it from conn
	sm      *management
	expires time.Time // while hibernating

	inactive bool // client state indication (XEP-0352)
	held     held // while inactive
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
		return o != nil && o.append(entry{stanza: st})
	}
	if l := s.server.config.Load().Management; s.sm.queue.bytes > 2*l.Bytes || len(s.sm.queue.items) > 2*l.Stanzas {
		return false
	}
	s.sm.queue.push(st)
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
	if full {
		s.ending = true
	}
	s.mu.Unlock()
	if full {
		// The bound of XEP-0198's queue: the session ends, and everything that the client did not acknowledge goes the way of undelivered
		// stanzas.
		s.log.Warn("client does not acknowledge", "limit", s.server.config.Load().Management.Stanzas)
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
	for _, h := range s.held.take() {
		if s.sm != nil {
			s.sm.queue.push(h)
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
	s.expires = time.Now().Add(s.sm.max)
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
	back = func() {}
	if s.server.returning != nil {
		back = s.server.returning(s.bound.Bare())
	}
	s.server.unmanage(s)
	s.server.router.Remove(s.bound)
	return back
}

// leave ends the session: its contacts see it go.
func (s *session) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	_ = guard(s.log, s.server.metrics, func() error {
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
		left = s.sm.queue.items
		s.sm.queue.items, s.sm.queue.bytes = nil, 0
	}
	s.mu.Unlock()
	s.server.redeliver(s.log, s.bound.Bare(), left)
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
	_ = guard(s.log, s.server.metrics, func() error { back(); return nil })
	s.leave()
}
