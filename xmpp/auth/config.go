package auth

import (
	"runtime"
	"time"
)

// MinIterations is the lowest iteration count of a verifier: RFC 5802 §5.1 and RFC 7677 §3 forbid servers to announce less.
const MinIterations = 4096

// Config of authentication.
type Config struct {
	// Iterations is the PBKDF2 iteration count of new verifiers, at least 4096. More makes the guessing of stolen verifiers dearer, for
	// the thief as for each login with PLAIN and for the client of each login with SCRAM. Verifiers that exist keep theirs until the
	// password is changed.
	Iterations int
	// PlainConcurrency is how many passwords are hashed at the same time, for PLAIN and for new passwords; SCRAM hashes none.
	PlainConcurrency int
	// PlainQueue is how many more may wait for that; beyond it a login with PLAIN fails with temporary-auth-failure.
	PlainQueue int
	// Delay is the longest interval that failed logins put between two further ones from an address, or to an account. It grows from one
	// second and fades. At most a day; 0: no back-off.
	Delay time.Duration
	// Wait is the longest time that one login waits for that interval to pass; it has to fit into the time that a client has to log in. A
	// login that would have to wait longer goes on when it was the account that was guessed at, so that strangers lock nobody out, and
	// fails with temporary-auth-failure when it was this very address that guessed.
	Wait time.Duration
	// TokenLifetime is how long a client may stay away and still log in with its token (XEP-0484), between a minute and ten years. A
	// device that was lost or sold can log in for as long, unless its token is revoked or the password is changed.
	TokenLifetime time.Duration
	// TokenRotation is the age from which a token is replaced when it is used, so that a client which comes back from time to time has a
	// token for ever and a stolen one stops to work when its owner's client comes back. At most the half of TokenLifetime.
	TokenRotation time.Duration
}

// DefaultConfig returns the configuration of a server that nobody configured.
func DefaultConfig() Config {
	return Config{
		// chosen: the minimum that XEP-0438 §7 recommends where the highest security is not asked for. A login with
		// SCRAM costs the server the same whatever the count is; one with PLAIN costs a PBKDF2 with SHA-512, some milliseconds.
		Iterations:       10000,
		PlainConcurrency: runtime.NumCPU(), // chosen: more would only make each slower
		PlainQueue:       256,              // chosen: the last one waits a second or two, well within the time for login
		Delay:            time.Minute,
		Wait:             10 * time.Second,    // chosen: a third of the 30 s for login, so that TLS and a second try fit
		TokenLifetime:    21 * 24 * time.Hour, // chosen: a phone may lie in a drawer over the holidays
		TokenRotation:    24 * time.Hour,      // chosen: one more write to the database a day and client
	}
}

func (c Config) clamp() Config {
	c.Iterations = max(c.Iterations, MinIterations)
	c.PlainConcurrency = max(c.PlainConcurrency, 1)
	c.PlainQueue = max(c.PlainQueue, 0)
	c.Delay = min(max(c.Delay, 0), 24*time.Hour)
	c.Wait = max(c.Wait, 0)
	c.TokenLifetime = min(max(c.TokenLifetime, time.Minute), 10*365*24*time.Hour)
	c.TokenRotation = min(max(c.TokenRotation, 0), c.TokenLifetime/2)
	return c
}
