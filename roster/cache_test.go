package roster_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"balcony/roster"

	"mellium.im/xmpp/jid"
	"pgregory.net/rapid"
)

// Presence of accounts that are online does not touch the database; what is kept for that goes with the last session.
func TestPresenceDoesNotTouchTheDatabase(t *testing.T) {
	w := newWorld(t)
	w.friends("juliet@localhost", "romeo@localhost")
	juliet, romeo := jid.MustParse("juliet@localhost"), jid.MustParse("romeo@localhost")
	j, r := w.online("juliet@localhost/balcony"), w.online("romeo@localhost/orchard")
	before := w.store.count()
	j.send("<presence><show>away</show></presence>", "<presence to='romeo@localhost'/>", "<presence type='probe' to='romeo@localhost'/>",
		"<presence type='unavailable'/>", "<presence/>")
	r.send("<presence><show>dnd</show></presence>", "<presence to='juliet@localhost/balcony'/>")
	for _, of := range [][2]jid.JID{{juliet, romeo}, {romeo, juliet}} {
		if to, from, err := w.roster.Subscribed(w.ctx, of[0], of[1]); !to || !from || err != nil {
			t.Errorf("subscribed: %v %v %v", to, from, err)
		}
	}
	j.close()
	if n := w.store.count() - before; n != 0 {
		t.Errorf("%d calls of the store", n)
	}
	if w.roster.Cached(juliet) || !w.roster.Cached(romeo) {
		t.Errorf("cached: juliet %v, romeo %v", w.roster.Cached(juliet), w.roster.Cached(romeo))
	}
	r.close()
	if w.roster.Cached(romeo) {
		t.Error("romeo is cached after his last session")
	}
	// The same answers without a cache.
	if to, from, err := w.roster.Subscribed(w.ctx, juliet, romeo); !to || !from || err != nil {
		t.Errorf("subscribed: %v %v %v", to, from, err)
	}
	if to, from, err := w.roster.Subscribed(w.ctx, juliet, jid.MustParse("paris@localhost")); to || from || err != nil {
		t.Errorf("a stranger is subscribed: %v %v %v", to, from, err)
	}
	if list, err := w.roster.Subscribers(w.ctx, juliet); len(list) != 1 || !list[0].Equal(romeo) || err != nil {
		t.Errorf("subscribers %v, %v", list, err)
	}
	if to, from, err := w.roster.Subscribed(w.ctx, juliet, jid.MustParse("juliet@localhost/chamber")); !to || !from || err != nil {
		t.Errorf("an account is subscribed to itself: %v %v %v", to, from, err)
	}
}

// An account whose client comes back is not read again, but for what was changed while it was away, whoever changed it.
func TestComingBackDoesNotTouchTheDatabase(t *testing.T) {
	w := newWorld(t)
	w.friends("juliet@localhost", "romeo@localhost")
	visit := func(want string) (calls int) {
		t.Helper()
		before := w.store.count()
		j := w.bind("juliet@localhost/balcony")
		j.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>", "<presence/>")
		calls = w.store.count() - before
		got := j.take()
		if len(got) == 0 || got[0].ID != "r" || !strings.Contains(got[0].String(), want) {
			t.Errorf("got %v, want %s", got, want)
		}
		j.close()
		return calls
	}
	both := "<item jid='romeo@localhost' subscription='both'/>"
	visit(both)
	if n := visit(both); n != 0 {
		t.Errorf("%d calls of the store", n)
	}
	r := w.online("romeo@localhost/orchard")
	r.send("<presence type='unsubscribe' to='juliet@localhost'/>")
	r.close()
	visit("<item jid='romeo@localhost' subscription='to'/>")
	// What stands behind the module.
	if _, err := w.db.UpdateItem(w.ctx, jid.MustParse("juliet@localhost"), jid.MustParse("nurse@localhost"), func(it *roster.Item) bool {
		it.Listed = true
		return true
	}); err != nil {
		t.Fatal(err)
	}
	w.roster.Forget(jid.MustParse("juliet@localhost/x"))
	visit("<item jid='nurse@localhost' subscription='none'/>")
}

