package storagetest

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"balcony/storage"
	"balcony/xmpp/ext/pubsub"

	"mellium.im/xmpp/jid"
	"pgregory.net/rapid"
)

// node is a node of its owner with a configuration in which nothing is as it is by default.
func node(owner jid.JID, name string) pubsub.Node {
	return pubsub.Node{Name: name, Creator: owner.Bare(), Created: when, Config: pubsub.Config{Title: "ä '\"", Access: pubsub.Roster, Groups: []string{"Verona", "ä"},
		PublishModel: pubsub.Subscribers, MaxItems: 7, ItemExpire: 60, MaxPayload: 1000, Persist: true, NodeFull: pubsub.Reject, SendLast: pubsub.OnSub,
		Deliver: true, Notification: "normal"}}
}

func testPubSubNodes(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, other := account(t, db), account(t, db)
	service := jid.MustParse("pubsub.montague.example")
	for _, of := range []jid.JID{j, other, service} {
		_, _, err := db.PubSubNode(ctx, of, "a", j)
		wantErr(t, err, pubsub.ErrNoNode)
		n := node(j, "a")
		must(t, db.CreatePubSubNode(ctx, of, n))
		wantErr(t, db.CreatePubSubNode(ctx, of, n), pubsub.ErrExists)
		got, st, err := db.PubSubNode(ctx, of, "a", jid.MustParse(j.String()+"/resource"))
		must(t, err)
		equal(t, "node", got, n)
		equal(t, "standing", st, pubsub.Standing{Affiliation: pubsub.Owner})
		_, st, err = db.PubSubNode(ctx, of, "a", service)
		must(t, err)
		equal(t, "standing of a stranger", st, pubsub.Standing{})
	}
	long := strings.Repeat("n", 5000)
	must(t, db.CreatePubSubNode(ctx, j, node(j, long)))
	all, err := db.PubSubNodes(ctx, j, other)
	must(t, err)
	equal(t, "nodes", len(all), 2)
	equal(t, "name", all[1].Node.Name, long)

	n := node(j, "a")
	n.Config.Access, n.Config.Title = pubsub.Open, ""
	removed, err := db.ConfigurePubSubNode(ctx, j, "a", n.Config, 5)
	must(t, err)
	equal(t, "removed", removed, nil)
	got, _, err := db.PubSubNode(ctx, j, "a", j)
	must(t, err)
	equal(t, "configured node", got, n)
	got, _, err = db.PubSubNode(ctx, other, "a", j)
	must(t, err)
	equal(t, "node of another account", got, node(j, "a"))

	must(t, db.DeletePubSubNode(ctx, j, "a"))
	wantErr(t, db.DeletePubSubNode(ctx, j, "a"), pubsub.ErrNoNode)
	_, err = db.ConfigurePubSubNode(ctx, j, "a", n.Config, 5)
	wantErr(t, err, pubsub.ErrNoNode)
	_, err = db.PublishPubSubItem(ctx, j, "a", pubsub.Item{ID: "x", Published: when}, 5, false, time.Time{})
	wantErr(t, err, pubsub.ErrNoNode)
	_, err = db.RetractPubSubItem(ctx, j, "a", "x")
	wantErr(t, err, pubsub.ErrNoNode)
	wantErr(t, db.PurgePubSubNode(ctx, j, "a"), pubsub.ErrNoNode)
	wantErr(t, db.SetPubSubAffiliation(ctx, j, "a", other, pubsub.Member), pubsub.ErrNoNode)
	wantErr(t, db.SetPubSubSubscription(ctx, j, "a", pubsub.Subscription{JID: other, State: pubsub.Subscribed}), pubsub.ErrNoNode)
	p, err := db.PubSubItems(ctx, j, "a", pubsub.Query{Max: 10})
	must(t, err)
	equal(t, "items of no node", p, pubsub.Page{})
}

