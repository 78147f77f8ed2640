package vcard4

import (
	"encoding/xml"
	"reflect"
	"strings"
	"testing"

	"balcony/xmpp"

	"pgregory.net/rapid"
)

func parse(t testing.TB, s string) *xmpp.Element {
	t.Helper()
	e, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader(s)))
	if err != nil {
		t.Fatalf("%v: %s", err, s)
	}
	return e
}

// What both formats can say survives the way through either of them.
func TestMappingKeepsEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[a-zA-Z0-9äß&<>'"@.+]{1,12}`)
		var list []property
		for range rapid.IntRange(0, 6).Draw(t, "properties") {
			p := property{name: rapid.SampledFrom([]string{"fn", "nickname", "bday", "url", "impp", "title", "role", "note", "n", "adr", "org", "email", "tel"}).Draw(t, "name")}
			n := map[string]int{"n": 5, "adr": 7}[p.name]
			for i := range max(n, 1) {
				if i == 0 || rapid.Bool().Draw(t, "filled") {
					p.texts = append(p.texts, word.Draw(t, "text"))
				} else {
					p.texts = append(p.texts, "")
				}
			}
			if p.name == "email" || p.name == "tel" || p.name == "adr" {
				p.types = rapid.SliceOfDistinct(rapid.SampledFrom(types), func(s string) string { return s }).Draw(t, "types")
				if len(p.types) == 0 {
					p.types = nil
				}
			}
			list = p.addTo(list)
		}
		read := func(e *xmpp.Element) *xmpp.Element {
			again, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader(e.String())))
			if err != nil {
				t.Fatal(err)
			}
			return again
		}
		if got := fromTemp(read(xmpp.El(nsTemp, "vCard").Add(toTemp(list)...))); !reflect.DeepEqual(got, list) {
			t.Fatalf("through vcard-temp: %+v, want %+v", got, list)
		}
		if got := fromNew(read(xmpp.El(nsNew, "vcard").Add(toNew(list)...))); !reflect.DeepEqual(got, list) {
			t.Fatalf("through vCard4: %+v, want %+v", got, list)
		}
	})
}

// The vCards of XEP-0054 example 2 and XEP-0292 §8.1.
func TestMapping(t *testing.T) {
	temp := parse(t, `<vCard xmlns='vcard-temp'><FN>Peter Saint-Andre</FN><N><FAMILY>Saint-Andre</FAMILY><GIVEN>Peter</GIVEN><MIDDLE/></N>
		<NICKNAME>stpeter</NICKNAME><URL>http://www.xmpp.org/xsf/people/stpeter.shtml</URL><BDAY>1966-08-06</BDAY>
		<ORG><ORGNAME>XMPP Standards Foundation</ORGNAME><ORGUNIT/></ORG><TITLE>Executive Director</TITLE><ROLE>Patron Saint</ROLE>
		<TEL><WORK/><VOICE/><NUMBER>303-308-3282</NUMBER></TEL><TEL><WORK/><FAX/><NUMBER/></TEL>
		<ADR><WORK/><EXTADD>Suite 600</EXTADD><STREET>1899 Wynkoop Street</STREET><LOCALITY>Denver</LOCALITY><REGION>CO</REGION><PCODE>80202</PCODE><CTRY>USA</CTRY></ADR>
		<EMAIL><INTERNET/><PREF/><USERID>stpeter@jabber.org</USERID></EMAIL><JABBERID>stpeter@jabber.org</JABBERID><DESC>More information</DESC>
		<PHOTO><TYPE>image/png</TYPE><BINVAL>QUJD</BINVAL></PHOTO></vCard>`)
	want := `<vcard xmlns='urn:ietf:params:xml:ns:vcard-4.0'><fn><text>Peter Saint-Andre</text></fn>` +
		`<n><surname>Saint-Andre</surname><given>Peter</given><additional/><prefix/><suffix/></n><nickname><text>stpeter</text></nickname>` +
		`<url><uri>http://www.xmpp.org/xsf/people/stpeter.shtml</uri></url><bday><date>1966-08-06</date></bday><org><text>XMPP Standards Foundation</text></org>` +
		`<title><text>Executive Director</text></title><role><text>Patron Saint</text></role>` +
		`<tel><parameters><type><text>voice</text><text>work</text></type></parameters><uri>tel:303-308-3282</uri></tel>` +
		`<adr><parameters><type><text>work</text></type></parameters><pobox/><ext>Suite 600</ext><street>1899 Wynkoop Street</street><locality>Denver</locality><region>CO</region><code>80202</code><country>USA</country></adr>` +
		`<email><text>stpeter@jabber.org</text></email><impp><uri>xmpp:stpeter@jabber.org</uri></impp><note><text>More information</text></note></vcard>`
	if got := xmpp.El(nsNew, "vcard").Add(toNew(fromTemp(temp))...).String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// What the mapping does not know stays.
	merged := merge(temp, toTemp([]property{{name: "fn", texts: []string{"Peter"}}})).String()
	if merged != `<vCard xmlns='vcard-temp'><FN>Peter</FN><PHOTO><TYPE>image/png</TYPE><BINVAL>QUJD</BINVAL></PHOTO></vCard>` {
		t.Errorf("merged: %s", merged)
	}
}

func FuzzCards(f *testing.F) {
	f.Add("<FN>Peter</FN><N><GIVEN>P</GIVEN></N><TEL><HOME/><NUMBER>1</NUMBER></TEL>")
	f.Add("<fn><text>Peter</text></fn><tel><parameters><type><text>home</text></type></parameters><uri>tel:1</uri></tel><adr/>")
	f.Fuzz(func(t *testing.T, inside string) {
		for _, of := range [][2]string{{nsTemp, "vCard"}, {nsNew, "vcard"}} {
			e := read([]byte("<"+of[1]+" xmlns='"+of[0]+"'>"+inside+"</"+of[1]+">"), of[0], of[1])
			if e == nil {
				continue
			}
			for _, list := range [][]property{fromTemp(e), fromNew(e)} {
				for _, made := range [][]*xmpp.Element{toTemp(list), toNew(list)} {
					if len(made) != len(list) {
						t.Errorf("%d elements of %d properties", len(made), len(list))
					}
				}
			}
		}
	})
}
