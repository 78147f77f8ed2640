package c2s

import (
	"context"

	"balcony/xmpp"

	"mellium.im/xmpp/stanza"
)

const (
	nsCSI        = "urn:xmpp:csi:0"                          // XEP-0352
	nsChatStates = "http://jabber.org/protocol/chatstates"   // XEP-0085
	nsEvent      = "http://jabber.org/protocol/pubsub#event" // XEP-0060
	nsHints      = "urn:xmpp:hints"                          // XEP-0334
)

// held is what waits for an inactive client: XEP-0352 §5. As a pure structure; the session's mu guards it.
type held struct {
	stanzas []*xmpp.Stanza // in the order of their latest change
	index   map[string]int // place in stanzas by what a later stanza replaces
	bytes   int
}

// Bounds of what is held; beyond them everything goes out. chosen: the presence of a large roster, well below the outbox.
const (
	maxHeld      = 1000
	maxHeldBytes = 256 << 10
)

// idle is what an inactive client need not have at once.
type idle uint8

const (
	urgent  idle = iota // let through, with everything that was held before it
	replace             // hold; a later one of the same key replaces it
	drop                // of no use later
)

// classify says what to do with a stanza for an inactive client, and the key by which a later one replaces it.
func classify(s *xmpp.Stanza) (idle, string) {
	switch s.Kind {
	case xmpp.Presence:
		if s.Type == "" || s.Type == "unavailable" {
			return replace, "p " + s.From.String() // XEP-0352 §5: the latest of each sender
		}
	case xmpp.Message:
		if s.Has("", "body") || s.MessageType() == stanza.ErrorMessage {
			return urgent, ""
		}
		if event, ok := s.Child(nsEvent, "event"); ok {
			if key, ok := published(event); ok {
				return replace, "e " + s.From.String() + "\x00" + key
			}
			return urgent, ""
		}
		if o := s.Original(); chatState(s) || o != nil && chatState(o) {
			return drop, "" // XEP-0352 §2; stale when it arrives (XEP-0085 §5.5)
		}
	}
	return urgent, "" // calls, invitations, encrypted messages, and whatever is not known
}

// published names what a notification brings news of: the node and its items, published or retracted (XEP-0060 §7.1.2, §7.2.2). A later one about
// the same items says all that this one says. ok is false for what has no items: a node that was purged, deleted or configured.
func published(event xmpp.Child) (key string, ok bool) {
	var v struct {
		Items struct {
			Node    string `xml:"node,attr"`
			Entries []struct {
				ID string `xml:"id,attr"`
			} `xml:",any"`
		} `xml:"http://jabber.org/protocol/pubsub#event items"`
	}
	if event.Decode(&v) != nil || v.Items.Node == "" {
		return "", false
	}
	key = v.Items.Node
	for _, e := range v.Items.Entries {
		key += "\x00" + e.ID
	}
	return key, true
}

// chatState reports whether a message has a chat state and nothing else that anybody would miss.
func chatState(s *xmpp.Stanza) bool {
	for _, sp := range s.Spans() {
		if !stateOnly(sp.Space, sp.Local) {
			return false
		}
	}
	return len(s.Spans()) > 0
}

func stateOnly(space, local string) bool {
	return space == nsChatStates || space == nsHints || space == "" && local == "thread"
}

// hold takes a stanza that can wait. It reports whether the bound is reached and everything should go out.
func (h *held) hold(s *xmpp.Stanza, key string) (full bool) {
	if i, ok := h.index[key]; ok {
		h.bytes -= h.stanzas[i].Size()
		h.stanzas[i] = nil
	}
	if h.index == nil {
		h.index = make(map[string]int)
	}
	h.index[key] = len(h.stanzas)
	h.stanzas = append(h.stanzas, s)
	h.bytes += s.Size()
	return len(h.index) >= maxHeld || len(h.stanzas) >= 4*maxHeld || h.bytes >= maxHeldBytes
}

// take returns what was held, in order, and holds nothing any more.
func (h *held) take() []*xmpp.Stanza {
	out := make([]*xmpp.Stanza, 0, len(h.index))
	for _, s := range h.stanzas {
		if s != nil {
			out = append(out, s)
		}
	}
	*h = held{}
	return out
}

// setActive is <active/> and <inactive/>: XEP-0352 §4. Becoming active brings everything that was held, before anything newer.
func (s *session) setActive(ctx context.Context, active bool) {
	s.mu.Lock()
	s.inactive = !active
	taken := false
	if active {
		for _, h := range s.held.take() {
			taken = s.pass(h)
		}
	}
	s.passed(ctx, taken)
	if active {
		s.server.returned(s.bound)
	}
}

// Active reports whether the client is connected and has not said that nobody looks at it.
func (s *session) Active() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn != nil && !s.inactive
}
