package roster_test

import (
	"fmt"
	"testing"
	"time"

	"balcony/roster"

	"mellium.im/xmpp/jid"
)

// RFC 6121 §4.2.2, §4.3.1, §4.4.2, §4.5.2 with contacts of another server.
func TestPresenceOfContactsElsewhere(t *testing.T) {
	w := newWorld(t)
	w.state("juliet@localhost", "benvolio@example.net", func(it *roster.Item) { it.From = true })
	w.state("juliet@localhost", "mercutio@example.net", func(it *roster.Item) { it.To = true })
	w.state("juliet@localhost", "romeo@example.net", func(it *roster.Item) { it.To, it.From = true, true })
	w.state("juliet@localhost", "tybalt@example.net", func(it *roster.Item) {})
	j := w.bind("juliet@localhost/balcony")
	j.send("<presence id='p1'><show>chat</show></presence>")
	w.sent(
		"<presence id='p1' from='juliet@localhost/balcony' to='benvolio@example.net'><show>chat</show></presence>",
		"<presence id='*' type='probe' from='juliet@localhost' to='mercutio@example.net'/>",
		"<presence id='p1' from='juliet@localhost/balcony' to='romeo@example.net'><show>chat</show></presence>",
		"<presence id='*' type='probe' from='juliet@localhost' to='romeo@example.net'/>")
	j.send("<presence><show>away</show></presence>")
	w.sent(
		"<presence from='juliet@localhost/balcony' to='benvolio@example.net'><show>away</show></presence>",
		"<presence from='juliet@localhost/balcony' to='romeo@example.net'><show>away</show></presence>")
	j.close()
	w.sent(
		"<presence type='unavailable' from='juliet@localhost/balcony' to='benvolio@example.net'/>",
		"<presence type='unavailable' from='juliet@localhost/balcony' to='romeo@example.net'/>")
}

// RFC 6121 §3.1.2, the last paragraph: an unanswered request to another server is repeated when the account comes online.
func TestUnansweredRequestIsRepeated(t *testing.T) {
	w := newWorld(t)
	j := w.online("juliet@localhost/balcony")
	j.send("<presence id='s1' type='subscribe' to='romeo@example.net/orchard'/>")
	w.sent("<presence id='s1' type='subscribe' from='juliet@localhost' to='romeo@example.net'/>")
	chamber := w.online("juliet@localhost/chamber")
	w.sent() // another resource is available
	j.close()
	chamber.close()
	w.online("juliet@localhost/balcony")
	w.sent("<presence id='*' type='subscribe' from='juliet@localhost' to='romeo@example.net'/>")
}

