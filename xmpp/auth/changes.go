package auth

import (
	"hash/maphash"
	"sync/atomic"

	"mellium.im/xmpp/jid"
)

// changes counts the changes of what a login depends on, so that a login which has read an account's verifier notices when that was
// replaced meanwhile. Accounts share counters: a change of one may seem one of another, never the other way round.
type changes struct {
	seed  maphash.Seed
	count [4096]atomic.Uint32 // chosen: 16 KiB; at ten changes a second a login of 100 ms sees a wrong one once in 4,000 times
}

func newChanges() *changes { return &changes{seed: maphash.MakeSeed()} }

func (c *changes) counter(account jid.JID) *atomic.Uint32 {
	return &c.count[maphash.String(c.seed, account.String())%uint64(len(c.count))]
}

// note is called after a change is stored.
func (c *changes) note(account jid.JID) { c.counter(account).Add(1) }

// of is called before what may change is read.
func (c *changes) of(account jid.JID) uint32 { return c.counter(account).Load() }
