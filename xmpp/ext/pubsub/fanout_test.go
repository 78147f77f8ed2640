package pubsub_test

import (
	"fmt"
	"strings"
	"testing"

	"balcony/xmpp/ext/pubsub"
)

// BenchmarkFanOut is one notification to 5,000 subscribers of a service.
func BenchmarkFanOut(b *testing.B) {
	w := newWorld(b)
	do := func(ns, inside string) {
		if got := w.request(b, "juliet@localhost/balcony", "pubsub.localhost", "set", ns, inside); strings.HasPrefix(got, "not") || got == "dropped" {
			b.Fatal(got)
		}
	}
	do(pubsub.NS, "<create node='a'/>")
	for i := range 50 {
		list := ""
		for j := range 100 {
			list += fmt.Sprintf("<subscription jid='u%d@remote' subscription='subscribed'/>", i*100+j)
		}
		do(pubsub.NSOwner, "<subscriptions node='a'>"+list+"</subscriptions>")
	}
	w.take()
	b.ResetTimer()
	for range b.N {
		do(pubsub.NS, "<publish node='a'><item id='1'><x xmlns='urn:x'/></item></publish>")
		if n := len(w.take()); n != 5000 {
			b.Fatalf("%d notifications", n)
		}
	}
}