// When the roster cannot be read, the client learns that its presence was not broadcast, and stays unavailable.
func TestDatabaseDownAtInitialPresence(t *testing.T) {
	w := newWorld(t)
	w.friends("juliet@localhost", "romeo@localhost")
	r := w.online("romeo@localhost/orchard")
	w.store.fail(errDown, false)
	j := w.bind("juliet@localhost/balcony")
	j.send("<presence id='p1'/>")
	j.gets("<presence id='p1' type='error' to='juliet@localhost/balcony'><error type='wait' code='500'><internal-server-error xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>")
	if j.s.Presence() != nil {
		t.Error("the session is available")
	}
	r.gets()
	w.store.fail(nil, false)
	j.send("<presence id='p2'/>")
	r.gets("<presence id='p2' from='juliet@localhost/balcony' to='romeo@localhost'/>")
}

// A write that fails may have been committed: the cache asks again, and those who were subscribed learn that the account left even when the
// database stays away.
func TestDatabaseLostDuringAChange(t *testing.T) {
	w := newWorld(t)
	w.friends("juliet@localhost", "romeo@localhost")
	j, r := w.online("juliet@localhost/balcony"), w.online("romeo@localhost/orchard")
	j.take()
	w.store.fail(errDown, true)
	j.send("<presence id='c1' type='unsubscribed' to='romeo@localhost'/>")
	j.gets("<presence id='c1' type='error' from='romeo@localhost' to='juliet@localhost/balcony'><error type='wait' code='500'><internal-server-error xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>")
	r.gets()
	w.store.fail(nil, false)
	if _, from, err := w.roster.Subscribed(w.ctx, jid.MustParse("juliet@localhost"), jid.MustParse("romeo@localhost")); from || err != nil {
		t.Errorf("the cache still says that romeo is subscribed: %v", err)
	}
	w.store.fail(errDown, false)
	r.send("<presence id='c2' type='unsubscribed' to='juliet@localhost'/>")
	r.close()
	j.gets("<presence type='unavailable' from='romeo@localhost/orchard' to='juliet@localhost'/>")
}

// XEP-0191 §3.3: who is blocked sees nothing of what the server sends by itself.
func TestBlockedContactSeesNoPresence(t *testing.T) {
	w := newWorld(t)
	w.friends("juliet@localhost", "romeo@localhost")
	w.roster.UseBlocking(blocked{"juliet@localhost romeo@localhost"})
	r := w.online("romeo@localhost/orchard")
	j := w.online("juliet@localhost/balcony")
	j.send("<presence><show>away</show></presence>")
	r.gets()
	r.send("<presence type='unavailable'/>")
	r.take()
	r.send("<presence/>")
	r.gets("<presence from='romeo@localhost/orchard' to='romeo@localhost'/>")
	w.roster.UseBlocking(blocked{"nobody nobody"})
	j.send("<presence/>")
	r.gets("<presence from='juliet@localhost/balcony' to='romeo@localhost'/>")
}

// XEP-0191 §3.3: nothing is routed to a blocked JID, not even the end of directed presence (RFC 6121 §4.6.3) that was under way when the
// block began.
func TestBlockedEntitySeesNobodyLeave(t *testing.T) {
	w := newWorld(t)
	r := w.online("romeo@localhost/orchard")
	for _, leave := range []func(*client){
		func(c *client) { c.send("<presence type='unavailable'/>") },
		func(c *client) { c.close() },
	} {
		for _, b := range []blocked{{"juliet@localhost romeo@localhost/orchard"}, {"nobody nobody"}} {
			w.roster.UseBlocking(blocked{"nobody nobody"})
			j := w.online("juliet@localhost/balcony")
			j.send("<presence to='romeo@localhost/orchard'/>")
			r.gets("<presence from='juliet@localhost/balcony' to='romeo@localhost/orchard'/>")
			w.roster.UseBlocking(b)
			leave(j)
			if b.pair == "nobody nobody" {
				r.gets("<presence from='juliet@localhost/balcony' to='romeo@localhost/orchard' type='unavailable'/>")
			} else {
				r.gets()
			}
			j.close()
			r.gets()
		}
	}
}

// XEP-0191 §3.3: the removal of a blocked contact does not tell it which resources there are.
func TestRemovalOfABlockedContactShowsNoResource(t *testing.T) {
	w := newWorld(t)
	w.friends("juliet@localhost", "romeo@localhost")
	w.roster.UseBlocking(blocked{"juliet@localhost romeo@localhost"})
	r := w.online("romeo@localhost/orchard")
	j := w.online("juliet@localhost/balcony")
	j.send("<iq type='set' id='1'><query xmlns='jabber:iq:roster'><item jid='romeo@localhost' subscription='remove'/></query></iq>")
	for _, s := range r.take() {
		if s.From.Resourcepart() != "" {
			t.Errorf("romeo got %s", s)
		}
	}
}

