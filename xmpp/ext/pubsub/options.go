package pubsub

import (
	"slices"

	"balcony/xmpp"
)

// Options are those of a subscription: XEP-0060 §16.4.2. The zero value is the default: every notification is delivered. It is stored as JSON.
type Options struct {
	Silent bool     `json:"silent,omitempty"`      // not pubsub#deliver
	Show   []string `json:"show-values,omitempty"` // of the subscriber's resources to which notifications go; empty for all
}

// shows are the values of pubsub#show-values (XEP-0060 §16.4.2).
var shows = []string{"away", "chat", "dnd", "online", "xa"}

// submit applies a form of pubsub#subscribe_options; false when it is none that this service can do what it asks for: XEP-0060 §6.3.6.2.
func (o *Options) submit(f form) bool {
	if f.kind != "" && f.kind != formSubscribe {
		return false
	}
	for _, fd := range f.fields {
		switch fd.name {
		case "pubsub#deliver":
			b, ok := boolean(single(fd.values))
			if !ok {
				return false
			}
			o.Silent = !b
		case "pubsub#show-values":
			o.Show = nil
			for _, v := range filled(fd.values) {
				if !slices.Contains(shows, v) {
					return false
				}
				if !slices.Contains(o.Show, v) {
					o.Show = append(o.Show, v)
				}
			}
			slices.Sort(o.Show)
		case "pubsub#digest", "pubsub#include_body":
			if b, ok := boolean(single(fd.values)); !ok || b {
				return false // there are no digests and no bodies
			}
		case "pubsub#subscription_type":
			if single(fd.values) != "items" {
				return false
			}
		case "pubsub#subscription_depth":
			if s := single(fd.values); s != "1" && s != "all" {
				return false
			}
		case "pubsub#expire":
			if single(fd.values) != "" {
				return false // there are no leases
			}
		}
	}
	return true
}

// form shows the options: XEP-0060 §6.3.3.
func (o Options) form(typ string) *xmpp.Element {
	x := newForm(typ, formSubscribe)
	x.Add(newField("pubsub#deliver", "boolean", "Whether an entity wants to receive or disable notifications", digit(!o.Silent)))
	list := newField("pubsub#show-values", "list-multi", "The presence states for which an entity wants to receive notifications", o.Show...)
	if typ == "form" {
		for _, s := range shows {
			list.Add(xmpp.El("", "option", "label", s).Add(xmpp.El("", "value").Say(s)))
		}
	}
	return x.Add(list)
}