// RFC 6121 §3.1.3, §3.1.5, §3.2.3, §3.3.3: subscription stanzas from another server, whose addresses need not be bare.
func TestSubscriptionFromElsewhere(t *testing.T) {
	w := newWorld(t)
	j := w.online("juliet@localhost/balcony")
	w.arrives("<presence id='s1' type='subscribe' from='romeo@example.net/orchard' to='juliet@localhost/none'><status>hi</status></presence>")
	j.gets("<presence id='s1' type='subscribe' from='romeo@example.net' to='juliet@localhost'><status>hi</status></presence>")
	j.send("<presence id='s2' type='subscribed' to='romeo@example.net'/>", "<presence id='s3' type='subscribe' to='romeo@example.net'/>")
	w.sent(
		"<presence id='s2' type='subscribed' from='juliet@localhost' to='romeo@example.net'/>",
		"<presence from='juliet@localhost/balcony' to='romeo@example.net'/>",
		"<presence id='s3' type='subscribe' from='juliet@localhost' to='romeo@example.net'/>")
	j.take()
	// RFC 6121 §8.5.3.2.2: to a resource that is not there, "subscribed" is ignored.
	w.arrives("<presence id='s4' type='subscribed' from='romeo@example.net' to='juliet@localhost/none'/>")
	j.gets()
	w.arrives("<presence id='s5' type='subscribed' from='romeo@example.net/orchard' to='juliet@localhost'/>")
	j.gets("<presence id='s5' type='subscribed' from='romeo@example.net' to='juliet@localhost'/>",
		"<iq id='*' type='set' to='juliet@localhost/balcony'><query xmlns='jabber:iq:roster' ver='*'><item jid='romeo@example.net' subscription='both'/></query></iq>")
	w.arrives("<presence id='s6' type='unsubscribe' from='romeo@example.net' to='juliet@localhost'/>")
	j.gets("<presence id='s6' type='unsubscribe' from='romeo@example.net' to='juliet@localhost'/>",
		"<iq id='*' type='set' to='juliet@localhost/balcony'><query xmlns='jabber:iq:roster' ver='*'><item jid='romeo@example.net' subscription='to'/></query></iq>")
	w.sent("<presence type='unavailable' from='juliet@localhost/balcony' to='romeo@example.net'/>",
		"<presence id='s6' type='unsubscribed' from='juliet@localhost' to='romeo@example.net'/>")
	// RFC 6121 §4.7.1: an unknown type from elsewhere gets silence, or it would tell that the account exists.
	w.arrives("<presence type='invisible' from='romeo@example.net' to='juliet@localhost'/>")
	w.sent()
	j.gets()
}

// RFC 6121 §4.3.2 for a prober of another server; XEP-0203 for the time when the account left.
func TestProbeFromElsewhere(t *testing.T) {
	w := newWorld(t)
	w.state("juliet@localhost", "romeo@example.net", func(it *roster.Item) { it.From = true })
	w.state("juliet@localhost", "nurse@example.net", func(it *roster.Item) { it.To = true })
	w.state("juliet@localhost", "paris@example.net", func(it *roster.Item) { it.In, it.Request = true, []byte("<presence/>") })
	probe := func(from, to string) {
		w.arrives("<presence id='probe1' type='probe' from='" + from + "' to='" + to + "'/>")
	}
	probe("romeo@example.net", "juliet@localhost")
	w.sent("<presence id='probe1' type='unavailable' from='juliet@localhost' to='romeo@example.net'/>")
	at := time.Date(2002, 9, 10, 23, 41, 7, 0, time.UTC)
	if err := w.db.SetLastActivity(jid.MustParse("juliet@localhost"), at, "").Wait(w.ctx); err != nil {
		t.Fatal(err)
	}
	probe("romeo@example.net", "juliet@localhost")
	w.sent("<presence id='probe1' type='unavailable' from='juliet@localhost' to='romeo@example.net'><delay xmlns='urn:xmpp:delay' stamp='2002-09-10T23:41:07Z'/></presence>")

	w.bind("juliet@localhost/balcony").send("<presence id='pres2'><show>away</show></presence>")
	w.sent("<presence id='*' type='probe' from='juliet@localhost' to='nurse@example.net'/>",
		"<presence id='pres2' from='juliet@localhost/balcony' to='romeo@example.net'><show>away</show></presence>")
	probe("romeo@example.net", "juliet@localhost")
	w.sent("<presence id='pres2' from='juliet@localhost/balcony' to='romeo@example.net'><show>away</show></presence>")
	probe("romeo@example.net", "juliet@localhost/balcony")
	w.sent("<presence id='pres2' from='juliet@localhost/balcony' to='romeo@example.net'/>")
	probe("romeo@example.net/lobby", "juliet@localhost/gone")
	w.sent("<presence id='probe1' type='unavailable' from='juliet@localhost/gone' to='romeo@example.net/lobby'/>")
	// Rule 1 for one who is in the roster; silence for strangers and for one whose request waits.
	probe("nurse@example.net/x", "juliet@localhost/balcony")
	w.sent("<presence id='probe1' type='unsubscribed' from='juliet@localhost' to='nurse@example.net'/>")
	probe("paris@example.net", "juliet@localhost")
	probe("mallory@example.net", "juliet@localhost")
	probe("mallory@example.net", "juliet@localhost/balcony")
	probe("mallory@example.net", "nobody@localhost")
	w.sent()
}

