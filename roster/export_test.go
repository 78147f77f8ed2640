package roster

import "mellium.im/xmpp/jid"

// Cached reports whether the module keeps something of an account in memory.
func (m *Module) Cached(bare jid.JID) bool { return m.online(bare) != nil }
