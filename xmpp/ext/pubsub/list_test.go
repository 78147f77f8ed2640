package pubsub_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"balcony/xmpp"
	"balcony/xmpp/ext/pubsub"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// A list of many nodes with long names comes in pages that a session can take: XEP-0060 §5.2 with XEP-0059 §2.2.
func TestLongListOfNodes(t *testing.T) {
	w := newWorld(t)
	const count = 200
	for i := range count {
		name := fmt.Sprintf("%04d%s", i, strings.Repeat("&lt;", 1000))
		if got := w.request(t, "juliet@localhost/balcony", "pubsub.localhost", "set", pubsub.NS, "<create node='"+name+"'/>"); got != "" {
			t.Fatal(got)
		}
	}
	list := func(set string) *xmpp.Element {
		s := xmpp.New(xmpp.IQ, "get", jid.MustParse("pubsub.localhost"), jid.MustParse("romeo@localhost/orchard"),
			element(t, "<query xmlns='http://jabber.org/protocol/disco#items'>"+set+"</query>"))
		const items = "http://jabber.org/protocol/disco#items"
		el, err := w.reg.Hosts["pubsub"].IQs[xmpp.IQKey{To: xmpp.ToHost, Type: stanza.GetIQ, Space: items, Local: "query"}](context.Background(), s)
		if err != nil {
			t.Fatal(err)
		}
		return el
	}
	seen, set := 0, ""
	for seen < count {
		page := list(set)
		n := len(page.Children) - 1
		if size := len(page.String()); size > 256<<10 || n < 1 {
			t.Fatalf("%d items in %d bytes", n, size)
		}
		for i, c := range page.Children[:n] {
			if name := c.Attrs[1].Value; !strings.HasPrefix(name, fmt.Sprintf("%04d", seen+i)) {
				t.Fatalf("item %d is %.10s", seen+i, name)
			}
		}
		seen += n
		last := xmpp.El("http://jabber.org/protocol/rsm", "after").Say(page.Children[n-1].Attrs[1].Value)
		set = xmpp.El("http://jabber.org/protocol/rsm", "set").Add(last).String()
	}
	if page := list("<set xmlns='http://jabber.org/protocol/rsm'><max>2</max><before/></set>"); len(page.Children) != 3 ||
		!strings.HasPrefix(page.Children[0].Attrs[1].Value, "0198") || len(page.Children[2].Children) != 2 {
		t.Errorf("last page: %.100s", page)
	}
}

