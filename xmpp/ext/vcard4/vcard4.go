// Package vcard4 keeps the two vCards of an account in step: that of XEP-0054, and that of XEP-0292: vCard4 Over XMPP 0.12.0, which is an item of a node.
package vcard4

import (
	"context"
	"encoding/xml"
	"log/slog"
	"reflect"
	"slices"
	"strings"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// Namespaces and the node.
const (
	Node   = "urn:xmpp:vcard4"                  // XEP-0292 §4
	nsNew  = "urn:ietf:params:xml:ns:vcard-4.0" // RFC 6351 §5
	nsTemp = "vcard-temp"                       // XEP-0054 §3
)

// Nodes are the accounts' nodes. Changes that are made through it are not told to this module.
type Nodes interface {
	// Newest returns the newest item of a node with its id, nil for none.
	Newest(ctx context.Context, account jid.JID, node string) (id string, payload []byte, err error)
	// Put publishes an item to a node, which is made open if it is not there.
	Put(ctx context.Context, account jid.JID, node, id string, payload []byte) error
	// Readable reports whether asker may read a node, and also that there is none.
	Readable(ctx context.Context, account, asker jid.JID, node string) (bool, error)
}

// Cards are the vCards of XEP-0054.
type Cards interface {
	// UpdateVCard stores what change makes of the account's vCard element, nil for none, while nobody else changes it; when change returns nil it leaves what is
	// there. It may call change more than once.
	UpdateVCard(ctx context.Context, account jid.JID, change func(stored []byte) []byte) error
}

// Module maps the properties that both formats have. Others stay where they are, and pictures are package avatar's.
type Module struct {
	Nodes Nodes
	Cards Cards
	Log   *slog.Logger
}

var _ xmpp.Module = Module{}

// Protocol lists XEP-0292.
func (Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{{XEP: 292, Version: "0.12.0", Status: xmpp.Partial, Note: "as a node, mapped from and to XEP-0054: names, addresses, numbers, dates and texts; no requests by IQ"}}
}

// Register adds the feature: XEP-0292 §3.
func (Module) Register(r *xmpp.Registry) { r.Feature(xmpp.ToContact, nsNew) }

// property is one property of a card that both formats have.
type property struct {
	name  string   // in vCard4
	texts []string // one, or the components of a structured one
	types []string // "home", "work" and the like, in order
}

// simple are the properties with one value: their names, the vCard4 element that holds the value, and what a value begins with there.
var simple = []struct{ temp, name, value, prefix string }{
	{"FN", "fn", "text", ""}, {"NICKNAME", "nickname", "text", ""}, {"BDAY", "bday", "date", ""}, {"URL", "url", "uri", ""},
	{"JABBERID", "impp", "uri", "xmpp:"}, {"TITLE", "title", "text", ""}, {"ROLE", "role", "text", ""}, {"DESC", "note", "text", ""},
}

// structured are the properties with components: XEP-0292 §8.
var structured = []struct {
	temp, name       string
	tempParts, parts []string
}{
	{"N", "n", []string{"FAMILY", "GIVEN", "MIDDLE", "PREFIX", "SUFFIX"}, []string{"surname", "given", "additional", "prefix", "suffix"}},
	{"ADR", "adr", []string{"POBOX", "EXTADD", "STREET", "LOCALITY", "REGION", "PCODE", "CTRY"}, []string{"pobox", "ext", "street", "locality", "region", "code", "country"}},
}

// types are those that XEP-0054 and vCard4 share.
var types = []string{"cell", "fax", "home", "pager", "text", "video", "voice", "work"}

// mapped are the elements that the mapping owns in either format.
func mapped(local string) bool {
	switch local {
	case "ORG", "EMAIL", "TEL", "org", "email", "tel":
		return true
	}
	for _, s := range simple {
		if local == s.temp || local == s.name {
			return true
		}
	}
	for _, s := range structured {
		if local == s.temp || local == s.name {
			return true
		}
	}
	return false
}

func text(e *xmpp.Element) string {
	if e == nil {
		return ""
	}
	return strings.TrimSpace(e.Text)
}

func child(e *xmpp.Element, local string) *xmpp.Element {
	for _, c := range e.Children {
		if c.Local == local {
			return c
		}
	}
	return nil
}

// fromTemp reads a vCard of XEP-0054.
func fromTemp(card *xmpp.Element) (list []property) {
	for _, e := range card.Children {
		p := property{}
		for _, s := range simple {
			if e.Local == s.temp && text(e) != "" {
				p = property{name: s.name, texts: []string{text(e)}}
			}
		}
		for _, s := range structured {
			if e.Local == s.temp {
				p = property{name: s.name, texts: parts(e, s.tempParts)}
			}
		}
		switch e.Local {
		case "ORG":
			p = property{name: "org", texts: []string{text(child(e, "ORGNAME"))}} // XEP-0292 §8.3.3: no units
		case "EMAIL":
			p = property{name: "email", texts: []string{text(child(e, "USERID"))}}
		case "TEL":
			p = property{name: "tel", texts: []string{text(child(e, "NUMBER"))}}
		}
		if p.name == "email" || p.name == "tel" || p.name == "adr" {
			for _, c := range e.Children {
				if t := strings.ToLower(c.Local); slices.Contains(types, t) {
					p.types = append(p.types, t)
				}
			}
		}
		list = p.addTo(list)
	}
	return list
}

// addTo appends a property that says something.
func (p property) addTo(list []property) []property {
	if p.name == "" || strings.Join(p.texts, "") == "" {
		return list
	}
	slices.Sort(p.types)
	p.types = slices.Compact(p.types)
	return append(list, p)
}

func parts(e *xmpp.Element, names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = text(child(e, n))
	}
	return out
}

