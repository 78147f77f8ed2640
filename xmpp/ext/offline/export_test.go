package offline

// Bounds for the tests.
const (
	MaxHeld = maxHeld
	Page    = page
	Portion = portion
)
