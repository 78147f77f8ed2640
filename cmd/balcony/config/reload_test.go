package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestReloadTakesWhatMayChange(t *testing.T) {
	old := Default()
	old.Domains = []Domain{{Name: "a.test", Registration: Closed}, {Name: "b.test", Registration: Closed}, {Name: "c.test", Registration: Closed}}
	next := Default()
	next.Path = "new.toml"
	next.Data = "elsewhere"
	next.Domains = []Domain{
		{Name: "b.test", Registration: Open, Admins: []string{"x@b.test"}, Contact: Contact{Abuse: []string{"mailto:abuse@b.test"}}},
		{Name: "a.test", Registration: Closed, Certificate: "c.pem", Key: "k.pem", Admins: []string{}},
		{Name: "d.test", Registration: Closed},
	}
	next.Listen.HTTP = nil
	next.Storage.DSN = "x"
	next.TLS.CA = []string{"ca.pem"}
	next.Components = []Component{{Name: "g.test", Secret: "hunter2"}}
	next.Limits.Stanza, next.Limits.RosterItems = 20000, 7
	next.Log = Log{Level: "debug", Format: "json"}

	got, changes := old.Reload(next)
	want := Default()
	want.Path = "new.toml"
	want.Domains = []Domain{next.Domains[1], next.Domains[0], old.Domains[2]}
	want.TLS.CA = []string{"ca.pem"}
	want.Limits.Stanza = 20000
	want.Log.Level = "debug"
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Config{}), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	wantChanges := []Change{
		{"data", Restart},
		{`domain "a.test".certificate`, Now},
		{`domain "a.test".key`, Now},
		{`domain "b.test".registration`, Now},
		{`domain "b.test".admins`, Now},
		{`domain "b.test".contact.abuse`, Now},
		{`domain "c.test"`, Restart},
		{`domain "b.test"`, Restart}, // it would be the default domain
		{`domain "d.test"`, Restart},
		{"listen.http", Restart},
		{"storage.dsn", Restart},
		{"tls.ca", Now},
		{"component", Restart},
		{"limits.stanza", NewConnections},
		{"limits.roster_items", Restart},
		{"log.level", Now},
		{"log.format", Restart},
	}
	if diff := cmp.Diff(wantChanges, changes); diff != "" {
		t.Error(diff)
	}
	for _, c := range changes {
		if strings.Contains(c.Key, "hunter2") {
			t.Error("a secret is in the changes")
		}
	}
	if old.Domains[1].Registration != Closed || old.Log.Level != "info" {
		t.Error("the configuration in use was changed")
	}
	// What was not taken is still different the next time.
	if _, again := got.Reload(next); len(again) != 9 {
		t.Errorf("the second time: %v", again)
	}
	if _, none := got.Reload(got); len(none) != 0 {
		t.Errorf("changes without a change: %v", none)
	}
}