// The rosters disagree after a crash between two writes: who believes to be subscribed learns better at login, as by a probe.
func TestLostSubscriptionIsFoundAtLogin(t *testing.T) {
	w := newWorld(t)
	w.state("romeo@localhost", "juliet@localhost", func(it *roster.Item) { it.To = true })
	w.online("juliet@localhost/balcony")
	r := w.bind("romeo@localhost/orchard")
	r.send("<iq type='get' id='g'><query xmlns='jabber:iq:roster'/></iq>", "<presence/>")
	r.gets("<iq type='result' id='g' from='romeo@localhost' to='romeo@localhost/orchard'><query xmlns='jabber:iq:roster' ver='*'><item jid='juliet@localhost' subscription='to'/></query></iq>",
		"<presence from='romeo@localhost/orchard' to='romeo@localhost'/>",
		"<presence type='unsubscribed' from='juliet@localhost' to='romeo@localhost'/>",
		"<iq id='*' type='set' to='romeo@localhost/orchard'><query xmlns='jabber:iq:roster' ver='*'><item jid='juliet@localhost' subscription='none'/></query></iq>")
}

// RFC 6121 §2.5.2 for every contact of an account that is deleted.
func TestContactsOfDeletedAccount(t *testing.T) {
	w := newWorld(t)
	w.friends("juliet@localhost", "romeo@localhost")
	w.state("juliet@localhost", "benvolio@example.net", func(it *roster.Item) { it.From = true })
	w.state("juliet@localhost", "mercutio@example.net", func(it *roster.Item) { it.Ask = true })
	w.state("juliet@localhost", "nurse@example.net", func(it *roster.Item) {})
	w.state("juliet@localhost", "paris@example.net", func(it *roster.Item) { it.In, it.Request = true, []byte("<presence/>") })
	r := w.online("romeo@localhost/orchard")
	w.bind("juliet@localhost/balcony").send("<presence/>")
	r.take()
	w.sent("<presence from='juliet@localhost/balcony' to='benvolio@example.net'/>",
		"<presence id='*' type='subscribe' from='juliet@localhost' to='mercutio@example.net'/>")
	for _, h := range w.router.Registry().DeletedHooks {
		h(w.ctx, jid.MustParse("juliet@localhost"))
	}
	w.sent("<presence type='unavailable' from='juliet@localhost/balcony' to='benvolio@example.net'/>",
		"<presence id='*' type='unsubscribed' from='juliet@localhost' to='benvolio@example.net'/>",
		"<presence id='*' type='unsubscribe' from='juliet@localhost' to='mercutio@example.net'/>",
		"<presence id='*' type='unsubscribed' from='juliet@localhost' to='paris@example.net'/>")
	r.gets("<presence id='*' type='unsubscribe' from='juliet@localhost' to='romeo@localhost'/>",
		"<iq id='*' type='set' to='romeo@localhost/orchard'><query xmlns='jabber:iq:roster' ver='*'><item jid='juliet@localhost' subscription='to'/></query></iq>",
		"<presence type='unavailable' from='juliet@localhost/balcony' to='romeo@localhost'/>",
		"<presence id='*' type='unsubscribed' from='juliet@localhost' to='romeo@localhost'/>",
		"<iq id='*' type='set' to='romeo@localhost/orchard'><query xmlns='jabber:iq:roster' ver='*'><item jid='juliet@localhost' subscription='none'/></query></iq>")
	if it := w.item("romeo@localhost", "juliet@localhost"); it.To || it.From {
		t.Errorf("romeo's roster still has %+v", it)
	}
}

