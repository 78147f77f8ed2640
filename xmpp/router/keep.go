package router

import (
	"context"
	"fmt"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// Save returns what the modules keep on a session, for Restore in the next process.
func (r *Router) Save(s *Session) map[string][]byte {
	state := make(map[string][]byte)
	for _, k := range r.reg.Keepers {
		if b := k.Save(s); b != nil {
			state[k.Name] = b
		}
	}
	return state
}

// Restore puts a session back into the table as it was when it was saved: its presence is there, and nobody is told, because its contacts
// never saw it go. It must be called before any client can log in.
func (r *Router) Restore(ctx context.Context, account jid.JID, resource string, out Outbox, presence *xmpp.Stanza, state map[string][]byte) (*Session, error) {
	s, err := r.Bind(ctx, account, resource, out)
	if err != nil {
		return nil, err
	}
	for _, k := range r.reg.Keepers {
		if b := state[k.Name]; b != nil {
			if err := k.Restore(ctx, s, b); err != nil {
				r.end(ctx, s)
				return nil, fmt.Errorf("restore %s of %s: %w", k.Name, s.fullKey, err)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if presence != nil {
		s.presence, s.priority = presence, Priority(presence)
	}
	return s, nil
}

// Park takes a session that was saved out of the table without a word: it goes on in the next process.
func (r *Router) Park(s *Session) {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	r.table.remove(s)
	r.metrics.sessions.Dec()
}
