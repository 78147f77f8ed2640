package push

import (
	"hash/maphash"
	"strings"
	"unicode/utf8"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// priority is how much a stanza matters to a person whose device sleeps.
type priority uint8

const (
	none   priority = iota // not worth to wake a device
	normal                 // may wait until the device wakes up by itself
	high                   // a message for a person
	call                   // somebody waits for an answer
)

// news is what a notification may tell of a stanza.
type news struct {
	priority priority
	message  bool // it counts in message-count
	sender   jid.JID
	body     string
	key      uint64 // the same for the same message; 0: cannot be told from others
}

const maxBody = 1024 // bytes. chosen: push services pass on less

const (
	nsJingleMessage = "urn:xmpp:jingle-message:0" // XEP-0353
	nsCarbons       = "urn:xmpp:carbons:2"        // XEP-0280
	nsForward       = "urn:xmpp:forward:0"        // XEP-0297
	nsHints         = "urn:xmpp:hints"            // XEP-0334
	nsMUCUser       = "http://jabber.org/protocol/muc#user"
	nsConference    = "jabber:x:conference" // XEP-0249
)

// encrypted are elements that carry a message for a person where there need not be a body.
var encrypted = []struct{ space, local string }{
	{"eu.siacs.conversations.axolotl", "encrypted"}, // XEP-0384 0.3
	{"urn:xmpp:omemo:1", "encrypted"},               // XEP-0384 0.7
	{"urn:xmpp:omemo:2", "encrypted"},               // XEP-0384 0.8
	{"urn:xmpp:openpgp:0", "openpgp"},               // XEP-0373
	{"jabber:x:encrypted", "x"},                     // XEP-0027
}

// newsOf is what a stanza to an account tells. Receipts, markers, chat states, errors and what the account itself sends are no news.
func (m *Module) newsOf(s *xmpp.Stanza, account jid.JID) news {
	own := s.From.Bare().Equal(account)
	if s.Kind == xmpp.Presence && s.Type == "subscribe" && !own {
		return news{priority: normal, key: m.key(s.From, "subscribe")}
	}
	if s.Kind != xmpp.Message {
		return news{}
	}
	if own {
		// XEP-0280 §12: a copy counts only from the account itself. What was sent from another device is no news.
		if s = received(s); s == nil || s.From.Bare().Equal(account) {
			return news{}
		}
	}
	n := news{priority: m.priority(s, account), message: true, sender: s.From}
	if n.priority == none {
		return news{}
	}
	if s.ID != "" {
		n.key = m.key(s.From, s.ID)
	}
	if b, ok := s.Child("", "body"); ok && m.cfg.Body {
		n.body = strings.Clone(cut(b.Text(), maxBody)) // without the rest of a long one
	}
	return n
}

// priority of a message from somebody else.
func (m *Module) priority(s *xmpp.Stanza, account jid.JID) priority {
	switch s.MessageType() {
	case stanza.ErrorMessage:
		return none
	case stanza.HeadlineMessage:
		if hasBody(s) {
			return normal // RFC 6121 §5.2.2: no reply is expected
		}
		return none
	case stanza.GroupChatMessage:
		// XEP-0045 §7.2.13: what has a delay is the history that an occupant gets who enters; §7.4: a room sends everybody's messages to the one who
		// sent them too.
		if s.Has(xmpp.NSDelay, "delay") || m.echoes.has(m.echoKey(account, s.From, s.ID)) {
			return none
		}
	}
	switch {
	case s.Has(nsJingleMessage, "propose"):
		return call // XEP-0353 §3.1
	case hasBody(s), isEncrypted(s), isInvitation(s):
		return high
	case s.Has(nsJingleMessage, "retract"):
		return normal // XEP-0353 §3.2: a device that woke up stops ringing
	}
	return none
}

func hasBody(s *xmpp.Stanza) bool {
	b, ok := s.Child("", "body")
	return ok && b.Text() != ""
}

// isEncrypted: XEP-0384 §5.5: a message without <payload/> only manages keys.
func isEncrypted(s *xmpp.Stanza) bool {
	for _, e := range encrypted {
		c, ok := s.Child(e.space, e.local)
		if !ok {
			continue
		}
		if e.local != "encrypted" {
			return true
		}
		if el, err := c.Element(); err == nil && child(el, "payload") != nil {
			return true
		}
	}
	return false
}

// isInvitation: XEP-0249 §2, and XEP-0045 §7.8.2 where the room sends it.
func isInvitation(s *xmpp.Stanza) bool {
	if s.Has(nsConference, "x") {
		return true
	}
	c, ok := s.Child(nsMUCUser, "x")
	if !ok {
		return false
	}
	el, err := c.Element()
	return err == nil && child(el, "invite") != nil
}

// received is the message that a carbon copy brings which somebody else sent, nil when there is none.
func received(s *xmpp.Stanza) *xmpp.Stanza {
	if o := s.Original(); o != nil {
		return o
	}
	c, ok := s.Child(nsCarbons, "received")
	if !ok {
		return nil
	}
	el, err := c.Element()
	if err != nil {
		return nil
	}
	el = child(el, "forwarded")
	if el == nil || el.Space != nsForward {
		return nil
	}
	el = child(el, "message")
	if el == nil || el.Space != xmpp.NSClient {
		return nil
	}
	var content []*xmpp.Element
	for _, c := range el.Children {
		if c.Local != "" {
			content = append(content, c)
		}
	}
	from, err := jid.Parse(el.Attr("from"))
	if err != nil {
		return nil
	}
	inner := xmpp.New(xmpp.Message, el.Attr("type"), jid.JID{}, from, content...)
	inner.ID = el.Attr("id")
	return inner
}

// child is the first child of that name in the element's own namespace or any other.
func child(e *xmpp.Element, local string) *xmpp.Element {
	for _, c := range e.Children {
		if c.Local == local {
			return c
		}
	}
	return nil
}

// key tells messages apart. It is never 0.
func (m *Module) key(from jid.JID, id string) uint64 {
	var h maphash.Hash
	h.SetSeed(m.seed)
	_, _ = h.WriteString(from.String()) // never fails
	_ = h.WriteByte(0)
	_, _ = h.WriteString(id)
	return h.Sum64() | 1
}

// cut shortens s to at most n bytes of whole characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
