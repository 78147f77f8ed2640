package push_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/ext/push"

	"mellium.im/xmpp/jid"
)

// notified is the request of XEP-0357's example 12 without what is off by default; more stands behind the count, options at the end.
func notified(count int, more, options string) string {
	return fmt.Sprintf(`<iq type='set' from='example.com' to='push-5.client.example' id='n12'>
	  <pubsub xmlns='http://jabber.org/protocol/pubsub'>
	    <publish node='yxs32uqsflafdk3iuqo'>
	      <item>
	        <notification xmlns='urn:xmpp:push:0'>
	          <x xmlns='jabber:x:data' type='submit'>
	            <field var='FORM_TYPE'><value>urn:xmpp:push:summary</value></field>
	            <field var='message-count'><value>%d</value></field>
	            %s
	          </x>
	          <priority xmlns='tigase:push:priority:0'>high</priority>
	        </notification>
	      </item>
	    </publish>
	    %s
	  </pubsub>
	</iq>`, count, more, options)
}

// XEP-0357 §4.1: on the account, for its owner.
func TestFeatures(t *testing.T) {
	run(t, func(h *host) {
		if got := strings.Join(h.Registry().Features[xmpp.ToSelf], " "); got != "urn:xmpp:push:0 tigase:push:priority:0" {
			t.Errorf("features %s", got)
		}
	})
}

// XEP-0357 examples 8 and 12.
func TestMessageToOfflineAccountNotifies(t *testing.T) {
	run(t, func(h *host) {
		h.register("mobile")
		h.message("Wherefore art thou, Romeo?")
		sent := h.now()
		h.count("a message", sent, 1)
		same(t, sent[0], notified(1, "", ""))
		if sent[0].ID == "" {
			t.Error("no id")
		}
		h.count("later", h.after(time.Hour), 0)
		n, err := h.db.CountOffline(context.Background(), user)
		if n != 1 || err != nil {
			t.Errorf("%d messages in the spool, %v", n, err)
		}
	})
}

// XEP-0357 examples 9 and 13: the options of <enable/> come back in each request. The examples lack the type that XEP-0004 §3.1 demands.
func TestPublishOptions(t *testing.T) {
	run(t, func(h *host) {
		h.register("mobile", `<iq type='set' id='x43'>
		  <enable xmlns='urn:xmpp:push:0' jid='push-5.client.example' node='yxs32uqsflafdk3iuqo'>
		    <priority xmlns='tigase:push:priority:0'/>
		    <x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:example:other</value></field></x>
		    <x xmlns='jabber:x:data' type='submit'>
		      <field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>
		      <field var='secret'><value>eruio&lt;234vzxc2kla-91</value></field>
		    </x>
		  </enable>
		</iq>`)
		h.message("hi")
		sent := h.now()
		h.count("a message", sent, 1)
		same(t, sent[0], notified(1, "", `<publish-options><x xmlns='jabber:x:data' type='submit'>
		      <field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>
		      <field var='secret'><value>eruio&lt;234vzxc2kla-91</value></field>
		    </x></publish-options>`))
		// §5: "the server SHOULD use the last received request for any publish options".
		h.register("mobile")
		time.Sleep(time.Minute)
		h.message("hi again")
		sent = h.now()
		h.count("another message", sent, 1)
		same(t, sent[0], notified(1, "", ""))
	})
}

// What is told of a message is the operator's choice: XEP-0357 §9.
func TestSenderAndBodyByPolicy(t *testing.T) {
	const sender = "<field var='last-message-sender'><value>juliet@capulet.example/balcony</value></field>"
	body := func(s string) string { return "<field var='last-message-body'><value>" + s + "</value></field>" }
	long := strings.Repeat("ä", 2000)
	for _, tt := range []struct {
		cfg        push.Config
		body, want string
	}{
		{push.Config{}, "Wherefore?", ""},
		{push.Config{Sender: true}, "Wherefore?", sender},
		{push.Config{Body: true}, "Wherefore?", body("Wherefore?")},
		{push.Config{Sender: true, Body: true}, "<&>", sender + body("&lt;&amp;>")},
		{push.Config{Placeholder: "New message"}, "Wherefore?", body("New message")},
		{push.Config{Body: true, Placeholder: "New message"}, "Wherefore?", body("Wherefore?")},
		{push.Config{Body: true}, long, body(long[:1024])},
	} {
		run(t, func(h *host) {
			h.register("mobile")
			h.message(tt.body)
			sent := h.now()
			h.count("a message", sent, 1)
			same(t, sent[0], notified(1, tt.want, ""))
		}, withConfig(func(c *push.Config) { *c = tt.cfg }))
	}
}

