// Package contact implements XEP-0157: Contact Addresses for XMPP Services 1.1.1: the form that a domain's disco#info answer carries.
package contact

import (
	"balcony/xmpp"
)

// FormType is the FORM_TYPE of the form.
const FormType = "http://jabber.org/network/serverinfo" // XEP-0157 §3

const nsData = "jabber:x:data" // XEP-0004 §2

// Addresses are lists of URIs such as "mailto:abuse@example.org", by their purpose.
type Addresses struct {
	Abuse, Admin, Feedback, Sales, Security, Status, Support []string
}

// Module makes the forms.
type Module struct {
	// Of returns the addresses of a domain that is served here. It is called for each answer, so they may change while the server runs.
	Of func(domain string) Addresses
}

var _ xmpp.Module = Module{}

// Protocol lists XEP-0157.
func (Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{{XEP: 157, Version: "1.1.1", Status: xmpp.Complete}}
}

// Register adds nothing: Form is given to disco.
func (Module) Register(*xmpp.Registry) {}

// Form is the data form of a domain (XEP-0157 §3, XEP-0128 §2), nil when it has no addresses.
func (m Module) Form(domain string) *xmpp.Element {
	a := m.Of(domain)
	form := xmpp.El(nsData, "x", "type", "result").Add(field("FORM_TYPE", "hidden", FormType))
	// XEP-0157 §7.1: the registered fields.
	for _, f := range []struct {
		name string
		uris []string
	}{
		{"abuse-addresses", a.Abuse},
		{"admin-addresses", a.Admin},
		{"feedback-addresses", a.Feedback},
		{"sales-addresses", a.Sales},
		{"security-addresses", a.Security},
		{"status-addresses", a.Status},
		{"support-addresses", a.Support},
	} {
		if len(f.uris) > 0 {
			form.Add(field(f.name, "", f.uris...))
		}
	}
	if len(form.Children) == 1 {
		return nil
	}
	return form
}

func field(name, typ string, values ...string) *xmpp.Element {
	f := xmpp.El("", "field", "var", name, "type", typ)
	for _, v := range values {
		f.Add(xmpp.El("", "value").Say(v))
	}
	return f
}
