package pubsub_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"balcony/storage"
	"balcony/storage/storagetest/pgtest"
	"balcony/xmpp"
	"balcony/xmpp/ext/pubsub"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
	"pgregory.net/rapid"
)

// world is a module without a server around it: what it routes is kept, contacts are those of the map, nobody here is online.
type world struct {
	reg  *xmpp.Registry
	m    *pubsub.Module
	from map[string]bool // "owner contact": contact is subscribed to owner's presence
	in   map[string]bool // "owner contact": owner has contact in the group Friends
	ask  func(*xmpp.Stanza) (*xmpp.Stanza, error)

	routes func(context.Context, *xmpp.Stanza) // sees what is routed, if not nil
	asked  func(contact jid.JID)               // sees who is asked about, if not nil
	mu     sync.Mutex
	sent   []*xmpp.Stanza // guarded by mu
	came   chan struct{}
}

var errUnused = errors.New("not for this test")

func (w *world) Route(ctx context.Context, s *xmpp.Stanza) {
	if w.routes != nil {
		w.routes(ctx, s)
	}
	w.mu.Lock()
	w.sent = append(w.sent, s)
	w.mu.Unlock()
	select {
	case w.came <- struct{}{}:
	default:
	}
}
func (w *world) Send(ctx context.Context, to xmpp.Session, s *xmpp.Stanza) {
	w.Route(ctx, s.WithTo(to.JID()))
}
func (w *world) Redeliver(context.Context, jid.JID, *xmpp.Stanza) {}
func (w *world) Ask(_ context.Context, s *xmpp.Stanza) (*xmpp.Stanza, error) {
	if w.ask == nil {
		return nil, errUnused
	}
	return w.ask(s)
}
func (w *world) Serves(domain string) bool { return domain == "localhost" }
func (w *world) HostAt(name string) (*xmpp.Host, string, bool) {
	return w.reg.Hosts["pubsub"], "localhost", name == "pubsub.localhost"
}
func (w *world) Exists(context.Context, jid.JID) (bool, error) { return true, nil }
func (w *world) Sessions(jid.JID) []xmpp.Session               { return nil }
func (w *world) EachSession(func(xmpp.Session) bool)           {}
func (w *world) IsAdmin(jid.JID, string) bool                  { return false }
func (w *world) Now() time.Time                                { return time.Unix(1_700_000_000, 0).UTC() }

func (w *world) Subscribed(_ context.Context, owner, contact jid.JID) (to, from bool, err error) {
	if w.asked != nil {
		w.asked(contact)
	}
	self := owner.Bare().Equal(contact.Bare())
	return self, self || w.from[owner.Bare().String()+" "+contact.Bare().String()], nil
}
func (w *world) Subscribers(_ context.Context, account jid.JID) (list []jid.JID, err error) {
	for k := range w.from {
		if owner, contact, _ := strings.Cut(k, " "); owner == account.String() {
			list = append(list, jid.MustParse(contact))
		}
	}
	return list, nil
}
func (w *world) Subscriptions(context.Context, jid.JID) ([]jid.JID, error) { return nil, nil }
func (w *world) Groups(_ context.Context, owner, contact jid.JID) ([]string, error) {
	if w.in[owner.String()+" "+contact.String()] {
		return []string{"Friends"}, nil
	}
	return nil, nil
}
func (w *world) Blocks(context.Context, jid.JID, jid.JID) (bool, error) { return false, nil }
func (w *world) Blocked(context.Context, jid.JID) (func(jid.JID) bool, error) {
	return func(jid.JID) bool { return false }, nil
}

// take returns what was routed since the last call.
func (w *world) take() []*xmpp.Stanza {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sent
	w.sent = nil
	return s
}

// next waits for the next stanza.
func (w *world) next(t *testing.T) *xmpp.Stanza {
	t.Helper()
	for end := time.After(10 * time.Second); ; {
		w.mu.Lock()
		if len(w.sent) > 0 {
			s := w.sent[0]
			w.sent = w.sent[1:]
			w.mu.Unlock()
			return s
		}
		w.mu.Unlock()
		select {
		case <-w.came:
		case <-end:
			t.Fatal("nothing came")
		}
	}
}