// XEP-0357 §5: one node, one registration; every node of every service is told.
func TestEveryRegistrationIsNotified(t *testing.T) {
	request := func(jid, node string) string {
		return fmt.Sprintf("<iq type='set' id='1'><enable xmlns='urn:xmpp:push:0' jid='%s' node='%s'/></iq>", jid, node)
	}
	run(t, func(h *host) {
		h.register("mobile", request("one.example", "a"), request("one.example", "b"), request("one.example", "a"))
		h.register("tablet", request("two.example", "a"))
		h.message("hi")
		h.count("a message", h.now(), 3)

		// XEP-0357 example 11: one node; example 10: all of a service.
		c := h.bind("mobile")
		c.succeeds("<iq type='set' id='x97'><disable xmlns='urn:xmpp:push:0' jid='one.example' node='b'/></iq>")
		c.unbind()
		time.Sleep(time.Minute)
		h.message("2")
		h.count("with a node disabled", h.now(), 2)
		c = h.bind("other")
		c.succeeds(request("one.example", "b"))
		c.succeeds("<iq type='set' id='x97'><disable xmlns='urn:xmpp:push:0' jid='one.example'/></iq>")
		c.succeeds("<iq type='set' id='x97'><disable xmlns='urn:xmpp:push:0' jid='one.example'/></iq>")
		c.unbind()
		time.Sleep(time.Minute)
		h.message("3")
		sent := h.now()
		h.count("with a service disabled", sent, 1)
		if sent[0].To.String() != "two.example" {
			t.Errorf("notification to %s", sent[0].To)
		}
	})
}

// XEP-0357 §6: also what was to be told later.
func TestNothingIsSentToDisabledService(t *testing.T) {
	run(t, func(h *host) {
		h.register("mobile")
		h.message("1")
		h.message("2")
		h.count("the first message", h.now(), 1)
		c := h.bind("desktop")
		c.succeeds("<iq type='set' id='x97'><disable xmlns='urn:xmpp:push:0' jid='push-5.client.example'/></iq>")
		h.count("after disabling", h.after(time.Hour), 0)
	})
}

func TestRequestErrors(t *testing.T) {
	option := func(value string, n int) string {
		return "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>" +
			strings.Repeat("<field var='secret'><value>"+value+"</value></field>", n) + "</x>"
	}
	for _, tt := range []struct{ request, want string }{
		{"<enable xmlns='urn:xmpp:push:0'/>", "modify bad-request"},
		{"<enable xmlns='urn:xmpp:push:0' node='a'/>", "modify bad-request"},
		{"<enable xmlns='urn:xmpp:push:0' jid='' node='a'/>", "modify bad-request"},
		{"<enable xmlns='urn:xmpp:push:0' jid='@' node='a'/>", "modify jid-malformed"},
		{"<disable xmlns='urn:xmpp:push:0'/>", "modify bad-request"},
		{"<disable xmlns='urn:xmpp:push:0' jid='@'/>", "modify jid-malformed"},
		{"<enable xmlns='urn:xmpp:push:0' jid='p.example' node='" + strings.Repeat("a", push.MaxNode) + "'/>", ""},
		{"<enable xmlns='urn:xmpp:push:0' jid='p.example' node='" + strings.Repeat("a", push.MaxNode+1) + "'/>", "modify policy-violation"},
		{"<enable xmlns='urn:xmpp:push:0' jid='p.example' node='a'>" + option("x", push.MaxFields-1) + "</enable>", ""},
		{"<enable xmlns='urn:xmpp:push:0' jid='p.example' node='a'>" + option("x", push.MaxFields) + "</enable>", "modify policy-violation"},
		{"<enable xmlns='urn:xmpp:push:0' jid='p.example' node='a'>" + option(strings.Repeat("x", push.MaxOptions), 1) + "</enable>", "modify policy-violation"},
		{"<enable xmlns='urn:xmpp:push:0' jid='p.example'/>", ""}, // §5: "SHOULD contain a 'node'"
		{"<enabled xmlns='urn:xmpp:push:0' jid='p.example'/>", "cancel service-unavailable"},
	} {
		run(t, func(h *host) {
			c := h.bind("mobile")
			c.sends("<iq type='set' id='1'>" + tt.request + "</iq>")
			got := ""
			if r := c.last(); r.Type == "error" {
				e, _ := r.Child("", "error")
				el, err := e.Element()
				if err != nil {
					t.Fatal(err)
				}
				got = e.Attr("type") + " " + el.Children[0].Local
			}
			if got != tt.want {
				t.Errorf("%.100s: %q, want %q", tt.request, got, tt.want)
			}
			if ok := h.registrations() == 1; ok != (tt.want == "") {
				t.Errorf("%.100s: enabled %t", tt.request, ok)
			}
		})
	}
}

