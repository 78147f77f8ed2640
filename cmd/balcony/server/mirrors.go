package server

import (
	"context"
	"time"

	"balcony/xmpp/ext/avatar"
	"balcony/xmpp/ext/bookmarks"
	"balcony/xmpp/ext/pubsub"
	"balcony/xmpp/ext/vcard4"

	"mellium.im/xmpp/jid"
)

// What is kept in two places at an account, a node and an older storage, is kept in step by modules that know one another only through what stands here.
// A change that a module makes for that reason is marked, and nobody mirrors it again.

type mirrored struct{}

// mirror tells the modules of changes of the nodes that they mirror.
func mirror(ps *pubsub.Module, av *avatar.Module, v4 vcard4.Module, bm bookmarks.Module) {
	watch := func(node string, f func(context.Context, pubsub.Change)) {
		ps.Watch(node, func(ctx context.Context, c pubsub.Change) {
			if _, ours := c.Cause.(mirrored); !ours && !c.Configured {
				f(ctx, c)
			}
		})
	}
	configured := func(node string, f func(context.Context, pubsub.Change)) {
		ps.Watch(node, func(ctx context.Context, c pubsub.Change) {
			if _, ours := c.Cause.(mirrored); !ours && c.Configured {
				f(ctx, c)
			}
		})
	}
	for _, node := range []string{avatar.NSMetadata, avatar.NSData} {
		configured(node, func(ctx context.Context, c pubsub.Change) { av.Configured(ctx, c.Account) })
	}
	watch(avatar.NSData, func(ctx context.Context, c pubsub.Change) {
		if c.Item == nil {
			av.Configured(ctx, c.Account) // what the metadata tell of may be gone
		}
	})
	watch(avatar.NSMetadata, func(ctx context.Context, c pubsub.Change) {
		av.Published(ctx, c.Account, payload(c), c.Config.Access == pubsub.Open)
	})
	ps.Doomed(vcard4.Node, v4.Deleted)
	watch(vcard4.Node, func(ctx context.Context, c pubsub.Change) {
		v4.Published(ctx, c.Account, payload(c))
	})
	for _, node := range []string{bookmarks.NS, bookmarks.NSOld} {
		watch(node, func(ctx context.Context, c pubsub.Change) {
			var at time.Time
			if c.Item != nil {
				at = c.Item.Published
			}
			bm.Published(ctx, c.Account, node, payload(c), at)
		})
		ps.Absent(node, bm.Adopt)
	}
}

// payload is what was published, nil when something was taken away.
func payload(c pubsub.Change) []byte {
	if c.Item == nil {
		return nil
	}
	return c.Item.Payload
}

// cardsChanged tells the modules of a vCard (XEP-0054) that a client has stored.
func cardsChanged(av *avatar.Module, v4 vcard4.Module) func(context.Context, jid.JID, []byte, []byte) {
	return func(ctx context.Context, account jid.JID, before, card []byte) {
		av.Stored(ctx, account, before, card)
		v4.Stored(ctx, account, card)
	}
}

func put(ctx context.Context, ps *pubsub.Module, account jid.JID, node, id string, payload []byte, open bool) error {
	return ps.Put(pubsub.WithCause(ctx, mirrored{}), account, node, id, payload, open)
}

// avatarNodes is pubsub as avatar sees it.
type avatarNodes struct{ ps *pubsub.Module }

func (n avatarNodes) Newest(ctx context.Context, account jid.JID, node, id string) ([]byte, bool, error) {
	it, _, open, err := n.ps.Newest(ctx, account, node, id)
	return it.Payload, open, err
}

func (n avatarNodes) Put(ctx context.Context, account jid.JID, node, id string, payload []byte) error {
	return put(ctx, n.ps, account, node, id, payload, true)
}

// cardNodes is pubsub as vcard4 sees it.
type cardNodes struct{ ps *pubsub.Module }

func (n cardNodes) Newest(ctx context.Context, account jid.JID, node string) (string, []byte, error) {
	it, _, _, err := n.ps.Newest(ctx, account, node, "")
	return it.ID, it.Payload, err
}

func (n cardNodes) Put(ctx context.Context, account jid.JID, node, id string, payload []byte) error {
	return put(ctx, n.ps, account, node, id, payload, true)
}

func (n cardNodes) Readable(ctx context.Context, account, asker jid.JID, node string) (bool, error) {
	return n.ps.Readable(ctx, account, asker, node)
}

// bookmarkNodes is pubsub as bookmarks sees it.
type bookmarkNodes struct{ ps *pubsub.Module }

func (n bookmarkNodes) Has(ctx context.Context, account jid.JID, node string) (bool, error) {
	return n.ps.Has(ctx, account, node)
}

func (n bookmarkNodes) Items(ctx context.Context, account jid.JID, node string) ([]bookmarks.Item, error) {
	items, err := n.ps.Items(ctx, account, node)
	all := make([]bookmarks.Item, len(items))
	for i, it := range items {
		all[i] = bookmarks.Item{ID: it.ID, Payload: it.Payload, Published: it.Published}
	}
	return all, err
}

func (n bookmarkNodes) Put(ctx context.Context, account jid.JID, node, id string, payload []byte) error {
	return put(ctx, n.ps, account, node, id, payload, false)
}

func (n bookmarkNodes) Remove(ctx context.Context, account jid.JID, node, id string) error {
	return n.ps.Remove(pubsub.WithCause(ctx, mirrored{}), account, node, id)
}
