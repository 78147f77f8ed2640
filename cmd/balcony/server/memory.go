package server

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

// giveBack returns memory to the operating system after a storm of logins: TLS handshakes leave garbage and deep stacks that idle sessions do
// not need. freed is the number of what has left some so far; forget drops what was kept for those who come back at once.
//
// While the number of open connections grows, garbage is collected twice as often: what handshakes leave lies between what stays, and the holes
// are as many as there was garbage.
func giveBack(ctx context.Context, freed func() uint64, open func() int, forget func()) {
	const (
		every = 5   // seconds. chosen: a storm is over when this long brings few logins
		storm = 200 // chosen: handshakes worth a collection; each leaves about 80 KB behind
		grows = 20  // connections a second. chosen: fewer leave little garbage at once
		eager = 50  // GOGC. chosen: 1.2 KiB less a session after a storm of 2,000; collecting takes 3 % of a login with 100
	)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	before, returned, had := freed(), freed(), open()
	usual := -1 // GOGC while it is eager
	calm := func() {
		if usual >= 0 {
			debug.SetGCPercent(usual)
			usual = -1
		}
	}
	defer calm()
	for second := 1; ; second++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		has := open()
		switch growing := has-had >= grows; {
		case !growing:
			calm()
		case usual < 0:
			if was := debug.SetGCPercent(eager); was > eager {
				usual = was
			} else {
				debug.SetGCPercent(was) // the operator wants it even more often, or never
			}
		}
		had = has
		if second%every != 0 {
			continue
		}
		n := freed()
		if n-before < storm/10 && n-returned >= storm {
			forget()
			runtime.GC() // pools are empty after the second collection
			debug.FreeOSMemory()
			returned = n
		}
		before = n
	}
}
