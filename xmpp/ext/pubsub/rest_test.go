package pubsub_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"balcony/xmpp/ext/pubsub"

	"mellium.im/xmpp/jid"
)

// An account with 200 nodes costs little memory after they were used, within the bounds of what is remembered of all accounts, and none for their items.
func TestManyNodesAtRest(t *testing.T) {
	w := newWorld(t, "nurse@localhost", "juliet@localhost")
	const size = 2 << 10
	publish := func(account string) {
		t.Helper()
		for i := range 200 {
			if got := w.request(t, account+"/balcony", account, "set", pubsub.NS, fmt.Sprintf("<publish node='urn:example:node:%d'><item id='1'><x xmlns='urn:x'>%s</x></item></publish>",
				i, strings.Repeat("p", size))); !strings.Contains(got, "<publish") {
				t.Fatal(got)
			}
		}
		for i := range 200 {
			if got := w.request(t, account+"/balcony", account, "get", pubsub.NS, fmt.Sprintf("<items node='urn:example:node:%d'/>", i)); len(got) < size {
				t.Fatal(got)
			}
		}
		w.take()
	}
	publish("nurse@localhost") // what the first use of everything takes
	before := pubsub.Heap()
	publish("juliet@localhost")
	rest := pubsub.Heap() - before
	// A new contact is shown the last items of all nodes that it wants: here none, but they are looked through.
	w.from["juliet@localhost romeo@remote"] = true
	w.presence(t, "romeo@remote/orchard", "", "")
	w.m.Subscribed(t.Context(), jid.MustParse("juliet@localhost"), jid.MustParse("romeo@remote"))
	w.take()
	used := pubsub.Heap() - before
	t.Logf("an account with 200 nodes of %d bytes: %d bytes at rest, %d after a contact has come", size, rest, used)
	if rest > 250<<10 || used > 400<<10 {
		t.Errorf("%d bytes at rest, %d after a contact has come", rest, used)
	}
	runtime.KeepAlive(w)
}
