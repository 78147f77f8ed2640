package storage

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"balcony/xmpp/auth"
	"balcony/xmpp/ext/pubsub"

	"mellium.im/xmpp/jid"
)

var _ pubsub.Store = (*DB)(nil)

// nameDigest stands for a JID, a node or an item in the tables of pubsub.
func nameDigest(s string) []byte {
	d := sha256.Sum256([]byte(s))
	return d[:]
}

// storedJID reads a JID that was stored in canonical form; the zero JID for an empty one.
func storedJID(s string) (jid.JID, error) {
	if s == "" {
		return jid.JID{}, nil
	}
	j, err := jid.ParseUnsafe(s)
	if err != nil {
		return jid.JID{}, fmt.Errorf("stored JID %q: %w", s, err)
	}
	return j.JID, nil
}

// nodeRow are the columns of a node with a standing, in the order of dest.
type nodeRow struct {
	name, creator       string
	config              []byte
	created, items      int64
	affiliation, joined int64
}

func (r *nodeRow) dest() []any {
	return []any{&r.name, &r.config, &r.creator, &r.created, &r.items, &r.affiliation, &r.joined}
}

func (r *nodeRow) found() (f pubsub.Found, err error) {
	f.Node = pubsub.Node{Name: r.name, Created: time.UnixMicro(r.created).UTC(), Items: int(r.items)}
	if f.Node.Creator, err = storedJID(r.creator); err != nil {
		return f, err
	}
	if err := json.Unmarshal(r.config, &f.Node.Config); err != nil {
		return f, fmt.Errorf("stored configuration: %w", err)
	}
	f.Standing = pubsub.Standing{Affiliation: pubsub.Affiliation(r.affiliation), Subscription: pubsub.State(r.joined)}
	return f, nil
}

// PubSubNode returns a node and the standing of peer at it, or pubsub.ErrNoNode.
func (db *DB) PubSubNode(ctx context.Context, service jid.JID, name string, peer jid.JID) (pubsub.Node, pubsub.Standing, error) {
	var f pubsub.Found
	found := false
	err := db.read(ctx, "PubSubNode", func(q queries) (err error) {
		var r nodeRow
		found, err = q.row(`SELECT n.name, n.config, n.creator, n.created, n.items,
			coalesce((SELECT a.affiliation FROM pubsub_affiliation a WHERE a.node_id = n.id AND a.digest = $3), 0),
			coalesce((SELECT max(s.state) FROM pubsub_subscription s WHERE s.node_id = n.id AND s.bare = $3), 0)
			FROM pubsub_node n WHERE n.service = $1 AND n.digest = $2`,
			[]any{nameDigest(service.String()), nameDigest(name), nameDigest(peer.Bare().String())}, r.dest()...)
		if err == nil && found {
			f, err = r.found()
		}
		return err
	})
	if err == nil && !found {
		err = pubsub.ErrNoNode
	}
	if err != nil {
		return pubsub.Node{}, pubsub.Standing{}, fmt.Errorf("node of %s: %w", service, err)
	}
	return f.Node, f.Standing, nil
}

// PubSubNodes returns the nodes of a service in the order of creation.
func (db *DB) PubSubNodes(ctx context.Context, service, peer jid.JID) (all []pubsub.Found, err error) {
	err = db.read(ctx, "PubSubNodes", func(q queries) error {
		all = nil
		return q.rows(`SELECT n.name, n.config, n.creator, n.created, n.items,
			coalesce((SELECT a.affiliation FROM pubsub_affiliation a WHERE a.node_id = n.id AND a.digest = $2), 0),
			coalesce((SELECT max(s.state) FROM pubsub_subscription s WHERE s.node_id = n.id AND s.bare = $2), 0)
			FROM pubsub_node n WHERE n.service = $1 ORDER BY n.id`,
			[]any{nameDigest(service.String()), nameDigest(peer.Bare().String())},
			func(scan func(...any) error) error {
				var r nodeRow
				if err := scan(r.dest()...); err != nil {
					return err
				}
				f, err := r.found()
				all = append(all, f)
				return err
			})
	})
	if err != nil {
		return nil, fmt.Errorf("nodes of %s: %w", service, err)
	}
	return all, nil
}

