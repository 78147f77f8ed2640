package auth

import (
	"sync"

	"mellium.im/xmpp/jid"
)

// maxRecent bounds the accounts whose credentials are remembered. chosen: about 1.6 MB, 3 MB when strangers make up the longest names, until ForgetRecent;
// who comes back does so soon, and the database would be asked each time.
const maxRecent = 2048

// recent remembers the credentials of accounts that somebody wanted to log into; of those that do not exist, too, or the time of the second try would tell
// which do. All changes of an account's credentials in this process drop them, and nobody else may change them while a server runs.
type recent struct {
	mu sync.Mutex
	// Guarded by mu.
	accounts map[string]Credentials // by bare JID; the lists are read-only
	drops    int                    // grows by every drop: what was read before a change is not remembered after it
}

// get returns what is remembered of an account, and the number of drops for put.
func (r *recent) get(key string) (c Credentials, ok bool, drops int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok = r.accounts[key]
	return c, ok, r.drops
}

func (r *recent) put(key string, c Credentials, drops int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if drops != r.drops {
		return
	}
	if r.accounts == nil {
		r.accounts = make(map[string]Credentials)
	}
	if len(r.accounts) >= maxRecent {
		for k := range r.accounts { // any one
			delete(r.accounts, k)
			break
		}
	}
	r.accounts[key] = c
}

// ForgetRecent gives back the memory of what is remembered of accounts that have logged in: a storm of logins is over.
func (a *Authenticator) ForgetRecent() {
	a.recent.mu.Lock()
	defer a.recent.mu.Unlock()
	a.recent.accounts = nil
}

// drop forgets an account. It is called after a change was stored.
func (r *recent) drop(account jid.JID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drops++
	delete(r.accounts, account.String())
}
