package mam

import (
	"context"
	"sync"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// cache remembers the preferences of accounts that have messages. Bounded.
type cache struct {
	mu   sync.Mutex
	list map[string]Preferences // by bare JID; guarded by mu
	gen  int                    // grows with every drop: what was read before is not remembered after
}

// maxCached bounds the cache. chosen: about 2 MB, most accounts having no lists.
const maxCached = 1 << 14

func (c *cache) get(key string) (p Preferences, gen int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok = c.list[key]
	return p, c.gen, ok
}

func (c *cache) put(key string, p Preferences, gen int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if gen != c.gen {
		return
	}
	if len(c.list) >= maxCached {
		clear(c.list)
	}
	c.list[key] = p
}

func (c *cache) drop(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen++
	delete(c.list, key)
}

// of are the preferences of an account.
func (m *Module) of(ctx context.Context, owner jid.JID) (Preferences, error) {
	key := owner.String()
	p, gen, ok := m.preferences.get(key)
	if ok {
		return p, nil
	}
	p, err := m.store.ArchivePreferences(ctx, owner)
	if err == nil {
		m.preferences.put(key, p, gen)
	}
	return p, err
}

// wanted reports whether owner has what it sends to peer, or receives from it, archived: XEP-0441 §2.1 and §2.3. An error means that it is not
// known.
func (m *Module) wanted(ctx context.Context, owner, peer jid.JID) (bool, error) {
	p, err := m.of(ctx, owner)
	if err != nil {
		return false, err
	}
	listed := func(list []jid.JID) bool {
		for _, j := range list {
			if j.Equal(peer) || j.Resourcepart() == "" && j.Equal(peer.Bare()) { // §2.3.1
				return true
			}
		}
		return false
	}
	switch {
	case listed(p.Never):
		return false, nil
	case listed(p.Always) || p.Default == Always:
		return true, nil
	case p.Default == Never:
		return false, nil
	case peer.Bare().Equal(owner):
		return true, nil
	}
	return m.contacts.Listed(ctx, owner, peer.Bare())
}

// jids is a list of <jid/>.
type jids struct {
	JIDs []string `xml:"urn:xmpp:mam:2 jid"`
}

// getPreferences answers XEP-0441 §2.1.
func (m *Module) getPreferences(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	p, err := m.of(ctx, s.From.Bare())
	if err != nil {
		return nil, err
	}
	return p.element(), nil
}

func (p Preferences) element() *xmpp.Element {
	list := func(name string, all []jid.JID) *xmpp.Element {
		el := xmpp.El("", name)
		for _, j := range all {
			el.Add(xmpp.El("", "jid").Say(j.String()))
		}
		return el
	}
	return xmpp.El(NS, "prefs", "default", string(p.Default)).Add(list("always", p.Always), list("never", p.Never))
}

// setPreferences replaces them: XEP-0441 §2.1.
func (m *Module) setPreferences(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	var in struct {
		Default Default `xml:"default,attr"`
		Always  jids    `xml:"urn:xmpp:mam:2 always"`
		Never   jids    `xml:"urn:xmpp:mam:2 never"`
	}
	payload, _ := s.Payload()
	if err := payload.Decode(&in); err != nil {
		return nil, xmpp.ErrBadRequest
	}
	switch in.Default {
	case Always, Never, Roster:
	default:
		return nil, xmpp.ErrBadRequest // §2.1.1: "MUST be one of"
	}
	p := Preferences{Default: in.Default}
	for _, l := range []struct {
		from []string
		to   *[]jid.JID
	}{{in.Always.JIDs, &p.Always}, {in.Never.JIDs, &p.Never}} {
		if len(l.from) > m.cfg.JIDs {
			return nil, xmpp.ErrPolicyViolation
		}
		for _, text := range l.from {
			j, err := jid.Parse(text)
			if err != nil {
				return nil, xmpp.ErrJIDMalformed
			}
			*l.to = append(*l.to, j)
		}
	}
	owner := s.From.Bare()
	if err := m.store.SetArchivePreferences(ctx, owner, p); err != nil {
		return nil, err
	}
	m.preferences.drop(owner.String())
	return p.element(), nil
}
