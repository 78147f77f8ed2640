package disco

import "balcony/xmpp"

// Ver is ver, for tests on the wire.
func Ver(query *xmpp.Element) string { return ver(query) }
