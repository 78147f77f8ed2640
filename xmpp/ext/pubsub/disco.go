package pubsub

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// DiscoInfo answers for the nodes of accounts: XEP-0060 §5.3 and §5.4.
func (m *Module) DiscoInfo(ctx context.Context, asker, to jid.JID, node string) ([]*xmpp.Element, bool, error) {
	if to.Localpart() == "" {
		return nil, false, nil
	}
	return m.nodeInfo(ctx, m.placeOf(to), asker, node)
}

// DiscoItems lists the nodes of accounts, and the items of one: XEP-0060 §5.2 and §5.5.
func (m *Module) DiscoItems(ctx context.Context, asker, to jid.JID, node string) ([]*xmpp.Element, bool, error) {
	if to.Localpart() == "" {
		return nil, false, nil
	}
	items, found, err := m.nodeItems(ctx, m.placeOf(to), asker, node)
	items, _ = portionOf(items, page{max: maxItems})
	return items, found, err
}

// nodeInfo is the identity and the metadata of a node, for those who may see it.
func (m *Module) nodeInfo(ctx context.Context, at place, asker jid.JID, name string) ([]*xmpp.Element, bool, error) {
	f, err := m.look(ctx, at, name, asker)
	if errors.Is(err, ErrNoNode) {
		return nil, false, nil
	}
	if err != nil || !f.shown() {
		return nil, false, err
	}
	subscriptions, err := m.store.PubSubSubscriptions(ctx, at.jid, name)
	if err != nil {
		return nil, false, err
	}
	affiliates, err := m.store.PubSubAffiliations(ctx, at.jid, name)
	if err != nil {
		return nil, false, err
	}
	var owners, publishers []string
	for _, a := range affiliates {
		switch a.Affiliation {
		case Owner:
			owners = append(owners, a.JID.String())
		case Publisher, PublishOnly:
			publishers = append(publishers, a.JID.String())
		}
	}
	number := 0
	for _, s := range subscriptions {
		if s.State == Subscribed {
			number++
		}
	}
	x := newForm("result", formMeta)
	for _, name := range []string{"title", "description", "type", "language", "contact", "access_model", "publish_model", "max_items"} {
		known := configIndex["pubsub#"+name]
		if v := known.get(&f.Config); len(v) > 0 {
			x.Add(newField("pubsub#"+name, known.typ, known.label, v...))
		}
	}
	x.Add(newField("pubsub#creation_date", "text-single", "Creation date", f.Created.UTC().Format(time.RFC3339)))
	if !f.Creator.Equal(jid.JID{}) {
		x.Add(newField("pubsub#creator", "jid-single", "Node creator", f.Creator.String()))
	}
	x.Add(newField("pubsub#owner", "jid-multi", "Node owners", owners...))
	if len(publishers) > 0 {
		x.Add(newField("pubsub#publisher", "jid-multi", "Publishers to this node", publishers...))
	}
	x.Add(newField("pubsub#num_subscribers", "text-single", "Number of subscribers to this node", strconv.Itoa(number)))
	return []*xmpp.Element{xmpp.El("", "identity", "category", "pubsub", "type", "leaf"), xmpp.El("", "feature", "var", NS), xmpp.El("", "feature", "var", nsInfo), x}, true, nil
}

// shown reports whether a node is shown to who asks: XEP-0163 §6.2, only those that it may subscribe to or read.
func (f found) shown() bool {
	return f.decide(Retrieve) == allowed || f.decide(Join) == allowed || f.decide(Join) == pending
}

// nodeItems lists the nodes of a place, or the items of one node.
func (m *Module) nodeItems(ctx context.Context, at place, asker jid.JID, name string) ([]*xmpp.Element, bool, error) {
	if name == "" {
		return m.nodes(ctx, at, asker)
	}
	f, err := m.look(ctx, at, name, asker)
	if errors.Is(err, ErrNoNode) {
		return nil, false, nil
	}
	if err != nil || f.decide(Retrieve) != allowed {
		return nil, false, err
	}
	p, err := m.store.PubSubItems(ctx, at.jid, name, Query{Max: unbounded, Names: true, Since: f.Config.expiry(m.srv.Now())})
	if err != nil {
		return nil, false, err
	}
	items := make([]*xmpp.Element, len(p.Items))
	for i, it := range p.Items {
		items[i] = xmpp.El("", "item", "jid", at.key, "name", it.ID) // XEP-0060 §5.5
	}
	return items, true, nil
}

func (m *Module) nodes(ctx context.Context, at place, asker jid.JID) (items []*xmpp.Element, found_ bool, err error) {
	all, err := m.store.PubSubNodes(ctx, at.jid, asker.Bare())
	if err != nil {
		return nil, false, err
	}
	admin := !at.account() && m.srv.IsAdmin(asker.Bare(), at.domain)
	for _, x := range all {
		f := found{Node: x.Node, Standing: x.Standing}
		if at.account() {
			profileOf(f.Name).repair(&f.Config) // for what it will be when it is used
		}
		if admin {
			f.Affiliation = Owner
		}
		if f.relation, err = m.relation(ctx, at, f, asker.Bare()); err != nil {
			return nil, false, err
		}
		if f.shown() {
			items = append(items, xmpp.El("", "item", "jid", at.key, "node", f.Name, "name", f.Config.Title))
		}
	}
	return items, true, nil
}