// nodePageText is the text of a page of nodes, with back of one from the last node backwards. No bare JID has a space.
func (e *engine) nodePageText(back bool) string {
	order := "n.service, n.id"
	if back {
		order = "n.service DESC, n.id DESC"
	}
	return `SELECT coalesce((SELECT string_agg(a.jid, ' ') FROM pubsub_affiliation a WHERE a.node_id = n.id AND a.affiliation = 5), ''),
		n.name, n.config, n.creator, n.created, n.items,
		coalesce((SELECT a.affiliation FROM pubsub_affiliation a WHERE a.node_id = n.id AND a.digest = $2), 0),
		coalesce((SELECT max(s.state) FROM pubsub_subscription s WHERE s.node_id = n.id AND s.bare = $2), 0)
		FROM pubsub_node n WHERE ` + e.nodesBetween + " ORDER BY " + order + " LIMIT $5"
}

// PubSubNodePage returns some nodes of a service.
func (db *DB) PubSubNodePage(ctx context.Context, service, peer jid.JID, want pubsub.NodeQuery) (page []pubsub.Found, err error) {
	of, gone := nameDigest(service.String()), false
	err = db.read(ctx, "PubSubNodePage", func(q queries) error {
		page, gone = nil, false
		low, high := int64(-1), int64(1<<62)
		for _, edge := range []struct {
			name string
			at   *int64
		}{{want.After, &low}, {want.Before, &high}} {
			if edge.name == "" {
				continue
			}
			found, err := q.row("SELECT id FROM pubsub_node WHERE service = $1 AND digest = $2", []any{of, nameDigest(edge.name)}, edge.at)
			if err != nil {
				return err
			}
			gone = gone || !found
		}
		if gone {
			return nil
		}
		return q.rows(db.e.nodePageText(want.Last), []any{of, nameDigest(peer.Bare().String()), low, high, want.Max}, func(scan func(...any) error) error {
			var owners string
			var r nodeRow
			if err := scan(append([]any{&owners}, r.dest()...)...); err != nil {
				return err
			}
			f, err := r.found()
			if a := f.Node.Config.Access; a == pubsub.Presence || a == pubsub.Roster {
				for name := range strings.FieldsSeq(owners) {
					owner, e := storedJID(name)
					f.Owners, err = append(f.Owners, owner), errors.Join(err, e)
				}
			}
			page = append(page, f)
			return err
		})
	})
	if err == nil && gone {
		err = pubsub.ErrNoNode
	}
	if err != nil {
		return nil, fmt.Errorf("nodes of %s: %w", service, err)
	}
	return page, nil
}

// CreatePubSubNode makes a node with its owner.
func (db *DB) CreatePubSubNode(ctx context.Context, service jid.JID, n pubsub.Node) error {
	config, err := json.Marshal(n.Config)
	if err != nil {
		return fmt.Errorf("create node of %s: %w", service, err)
	}
	of, owner := nameDigest(service.String()), n.Creator.Bare().String()
	err = db.writer.do(ctx, len(n.Name)+len(config), func(q queries) error {
		var account any // NULL for a service
		limit := db.limits.PubSubServiceNodes
		if service.Localpart() != "" {
			id, err := db.accountID(q, service)
			if errors.Is(err, auth.ErrNoAccount) {
				err = refuse(fmt.Errorf("%w: %w", pubsub.ErrAccount, auth.ErrNoAccount))
			}
			if err != nil {
				return err
			}
			account, limit = id, db.limits.PubSubNodes
		}
		var id int64
		found, err := q.row("SELECT id FROM pubsub_node WHERE service = $1 AND digest = $2", []any{of, nameDigest(n.Name)}, &id)
		if err != nil {
			return err
		}
		if found {
			return refuse(pubsub.ErrExists)
		}
		var nodes, own int
		if _, err := q.row("SELECT count(*) FROM pubsub_node WHERE service = $1", []any{of}, &nodes); err != nil {
			return err
		}
		if account == nil {
			if _, err := q.row(`SELECT count(*) FROM pubsub_affiliation a JOIN pubsub_node n ON n.id = a.node_id
				WHERE a.digest = $1 AND a.affiliation = 5 AND n.service = $2`, []any{nameDigest(owner), of}, &own); err != nil {
				return err
			}
		}
		if nodes >= limit || own >= db.limits.PubSubNodes {
			return refuse(pubsub.ErrMaxNodes)
		}
		if err := db.nodeHasRoom(q, service, nodeTotals{config: int64(len(config)), account: account != nil}); err != nil {
			return err
		}
		if _, err := q.row(`INSERT INTO pubsub_node (account_id, service, digest, name, config, creator, created) VALUES ($1, $2, $3, $4, $5, $6, $7)
			RETURNING id`, []any{account, of, nameDigest(n.Name), n.Name, config, owner, n.Created.UnixMicro()}, &id); err != nil {
			return err
		}
		_, err = q.exec("INSERT INTO pubsub_affiliation (node_id, digest, jid, affiliation) VALUES ($1, $2, $3, 5)", id, nameDigest(owner), owner)
		return err
	})
	if err != nil {
		return fmt.Errorf("create node of %s: %w", service, err)
	}
	return nil
}