// XEP-0060 §6.5.4: an answer that does not have everything that was asked for says so, and the rest can be had.
func TestNoAnswerIsSilentlyPartial(t *testing.T) {
	w := newWorld(t, "juliet@localhost")
	const (
		node  = "urn:xmpp:omemo:2:bundles" // keeps all there can be
		count = 12
		big   = 100 << 10
	)
	ids := ""
	for i := range count {
		if got := w.request(t, "juliet@localhost/balcony", "juliet@localhost", "set", pubsub.NS, fmt.Sprintf("<publish node='%s'><item id='%d'><x xmlns='urn:x'>%s</x></item></publish>",
			node, i, strings.Repeat("p", big))); !strings.Contains(got, "<publish") {
			t.Fatal(got)
		}
		ids += fmt.Sprintf("<item id='%d'/>", i)
	}
	for name, tt := range map[string]struct{ open, first string }{
		"all":       {"<items node='" + node + "'/>", "0"},
		"by id":     {"<items node='" + node + "'>" + ids + "</items>", "0"},
		"max_items": {"<items node='" + node + "' max_items='10'/>", "10"},
	} {
		t.Run(name, func(t *testing.T) {
			ask := func(set string) *xmpp.Element {
				return element(t, w.request(t, "romeo@localhost/orchard", "juliet@localhost", "get", pubsub.NS, tt.open+set))
			}
			answer := ask("")
			if len(answer.Children) != 2 {
				t.Fatalf("%d items without a word of the others", len(answer.Children[0].Children))
			}
			items, set := answer.Children[0].Children, answer.Children[1]
			if items[0].Attrs[0].Value != tt.first || set.Children[0].Text != tt.first || set.Children[2].Text != fmt.Sprint(count) {
				t.Errorf("first page from %s: %s", items[0].Attrs[0].Value, set)
			}
			if size := len(answer.String()); size > 256<<10 {
				t.Errorf("an answer of %d bytes", size)
			}
			if name == "max_items" {
				return // who wants more than that pages with XEP-0059 alone
			}
			var seen []string
			for {
				for _, it := range items {
					seen = append(seen, it.Attrs[0].Value)
				}
				if len(seen) >= count {
					break
				}
				answer = ask("<set xmlns='http://jabber.org/protocol/rsm'><after>" + seen[len(seen)-1] + "</after></set>")
				if items = answer.Children[0].Children; len(items) == 0 {
					t.Fatalf("nothing after %v", seen)
				}
			}
			for i, id := range seen {
				if id != fmt.Sprint(i) {
					t.Fatalf("item %d is %s", i, id)
				}
			}
		})
	}
	for set, want := range map[string]string{"<before/>": "feature-not-implemented", "<index>1</index>": "feature-not-implemented", "<after>none</after>": "item-not-found"} {
		if got := w.request(t, "juliet@localhost/balcony", "juliet@localhost", "get", pubsub.NS, "<items node='"+node+"'>"+ids+"</items><set xmlns='http://jabber.org/protocol/rsm'>"+set+"</set>"); got != want {
			t.Errorf("by id with %s: %.100s", set, got)
		}
	}
}

// XEP-0060 §8.2.5.2: a configuration is bounded as a whole.
func TestLargeConfiguration(t *testing.T) {
	w := newWorld(t, "juliet@localhost")
	contacts := ""
	for i := range 64 {
		contacts += fmt.Sprintf("<value>%d%s@x</value>", i, strings.Repeat("c", 1000))
	}
	form := "<x xmlns='jabber:x:data' type='submit'><field var='pubsub#contact'>" + contacts + "</field></x>"
	juliet := "juliet@localhost/balcony"
	if got := w.request(t, juliet, "juliet@localhost", "set", pubsub.NS, "<create node='a'/><configure>"+form+"</configure>"); got != "not-acceptable" {
		t.Errorf("created with it: %s", got)
	}
	if got := w.request(t, juliet, "juliet@localhost", "set", pubsub.NS, "<create node='a'/>"); got != "" {
		t.Error(got)
	}
	if got := w.request(t, juliet, "juliet@localhost", "set", pubsub.NSOwner, "<configure node='a'>"+form+"</configure>"); got != "not-acceptable" {
		t.Errorf("configured with it: %s", got)
	}
}