// Withdraw tells each entity once: not one that the broadcast reaches, and not the account's own resources.
func TestWithdraw(t *testing.T) {
	w := newWorld(t)
	w.friends("juliet@localhost", "romeo@localhost")
	j := w.bind("juliet@localhost/balcony")
	own := w.online("juliet@localhost/chamber")
	r, n := w.online("romeo@localhost/orchard"), w.online("nurse@localhost/kitchen")
	j.send("<presence to='romeo@localhost/orchard'/>", "<presence to='nurse@localhost/kitchen'/>", "<presence to='juliet@localhost/chamber'/>",
		"<presence to='room@chat.example/juliet'/>", "<presence to='other@chat.example/juliet'/>")
	for _, c := range []*client{r, n, own} {
		c.take()
	}
	w.sent("<presence from='juliet@localhost/balcony' to='other@chat.example/juliet'/>", "<presence from='juliet@localhost/balcony' to='room@chat.example/juliet'/>")
	all := func(to jid.JID) bool { return to.Localpart() != "other" }
	withdraw := func() { w.roster.Withdraw(w.ctx, j.s.JID(), nil, all) }

	// To romeo, a subscriber, the session is not available, and he knows it from directed presence alone.
	withdraw()
	r.gets("<presence from='juliet@localhost/balcony' to='romeo@localhost/orchard' type='unavailable'/>")
	n.gets("<presence from='juliet@localhost/balcony' to='nurse@localhost/kitchen' type='unavailable'/>")
	own.gets()
	w.sent("<presence from='juliet@localhost/balcony' to='room@chat.example/juliet' type='unavailable'/>")
	withdraw()
	r.gets()
	n.gets()
	w.sent()

	j.send("<presence to='romeo@localhost/orchard'/>", "<presence/>")
	r.take()
	withdraw()
	r.gets() // he sees broadcast presence now
	j.close()
	w.sent("<presence from='juliet@localhost/balcony' to='other@chat.example/juliet' type='unavailable'/>")
}

type blocked struct{ pair string }

func (b blocked) Blocks(_ context.Context, owner, contact jid.JID) (bool, error) {
	return b.pair == owner.String()+" "+contact.String(), nil
}

// RFC 6121 §2.6.3: pushes occur in the order of modification, to each interested resource, whichever sessions make the changes at once.
func TestPushesOfSimultaneousChangesAreInOrder(t *testing.T) {
	w := newWorld(t)
	var clients []*client
	for i := range 4 {
		clients = append(clients, w.online(fmt.Sprintf("juliet@localhost/r%d", i)))
	}
	for _, c := range clients {
		c.take()
	}
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := range 20 {
				c.send(fmt.Sprintf("<iq type='set' id='s'><query xmlns='jabber:iq:roster'><item jid='c%d@localhost' name='%d %d'/></query></iq>", n%5, i, n),
					fmt.Sprintf("<presence type='subscribe' to='c%d@localhost'/>", n%5), fmt.Sprintf("<presence type='unsubscribe' to='c%d@localhost'/>", n%5))
			}
		}()
	}
	wg.Wait()
	for _, c := range clients {
		last := int64(0)
		for _, s := range c.take() {
			p, ok := s.Child(roster.NS, "query")
			if !ok || s.Type != "set" {
				continue
			}
			var v int64
			if _, err := fmt.Sscan(p.Attr("ver"), &v); err != nil || v <= last {
				t.Fatalf("%s got version %q after %d", c.s.JID(), p.Attr("ver"), last)
			}
			last = v
		}
		if _, now, err := w.db.Roster(w.ctx, jid.MustParse("juliet@localhost")); err != nil || now != last {
			t.Errorf("%s is at version %d, the roster at %d (%v)", c.s.JID(), last, now, err)
		}
	}
}