// toTemp writes properties as elements of XEP-0054.
func toTemp(list []property) (out []*xmpp.Element) {
	for _, p := range list {
		var e *xmpp.Element
		for _, s := range simple {
			if p.name == s.name {
				e = xmpp.El(nsTemp, s.temp).Say(p.texts[0])
			}
		}
		for _, s := range structured {
			if p.name == s.name {
				e = xmpp.El(nsTemp, s.temp).Add(flags(p.types)...)
				for i, t := range p.texts {
					if t != "" {
						e.Add(xmpp.El(nsTemp, s.tempParts[i]).Say(t))
					}
				}
			}
		}
		switch p.name {
		case "org":
			e = xmpp.El(nsTemp, "ORG").Add(xmpp.El(nsTemp, "ORGNAME").Say(p.texts[0]))
		case "email":
			e = xmpp.El(nsTemp, "EMAIL").Add(flags(p.types)...).Add(xmpp.El(nsTemp, "INTERNET"), xmpp.El(nsTemp, "USERID").Say(p.texts[0]))
		case "tel":
			e = xmpp.El(nsTemp, "TEL").Add(flags(p.types)...).Add(xmpp.El(nsTemp, "NUMBER").Say(p.texts[0]))
		}
		if e != nil {
			out = append(out, e)
		}
	}
	return out
}

func flags(types []string) (out []*xmpp.Element) {
	for _, t := range types {
		out = append(out, xmpp.El(nsTemp, strings.ToUpper(t)))
	}
	return out
}

// fromNew reads a vCard4.
func fromNew(card *xmpp.Element) (list []property) {
	for _, e := range card.Children {
		p := property{}
		for _, s := range simple {
			if e.Local == s.name {
				v := text(child(e, s.value))
				if v == "" {
					v = text(child(e, "text"))
				}
				if rest, ok := strings.CutPrefix(v, s.prefix); ok {
					p = property{name: s.name, texts: []string{rest}}
				}
			}
		}
		for _, s := range structured {
			if e.Local == s.name {
				p = property{name: s.name, texts: parts(e, s.parts)}
			}
		}
		switch e.Local {
		case "org", "email":
			p = property{name: e.Local, texts: []string{text(child(e, "text"))}}
		case "tel":
			v := text(child(e, "uri"))
			if v == "" {
				v = text(child(e, "text"))
			}
			p = property{name: "tel", texts: []string{strings.TrimPrefix(v, "tel:")}}
		}
		if p.name == "email" || p.name == "tel" || p.name == "adr" {
			if params := child(e, "parameters"); params != nil {
				if t := child(params, "type"); t != nil {
					for _, c := range t.Children {
						if v := strings.ToLower(text(c)); slices.Contains(types, v) {
							p.types = append(p.types, v)
						}
					}
				}
			}
		}
		list = p.addTo(list)
	}
	return list
}

// toNew writes properties as elements of vCard4.
func toNew(list []property) (out []*xmpp.Element) {
	el := func(local, s string) *xmpp.Element { return xmpp.El(nsNew, local).Say(s) }
	for _, p := range list {
		e := xmpp.El(nsNew, p.name)
		if len(p.types) > 0 {
			t := xmpp.El(nsNew, "type")
			for _, v := range p.types {
				t.Add(el("text", v))
			}
			e.Add(xmpp.El(nsNew, "parameters").Add(t))
		}
		for _, s := range simple {
			if p.name == s.name {
				e.Add(el(s.value, s.prefix+p.texts[0]))
			}
		}
		for _, s := range structured {
			if p.name == s.name {
				for i, t := range p.texts {
					e.Add(el(s.parts[i], t)) // RFC 6351 §5: each component stands there, also an empty one
				}
			}
		}
		switch p.name {
		case "org", "email":
			e.Add(el("text", p.texts[0]))
		case "tel":
			e.Add(el("uri", "tel:"+strings.Join(strings.Fields(p.texts[0]), "-"))) // RFC 3966 §3: no white space
		}
		out = append(out, e)
	}
	return out
}

