package contact_test

import (
	"testing"

	"balcony/xmpp/ext/contact"
)

// XEP-0157 §3, example 2.
func TestFormOfTheExample(t *testing.T) {
	m := contact.Module{Of: func(domain string) contact.Addresses {
		if domain != "shakespeare.lit" {
			return contact.Addresses{}
		}
		return contact.Addresses{
			Abuse:    []string{"mailto:abuse@shakespeare.lit", "xmpp:abuse@shakespeare.lit"},
			Admin:    []string{"mailto:xmpp@shakespeare.lit", "xmpp:admins@shakespeare.lit"},
			Feedback: []string{"http://shakespeare.lit/feedback.php", "mailto:feedback@shakespeare.lit", "xmpp:feedback@shakespeare.lit"},
			Sales:    []string{"xmpp:bard@shakespeare.lit"},
			Security: []string{"xmpp:security@shakespeare.lit"},
			Status:   []string{"https://status.shakespeare.lit"},
			Support:  []string{"http://shakespeare.lit/support.php", "xmpp:support@shakespeare.lit"},
		}
	}}
	want := "<x xmlns='jabber:x:data' type='result'>" +
		"<field var='FORM_TYPE' type='hidden'><value>http://jabber.org/network/serverinfo</value></field>" +
		"<field var='abuse-addresses'><value>mailto:abuse@shakespeare.lit</value><value>xmpp:abuse@shakespeare.lit</value></field>" +
		"<field var='admin-addresses'><value>mailto:xmpp@shakespeare.lit</value><value>xmpp:admins@shakespeare.lit</value></field>" +
		"<field var='feedback-addresses'><value>http://shakespeare.lit/feedback.php</value>" +
		"<value>mailto:feedback@shakespeare.lit</value><value>xmpp:feedback@shakespeare.lit</value></field>" +
		"<field var='sales-addresses'><value>xmpp:bard@shakespeare.lit</value></field>" +
		"<field var='security-addresses'><value>xmpp:security@shakespeare.lit</value></field>" +
		"<field var='status-addresses'><value>https://status.shakespeare.lit</value></field>" +
		"<field var='support-addresses'><value>http://shakespeare.lit/support.php</value><value>xmpp:support@shakespeare.lit</value></field>" +
		"</x>"
	if got := m.Form("shakespeare.lit").String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := m.Form("capulet.lit"); got != nil {
		t.Errorf("a domain without addresses has the form %s", got)
	}
}
