package c2s

import (
	"context"
	"log/slog"
	"testing"
	"time"

	streamerr "mellium.im/xmpp/stream"
)

// Close before or between the deadlines of the negotiation is not forgotten.
func TestCloseBeforeNegotiation(t *testing.T) {
	s, _ := pair(t)
	cfg := DefaultConfig()
	cfg.TLSTimeout = 3 * time.Second
	c := &conn{server: &Server{}, cfg: &cfg, sock: s, since: time.Now(), log: slog.Default()}
	c.Close(streamerr.SystemShutdown) // accept has put c into Server.open; its goroutine has not run yet
	begin := time.Now()
	_ = c.negotiate(context.Background())
	if d := time.Since(begin); d > time.Second {
		t.Errorf("the connection lives on for %v after Close", d)
	}
}
