package push_test

import (
	"context"
	"testing"

	"balcony/xmpp"
	"balcony/xmpp/ext/push"

	"mellium.im/xmpp/jid"
)

// Which stanzas wake a device, and how urgently.
func TestNews(t *testing.T) {
	const (
		body    = "<body>Wherefore?</body>"
		payload = "<header sid='1'/><payload>AA==</payload>"
		store   = "<store xmlns='urn:xmpp:hints'/>"
	)
	carbon := func(from, kind, inner string) string {
		return "<message from='" + from + "' type='chat'><" + kind + " xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>" + inner +
			"</forwarded></" + kind + "></message>"
	}
	const copied = "<message xmlns='jabber:client' type='chat' id='1' from='juliet@capulet.example/b' to='user@example.com/desktop'>" + body + "</message>"
	for _, tt := range []struct{ what, stanza, want string }{
		{"chat", "<message type='chat'>" + body + "</message>", "high"},
		{"normal", "<message>" + body + "</message>", "high"},
		{"unknown type", "<message type='x'>" + body + "</message>", "high"},
		{"headline", "<message type='headline'>" + body + "</message>", "normal"},
		{"error", "<message type='error'>" + body + "</message>", ""},
		{"room", "<message type='groupchat' from='room@muc.example/nick'>" + body + "</message>", "high"},
		{"history of a room", "<message type='groupchat' from='room@muc.example/nick'>" + body + "<delay xmlns='urn:xmpp:delay' stamp='2002-09-10T23:08:25Z'/></message>", ""},
		{"subject of a room", "<message type='groupchat' from='room@muc.example/nick'><subject>x</subject></message>", ""},
		{"chat from the spool of another server", "<message type='chat'>" + body + "<delay xmlns='urn:xmpp:delay' stamp='2002-09-10T23:08:25Z'/></message>", "high"},

		{"with a chat state", "<message type='chat'>" + body + "<active xmlns='http://jabber.org/protocol/chatstates'/></message>", "high"},
		{"with a request for a receipt", "<message type='chat'>" + body + "<request xmlns='urn:xmpp:receipts'/></message>", "high"},
		{"nothing", "<message/>", ""},
		{"empty body", "<message type='chat'><body/></message>", ""},
		{"body of another namespace", "<message type='chat'><body xmlns='urn:x'>x</body></message>", ""},
		{"headline without body", "<message type='headline'><event xmlns='http://jabber.org/protocol/pubsub#event'/></message>", ""},
		{"chat state", "<message type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>", ""},
		{"receipt", "<message><received xmlns='urn:xmpp:receipts' id='1'/>" + store + "</message>", ""},
		{"marker", "<message type='chat'><displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>" + store + "</message>", ""},
		{"reaction", "<message type='chat'><reactions xmlns='urn:xmpp:reactions:0' id='1'><reaction>x</reaction></reactions>" + store + "</message>", ""},

		{"OMEMO", "<message type='chat'><encrypted xmlns='eu.siacs.conversations.axolotl'>" + payload + "</encrypted>" + store + "</message>", "high"},
		{"OMEMO 2", "<message type='chat'><encrypted xmlns='urn:xmpp:omemo:2'>" + payload + "</encrypted>" + store + "</message>", "high"},
		{"OMEMO, only keys", "<message type='chat'><encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/></encrypted>" + store + "</message>", ""},
		{"OMEMO 2, only keys", "<message type='chat'><encrypted xmlns='urn:xmpp:omemo:2'><header sid='1'/></encrypted>" + store + "</message>", ""},
		{"OpenPGP", "<message type='chat'><openpgp xmlns='urn:xmpp:openpgp:0'>AA==</openpgp></message>", "high"},
		{"old OpenPGP", "<message type='chat'><x xmlns='jabber:x:encrypted'>AA==</x></message>", "high"},

		{"call", "<message type='chat'><propose xmlns='urn:xmpp:jingle-message:0' id='1'/></message>", "call"},
		{"call with a body", "<message type='chat'>" + body + "<propose xmlns='urn:xmpp:jingle-message:0' id='1'/></message>", "call"},
		{"call given up", "<message type='chat'><retract xmlns='urn:xmpp:jingle-message:0' id='1'/></message>", "normal"},
		{"call answered", "<message type='chat'><proceed xmlns='urn:xmpp:jingle-message:0' id='1'/></message>", ""},
		{"call answered by another own device", "<message type='chat' from='user@example.com/desktop'><accept xmlns='urn:xmpp:jingle-message:0' id='1'/></message>", ""},
		{"invitation", "<message><x xmlns='jabber:x:conference' jid='room@muc.example'/></message>", "high"},
		{"invitation by the room", "<message from='room@muc.example'><x xmlns='http://jabber.org/protocol/muc#user'><invite from='juliet@capulet.example'/></x></message>", "high"},
		{"declined invitation", "<message from='room@muc.example'><x xmlns='http://jabber.org/protocol/muc#user'><decline from='juliet@capulet.example'/></x></message>", ""},

		{"from another own device", "<message type='chat' from='user@example.com/desktop'>" + body + "</message>", ""},
		{"to oneself", "<message type='chat' from='user@example.com'>" + body + "</message>", ""},
		{"from the server", "<message from='example.com'>" + body + "</message>", "high"},
		{"received carbon", carbon("user@example.com", "received", copied), "high"},
		{"received carbon of a chat state", carbon("user@example.com", "received", "<message xmlns='jabber:client' type='chat' from='juliet@capulet.example/b'><active xmlns='http://jabber.org/protocol/chatstates'/></message>"), ""},
		{"sent carbon", carbon("user@example.com", "sent", copied), ""},
		{"received carbon of an own message", carbon("user@example.com", "received", "<message xmlns='jabber:client' type='chat' from='user@example.com/b'>"+body+"</message>"), ""},
		{"forged carbon", carbon("juliet@capulet.example", "received", copied), ""},
		{"received carbon of nothing", carbon("user@example.com", "received", ""), ""},
		{"received carbon of presence", carbon("user@example.com", "received", "<presence xmlns='jabber:client' from='juliet@capulet.example/b'/>"), ""},
		{"received carbon without a sender", carbon("user@example.com", "received", "<message xmlns='jabber:client' type='chat'>"+body+"</message>"), ""},
		{"received carbon of another namespace", carbon("user@example.com", "received", "<message xmlns='urn:x' from='juliet@capulet.example/b'>"+body+"</message>"), ""},

		{"presence", "<presence/>", ""},
		{"unavailable", "<presence type='unavailable'/>", ""},
		{"subscription request", "<presence type='subscribe'/>", "normal"},
		{"subscription approval", "<presence type='subscribed'/>", ""},
		{"request", "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>", ""},
	} {
		t.Run(tt.what, func(t *testing.T) {
			run(t, func(h *host) {
				s := parse(t, tt.stanza)
				if s.From.Equal(jid.JID{}) {
					s = s.WithFrom(juliet)
				}
				got, text := h.module.NewsOf(s.WithTo(user), user)
				if got != tt.want {
					t.Errorf("%s: %q, want %q", tt.stanza, got, tt.want)
				}
				if s.Has("", "body") && got != "" && text != "Wherefore?" {
					t.Errorf("body %q", text)
				}
				// What is not news is not told.
				h.register("mobile")
				h.module.Notify(h.bind("mobile").Session, s)
				if n := len(h.now()); (n == 1) != (tt.want != "") {
					t.Errorf("%d notifications", n)
				}
			}, withConfig(func(c *push.Config) { c.Body = true }))
		})
	}
}

