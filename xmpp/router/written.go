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
