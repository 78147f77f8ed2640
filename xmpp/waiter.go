package xmpp

import "context"

// Waiter is what a Session is besides when one can wait for its output. A module that sends much to one session sends it in portions
// well below the bound of an outbox and waits between them, so that the session is not ended for being slow at what it did not ask for at
// once.
type Waiter interface {
	// Written waits until the network has taken everything that was enqueued before the call. The error tells that the session has ended or is
	// being closed, or that ctx is done. It waits for a peer: only the goroutine that handles this session's own stanzas, or one that nobody
	// waits for, may call it, without a lock. What the batch of ctx has gathered must be flushed before.
	Written(ctx context.Context) error
}
