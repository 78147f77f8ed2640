package pubsub_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/ext/pubsub"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
)

// meanwhile is a store in which something happens after the last item of a node was read.
type meanwhile struct {
	pubsub.Store
	read func()
}

func (s *meanwhile) PubSubItems(ctx context.Context, service jid.JID, name string, q pubsub.Query) (pubsub.Page, error) {
	p, err := s.Store.PubSubItems(ctx, service, name, q)
	if f := s.read; q.Last && f != nil {
		s.read = nil
		f()
	}
	return p, err
}

const tune = "http://jabber.org/protocol/tune"

// wantsTunes lets every resource that is asked want tunes and device lists. The hash is not compared: each is asked for itself.
func (w *world) wantsTunes(t *testing.T) {
	w.ask = func(s *xmpp.Stanza) (*xmpp.Stanza, error) {
		return xmpp.New(xmpp.IQ, "result", s.From, s.To, element(t, "<query xmlns='http://jabber.org/protocol/disco#info'><identity category='client' type='pc'/>"+
			"<feature var='"+tune+"+notify'/><feature var='urn:xmpp:omemo:2:devices+notify'/></query>")), nil
	}
}

// XEP-0163 §4.3.4, example 8 (presence of a contact elsewhere): what is published or taken away while a resource is sent the last item is what it sees last.
func TestLastItemDoesNotOvertakeNews(t *testing.T) {
	for name, tt := range map[string]struct{ change, last string }{
		"published": {"<publish node='" + tune + "'><item id='new'><tune xmlns='" + tune + "'/></item></publish>", "<item id='new'>"},
		"retracted": {"<retract node='" + tune + "' notify='1'><item id='old'/></retract>", "<retract id='old'/>"},
	} {
		t.Run(name, func(t *testing.T) {
			store := new(meanwhile)
			w := newWorldOver(t, func(s pubsub.Store) pubsub.Store { store.Store = s; return store }, "juliet@localhost")
			w.from["juliet@localhost romeo@remote"] = true
			w.wantsTunes(t)
			w.publishes(t, tune, "old")
			changed := make(chan string, 1)
			store.read = func() {
				go func() {
					changed <- w.request(t, "juliet@localhost/balcony", "juliet@localhost", "set", pubsub.NS, tt.change)
				}()
				select { // it is done at once, or has to wait for its turn
				case got := <-changed:
					changed <- got
				case <-time.After(100 * time.Millisecond):
				}
			}
			w.presence(t, "romeo@remote/orchard", "", "bWFkZSB1cA==")
			if got := <-changed; strings.HasPrefix(got, "not") {
				t.Fatal(got)
			}
			if got := w.next(t).String(); !strings.Contains(got, "<item id='old'>") || !strings.Contains(got, "<delay") {
				t.Errorf("first %s", got)
			}
			if got := w.next(t).String(); !strings.Contains(got, tt.last) {
				t.Errorf("then %s", got)
			}
			if got := w.take(); len(got) > 0 {
				t.Errorf("and %v", got)
			}
		})
	}
}