// testPubSubNodePage: nodes come in the order of creation, whatever else was created between them, with the owners where rosters count.
func testPubSubNodePage(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, other := account(t, db), account(t, db)
	service := jid.MustParse("pubsub.pages.example")
	for i, name := range []string{"c", "a", "b", "d"} {
		n := node([]jid.JID{j, other}[i%2], name)
		if name == "b" {
			n.Config.Access = pubsub.Open
		}
		must(t, db.CreatePubSubNode(ctx, service, n))
		must(t, db.CreatePubSubNode(ctx, j, n))
	}
	must(t, db.SetPubSubAffiliation(ctx, service, "a", j, pubsub.Owner))
	must(t, db.SetPubSubAffiliation(ctx, service, "a", jid.MustParse("m@x.example"), pubsub.Member))
	for _, tt := range []struct {
		q    pubsub.NodeQuery
		want string
	}{
		{pubsub.NodeQuery{Max: 10}, "c a b d"},
		{pubsub.NodeQuery{Max: 2}, "c a"},
		{pubsub.NodeQuery{Max: 2, After: "a"}, "b d"},
		{pubsub.NodeQuery{Max: 2, After: "d"}, ""},
		{pubsub.NodeQuery{Max: 2, Last: true}, "d b"},
		{pubsub.NodeQuery{Max: 2, Last: true, Before: "b"}, "a c"},
		{pubsub.NodeQuery{Max: 2, Last: true, Before: "d", After: "a"}, "b"},
	} {
		page, err := db.PubSubNodePage(ctx, service, other, tt.q)
		must(t, err)
		var names []string
		for _, f := range page {
			names = append(names, f.Node.Name)
			want, _, err := db.PubSubNode(ctx, service, f.Node.Name, other)
			must(t, err)
			equal(t, "node", f.Node, want)
			owners := map[string]int{"a": 2, "b": 0, "c": 1, "d": 1}[f.Node.Name]
			equal(t, "owners of "+f.Node.Name, len(f.Owners), owners)
			if f.Node.Name == "a" {
				equal(t, "standing", f.Standing.Affiliation, pubsub.Owner)
			}
		}
		equal(t, fmt.Sprintf("%+v", tt.q), strings.Join(names, " "), tt.want)
	}
	_, err := db.PubSubNodePage(ctx, service, other, pubsub.NodeQuery{Max: 2, After: "none"})
	wantErr(t, err, pubsub.ErrNoNode)
	page, err := db.PubSubNodePage(ctx, jid.MustParse("none.pages.example"), other, pubsub.NodeQuery{Max: 2})
	must(t, err)
	equal(t, "nodes of no service", len(page), 0)
}

