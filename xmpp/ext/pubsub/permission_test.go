package pubsub

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The table of XEP-0060 §4.1 as it stands there, with §6.1, §6.5.1 and §8.1.3 for what depends on the models. A cell is what an entity of that affiliation gets
// at a node with that access model, for each relation: "nobody" (none at all), "presence" (subscribed to the owner's presence), "group" (and in a
// roster group of the node), "subscribed" (to the node).
func TestAccess(t *testing.T) {
	relations := map[string]Relation{"nobody": {}, "presence": {Presence: true}, "group": {Presence: true, Group: true}, "subscribed": {Subscribed: true}}
	const (
		ok       = "allowed"
		ask      = "pending"
		no       = "forbidden"
		presence = "presence-subscription-required"
		group    = "not-in-roster-group"
		white    = "closed-node"
		subs     = "not-subscribed"
	)
	names := map[verdict]string{allowed: ok, pending: ask, forbidden: no, presenceRequired: presence, notInGroup: group, closed: white, notSubscribed: subs}
	order := []string{"nobody", "presence", "group", "subscribed"}
	for _, row := range []struct {
		who            Affiliation
		access         AccessModel
		join, retrieve string // one word for all relations, or four in order
	}{
		{None, Open, ok, ok},
		{None, Presence, presence + " " + ok + " " + ok + " " + presence, presence + " " + ok + " " + ok + " " + presence},
		{None, Roster, group + " " + group + " " + ok + " " + group, group + " " + group + " " + ok + " " + group},
		{None, Authorize, ask + " " + ask + " " + ask + " " + ok, subs + " " + subs + " " + subs + " " + ok},
		{None, Whitelist, white, white},
		{Outcast, Open, no, no}, {Outcast, Presence, no, no}, {Outcast, Roster, no, no}, {Outcast, Authorize, no, no}, {Outcast, Whitelist, no, no},
		{Member, Open, ok, ok}, {Member, Presence, ok, ok}, {Member, Roster, ok, ok}, {Member, Authorize, ok, ok}, {Member, Whitelist, ok, ok},
		{PublishOnly, Open, no, no}, {PublishOnly, Presence, no, no}, {PublishOnly, Roster, no, no}, {PublishOnly, Authorize, no, no}, {PublishOnly, Whitelist, no, no},
		{Publisher, Open, ok, ok}, {Publisher, Presence, ok, ok}, {Publisher, Roster, ok, ok}, {Publisher, Authorize, ok, ok}, {Publisher, Whitelist, ok, ok},
		{Owner, Open, ok, ok}, {Owner, Presence, ok, ok}, {Owner, Roster, ok, ok}, {Owner, Authorize, ok, ok}, {Owner, Whitelist, ok, ok},
	} {
		for do, cell := range map[Action]string{Join: row.join, Retrieve: row.retrieve} {
			for i, name := range order {
				want := cell
				if words := strings.Fields(cell); len(words) == 4 {
					want = words[i]
				}
				for _, publish := range []PublishModel{Publishers, Subscribers, Anybody} {
					if got := names[decide(row.who, relations[name], row.access, publish, do)]; got != want {
						t.Errorf("%s, %s, %s, action %d: %s, want %s", row.who, row.access, name, do, got, want)
					}
				}
			}
		}
	}
}

// The other columns of XEP-0060 §4.1: what an entity does to a node, for each publish model. The words stand for nobody in particular, a subscriber,
// and the author of the item.
func TestPrivileges(t *testing.T) {
	relations := []Relation{{}, {Subscribed: true}, {Author: true}}
	for _, row := range []struct {
		who                              Affiliation
		publish                          map[PublishModel]string // y or n for each relation
		retract                          string
		purge, configure, remove, manage bool
	}{
		{None, map[PublishModel]string{Publishers: "nnn", Subscribers: "nyn", Anybody: "yyy"}, "nny", false, false, false, false},
		{Outcast, map[PublishModel]string{Publishers: "nnn", Subscribers: "nnn", Anybody: "nnn"}, "nnn", false, false, false, false},
		{Member, map[PublishModel]string{Publishers: "nnn", Subscribers: "nyn", Anybody: "yyy"}, "nny", false, false, false, false},
		{PublishOnly, map[PublishModel]string{Publishers: "yyy", Subscribers: "yyy", Anybody: "yyy"}, "nny", false, false, false, false},
		{Publisher, map[PublishModel]string{Publishers: "yyy", Subscribers: "yyy", Anybody: "yyy"}, "nny", false, false, false, false},
		{Owner, map[PublishModel]string{Publishers: "yyy", Subscribers: "yyy", Anybody: "yyy"}, "yyy", true, true, true, true},
	} {
		for _, access := range []AccessModel{Open, Presence, Roster, Authorize, Whitelist} {
			for publish, cell := range row.publish {
				for i, r := range relations {
					check := func(do Action, want bool) {
						t.Helper()
						if got := decide(row.who, r, access, publish, do); (got == allowed) != want || got != allowed && got != forbidden {
							t.Errorf("%s, %s, %s, %+v, action %d: %d, want %v", row.who, access, publish, r, do, got, want)
						}
					}
					check(Publish, cell[i] == 'y')
					check(Retract, row.retract[i] == 'y')
					check(Purge, row.purge)
					check(Configure, row.configure)
					check(Delete, row.remove)
					check(Manage, row.manage)
				}
			}
		}
	}
}

// Whatever is asked: an outcast gets nothing, an owner everything, only owners change a node, and a closer relation never takes something away.
func TestPermissionsAreMonotonous(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		access := rapid.SampledFrom([]AccessModel{Open, Presence, Roster, Authorize, Whitelist, "unknown"}).Draw(t, "access")
		publish := rapid.SampledFrom([]PublishModel{Publishers, Subscribers, Anybody, "unknown"}).Draw(t, "publish")
		who, do := Affiliation(rapid.IntRange(0, 7).Draw(t, "affiliation")), Action(rapid.IntRange(0, 9).Draw(t, "action"))
		draw := func(name string) Relation {
			return Relation{Presence: rapid.Bool().Draw(t, name+" presence"), Group: rapid.Bool().Draw(t, name+" group"),
				Subscribed: rapid.Bool().Draw(t, name+" subscribed"), Author: rapid.Bool().Draw(t, name+" author")}
		}
		far, more := draw("far"), draw("more")
		near := Relation{far.Presence || more.Presence, far.Group || more.Group, far.Subscribed || more.Subscribed, far.Author || more.Author}
		a, b := decide(who, far, access, publish, do), decide(who, near, access, publish, do)
		if a == allowed && b != allowed {
			t.Fatalf("%v: %+v may, %+v may not", who, far, near)
		}
		switch {
		case who > Owner || do >= actions || who == Outcast:
			if b != forbidden {
				t.Fatalf("%v does %d", who, do)
			}
		case who == Owner && b != allowed:
			t.Fatalf("an owner may not do %d", do)
		case who != Owner && do >= Purge && b != forbidden:
			t.Fatalf("%v does %d", who, do)
		}
		if access == "unknown" && who == None && (do == Join || do == Retrieve) && b != closed {
			t.Fatalf("an unknown access model lets %v in", who)
		}
	})
}

func TestEveryVerdictHasAnError(t *testing.T) {
	for v := allowed; v <= notSubscribed; v++ {
		if err := v.refusal(); (err == nil) != (v == allowed || v == pending) {
			t.Errorf("%d: %v", v, err)
		}
	}
	if s := fmt.Sprint(Affiliation(99)); s != "none" {
		t.Errorf("an unknown affiliation is %s", s)
	}
}
