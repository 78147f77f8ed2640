package stream

// intern is b as a string. The words that most stanzas have cost no allocation. The list is fixed: nothing that peers send is added.
func intern(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	for i := wordHash(b); ; i++ {
		w := wordTable[i%wordSlots]
		if w == string(b) {
			return w
		}
		if w == "" {
			return string(b)
		}
	}
}

const wordSlots = 1024 // chosen: few of the words share a slot

// wordHash looks at three bytes and the length: about three times as fast as a map, which hashes all of them.
func wordHash[T string | []byte](s T) uint {
	n := uint(len(s))
	return n*31 + uint(s[n-1])*7 + uint(s[n/2])*131 + uint(s[n-1-n/4])*17
}

var wordTable = func() (t [wordSlots]string) {
	for _, w := range words {
		i := wordHash(w)
		for t[i%wordSlots] != "" && t[i%wordSlots] != w {
			i++
		}
		t[i%wordSlots] = w
	}
	return t
}()

var words = []string{
	// types (RFC 6120 §8.2.3, RFC 6121 §4.7.1, §5.2.2) and other values of attributes
	"get", "set", "result", "error", "chat", "groupchat", "headline", "normal", "unavailable", "subscribe", "subscribed",
	"unsubscribe", "unsubscribed", "probe", "invisible", "1.0", "en", "de", "fr", "es", "ru", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS",
	"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-512", "SCRAM-SHA-512-PLUS", "PLAIN", "EXTERNAL",
	// local names of children and nonzas
	"body", "subject", "thread", "html", "x", "active", "composing", "paused", "inactive", "gone", "request", "received", "displayed",
	"markable", "origin-id", "stanza-id", "delay", "replace", "reactions", "reply", "fallback", "encrypted", "encryption", "store",
	"no-store", "no-permanent-store", "no-copy", "private", "sent", "forwarded", "event", "retract", "apply-to", "nick", "attention",
	"reference", "show", "status", "priority", "c", "idle", "query", "ping", "time", "vCard", "pubsub", "bind", "session", "block",
	"unblock", "blocklist", "enable", "disable", "command", "slot", "prefs", "fin", "jingle", "propose", "proceed", "reject",
	"accept", "finish", "retract", "data", "open", "close", "services", "message", "presence", "iq", "auth", "response", "abort",
	"starttls", "authenticate", "r", "a", "resume", "markup", "message-archive", "push", "spaces", "join", "leave", "features",
	// namespaces: content and stream level
	"jabber:client", "jabber:server", "jabber:component:accept", "http://etherx.jabber.org/streams",
	"urn:ietf:params:xml:ns:xmpp-sasl", "urn:ietf:params:xml:ns:xmpp-tls", "urn:ietf:params:xml:ns:xmpp-bind",
	"urn:ietf:params:xml:ns:xmpp-session", "urn:ietf:params:xml:ns:xmpp-stanzas", "urn:xmpp:sm:3", "urn:xmpp:csi:0", "urn:xmpp:sasl:2",
	"urn:xmpp:bind:0", "jabber:server:dialback",
	// namespaces of extensions
	"http://jabber.org/protocol/chatstates", "urn:xmpp:receipts", "urn:xmpp:chat-markers:0", "urn:xmpp:sid:0", "urn:xmpp:delay",
	"urn:xmpp:message-correct:0", "urn:xmpp:reactions:0", "urn:xmpp:reply:0", "urn:xmpp:fallback:0", "eu.siacs.conversations.axolotl",
	"urn:xmpp:omemo:2", "urn:xmpp:eme:0", "urn:xmpp:hints", "urn:xmpp:carbons:2", "urn:xmpp:forward:0",
	"http://jabber.org/protocol/pubsub", "http://jabber.org/protocol/pubsub#event", "http://jabber.org/protocol/pubsub#owner",
	"http://jabber.org/protocol/muc", "http://jabber.org/protocol/muc#user", "http://jabber.org/protocol/muc#admin",
	"http://jabber.org/protocol/muc#owner", "http://jabber.org/protocol/caps", "http://jabber.org/protocol/disco#info",
	"http://jabber.org/protocol/disco#items", "http://jabber.org/protocol/nick", "http://jabber.org/protocol/commands",
	"http://jabber.org/protocol/xhtml-im", "http://jabber.org/protocol/ibb", "http://jabber.org/protocol/bytestreams",
	"jabber:x:oob", "jabber:x:data", "jabber:x:conference", "jabber:x:delay", "jabber:iq:roster", "jabber:iq:version",
	"jabber:iq:last", "jabber:iq:private", "jabber:iq:register", "jabber:iq:search", "urn:xmpp:ping", "urn:xmpp:time", "vcard-temp",
	"vcard-temp:x:update", "urn:xmpp:blocking", "urn:xmpp:mam:2", "urn:xmpp:push:0", "urn:xmpp:http:upload:0", "urn:xmpp:jingle:1",
	"urn:xmpp:jingle-message:0", "urn:xmpp:idle:1", "urn:xmpp:attention:0", "urn:xmpp:reference:0", "urn:xmpp:extdisco:2",
	"urn:xmpp:message-retract:1", "urn:xmpp:fasten:0",
}
