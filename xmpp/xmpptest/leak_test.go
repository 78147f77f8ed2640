package xmpptest_test

import (
	"fmt"
	"strings"
	"testing"

	"balcony/xmpp"
	"balcony/xmpp/ext/mam"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/stanza"
)

// The parts of the play. Juliet and nurse are accounts, nobody is none. Romeo receives their presence, tybalt is a stranger to everybody.
const (
	juliet  = "juliet@localhost" // online, and connected with a second resource that is not available
	nurse   = "nurse@localhost"  // offline
	nobody  = "nobody@localhost"
	romeo   = "romeo@localhost"
	tybalt  = "tybalt@localhost"
	balcony = juliet + "/balcony"
)

// answer sends a request and returns what comes back, without the addresses and the id: those are checked.
func answer(t *testing.T, c *xmpptest.Client, to, typ, payload string) string {
	t.Helper()
	c.Send("<iq type='" + typ + "' id='leak' to='" + to + "'>" + payload + "</iq>")
	e := c.Read()
	var rest []xmpp.Attr
	for _, a := range e.Attrs {
		switch {
		case a.Name == "id" && a.Value == "leak", a.Name == "from" && a.Value == to, a.Name == "to" && a.Value == c.JID.String():
		default:
			rest = append(rest, a)
		}
	}
	e.Attrs = rest
	return e.String()
}

// kind is "result" or the condition of an error.
func kind(answer string) string {
	if strings.Contains(answer, "type='result'") {
		return "result"
	}
	for _, c := range []stanza.Condition{stanza.ServiceUnavailable, stanza.Forbidden, stanza.ItemNotFound, stanza.NotAllowed, stanza.BadRequest,
		stanza.NotAcceptable, stanza.NotAuthorized, stanza.FeatureNotImplemented, stanza.RegistrationRequired, stanza.SubscriptionRequired, stanza.Conflict} {
		if strings.Contains(answer, "<"+string(c)) {
			return string(c)
		}
	}
	return answer
}

func subscribe(srv *xmpptest.Server, contact *xmpptest.Client, owners ...*xmpptest.Client) {
	for _, o := range owners {
		contact.Send("<presence type='subscribe' to='" + o.JID.Bare().String() + "'/>")
		contact.Sync()
		o.Send("<presence type='subscribed' to='" + contact.JID.Bare().String() + "'/>")
		o.Sync()
	}
}

