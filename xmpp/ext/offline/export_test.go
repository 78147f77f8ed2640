package offline

import "time"

// Bounds for the tests.
const (
	MaxHeld = maxHeld
	Page    = page
	Portion = portion
)

// SetPause sets how long a delivery that failed waits before it is tried again.
func SetPause(m *Module, d time.Duration) { m.pause = d }

// Busy reports whether a spool is anybody's.
func Busy(m *Module) bool { return m.busyAccounts.Load() > 0 }
