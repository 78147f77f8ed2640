package pubsub

import (
	"slices"
	"strings"
)

// The nodes whose specifications say how they must be.
const (
	nodeAvatarData     = "urn:xmpp:avatar:data"                      // XEP-0084 §3
	nodeAvatarMetadata = "urn:xmpp:avatar:metadata"                  // XEP-0084 §3
	nodeBookmarks      = "urn:xmpp:bookmarks:1"                      // XEP-0402 §2
	nodeOldBookmarks   = "storage:bookmarks"                         // XEP-0048 §3
	nodeDisplayed      = "urn:xmpp:mds:displayed:0"                  // XEP-0490 §3
	nodeNick           = "http://jabber.org/protocol/nick"           // XEP-0172 §4.2
	nodeVCard4         = "urn:xmpp:vcard4"                           // XEP-0292 §4
	nodeOMEMODevices   = "urn:xmpp:omemo:2:devices"                  // XEP-0384 §5.3.1
	nodeOMEMOBundles   = "urn:xmpp:omemo:2:bundles"                  // XEP-0384 §5.3.2
	nodeAxolotlDevices = "eu.siacs.conversations.axolotl.devicelist" // XEP-0384 0.3 §4.2
	nodeAxolotlBundles = "eu.siacs.conversations.axolotl.bundles:"   // XEP-0384 0.3 §4.3, with the id of a device behind
)

// profile is what the specification of a node wants of it on an account.
type profile struct {
	name   string
	prefix bool // name is only the beginning
	// access are the access models that the node may have, the first one where it is told none, or has another.
	access []AccessModel
	// items is how many items it is made for; MaxItems as many as there can be. It never keeps fewer.
	items int
	never bool // the last item is not sent by itself, unless the owner wants it
	// full is what happens to an item too many, "" where the owner decides: docs/decisions/0032-full-nodes.md.
	full NodeFull
}

// profiles are the nodes whose wrong configuration breaks something: encryption, when contacts cannot read keys, or privacy, when bookmarks reach
// them. They are made right when they are made, and put right when they are used: other servers and older clients have left them wrong.
var profiles = []profile{
	// XEP-0384 §5.3.1 and §5.3.2: REQUIRED to be open.
	{name: nodeOMEMODevices, access: []AccessModel{Open}, items: 1},
	{name: nodeOMEMOBundles, access: []AccessModel{Open}, items: MaxItems},
	{name: nodeAxolotlDevices, access: []AccessModel{Open}, items: 1},
	{name: nodeAxolotlBundles, prefix: true, access: []AccessModel{Open}, items: 1},
	// XEP-0402 §3.3, XEP-0490 §3.1 and XEP-0223 §2: nobody but the owner, and kept.
	{name: nodeBookmarks, access: []AccessModel{Whitelist}, items: MaxItems, never: true, full: Reject},
	{name: nodeOldBookmarks, access: []AccessModel{Whitelist}, items: 1},
	{name: nodeDisplayed, access: []AccessModel{Whitelist}, items: MaxItems, never: true},
	// XEP-0292 §4 with XEP-0222: world-readable, unless the owner wants it otherwise.
	{name: nodeVCard4, access: []AccessModel{Open, Presence, Roster, Authorize, Whitelist}, items: 1},
	// XEP-0172 §4.2: whoever may see the account's presence, unless the owner wants it otherwise.
	{name: nodeNick, access: []AccessModel{Presence, Open, Roster, Authorize, Whitelist}, items: 1},
	// XEP-0084 §4.2: the owner's choice; XEP-0163 §5 where there is none.
	{name: nodeAvatarData, access: []AccessModel{Presence, Open, Roster, Authorize, Whitelist}, items: 1},
	{name: nodeAvatarMetadata, access: []AccessModel{Presence, Open, Roster, Authorize, Whitelist}, items: 1},
}

// profileOf is the profile of an account's node, nil for one without.
func profileOf(name string) *profile {
	for i := range profiles {
		p := &profiles[i]
		if name == p.name || p.prefix && strings.HasPrefix(name, p.name) {
			return p
		}
	}
	return nil
}

// fresh is the configuration of an account's node that is made without one.
func fresh(name string) Config {
	c := pepConfig()
	if p := profileOf(name); p != nil {
		c.Access, c.MaxItems = p.access[0], p.items
		if p.never {
			c.SendLast = Never
		}
		if p.full != "" {
			c.NodeFull = p.full
		}
	}
	return c
}

// repair makes a configuration right; it reports whether it was not.
func (p *profile) repair(c *Config) (changed bool) {
	if p == nil {
		return false
	}
	if !slices.Contains(p.access, c.Access) {
		c.Access, changed = p.access[0], true
	}
	if !c.Persist {
		c.Persist, changed = true, true
	}
	if c.MaxItems != MaxItems && (p.items == MaxItems || c.MaxItems < p.items) {
		c.MaxItems, changed = p.items, true
	}
	if c.ItemExpire != 0 {
		c.ItemExpire, changed = 0, true
	}
	if p.full != "" && c.NodeFull != p.full {
		c.NodeFull, changed = p.full, true
	}
	if !c.Deliver || !c.Payloads {
		c.Deliver, c.Payloads, changed = true, true, true
	}
	return changed
}

// allows reports whether a node may have that access; one without a profile may have any.
func (p *profile) allows(a AccessModel) bool { return p == nil || slices.Contains(p.access, a) }