// serviceInfo: XEP-0060 §5.1, §5.3 and §5.4.
func (m *Module) serviceInfo(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	p, _ := s.Payload()
	name := p.Attr("node")
	if s.To.Localpart() != "" {
		return nil, xmpp.ErrServiceUnavailable
	}
	if name == "" {
		h, _, ok := m.srv.HostAt(s.To.Domainpart())
		if !ok {
			return nil, xmpp.ErrItemNotFound
		}
		q := xmpp.El(nsInfo, "query")
		for _, id := range h.Identities {
			q.Add(xmpp.El("", "identity", "category", id.Category, "type", id.Type, "name", id.Name))
		}
		all := append([]string{nsInfo, nsItems}, h.Features...)
		slices.Sort(all)
		for _, f := range slices.Compact(all) {
			q.Add(xmpp.El("", "feature", "var", f))
		}
		return q, nil
	}
	info, ok, err := m.nodeInfo(ctx, m.placeOf(s.To), s.From, name)
	if err == nil && !ok {
		err = xmpp.ErrItemNotFound
	}
	if err != nil {
		return nil, err
	}
	return xmpp.El(nsInfo, "query", "node", name).Add(info...), nil
}

// serviceItems: XEP-0060 §5.2 and §5.5.
func (m *Module) serviceItems(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	p, _ := s.Payload()
	name := p.Attr("node")
	if s.To.Localpart() != "" {
		return nil, xmpp.ErrServiceUnavailable
	}
	root, err := p.Element()
	if err != nil {
		return nil, xmpp.ErrBadRequest
	}
	want := page{max: maxItems}
	if set := child(root, nsRSM, "set"); set != nil {
		if want, err = readPage(set); err != nil {
			return nil, err
		}
	}
	items, ok, err := m.nodeItems(ctx, m.placeOf(s.To), s.From, name)
	if err == nil && !ok {
		err = xmpp.ErrItemNotFound
	}
	if err != nil {
		return nil, err
	}
	if items, ok = portionOf(items, want); !ok {
		return nil, xmpp.ErrItemNotFound
	}
	return xmpp.El(nsItems, "query", "node", name).Add(items...), nil
}

// maxItems and maxItemsSize bound a list. chosen: a client shows fewer; clearly below the bound of a stanza, which ends the stream to another server.
const (
	maxItems     = 2000
	maxItemsSize = 160 << 10
)

// page is the part of a list that is wanted: XEP-0059 §2.
type page struct {
	max, index    int
	after, before string // names of nodes or items
	last          bool
	asked         bool
}

// readPage reads a <set/>.
func readPage(set *xmpp.Element) (p page, err error) {
	p = page{max: maxItems, asked: true}
	for _, c := range set.Children {
		switch {
		case c.Space != nsRSM:
		case c.Local == "max" || c.Local == "index":
			n, e := strconv.ParseUint(text(c), 10, 31)
			if e != nil {
				return p, xmpp.ErrBadRequest
			}
			if c.Local == "index" {
				p.index = int(n)
			} else {
				p.max = min(int(n), maxItems)
			}
		case c.Local == "after":
			p.after = text(c)
		case c.Local == "before":
			p.before, p.last = text(c), true
		}
	}
	return p, nil
}

// nameOf is the name of what a list names: of a node, or of an item.
func nameOf(e *xmpp.Element) string {
	if n, ok := lookup(e, "node"); ok {
		return n
	}
	return attr(e, "name")
}

// portionOf is a page of a list, with a <set/> where it is not the whole list, or one was asked for: XEP-0059 §2. ok is false when the page names
// what is not there.
func portionOf(items []*xmpp.Element, p page) (list []*xmpp.Element, ok bool) {
	count := len(items)
	low, high := min(p.index, count), count
	for _, edge := range []struct {
		name string
		at   *int
		past int
	}{{p.after, &low, 1}, {p.before, &high, 0}} {
		if edge.name == "" {
			continue
		}
		i := slices.IndexFunc(items, func(e *xmpp.Element) bool { return nameOf(e) == edge.name })
		if i < 0 {
			return nil, false // XEP-0059 §2.2
		}
		*edge.at = i + edge.past
	}
	high = max(low, high)
	if p.last {
		low = max(low, high-p.max)
	} else {
		high = min(high, low+p.max)
	}
	size := 0
	for n := range high - low {
		i := low + n
		if p.last {
			i = high - 1 - n
		}
		if size += len(items[i].AppendTo(nil, "")); size <= maxItemsSize || n == 0 {
			continue
		}
		if p.last {
			low = i + 1
		} else {
			high = i
		}
		break
	}
	list = slices.Clone(items[low:high])
	if !p.asked && len(list) == count {
		return list, true
	}
	set := xmpp.El(nsRSM, "set")
	if low < high {
		set.Add(xmpp.El("", "first", "index", strconv.Itoa(low)).Say(nameOf(items[low])), xmpp.El("", "last").Say(nameOf(items[high-1])))
	}
	return append(list, set.Add(xmpp.El("", "count").Say(strconv.Itoa(count)))), true
}
