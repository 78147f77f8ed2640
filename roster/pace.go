package roster

import (
	"context"
	"errors"
	"time"

	"balcony/xmpp"

	streamerr "mellium.im/xmpp/stream"
)

const (
	// portion is how many bytes a session gets before its output is waited for. chosen: well below the bound of an outbox, 1 MiB.
	portion = 256 << 10
	// patience is how long the client may take to read a portion. chosen: like the server's other deadlines for one client.
	patience = 30 * time.Second
)

// pace sends a session in portions what others have made large: contacts' presence and strangers' requests must not end the session
// that they are shown to as one that reads too slowly. Only the session's own reader uses it.
type pace struct {
	to   xmpp.Session
	size int
}

// sent counts n bytes; false when the session takes no more.
func (p *pace) sent(ctx context.Context, n int) bool {
	if p.size += n; p.size < portion {
		return true
	}
	p.size = 0
	return p.wait(ctx)
}

// wait waits until the network has taken what the session was sent.
func (p *pace) wait(ctx context.Context) bool {
	if b := xmpp.BatchFrom(ctx); b != nil {
		b.Flush()
	}
	w, ok := p.to.(xmpp.Waiter)
	if !ok {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := w.Written(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		p.to.Close(streamerr.ResourceConstraint)
	}
	return err == nil
}
