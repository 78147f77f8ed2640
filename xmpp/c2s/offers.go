package c2s

import (
	"strings"
	"sync"
)

// offer is the features of a stream as they are sent, and their name (XEP-0509).
type offer struct {
	features []byte
	version  string
}

// offers remembers the features of streams: they are the same for one client after the other, and making them would be a large part of the
// garbage of a login.
type offers struct {
	mu sync.Mutex
	// Guarded by mu.
	cfg   *Config // that they were made with: everything that they depend on and that may change comes with a new one
	known map[string]offer
}

// maxOffers bounds what is remembered. chosen: some kinds of connections of each of many domains; about 1 MB.
const maxOffers = 512

// offerKey names an offer by what it depends on beside the configuration.
func offerKey(what, domain string, lists ...[]string) string {
	var b strings.Builder
	b.WriteString(what)
	b.WriteByte('\n')
	b.WriteString(domain)
	for _, list := range lists {
		b.WriteByte('\n')
		for _, s := range list {
			b.WriteString(s)
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// get returns the offer of that key for a connection with cfg, not to be changed; make makes it.
func (o *offers) get(cfg *Config, key string, make func() offer) offer {
	o.mu.Lock()
	if o.cfg == cfg {
		if known, ok := o.known[key]; ok {
			o.mu.Unlock()
			return known
		}
	}
	o.mu.Unlock()
	fresh := make()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cfg != cfg || len(o.known) >= maxOffers {
		o.cfg, o.known = cfg, map[string]offer{}
	}
	o.known[key] = fresh
	return fresh
}
