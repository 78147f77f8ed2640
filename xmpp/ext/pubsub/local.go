package pubsub

import (
	"context"
	"errors"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// What other parts of the server do with the nodes of an account, in its name: no access is asked for, and no node is made by mistake.

// Items returns the items of an account's node in the order of publishing. Without the node there are none.
func (m *Module) Items(ctx context.Context, account jid.JID, node string) ([]Item, error) {
	items, _, err := m.query(ctx, account, node, Query{Max: unbounded})
	return items, err
}

// Has reports whether an account has a node.
func (m *Module) Has(ctx context.Context, account jid.JID, node string) (bool, error) {
	_, _, err := m.node(ctx, m.placeOf(account), node, account)
	if errors.Is(err, ErrNoNode) {
		return false, nil
	}
	return err == nil, err
}

// Newest returns the newest item of an account's node, or the one with that id, and whether everybody may read it.
func (m *Module) Newest(ctx context.Context, account jid.JID, node, id string) (it Item, found, open bool, err error) {
	q := Query{Max: 1, Last: true}
	if id != "" {
		q = Query{Max: 1, IDs: []string{id}}
	}
	items, open, err := m.query(ctx, account, node, q)
	if err != nil || len(items) == 0 {
		return Item{}, false, open, err
	}
	return items[0], true, open, nil
}

// query finds items of an account's node, and whether everybody may read them.
func (m *Module) query(ctx context.Context, account jid.JID, node string, q Query) (items []Item, open bool, err error) {
	at := m.placeOf(account)
	f, err := m.look(ctx, at, node, account)
	if errors.Is(err, ErrNoNode) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	q.Since = f.Config.expiry(m.srv.Now())
	p, err := m.store.PubSubItems(ctx, at.jid, node, q)
	return p.Items, f.Config.Access == Open, err
}

// Put publishes an item to an account's node, which is made if it is not there, and then open if open says so. The payload is one element that
// declares its namespace. A refusal is a stanza error.
func (m *Module) Put(ctx context.Context, account jid.JID, node, id string, payload []byte, open bool) error {
	at := m.placeOf(account)
	return storeError(m.queues.do(ctx, at.key, func() (func(context.Context), error) {
		f, err := m.load(ctx, at, node, account)
		if errors.Is(err, ErrNoNode) {
			if f.Node, err = m.draft(at, node, nil); err != nil {
				return nil, err
			}
			if open && profileOf(node).allows(Open) {
				f.Config.Access = Open
			}
			err = m.store.CreatePubSubNode(ctx, at.jid, f.Node)
		}
		if err != nil {
			return nil, err
		}
		item := Item{ID: id, Payload: payload}
		if item.Payload, err = f.Config.accepts(item, true); err != nil {
			return nil, err
		}
		return m.write(ctx, at, f.Node, item, at.jid)
	}))
}

// Remove retracts an item of an account's node, with notifications; one that is not there is no error.
func (m *Module) Remove(ctx context.Context, account jid.JID, node, id string) error {
	at := m.placeOf(account)
	err := m.queues.do(ctx, at.key, func() (func(context.Context), error) {
		f, err := m.load(ctx, at, node, account)
		if err != nil {
			return nil, err
		}
		return m.remove(ctx, at, f.Node, id, true)
	})
	if errors.Is(err, ErrNoNode) {
		return nil
	}
	if e, expected := xmpp.AsStanzaError(err); expected && e.Stanza.Condition == xmpp.ErrItemNotFound.Condition {
		return nil
	}
	return storeError(err)
}

// Readable reports whether somebody may read a node of an account, and also that there is none.
func (m *Module) Readable(ctx context.Context, account, asker jid.JID, node string) (bool, error) {
	f, err := m.look(ctx, m.placeOf(account), node, asker)
	if errors.Is(err, ErrNoNode) {
		return true, nil
	}
	return err == nil && f.decide(Retrieve) == allowed, err
}