// requests are all payloads that accounts answer, and some that nobody does, each with what owner, contact and stranger get for it from a
// bare JID.
var requests = []struct {
	typ, payload             string
	owner, contact, stranger string
}{
	{"get", "<ping xmlns='urn:xmpp:ping'/>", "result", "service-unavailable", "service-unavailable"},
	{"set", "<ping xmlns='urn:xmpp:ping'/>", "service-unavailable", "service-unavailable", "service-unavailable"},
	// XEP-0030 §8
	{"get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", "result", "result", "service-unavailable"},
	{"get", "<query xmlns='http://jabber.org/protocol/disco#items'/>", "result", "result", "service-unavailable"},
	{"get", "<query xmlns='http://jabber.org/protocol/disco#info' node='urn:x'/>", "item-not-found", "item-not-found", "service-unavailable"},
	{"get", "<query xmlns='http://jabber.org/protocol/disco#items' node='urn:x'/>", "item-not-found", "item-not-found", "service-unavailable"},
	{"get", "<query xmlns='http://jabber.org/protocol/disco#info' node='http://jabber.org/protocol/commands'/>", "item-not-found", "item-not-found", "service-unavailable"},
	{"get", "<query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/>", "item-not-found", "item-not-found", "service-unavailable"},
	{"set", "<query xmlns='http://jabber.org/protocol/disco#info'/>", "service-unavailable", "service-unavailable", "service-unavailable"},
	// XEP-0012 §8
	{"get", "<query xmlns='jabber:iq:last'/>", "result", "result", "service-unavailable"},
	{"set", "<query xmlns='jabber:iq:last'/>", "service-unavailable", "service-unavailable", "service-unavailable"},
	// XEP-0054 §3.1 to §3.3; these accounts have no vCard
	{"get", "<vCard xmlns='vcard-temp'/>", "item-not-found", "service-unavailable", "service-unavailable"},
	{"set", "<vCard xmlns='vcard-temp'/>", "result", "forbidden", "service-unavailable"},
	{"set", "<vCard xmlns='vcard-temp'><FN>x</FN></vCard>", "", "forbidden", "service-unavailable"},
	// XEP-0049 §2.3
	{"get", "<query xmlns='jabber:iq:private'><a xmlns='urn:x'/></query>", "result", "service-unavailable", "service-unavailable"},
	{"set", "<query xmlns='jabber:iq:private'><a xmlns='urn:x'/></query>", "result", "service-unavailable", "service-unavailable"},
	{"get", "<query xmlns='jabber:iq:private'/>", "not-acceptable", "service-unavailable", "service-unavailable"},
	// XEP-0191 §3
	{"get", "<blocklist xmlns='urn:xmpp:blocking'/>", "", "service-unavailable", "service-unavailable"},
	{"set", "<block xmlns='urn:xmpp:blocking'><item jid='x@localhost'/></block>", "", "service-unavailable", "service-unavailable"},
	{"set", "<unblock xmlns='urn:xmpp:blocking'/>", "result", "service-unavailable", "service-unavailable"},
	// XEP-0313 §4 and §5, XEP-0441 §2; a query is answered by more than one stanza, or here by an error
	{"get", "<query xmlns='urn:xmpp:mam:2'/>", "result", "service-unavailable", "service-unavailable"},
	{"set", "<query xmlns='urn:xmpp:mam:2' node='urn:x'/>", "item-not-found", "service-unavailable", "service-unavailable"},
	{"get", "<metadata xmlns='urn:xmpp:mam:2'/>", "result", "service-unavailable", "service-unavailable"},
	{"get", "<prefs xmlns='urn:xmpp:mam:2'/>", "result", "service-unavailable", "service-unavailable"},
	{"set", "<prefs xmlns='urn:xmpp:mam:2' default='always'/>", "result", "service-unavailable", "service-unavailable"},
	// XEP-0357 §5 and §6
	{"set", "<enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='n'/>", "", "service-unavailable", "service-unavailable"},
	{"set", "<disable xmlns='urn:xmpp:push:0' jid='push.localhost'/>", "", "service-unavailable", "service-unavailable"},
	// XEP-0280 §4 and §5
	{"set", "<enable xmlns='urn:xmpp:carbons:2'/>", "", "service-unavailable", "service-unavailable"},
	{"set", "<disable xmlns='urn:xmpp:carbons:2'/>", "result", "service-unavailable", "service-unavailable"},
	// XEP-0060 and XEP-0163; these accounts have no nodes. See docs/decisions/0013-strangers-and-nodes.md.
	{"get", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:x'/></pubsub>", "item-not-found", "item-not-found", "service-unavailable"},
	{"get", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items/></pubsub>", "bad-request", "bad-request", "service-unavailable"},
	{"get", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><subscriptions/></pubsub>", "result", "result", "service-unavailable"},
	{"get", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><affiliations/></pubsub>", "result", "result", "service-unavailable"},
	{"get", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><affiliations node='urn:x'/></pubsub>", "item-not-found", "item-not-found", "service-unavailable"},
	{"get", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><options node='urn:x' jid='tybalt@localhost'/></pubsub>", "forbidden", "forbidden", "service-unavailable"},
	{"get", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><default/></pubsub>", "result", "result", "service-unavailable"},
	{"set", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:x'><item><x xmlns='urn:x'/></item></publish></pubsub>", "", "item-not-found", "service-unavailable"},
	{"set", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:x'/></pubsub>", "bad-request", "item-not-found", "service-unavailable"},
	{"set", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><retract node='urn:y'><item id='x'/></retract></pubsub>", "item-not-found", "item-not-found", "service-unavailable"},
	{"set", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><subscribe node='urn:y' jid='tybalt@localhost'/></pubsub>", "bad-request", "bad-request", "service-unavailable"},
	{"set", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><unsubscribe node='urn:y' jid='tybalt@localhost'/></pubsub>", "forbidden", "forbidden", "service-unavailable"},
	{"set", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='urn:y'/></pubsub>", "", "forbidden", "service-unavailable"},
	{"set", "<pubsub xmlns='http://jabber.org/protocol/pubsub'></pubsub>", "bad-request", "bad-request", "service-unavailable"},
	{"get", "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><configure node='urn:y'/></pubsub>", "item-not-found", "item-not-found", "service-unavailable"},
	{"get", "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><default/></pubsub>", "result", "forbidden", "service-unavailable"},
	{"get", "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><affiliations node='urn:y'/></pubsub>", "item-not-found", "item-not-found", "service-unavailable"},
	{"get", "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><subscriptions node='urn:y'/></pubsub>", "item-not-found", "item-not-found", "service-unavailable"},
	{"set", "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><configure node='urn:y'/></pubsub>", "item-not-found", "item-not-found", "service-unavailable"},
	{"set", "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><delete node='urn:y'/></pubsub>", "item-not-found", "item-not-found", "service-unavailable"},
	{"set", "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><purge node='urn:y'/></pubsub>", "item-not-found", "item-not-found", "service-unavailable"},
	{"set", "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><affiliations node='urn:y'/></pubsub>", "item-not-found", "item-not-found", "service-unavailable"},
	{"set", "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><subscriptions node='urn:y'/></pubsub>", "item-not-found", "item-not-found", "service-unavailable"},
	// RFC 6121 §2.1.5 and §2.3.3: forbidden to everybody else, of any account
	{"get", "<query xmlns='jabber:iq:roster'/>", "", "forbidden", "forbidden"},
	{"set", "<query xmlns='jabber:iq:roster'><item jid='x@localhost'/></query>", "", "forbidden", "forbidden"},
	// XEP-0077 §3
	{"get", "<query xmlns='jabber:iq:register'/>", "", "service-unavailable", "service-unavailable"},
	{"set", "<query xmlns='jabber:iq:register'><remove/></query>", "", "service-unavailable", "service-unavailable"},
	{"set", "<query xmlns='jabber:iq:register'><username>juliet</username><password>x</password></query>", "", "service-unavailable", "service-unavailable"},
	// Only the server answers these.
	{"get", "<query xmlns='jabber:iq:version'/>", "service-unavailable", "service-unavailable", "service-unavailable"},
	{"get", "<time xmlns='urn:xmpp:time'/>", "service-unavailable", "service-unavailable", "service-unavailable"},
	{"set", "<command xmlns='http://jabber.org/protocol/commands' node='x' action='execute'/>", "service-unavailable", "service-unavailable", "service-unavailable"},
	{"get", "<request xmlns='urn:xmpp:http:upload:0' filename='a' size='1'/>", "service-unavailable", "service-unavailable", "service-unavailable"},
	{"get", "<services xmlns='urn:xmpp:extdisco:2'/>", "service-unavailable", "service-unavailable", "service-unavailable"},
	{"get", "<credentials xmlns='urn:xmpp:extdisco:2'><service host='turn.localhost' type='turn'/></credentials>", "service-unavailable", "service-unavailable", "service-unavailable"},
	// Nobody answers these.
	{"get", "<x xmlns='urn:x'/>", "service-unavailable", "service-unavailable", "service-unavailable"},
	{"set", "<x xmlns='urn:x'/>", "service-unavailable", "service-unavailable", "service-unavailable"},
	{"set", "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/>", "", "service-unavailable", "service-unavailable"},
	{"get", "<query xmlns='jabber:iq:auth'><username>juliet</username></query>", "service-unavailable", "service-unavailable", "service-unavailable"},
	{"set", "<pubsub xmlns='jabber:iq:privacy'/>", "service-unavailable", "service-unavailable", "service-unavailable"},
}

// TestStrangersLearnNothing: RFC 6120 §13.10.2, RFC 6121 §11: whatever a stranger asks an account, he is answered as if it did not exist,
// online or offline. An account that has a vCard shows it to everybody (XEP-0054 §5).
func TestStrangersLearnNothing(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive))
	owner, offline := srv.Client(balcony), srv.Client(nurse+"/kitchen")
	contact, stranger := srv.Client(romeo+"/orchard"), srv.Client(tybalt+"/piazza")
	subscribe(srv, contact, owner, offline)
	owner.Online()
	offline.Online()
	offline.Close() // has been online once: there is something to know
	srv.Client(juliet + "/lurker")

	rows := make(map[xmpp.IQKey]bool)
	for _, r := range requests {
		t.Run(r.typ+" "+r.payload, func(t *testing.T) {
			p := xmpp.RawElement([]byte(r.payload))
			span := xmpp.New(xmpp.IQ, r.typ, owner.JID, owner.JID, p).Spans()[0]
			rows[xmpp.IQKey{Type: stanza.IQType(r.typ), Space: span.Space, Local: span.Local}] = true

			want := answer(t, stranger, nobody, r.typ, r.payload)
			if kind(want) != r.stranger {
				t.Errorf("an account that does not exist: %s, want %s", want, r.stranger)
			}
			for _, to := range []string{juliet, nurse} {
				if got := answer(t, stranger, to, r.typ, r.payload); got != want {
					t.Errorf("stranger asks %s: %s\nan account that does not exist: %s", to, got, want)
				}
				if got := answer(t, contact, to, r.typ, r.payload); kind(got) != r.contact {
					t.Errorf("contact asks %s: %s, want %s", to, got, r.contact)
				}
			}
			// Resources that are not there: the same of an account that exists.
			absent := answer(t, stranger, nobody+"/balcony", r.typ, r.payload)
			for _, to := range []string{juliet + "/none", nurse + "/kitchen"} {
				if got := answer(t, stranger, to, r.typ, r.payload); got != absent {
					t.Errorf("stranger asks %s: %s\nan account that does not exist: %s", to, got, absent)
				}
			}
			// XEP-0012 §4 and RFC 6121 §2.1.6: these do not reach a client either.
			if span.Space == "jabber:iq:last" || span.Space == "jabber:iq:roster" && r.typ == "set" {
				if got := answer(t, stranger, balcony, r.typ, r.payload); got != absent {
					t.Errorf("stranger asks %s: %s\nan account that does not exist: %s", balcony, got, absent)
				}
			}
			if r.owner != "" {
				if got := answer(t, owner, juliet, r.typ, r.payload); kind(got) != r.owner {
					t.Errorf("owner: %s, want %s", got, r.owner)
				}
			}
		})
	}
	owner.ExpectNothing()
	stranger.ExpectNothing()

	for k := range srv.Registry().IQs {
		if k.To = 0; !rows[k] {
			t.Errorf("no row for %s {%s}%s", k.Type, k.Space, k.Local)
		}
	}
}

// TestStrangersPresenceIsNotAnswered: RFC 6121 §3.1.3, §4.3.2 and §8.5.1: nothing that is sent as presence tells whether there is an account.
func TestStrangersPresenceIsNotAnswered(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive))
	owner, offline := srv.Client(balcony), srv.Client(nurse+"/kitchen")
	stranger := srv.Client(tybalt + "/piazza")
	owner.Online()
	offline.Close()
	stranger.Online()
	for _, typ := range []string{"probe", "", "unavailable", "subscribe", "unsubscribe", "subscribed", "unsubscribed", "error"} {
		attr := ""
		if typ != "" {
			attr = " type='" + typ + "'"
		}
		got := make(map[string]string)
		for _, to := range []string{juliet, nurse, nobody, balcony, juliet + "/none", nurse + "/none", nobody + "/none"} {
			stranger.Send("<presence to='" + to + "'" + attr + "/>")
			stranger.Send("<iq type='get' id='end' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
			for {
				e := stranger.Read()
				if e.Local == "iq" {
					break
				}
				got[to] += strings.ReplaceAll(e.String(), to, "{to}")
			}
		}
		for to, g := range got {
			base := nobody
			if strings.Contains(to, "/") {
				base += "/none"
			}
			if g != got[base] {
				t.Errorf("presence %q to %s: %q, to %s: %q", typ, to, g, base, got[base])
			}
		}
	}
}

// TestRetractionsTellNothing: whoever retracts a message (XEP-0424) is told the same whether it is there or not, it is his or another's, and the account is there
// or not (docs/decisions/0006-unknown-accounts.md: that a message can be delivered is known).
func TestRetractionsTellNothing(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive))
	owner, offline := srv.Client(balcony), srv.Client(nurse+"/kitchen")
	friend, stranger := srv.Client(romeo+"/orchard"), srv.Client(tybalt+"/piazza")
	owner.Online()
	offline.Close()
	for _, to := range []string{juliet, nurse} {
		friend.Send("<message type='chat' id='his' to='" + to + "'><body>x</body></message>")
		stranger.Send("<message type='chat' id='own' to='" + to + "'><body>x</body></message>")
	}
	friend.Sync()
	stranger.Sync()
	for i, target := range []string{"his", "own", "none", "&quot;", ""} {
		for _, to := range []string{juliet, nurse, balcony, nurse + "/kitchen"} {
			stranger.Send(fmt.Sprintf("<message type='chat' id='r%d' to='%s'><retract xmlns='urn:xmpp:message-retract:1' id='%s'/></message>", i, to, target))
		}
	}
	stranger.ExpectNothing()
	var left []string
	page, err := srv.DB().QueryArchive(t.Context(), owner.JID.Bare(), mam.Query{Max: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range page.Messages {
		if strings.Contains(string(m.XML), "<body>") {
			left = append(left, string(m.XML))
		}
	}
	if len(left) != 1 || !strings.Contains(left[0], "id='his'") {
		t.Errorf("what is left of the messages of two senders when one has retracted all: %q", left)
	}
}

// TestHeadlinesAreNotAnswered: RFC 6121 §8.5.1 and §8.5.2.2.1.
func TestHeadlinesAreNotAnswered(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive))
	srv.Client(nurse + "/kitchen").Close()
	stranger := srv.Client(tybalt + "/piazza")
	for _, to := range []string{nurse, nobody, nobody + "/none"} {
		stranger.Send("<message type='headline' to='" + to + "'><body>x</body></message>")
	}
	stranger.ExpectNothing()
}
