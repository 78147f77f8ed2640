package storagetest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"balcony/roster"
	"balcony/storage"

	"mellium.im/xmpp/jid"
	"pgregory.net/rapid"
)

func contact(i int) jid.JID { return jid.MustParse(fmt.Sprintf("contact%d@capulet.example", i)) }

func set(t testing.TB, db *storage.DB, owner, contact jid.JID, change func(*roster.Item)) roster.Item {
	t.Helper()
	item, err := db.UpdateItem(withLimit(t), owner, contact, func(i *roster.Item) bool { change(i); return true })
	must(t, err)
	return item
}

func getRoster(t testing.TB, db *storage.DB, owner jid.JID) ([]roster.Item, int64) {
	t.Helper()
	items, v, err := db.Roster(withLimit(t), owner)
	must(t, err)
	return items, v
}

func testRoster(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j := account(t, db)
	items, v0 := getRoster(t, db, j)
	equal(t, "new roster", items, nil)

	// Every field comes back, whatever is in it.
	full := roster.Item{
		Contact: jid.MustParse("ромео@пример.example"),
		Name:    "Romeo 'the \"lover\"' <&>\u2028",
		Groups:  []string{"", "Friends, “close”", "a\nb\tc", "[\"]", "\U0001F339"},
		To:      true, From: true, Ask: true, In: true, Approved: true, Listed: true,
		Request: []byte("<presence type='subscribe'><nick>\xf0\x9f\x8c\xb9</nick></presence>"),
		Version: v0 + 1,
	}
	got := set(t, db, j, full.Contact, func(i *roster.Item) {
		equal(t, "what change sees at first", *i, roster.Item{Contact: full.Contact})
		contact := i.Contact
		*i = full
		i.Contact = contact
	})
	equal(t, "written item", got, full)
	items, v := getRoster(t, db, j)
	equal(t, "roster", items, []roster.Item{full})
	equal(t, "version", v, v0+1)
	item, found, err := db.RosterItem(ctx, j, full.Contact)
	must(t, err)
	equal(t, "item", item, full)
	equal(t, "found", found, true)

	// The resource of a contact does not count, and no item is another account's.
	withResource, err := full.Contact.WithResource("orchard")
	must(t, err)
	item, found, err = db.RosterItem(ctx, j, withResource)
	must(t, err)
	equal(t, "item by full JID", item, full)
	equal(t, "found by full JID", found, true)
	other := account(t, db)
	_, found, err = db.RosterItem(ctx, other, full.Contact)
	must(t, err)
	equal(t, "found in another roster", found, false)

	// Nothing is written when change says so.
	item, err = db.UpdateItem(ctx, j, full.Contact, func(i *roster.Item) bool {
		equal(t, "what change sees", *i, full)
		i.Name, i.Listed = "changed", false
		i.Groups[0] = "changed"
		return false
	})
	must(t, err)
	equal(t, "unchanged item", item, full)
	items, v = getRoster(t, db, j)
	equal(t, "unchanged roster", items, []roster.Item{full})
	equal(t, "unchanged version", v, v0+1)

	// A contact of the largest size that RFC 7622 allows.
	long := jid.MustParse(strings.Repeat("l", 1023) + "@" + strings.Repeat(strings.Repeat("d", 62)+".", 16) + "example")
	set(t, db, j, long, func(i *roster.Item) { i.Listed = true })
	_, found, err = db.RosterItem(ctx, j, long)
	must(t, err)
	equal(t, "long contact found", found, true)
}

