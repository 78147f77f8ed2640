package router

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"balcony/xmpp"

	"github.com/prometheus/client_golang/prometheus"
	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

type box struct{ taken []*xmpp.Stanza }

func (b *box) Enqueue(_ context.Context, s *xmpp.Stanza) bool {
	b.taken = append(b.taken, s)
	return true
}
func (b *box) Close(streamerr.Error) {}

type all struct{}

func (all) AccountExists(context.Context, jid.JID) (bool, error) { return true, nil }

// A session that is replaced while it is being bound: its Ended hooks run after its Bound hooks.
func TestEndedRunsAfterBound(t *testing.T) {
	r := New(DefaultConfig(), all{}, NewMetrics(prometheus.NewRegistry()), slog.New(slog.NewTextHandler(io.Discard, nil)))
	account := jid.MustParse("romeo@localhost")
	r.SetHosts(map[string]Host{"localhost": {}})
	bound := make(map[xmpp.Session]int)
	ctx := context.Background()
	slow, reached := make(chan struct{}), make(chan struct{})
	// A is online; its hooks are slow (a spool is being delivered), so B waits in Bind for the end of A.
	first := true
	r.Registry().Ended(func(_ context.Context, s xmpp.Session) {
		bound[s]--
		if first {
			first = false
			close(reached)
			<-slow
		}
	})
	r.Registry().Bound(func(_ context.Context, s xmpp.Session) {
		if bound[s] < 0 {
			t.Error("Bound runs after Ended: the roster's reference to the account is never released")
		}
		bound[s]++
	})
	if _, err := r.Bind(ctx, account, "phone", new(box)); err != nil {
		t.Fatal(err)
	}
	var b *Session
	done := make(chan struct{})
	go func() { b, _ = r.Bind(ctx, account, "phone", new(box)); close(done) }() // B
	<-reached
	c, err := r.Bind(ctx, account, "phone", new(box)) // C: the client tried again; it replaces B
	if err != nil {
		t.Fatal(err)
	}
	close(slow)
	<-done
	r.Unbind(ctx, b) // B's connection sees that it was closed
	r.Unbind(ctx, c)
}
