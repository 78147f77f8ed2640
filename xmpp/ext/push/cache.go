package push

import (
	"context"
	"fmt"

	"mellium.im/xmpp/jid"
)

const maxCache = 16 << 20 // bytes. chosen: more than 30,000 accounts with a device or two

// registrations are those of an account, from memory if they were used lately.
func (m *Module) registrations(ctx context.Context, account jid.JID) ([]Registration, error) {
	key := account.String()
	list, known, gen := m.cache.Get(key)
	if known {
		return list, nil
	}
	list, err := m.store.PushRegistrations(ctx, account)
	if err != nil {
		return nil, fmt.Errorf("load push registrations of %s: %w", key, err)
	}
	m.cache.Put(key, list, sizeOf(key, list), gen)
	return list, nil
}

// surelyNot reports without a look into the database that a device has no registration.
func (m *Module) surelyNot(account, resource string) bool {
	list, known, _ := m.cache.Get(account)
	for _, r := range list {
		if r.Resource == resource || resource == "" {
			return false
		}
	}
	return known
}

// sizeOf is about what the registrations of an account take in memory.
func sizeOf(account string, all []Registration) int {
	size := len(account) + 200 // chosen: an entry with its places in list and map
	for _, r := range all {
		size += len(r.Node) + len(r.Resource) + len(r.Options) + len(r.Service.String()) + 200
	}
	return size
}
