// Package bookmarks implements the server's part of XEP-0402: PEP Native Bookmarks 1.2.0, §5.3: bookmarks are the same in the three places where clients keep
// them: as items of their own, in private XML (XEP-0049), and as one item of the node of XEP-0048.
package bookmarks

import (
	"context"
	"encoding/xml"
	"log/slog"
	"strings"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// Namespaces, which are also the nodes.
const (
	NS    = "urn:xmpp:bookmarks:1" // XEP-0402
	NSOld = "storage:bookmarks"    // XEP-0048 §2

	maxConferences = 1000 // of one list. chosen: what clients sent so far had less than a hundred
)

// Item is a bookmark of XEP-0402: the id is the room's JID.
type Item struct {
	ID        string
	Payload   []byte
	Published time.Time
}

// Nodes are the accounts' nodes. Changes that are made through it are not told to this module.
type Nodes interface {
	// Has reports whether there is a node.
	Has(ctx context.Context, account jid.JID, node string) (bool, error)
	// Items returns the items of a node in the order of publishing, none without the node.
	Items(ctx context.Context, account jid.JID, node string) ([]Item, error)
	// Put publishes an item.
	Put(ctx context.Context, account jid.JID, node, id string, payload []byte) error
	// Remove retracts an item, with notifications.
	Remove(ctx context.Context, account jid.JID, node, id string) error
}

// Store is private XML.
type Store interface {
	// PrivateXML returns the stored element, nil when there is none.
	PrivateXML(ctx context.Context, account jid.JID, space, local string) ([]byte, error)
	// SetPrivateXML stores an element.
	SetPrivateXML(ctx context.Context, account jid.JID, space, local string, element []byte) error
}

// Module keeps the places in step.
type Module struct {
	Nodes Nodes
	Store Store
	Log   *slog.Logger
}

var _ xmpp.Module = Module{}

// Protocol lists XEP-0402 and XEP-0048.
func (Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{
		{XEP: 48, Version: "1.2", Status: xmpp.Complete, Note: "URLs stay in private XML"},
		{XEP: 402, Version: "1.2.0", Status: xmpp.Complete, Note: "with #compat and #compat-pep"},
	}
}

// Register adds the features of XEP-0402 §5.3.
func (Module) Register(r *xmpp.Registry) { r.Feature(xmpp.ToSelf, NS+"#compat", NS+"#compat-pep") }

// conference is a bookmark of XEP-0402 §2; extensions are kept as they are.
type conference struct {
	name, autojoin, nick, password string
	extensions                     *xmpp.Element
}

// read reads a <conference/> of either namespace.
func read(e *xmpp.Element) conference {
	var c conference
	for _, a := range e.Attrs {
		switch a.Name {
		case "name":
			c.name = a.Value
		case "autojoin":
			if v := strings.TrimSpace(a.Value); v == "1" || v == "true" {
				c.autojoin = "true"
			}
		}
	}
	for _, k := range e.Children {
		if k.Space != e.Space {
			continue
		}
		switch k.Local {
		case "nick":
			c.nick = k.Text
		case "password":
			c.password = k.Text
		case "extensions":
			c.extensions = k
		}
	}
	return c
}

// same reports whether an older client would see no difference.
func (c conference) same(o conference) bool {
	return c.name == o.name && c.autojoin == o.autojoin && c.nick == o.nick && c.password == o.password
}

// element writes a bookmark in a namespace; room is for that of XEP-0048.
func (c conference) element(space, room string) *xmpp.Element {
	e := xmpp.El(space, "conference", "jid", room, "name", c.name, "autojoin", c.autojoin)
	if c.nick != "" {
		e.Add(xmpp.El(space, "nick").Say(c.nick))
	}
	if c.password != "" {
		e.Add(xmpp.El(space, "password").Say(c.password))
	}
	if space == NS && c.extensions != nil {
		e.Add(c.extensions)
	}
	return e
}

// parse reads an element that was stored.
func parse(b []byte) *xmpp.Element {
	if b == nil {
		return nil
	}
	e, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader(string(b))))
	if err != nil {
		return nil
	}
	return e
}

// collate makes the <storage/> of XEP-0048 of the items, with what rest has beside conferences.
func collate(items []Item, rest *xmpp.Element) *xmpp.Element {
	storage := xmpp.El(NSOld, "storage")
	for _, it := range items {
		if e := parse(it.Payload); e != nil && e.Space == NS && e.Local == "conference" {
			storage.Add(read(e).element(NSOld, it.ID))
		}
	}
	if rest != nil {
		for _, c := range rest.Children {
			if c.Local != "" && c.Local != "conference" {
				storage.Add(c)
			}
		}
	}
	return storage
}

// rest is a <storage/> without its conferences.
func rest(storage *xmpp.Element) *xmpp.Element { return collate(nil, storage) }

// Adopt makes the node of XEP-0402, where there is none, of what the two other places have: they were filled by another server, and nobody has seen that
// here. XEP-0402 §5.3 promises that who looks at one place sees all bookmarks.
func (m Module) Adopt(ctx context.Context, account jid.JID) {
	if err := m.adopt(ctx, account); err != nil {
		m.Log.Error("take over bookmarks", "account", account.String(), "err", err)
	}
}