func testPubSubItems(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, other := account(t, db), account(t, db)
	must(t, db.CreatePubSubNode(ctx, j, node(j, "a")))
	publish := func(id string, age time.Duration, keep int, reject bool, since time.Time) []string {
		t.Helper()
		removed, err := db.PublishPubSubItem(ctx, j, "a", pubsub.Item{ID: id, Publisher: other, Published: when.Add(-age), Payload: []byte("<" + id + " xmlns='urn:x'>ä</" + id + ">")}, keep, reject, since)
		must(t, err)
		return removed
	}
	list := func() string {
		t.Helper()
		p, err := db.PubSubItems(ctx, j, "a", pubsub.Query{Max: 100})
		must(t, err)
		n, _, err := db.PubSubNode(ctx, j, "a", j)
		must(t, err)
		equal(t, "count", n.Items, len(p.Items))
		return idsOf(p.Items)
	}
	publish("a", 0, 3, false, time.Time{})
	p, err := db.PubSubItems(ctx, j, "a", pubsub.Query{Max: 100})
	must(t, err)
	equal(t, "item", p.Items[0], pubsub.Item{ID: "a", Publisher: other, Published: when, Payload: []byte("<a xmlns='urn:x'>ä</a>")})
	publish("b", 0, 3, false, time.Time{})
	publish("c", 0, 3, false, time.Time{})
	publish("a", 0, 3, false, time.Time{}) // replaced, and now the newest
	equal(t, "items", list(), "b c a")
	equal(t, "removed", publish("d", 0, 3, false, time.Time{}), []string{"b"})
	equal(t, "removed", publish("e", 0, 2, false, time.Time{}), []string{"c", "a"})
	_, err = db.PublishPubSubItem(ctx, j, "a", pubsub.Item{ID: "f", Published: when}, 2, true, time.Time{})
	wantErr(t, err, pubsub.ErrNodeFull)
	publish("d", 0, 2, true, time.Time{}) // is there already
	equal(t, "items", list(), "e d")

	// What has expired goes first, and nobody is told; it is not seen before either.
	publish("old", time.Hour, 10, false, time.Time{})
	publish("new", 0, 10, false, time.Time{})
	p, err = db.PubSubItems(ctx, j, "a", pubsub.Query{Max: 10, Since: when.Add(-time.Minute)})
	must(t, err)
	equal(t, "items that have not expired", idsOf(p.Items), "e d new")
	equal(t, "their count", p.Count, 3)
	p, err = db.PubSubItems(ctx, j, "a", pubsub.Query{IDs: []string{"new", "old", "none", "e"}, Max: 10, Since: when.Add(-time.Minute)})
	must(t, err)
	equal(t, "items by id", idsOf(p.Items), "new e")
	equal(t, "their count", p.Count, 2)

	found, err := db.RetractPubSubItem(ctx, j, "a", "e")
	must(t, err)
	equal(t, "found", found, true)
	found, err = db.RetractPubSubItem(ctx, j, "a", "e")
	must(t, err)
	equal(t, "found again", found, false)
	removed, err := db.ConfigurePubSubNode(ctx, j, "a", node(j, "a").Config, 1)
	must(t, err)
	equal(t, "removed by configuration", removed, []string{"d", "old"})
	must(t, db.PurgePubSubNode(ctx, j, "a"))
	equal(t, "items of a purged node", list(), "")

	// An answer is bounded in bytes, with one item at least.
	for _, id := range []string{"x", "y", "z"} {
		_, err := db.PublishPubSubItem(ctx, j, "a", pubsub.Item{ID: id, Published: when, Payload: []byte(strings.Repeat("p", 1000))}, 10, false, time.Time{})
		must(t, err)
	}
	for bytes, want := range map[int]string{1: "x", 2500: "x y", 1 << 20: "x y z"} {
		p, err := db.PubSubItems(ctx, j, "a", pubsub.Query{Max: 10, Bytes: bytes})
		must(t, err)
		equal(t, "items in some bytes", idsOf(p.Items), want)
		equal(t, "their count", p.Count, 3)
		p, err = db.PubSubItems(ctx, j, "a", pubsub.Query{IDs: []string{"none", "x", "y", "nothing", "z"}, Max: 10, Bytes: bytes})
		must(t, err)
		equal(t, "items by id in some bytes", idsOf(p.Items), want)
		equal(t, "their count", p.Count, 3)
		equal(t, "their first", p.First, 0)
	}
	for _, tt := range []struct {
		after, want string
		max, first  int
		gone        bool
	}{{"", "z x", 2, 0, false}, {"z", "x y", 2, 1, false}, {"none", "x", 1, 1, false}, {"y", "", 5, 0, false}, {"w", "", 5, 0, true}, {"", "", 0, 0, false}} {
		p, err := db.PubSubItems(ctx, j, "a", pubsub.Query{IDs: []string{"z", "none", "x", "y"}, After: tt.after, Max: tt.max})
		must(t, err)
		equal(t, "items by id after "+tt.after, idsOf(p.Items), tt.want)
		equal(t, "all of them", p.Count, 3)
		equal(t, "gone", p.Gone, tt.gone)
		if len(p.Items) > 0 {
			equal(t, "the first", p.First, tt.first)
		}
	}
	p, err = db.PubSubItems(ctx, j, "a", pubsub.Query{Names: true, Max: 2, Index: 1})
	must(t, err)
	equal(t, "names", p.Items, []pubsub.Item{{ID: "y", Published: when}, {ID: "z", Published: when}})
	_, err = db.PublishPubSubItem(ctx, j, "a", pubsub.Item{ID: "empty", Published: when}, 10, false, time.Time{})
	must(t, err)
	p, err = db.PubSubItems(ctx, j, "a", pubsub.Query{IDs: []string{"empty"}, Max: 1})
	must(t, err)
	equal(t, "an item without payload", p.Items, []pubsub.Item{{ID: "empty", Published: when}})
}