func testRosterEmptyItem(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j := account(t, db)
	_, v0 := getRoster(t, db, j)
	for _, c := range []struct {
		name string
		set  func(*roster.Item)
	}{
		{"To", func(i *roster.Item) { i.To = true }},
		{"From", func(i *roster.Item) { i.From = true }},
		{"Ask", func(i *roster.Item) { i.Ask = true }},
		{"In", func(i *roster.Item) { i.In = true; i.Request = []byte("<presence/>") }},
		{"Approved", func(i *roster.Item) { i.Approved = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			item := set(t, db, j, contact(1), c.set)
			want := roster.Item{Contact: contact(1), Version: v0}
			c.set(&want)
			equal(t, "item", item, want)
			items, v := getRoster(t, db, j)
			equal(t, "roster", items, []roster.Item{want})
			equal(t, "version after a change that clients do not see", v, v0)
			set(t, db, j, contact(1), func(i *roster.Item) { *i = roster.Item{Name: "only a name", Contact: i.Contact} })
			items, v = getRoster(t, db, j)
			equal(t, "roster", items, nil)
			equal(t, "version", v, v0)
			_, found, err := db.RosterItem(ctx, j, contact(1))
			must(t, err)
			equal(t, "found", found, false)
		})
	}
	set(t, db, j, contact(2), func(*roster.Item) {})
	items, _ := getRoster(t, db, j)
	equal(t, "roster after an item of nothing", items, nil)
}

// since checks RosterSince and returns the contacts in the order of their change; removed ones with a minus.
func since(t testing.TB, db *storage.DB, owner jid.JID, version int64) (contacts []string, ok bool) {
	t.Helper()
	items, now, ok, err := db.RosterSince(withLimit(t), owner, version)
	must(t, err)
	_, v := getRoster(t, db, owner)
	equal(t, "version of RosterSince", now, v)
	last := version
	for _, i := range items {
		if i.Version <= last || i.Version > now {
			t.Errorf("item of version %d after %d in changes since %d, now %d", i.Version, last, version, now)
		}
		last = i.Version
		name := i.Contact.Localpart()
		if i.Removed {
			equal(t, "removed item", i, roster.Item{Contact: i.Contact, Version: i.Version, Removed: true})
			name = "-" + name
		}
		contacts = append(contacts, name)
	}
	return contacts, ok
}

// testRosterVersions: RFC 6121 §2.6.3.
func testRosterVersions(t *testing.T, db *storage.DB) {
	j := account(t, db)
	_, v0 := getRoster(t, db, j)
	step := func(i int, change func(*roster.Item)) int64 {
		t.Helper()
		set(t, db, j, contact(i), change)
		_, v := getRoster(t, db, j)
		return v
	}
	listed := func(i *roster.Item) { i.Listed = true }
	v1 := step(1, listed)
	v2 := step(2, listed)
	v3 := step(3, listed)
	equal(t, "versions", []int64{v1, v2, v3}, []int64{v0 + 1, v0 + 2, v0 + 3})
	for name, change := range map[string]func(*roster.Item){
		"name":     func(i *roster.Item) { i.Name += "x" },
		"groups":   func(i *roster.Item) { i.Groups = append(i.Groups, "g") },
		"to":       func(i *roster.Item) { i.To = !i.To },
		"from":     func(i *roster.Item) { i.From = !i.From },
		"ask":      func(i *roster.Item) { i.Ask = !i.Ask },
		"approved": func(i *roster.Item) { i.Approved = !i.Approved },
	} {
		v := step(1, change)
		v3++
		equal(t, "version after a change of "+name, v, v3)
	}
	for name, change := range map[string]func(*roster.Item){
		"nothing": func(*roster.Item) {},
		"in":      func(i *roster.Item) { i.In, i.Request = true, []byte("<presence type='subscribe'/>") },
		"request": func(i *roster.Item) { i.Request = []byte("<presence type='subscribe' id='1'/>") },
	} {
		equal(t, "version after a change of "+name, step(2, change), v3)
	}
	v := step(4, func(i *roster.Item) { i.In = true }) // not listed: clients do not see it
	equal(t, "version after a request", v, v3)

	check := func(version int64, want ...string) {
		t.Helper()
		got, ok := since(t, db, j, version)
		if !ok {
			t.Errorf("the changes since %d are not known", version)
		}
		equal(t, fmt.Sprintf("changes since v0+%d", version-v0), got, want)
	}
	check(v3)
	check(v2, "contact3", "contact1")
	check(v0, "contact2", "contact3", "contact1")

	// A removal is told, also when something hidden stays (the request of contact2), and until the item comes back.
	v4 := step(3, func(i *roster.Item) { *i = roster.Item{Contact: i.Contact} })
	v5 := step(2, func(i *roster.Item) { i.Listed = false })
	check(v3, "-contact3", "-contact2")
	check(v4, "-contact2")
	check(v0, "contact1", "-contact3", "-contact2")
	equal(t, "version after a hidden change of a removed item", step(2, func(i *roster.Item) { i.Approved = true }), v5)
	check(v4, "-contact2")
	step(3, listed)
	check(v3, "-contact2", "contact3")
	item, found, err := db.RosterItem(withLimit(t), j, contact(2))
	must(t, err)
	if !found || item.Listed || !item.In || !item.Approved || item.Removed {
		t.Errorf("hidden item is %+v, %t", item, found)
	}

	// Versions that this roster never had.
	for _, version := range []int64{v0 - 1, 0, -1, v5 + 2, 1 << 62} {
		if got, ok := since(t, db, j, version); ok {
			t.Errorf("changes since %d, which is not one of ours: %v", version, got)
		}
	}
}