// An account that gets the name of a deleted one inherits nothing, even while sessions of the old one are still there.
func TestNameOfDeletedAccountInheritsNothing(t *testing.T) {
	w := newWorld(t)
	w.friends("juliet@localhost", "romeo@localhost")
	r, old := w.online("romeo@localhost/orchard"), w.online("juliet@localhost/old")
	juliet := jid.MustParse("juliet@localhost")
	for _, h := range w.router.Registry().DeletedHooks {
		h(w.ctx, juliet)
	}
	if err := w.db.DeleteAccount(w.ctx, juliet); err != nil {
		t.Fatal(err)
	}
	w.router.Forget(juliet)
	r.take()
	j := w.online("juliet@localhost/new")
	old.send("<presence><show>away</show></presence>")
	old.close()
	j.send("<presence><show>xa</show></presence>")
	r.gets()
	j.take()
	r.send("<presence><show>dnd</show></presence>")
	j.gets()
	j.close()
	if w.roster.Cached(juliet) {
		t.Error("juliet is cached after her last session")
	}
}

// Whatever other rosters say of an account ends with it, also where its own roster does not agree, or its contact blocks it. Owners that
// are online are told.
func TestOtherRostersForgetDeletedAccount(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(*roster.Item)
		push bool
	}{
		{"to", func(it *roster.Item) { it.To = true }, true},
		{"from", func(it *roster.Item) { it.From = true }, true},
		{"both", func(it *roster.Item) { it.To, it.From = true, true }, true},
		{"pending out", func(it *roster.Item) { it.Ask = true }, true},
		{"pending in", func(it *roster.Item) { it.In, it.Listed, it.Request = true, false, []byte("<presence/>") }, false},
		{"approved", func(it *roster.Item) { it.Approved = true }, true},
		{"approved and to", func(it *roster.Item) { it.To, it.Approved = true, true }, true},
		{"nothing", func(*roster.Item) {}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			romeo := w.account("romeo@localhost")
			for _, owner := range []string{"juliet@localhost", "nurse@localhost"} {
				w.state(owner, "romeo@localhost", tt.set)
				w.state(owner, "mercutio@example.net", tt.set)
			}
			w.roster.UseBlocking(blocked{"juliet@localhost romeo@localhost"})
			j := w.online("juliet@localhost/balcony") // the nurse is offline
			for _, h := range w.router.Registry().DeletedHooks {
				h(w.ctx, romeo)
			}
			if tt.push {
				j.gets("<iq id='*' type='set' to='juliet@localhost/balcony'><query xmlns='jabber:iq:roster' ver='*'><item jid='romeo@localhost' subscription='none'/></query></iq>")
			} else {
				j.gets()
			}
			for _, owner := range []string{"juliet@localhost", "nurse@localhost"} {
				if s := w.item(owner, "romeo@localhost").State(); s != roster.None {
					t.Errorf("state %d is left in the roster of %s", s, owner)
				}
				want := roster.Item{Listed: true}
				tt.set(&want)
				if s := w.item(owner, "mercutio@example.net").State(); s != want.State() {
					t.Errorf("state %d with another contact of %s", s, owner)
				}
				if _, from, err := w.roster.Subscribed(w.ctx, jid.MustParse(owner), romeo); from || err != nil {
					t.Errorf("%s still shows romeo presence: %v", owner, err)
				}
			}
		})
	}
}

// More rosters than are looked up at a time.
func TestManyRostersForgetDeletedAccount(t *testing.T) {
	w := newWorld(t)
	romeo := w.account("romeo@localhost")
	const owners = 250
	for i := range owners {
		w.state(fmt.Sprintf("u%d@localhost", i), "romeo@localhost", func(it *roster.Item) { it.Approved = true })
	}
	for _, h := range w.router.Registry().DeletedHooks {
		h(w.ctx, romeo)
	}
	for i := range owners {
		if it := w.item(fmt.Sprintf("u%d@localhost", i), "romeo@localhost"); it.Approved {
			t.Fatalf("u%d still has it: %+v", i, it)
		}
	}
}