func idsOf(items []pubsub.Item) string {
	var ids []string
	for _, it := range items {
		ids = append(ids, it.ID)
	}
	return strings.Join(ids, " ")
}

// testPubSubItemModel compares publishing, retracting and pages with a list.
func testPubSubItemModel(t *testing.T, db *storage.DB) {
	runs := 0
	rapid.Check(t, func(r *rapid.T) {
		ctx := withLimit(t)
		runs++
		service := jid.MustParse(fmt.Sprintf("model%d.montague.example", runs))
		must(t, db.CreatePubSubNode(ctx, service, node(jid.MustParse("romeo@montague.example"), "a")))
		defer func() { must(t, db.DeletePubSubNode(ctx, service, "a")) }()
		var model []string // in the order of publishing
		ids := []string{"a", "b", "c", "d", "e"}
		for range rapid.IntRange(1, 8).Draw(r, "steps") {
			id := rapid.SampledFrom(ids).Draw(r, "id")
			if rapid.IntRange(0, 3).Draw(r, "what") == 0 {
				found, err := db.RetractPubSubItem(ctx, service, "a", id)
				if err != nil || found != slices.Contains(model, id) {
					r.Fatalf("retract %s of %v: %v, %v", id, model, found, err)
				}
				model = slices.DeleteFunc(model, func(s string) bool { return s == id })
				continue
			}
			keep, reject := rapid.IntRange(1, 4).Draw(r, "keep"), rapid.Bool().Draw(r, "reject")
			left := slices.DeleteFunc(slices.Clone(model), func(s string) bool { return s == id })
			over := max(0, len(left)+1-keep)
			removed, err := db.PublishPubSubItem(ctx, service, "a", pubsub.Item{ID: id, Published: when, Payload: []byte(id)}, keep, reject, time.Time{})
			if reject && over > 0 && len(left) == len(model) {
				if err == nil {
					r.Fatalf("a full node took %s: %v", id, model)
				}
				continue
			}
			if reject {
				over = 0
			}
			if err != nil || strings.Join(removed, " ") != strings.Join(left[:over], " ") {
				r.Fatalf("publish %s to %v, keep %d: removed %v, %v", id, model, keep, removed, err)
			}
			model = append(left[over:], id)
		}
		for range 3 {
			q := pubsub.Query{Max: rapid.IntRange(0, 4).Draw(r, "max"), Newest: rapid.Bool().Draw(r, "newest")}
			order := slices.Clone(model)
			if q.Newest {
				slices.Reverse(order)
			}
			from, to, gone := 0, len(order), false
			at := func(id string) int {
				i := slices.Index(order, id)
				gone = gone || i < 0
				return i
			}
			switch rapid.IntRange(0, 4).Draw(r, "how") {
			case 1:
				q.After = rapid.SampledFrom(ids).Draw(r, "after")
				from = at(q.After) + 1
			case 2:
				q.Before, q.Last = rapid.SampledFrom(ids).Draw(r, "before"), true
				to = at(q.Before)
			case 3:
				q.Last = true
			case 4:
				q.Index = rapid.IntRange(0, 4).Draw(r, "index")
				from = min(q.Index, len(order))
			}
			p, err := db.PubSubItems(ctx, service, "a", q)
			if err != nil || p.Gone != gone || p.Count != len(model) {
				r.Fatalf("%+v of %v: %+v, %v", q, model, p, err)
			}
			if gone {
				continue
			}
			want := order[from:to]
			if q.Last {
				want = want[max(0, len(want)-q.Max):]
			} else {
				want = want[:min(q.Max, len(want))]
			}
			if got := idsOf(p.Items); got != strings.Join(want, " ") {
				r.Fatalf("%+v of %v: %s, want %v", q, model, got, want)
			}
			if len(want) > 0 && p.First != slices.Index(order, want[0]) {
				r.Fatalf("%+v of %v: first %d", q, model, p.First)
			}
		}
	})
}