// read reads a stored card, nil for none.
func read(b []byte, space, local string) *xmpp.Element {
	if b == nil {
		return nil
	}
	e, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader(string(b))))
	if err != nil || e.Space != space || e.Local != local {
		return nil
	}
	return e
}

// merge makes a card of what it had beside the mapped properties and of new ones.
func merge(card *xmpp.Element, list []*xmpp.Element) *xmpp.Element {
	card.Text = ""
	card.Children = append(list, slices.DeleteFunc(slices.Clone(card.Children), func(e *xmpp.Element) bool { return e.Local == "" || mapped(e.Local) })...)
	return card
}

// Stored hears of a vCard of XEP-0054 that a client has stored.
func (m Module) Stored(ctx context.Context, account jid.JID, card []byte) {
	if err := m.toNode(ctx, account, card); err != nil {
		m.Log.Error("publish vCard", "account", account.String(), "err", err)
	}
}

func (m Module) toNode(ctx context.Context, account jid.JID, card []byte) error {
	temp := read(card, nsTemp, "vCard")
	if temp == nil {
		return nil
	}
	id, payload, err := m.Nodes.Newest(ctx, account, Node)
	if err != nil {
		return err
	}
	list := toNew(fromTemp(temp))
	is := read(payload, nsNew, "vcard")
	if is == nil {
		if len(list) == 0 {
			return nil
		}
		is = xmpp.El(nsNew, "vcard")
	}
	if id == "" {
		id = "current"
	}
	// Compared as it would be read again, so that what the formats say differently does not count.
	if again := xmpp.El(nsNew, "vcard").Add(list...); reflect.DeepEqual(fromNew(again), fromNew(is)) {
		return nil
	}
	return m.Nodes.Put(ctx, account, Node, id, merge(is, list).AppendTo(nil, ""))
}

// Published hears of a vCard4 that was published, or with nil that one was taken away.
func (m Module) Published(ctx context.Context, account jid.JID, payload []byte) {
	if err := m.toCard(ctx, account, payload); err != nil {
		m.Log.Error("store vCard", "account", account.String(), "err", err)
	}
}

// Shown is what of an account's vCard of XEP-0054 somebody else sees. That one is for everybody (§3.3), but what it shares with a vCard4 is for those who
// may read the node.
func (m Module) Shown(ctx context.Context, account, asker jid.JID, card []byte) ([]byte, error) {
	ok, err := m.Nodes.Readable(ctx, account, asker, Node)
	if err != nil || ok {
		return card, err
	}
	temp := read(card, nsTemp, "vCard")
	if temp == nil {
		return card, nil
	}
	return merge(temp, nil).AppendTo(nil, ""), nil
}

func (m Module) toCard(ctx context.Context, account jid.JID, payload []byte) error {
	if payload == nil {
		// An item was taken away: another one may be the newest by now.
		var err error
		if _, payload, err = m.Nodes.Newest(ctx, account, Node); err != nil {
			return err
		}
	}
	var list []property // none when there is no card any more: both were in step
	if payload != nil {
		card := read(payload, nsNew, "vcard")
		if card == nil {
			return nil
		}
		list = fromNew(card)
	}
	return m.put(ctx, account, list)
}

// Deleted takes what the vCard of XEP-0054 shares with a vCard4 out of it, before the node goes: without the node nobody could tell that it was not for
// everybody.
func (m Module) Deleted(ctx context.Context, account jid.JID) error { return m.put(ctx, account, nil) }

// put makes properties those of the vCard of XEP-0054.
func (m Module) put(ctx context.Context, account jid.JID, list []property) error {
	return m.Cards.UpdateVCard(ctx, account, func(stored []byte) []byte {
		temp := read(stored, nsTemp, "vCard")
		if temp == nil {
			temp = xmpp.El(nsTemp, "vCard")
		}
		if there := fromTemp(temp); len(list)+len(there) == 0 || reflect.DeepEqual(list, there) {
			return nil
		}
		return merge(temp, toTemp(list)).AppendTo(nil, "")
	})
}
