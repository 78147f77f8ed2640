package roster

import (
	"slices"
	"strconv"
	"strings"

	"balcony/xmpp"

	"golang.org/x/text/secure/precis"
	"mellium.im/xmpp/jid"
)

// query is the payload of a roster get or set (RFC 6121 §2.1).
type query struct {
	Ver   *string `xml:"ver,attr"`
	Items []struct {
		JID          string   `xml:"jid,attr"`
		Name         string   `xml:"name,attr"`
		Subscription string   `xml:"subscription,attr"`
		Groups       []string `xml:"jabber:iq:roster group"`
	} `xml:"jabber:iq:roster item"`
}

// change is what a roster set asks for.
type change struct {
	contact jid.JID
	name    string
	groups  []string
	remove  bool
}

// parseSet checks a roster set of owner: RFC 6121 §2.1.5, §2.3.3 and §2.5.3. The errors are stanza errors.
func (cfg Config) parseSet(owner jid.JID, payload xmpp.Child) (change, error) {
	var q query
	if err := payload.Decode(&q); err != nil {
		return change{}, xmpp.ErrBadRequest
	}
	if len(q.Items) != 1 {
		return change{}, xmpp.ErrBadRequest // RFC 6121 §2.1.5 rule 1
	}
	it := q.Items[0]
	if it.JID == "" {
		return change{}, xmpp.ErrBadRequest // RFC 6121 §2.1.2.3: required
	}
	contact, err := jid.Parse(it.JID)
	if err != nil {
		return change{}, xmpp.ErrJIDMalformed
	}
	// RFC 6121 §2.1.5 rule 2: every other value is ignored, and so are ask and approved (§2.1.2.1, §2.1.2.2).
	c := change{contact: contact, name: it.Name, remove: it.Subscription == "remove"}
	full := contact.Resourcepart() != ""
	if c.remove {
		if full {
			return change{}, errNoItem
		}
		return c, nil
	}
	switch {
	case contact.Equal(owner):
		return change{}, xmpp.ErrNotAllowed // RFC 6121 §2.3.3, the interoperability note
	case full:
		// Subscriptions are between bare JIDs (RFC 6121 §3.1.1). An item of a full JID could be stored only as that of another JID, and §2 wants
		// it stored unmodified.
		return change{}, xmpp.ErrNotAcceptable
	case len(it.Name) > cfg.Name:
		return change{}, xmpp.ErrNotAcceptable
	case len(it.Groups) > cfg.Groups:
		return change{}, xmpp.ErrNotAcceptable
	}
	seen := make(map[string]bool, len(it.Groups))
	for _, g := range it.Groups {
		if g == "" || len(g) > cfg.Group {
			return change{}, xmpp.ErrNotAcceptable
		}
		key, err := precis.OpaqueString.String(g) // RFC 6121 §2.3.3: compared like resourceparts
		if err != nil {
			key = g
		}
		if seen[key] {
			return change{}, xmpp.ErrBadRequest
		}
		seen[key] = true
	}
	c.groups = it.Groups
	return c, nil
}

// put makes the item what the owner set (RFC 6121 §2.4.1: exactly as provided); false when it is so already.
func (c change) put(it *Item) bool {
	if it.Listed && it.Name == c.name && slices.Equal(it.Groups, c.groups) {
		return false
	}
	it.Listed, it.Name, it.Groups = true, c.name, c.groups
	return true
}

// Element is the item as clients see it (RFC 6121 §2.1.2).
func (it Item) Element() *xmpp.Element {
	el := xmpp.El(NS, "item", "jid", it.Contact.String(), "name", it.Name, "subscription", it.Subscription())
	if it.Removed {
		return el
	}
	if it.Ask {
		el.Attrs = append(el.Attrs, xmpp.Attr{Name: "ask", Value: "subscribe"}) // RFC 6121 §2.1.2.2
	}
	if it.Approved {
		el.Attrs = append(el.Attrs, xmpp.Attr{Name: "approved", Value: "true"}) // RFC 6121 §2.1.2.1
	}
	for _, g := range it.Groups {
		el.Add(xmpp.El(NS, "group").Say(g))
	}
	return el
}

// queryElement is the payload of a roster result or push with its version (RFC 6121 §2.1.1).
func queryElement(version int64) *xmpp.Element {
	return xmpp.El(NS, "query", "ver", formatVersion(version))
}

func formatVersion(v int64) string { return strconv.FormatInt(v, 10) }

// parseVersion reads a version that formatVersion has written; false for everything else, the empty string of a client that has no
// roster yet included (RFC 6121 §2.6.2).
func parseVersion(s string) (int64, bool) {
	v, err := strconv.ParseInt(s, 10, 64)
	return v, err == nil && formatVersion(v) == s
}

// trim takes XML white space away on both sides, as the schema's types do.
func trim(s string) string { return strings.Trim(s, " \t\r\n") }