// No answer ends the stream of a peer whose stanzas may have 256 KiB, which is our own bound, whatever is in it; and what could be published can be read.
func TestAnswersFitIntoAStanza(t *testing.T) {
	w := newWorld(t, "juliet@localhost")
	local := strings.Repeat("m", 1000)
	who, name := local+"@"+strings.Repeat("montague.", 60)+"example/"+strings.Repeat("&amp;", 1000), strings.Repeat("&apos;", 1024)
	juliet := "juliet@localhost/balcony"
	publish := func(id string, size int) string {
		const start, end = "<x xmlns='urn:x'>", "</x>"
		return w.request(t, juliet, "pubsub.localhost", "set", pubsub.NS, "<publish node='"+name+"'><item id='"+id+"'>"+start+strings.Repeat("p", size-len(start+end))+end+"</item></publish>")
	}
	if got := w.request(t, juliet, "pubsub.localhost", "set", pubsub.NS, "<create node='"+name+"'/><configure><x xmlns='jabber:x:data' type='submit'>"+
		"<field var='pubsub#itemreply'><value>publisher</value></field></x></configure>"); got != "" {
		t.Fatal(got)
	}
	for i := range 300 { // small payloads below long names
		if got := publish(fmt.Sprintf("%03d%s", i, strings.Repeat("&apos;", 1021)), 100); !strings.Contains(got, "<publish") {
			t.Fatal(got)
		}
	}
	const largest = 216 << 10
	if got := publish(name, largest+1); got != "not-acceptable" {
		t.Errorf("an item too large for any answer: %.100s", got)
	}
	if got := publish(name, largest); !strings.Contains(got, "<publish") {
		t.Fatalf("%.100s", got)
	}
	for _, local := range []string{"affiliation", "subscription"} {
		for i := range 200 {
			if got := w.request(t, juliet, "pubsub.localhost", "set", pubsub.NSOwner, fmt.Sprintf("<%[1]ss node='%[2]s'><%[1]s jid='%[3]d%[4]s' %[1]s='%[5]s'/></%[1]ss>",
				local, name, i, who, map[string]string{"affiliation": "publisher", "subscription": "subscribed"}[local])); got != "" {
				t.Fatalf("%.100s", got)
			}
		}
	}
	for ns, all := range map[string][]string{
		pubsub.NS:      {"<items node='" + name + "'/>", "<items node='" + name + "' max_items='1'/>", "<items node='" + name + "' max_items='50'/>"},
		pubsub.NSOwner: {"<affiliations node='" + name + "'/>", "<subscriptions node='" + name + "'/>"},
	} {
		for _, ask := range all {
			answer := w.request(t, juliet, "pubsub.localhost", "get", ns, ask)
			if !strings.HasPrefix(answer, "<pubsub") {
				t.Fatalf("%.100s", answer)
			}
			if size := len("<iq type='result' from='pubsub.localhost' id='' to=''></iq>") + len(who) + 1000 + len(answer); size > 256<<10 {
				t.Errorf("%.20s of %d bytes", ask, size)
			}
			if !strings.Contains(answer, "http://jabber.org/protocol/rsm") && !strings.Contains(ask, "'1'") {
				t.Errorf("%.20s is only a part, and does not say so", ask)
			}
		}
	}
	// The rest of a list of entities is asked for as that of items is.
	seen, set := 0, ""
	for seen < 200 {
		page := element(t, w.request(t, juliet, "pubsub.localhost", "get", pubsub.NSOwner, "<subscriptions node='"+name+"'/>"+set))
		n := len(page.Children[0].Children)
		if n == 0 {
			t.Fatalf("nothing after %d", seen)
		}
		seen += n
		set = xmpp.El("http://jabber.org/protocol/rsm", "set").Add(xmpp.El("http://jabber.org/protocol/rsm", "after").Say(page.Children[1].Children[1].Text)).String()
	}
	if seen != 200 {
		t.Errorf("%d subscriptions", seen)
	}
}

// counted is a store that counts the nodes that lists read.
type counted struct {
	pubsub.Store
	nodes int
}

func (c *counted) PubSubNodes(ctx context.Context, service, peer jid.JID) ([]pubsub.Found, error) {
	all, err := c.Store.PubSubNodes(ctx, service, peer)
	c.nodes += len(all)
	return all, err
}

func (c *counted) PubSubNodePage(ctx context.Context, service, peer jid.JID, q pubsub.NodeQuery) ([]pubsub.Found, error) {
	all, err := c.Store.PubSubNodePage(ctx, service, peer, q)
	c.nodes += len(all)
	return all, err
}

