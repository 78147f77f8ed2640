package router

import (
	"context"
	"strconv"
	"strings"
	"sync"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

// Outbox is the end of a session that a transport provides: where its stanzas leave.
type Outbox interface {
	xmpp.Target
	// Close ends the connection with a stream error. It does not wait.
	Close(reason streamerr.Error)
}

// Session is one bound resource in the table. It implements xmpp.Session.
type Session struct {
	// Static after Bind.
	full    jid.JID
	bare    jid.JID
	fullKey string
	bareKey string
	out     Outbox
	alone   [1]xmpp.Session // itself, as the list of who a stanza goes to

	mu sync.Mutex
	// Guarded by mu.
	presence *xmpp.Stanza
	priority int8
	bound    bool // the Bound hooks have run
	ended    bool
	values   []value
	changes  []xmpp.PresenceChange // broadcast presence whose hooks have still to run, in order
	running  bool                  // somebody runs the hooks of changes
	idle     chan struct{}         // closed when running ends; nil when nobody waits
}

var _ xmpp.Session = (*Session)(nil)

// JID is the full JID of the session.
func (s *Session) JID() jid.JID { return s.full }

// Bare is the account.
func (s *Session) Bare() jid.JID { return s.bare }

// Key is the account's bare JID as a string.
func (s *Session) Key() string { return s.bareKey }

// Enqueue gives the stanza to the session's outbox.
func (s *Session) Enqueue(ctx context.Context, st *xmpp.Stanza) bool {
	return s.out.Enqueue(ctx, st)
}

// Close ends the session with a stream error.
func (s *Session) Close(reason streamerr.Error) { s.out.Close(reason) }

// Presence is the session's last broadcast presence, nil while unavailable.
func (s *Session) Presence() *xmpp.Stanza {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.presence
}

// Priority is the priority of that presence.
func (s *Session) Priority() int8 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.priority
}

// available reports whether the session has sent presence, and its priority.
func (s *Session) available() (bool, int8) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.presence != nil, s.priority
}

// Value is what SetValue stored under key.
func (s *Session) Value(key any) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.values {
		if s.values[i].key == key {
			return s.values[i].of
		}
	}
	return nil
}

// SetValue stores v under key and returns what was there.
func (s *Session) SetValue(key, v any) (old any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.values {
		if s.values[i].key == key {
			old, s.values[i].of = s.values[i].of, v
			return old
		}
	}
	s.values = append(s.values, value{key, v})
	return nil
}

// value is what a module keeps on a session: there are few, and a map would take more than they do.
type value struct{ key, of any }

// setPresence makes p, a broadcast presence with or without type unavailable, the session's presence and queues its hooks. It does nothing
// once the session has ended.
func (s *Session) setPresence(p *xmpp.Stanza) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.replace(p)
	}
}

// complete ends the binding. It reports whether the session was ended meanwhile: then the Ended hooks are the caller's to run.
func (s *Session) complete() (ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bound = true
	return s.ended
}

// finish ends the session, with gone as its last presence if it was available. It reports whether the Ended hooks are the caller's to run: false
// when it had ended before, or is still being bound.
func (s *Session) finish(gone *xmpp.Stanza) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.ended = true
	if s.presence != nil {
		s.replace(gone)
	}
	return s.bound
}

// replace is called with mu held.
func (s *Session) replace(p *xmpp.Stanza) {
	old := s.presence
	if p.Type == "unavailable" {
		s.presence, s.priority = nil, 0
	} else {
		s.presence, s.priority = p, Priority(p)
	}
	s.changes = append(s.changes, xmpp.PresenceChange{Session: s, Old: old, New: s.presence, Stanza: p, Ended: s.ended})
}

// run carries out the hooks of the queued changes, one at a time and in order, without a lock. When another goroutine is at it, run waits
// until that one has done them all: contacts never see a resource's presences out of order.
func (s *Session) run(ctx context.Context, hooks []func(context.Context, xmpp.PresenceChange)) {
	s.mu.Lock()
	if s.running {
		if s.idle == nil {
			s.idle = make(chan struct{})
		}
		idle := s.idle
		s.mu.Unlock()
		select {
		case <-idle:
		case <-ctx.Done():
		}
		return
	}
	s.running = true
	defer func() {
		s.running = false
		if s.idle != nil {
			close(s.idle)
			s.idle = nil
		}
		s.mu.Unlock()
	}()
	for len(s.changes) > 0 {
		c := s.changes[0]
		s.changes = s.changes[1:]
		s.mu.Unlock()
		func() {
			defer s.mu.Lock() // also when a hook panics, which ends this stream alone
			for _, h := range hooks {
				h(ctx, c)
			}
		}()
	}
}

// Priority is the priority of a presence stanza, 0 when it has none or none that is valid (RFC 6121 §4.7.2.3).
func Priority(p *xmpp.Stanza) int8 {
	c, ok := p.Child("", "priority")
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(c.Text()), 10, 8)
	if err != nil {
		return 0
	}
	return int8(n)
}
