package c2s

import (
	"context"
	"log/slog"
)

// about is what lines of the log are about.
type about interface {
	base() *slog.Logger
	attrs() []slog.Attr
}

// lazyLog is a handler that finds its attributes when something is logged: kept ready, they would be half a kilobyte of each session that does
// nothing.
type lazyLog struct{ about }

// newLog is a log whose lines say what they are about.
func newLog(a about) *slog.Logger { return slog.New(lazyLog{a}) }

func (c *conn) base() *slog.Logger    { return c.server.log }
func (s *session) base() *slog.Logger { return s.server.log }

func (c *conn) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.Uint64("cid", c.id), slog.String("remote", c.remote.String())}
	if account := c.account.String(); account != "" {
		attrs = append(attrs, slog.String("account", account))
	}
	if c.session != nil {
		attrs = append(attrs, slog.String("resource", c.session.bound.JID().Resourcepart()))
	}
	return attrs
}

// attrs are for what happens to a session without a connection, or one that has had several. It is bound.
func (s *session) attrs() []slog.Attr {
	return []slog.Attr{slog.String("account", s.bound.Bare().String()), slog.String("resource", s.bound.JID().Resourcepart())}
}

func (l lazyLog) handler() slog.Handler {
	return l.base().Handler().WithAttrs(l.attrs())
}

// Enabled is slog.Handler.
func (l lazyLog) Enabled(ctx context.Context, level slog.Level) bool {
	return l.base().Enabled(ctx, level)
}

// Handle is slog.Handler.
func (l lazyLog) Handle(ctx context.Context, r slog.Record) error { return l.handler().Handle(ctx, r) }

// WithAttrs is slog.Handler.
func (l lazyLog) WithAttrs(attrs []slog.Attr) slog.Handler { return l.handler().WithAttrs(attrs) }

// WithGroup is slog.Handler.
func (l lazyLog) WithGroup(name string) slog.Handler { return l.handler().WithGroup(name) }
