package c2s

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/stream"
)

// Sessions keeps sessions that wait for their client while the server restarts.
type Sessions interface {
	// SaveSessions stores them, all or none.
	SaveSessions(ctx context.Context, sessions []xmpp.SavedSession) error
	// TakeSessions returns what was saved and forgets it.
	TakeSessions(ctx context.Context) ([]xmpp.SavedSession, error)
}

// saved is a session as it is stored: its counters, its queue and what the modules keep.
type saved struct {
	ID       string            `json:"id"`
	In       uint32            `json:"in"`
	Acked    uint32            `json:"acked"`
	Max      time.Duration     `json:"max"`
	Since    time.Time         `json:"since"`
	Agent    *agent            `json:"agent,omitempty"`
	Presence []byte            `json:"presence,omitempty"`
	Queue    [][]byte          `json:"queue,omitempty"`
	Orders   map[int]int64     `json:"orders,omitempty"`   // by place in the queue, of messages that are kept (xmpp.Stanza.Order)
	Times    []time.Time       `json:"times,omitempty"`    // of each in the queue
	Copies   map[int]copies    `json:"copies,omitempty"`   // by place in the queue, of those that went to other sessions too
	Forwards map[int]forward   `json:"forwards,omitempty"` // likewise, of copies (XEP-0280): the queue has the original
	State    map[string][]byte `json:"state,omitempty"`
}

// forward is the element around the message in a copy.
type forward struct {
	Space string `json:"space"`
	Local string `json:"local"`
}

// copies tells of a stanza that went to several sessions which deliveries it belongs to, and how many of their clients may still get it
// (xmpp.Stanza.Missed).
type copies struct {
	Of   int   `json:"of"` // the same number for the same message, among all sessions that were saved together
	Left int32 `json:"left"`
}

// park stores the sessions that can be resumed when the server stops, and takes them out of the table: they go on in the next process, and
// their contacts see nothing. What cannot be stored ends as it would without a restart.
func (s *Server) park(ctx context.Context) {
	s.mu.Lock()
	list := make([]*session, 0, len(s.resumable))
	for _, sess := range s.resumable {
		list = append(list, sess)
	}
	s.mu.Unlock()
	shared := make(map[*atomic.Int32]int)
	var all []xmpp.SavedSession
	var parked, failed []*session
	for _, sess := range list {
		state := s.router.Save(sess.bound)
		presence := sess.bound.Presence()
		// What arrives from here on goes another way when this has ended, behind what the session has.
		back := sess.gate()
		defer func() { _ = guard(s.log, s.metrics, func() error { back(); return nil }) }()
		sess.mu.Lock()
		if sess.ending || sess.conn != nil {
			sess.mu.Unlock()
			continue
		}
		sess.ending, sess.over = true, true
		m := sess.sm
		v := saved{ID: m.id, In: m.in, Acked: m.queue.acked, Max: m.max, Since: sess.since, Agent: sess.agent, State: state}
		v.Times = slices.Clone(m.queue.times)
		for i, st := range m.queue.items {
			if o := st.Original(); o != nil {
				if v.Forwards == nil {
					v.Forwards = make(map[int]forward)
				}
				v.Forwards[i] = forward{st.Spans()[0].Space, st.Spans()[0].Local}
				v.Queue = append(v.Queue, o.AppendTo(nil))
			} else {
				v.Queue = append(v.Queue, st.AppendTo(nil))
			}
			if st.Order != 0 {
				if v.Orders == nil {
					v.Orders = make(map[int]int64)
				}
				v.Orders[i] = st.Order
			}
			if n := st.Copies(); n != nil {
				if _, known := shared[n]; !known {
					shared[n] = len(shared)
				}
				if v.Copies == nil {
					v.Copies = make(map[int]copies)
				}
				v.Copies[i] = copies{shared[n], n.Load()}
			}
		}
		expires := sess.expires
		sess.mu.Unlock()
		if presence != nil {
			v.Presence = presence.AppendTo(nil)
		}
		data, err := json.Marshal(v)
		if err != nil {
			s.log.Error("save session", "err", err)
			failed = append(failed, sess)
			continue
		}
		all = append(all, xmpp.SavedSession{Account: sess.bound.Bare(), Resource: sess.bound.JID().Resourcepart(), Expires: expires, Data: data})
		parked = append(parked, sess)
	}
	if len(all) > 0 {
		if err := s.sessions.SaveSessions(ctx, all); err != nil {
			s.log.Error("sessions are not kept across the restart", "err", err)
			parked, failed = nil, append(failed, parked...)
		}
	}
	for _, sess := range failed {
		sess.end()
	}
	for _, sess := range parked {
		s.unmanage(sess)
		s.router.Park(sess.bound)
	}
	if len(parked) > 0 {
		s.log.Info("sessions saved", "sessions", len(parked))
	}
}