// Whatever accounts do to each other: the rosters agree, the cache agrees with the store, and what clients were pushed is the roster.
func TestAccountsAndClientsAgree(t *testing.T) {
	names := []string{"juliet@localhost", "romeo@localhost", "nurse@localhost"}
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		clients := make([]*client, len(names))
		seen := make([]map[string]string, len(names)) // what each client knows of its roster
		for i, n := range names {
			w.account(n)
			clients[i] = w.online(n + "/a")
			seen[i] = make(map[string]string)
		}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			a := rapid.IntRange(0, 2).Draw(rt, "who")
			b := rapid.IntRange(1, 2).Draw(rt, "whom")
			to := names[(a+b)%3]
			switch what := rapid.SampledFrom([]string{"subscribe", "unsubscribe", "subscribed", "unsubscribed", "remove", "set", "login"}).Draw(rt, "what"); what {
			case "remove":
				clients[a].send("<iq type='set' id='s'><query xmlns='jabber:iq:roster'><item jid='" + to + "' subscription='remove'/></query></iq>")
			case "set":
				clients[a].send("<iq type='set' id='s'><query xmlns='jabber:iq:roster'><item jid='" + to + "' name='n'/></query></iq>")
			case "login":
				clients[a].send("<presence type='unavailable'/>", "<presence/>")
			default:
				clients[a].send("<presence type='" + what + "' to='" + to + "'/>")
			}
			for i, c := range clients {
				for _, s := range c.take() {
					if q, ok := s.Child(roster.NS, "query"); ok && s.Type == "set" {
						e, err := q.Element()
						if err != nil {
							rt.Fatal(err)
						}
						item := e.Children[0].String()
						j := e.Children[0].Attrs[0].Value
						seen[i][j] = item
						if strings.Contains(item, "'remove'") {
							delete(seen[i], j)
						}
					}
				}
			}
		}
		for i, n := range names {
			items, _, err := w.db.Roster(w.ctx, jid.MustParse(n))
			if err != nil {
				rt.Fatal(err)
			}
			listed := 0
			for _, it := range items {
				other := w.item(it.Contact.String(), n)
				if it.To != other.From || it.From != other.To || it.Ask != other.In || it.In != other.Ask {
					rt.Fatalf("%s has %+v, %s has %+v", n, it, it.Contact, other)
				}
				to, from, err := w.roster.Subscribed(w.ctx, jid.MustParse(n), it.Contact)
				if err != nil || to != it.To || from != it.From {
					rt.Fatalf("the cache says %v %v (%v) of %+v", to, from, err, it)
				}
				if it.Listed {
					listed++
					want := elementOf(t, it.Element().String())
					got, ok := seen[i][it.Contact.String()]
					if !ok || differ(want, elementOf(t, got)) != "" {
						rt.Fatalf("%s's client knows %s, the roster has %s", n, got, want)
					}
				}
			}
			if listed != len(seen[i]) {
				rt.Fatalf("%s's client knows %v, the roster has %d items", n, seen[i], listed)
			}
			subscribers, err := w.roster.Subscribers(w.ctx, jid.MustParse(n))
			if err != nil || len(subscribers) != len(slices.DeleteFunc(items, func(it roster.Item) bool { return !it.From })) {
				rt.Fatalf("subscribers of %s: %v (%v)", n, subscribers, err)
			}
		}
	})
}

// Accounts that change the same subscriptions at the same time, from both sides, end with rosters that agree once one of them says what
// it wants; nothing waits for ever, and nobody is seen against the owner's last word.
func TestSimultaneousChangesFromBothSides(t *testing.T) {
	w := newWorld(t)
	a := []*client{w.online("juliet@localhost/a"), w.online("juliet@localhost/b")}
	b := []*client{w.online("romeo@localhost/a"), w.online("romeo@localhost/b")}
	var wg sync.WaitGroup
	for _, side := range []struct {
		clients []*client
		peer    string
	}{{a, "romeo@localhost"}, {b, "juliet@localhost"}} {
		for i, c := range side.clients {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for n := range 30 {
					typ := []string{"subscribe", "subscribed", "unsubscribe", "unsubscribed"}[(n+i)%4]
					c.send("<presence type='" + typ + "' to='" + side.peer + "'/>")
				}
			}()
		}
	}
	wg.Wait()
	a[0].send("<presence type='unsubscribed' to='romeo@localhost'/>", "<presence type='unsubscribe' to='romeo@localhost'/>")
	b[0].send("<presence type='unsubscribed' to='juliet@localhost'/>", "<presence type='unsubscribe' to='juliet@localhost'/>")
	for _, p := range [][2]string{{"juliet@localhost", "romeo@localhost"}, {"romeo@localhost", "juliet@localhost"}} {
		if it := w.item(p[0], p[1]); it.To || it.From || it.Ask || it.In {
			t.Errorf("%s still has %+v", p[0], it)
		}
	}
}
