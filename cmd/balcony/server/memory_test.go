package server

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// gogc is the GOGC of the process.
func gogc() int {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return int(s[0].Value.Uint64())
}

// Garbage is collected more often while connections grow, and memory is returned once a storm of logins is over; what the operator has set stays.
func TestGiveBack(t *testing.T) {
	for _, tt := range []struct{ set, eager int }{{100, 50}, {200, 50}, {20, 20}} {
		synctest.Test(t, func(t *testing.T) {
			before := debug.SetGCPercent(tt.set)
			defer debug.SetGCPercent(before)
			var logins, open, forgotten atomic.Int64
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				giveBack(ctx, func() uint64 { return uint64(logins.Load()) }, func() int { return int(open.Load()) }, func() { forgotten.Add(1) })
			}()
			second := func(connections int64) {
				logins.Add(connections)
				open.Add(connections)
				time.Sleep(time.Second)
				synctest.Wait()
			}
			for range 10 {
				second(1)
			}
			if got := gogc(); got != tt.set || forgotten.Load() != 0 {
				t.Errorf("quiet: GOGC %d, want %d; returned %d times", got, tt.set, forgotten.Load())
			}
			for range 10 {
				second(100)
				if got := gogc(); got != tt.eager {
					t.Errorf("storm: GOGC %d, want %d", got, tt.eager)
				}
			}
			for range 10 {
				second(0)
				if got := gogc(); got != tt.set {
					t.Errorf("after it: GOGC %d, want %d", got, tt.set)
				}
			}
			if n := forgotten.Load(); n != 1 {
				t.Errorf("memory was returned %d times", n)
			}
			second(100)
			cancel()
			<-done
			if got := gogc(); got != tt.set {
				t.Errorf("in the end: GOGC %d, want %d", got, tt.set)
			}
		})
	}
}