func testRosterVersionsOfALaterAccount(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j := account(t, db)
	for i := range 5 {
		set(t, db, j, contact(i), func(i *roster.Item) { i.Listed = true })
	}
	_, cached := getRoster(t, db, j)
	must(t, db.DeleteAccount(ctx, j))
	must(t, db.CreateAccount(ctx, j, nil))
	for i := range 10 {
		if got, ok := since(t, db, j, cached); ok {
			t.Fatalf("changes since a version of the deleted account: %v", got)
		}
		set(t, db, j, contact(i), func(i *roster.Item) { i.Listed = true })
	}
}

func testRosterForgets(t *testing.T, db *storage.DB) {
	j := account(t, db)
	_, v0 := getRoster(t, db, j)
	var versions []int64
	n := 2 * Limits.RosterRemoved
	for i := range n {
		set(t, db, j, contact(i), func(i *roster.Item) { i.Listed = true; i.In = i.Contact.Equal(contact(0)) })
		set(t, db, j, contact(i), func(i *roster.Item) { i.Listed = false })
		_, v := getRoster(t, db, j)
		versions = append(versions, v)
	}
	if _, ok := since(t, db, j, v0); ok {
		t.Error("the store remembers every removal")
	}
	known := 0
	for i, v := range versions {
		got, ok := since(t, db, j, v)
		if !ok {
			if known > 0 {
				t.Errorf("version %d is unknown, an older one is not", i)
			}
			continue
		}
		known++
		equal(t, "number of removals since", len(got), n-1-i)
	}
	if known < Limits.RosterRemoved/2 || known > Limits.RosterRemoved+1 {
		t.Errorf("%d of %d versions are known, the bound is %d", known, n, Limits.RosterRemoved)
	}
	// The hidden rest of a forgotten item is still there.
	items, _ := getRoster(t, db, j)
	if len(items) != 1 || !items[0].In || !items[0].Contact.Equal(contact(0)) {
		t.Errorf("hidden items: %v", items)
	}
}

