package router

import (
	"context"

	"balcony/xmpp"
)

var _ xmpp.Waiter = (*Session)(nil)

// Written waits for the session's outbox, if that is one to wait for.
func (s *Session) Written(ctx context.Context) error {
	if w, ok := s.out.(xmpp.Waiter); ok {
		return w.Written(ctx)
	}
	return nil
}

// Active reports whether the client is there and has not said that nobody looks at it (XEP-0352), if the outbox knows.
func (s *Session) Active() bool {
	a, ok := s.out.(interface{ Active() bool })
	return !ok || a.Active()
}
