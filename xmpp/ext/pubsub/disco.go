package pubsub

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
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

// DiscoItems lists the nodes of accounts, and the items of one, a page at a time: XEP-0060 §5.2 and §5.5.
func (m *Module) DiscoItems(ctx context.Context, asker, to jid.JID, node string, set *xmpp.Element) ([]*xmpp.Element, bool, error) {
	if to.Localpart() == "" {
		return nil, false, nil
	}
	want := page{max: maxItems}
	if set != nil {
		var err error
		if want, err = readPage(set); err != nil {
			return nil, true, err
		}
	}
	items, found, err := m.nodeItems(ctx, m.placeOf(to), asker, node)
	if err != nil || !found {
		return nil, found, err
	}
	items, ok := portionOf(items, want)
	if !ok {
		err = xmpp.ErrItemNotFound // XEP-0059 §2.2
	}
	return items, true, err
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
	size := 0
	for _, a := range affiliates {
		if a.Affiliation < PublishOnly {
			continue
		}
		who := a.JID.String()
		if size += len(who) + len("<value></value>"); size > maxNamed {
			break
		}
		if a.Affiliation == Owner {
			owners = append(owners, who)
		} else {
			publishers = append(publishers, who)
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
	if name == "" {
		items, err := m.nodePage(ctx, m.placeOf(s.To), s.From, want)
		if err != nil {
			return nil, storeError(err)
		}
		return xmpp.El(nsItems, "query").Add(items...), nil
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

const (
	nodeBatch  = 100 // nodes that are read at once. chosen: a page of most clients, some milliseconds
	maxCounted = 500 // nodes that are looked at where only their number is wanted, which may be approximate (XEP-0059 §2.7). chosen: the same
)

// nodePage is a page of the nodes of a service that who asks may see: XEP-0060 §5.2. Which these are says each node for itself, so it looks at nodes until
// the page is full, and at no others; where it has not seen all there is no count (XEP-0059 §2.1).
func (m *Module) nodePage(ctx context.Context, at place, asker jid.JID, want page) (items []*xmpp.Element, err error) {
	for _, name := range []string{want.after, want.before} {
		if name == "" {
			continue
		}
		f, err := m.look(ctx, at, name, asker)
		if err == nil && !f.shown() {
			err = ErrNoNode // XEP-0059 §2.2
		}
		if err != nil {
			return nil, err
		}
	}
	if want.last || want.after != "" {
		want.index = 0
	}
	admin := m.srv.IsAdmin(asker.Bare(), at.domain)
	q := NodeQuery{After: want.after, Before: want.before, Last: want.last, Max: nodeBatch}
	if want.max > 0 {
		q.Max = min(nodeBatch, want.index+want.max+1)
	}
	looked, shown, size, all := 0, 0, 0, false
	for full := false; !full && !all; {
		batch, err := m.store.PubSubNodePage(ctx, at.jid, asker.Bare(), q)
		if err != nil {
			return nil, err
		}
		for _, x := range batch {
			f := found{Node: x.Node, Standing: x.Standing}
			if admin {
				f.Affiliation = Owner
			}
			if f.relation, err = m.relationTo(ctx, x.Owners, f, asker.Bare()); err != nil {
				return nil, err
			}
			if looked++; !f.shown() {
				continue
			}
			if shown++; want.max == 0 || shown <= want.index {
				continue
			}
			el := xmpp.El("", "item", "jid", at.key, "node", f.Name, "name", f.Config.Title)
			if size += len(el.AppendTo(nil, "")); len(items) == want.max || len(items) > 0 && size > maxAnswer {
				full = true
				break
			}
			items = append(items, el)
		}
		switch {
		case full:
		case len(batch) < q.Max:
			all = true
		case want.max == 0 && looked >= maxCounted:
			full = true
		case q.Last:
			q.Before = batch[len(batch)-1].Node.Name
		default:
			q.After = batch[len(batch)-1].Node.Name
		}
		q.Max = min(2*q.Max, nodeBatch)
	}
	if want.last {
		slices.Reverse(items)
	}
	whole := all && want.after == "" && want.before == ""
	if !want.asked && whole {
		return items, nil
	}
	set := xmpp.El(nsRSM, "set")
	if n := len(items); n > 0 {
		first := xmpp.El("", "first").Say(nameOf(items[0]))
		switch {
		case want.last && whole:
			first.Attrs = append(first.Attrs, xmpp.Attr{Name: "index", Value: "0"})
		case !want.last && want.after == "":
			first.Attrs = append(first.Attrs, xmpp.Attr{Name: "index", Value: strconv.Itoa(want.index)})
		}
		set.Add(first, xmpp.El("", "last").Say(nameOf(items[n-1])))
	}
	if whole || want.max == 0 {
		set.Add(xmpp.El("", "count").Say(strconv.Itoa(shown)))
	}
	return append(items, set), nil
}

// maxNamed bounds the owners and publishers that the metadata of a node name, in bytes. chosen: with all else it stays below maxAnswer.
const maxNamed = 100 << 10

// maxItems bounds a list, as maxAnswer does in bytes. chosen: a client shows fewer.
const maxItems = 2000

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

// nameOf is the name of what a list names: of a node, of an item, or of who belongs to a node.
func nameOf(e *xmpp.Element) string {
	if e.Local != "item" {
		return strings.TrimSpace(e.Attr("node") + " " + e.Attr("jid"))
	}
	if n, ok := lookup(e, "node"); ok {
		return n
	}
	return e.Attr("name")
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
	from, to := within(items[low:high], p.last)
	low, high = low+from, low+to
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

// within is the part of a list that one answer takes, but at least one of it: from its beginning, or with last up to its end.
func within(list []*xmpp.Element, last bool) (low, high int) {
	size := 0
	for n := range list {
		i := n
		if last {
			i = len(list) - 1 - n
		}
		bare := *list[i]
		bare.Raw = nil
		if size += len(bare.AppendTo(nil, "")) + len(list[i].Raw) + len("</item>"); size <= maxAnswer || n == 0 {
			continue
		}
		if last {
			return i + 1, len(list)
		}
		return 0, i
	}
	return 0, len(list)
}

// portion answers with as much of a list as one answer takes, or with the page of it that is wanted, and a <set/> as XEP-0060 §6.5.4 has it for items.
func (r *request) portion(list *xmpp.Element) (*xmpp.Element, error) {
	want := page{max: maxItems}
	if set := child(r.root, nsRSM, "set"); set != nil {
		var err error
		if want, err = readPage(set); err != nil {
			return nil, err
		}
	}
	all, ok := portionOf(list.Children, want)
	if !ok {
		return nil, xmpp.ErrItemNotFound // XEP-0059 §2.2
	}
	answer := xmpp.El(r.root.Space, "pubsub").Add(list)
	if n := len(all); n > 0 && all[n-1].Space == nsRSM {
		answer.Add(all[n-1])
		all = all[:n-1]
	}
	list.Children = all
	return answer, nil
}