// How a notification shows the priority, and that a subscription request is no message.
func TestPriorityOfNotification(t *testing.T) {
	run(t, func(h *host) {
		h.register("mobile")
		c := h.bind("mobile")
		h.module.Notify(c.Session, xmpp.New(xmpp.Presence, "subscribe", user, juliet.Bare()))
		sent := h.now()
		h.count("a subscription request", sent, 1)
		same(t, sent[0], `<iq type='set' from='example.com' to='push-5.client.example'><pubsub xmlns='http://jabber.org/protocol/pubsub'>
			<publish node='yxs32uqsflafdk3iuqo'><item><notification xmlns='urn:xmpp:push:0'/></item></publish></pubsub></iq>`)
		h.module.Notify(c.Session, parse(t, "<message type='headline' from='news.example'><body>x</body></message>"))
		sent = h.after(push5)
		h.count("a headline", sent, 1)
		same(t, sent[0], `<iq type='set' from='example.com' to='push-5.client.example'><pubsub xmlns='http://jabber.org/protocol/pubsub'>
			<publish node='yxs32uqsflafdk3iuqo'><item><notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data' type='submit'>
			<field var='FORM_TYPE'><value>urn:xmpp:push:summary</value></field><field var='message-count'><value>1</value></field>
			</x></notification></item></publish></pubsub></iq>`)
		// The highest of what is told together.
		h.module.Notify(c.Session, parse(t, "<message from='juliet@capulet.example'><body>x</body></message>"))
		h.module.Notify(c.Session, parse(t, "<message type='headline' from='news.example'><body>x</body></message>"))
		sent = h.after(push5)
		h.count("both", sent, 1)
		same(t, sent[0], notified(3, "", ""))
	})
}

// What the spool does not take, nobody can fetch.
func TestUndeliveredWithoutSpool(t *testing.T) {
	for _, tt := range []struct {
		stanza string
		want   int
	}{
		{"<message type='chat' from='juliet@capulet.example/b' to='user@example.com'><body>x</body></message>", 1},
		{"<message type='chat' from='juliet@capulet.example/b' to='user@example.com/gone'><body>x</body></message>", 1},
		{"<message type='chat' from='juliet@capulet.example/b' to='user@example.com'><body>x</body><no-store xmlns='urn:xmpp:hints'/></message>", 0},
		{"<message type='groupchat' from='room@muc.example/nick' to='user@example.com'><body>x</body></message>", 0},
		{"<message type='headline' from='juliet@capulet.example/b' to='user@example.com'><body>x</body></message>", 0},
		{"<message type='headline' from='juliet@capulet.example/b' to='user@example.com'><body>x</body><store xmlns='urn:xmpp:hints'/></message>", 1},
		{"<message type='error' from='juliet@capulet.example/b' to='user@example.com'><body>x</body></message>", 0},
	} {
		run(t, func(h *host) {
			h.register("mobile")
			h.receive(tt.stanza)
			h.count(tt.stanza, h.now(), tt.want)
			if n, err := h.db.CountOffline(context.Background(), user); n != tt.want || err != nil {
				t.Errorf("%s: %d messages in the spool, %v", tt.stanza, n, err)
			}
		})
	}
}