// testRosterOwners: whatever state is between an owner and a contact, and no state at all, in pages.
func testRosterOwners(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	wanted, other := jid.MustParse("owned@capulet.example"), jid.MustParse("owned@capulet.example.org")
	owners := func(contact jid.JID, limit int) (list []string) {
		t.Helper()
		for after := int64(0); ; {
			page, next, err := db.RosterOwners(ctx, contact, after, limit)
			must(t, err)
			if len(page) > limit || (len(page) == 0) != (next == 0) || next != 0 && next <= after {
				t.Fatalf("a page of %d owners after %d, next %d", len(page), after, next)
			}
			for _, o := range page {
				list = append(list, o.String())
			}
			if after = next; next == 0 {
				return list
			}
		}
	}
	equal(t, "owners of nobody", owners(wanted, 2), nil)
	var want []string
	for _, c := range []struct {
		found bool
		set   func(*roster.Item)
	}{
		{true, func(i *roster.Item) { i.To, i.Listed = true, true }},
		{true, func(i *roster.Item) { i.From, i.Listed = true, true }},
		{false, func(i *roster.Item) { i.Listed = true }},
		{true, func(i *roster.Item) { i.Ask, i.Listed = true, true }},
		{true, func(i *roster.Item) { i.In = true }},
		{true, func(i *roster.Item) { i.Approved = true }},
	} {
		j := account(t, db)
		set(t, db, j, wanted, c.set)
		set(t, db, j, other, func(i *roster.Item) { i.From = true })
		if c.found {
			want = append(want, j.String())
		}
	}
	// One that was and is no more, with a row that tells RosterSince of it.
	gone := account(t, db)
	set(t, db, gone, wanted, func(i *roster.Item) { i.To, i.Listed = true, true })
	set(t, db, gone, wanted, func(i *roster.Item) { i.To, i.Listed = false, false })
	for _, limit := range []int{1, 2, 5, 100} {
		equal(t, "owners", owners(wanted, limit), want)
	}
	withResource, err := wanted.WithResource("orchard")
	must(t, err)
	equal(t, "owners by full JID", owners(withResource, 100), want)
	first := jid.MustParse(want[0])
	must(t, db.DeleteAccount(ctx, first))
	equal(t, "owners after the deletion of one", owners(wanted, 3), want[1:])
}

func testRosterBounds(t *testing.T, db *storage.DB) {
	ctx := withLimit(t)
	j := account(t, db)
	try := func(i int, change func(*roster.Item)) error {
		_, err := db.UpdateItem(ctx, j, contact(i), func(i *roster.Item) bool { change(i); return true })
		return err
	}
	listed := func(i *roster.Item) { i.Listed = true }
	in := func(i *roster.Item) { i.In, i.Request = true, bytes.Repeat([]byte("r"), Limits.RequestBytes) }
	for i := range Limits.RosterItems {
		must(t, try(i, listed))
	}
	for i := range Limits.RosterRequests {
		must(t, try(100+i, in))
	}
	before, v := getRoster(t, db, j)
	wantErr(t, try(99, listed), roster.ErrFull)
	wantErr(t, try(100, listed), roster.ErrFull) // a hidden item becomes a listed one
	wantErr(t, try(99, in), roster.ErrFull)
	wantErr(t, try(1, in), roster.ErrFull) // a listed item gets a request
	wantErr(t, try(100, func(i *roster.Item) { i.Request = append(i.Request, 'r') }), roster.ErrFull)
	after, w := getRoster(t, db, j)
	equal(t, "roster after refusals", after, before)
	equal(t, "version after refusals", w, v)
	must(t, try(1, func(i *roster.Item) { i.Name = "known" }))
	must(t, try(100, func(i *roster.Item) { i.Request = []byte("another") }))
	must(t, try(99, func(i *roster.Item) { i.From = true })) // neither listed nor a request

	must(t, try(1, func(i *roster.Item) { *i = roster.Item{} }))
	must(t, try(99, listed))
	must(t, try(100, func(i *roster.Item) { i.In = false }))
	must(t, try(98, in))
	wantErr(t, try(1, listed), roster.ErrFull)
	wantErr(t, try(97, in), roster.ErrFull)
}