func testPubSubMembers(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j := account(t, db)
	service := jid.MustParse("pubsub.members.example")
	romeo, juliet := jid.MustParse("romeo@montague.example"), jid.MustParse("juliet@capulet.example/balcony")
	must(t, db.CreatePubSubNode(ctx, service, node(j, "a")))
	must(t, db.CreatePubSubNode(ctx, service, node(j, "b")))
	must(t, db.SetPubSubAffiliation(ctx, service, "a", juliet, pubsub.Member))
	must(t, db.SetPubSubAffiliation(ctx, service, "a", romeo, pubsub.Outcast))
	must(t, db.SetPubSubAffiliation(ctx, service, "a", romeo, pubsub.Publisher))
	all, err := db.PubSubAffiliations(ctx, service, "a")
	must(t, err)
	want := []pubsub.Affiliate{{JID: j, Affiliation: pubsub.Owner}, {JID: juliet.Bare(), Affiliation: pubsub.Member}, {JID: romeo, Affiliation: pubsub.Publisher}}
	slices.SortFunc(want, func(a, b pubsub.Affiliate) int { return strings.Compare(a.JID.String(), b.JID.String()) })
	equal(t, "affiliations", all, want)
	// XEP-0060 §8.9.2.4
	wantErr(t, db.SetPubSubAffiliation(ctx, service, "a", j, pubsub.None), pubsub.ErrLast)
	wantErr(t, db.SetPubSubAffiliation(ctx, service, "a", j, pubsub.Member), pubsub.ErrLast)
	must(t, db.SetPubSubAffiliation(ctx, service, "a", romeo, pubsub.Owner))
	must(t, db.SetPubSubAffiliation(ctx, service, "a", j, pubsub.None))
	wantErr(t, db.SetPubSubAffiliation(ctx, service, "a", romeo, pubsub.Outcast), pubsub.ErrLast)

	options := pubsub.Options{Silent: true, Show: []string{"away"}}
	must(t, db.SetPubSubSubscription(ctx, service, "a", pubsub.Subscription{JID: juliet, State: pubsub.Pending}))
	must(t, db.SetPubSubSubscription(ctx, service, "a", pubsub.Subscription{JID: juliet.Bare(), State: pubsub.Subscribed}))
	must(t, db.SetPubSubSubscription(ctx, service, "b", pubsub.Subscription{JID: juliet, State: pubsub.Subscribed, Options: options}))
	list, err := db.PubSubSubscriptions(ctx, service, "a")
	must(t, err)
	equal(t, "subscriptions", list, []pubsub.Subscription{{JID: juliet.Bare(), State: pubsub.Subscribed}, {JID: juliet, State: pubsub.Pending}})
	_, st, err := db.PubSubNode(ctx, service, "a", juliet.Bare())
	must(t, err)
	equal(t, "standing", st, pubsub.Standing{Affiliation: pubsub.Member, Subscription: pubsub.Subscribed})
	affiliations, subscriptions, err := db.PubSubStandings(ctx, service, juliet.Bare())
	must(t, err)
	equal(t, "affiliations of juliet", affiliations, []pubsub.Affiliate{{Node: "a", JID: juliet.Bare(), Affiliation: pubsub.Member}})
	equal(t, "subscriptions of juliet", len(subscriptions), 3)
	equal(t, "the last one", subscriptions[2], pubsub.Subscription{Node: "b", JID: juliet, State: pubsub.Subscribed, Options: options})
	must(t, db.CreatePubSubNode(ctx, j, node(j, "own")))
	must(t, db.SetPubSubSubscription(ctx, j, "own", pubsub.Subscription{JID: juliet, State: pubsub.Subscribed, Options: options}))
	for at, want := range map[string]int{service.String(): 4, "other.members.example": 1} {
		to, err := db.PubSubSubscriptionsOf(ctx, juliet.Bare(), jid.MustParse(at), 10)
		must(t, err)
		equal(t, "subscriptions of juliet at accounts and "+at, len(to), want)
		equal(t, "the one at an account", to[want-1], pubsub.SubscribedTo{Service: j, Subscription: pubsub.Subscription{Node: "own", JID: juliet, State: pubsub.Subscribed, Options: options}})
		if want > 1 {
			equal(t, "the service", to[0].Service, service)
			some, err := db.PubSubSubscriptionsOf(ctx, juliet.Bare(), service, 2)
			must(t, err)
			equal(t, "the first two", some, to[:2])
		}
	}
	must(t, db.SetPubSubSubscription(ctx, service, "a", pubsub.Subscription{JID: juliet.Bare()}))
	must(t, db.SetPubSubSubscription(ctx, service, "a", pubsub.Subscription{JID: juliet.Bare()}))
	list, err = db.PubSubSubscriptions(ctx, service, "a")
	must(t, err)
	equal(t, "subscriptions", list, []pubsub.Subscription{{JID: juliet, State: pubsub.Pending}})
	affiliations, subscriptions, err = db.PubSubStandings(ctx, jid.MustParse("other.members.example"), juliet.Bare())
	must(t, err)
	equal(t, "elsewhere", len(affiliations)+len(subscriptions), 0)
}

