package mam

import (
	"log/slog"
	"time"

	"balcony/xmpp"
)

type clock struct {
	xmpp.Server
	now func() time.Time
}

func (c clock) Now() time.Time { return c.now() }

// NewForTest makes a module that only deletes.
func NewForTest(cfg Config, store Store, now func() time.Time) *Module {
	m := New(cfg, store, nil, nil, slog.New(slog.DiscardHandler))
	m.server = clock{now: now}
	return m
}
