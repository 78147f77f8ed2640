package vcard

import (
	"encoding/xml"
	"strings"
	"testing"

	"balcony/xmpp"
)

func TestEmptyCard(t *testing.T) {
	for card, want := range map[string]bool{
		"":                            true,
		"<vCard xmlns='vcard-temp'/>": true,
		"<vCard xmlns='vcard-temp' version='3.0'>\n</vCard>":  true,
		"<vCard xmlns='vcard-temp'><FN/></vCard>":             false,
		"<v:vCard xmlns:v='vcard-temp'>text</v:vCard>":        false,
		"<vCard xmlns='vcard-temp'> <FN>Peter</FN>\n</vCard>": false,
	} {
		if got := empty([]byte(card)); got != want {
			t.Errorf("%q: %v, want %v", card, got, want)
		}
	}
}

// Whatever a client stores: empty neither panics nor calls something empty that has an element inside.
func FuzzEmpty(f *testing.F) {
	f.Add("<FN>Peter</FN>")
	f.Add(" &#10; ")
	f.Add("<![CDATA[x]]>")
	f.Fuzz(func(t *testing.T, inside string) {
		card := "<vCard xmlns='vcard-temp'>" + inside + "</vCard>"
		e, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader(card)))
		got := empty([]byte(card))
		if err != nil || strings.Contains(inside, "</vCard") {
			return
		}
		said := strings.TrimSpace(e.Text) != ""
		for _, c := range e.Children {
			said = said || c.Local != "" || strings.TrimSpace(string(c.Raw)) != ""
		}
		if got == said {
			t.Errorf("%q: empty is %v", card, got)
		}
	})
}
