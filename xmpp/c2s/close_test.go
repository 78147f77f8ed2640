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
	cfg.TLSTimeout, cfg.LoginTimeout = time.Hour, time.Hour
	c := &conn{server: &Server{}, cfg: &cfg, sock: s, since: time.Now(), log: slog.Default()}
	c.Close(streamerr.SystemShutdown) // accept has put c into Server.open; its goroutine has not run yet
	ended := make(chan error, 1)
	go func() { ended <- c.negotiate(context.Background()) }()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the connection lives on after Close")
	}
}