func testPubSubBounds(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j, other := account(t, db), account(t, db)
	service := jid.MustParse("pubsub.bounds.example")
	create := func(of, owner jid.JID, i int) error {
		return db.CreatePubSubNode(ctx, of, node(owner, fmt.Sprint("n", i)))
	}
	for i := range Limits.PubSubNodes {
		must(t, create(j, j, i))
		must(t, create(service, j, i))
	}
	wantErr(t, create(j, j, 100), pubsub.ErrMaxNodes)
	wantErr(t, create(service, j, 100), pubsub.ErrMaxNodes) // of this owner
	for i := Limits.PubSubNodes; i < Limits.PubSubServiceNodes; i++ {
		must(t, create(service, other, i))
	}
	wantErr(t, create(service, other, 100), pubsub.ErrMaxNodes)

	put := func(of jid.JID, name, id string, size int) error {
		_, err := db.PublishPubSubItem(ctx, of, name, pubsub.Item{ID: id, Published: when, Payload: []byte(strings.Repeat("x", size))}, 1000, false, time.Time{})
		return err
	}
	for i := range Limits.PubSubItems {
		must(t, put(service, "n0", fmt.Sprint("i", i), 1))
	}
	// XEP-0060 §7.1.2.5 and §7.1.3.4: the bound of the server is the maximum of a node that has no lower one.
	more := pubsub.Item{ID: "more", Published: when}
	_, err := db.PublishPubSubItem(ctx, service, "n0", more, 1000, true, time.Time{})
	wantErr(t, err, pubsub.ErrNodeFull)
	removed, err := db.PublishPubSubItem(ctx, service, "n0", more, 1000, false, time.Time{})
	must(t, err)
	equal(t, "removed at the bound", removed, []string{"i0"})
	must(t, put(service, "n0", "i3", 1))
	// Of an account all nodes count together, of a service each alone.
	must(t, put(j, "n0", "a", Limits.PubSubBytes/2))
	wantErr(t, put(j, "n1", "a", Limits.PubSubBytes/2), pubsub.ErrFull)
	must(t, put(j, "n1", "a", Limits.PubSubBytes/4))
	wantErr(t, put(j, "n0", "a", Limits.PubSubBytes), pubsub.ErrFull)
	p, err := db.PubSubItems(ctx, j, "n0", pubsub.Query{Max: 10})
	must(t, err)
	equal(t, "items after a refusal", len(p.Items[0].Payload), Limits.PubSubBytes/2)
	must(t, put(service, "n1", "a", Limits.PubSubBytes/2))
	must(t, put(service, "n2", "a", Limits.PubSubBytes/2+1000))

	// So do their configurations.
	large := func(name string, size int) pubsub.Node {
		n := node(other, name)
		n.Config.Description = strings.Repeat("d", size)
		return n
	}
	must(t, db.CreatePubSubNode(ctx, other, large("a", Limits.PubSubBytes/3)))
	must(t, db.CreatePubSubNode(ctx, other, large("b", Limits.PubSubBytes/3)))
	wantErr(t, db.CreatePubSubNode(ctx, other, large("c", Limits.PubSubBytes/3)), pubsub.ErrFull)
	wantErr(t, put(other, "a", "a", Limits.PubSubBytes/3), pubsub.ErrFull)
	must(t, put(other, "a", "a", Limits.PubSubBytes/4))
	_, err = db.ConfigurePubSubNode(ctx, other, "b", large("b", Limits.PubSubBytes/2).Config, 5)
	wantErr(t, err, pubsub.ErrFull)
	_, err = db.ConfigurePubSubNode(ctx, other, "b", large("b", 10).Config, 5)
	must(t, err)
	must(t, put(other, "a", "b", Limits.PubSubBytes/4))
	// What is put right in a node is put right where there is no room, too.
	filled := large("c", 10)
	must(t, db.CreatePubSubNode(ctx, other, filled))
	room := sort.Search(Limits.PubSubBytes, func(n int) bool { return put(other, "c", "a", n) != nil })
	must(t, put(other, "c", "a", room-1))
	filled.Config.Access = pubsub.Whitelist
	_, err = db.ConfigurePubSubNode(ctx, other, "c", filled.Config, 5)
	must(t, err)

	for i := range Limits.PubSubAffiliations - 1 { // the owner is one
		must(t, db.SetPubSubAffiliation(ctx, service, "n0", jid.MustParse(fmt.Sprintf("m%d@x.example", i)), pubsub.Member))
	}
	wantErr(t, db.SetPubSubAffiliation(ctx, service, "n0", other, pubsub.Member), pubsub.ErrFull)
	must(t, db.SetPubSubAffiliation(ctx, service, "n0", jid.MustParse("m0@x.example"), pubsub.Publisher))
	subscribe := func(who string) error {
		return db.SetPubSubSubscription(ctx, service, "n0", pubsub.Subscription{JID: jid.MustParse(who), State: pubsub.Subscribed})
	}
	for i := range Limits.PubSubOwnSubscriptions {
		must(t, subscribe(fmt.Sprintf("m@x.example/%d", i)))
	}
	wantErr(t, subscribe("m@x.example"), pubsub.ErrFull)
	for i := Limits.PubSubOwnSubscriptions; i < Limits.PubSubSubscriptions; i++ {
		must(t, subscribe(fmt.Sprintf("m%d@x.example", i)))
	}
	wantErr(t, subscribe("other@x.example"), pubsub.ErrFull)
	must(t, subscribe("m@x.example/0"))
}

