package c2s

import (
	"fmt"
	"testing"

	"balcony/xmpp/stream"

	"pgregory.net/rapid"
)

// What an inactive client need not have at once: XEP-0352 §2. The same key means that the later stanza says all that the earlier one does.
func TestClassify(t *testing.T) {
	const event = "<message from='juliet@localhost' to='romeo@localhost/orchard'><event xmlns='http://jabber.org/protocol/pubsub#event'>%s</event></message>"
	const from = "from='juliet@localhost/balcony' to='romeo@localhost/orchard'"
	mood := "e juliet@localhost\x00mood"
	for _, c := range []struct {
		xml  string
		what idle
		key  string
	}{
		{"<presence " + from + "/>", replace, "p juliet@localhost/balcony"},
		{"<presence type='unavailable' " + from + "/>", replace, "p juliet@localhost/balcony"},
		{"<presence type='subscribe' " + from + "/>", urgent, ""},
		{"<presence type='error' " + from + "/>", urgent, ""},
		{"<iq type='get' id='1' " + from + "><ping xmlns='urn:xmpp:ping'/></iq>", urgent, ""},
		{"<message " + from + "><body>hi</body></message>", urgent, ""},
		{"<message " + from + "><body>hi</body><active xmlns='http://jabber.org/protocol/chatstates'/></message>", urgent, ""},
		{"<message " + from + "><composing xmlns='http://jabber.org/protocol/chatstates'/></message>", drop, ""},
		{"<message " + from + "><thread>x</thread><paused xmlns='http://jabber.org/protocol/chatstates'/><no-store xmlns='urn:xmpp:hints'/></message>", drop, ""},
		{"<message type='error' " + from + "><composing xmlns='http://jabber.org/protocol/chatstates'/></message>", urgent, ""},
		{"<message " + from + "/>", urgent, ""},
		{"<message " + from + "><received xmlns='urn:xmpp:receipts' id='1'/></message>", urgent, ""},
		{"<message " + from + "><propose xmlns='urn:xmpp:jingle-message:0' id='1'/></message>", urgent, ""},
		{"<message " + from + "><x xmlns='jabber:x:conference' jid='room@localhost'/></message>", urgent, ""},
		{fmt.Sprintf(event, "<items node='mood'><item id='current'><mood xmlns='x'/></item></items>"), replace, mood + "\x00current"},
		{fmt.Sprintf(event, "<items node='mood'><retract id='current'/></items>"), replace, mood + "\x00current"},
		{fmt.Sprintf(event, "<items node='mood'><item id='other'/></items>"), replace, mood + "\x00other"},
		{fmt.Sprintf(event, "<items node='mood'><item id='a'/><item id='b'/></items>"), replace, mood + "\x00a\x00b"},
		{fmt.Sprintf(event, "<items node='mood'/>"), replace, mood},
		{fmt.Sprintf(event, "<items/>"), urgent, ""},
		{fmt.Sprintf(event, "<purge node='mood'/>"), urgent, ""},
		{fmt.Sprintf(event, "<delete node='mood'/>"), urgent, ""},
		{fmt.Sprintf(event, "<configuration node='mood'/>"), urgent, ""},
	} {
		s, err := stream.Parse([]byte(c.xml), stream.DefaultLimits())
		if err != nil {
			t.Fatalf("%s: %v", c.xml, err)
		}
		if what, key := classify(s); what != c.what || key != c.key {
			t.Errorf("%s: %d %q, want %d %q", c.xml, what, key, c.what, c.key)
		}
	}
	// A copy (XEP-0280) is as urgent as the message: an answer that was given elsewhere ends the notification.
	for content, want := range map[string]idle{
		"<composing xmlns='http://jabber.org/protocol/chatstates'/>": drop,
		"<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>":        urgent,
		"<body>hi</body>": urgent,
		"":                urgent,
	} {
		s, err := stream.Parse([]byte("<message type='chat'>"+content+"</message>"), stream.DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		for _, direction := range []string{"sent", "received"} {
			if what, _ := classify(s.Forward("urn:xmpp:carbons:2", direction)); what != want {
				t.Errorf("copy of %q: %d, want %d", content, what, want)
			}
		}
	}
}

// Against a list: of each key the latest, in the order of their latest change; never more than the bounds.
func TestHeldModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h held
		var keys []string
		latest := make(map[string]string)
		for n := range rapid.IntRange(0, 60).Draw(t, "n") {
			key := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "key")
			s := message(n)
			full := h.hold(s, key)
			for i, k := range keys {
				if k == key {
					keys = append(keys[:i:i], keys[i+1:]...)
					break
				}
			}
			keys, latest[key] = append(keys, key), s.ID
			size := 0
			for _, st := range h.stanzas {
				if st != nil {
					size += st.Size()
				}
			}
			if h.bytes != size || full {
				t.Fatalf("%d bytes, want %d; full %v", h.bytes, size, full)
			}
		}
		got := h.take()
		if len(got) != len(keys) {
			t.Fatalf("%d stanzas, want %d", len(got), len(keys))
		}
		for i, s := range got {
			if s.ID != latest[keys[i]] {
				t.Fatalf("place %d has %s, want %s", i, s.ID, latest[keys[i]])
			}
		}
		if len(h.stanzas) != 0 || h.bytes != 0 || len(h.index) != 0 {
			t.Fatal("it holds something after take")
		}
	})
	var h held
	n := 0
	for !h.hold(message(n), fmt.Sprint(n)) {
		n++
	}
	if n > maxHeld || h.bytes > maxHeldBytes+message(n).Size() {
		t.Errorf("%d stanzas, %d bytes", n, h.bytes)
	}
	h.take()
	for n = 0; !h.hold(message(n), "same"); n++ {
	}
	if n > 4*maxHeld {
		t.Errorf("%d places for one key", n)
	}
}