// nodeTotals is the row of a node while its items change.
type nodeTotals struct {
	id, sequence, items, bytes int64
	config                     int64 // bytes
	account                    bool
}

// lockNode finds a node and keeps other processes from changing it until the transaction ends. It takes a number of the sequence, which may have
// gaps.
func lockNode(q queries, service jid.JID, name string) (t nodeTotals, err error) {
	var account *int64
	found, err := q.row(`UPDATE pubsub_node SET sequence = sequence + 1 WHERE service = $1 AND digest = $2
		RETURNING id, sequence, items, bytes, length(config), account_id`, []any{nameDigest(service.String()), nameDigest(name)},
		&t.id, &t.sequence, &t.items, &t.bytes, &t.config, &account)
	if err == nil && !found {
		err = refuse(pubsub.ErrNoNode)
	}
	t.account = account != nil
	return t, err
}

// save writes the totals back.
func (t nodeTotals) save(q queries) error {
	_, err := q.exec("UPDATE pubsub_node SET items = $2, bytes = $3 WHERE id = $1", t.id, t.items, t.bytes)
	return err
}

// itemCost is what an item counts beside its payload and its id. chosen: the row and its place in two indexes.
const itemCost = 200

// oldItem is an item that may have to go.
type oldItem struct {
	id             string
	sequence, size int64
}

// oldest are the n items that were published first, without the one of that digest.
func (t *nodeTotals) oldest(q queries, n int64, but []byte) (list []oldItem, err error) {
	if n <= 0 {
		return nil, nil
	}
	err = q.rows("SELECT id, sequence, length(payload) FROM pubsub_item WHERE node_id = $1 AND digest <> $2 ORDER BY sequence LIMIT $3", []any{t.id, but, n},
		func(scan func(...any) error) error {
			var it oldItem
			if err := scan(&it.id, &it.sequence, &it.size); err != nil {
				return err
			}
			it.size += int64(len(it.id)) + itemCost
			list = append(list, it)
			return nil
		})
	return list, err
}

// without takes items off the totals.
func (t *nodeTotals) without(list ...oldItem) {
	for _, it := range list {
		t.items--
		t.bytes -= it.size
	}
}

// drop removes the items that oldest has returned.
func (t *nodeTotals) drop(q queries, list []oldItem, but []byte) error {
	if len(list) == 0 {
		return nil
	}
	_, err := q.exec("DELETE FROM pubsub_item WHERE node_id = $1 AND sequence <= $2 AND digest <> $3", t.id, list[len(list)-1].sequence, but)
	return err
}

func ids(list []oldItem) (all []string) {
	for _, it := range list {
		all = append(all, it.id)
	}
	return all
}

// ConfigurePubSubNode replaces a node's configuration.
func (db *DB) ConfigurePubSubNode(ctx context.Context, service jid.JID, name string, c pubsub.Config, keep int) (removed []string, err error) {
	config, err := json.Marshal(c)
	if err == nil {
		err = db.writer.do(ctx, len(config), func(q queries) error {
			removed = nil
			t, err := lockNode(q, service, name)
			if err != nil {
				return err
			}
			var stored []byte
			var was pubsub.Config
			if _, err := q.row("SELECT config FROM pubsub_node WHERE id = $1", []any{t.id}, &stored); err != nil {
				return err
			}
			if err := json.Unmarshal(stored, &was); err != nil {
				return fmt.Errorf("stored configuration: %w", err)
			}
			old, err := t.oldest(q, t.items-int64(keep), []byte{})
			if err != nil {
				return err
			}
			t.without(old...)
			t.config = int64(len(config))
			if c.Texts() > was.Texts() { // what is only put right must not fail for want of room
				if err := db.nodeHasRoom(q, service, t); err != nil {
					return err
				}
			}
			if _, err := q.exec("UPDATE pubsub_node SET config = $2 WHERE id = $1", t.id, config); err != nil {
				return err
			}
			if err := t.drop(q, old, []byte{}); err != nil {
				return err
			}
			removed = ids(old)
			return t.save(q)
		})
	}
	if err != nil {
		return nil, fmt.Errorf("configure node of %s: %w", service, err)
	}
	return removed, nil
}