// XEP-0060 §4.5: a node that was closed shows its last item to nobody who comes online, also not to one whose access was looked up just before.
func TestClosedBeforeTheLastItem(t *testing.T) {
	store := new(meanwhile)
	w := newWorldOver(t, func(s pubsub.Store) pubsub.Store { store.Store = s; return store }, "juliet@localhost")
	w.from["juliet@localhost romeo@remote"] = true
	w.wantsTunes(t)
	w.publishes(t, tune, "old")
	w.publishes(t, "urn:xmpp:omemo:2:devices", "current")
	done := make(chan string, 1)
	var n, sent int
	w.asked = func(who jid.JID) {
		// First whether romeo's presence is worth remembering, then whether he gets events by presence, then by the node.
		if n++; who.String() != "romeo@remote" || n != 3 {
			return
		}
		configured := make(chan string, 1)
		go func() {
			configured <- w.request(t, "juliet@localhost/balcony", "juliet@localhost", "set", pubsub.NSOwner, "<configure node='"+tune+"'><x xmlns='jabber:x:data' type='submit'>"+
				"<field var='pubsub#access_model'><value>whitelist</value></field></x></configure>")
		}()
		select { // it is done at once, or has to wait for its turn
		case got := <-configured:
			store.read = func() { sent++ } // once, at the next last item
			done <- got
		case <-time.After(100 * time.Millisecond):
			go func() { done <- <-configured }()
		}
	}
	w.presence(t, "romeo@remote/orchard", "", "bWFkZSB1cA==")
	select {
	case got := <-done:
		if got != "" {
			t.Fatal(got)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("romeo was asked about %d times", n)
	}
	for !strings.Contains(w.next(t).String(), "<items node='urn:xmpp:omemo:2:devices'>") {
	}
	if sent > 0 {
		t.Error("the node was closed, and then its last item read")
	}
}

// XEP-0060 §6.1.2: who loses access while something is sent, and gets it and the subscription again, keeps them.
func TestRenewedSubscriptionStays(t *testing.T) {
	for name, renewed := range map[string]bool{"renewed": true, "lost": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "juliet@localhost")
			ctx := context.Background()
			do := func(from, ns, typ, inside string) string {
				t.Helper()
				return w.requestIn(ctx, t, from, "juliet@localhost", typ, ns, inside)
			}
			access := func(model string) {
				t.Helper()
				if got := do("juliet@localhost/balcony", pubsub.NSOwner, "set", "<configure node='"+tune+"'><x xmlns='jabber:x:data' type='submit'>"+
					"<field var='pubsub#access_model'><value>"+model+"</value></field></x></configure>"); got != "" {
					t.Fatal(got)
				}
			}
			subscribe := func(who string) {
				t.Helper()
				if got := do(who+"/orchard", pubsub.NS, "set", "<subscribe node='"+tune+"' jid='"+who+"'/>"); !strings.Contains(got, "'subscribed'") {
					t.Fatal(got)
				}
			}
			w.publishes(t, tune, "1")
			access("open")
			subscribe("romeo@remote")
			subscribe("tybalt@remote")
			if got := do("juliet@localhost/balcony", pubsub.NSOwner, "set", "<affiliations node='"+tune+"'><affiliation jid='tybalt@remote' affiliation='member'/></affiliations>"); got != "" {
				t.Fatal(got)
			}
			access("whitelist")
			w.take()
			// The owner's news have found that romeo may not have them, and go to tybalt. Before that is carried out romeo may again.
			w.routes = func(step context.Context, s *xmpp.Stanza) {
				if s.To.String() != "tybalt@remote" || !renewed {
					return
				}
				w.routes = nil
				ctx = step
				access("open")
				subscribe("romeo@remote")
			}
			w.publishes(t, tune, "2")
			w.routes = nil
			ctx = context.Background()
			list := do("juliet@localhost/balcony", pubsub.NSOwner, "get", "<subscriptions node='"+tune+"'/>")
			if got := strings.Contains(list, "romeo@remote"); got != renewed || !strings.Contains(list, "tybalt@remote") {
				t.Errorf("subscriptions: %s", list)
			}
		})
	}
}

// A node that was stored wrong is sent as it has to be to the first one to whom it is shown: XEP-0163 §4.3.4, XEP-0384 §5.3.1.
func TestWrongNodeIsRightAtLogin(t *testing.T) {
	const devices = "urn:xmpp:omemo:2:devices"
	for name, spoil := range map[string]func(*pubsub.Config){
		"no payloads":      func(c *pubsub.Config) { c.Payloads = false },
		"no notifications": func(c *pubsub.Config) { c.Deliver = false },
	} {
		t.Run(name, func(t *testing.T) {
			var db pubsub.Store
			w := newWorldOver(t, func(s pubsub.Store) pubsub.Store { db = s; return s }, "juliet@localhost")
			w.from["juliet@localhost romeo@remote"] = true
			w.wantsTunes(t)
			account := jid.MustParse("juliet@localhost")
			c := pubsub.DefaultConfig()
			spoil(&c)
			if err := db.CreatePubSubNode(t.Context(), account, pubsub.Node{Name: devices, Config: c, Creator: account, Created: time.Now()}); err != nil {
				t.Fatal(err)
			}
			item := pubsub.Item{ID: "current", Published: time.Now(), Payload: []byte("<devices xmlns='urn:xmpp:omemo:2'/>")}
			if _, err := db.PublishPubSubItem(t.Context(), account, devices, item, 1, false, time.Time{}); err != nil {
				t.Fatal(err)
			}
			w.presence(t, "romeo@remote/orchard", "", "bWFkZSB1cA==")
			if s := w.next(t).String(); !strings.Contains(s, "<item id='current'><devices xmlns='urn:xmpp:omemo:2'/></item>") {
				t.Errorf("received %s", s)
			}
		})
	}
}

