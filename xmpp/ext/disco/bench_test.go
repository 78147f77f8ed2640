package disco

import (
	"testing"

	"balcony/xmpp"
)

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