// XEP-0357 §5 speaks of the user's own bare JID.
func TestNobodyEnablesForOthers(t *testing.T) {
	run(t, func(h *host) {
		h.receive("<iq type='set' id='1' from='juliet@capulet.example/balcony' to='user@example.com'><enable xmlns='urn:xmpp:push:0' jid='p.example' node='a'/></iq>")
		h.count("answers", h.now(), 1) // an error to juliet
		if h.registrations() != 0 {
			t.Error("a stranger has enabled push")
		}
	})
}

// XEP-0357 example 14: the push service withdraws the right to publish.
func TestRemoteDisabling(t *testing.T) {
	notice := func(from, node, account, affiliation string) string {
		return fmt.Sprintf("<message from='%s' to='user@example.com'><pubsub xmlns='http://jabber.org/protocol/pubsub' node='%s'>"+
			"<affiliation jid='%s' affiliation='%s'/></pubsub></message>", from, node, account, affiliation)
	}
	const service, node = "push-5.client.example", "yxs32uqsflafdk3iuqo"
	for _, tt := range []struct {
		notice string
		left   int
	}{
		{notice(service, node, "user@example.com", "none"), 0},
		{notice("evil.example", node, "user@example.com", "none"), 1},
		{notice("user@"+service, node, "user@example.com", "none"), 1},
		{notice(service, "other", "user@example.com", "none"), 1},
		{notice(service, "", "user@example.com", "none"), 1},
		{notice(service, node, "other@example.com", "none"), 1},
		{notice(service, node, "user@example.com", "publish-only"), 1},
	} {
		run(t, func(h *host) {
			h.register("mobile")
			h.receive(tt.notice)
			h.count("a notice", h.now(), 0)
			if n := h.registrations(); n != tt.left {
				t.Errorf("%s: %d registrations, want %d", tt.notice, n, tt.left)
			}
			h.message("hi")
			h.count("a message", h.now(), tt.left)
		})
	}
}

// A device that is there needs no notification; one that is not gets one of what the account cannot receive.
func TestDeviceWithSession(t *testing.T) {
	run(t, func(h *host) {
		h.register("mobile")
		c := h.bind("mobile")
		h.message("before presence")
		h.count("bound", h.now(), 0)
		c.sends("<presence/>")
		h.message("available")
		h.count("available", h.now(), 0)
		c.unbind()
		h.message("offline")
		sent := h.now()
		h.count("offline", sent, 1)
		same(t, sent[0], notified(1, "", ""))
		c = h.bind("mobile")
		c.unbind()
		time.Sleep(time.Minute)
		h.message("seen until here")
		sent = h.now()
		h.count("offline again", sent, 1)
		same(t, sent[0], notified(1, "", "")) // message-count is of what the device has not seen
	})
}

// Without an archive a device can only fetch what is in the spool.
func TestMessageThatAnotherSessionTakes(t *testing.T) {
	for _, archive := range []bool{false, true} {
		run(t, func(h *host) {
			h.register("mobile")
			h.bind("desktop").sends("<presence/>")
			h.message("1")
			want := 0
			if archive {
				want = 1
			}
			h.count("a message", h.now(), want)
			for i, s := range []string{
				"<message type='chat' id='a' from='juliet@capulet.example/b' to='user@example.com'><body>x</body><no-store xmlns='urn:xmpp:hints'/></message>",
				"<message type='chat' id='b' from='juliet@capulet.example/b' to='user@example.com'><body>x</body><no-permanent-store xmlns='urn:xmpp:hints'/></message>",
				"<message type='groupchat' id='c' from='room@muc.example/nick' to='user@example.com/desktop'><body>x</body></message>",
				"<message type='headline' id='d' from='juliet@capulet.example/b' to='user@example.com'><body>x</body></message>",
			} {
				h.receive(s)
				h.count(fmt.Sprint("message ", i), h.after(time.Minute), 0)
			}
		}, withConfig(func(c *push.Config) { c.Archive = archive }))
	}
}

// A session that hibernates or is inactive is told of by whoever queues for it.
func TestNotifyIsForTheDeviceOfTheSession(t *testing.T) {
	run(t, func(h *host) {
		h.register("mobile")
		h.register("tablet", "<iq type='set' id='1'><enable xmlns='urn:xmpp:push:0' jid='tablet.example' node='a'/></iq>")
		c := h.bind("mobile")
		c.sends("<presence/>")
		c.sleep(true)
		h.message("1")
		h.module.Notify(c.Session, c.last())
		sent := h.now()
		h.count("a message", sent, 1)
		same(t, sent[0], notified(1, "", ""))
		h.module.Notify(c.Session, c.last()) // again when the connection breaks
		h.count("the same message", h.after(time.Minute), 0)
		h.message("2")
		h.module.Notify(c.Session, c.last())
		sent = h.now()
		h.count("another message", sent, 1)
		same(t, sent[0], notified(2, "", ""))
		// The session expires, and the message goes on to the spool: once a message and device.
		m := c.last()
		c.unbind()
		h.Redeliver(context.Background(), user, m)
		sent = h.after(time.Minute)
		h.count("after the session", sent, 1)
		if sent[0].To.String() != "tablet.example" {
			t.Errorf("notification to %s", sent[0].To)
		}
	}, withReach)
}

