package xmpp

import (
	"context"
	"errors"
	"time"

	streamerr "mellium.im/xmpp/stream"
)

// Waiter is what a Session is besides when one can wait for its output. A module that sends much to one session sends it in portions
// well below the bound of an outbox and waits between them, so that the session is not ended for being slow at what it did not ask for at
// once.
type Waiter interface {
	// Written waits until the network has taken everything that was enqueued before the call. The error tells that the session has ended or is
	// being closed, or that ctx is done. It waits for a peer: only the goroutine that handles this session's own stanzas, or one that nobody
	// waits for, may call it, without a lock. What the batch of ctx has gathered must be flushed before.
	Written(ctx context.Context) error
}

const (
	// Portion is how many bytes a session gets before its output is waited for. chosen: well below the bound of an outbox, 1 MiB.
	Portion = 256 << 10
	// patience is how long the client may take to read a portion. chosen: like the server's other deadlines for one client.
	patience = 30 * time.Second
)

// Pace sends a session in portions what others have made large: contacts' presence and items, and strangers' requests must not end the session that
// they are shown to as one that reads too slowly. Who may use it is said at Waiter.
type Pace struct {
	To   Session // nil for what goes elsewhere: then nothing is waited for
	size int
}

// Sent counts n bytes that were sent, and waits after each portion until the network has taken it; false when the session takes no more.
func (p *Pace) Sent(ctx context.Context, n int) bool {
	if p.size += n; p.size < Portion {
		return true
	}
	p.size = 0
	if b := BatchFrom(ctx); b != nil {
		b.Flush()
	}
	w, ok := p.To.(Waiter)
	if !ok {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := w.Written(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		p.To.Close(streamerr.ResourceConstraint)
	}
	return err == nil
}