// XEP-0060 §7.1: a <set/> or something that the server does not know may stand before what is asked. §16.4.4: the owner may be who gets replies to items.
func TestFormsOfRequests(t *testing.T) {
	w := newWorld(t, "juliet@localhost")
	w.publishes(t, tune, "1")
	ask := func(ns, typ, inside string) string {
		t.Helper()
		return w.request(t, "juliet@localhost/balcony", "juliet@localhost", typ, ns, inside)
	}
	if got := ask(pubsub.NS, "get", "<set xmlns='http://jabber.org/protocol/rsm'><max>1</max></set><items node='"+tune+"'/>"); !strings.Contains(got, "<item id='1'>") {
		t.Errorf("a set before the items: %s", got)
	}
	if got := ask(pubsub.NS, "get", "<set xmlns='http://jabber.org/protocol/rsm'><max>1</max></set>"); got != "bad-request" {
		t.Errorf("a set alone: %s", got)
	}
	if got := ask(pubsub.NS, "get", "<nothing/>"); got != "feature-not-implemented" {
		t.Errorf("what is not known: %s", got)
	}
	for value, want := range map[string]string{"owner": "", "publisher": "", "none": "", "somebody": "not-acceptable"} {
		if got := ask(pubsub.NSOwner, "set", "<configure node='"+tune+"'><x xmlns='jabber:x:data' type='submit'><field var='pubsub#itemreply'><value>"+value+"</value></field></x></configure>"); got != want {
			t.Errorf("itemreply %s: %q", value, got)
		}
	}
}

// Items expire on the wire: the list, the last item and the count are without them (XEP-0060 §16.4.4, item_expire).
func TestItemsExpire(t *testing.T) {
	srv := xmpptest.New(t)
	juliet := srv.Client("juliet@localhost/balcony")
	account := srv.Account("juliet@localhost")
	c := pubsub.DefaultConfig()
	c.ItemExpire, c.MaxItems = 3600, 10
	if err := srv.DB().CreatePubSubNode(t.Context(), account, pubsub.Node{Name: tune, Config: c, Creator: account, Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	for id, age := range map[string]time.Duration{"old": 2 * time.Hour, "young": time.Minute} {
		item := pubsub.Item{ID: id, Published: time.Now().Add(-age), Payload: []byte("<tune xmlns='" + tune + "'/>")}
		if _, err := srv.DB().PublishPubSubItem(t.Context(), account, tune, item, 10, false, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	const ns = "<pubsub xmlns='http://jabber.org/protocol/pubsub'>"
	juliet.Send("<iq type='get' id='1'>" + ns + "<items node='" + tune + "'/><set xmlns='http://jabber.org/protocol/rsm'><max>10</max></set></pubsub></iq>")
	juliet.Expect("<iq type='result' from='juliet@localhost' to='juliet@localhost/balcony' id='1'>" + ns + "<items node='" + tune + "'><item id='young'><tune xmlns='" + tune + "'/></item></items>" +
		"<set xmlns='http://jabber.org/protocol/rsm'><first index='0'>young</first><last>young</last><count>1</count></set></pubsub></iq>")
	juliet.Send("<iq type='get' id='2'>" + ns + "<items node='" + tune + "'><item id='old'/></items></pubsub></iq>")
	juliet.Expect("<iq type='result' from='juliet@localhost' to='juliet@localhost/balcony' id='2'>" + ns + "<items node='" + tune + "'/></pubsub></iq>")
}