func TestReturnedClientIsNotNotified(t *testing.T) {
	run(t, func(h *host) {
		h.register("mobile")
		c := h.bind("mobile")
		c.sends("<presence/>")
		c.sleep(true)
		for i := range 3 {
			h.message(fmt.Sprint(i))
			h.module.Notify(c.Session, c.last())
		}
		sent := h.now()
		h.count("three messages", sent, 1)
		c.sleep(false)
		h.module.Returned(c.Session)
		h.count("resumed", h.after(time.Hour), 0)
		c.sleep(true)
		h.message("later")
		h.module.Notify(c.Session, c.last())
		sent = h.now()
		h.count("asleep again", sent, 1)
		same(t, sent[0], notified(1, "", ""))
		h.message("and later")
		h.module.Notify(c.Session, c.last())
		c.sleep(false) // and nobody tells
		h.count("there without a word", h.after(time.Hour), 0)
	}, withReach)
}

// A flood is one notification a window.
func TestFloodIsCoalesced(t *testing.T) {
	run(t, func(h *host) {
		h.register("mobile")
		for i := range 60 {
			h.message(fmt.Sprint(i))
		}
		h.count("at once", h.now(), 1)
		h.count("within the window", h.after(4*time.Second), 0)
		sent := h.after(time.Second)
		h.count("after the window", sent, 1)
		same(t, sent[0], notified(60, "", ""))
		h.count("then", h.after(time.Hour), 0)
		n := 0
		for i := range 100 { // ten seconds
			h.message(fmt.Sprint("again ", i))
			n += len(h.after(100 * time.Millisecond))
		}
		if n += len(h.after(time.Minute)); n != 3 {
			t.Errorf("%d notifications in ten seconds", n)
		}
	})
}

// XEP-0353: a call does not wait for the window of messages, and a flood of calls is bounded too.
func TestCallsDoNotWait(t *testing.T) {
	run(t, func(h *host) {
		h.register("mobile")
		h.message("hi")
		h.count("a message", h.after(push.CallWindow), 1)
		for i := range 50 {
			h.receive(fmt.Sprintf("<message type='chat' id='c%d' from='juliet@capulet.example/b' to='user@example.com'>"+
				"<propose xmlns='urn:xmpp:jingle-message:0' id='%d'/><store xmlns='urn:xmpp:hints'/></message>", i, i))
		}
		sent := h.now()
		h.count("calls", sent, 1)
		h.count("after a window", h.after(push.CallWindow), 1)
		h.count("then", h.after(time.Hour), 0)
	})
}

// A device that enabled push anew from another resource is that resource.
func TestRegistrationFollowsTheResource(t *testing.T) {
	run(t, func(h *host) {
		h.register("old")
		c := h.bind("new")
		c.succeeds(enable)
		h.message("1")
		h.count("with a session", h.now(), 0)
		c.unbind()
		h.message("2")
		h.count("without", h.now(), 1)
	})
}

func TestDeletedAccount(t *testing.T) {
	run(t, func(h *host) {
		h.register("mobile")
		h.message("1")
		h.message("2")
		h.count("a message", h.now(), 1)
		if err := h.db.DeleteAccount(context.Background(), user); err != nil {
			t.Fatal(err)
		}
		h.Forget(user)
		h.module.Forget(user)
		h.count("deleted", h.after(time.Hour), 0)
		if err := h.db.CreateAccount(context.Background(), user, nil); err != nil {
			t.Fatal(err)
		}
		h.message("3")
		h.count("a new account of that name", h.after(time.Hour), 0)
	})
}

// Own messages that a room sends back are no news on the account's other devices.
func TestOwnMessageInARoom(t *testing.T) {
	run(t, func(h *host) {
		h.register("mobile")
		c, desktop := h.bind("mobile"), h.bind("desktop")
		say := func(id string) *xmpp.Stanza {
			return parse(t, "<message type='groupchat' id='"+id+"' from='room@muc.example/nick' to='user@example.com/mobile'><body>hi</body></message>")
		}
		desktop.sends("<message type='groupchat' id='own' to='room@muc.example'><body>hi</body></message>")
		h.module.Notify(c.Session, say("own"))
		h.count("own", h.now(), 0)
		h.module.Notify(c.Session, say("other"))
		h.count("somebody else's", h.now(), 1)
		h.module.Notify(c.Session, say("other").WithFrom(jid.MustParse("room@muc.example/third"))) // another message with that id
		h.count("a third one's", h.after(time.Minute), 1)
	})
}
