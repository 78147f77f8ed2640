package c2s

import (
	"context"
	"encoding/json"
	"fmt"
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
	Presence []byte            `json:"presence,omitempty"`
	Queue    [][]byte          `json:"queue,omitempty"`
	State    map[string][]byte `json:"state,omitempty"`
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
	var all []xmpp.SavedSession
	var parked []*session
	for _, sess := range list {
		state := s.router.Save(sess.bound)
		presence := sess.bound.Presence()
		sess.mu.Lock()
		if sess.ending || sess.conn != nil {
			sess.mu.Unlock()
			continue
		}
		m := sess.sm
		v := saved{ID: m.id, In: m.in, Acked: m.queue.acked, Max: m.max, State: state}
		for _, st := range m.queue.items {
			v.Queue = append(v.Queue, st.AppendTo(nil))
		}
		expires := sess.expires
		sess.mu.Unlock()
		if presence != nil {
			v.Presence = presence.AppendTo(nil)
		}
		data, err := json.Marshal(v)
		if err != nil {
			s.log.Error("save session", "err", err)
			continue
		}
		all = append(all, xmpp.SavedSession{Account: sess.bound.Bare(), Resource: sess.bound.JID().Resourcepart(), Expires: expires, Data: data})
		parked = append(parked, sess)
	}
	if len(all) == 0 {
		return
	}
	if err := s.sessions.SaveSessions(ctx, all); err != nil {
		s.log.Error("sessions are not kept across the restart", "err", err)
		return
	}
	for _, sess := range parked {
		sess.mu.Lock()
		sess.ending, sess.over = true, true
		sess.mu.Unlock()
		s.unmanage(sess)
		s.router.Park(sess.bound)
	}
	s.log.Info("sessions saved", "sessions", len(parked))
}

// Restore brings back the sessions that the process before saved. It must be called before the first listener.
func (s *Server) Restore(ctx context.Context) error {
	all, err := s.sessions.TakeSessions(ctx)
	if err != nil {
		return err
	}
	n := 0
	for _, v := range all {
		if err := s.restore(ctx, v); err != nil {
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

func (s *Server) restore(ctx context.Context, from xmpp.SavedSession) error {
	var v saved
	if err := json.Unmarshal(from.Data, &v); err != nil {
		return fmt.Errorf("read session: %w", err)
	}
	limits := s.config.Load().Authenticated
	limits.Bytes *= 2 // what the server added to a stanza of the largest size
	m := &management{id: v.ID, resume: true, max: v.Max, in: v.In, queue: smQueue{acked: v.Acked}}
	for _, b := range v.Queue {
		st, err := stream.Parse(b, limits)
		if err != nil {
			return fmt.Errorf("read stanza: %w", err)
		}
		m.queue.push(st)
	}
	var presence *xmpp.Stanza
	if v.Presence != nil {
		var err error
		if presence, err = stream.Parse(v.Presence, limits); err != nil {
			return fmt.Errorf("read presence: %w", err)
		}
	}
	// The time that the server was down is not the client's fault.
	sess := &session{server: s, log: s.log, takeover: make(chan struct{}, 1), sm: m, expires: time.Now().Add(v.Max)}
	bound, err := s.router.Restore(ctx, from.Account, from.Resource, sess, presence, v.State)
	if err != nil {
		return err
	}
	sess.bound = bound
	s.manage(sess, m.id)
	return nil
}
