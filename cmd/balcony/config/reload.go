package config

import (
	"fmt"
	"reflect"
	"slices"
)

// Effect says when a changed key takes effect.
type Effect string

// The effects. What the tag apply of a field says decides; fields without it need a restart.
const (
	Now            Effect = "now"
	NewConnections Effect = "for new connections"
	Restart        Effect = "after a restart"
)

func effectOf(tag reflect.StructTag) Effect {
	switch tag.Get("apply") {
	case "reload":
		return Now
	case "connections":
		return NewConnections
	}
	return Restart
}

// Change is a key whose value differs between two configurations.
type Change struct {
	Key    string // such as "limits.stanza"; domains are named by their names: `domain "example.org".admins`
	Effect Effect
}

// Reload compares the configuration in use with one that was loaded from the changed file. It returns the one to use from now on, which
// has the new values of the keys that can change while the server runs and the old ones of all others, and what has changed.
func (c *Config) Reload(next *Config) (*Config, []Change) {
	merged := *c
	merged.Path, merged.lines = next.Path, next.lines
	merged.Domains = slices.Clone(c.Domains)
	return &merged, merge("", reflect.ValueOf(&merged).Elem(), reflect.ValueOf(next).Elem())
}

// merge puts values of next into now as far as they may change.
func merge(path string, now, next reflect.Value) (changes []Change) {
	for i := range now.NumField() {
		field := now.Type().Field(i)
		name := field.Tag.Get("toml")
		if name == "" || name == "-" {
			continue
		}
		key := extend(path, name)
		old, new := now.Field(i), next.Field(i)
		switch {
		case field.Type == reflect.TypeFor[[]Domain]():
			changes = append(changes, mergeDomains(old.Interface().([]Domain), new.Interface().([]Domain))...)
		case field.Type.Kind() == reflect.Struct:
			changes = append(changes, merge(key, old, new)...)
		case equal(old, new):
		default:
			effect := effectOf(field.Tag)
			if effect != Restart {
				old.Set(new)
			}
			changes = append(changes, Change{key, effect})
		}
	}
	return changes
}

// mergeDomains changes the domains of now that are in next too. Domains come and go with a restart only.
func mergeDomains(now, next []Domain) (changes []Change) {
	index := func(list []Domain, name string) int {
		return slices.IndexFunc(list, func(d Domain) bool { return d.Name == name })
	}
	for i := range now {
		key := fmt.Sprintf("domain %q", now[i].Name)
		if k := index(next, now[i].Name); k >= 0 {
			changes = append(changes, merge(key, reflect.ValueOf(&now[i]).Elem(), reflect.ValueOf(&next[k]).Elem())...)
		} else {
			changes = append(changes, Change{key, Restart})
		}
	}
	for i := range next {
		if k := index(now, next[i].Name); k < 0 || i == 0 && k != 0 { // new, or the default domain from now on
			changes = append(changes, Change{fmt.Sprintf("domain %q", next[i].Name), Restart})
		}
	}
	return changes
}

// equal compares values; an empty list is like none.
func equal(a, b reflect.Value) bool {
	if a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}