func (m Module) adopt(ctx context.Context, account jid.JID) error {
	if has, err := m.Nodes.Has(ctx, account, NS); err != nil || has {
		return err
	}
	private, err := m.Store.PrivateXML(ctx, account, NSOld, "storage")
	if err != nil {
		return err
	}
	old, err := m.Nodes.Items(ctx, account, NSOld)
	if err != nil {
		return err
	}
	places := []*xmpp.Element{parse(private)}
	if len(old) > 0 {
		places = append(places, parse(old[len(old)-1].Payload))
	}
	taken := make(map[string]bool)
	for _, storage := range places {
		if storage == nil {
			continue
		}
		for _, e := range storage.Children {
			room, ok := roomOf(e)
			if !ok || taken[room] {
				continue
			}
			if taken[room] = true; len(taken) > maxConferences {
				return xmpp.ErrPolicyViolation
			}
			if err := m.Nodes.Put(ctx, account, NS, room, read(e).element(NS, "").AppendTo(nil, "")); err != nil {
				return err
			}
		}
	}
	if len(taken) == 0 {
		return nil
	}
	return m.republish(ctx, account)
}

// roomOf is the room of a <conference/> of XEP-0048, in normal form.
func roomOf(e *xmpp.Element) (room string, ok bool) {
	if e.Local != "conference" || e.Space != NSOld {
		return "", false
	}
	for _, a := range e.Attrs {
		if a.Name == "jid" {
			room = normal(a.Value)
		}
	}
	return room, room != ""
}

// normal is a room's JID in normal form, "" for what is none.
func normal(s string) string {
	j, err := jid.Parse(s)
	if err != nil {
		return ""
	}
	return j.Bare().String()
}

// Read is what private XML has to say: the items of XEP-0402, and the URLs that were stored.
func (m Module) Read(ctx context.Context, account jid.JID, space, local string, stored []byte) ([]byte, bool, error) {
	if space != NSOld || local != "storage" {
		return nil, false, nil
	}
	if err := m.adopt(ctx, account); err != nil {
		return nil, false, err
	}
	items, err := m.Nodes.Items(ctx, account, NS)
	if err != nil || len(items) == 0 && stored == nil {
		return nil, false, err
	}
	return collate(items, parse(stored)).AppendTo(nil, ""), true, nil
}

// Stored hears of private XML that a client has stored: XEP-0402 §5.3.2.
func (m Module) Stored(ctx context.Context, account jid.JID, element *xmpp.Element) error {
	if element.Space != NSOld || element.Local != "storage" {
		return nil
	}
	if err := m.take(ctx, account, element, time.Now()); err != nil {
		return err
	}
	// What has been taken does not stay here, where nobody would keep it in step.
	if err := m.Store.SetPrivateXML(ctx, account, NSOld, "storage", rest(element).AppendTo(nil, "")); err != nil {
		return err
	}
	return m.republish(ctx, account)
}

// Published hears of a change of one of the two nodes. payload is that of an item of XEP-0048 and at when it was published, nil when it is gone.
func (m Module) Published(ctx context.Context, account jid.JID, node string, payload []byte, at time.Time) {
	var err error
	switch node {
	case NS:
		err = m.republish(ctx, account)
	case NSOld:
		if e := parse(payload); e != nil && e.Space == NSOld && e.Local == "storage" {
			err = m.take(ctx, account, e, at)
		}
	}
	if err != nil {
		m.Log.Error("keep bookmarks in step", "account", account.String(), "err", err)
	}
}

// take makes the items what a list of XEP-0048 says: XEP-0402 §5.3.2, nothing is sent for bookmarks that stay. What was published after that list stays as it
// is: who made the list did not know it.
func (m Module) take(ctx context.Context, account jid.JID, storage *xmpp.Element, at time.Time) error {
	items, err := m.Nodes.Items(ctx, account, NS)
	if err != nil {
		return err
	}
	have := make(map[string]Item, len(items)) // by the normal form; the id is the client's
	for _, it := range items {
		if room := normal(it.ID); room != "" {
			have[room] = it
		}
	}
	listed := make(map[string]bool)
	for _, e := range storage.Children {
		room, ok := roomOf(e)
		if !ok || listed[room] {
			continue
		}
		if listed[room] = true; len(listed) > maxConferences {
			return xmpp.ErrPolicyViolation
		}
		c, id := read(e), room
		if it, there := have[room]; there {
			id = it.ID
			if it.Published.After(at) {
				continue
			}
			if e := parse(it.Payload); e != nil {
				old := read(e)
				if old.same(c) {
					continue
				}
				c.extensions = old.extensions // XEP-0402 §3.3: what an older client does not know is kept
			}
		}
		if err := m.Nodes.Put(ctx, account, NS, id, c.element(NS, "").AppendTo(nil, "")); err != nil {
			return err
		}
	}
	for room, it := range have {
		if listed[room] || it.Published.After(at) {
			continue
		}
		if err := m.Nodes.Remove(ctx, account, NS, it.ID); err != nil {
			return err
		}
	}
	return nil
}

// republish makes the item of XEP-0048 what the items of XEP-0402 say: XEP-0402 §5.3.1.
func (m Module) republish(ctx context.Context, account jid.JID) error {
	items, err := m.Nodes.Items(ctx, account, NS)
	if err != nil {
		return err
	}
	old, err := m.Nodes.Items(ctx, account, NSOld)
	if err != nil {
		return err
	}
	var rest *xmpp.Element
	id := "current" // XEP-0048 §3.2
	if len(old) > 0 {
		rest, id = parse(old[len(old)-1].Payload), old[len(old)-1].ID
	}
	now := collate(items, rest).AppendTo(nil, "")
	if len(old) > 0 && string(now) == string(old[len(old)-1].Payload) {
		return nil
	}
	return m.Nodes.Put(ctx, account, NSOld, id, now)
}