// A page of a service's nodes has those that who asks may see, in their order and none twice, whichever way and in whatever steps he goes; and a small
// question is a small one, however many nodes there are: XEP-0060 §5.2 with XEP-0059.
func TestPagesOfNodes(t *testing.T) {
	var store *counted
	w := newWorldOver(t, func(s pubsub.Store) pubsub.Store { store = &counted{Store: s}; return store })
	w.from["juliet@localhost romeo@remote"] = true
	const rsm, items = "http://jabber.org/protocol/rsm", "http://jabber.org/protocol/disco#items"
	var want []string // what romeo sees
	for i := range 400 {
		owner, access := []string{"juliet@localhost/balcony", "nurse@localhost/hall"}[i%2], []string{"open", "whitelist", "presence"}[i%3]
		if got := w.request(t, owner, "pubsub.localhost", "set", pubsub.NS, fmt.Sprintf("<create node='n%d'/><configure><x xmlns='jabber:x:data' type='submit'>"+
			"<field var='pubsub#access_model'><value>%s</value></field></x></configure>", i, access)); got != "" {
			t.Fatal(got)
		}
		if access == "open" || access == "presence" && i%2 == 0 {
			want = append(want, fmt.Sprint("n", i))
		}
	}
	ask := func(set string) (names []string, first, last, count string, failed error) {
		s := xmpp.New(xmpp.IQ, "get", jid.MustParse("pubsub.localhost"), jid.MustParse("romeo@remote/orchard"), element(t, "<query xmlns='"+items+"'>"+set+"</query>"))
		el, err := w.reg.Hosts["pubsub"].IQs[xmpp.IQKey{To: xmpp.ToHost, Type: stanza.GetIQ, Space: items, Local: "query"}](t.Context(), s)
		if err != nil {
			return nil, "", "", "", err
		}
		for _, c := range el.Children {
			if c.Local == "item" {
				names = append(names, c.Attrs[1].Value)
				continue
			}
			for _, c := range c.Children {
				switch c.Local {
				case "first":
					if first = c.Text; len(c.Attrs) > 0 {
						first += " " + c.Attrs[0].Value
					}
				case "last":
					last = c.Text
				case "count":
					count = c.Text
				}
			}
		}
		return names, first, last, count, nil
	}
	set := func(inside string) string { return "<set xmlns='" + rsm + "'>" + inside + "</set>" }
	if got, first, _, count, err := ask(""); !slices.Equal(got, want) || first+count != "" || err != nil {
		t.Errorf("all: %v, %s, %s, %v", got, first, count, err)
	}
	for _, max := range []int{1, 7, 60, 1000} {
		var seen []string
		for last := ""; ; {
			got, first, end, count, err := ask(set(fmt.Sprintf("<max>%d</max>", max) + last))
			if err != nil {
				t.Fatal(err)
			}
			if whole := max == 1000 && last == ""; whole != (count == fmt.Sprint(len(want))) {
				t.Errorf("%d nodes at once: count %q", max, count)
			}
			if len(seen) == 0 && first != "n0 0" {
				t.Errorf("the first one is %q", first)
			}
			if seen = append(seen, got...); len(got) == 0 {
				break
			}
			last = "<after>" + end + "</after>"
		}
		if !slices.Equal(seen, want) {
			t.Errorf("forwards by %d: %v, want %v", max, seen, want)
		}
		seen = nil
		for first := ""; ; {
			got, begin, _, _, err := ask(set(fmt.Sprintf("<max>%d</max><before>%s</before>", max, first)))
			if err != nil {
				t.Fatal(err)
			}
			if seen = append(got, seen...); len(got) == 0 {
				break
			}
			first, _, _ = strings.Cut(begin, " ")
		}
		if !slices.Equal(seen, want) {
			t.Errorf("backwards by %d: %v, want %v", max, seen, want)
		}
	}
	if got, first, _, _, err := ask(set("<max>3</max><index>5</index>")); !slices.Equal(got, want[5:8]) || first != want[5]+" 5" || err != nil {
		t.Errorf("by index: %v, %s, %v", got, first, err)
	}
	if got, _, _, count, err := ask(set("<max>0</max>")); len(got) > 0 || count != fmt.Sprint(len(want)) || err != nil {
		t.Errorf("the count alone: %v, %s, %v", got, count, err)
	}
	for _, name := range []string{"n1", "none"} { // n1 is not for romeo, and so not there
		if _, _, _, _, err := ask(set("<after>" + name + "</after>")); err == nil {
			t.Errorf("a page after %s", name)
		}
	}
	for inside, most := range map[string]int{"<max>1</max>": 8, "<max>1</max><before/>": 8, "<max>10</max><after>n300</after>": 40} {
		store.nodes = 0
		if _, _, _, _, err := ask(set(inside)); err != nil || store.nodes > most {
			t.Errorf("%s reads %d nodes, %v", inside, store.nodes, err)
		}
	}
}

