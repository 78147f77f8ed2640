package server

import (
	"context"
	"runtime/debug"
	"time"
)

// giveBack returns memory to the operating system after a storm of logins: TLS handshakes leave garbage and deep stacks that idle sessions do
// not need. count is the number of connections accepted so far.
func giveBack(ctx context.Context, count func() uint64) {
	const (
		every = 5 * time.Second // chosen: a storm is over when this long brings few logins
		storm = 200             // chosen: handshakes worth a collection; each leaves about 100 KB behind
	)
	tick := time.NewTicker(every)
	defer tick.Stop()
	before, freed := count(), count()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			n := count()
			if n-before < storm/10 && n-freed >= storm {
				debug.FreeOSMemory()
				freed = n
			}
			before = n
		}
	}
}