func newWorld(t testing.TB, accounts ...string) *world {
	t.Helper()
	return newWorldOver(t, func(s pubsub.Store) pubsub.Store { return s }, accounts...)
}

// newWorldOver makes a world with something between the module and its store.
func newWorldOver(t testing.TB, over func(pubsub.Store) pubsub.Store, accounts ...string) *world {
	t.Helper()
	return newWorldIn(t, storage.Config{Driver: "sqlite", DSN: ":memory:"}, over, accounts...)
}

func newWorldIn(t testing.TB, cfg storage.Config, over func(pubsub.Store) pubsub.Store, accounts ...string) *world {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	db, err := storage.Open(context.Background(), cfg, "", storage.DefaultLimits(), log)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range accounts {
		if err := db.CreateAccount(context.Background(), jid.MustParse(a), nil); err != nil {
			t.Fatal(err)
		}
	}
	w := &world{from: make(map[string]bool), came: make(chan struct{}, 1)}
	w.reg = xmpp.NewRegistry(w)
	w.m = pubsub.New(over(db), w, w, log)
	w.m.Register(w.reg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { w.m.Run(ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func element(t testing.TB, s string) *xmpp.Element {
	t.Helper()
	e, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader(s)))
	if err != nil {
		t.Fatalf("%v: %s", err, s)
	}
	return e
}

// request asks the module and returns the answer as XML, or the condition of the error.
func (w *world) request(t testing.TB, from, to, typ, ns, inside string) string {
	t.Helper()
	return w.requestIn(context.Background(), t, from, to, typ, ns, inside)
}

func (w *world) requestIn(ctx context.Context, t testing.TB, from, to, typ, ns, inside string) string {
	t.Helper()
	s := xmpp.New(xmpp.IQ, typ, jid.MustParse(to), jid.MustParse(from), element(t, "<pubsub xmlns='"+ns+"'>"+inside+"</pubsub>"))
	s.ID = "1"
	key := xmpp.IQKey{To: xmpp.ToAccount, Type: stanza.IQType(typ), Space: ns, Local: "pubsub"}
	h := w.reg.IQs[key]
	if key.To = xmpp.ToHost; s.To.Localpart() == "" {
		h = w.reg.Hosts["pubsub"].IQs[key]
	}
	el, err := h(ctx, s)
	if err != nil {
		if errors.Is(err, xmpp.ErrDrop) {
			return "dropped"
		}
		e, expected := xmpp.AsStanzaError(err)
		if !expected {
			t.Fatalf("%s: %v", inside, err)
		}
		return string(e.Stanza.Condition)
	}
	if el == nil {
		return ""
	}
	return el.String()
}

// XEP-0163 §4.3 for contacts at other servers: what their resources want is asked for when their presence comes, the last item is sent then, and every
// next one to the full JID, until the resource is gone. Who is no subscriber is neither asked nor remembered. A hash that is not that of the answer counts
// for nobody else (XEP-0115 §5.4).
func TestContactsElsewhere(t *testing.T) {
	w := newWorld(t, "juliet@localhost")
	w.from["juliet@localhost romeo@remote"] = true
	const node = "http://jabber.org/protocol/tune"
	asked := make(chan *xmpp.Stanza, 10)
	answer := "<query xmlns='http://jabber.org/protocol/disco#info'><identity category='client' name='Exodus 0.9.1' type='pc'/>" +
		"<feature var='http://jabber.org/protocol/disco#info'/><feature var='http://jabber.org/protocol/disco#items'/><feature var='http://jabber.org/protocol/geoloc'/>" +
		"<feature var='http://jabber.org/protocol/geoloc+notify'/><feature var='" + node + "'/><feature var='" + node + "+notify'/></query>"
	w.ask = func(s *xmpp.Stanza) (*xmpp.Stanza, error) {
		asked <- s
		return xmpp.New(xmpp.IQ, "result", s.From, s.To, element(t, answer)), nil
	}
	publish := func(id string) {
		t.Helper()
		if got := w.request(t, "juliet@localhost/balcony", "juliet@localhost", "set", pubsub.NS,
			"<publish node='"+node+"'><item id='"+id+"'><tune xmlns='"+node+"'/></item></publish>"); !strings.Contains(got, "id='"+id+"'") {
			t.Fatalf("publish: %s", got)
		}
	}
	presence := func(from, typ, ver string) {
		t.Helper()
		s := xmpp.New(xmpp.Presence, typ, jid.MustParse("juliet@localhost"), jid.MustParse(from))
		if ver != "" {
			s = s.Append(element(t, "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:c' ver='"+ver+"'/>"))
		}
		d := &xmpp.Delivery{Account: jid.MustParse("juliet@localhost"), Key: "juliet@localhost", Stanza: s}
		for _, f := range w.reg.IncomingFilters {
			if err := f(context.Background(), d); err != nil {
				t.Fatalf("presence: %v", err)
			}
		}
	}
	const ver = "8sCKWRVwQ8QGlHElneJtW2POoFA="
	publish("a")
	presence("tybalt@remote/piazza", "", ver)
	presence("romeo@remote/orchard", "", ver)
	if s := <-asked; s.To.String() != "romeo@remote/orchard" || s.From.String() != "juliet@localhost" {
		t.Errorf("asked %s", s)
	}
	s := w.next(t)
	if s.To.String() != "romeo@remote/orchard" || s.From.String() != "juliet@localhost" || !s.Has("urn:xmpp:delay", "delay") || !strings.Contains(s.String(), "id='a'") {
		t.Errorf("last item: %s", s)
	}
	// Known by now: not asked, and what comes is sent to both.
	presence("romeo@remote/phone", "", ver)
	if s := w.next(t); s.To.String() != "romeo@remote/phone" {
		t.Errorf("last item for the second resource: %s", s)
	}
	presence("romeo@remote/phone", "", ver)
	publish("b")
	var to []string
	for _, s := range w.take() {
		to = append(to, s.To.String())
		// XEP-0163 §4.3.1 rule 4
		if !s.Has("http://jabber.org/protocol/address", "addresses") {
			t.Errorf("no replyto: %s", s)
		}
	}
	slices.Sort(to)
	if fmt.Sprint(to) != "[romeo@remote/orchard romeo@remote/phone]" {
		t.Errorf("notified: %v", to)
	}
	presence("romeo@remote/orchard", "unavailable", "")
	publish("c")
	if all := w.take(); len(all) != 1 || all[0].To.String() != "romeo@remote/phone" {
		t.Errorf("notified after one has left: %v", all)
	}
	presence("romeo@remote", "unavailable", "")
	w.from = map[string]bool{}
	publish("d")
	if all := w.take(); len(all) != 0 {
		t.Errorf("notified after all have left: %v", all)
	}

	// A hash that is made up: each resource with it is asked, and answers for itself.
	w.from["juliet@localhost romeo@remote"] = true
	for _, r := range []string{"romeo@remote/x", "romeo@remote/y"} {
		presence(r, "", "bWFkZSB1cA==")
		if s := <-asked; s.To.String() != r {
			t.Errorf("asked %s, want %s", s.To, r)
		}
		if s := w.next(t); s.To.String() != r {
			t.Errorf("last item: %s", s)
		}
	}
	select {
	case s := <-asked:
		t.Errorf("asked %s", s)
	default:
	}
}

// TestEngineAgainstModel compares a service with a naive one: affiliations × access models × publish models × operations at random, on both databases.
func TestEngineAgainstModel(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { testAgainstModel(t, newWorld(t), 100) })
	t.Run("PostgreSQL", func(t *testing.T) {
		cfg := storage.Config{Driver: "postgres", DSN: pgtest.Start(t)}
		testAgainstModel(t, newWorldIn(t, cfg, func(s pubsub.Store) pubsub.Store { return s }), 20)
	})
}

func testAgainstModel(t *testing.T, w *world, most int) {
	const service = "pubsub.localhost"
	people := []string{"owner@localhost", "friend@localhost", "contact@localhost", "stranger@localhost"}
	for _, who := range people[1:3] {
		w.from[people[0]+" "+who] = true
	}
	w.in = map[string]bool{people[0] + " " + people[1]: true}
	runs, broken := 0, false
	rapid.Check(t, func(rt *rapid.T) {
		if runs++; runs > most && !broken {
			return
		}
		defer func() { broken = broken || rt.Failed() }() // then rapid looks for a short way to it
		node := fmt.Sprint("node", runs)
		access, posting, keep := "open", "publishers", 3
		affiliation := map[string]string{people[0]: "owner"}
		subscription := map[string]string{} // subscribed or pending
		type entry struct{ id, by string }
		var items []entry
		do := func(who, typ, ns, inside string) string { return w.request(t, who+"/r", service, typ, ns, inside) }
		configuration := func(name, value string) string {
			return "<x xmlns='jabber:x:data' type='submit'><field var='pubsub#" + name + "'><value>" + value + "</value></field><field var='pubsub#roster_groups_allowed'><value>Friends</value></field></x>"
		}
		if got := do(people[0], "set", pubsub.NS, "<create node='"+node+"'/><configure>"+configuration("max_items", fmt.Sprint(keep))+"</configure>"); got != "" {
			rt.Fatalf("create: %s", got)
		}
		defer func() { do(people[0], "set", pubsub.NSOwner, "<delete node='"+node+"'/>") }()
		w.take()
		// reads says whether somebody may read, and what it is told otherwise: XEP-0060 §4.1, §4.5.
		reads := func(who string) (bool, string) {
			switch a := affiliation[who]; {
			case a == "owner" || a == "publisher" || a == "member":
				return true, ""
			case a == "outcast" || a == "publish-only":
				return false, "forbidden"
			}
			return map[string]bool{"open": true, "presence": who != people[3], "roster": who == people[1], "authorize": subscription[who] == "subscribed"}[access],
				map[string]string{"presence": "not-authorized", "roster": "not-authorized", "authorize": "not-authorized", "whitelist": "not-allowed"}[access]
		}
		// posts says whether somebody may publish: §4.1, §8.1.3.
		posts := func(who string) bool {
			switch affiliation[who] {
			case "owner", "publisher", "publish-only":
				return true
			case "outcast":
				return false
			}
			return posting == "open" || posting == "subscribers" && subscription[who] == "subscribed"
		}
		audience := func() (list []string) {
			for who, state := range subscription {
				if state != "subscribed" {
					continue
				}
				if ok, _ := reads(who); ok {
					list = append(list, who)
				} else {
					delete(subscription, who) // who has lost access has lost the subscription
				}
			}
			slices.Sort(list)
			return list
		}
		notified := func(what string, want []string) {
			var got []string
			for _, s := range w.take() {
				if s.Has(pubsub.NSEvent, "event") && strings.Contains(s.String(), what) {
					got = append(got, s.To.String())
				}
			}
			slices.Sort(got)
			if fmt.Sprint(got) != fmt.Sprint(want) {
				rt.Fatalf("%s: notified %v, want %v (access %s, affiliations %v)", what, got, want, access, affiliation)
			}
		}
		for range rapid.IntRange(1, 15).Draw(rt, "steps") {
			who := rapid.SampledFrom(people).Draw(rt, "who")
			id := rapid.SampledFrom([]string{"1", "2", "3", "4", "5"}).Draw(rt, "id")
			whom := rapid.SampledFrom(people[1:]).Draw(rt, "whom")
			owner := affiliation[who] == "owner"
			// owners checks the answer to what only an owner may.
			owners := func(what, got string) bool {
				if (got == "") != owner || !owner && got != "forbidden" {
					rt.Fatalf("%s %s: %s", who, what, got)
				}
				return owner
			}
			switch rapid.SampledFrom([]string{"publish", "publish", "retract", "purge", "subscribe", "subscribe", "unsubscribe", "approve", "affiliate", "access", "posting", "items"}).Draw(rt, "what") {
			case "publish":
				got := do(who, "set", pubsub.NS, "<publish node='"+node+"'><item id='"+id+"'><x xmlns='urn:x'/></item></publish>")
				if !posts(who) {
					if got != "forbidden" {
						rt.Fatalf("%s (%s) publishes: %s", who, affiliation[who], got)
					}
					continue
				}
				items = slices.DeleteFunc(items, func(e entry) bool { return e.id == id })
				items = append(items, entry{id, who})
				items = items[max(0, len(items)-keep):]
				notified("<item id='"+id+"'>", audience())
			case "retract":
				got := do(who, "set", pubsub.NS, "<retract node='"+node+"' notify='1'><item id='"+id+"'/></retract>")
				i := slices.IndexFunc(items, func(e entry) bool { return e.id == id })
				author := i >= 0 && items[i].by == who && affiliation[who] != "outcast"
				switch {
				case !owner && !author:
					if got != "forbidden" {
						rt.Fatalf("%s retracts: %s", who, got)
					}
				case i < 0:
					if got != "item-not-found" {
						rt.Fatalf("%s retracts nothing: %s", who, got)
					}
				default:
					if got != "" {
						rt.Fatalf("%s retracts its own: %s", who, got)
					}
					items = slices.Delete(items, i, i+1)
					notified("<retract id='"+id+"'", audience())
				}
			case "purge":
				if owners("purges", do(who, "set", pubsub.NSOwner, "<purge node='"+node+"'/>")) {
					items = nil
					notified("<purge", audience())
				}
			case "subscribe":
				got := do(who, "set", pubsub.NS, "<subscribe node='"+node+"' jid='"+who+"'/>")
				ok, why := reads(who)
				asks := !ok && access == "authorize" && why == "not-authorized"
				switch {
				case ok || asks && subscription[who] == "":
					want := map[bool]string{true: "subscribed", false: "pending"}[ok]
					if subscription[who] = want; !strings.Contains(got, "subscription='"+want+"'") {
						rt.Fatalf("%s subscribes: %s, want %s", who, got, want)
					}
				case got != why:
					rt.Fatalf("%s subscribes: %s, want %s", who, got, why)
				}
			case "unsubscribe":
				got := do(who, "set", pubsub.NS, "<unsubscribe node='"+node+"' jid='"+who+"'/>")
				if (subscription[who] != "") != strings.Contains(got, "subscription='none'") {
					rt.Fatalf("%s, %q, unsubscribes: %s", who, subscription[who], got)
				}
				delete(subscription, who)
			case "approve":
				allow := rapid.Bool().Draw(rt, "allow")
				form := fmt.Sprintf("<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>%s#subscribe_authorization</value></field><field var='pubsub#node'><value>%s</value></field>"+
					"<field var='pubsub#subscriber_jid'><value>%s</value></field><field var='pubsub#allow'><value>%v</value></field></x>", pubsub.NS, node, whom, allow)
				if err := w.reg.Hosts["pubsub"].Take(context.Background(), xmpp.New(xmpp.Message, "", jid.MustParse(service), jid.MustParse(who+"/r"), element(t, form))); err != nil {
					rt.Fatalf("%s approves: %v", who, err)
				}
				if owner && subscription[whom] == "pending" {
					if delete(subscription, whom); allow {
						subscription[whom] = "subscribed"
					}
				}
			case "affiliate":
				a := rapid.SampledFrom([]string{"none", "outcast", "member", "publish-only", "publisher"}).Draw(rt, "affiliation")
				if owners("affiliates", do(who, "set", pubsub.NSOwner, "<affiliations node='"+node+"'><affiliation jid='"+whom+"' affiliation='"+a+"'/></affiliations>")) {
					affiliation[whom] = a
					if a == "outcast" {
						delete(subscription, whom)
					}
				}
			case "access":
				a := rapid.SampledFrom([]string{"open", "presence", "roster", "authorize", "whitelist"}).Draw(rt, "access")
				if owners("configures", do(who, "set", pubsub.NSOwner, "<configure node='"+node+"'>"+configuration("access_model", a)+"</configure>")) {
					access = a
				}
			case "posting":
				p := rapid.SampledFrom([]string{"publishers", "subscribers", "open"}).Draw(rt, "publish model")
				if owners("configures", do(who, "set", pubsub.NSOwner, "<configure node='"+node+"'>"+configuration("publish_model", p)+"</configure>")) {
					posting = p
				}
			case "items":
				got := do(who, "get", pubsub.NS, "<items node='"+node+"'/>")
				if ok, why := reads(who); !ok {
					if got != why {
						rt.Fatalf("%s reads: %s, want %s", who, got, why)
					}
					continue
				}
				var ids, want []string
				for _, c := range element(t, got).Children[0].Children {
					ids = append(ids, c.Attrs[0].Value)
				}
				for _, e := range items {
					want = append(want, e.id)
				}
				if fmt.Sprint(ids) != fmt.Sprint(want) {
					rt.Fatalf("%s reads %v, want %v", who, ids, want)
				}
			}
			w.take()
		}
	})
}