func testRosterConcurrent(t *testing.T, db *storage.DB) {
	j := account(t, db)
	_, v0 := getRoster(t, db, j)
	var wg sync.WaitGroup
	const writers, updates = 8, 10
	for range writers {
		wg.Go(func() {
			for range updates {
				if _, err := db.UpdateItem(withLimit(t), j, contact(0), func(i *roster.Item) bool {
					i.Listed = true
					i.Name += "x"
					return true
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	items, v := getRoster(t, db, j)
	equal(t, "name", items[0].Name, strings.Repeat("x", writers*updates))
	equal(t, "version", v, v0+writers*updates)
}

// testRosterModel compares random updates with a model of what roster.Store says.
func testRosterModel(t *testing.T, db *storage.DB) {
	rapid.Check(t, func(r *rapid.T) {
		j := account(t, db)
		_, first := getRoster(t, db, j)
		model := map[string]roster.Item{}
		seen := map[int64]map[string]roster.Item{first: {}} // what a client has at each version
		version := first
		for range rapid.IntRange(1, 15).Draw(r, "updates") {
			c := contact(rapid.IntRange(0, 3).Draw(r, "contact"))
			var next roster.Item
			flags := rapid.IntRange(0, 63).Draw(r, "flags")
			next.To, next.From, next.Ask = flags&1 != 0, flags&2 != 0, flags&4 != 0
			next.In, next.Approved, next.Listed = flags&8 != 0, flags&16 != 0, flags&32 != 0
			next.Name = rapid.SampledFrom([]string{"", "A", "B"}).Draw(r, "name")
			next.Groups = rapid.SampledFrom([][]string{nil, {"g"}, {"g", "h"}}).Draw(r, "groups")
			if next.In {
				next.Request = []byte("<presence/>")
			}
			write := rapid.IntRange(0, 9).Draw(r, "write") > 0
			before, existed := model[c.String()]
			got, err := db.UpdateItem(withLimit(t), j, c, func(i *roster.Item) bool {
				if existed != (i.Version != 0) || i.Name != before.Name || i.Listed != before.Listed {
					r.Errorf("change sees %+v, want %+v", *i, before)
				}
				*i = next
				return write
			})
			if err != nil {
				r.Fatal(err)
			}
			if write {
				next.Contact = c
				visible := before.Listed != next.Listed || next.Listed && (before.Name != next.Name ||
					!slices.Equal(before.Groups, next.Groups) || before.To != next.To || before.From != next.From ||
					before.Ask != next.Ask || before.Approved != next.Approved)
				if visible {
					version++
				}
				if next.To || next.From || next.Ask || next.In || next.Approved || next.Listed {
					model[c.String()] = next
					if got.Name != next.Name || got.To != next.To || got.Listed != next.Listed || !slices.Equal(got.Groups, next.Groups) {
						r.Fatalf("wrote %+v, want %+v", got, next)
					}
					if visible && got.Version != version {
						r.Fatalf("item has version %d, want %d", got.Version, version)
					}
				} else {
					delete(model, c.String())
				}
				client := map[string]roster.Item{}
				for k, i := range model {
					if i.Listed {
						client[k] = i
					}
				}
				seen[version] = client
			}
			items, v := getRoster(t, db, j)
			if v != version || len(items) != len(model) {
				r.Fatalf("version %d with %d items, want %d with %d", v, len(items), version, len(model))
			}
			for _, i := range items {
				want := model[i.Contact.String()]
				want.Version = i.Version
				if fmt.Sprint(i) != fmt.Sprint(want) {
					r.Fatalf("item %+v, want %+v", i, want)
				}
			}
		}
		// A client with any earlier version arrives at what a client with the present one has.
		for from, client := range seen {
			changes, now, ok, err := db.RosterSince(withLimit(t), j, from)
			if err != nil || now != version {
				r.Fatal(now, err)
			}
			if !ok {
				if version-from < int64(Limits.RosterRemoved/2) {
					r.Fatalf("changes since %d of %d are forgotten", from-first, version-first)
				}
				continue
			}
			have := map[string]string{}
			for k, i := range client {
				have[k] = clientSees(i)
			}
			for _, i := range changes {
				if i.Removed {
					delete(have, i.Contact.String())
				} else {
					have[i.Contact.String()] = clientSees(i)
				}
			}
			want := map[string]string{}
			for k, i := range seen[version] {
				want[k] = clientSees(i)
			}
			if fmt.Sprint(have) != fmt.Sprint(want) {
				r.Fatalf("from %d a client gets to %v, want %v", from-first, have, want)
			}
		}
	})
}

func clientSees(i roster.Item) string {
	return fmt.Sprint(i.Name, i.Groups, i.To, i.From, i.Ask, i.Approved)
}
