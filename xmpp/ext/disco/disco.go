// Package disco implements XEP-0030: Service Discovery 2.5.0 for the server and its accounts, with the forms of XEP-0128, and for the server
// XEP-0115: Entity Capabilities 1.6.0.
package disco

import (
	"context"
	"maps"
	"slices"
	"sync"

	"balcony/xmpp"
	"balcony/xmpp/caps"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// The namespaces of the payloads and the disco features.
const (
	NSInfo  = "http://jabber.org/protocol/disco#info"  // XEP-0030 §3
	NSItems = "http://jabber.org/protocol/disco#items" // XEP-0030 §4
	nsRSM   = "http://jabber.org/protocol/rsm"         // XEP-0059 §7
	NSCaps  = caps.NS                                  // XEP-0115 §4
)

// Provider answers for the nodes of another module (XEP-0030 §3.2, §4.2). asker was authorized to discover to, which is a domain or the bare
// JID of an account; what of a node it may see is the provider's to decide. The elements are children of <query/>, in its namespace
// unless they say otherwise.
type Provider interface {
	// DiscoInfo returns the identities, features and forms of a node; found is false when there is no such node for asker.
	DiscoInfo(ctx context.Context, asker, to jid.JID, node string) (info []*xmpp.Element, found bool, err error)
	// DiscoItems returns the <item/>s of a node; found is false when there is no such node for asker. With the empty node it is asked for
	// items of its own to list under to itself. set is the <set/> of the request (XEP-0059), nil for none: a list that may be long is given in pages,
	// and ends with the <set/> of the answer.
	DiscoItems(ctx context.Context, asker, to jid.JID, node string, set *xmpp.Element) (items []*xmpp.Element, found bool, err error)
}

// Module answers disco requests from what all modules have registered.
type Module struct {
	// Name is the natural-language name in the server's identity.
	Name string
	// Node is the URI of the software in the server's entity capabilities (XEP-0115 §4), best one where people can read about it. Without it
	// the server announces none.
	Node string
	// Forms make the extended information (XEP-0128) of a domain; a nil form is left out.
	Forms []func(domain string) *xmpp.Element
	// Providers are asked for a node in this order until one has it.
	Providers []Provider

	reg  *xmpp.Registry // static after Register
	vers sync.Map       // of served domains: capability by domain
}

var _ xmpp.Module = (*Module)(nil)

// Protocol lists XEP-0030, XEP-0128 and XEP-0115.
func (m *Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{
		{XEP: 30, Version: "2.5.0", Status: xmpp.Complete, Note: "disco#items to the bare JID of an unknown account, or asked by a stranger, is answered service-unavailable (RFC 6121 §8.5.1) instead of an empty list"},
		{XEP: 115, Version: "1.6.0", Status: xmpp.Complete, Note: "the server's own capabilities"},
		{XEP: 128, Version: "1.0.1", Status: xmpp.Complete},
	}
}

// Register adds the handlers. Accounts answer their owner and who receives their presence (XEP-0030 §8); the router gives everybody else
// the answer of an account that does not exist.
func (m *Module) Register(r *xmpp.Registry) {
	m.reg = r
	r.Identity(xmpp.ToServer, xmpp.Identity{Category: "server", Type: "im", Name: m.Name})
	r.Identity(xmpp.ToAccount, xmpp.Identity{Category: "account", Type: "registered"}) // XEP-0030 §3.1
	r.Feature(xmpp.ToServer, NSInfo, NSItems)
	r.Feature(xmpp.ToContact, NSInfo, NSItems)
	r.IQ(xmpp.ToServer, stanza.GetIQ, NSInfo, "query", m.serverInfo)
	r.IQ(xmpp.ToServer, stanza.GetIQ, NSItems, "query", m.items)
	r.IQ(xmpp.ToContact, stanza.GetIQ, NSInfo, "query", m.accountInfo)
	r.IQ(xmpp.ToContact, stanza.GetIQ, NSItems, "query", m.items)
	r.Feature(xmpp.ToHost, NSInfo, NSItems)
	r.IQ(xmpp.ToHost, stanza.GetIQ, NSInfo, "query", m.hostInfo)
	r.IQ(xmpp.ToHost, stanza.GetIQ, NSItems, "query", m.hostItems)
	if m.Node != "" {
		r.Feature(xmpp.ToServer, NSCaps) // XEP-0115 §7
		r.StreamFeature(m.caps)
	}
}

// server is the disco#info answer of a domain.
func (m *Module) server(domain string) *xmpp.Element {
	q := m.info(domain, xmpp.ToServer)
	for _, form := range m.Forms {
		q.Add(form(domain)) // XEP-0128 §2
	}
	return q
}

// info is a <query/> with the identities and features that were registered for these addresses at a domain, each once and in order.
func (m *Module) info(domain string, addresses ...xmpp.Address) *xmpp.Element {
	var identities []xmpp.Identity
	var features []string
	for _, a := range addresses {
		identities = append(identities, m.reg.Identities[a]...)
		features = append(features, m.reg.Features[a]...)
		for _, f := range m.reg.DomainFeatures[a] {
			if f.On(domain) {
				features = append(features, f.NS...)
			}
		}
	}
	return query(identities, features)
}

func query(identities []xmpp.Identity, features []string) *xmpp.Element {
	q := xmpp.El(NSInfo, "query")
	for _, id := range identities {
		q.Add(xmpp.El("", "identity", "category", id.Category, "type", id.Type, "name", id.Name))
	}
	slices.Sort(features)
	for _, f := range slices.Compact(features) {
		q.Add(xmpp.El("", "feature", "var", f))
	}
	return q
}

func (m *Module) serverInfo(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	node := node(s)
	q := m.server(s.To.Domainpart())
	switch {
	case node == "":
		return q, nil
	case m.Node != "" && node == m.Node+"#"+ver(q): // XEP-0115 §6.2
		q.Attrs = []xmpp.Attr{{Name: "node", Value: node}}
		return q, nil
	}
	return m.nodeInfo(ctx, s, node)
}

// hostInfo answers for a host that does not answer itself; it has no nodes then.
func (m *Module) hostInfo(_ context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	h, domain, ok := m.reg.Server.HostAt(s.To.Domainpart())
	if !ok || node(s) != "" {
		return nil, xmpp.ErrItemNotFound
	}
	q := query(h.Identities, slices.Concat(m.reg.Features[xmpp.ToHost], h.Features))
	for _, form := range h.Forms {
		q.Add(form(domain)) // XEP-0128 §2
	}
	return q, nil
}

func (m *Module) hostItems(_ context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	if node(s) != "" {
		return nil, xmpp.ErrItemNotFound
	}
	return xmpp.El(NSItems, "query"), nil
}

// hosts are the <item/>s of a domain's own hosts (XEP-0030 §4).
func (m *Module) hosts(domain string) (items []*xmpp.Element) {
	for _, label := range slices.Sorted(maps.Keys(m.reg.Hosts)) {
		if h, _, ok := m.reg.Server.HostAt(label + "." + domain); !ok || h != m.reg.Hosts[label] {
			continue // a served domain, or another host of that name
		}
		name := ""
		if ids := m.reg.Hosts[label].Identities; len(ids) > 0 {
			name = ids[0].Name
		}
		items = append(items, xmpp.El("", "item", "jid", label+"."+domain, "name", name))
	}
	return items
}

// accountInfo: XEP-0030 §3.1, the server answers on behalf of the account. Features that only the owner can use are shown to the owner only.
func (m *Module) accountInfo(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	switch node := node(s); {
	case node != "":
		return m.nodeInfo(ctx, s, node)
	case s.From.Bare().Equal(s.To.Bare()):
		return m.info(s.To.Domainpart(), xmpp.ToAccount, xmpp.ToContact, xmpp.ToSelf), nil
	}
	return m.info(s.To.Domainpart(), xmpp.ToAccount, xmpp.ToContact), nil
}

func (m *Module) nodeInfo(ctx context.Context, s *xmpp.Stanza, node string) (*xmpp.Element, error) {
	for _, p := range m.Providers {
		info, found, err := p.DiscoInfo(ctx, s.From, s.To, node)
		if err != nil {
			return nil, err
		}
		if found {
			return xmpp.El(NSInfo, "query", "node", node).Add(info...), nil // XEP-0030 §3.2: the node is mirrored
		}
	}
	return nil, xmpp.ErrItemNotFound // XEP-0030 §7
}

// items: XEP-0030 §4. An address without items has an empty list, an unknown node has an error.
func (m *Module) items(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	node := node(s)
	q := xmpp.El(NSItems, "query", "node", node)
	set, err := resultSet(s)
	if err != nil {
		return nil, err
	}
	known := node == ""
	if known && s.To.Localpart() != "" && begins(set) { // they are few, and stand before what is paged
		for _, session := range m.reg.Server.Sessions(s.To.Bare()) {
			if session.Presence() != nil { // XEP-0030 §4.1: the available resources
				q.Add(xmpp.El("", "item", "jid", session.JID().String()))
			}
		}
	}
	if known && s.To.Localpart() == "" {
		q.Add(m.hosts(s.To.Domainpart())...)
	}
	for _, p := range m.Providers {
		items, found, err := p.DiscoItems(ctx, s.From, s.To, node, set)
		if err != nil {
			return nil, err
		}
		if found {
			known = true
			q.Add(items...)
		}
		if found && node != "" {
			break
		}
	}
	if !known {
		return nil, xmpp.ErrItemNotFound // XEP-0030 §7
	}
	return q, nil
}

// begins reports whether a page is the first one, with something on it: XEP-0059 §2. No <set/> asks for the first one.
func begins(set *xmpp.Element) bool {
	if set == nil {
		return true
	}
	return !slices.ContainsFunc(set.Children, func(c *xmpp.Element) bool {
		return c.Local == "after" || c.Local == "before" || c.Local == "index" || c.Local == "max" && c.Text == "0"
	})
}

// resultSet is the <set/> of a request, nil for none.
func resultSet(s *xmpp.Stanza) (*xmpp.Element, error) {
	p, _ := s.Payload()
	q, err := p.Element()
	if err != nil {
		return nil, xmpp.ErrBadRequest
	}
	for _, c := range q.Children {
		if c.Local == "set" && c.Space == nsRSM {
			return c, nil
		}
	}
	return nil, nil
}

// node is the node that a request asks about, empty for the address itself.
func node(s *xmpp.Stanza) string {
	p, _ := s.Payload()
	return p.Attr("node")
}