// XEP-0060 §5.5: all items of a node are listed, in pages, however large they are.
func TestLongListOfItems(t *testing.T) {
	w := newWorld(t)
	if got := w.request(t, "juliet@localhost/balcony", "pubsub.localhost", "set", pubsub.NS, "<create node='a'/>"); got != "" {
		t.Fatal(got)
	}
	const count = 9
	for i := range count {
		w.request(t, "juliet@localhost/balcony", "pubsub.localhost", "set", pubsub.NS, fmt.Sprintf("<publish node='a'><item id='%d'><x xmlns='urn:x'>%s</x></item></publish>", i, strings.Repeat("p", 100<<10)))
	}
	const items = "http://jabber.org/protocol/disco#items"
	s := xmpp.New(xmpp.IQ, "get", jid.MustParse("pubsub.localhost"), jid.MustParse("romeo@localhost/orchard"), xmpp.El(items, "query", "node", "a"))
	el, err := w.reg.Hosts["pubsub"].IQs[xmpp.IQKey{To: xmpp.ToHost, Type: stanza.GetIQ, Space: items, Local: "query"}](t.Context(), s)
	if err != nil || len(el.Children) != count {
		t.Errorf("%v: %.300s", err, el)
	}
}

// XEP-0060 §8.2.5: what a smaller max_items takes away is told in events of which each fits into a stanza, in order and each id once.
func TestManyRetractions(t *testing.T) {
	w := newWorld(t)
	do := func(from, ns, inside string) string {
		t.Helper()
		return w.request(t, from, "pubsub.localhost", "set", ns, inside)
	}
	if got := do("juliet@localhost/balcony", pubsub.NS, "<create node='a'/>"); got != "" {
		t.Fatal(got)
	}
	const count = 700
	long := strings.Repeat("i", 1000)
	for i := range count {
		if got := do("juliet@localhost/balcony", pubsub.NS, fmt.Sprintf("<publish node='a'><item id='%s%d'><x xmlns='urn:x'/></item></publish>", long, i)); !strings.Contains(got, "<publish") {
			t.Fatal(got)
		}
	}
	if got := do("romeo@remote/orchard", pubsub.NS, "<subscribe node='a' jid='romeo@remote'/>"); !strings.Contains(got, "'subscribed'") {
		t.Fatal(got)
	}
	w.take()
	if got := do("juliet@localhost/balcony", pubsub.NSOwner, "<configure node='a'><x xmlns='jabber:x:data' type='submit'><field var='pubsub#max_items'><value>1</value></field></x></configure>"); got != "" {
		t.Fatal(got)
	}
	next, messages := 0, w.take()
	for _, s := range messages {
		if s.To.String() != "romeo@remote" || s.Size() > 256<<10 {
			t.Errorf("%d bytes to %s", s.Size(), s.To)
		}
		for _, part := range strings.Split(s.String(), "<retract id='")[1:] {
			if id, _, _ := strings.Cut(part, "'"); id != long+fmt.Sprint(next) {
				t.Fatalf("item %d is %.10s…%s", next, id, id[len(long):])
			}
			next++
		}
	}
	if next != count-1 || len(messages) != 4 {
		t.Errorf("%d items in %d messages", next, len(messages))
	}
}
