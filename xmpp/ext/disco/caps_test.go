package disco

import (
	"encoding/xml"
	"strings"
	"testing"

	"balcony/xmpp"
)

// The disco#info answers and verification strings of XEP-0115 §1.2, §5.2 and §5.3, and what §5.1 and §5.4 say about order and forms.
func TestVerificationString(t *testing.T) {
	const complexAnswer = `
		<identity xml:lang='en' category='client' name='Psi 0.11' type='pc'/>
		<identity xml:lang='el' category='client' name='Ψ 0.11' type='pc'/>
		<feature var='http://jabber.org/protocol/caps'/>
		<feature var='http://jabber.org/protocol/disco#info'/>
		<feature var='http://jabber.org/protocol/disco#items'/>
		<feature var='http://jabber.org/protocol/muc'/>
		<x xmlns='jabber:x:data' type='result'>
		  <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:dataforms:softwareinfo</value></field>
		  <field var='ip_version' type='text-multi'><value>ipv4</value><value>ipv6</value></field>
		  <field var='os'><value>Mac</value></field>
		  <field var='os_version'><value>10.5.1</value></field>
		  <field var='software'><value>Psi</value></field>
		  <field var='software_version'><value>0.11</value></field>
		</x>`
	for _, tt := range []struct{ name, answer, want string }{
		{"simple: XEP-0115 §5.2", `
			<identity category='client' name='Exodus 0.9.1' type='pc'/>
			<feature var='http://jabber.org/protocol/caps'/>
			<feature var='http://jabber.org/protocol/disco#info'/>
			<feature var='http://jabber.org/protocol/disco#items'/>
			<feature var='http://jabber.org/protocol/muc'/>`,
			"QgayPKawpkPSDYmwT/WM94uAlu0="},
		{"complex: XEP-0115 §5.3", complexAnswer, "q07IKJEyjvHSyhy//CH0CxmKi8w="},
		{"order does not count", `
			<x xmlns='jabber:x:data' type='result'>
			  <field var='software_version'><value>0.11</value></field>
			  <field var='software'><value>Psi</value></field>
			  <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:dataforms:softwareinfo</value></field>
			  <field var='ip_version' type='text-multi'><value>ipv6</value><value>ipv4</value></field>
			  <field var='os_version'><value>10.5.1</value></field>
			  <field var='os'><value>Mac</value></field>
			</x>
			<feature var='http://jabber.org/protocol/muc'/>
			<feature var='http://jabber.org/protocol/disco#items'/>
			<identity xml:lang='el' category='client' name='Ψ 0.11' type='pc'/>
			<feature var='http://jabber.org/protocol/disco#info'/>
			<feature var='http://jabber.org/protocol/caps'/>
			<identity xml:lang='en' category='client' name='Psi 0.11' type='pc'/>`,
			"q07IKJEyjvHSyhy//CH0CxmKi8w="},
		{"a form without a hidden FORM_TYPE is ignored: XEP-0115 §5.4", complexAnswer + `
			<x xmlns='jabber:x:data' type='result'><field var='a'><value>b</value></field></x>
			<x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE'><value>c</value></field></x>`,
			"q07IKJEyjvHSyhy//CH0CxmKi8w="},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader("<query xmlns='" + NSInfo + "'>" + tt.answer + "</query>")))
			if err != nil {
				t.Fatal(err)
			}
			if got := ver(q); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func BenchmarkCaps(b *testing.B) {
	r := xmpp.NewRegistry(nil)
	m := &Module{Name: "Balcony", Node: "https://example.org/balcony"}
	m.Register(r)
	for i := range 40 {
		r.Feature(xmpp.ToServer, "urn:example:a-feature-of-usual-length:"+string(rune('a'+i*7%26)))
	}
	for b.Loop() {
		m.caps("localhost")
	}
}
