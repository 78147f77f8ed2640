package bookmarks

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"pgregory.net/rapid"
)

// memory is nodes and private XML of one account in memory.
type memory struct {
	items   map[string][]Item
	private []byte
	told    []string // what was put or removed among the items of XEP-0402
}

func (m *memory) Items(_ context.Context, _ jid.JID, node string) ([]Item, error) {
	return m.items[node], nil
}

func (m *memory) Has(_ context.Context, _ jid.JID, node string) (bool, error) {
	_, has := m.items[node]
	return has, nil
}

func (m *memory) PrivateXML(context.Context, jid.JID, string, string) ([]byte, error) {
	return m.private, nil
}

func (m *memory) SetPrivateXML(_ context.Context, _ jid.JID, _, _ string, element []byte) error {
	m.private = element
	return nil
}

func (m *memory) Put(_ context.Context, _ jid.JID, node, id string, payload []byte) error {
	m.drop(node, id)
	m.items[node] = append(m.items[node], Item{ID: id, Payload: payload})
	if node == NSOld {
		m.items[node] = m.items[node][len(m.items[node])-1:]
	} else {
		m.told = append(m.told, "put "+id)
	}
	return nil
}

func (m *memory) Remove(_ context.Context, _ jid.JID, node, id string) error {
	m.drop(node, id)
	m.told = append(m.told, "remove "+id)
	return nil
}

func (m *memory) drop(node, id string) {
	m.items[node] = slices.DeleteFunc(slices.Clone(m.items[node]), func(it Item) bool { return it.ID == id })
}

// Whatever lists clients store, each place says the same afterwards, nothing is sent for what stays, and extensions survive older clients.
func TestThePlacesAgree(t *testing.T) {
	account := jid.MustParse("juliet@capulet.lit")
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		n := &memory{items: make(map[string][]Item)}
		m := Module{Nodes: n, Store: n, Log: slog.New(slog.DiscardHandler)}
		rooms := []string{"a@rooms", "b@rooms", "c@rooms"}
		// What another server has left in the older places is what every place says at first, and goes with nothing that is done then.
		left := make(map[string]bool)
		fill := func(name string) []byte {
			list := xmpp.El(NSOld, "storage")
			for _, room := range rapid.SliceOfDistinct(rapid.SampledFrom(rooms), func(s string) string { return s }).Draw(t, name) {
				left[room] = true
				list.Add(conference{name: name}.element(NSOld, room))
			}
			return list.AppendTo(nil, "")
		}
		if rapid.Bool().Draw(t, "private XML is filled") {
			n.private = fill("in private XML")
		}
		if rapid.Bool().Draw(t, "the old node is filled") {
			n.items[NSOld] = []Item{{ID: "current", Payload: fill("in the old node")}}
		}
		if rapid.Bool().Draw(t, "private XML is read first") {
			if _, _, err := m.Read(ctx, account, NSOld, "storage", n.private); err != nil {
				t.Fatal(err)
			}
		} else {
			m.Adopt(ctx, account)
		}
		for _, it := range n.items[NS] {
			delete(left, it.ID)
		}
		if len(left) > 0 {
			t.Fatalf("%v are lost, there is %v", left, n.items[NS])
		}
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			before := make(map[string]conference)
			for _, it := range n.items[NS] {
				before[it.ID] = read(parse(it.Payload))
			}
			n.told = nil
			if rapid.Bool().Draw(t, "new client") {
				room := rapid.SampledFrom(rooms).Draw(t, "room")
				c := conference{name: rapid.SampledFrom([]string{"", "x", "ä'<"}).Draw(t, "name"), extensions: xmpp.El(NS, "extensions").Add(xmpp.El("urn:x", "x"))}
				if err := n.Put(ctx, account, NS, room, c.element(NS, "").AppendTo(nil, "")); err != nil {
					t.Fatal(err)
				}
				m.Published(ctx, account, NS, nil, time.Time{})
			} else {
				list := xmpp.El(NSOld, "storage")
				want := make(map[string]conference)
				for _, room := range rapid.SliceOfDistinct(rapid.SampledFrom(rooms), func(s string) string { return s }).Draw(t, "rooms") {
					c := conference{name: rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "name"), autojoin: rapid.SampledFrom([]string{"", "true"}).Draw(t, "autojoin"),
						nick: rapid.SampledFrom([]string{"", "JC"}).Draw(t, "nick"), password: rapid.SampledFrom([]string{"", "cauldron"}).Draw(t, "password")}
					want[room] = c
					list.Add(c.element(NSOld, room))
				}
				e := parse(list.AppendTo(nil, ""))
				if rapid.Bool().Draw(t, "private") {
					n.private = e.AppendTo(nil, "")
					if err := m.Stored(ctx, account, e); err != nil {
						t.Fatal(err)
					}
				} else {
					if err := n.Put(ctx, account, NSOld, "current", e.AppendTo(nil, "")); err != nil {
						t.Fatal(err)
					}
					m.Published(ctx, account, NSOld, e.AppendTo(nil, ""), time.Now())
				}
				for room, c := range want {
					stays := false
					if b, ok := before[room]; ok {
						stays = b.same(c)
					}
					if told := slices.Contains(n.told, "put "+room); told == stays {
						t.Fatalf("%s: stays %v, told %v", room, stays, n.told)
					}
				}
				if len(n.items[NS]) != len(want) {
					t.Fatalf("items %v, want %v", n.items[NS], want)
				}
				for _, it := range n.items[NS] {
					got := read(parse(it.Payload))
					if !got.same(want[it.ID]) || before[it.ID].extensions != nil && got.extensions == nil {
						t.Fatalf("%s is %s, want %+v with %v", it.ID, it.Payload, want[it.ID], before[it.ID].extensions)
					}
				}
			}
			private, found, err := m.Read(ctx, account, NSOld, "storage", n.private)
			if err != nil || !found && len(n.items[NS]) > 0 {
				t.Fatalf("private XML: %v, %v", found, err)
			}
			if old := n.items[NSOld]; found && len(old) > 0 && conferences(private) != conferences(old[0].Payload) {
				t.Fatalf("private XML says %s, the node %s", private, old[0].Payload)
			}
		}
	})
}

