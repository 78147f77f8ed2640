package caps

import (
	"crypto"
	"encoding/xml"
	"slices"
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
			q, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader("<query xmlns='" + info + "'>" + tt.answer + "</query>")))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := Ver(q, crypto.SHA1); got != tt.want || err != nil {
				t.Errorf("got %s, %v, want %s", got, err, tt.want)
			}
		})
	}
}

// XEP-0115 §5.4 rule 3: an answer in which something stands twice is not to be believed.
func TestAmbiguousAnswers(t *testing.T) {
	for _, answer := range []string{
		"<identity category='client' type='pc' name='a'/><identity category='client' type='pc' name='a'/>",
		"<feature var='a'/><feature var='a'/>",
		"<x xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'><value>a</value></field></x><x xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'><value>a</value></field></x>",
		"<x xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'><value>a</value><value>b</value></field></x>",
	} {
		if got, err := Ver(query(t, answer), crypto.SHA1); err == nil {
			t.Errorf("%s: %s", answer, got)
		}
	}
	for _, answer := range []string{
		"<other xmlns='urn:x'/>",
		"<x xmlns='jabber:x:data'><field var='a'/></x>",
		"<x xmlns='jabber:x:data'><reported/><field var='FORM_TYPE' type='hidden'><value>a</value></field></x>",
	} {
		if got, err := Ver2(query(t, answer), crypto.SHA256); err == nil {
			t.Errorf("%s: %s", answer, got)
		}
	}
}

func query(t testing.TB, answer string) *xmpp.Element {
	t.Helper()
	q, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader("<query xmlns='" + info + "'>" + answer + "</query>")))
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// FuzzVer: whatever a client answers, the order of its parts does not count, and nothing panics.
func FuzzVer(f *testing.F) {
	f.Add("<identity category='client' type='pc'/><feature var='b'/><feature var='a'/>")
	f.Add("<x xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'><value>a</value></field><field var='b'><value>2</value><value>1</value></field></x>")
	f.Fuzz(func(t *testing.T, answer string) {
		q, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader("<query xmlns='" + info + "'>" + answer + "</query>")))
		if err != nil {
			return
		}
		a, errA := Ver(q, crypto.SHA1)
		a2, errA2 := Ver2(q, crypto.SHA256)
		slices.Reverse(q.Children)
		b, errB := Ver(q, crypto.SHA1)
		b2, errB2 := Ver2(q, crypto.SHA256)
		if a != b || a2 != b2 || (errA == nil) != (errB == nil) || (errA2 == nil) != (errB2 == nil) {
			t.Errorf("%q: %s %v, %s %v; reversed %s %v, %s %v", answer, a, errA, a2, errA2, b, errB, b2, errB2)
		}
	})
}