// testPubSubForgets: security promise 22, of what an account had at the nodes of others.
func testPubSubForgets(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	gone, stays := account(t, db), account(t, db)
	service := jid.MustParse("pubsub.deletion.example")
	must(t, db.CreatePubSubNode(ctx, service, node(gone, "alone")))
	must(t, db.CreatePubSubNode(ctx, service, node(gone, "shared")))
	must(t, db.SetPubSubAffiliation(ctx, service, "shared", stays, pubsub.Owner))
	for _, of := range []jid.JID{service, stays} {
		must(t, db.CreatePubSubNode(ctx, of, node(stays, "other")))
		must(t, db.SetPubSubAffiliation(ctx, of, "other", gone, pubsub.Publisher))
		must(t, db.SetPubSubSubscription(ctx, of, "other", pubsub.Subscription{JID: jid.MustParse(gone.String() + "/r"), State: pubsub.Subscribed}))
		_, err := db.PublishPubSubItem(ctx, of, "other", pubsub.Item{ID: "a", Publisher: gone, Published: when}, 10, false, time.Time{})
		must(t, err)
	}
	must(t, db.DeleteAccount(ctx, gone))
	_, _, err := db.PubSubNode(ctx, service, "alone", gone)
	wantErr(t, err, pubsub.ErrNoNode)
	for _, of := range []jid.JID{service, stays} {
		affiliations, subscriptions, err := db.PubSubStandings(ctx, of, gone)
		must(t, err)
		equal(t, "standings", len(affiliations)+len(subscriptions), 0)
		p, err := db.PubSubItems(ctx, of, "other", pubsub.Query{Max: 10})
		must(t, err)
		equal(t, "items", p.Items, []pubsub.Item{{ID: "a", Published: when}})
	}
	n, _, err := db.PubSubNode(ctx, service, "shared", stays)
	must(t, err)
	equal(t, "creator", n.Creator, jid.JID{})
}