// XEP-0402 §5.3.2: a list that an older client stores as it has read it changes nothing, also where an id is not in normal form, and who made it knows nothing
// of what was published after it.
func TestListsOfOlderClients(t *testing.T) {
	account := jid.MustParse("juliet@capulet.lit")
	at := time.Unix(1_700_000_000, 0)
	n := &memory{items: make(map[string][]Item)}
	m := Module{Nodes: n, Store: n, Log: slog.New(slog.DiscardHandler)}
	n.items[NS] = []Item{
		{ID: "Council@Rooms.example", Payload: []byte("<conference xmlns='urn:xmpp:bookmarks:1' name='x'><extensions><x xmlns='urn:x'/></extensions></conference>"), Published: at.Add(-time.Hour)},
		{ID: "no room", Payload: []byte("<conference xmlns='urn:xmpp:bookmarks:1'/>"), Published: at.Add(-time.Hour)},
		{ID: "gone@rooms.example", Payload: []byte("<conference xmlns='urn:xmpp:bookmarks:1'/>"), Published: at.Add(-time.Hour)},
		{ID: "new@rooms.example", Payload: []byte("<conference xmlns='urn:xmpp:bookmarks:1'/>"), Published: at.Add(time.Second)},
		{ID: "renamed@rooms.example", Payload: []byte("<conference xmlns='urn:xmpp:bookmarks:1' name='later'/>"), Published: at.Add(time.Second)},
	}
	m.Published(t.Context(), account, NSOld, []byte("<storage xmlns='storage:bookmarks'><conference jid='council@rooms.example' name='x'/><conference jid='renamed@rooms.example' name='before'/></storage>"), at)
	if fmt.Sprint(n.told) != "[remove gone@rooms.example]" {
		t.Errorf("told %q", n.told)
	}
	m.Published(t.Context(), account, NSOld, []byte("<storage xmlns='storage:bookmarks'><conference jid='council@rooms.example' name='y'/></storage>"), at)
	if got := string(n.items[NS][len(n.items[NS])-1].Payload); n.told[len(n.told)-1] != "put Council@Rooms.example" || !strings.Contains(got, "urn:x") || !strings.Contains(got, "name='y'") {
		t.Errorf("told %q, the bookmark is %s", n.told, got)
	}
}

// conferences are the bookmarks of a list, in no order.
func conferences(storage []byte) string {
	var all []string
	for _, c := range parse(storage).Children {
		all = append(all, c.String())
	}
	slices.Sort(all)
	return strings.Join(all, "")
}

func FuzzList(f *testing.F) {
	f.Add("<conference jid='a@b' name='x' autojoin='1'><nick>n</nick></conference><url url='https://x'/>")
	f.Add("<conference jid='a@b'/><conference jid='a@b/r' autojoin='yes'/> text <conference/>")
	f.Fuzz(func(t *testing.T, inside string) {
		e := parse([]byte("<storage xmlns='storage:bookmarks'>" + inside + "</storage>"))
		if e == nil {
			return
		}
		n := &memory{items: make(map[string][]Item)}
		m := Module{Nodes: n, Store: n, Log: slog.New(slog.DiscardHandler)}
		account := jid.MustParse("juliet@capulet.lit")
		if m.Stored(context.Background(), account, e) != nil {
			return
		}
		once := fmt.Sprint(n.told)
		n.told = nil
		private, _, err := m.Read(context.Background(), account, NSOld, "storage", e.AppendTo(nil, ""))
		if err != nil || parse(private) == nil {
			t.Fatalf("%s, %v", private, err)
		}
		if err := m.Stored(context.Background(), account, parse(private)); err != nil || len(n.told) > 0 {
			t.Errorf("storing %q: %s, and storing what is read then: %v, %v", inside, once, n.told, err)
		}
	})
}