// DeletePubSubNode removes a node and everything of it.
func (db *DB) DeletePubSubNode(ctx context.Context, service jid.JID, name string) error {
	err := db.write(ctx, func(q queries) error {
		n, err := q.exec("DELETE FROM pubsub_node WHERE service = $1 AND digest = $2", nameDigest(service.String()), nameDigest(name))
		if err == nil && n == 0 {
			err = refuse(pubsub.ErrNoNode)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("delete node of %s: %w", service, err)
	}
	return nil
}

// PublishPubSubItem stores an item as the newest one.
func (db *DB) PublishPubSubItem(ctx context.Context, service jid.JID, name string, it pubsub.Item, keep int, reject bool, since time.Time) (removed []string, err error) {
	size := int64(len(it.Payload)) + int64(len(it.ID)) + itemCost
	payload := it.Payload
	if payload == nil {
		payload = []byte{}
	}
	publisher, by := "", any(nil)
	if !it.Publisher.Equal(jid.JID{}) {
		publisher = it.Publisher.Bare().String()
		by = nameDigest(publisher)
	}
	err = db.writer.do(ctx, int(size), func(q queries) error {
		removed = nil
		t, err := lockNode(q, service, name)
		if err != nil {
			return err
		}
		digest := nameDigest(it.ID)
		replaced := oldItem{id: it.ID}
		found, err := q.row("SELECT length(payload) FROM pubsub_item WHERE node_id = $1 AND digest = $2", []any{t.id, digest}, &replaced.size)
		if err != nil {
			return err
		}
		if found {
			replaced.size += int64(len(it.ID)) + itemCost
			t.without(replaced)
		}
		// The order is that of publishing, so the expired ones are the oldest.
		var expired int64
		if !since.IsZero() {
			if _, err := q.row("SELECT count(*) FROM pubsub_item WHERE node_id = $1 AND digest <> $2 AND published < $3",
				[]any{t.id, digest, since.UnixMicro()}, &expired); err != nil {
				return err
			}
		}
		over := t.items + 1 - int64(min(keep, db.limits.PubSubItems))
		if reject && !found && over > expired {
			return refuse(pubsub.ErrNodeFull)
		}
		if reject {
			over = 0 // nothing goes before its time, even where the limit is lower than it was
		}
		old, err := t.oldest(q, max(expired, over), digest)
		if err != nil {
			return err
		}
		t.without(old...)
		t.items++
		t.bytes += size
		if err := db.nodeHasRoom(q, service, t); err != nil {
			return err
		}
		// From here on nothing is refused: a refusal must not leave changes.
		if err := t.drop(q, old, digest); err != nil {
			return err
		}
		if n := int(min(expired, int64(len(old)))); n < len(old) {
			removed = ids(old[n:])
		}
		if _, err := q.exec(`INSERT INTO pubsub_item (node_id, digest, id, sequence, publisher, publisher_digest, published, payload)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (node_id, digest) DO UPDATE SET sequence = excluded.sequence, publisher = excluded.publisher,
			publisher_digest = excluded.publisher_digest, published = excluded.published, payload = excluded.payload`, t.id, digest, it.ID, t.sequence, publisher, by, it.Published.UnixMicro(), payload); err != nil {
			return err
		}
		return t.save(q)
	})
	if err != nil {
		return nil, fmt.Errorf("publish to node of %s: %w", service, err)
	}
	return removed, nil
}

// nodeHasRoom holds the bound in bytes: all nodes of an account together, each node of a service alone, with their
// configurations.
func (db *DB) nodeHasRoom(q queries, service jid.JID, t nodeTotals) error {
	total := t.bytes + t.config
	if t.account {
		var others int64
		if _, err := q.row("SELECT CAST(coalesce(sum(bytes + length(config)), 0) AS BIGINT) FROM pubsub_node WHERE service = $1 AND id <> $2",
			[]any{nameDigest(service.String()), t.id}, &others); err != nil {
			return err
		}
		total += others
	}
	if total > int64(db.limits.PubSubBytes) {
		return refuse(pubsub.ErrFull)
	}
	return nil
}

// RetractPubSubItem removes an item.
func (db *DB) RetractPubSubItem(ctx context.Context, service jid.JID, name, id string) (found bool, err error) {
	err = db.write(ctx, func(q queries) error {
		t, err := lockNode(q, service, name)
		if err != nil {
			return err
		}
		var size int64
		if found, err = q.row("DELETE FROM pubsub_item WHERE node_id = $1 AND digest = $2 RETURNING length(payload)", []any{t.id, nameDigest(id)}, &size); err != nil || !found {
			return err
		}
		t.items--
		t.bytes -= size + int64(len(id)) + itemCost
		return t.save(q)
	})
	if err != nil {
		return false, fmt.Errorf("retract from node of %s: %w", service, err)
	}
	return found, nil
}

// PurgePubSubNode removes all items of a node.
func (db *DB) PurgePubSubNode(ctx context.Context, service jid.JID, name string) error {
	err := db.write(ctx, func(q queries) error {
		t, err := lockNode(q, service, name)
		if err != nil {
			return err
		}
		if _, err := q.exec("DELETE FROM pubsub_item WHERE node_id = $1", t.id); err != nil {
			return err
		}
		t.items, t.bytes = 0, 0
		return t.save(q)
	})
	if err != nil {
		return fmt.Errorf("purge node of %s: %w", service, err)
	}
	return nil
}

// errEnough ends the reading of rows.
var errEnough = errors.New("enough")

// PubSubItems returns items of a node. It reads with more than one statement: an item that is published between them makes the count or the
// index differ by one, nothing else.
func (db *DB) PubSubItems(ctx context.Context, service jid.JID, name string, want pubsub.Query) (p pubsub.Page, err error) {
	err = db.read(ctx, "PubSubItems", func(q queries) (err error) {
		p = pubsub.Page{}
		var node int64
		found, err := q.row("SELECT id FROM pubsub_node WHERE service = $1 AND digest = $2", []any{nameDigest(service.String()), nameDigest(name)}, &node)
		if err != nil || !found {
			return err
		}
		since := int64(-1 << 62)
		if !want.Since.IsZero() {
			since = want.Since.UnixMicro()
		}
		if want.IDs != nil {
			return itemsByID(q, node, since, want, &p)
		}
		return itemsInOrder(q, node, since, want, &p)
	})
	if err != nil {
		return pubsub.Page{}, fmt.Errorf("items of %s: %w", service, err)
	}
	return p, nil
}

// itemMarkup is what an item takes in an answer beside its payload, its id and its publisher.
const itemMarkup = len("<item id='' publisher=''></item>")

// gather is what reads rows of items into a page within the bounds of a query.
func gather(want pubsub.Query, p *pubsub.Page) func(scan func(...any) error) error {
	bytes := 0
	return func(scan func(...any) error) error {
		var it pubsub.Item
		var publisher string
		var micro int64
		if err := scan(&it.ID, &publisher, &micro, &it.Payload); err != nil {
			return err
		}
		if bytes += len(it.Payload) + len(it.ID) + len(publisher) + itemMarkup; len(p.Items) > 0 && want.Bytes > 0 && bytes > want.Bytes {
			return errEnough
		}
		if len(it.Payload) == 0 {
			it.Payload = nil
		}
		it.Published = time.UnixMicro(micro).UTC()
		var err error
		if it.Publisher, err = storedJID(publisher); err != nil {
			return err
		}
		p.Items = append(p.Items, it)
		return nil
	}
}

// itemsByID: of the items that are wanted those after want.After, which is one of them, up to the bounds; the others are only counted.
func itemsByID(q queries, node, since int64, want pubsub.Query, p *pubsub.Page) error {
	read := gather(want, p)
	skip, full := want.After != "", false
	for _, id := range want.IDs {
		args := []any{node, nameDigest(id), since}
		if skip || full || len(p.Items) >= want.Max {
			found, err := q.row("SELECT 1 FROM pubsub_item WHERE node_id = $1 AND digest = $2 AND published >= $3", args, new(int))
			if err != nil {
				return err
			}
			if found {
				p.Count++
			}
			skip = skip && id != want.After
			continue
		}
		before := len(p.Items)
		err := q.rows("SELECT id, publisher, published, payload FROM pubsub_item WHERE node_id = $1 AND digest = $2 AND published >= $3", args, read)
		switch full = errors.Is(err, errEnough); {
		case err != nil && !full:
			return err
		case before == 0:
			p.First = p.Count
		}
		if full || len(p.Items) > before {
			p.Count++
		}
	}
	p.Gone = skip
	return nil
}

// itemsInOrder: XEP-0059 §2 over the items in the order that is wanted.
func itemsInOrder(q queries, node, since int64, want pubsub.Query, p *pubsub.Page) error {
	if _, err := q.row("SELECT count(*) FROM pubsub_item WHERE node_id = $1 AND published >= $2", []any{node, since}, &p.Count); err != nil {
		return err
	}
	low, high := int64(-1), int64(1<<62) // the sequences between which the items lie
	bound := func(id string, to *int64) error {
		if id == "" {
			return nil
		}
		found, err := q.row("SELECT sequence FROM pubsub_item WHERE node_id = $1 AND digest = $2 AND published >= $3", []any{node, nameDigest(id), since}, to)
		if err == nil && !found {
			p.Gone = true
		}
		return err
	}
	after, before := &low, &high
	if want.Newest {
		after, before = &high, &low
	}
	if err := errors.Join(bound(want.After, after), bound(want.Before, before)); err != nil || p.Gone {
		return err
	}
	text := `SELECT id, publisher, published, payload FROM pubsub_item
		WHERE node_id = $1 AND published >= $2 AND sequence > $3 AND sequence < $4 ORDER BY sequence LIMIT $5 OFFSET $6`
	switch {
	case want.Newest != want.Last: // the last page of the one order is the first one of the other
		text = `SELECT id, publisher, published, payload FROM pubsub_item
		WHERE node_id = $1 AND published >= $2 AND sequence > $3 AND sequence < $4 ORDER BY sequence DESC LIMIT $5 OFFSET $6`
	case want.Names:
		text = `SELECT id, publisher, published, NULL FROM pubsub_item
		WHERE node_id = $1 AND published >= $2 AND sequence > $3 AND sequence < $4 ORDER BY sequence LIMIT $5 OFFSET $6`
	}
	offset := want.Index
	if want.Last {
		offset = 0
	}
	err := q.rows(text, []any{node, since, low, high, want.Max, offset}, gather(want, p))
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if want.Last {
		slices.Reverse(p.Items)
	}
	if len(p.Items) == 0 {
		return nil
	}
	count := "SELECT count(*) FROM pubsub_item WHERE node_id = $1 AND published >= $2 AND sequence < (SELECT sequence FROM pubsub_item WHERE node_id = $1 AND digest = $3)"
	if want.Newest {
		count = "SELECT count(*) FROM pubsub_item WHERE node_id = $1 AND published >= $2 AND sequence > (SELECT sequence FROM pubsub_item WHERE node_id = $1 AND digest = $3)"
	}
	_, err = q.row(count, []any{node, since, nameDigest(p.Items[0].ID)}, &p.First)
	return err
}

// PubSubAffiliations returns the affiliations at a node.
func (db *DB) PubSubAffiliations(ctx context.Context, service jid.JID, name string) (all []pubsub.Affiliate, err error) {
	err = db.read(ctx, "PubSubAffiliations", func(q queries) error {
		all = nil
		return q.rows(`SELECT a.jid, a.affiliation, '' FROM pubsub_node n JOIN pubsub_affiliation a ON a.node_id = n.id
			WHERE n.service = $1 AND n.digest = $2`, []any{nameDigest(service.String()), nameDigest(name)}, readAffiliates(&all))
	})
	if err != nil {
		return nil, fmt.Errorf("affiliations at node of %s: %w", service, err)
	}
	slices.SortFunc(all, func(a, b pubsub.Affiliate) int { return cmp.Compare(a.JID.String(), b.JID.String()) })
	return all, nil
}

func readAffiliates(all *[]pubsub.Affiliate) func(func(...any) error) error {
	return func(scan func(...any) error) (err error) {
		var a pubsub.Affiliate
		var who string
		if err := scan(&who, &a.Affiliation, &a.Node); err != nil {
			return err
		}
		a.JID, err = storedJID(who)
		*all = append(*all, a)
		return err
	}
}

func readSubscriptions(all *[]pubsub.Subscription) func(func(...any) error) error {
	return func(scan func(...any) error) (err error) {
		var s pubsub.Subscription
		var who string
		var options []byte
		if err := scan(&who, &s.State, &options, &s.Node); err != nil {
			return err
		}
		if err := json.Unmarshal(options, &s.Options); err != nil {
			return fmt.Errorf("stored options: %w", err)
		}
		s.JID, err = storedJID(who)
		*all = append(*all, s)
		return err
	}
}

// SetPubSubAffiliation changes an affiliation.
func (db *DB) SetPubSubAffiliation(ctx context.Context, service jid.JID, name string, who jid.JID, a pubsub.Affiliation) error {
	key := who.Bare().String()
	err := db.write(ctx, func(q queries) error {
		t, err := lockNode(q, service, name)
		if err != nil {
			return err
		}
		var all, owners int
		if _, err := q.row(`SELECT count(*), coalesce(sum(CASE affiliation WHEN 5 THEN 1 ELSE 0 END), 0) FROM pubsub_affiliation
			WHERE node_id = $1 AND digest <> $2`, []any{t.id, nameDigest(key)}, &all, &owners); err != nil {
			return err
		}
		switch {
		case a != pubsub.Owner && owners == 0:
			return refuse(pubsub.ErrLast)
		case a == pubsub.None:
			_, err = q.exec("DELETE FROM pubsub_affiliation WHERE node_id = $1 AND digest = $2", t.id, nameDigest(key))
			return err
		case all >= db.limits.PubSubAffiliations:
			return refuse(pubsub.ErrFull)
		}
		_, err = q.exec(`INSERT INTO pubsub_affiliation (node_id, digest, jid, affiliation) VALUES ($1, $2, $3, $4)
			ON CONFLICT (node_id, digest) DO UPDATE SET affiliation = excluded.affiliation`, t.id, nameDigest(key), key, int(a))
		return err
	})
	if err != nil {
		return fmt.Errorf("affiliation at node of %s: %w", service, err)
	}
	return nil
}

// PubSubSubscriptions returns the subscriptions to a node.
func (db *DB) PubSubSubscriptions(ctx context.Context, service jid.JID, name string) (all []pubsub.Subscription, err error) {
	err = db.read(ctx, "PubSubSubscriptions", func(q queries) error {
		all = nil
		return q.rows(`SELECT s.jid, s.state, s.options, '' FROM pubsub_node n JOIN pubsub_subscription s ON s.node_id = n.id
			WHERE n.service = $1 AND n.digest = $2`, []any{nameDigest(service.String()), nameDigest(name)}, readSubscriptions(&all))
	})
	if err != nil {
		return nil, fmt.Errorf("subscriptions to node of %s: %w", service, err)
	}
	slices.SortFunc(all, func(a, b pubsub.Subscription) int { return cmp.Compare(a.JID.String(), b.JID.String()) })
	return all, nil
}

// SetPubSubSubscription changes a subscription.
func (db *DB) SetPubSubSubscription(ctx context.Context, service jid.JID, name string, s pubsub.Subscription) error {
	options, err := json.Marshal(s.Options)
	if err == nil {
		key, bare := s.JID.String(), s.JID.Bare().String()
		err = db.write(ctx, func(q queries) error {
			t, err := lockNode(q, service, name)
			if err != nil {
				return err
			}
			if s.State == pubsub.Unsubscribed {
				_, err := q.exec("DELETE FROM pubsub_subscription WHERE node_id = $1 AND digest = $2", t.id, nameDigest(key))
				return err
			}
			var all, own int
			if _, err := q.row(`SELECT count(*), coalesce(sum(CASE WHEN bare = $3 THEN 1 ELSE 0 END), 0) FROM pubsub_subscription
				WHERE node_id = $1 AND digest <> $2`, []any{t.id, nameDigest(key), nameDigest(bare)}, &all, &own); err != nil {
				return err
			}
			if all >= db.limits.PubSubSubscriptions || own >= db.limits.PubSubOwnSubscriptions {
				return refuse(pubsub.ErrFull)
			}
			_, err = q.exec(`INSERT INTO pubsub_subscription (node_id, digest, bare, jid, state, options) VALUES ($1, $2, $3, $4, $5, $6)
				ON CONFLICT (node_id, digest) DO UPDATE SET state = excluded.state, options = excluded.options`,
				t.id, nameDigest(key), nameDigest(bare), key, int(s.State), options)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("subscription to node of %s: %w", service, err)
	}
	return nil
}

// PubSubStandings returns what a bare JID has at the nodes of a service.
func (db *DB) PubSubStandings(ctx context.Context, service, peer jid.JID) (affiliations []pubsub.Affiliate, subscriptions []pubsub.Subscription, err error) {
	of, who := nameDigest(service.String()), nameDigest(peer.Bare().String())
	err = db.read(ctx, "PubSubStandings", func(q queries) error {
		affiliations, subscriptions = nil, nil
		if err := q.rows(`SELECT a.jid, a.affiliation, n.name FROM pubsub_affiliation a JOIN pubsub_node n ON n.id = a.node_id
			WHERE a.digest = $1 AND n.service = $2 ORDER BY n.id`, []any{who, of}, readAffiliates(&affiliations)); err != nil {
			return err
		}
		return q.rows(`SELECT s.jid, s.state, s.options, n.name FROM pubsub_subscription s JOIN pubsub_node n ON n.id = s.node_id
			WHERE s.bare = $1 AND n.service = $2 ORDER BY n.id, s.digest`, []any{who, of}, readSubscriptions(&subscriptions))
	})
	if err != nil {
		return nil, nil, fmt.Errorf("affiliations and subscriptions at %s: %w", service, err)
	}
	return affiliations, subscriptions, nil
}

// PubSubSubscriptionsOf returns up to limit subscriptions of a bare JID at accounts, and at one service.
func (db *DB) PubSubSubscriptionsOf(ctx context.Context, peer, service jid.JID, limit int) (all []pubsub.SubscribedTo, err error) {
	err = db.read(ctx, "PubSubSubscriptionsOf", func(q queries) error {
		all = nil
		var localpart, domain string
		var one []pubsub.Subscription
		read := readSubscriptions(&one)
		return q.rows(`SELECT s.jid, s.state, s.options, n.name, COALESCE(a.localpart, ''), COALESCE(a.domain, '') FROM pubsub_subscription s
			JOIN pubsub_node n ON n.id = s.node_id LEFT JOIN account a ON a.id = n.account_id
			WHERE s.bare = $1 AND (n.account_id IS NOT NULL OR n.service = $2) ORDER BY n.id, s.digest LIMIT $3`,
			[]any{nameDigest(peer.Bare().String()), nameDigest(service.String()), limit}, func(scan func(...any) error) error {
				one = one[:0]
				if err := read(func(to ...any) error { return scan(append(to, &localpart, &domain)...) }); err != nil {
					return err
				}
				at := service
				if localpart != "" {
					at = jid.NewUnsafe(localpart, domain, "").JID // stored in canonical form
				}
				all = append(all, pubsub.SubscribedTo{Service: at, Subscription: one[0]})
				return nil
			})
	})
	if err != nil {
		return nil, fmt.Errorf("subscriptions of %s: %w", peer, err)
	}
	return all, nil
}

// forgetPubSub removes what an account that is being deleted has at the nodes of others, and the nodes of services that it alone owns. What it
// published at nodes of others stays there, without its name: whoever gets that name must not take it back.
func forgetPubSub(q queries, account jid.JID) error {
	name := account.String()
	who := nameDigest(name)
	for _, text := range []string{
		`DELETE FROM pubsub_node WHERE account_id IS NULL AND id IN (SELECT node_id FROM pubsub_affiliation WHERE digest = $1 AND affiliation = 5)
			AND NOT EXISTS (SELECT 1 FROM pubsub_affiliation o WHERE o.node_id = pubsub_node.id AND o.affiliation = 5 AND o.digest <> $1)`,
		"DELETE FROM pubsub_affiliation WHERE digest = $1",
		"DELETE FROM pubsub_subscription WHERE bare = $1",
		"UPDATE pubsub_item SET publisher = '', publisher_digest = NULL WHERE publisher_digest = $1",
	} {
		if _, err := q.exec(text, who); err != nil {
			return err
		}
	}
	_, err := q.exec("UPDATE pubsub_node SET creator = '' WHERE account_id IS NULL AND creator = $1", name)
	return err
}