// Restore brings back the sessions that the process before saved. It must be called before the first listener.
func (s *Server) Restore(ctx context.Context) error {
	all, err := s.sessions.TakeSessions(ctx)
	if err != nil {
		return err
	}
	n, shared := 0, make(map[int]*atomic.Int32)
	for _, v := range all {
		if err := s.restore(ctx, v, shared); err != nil {
			s.log.Error("restore session", "account", v.Account.String(), "err", err)
			continue
		}
		n++
	}
	if n > 0 {
		s.log.Info("sessions restored", "sessions", n)
	}
	return nil
}

// restore brings back one session. shared are the counts of messages that went to several, by their numbers.
func (s *Server) restore(ctx context.Context, from xmpp.SavedSession, shared map[int]*atomic.Int32) error {
	var v saved
	if err := json.Unmarshal(from.Data, &v); err != nil {
		return fmt.Errorf("read session: %w", err)
	}
	full, err := from.Account.WithResource(from.Resource)
	if err != nil {
		return fmt.Errorf("read session: %w", err)
	}
	limits := s.config.Load().Authenticated
	limits.Bytes *= 2 // what the server added to a stanza of the largest size
	m := &management{id: v.ID, resume: true, max: v.Max, in: v.In, queue: smQueue{acked: v.Acked, got: s.got(from.Account)}}
	for i, b := range v.Queue {
		st, err := stream.Parse(b, limits)
		if err != nil {
			return fmt.Errorf("read stanza: %w", err)
		}
		if c, ok := v.Copies[i]; ok {
			if shared[c.Of] == nil {
				shared[c.Of] = new(atomic.Int32)
				shared[c.Of].Store(c.Left)
			}
			st = st.WithCopies(shared[c.Of])
		}
		if f, ok := v.Forwards[i]; ok {
			st = st.Forward(f.Space, f.Local).With(full, from.Account)
		}
		if o := v.Orders[i]; o != 0 {
			st = st.Kept(0, o)
		}
		at := time.Now()
		if i < len(v.Times) {
			at = v.Times[i]
		}
		m.queue.push(st, at)
	}
	var presence *xmpp.Stanza
	if v.Presence != nil {
		if presence, err = stream.Parse(v.Presence, limits); err != nil {
			return fmt.Errorf("read presence: %w", err)
		}
	}
	// The time that the server was down is not the client's fault.
	sess := &session{server: s, since: v.Since, agent: v.Agent, takeover: make(chan struct{}, 1), sm: m, expires: time.Now().Add(v.Max)}
	bound, err := s.router.Restore(ctx, from.Account, from.Resource, sess, presence, v.State)
	if err != nil {
		return err
	}
	sess.bound = bound
	var orders []int64
	for _, st := range m.queue.items {
		if st.Order != 0 {
			orders = append(orders, st.Order)
		}
	}
	s.restored(bound, orders)
	s.manage(sess, m.id)
	return nil
}
