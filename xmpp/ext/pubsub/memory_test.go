package pubsub

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"mellium.im/xmpp/jid"
)

// Heap is what is in use after everything that can be freed was.
func Heap() int64 {
	runtime.GC()
	runtime.GC() // what has a finalizer
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// full is a store in which every account has 200 nodes.
type full struct{ Store }

func (full) PubSubNodes(_ context.Context, service, _ jid.JID) (all []Found, err error) {
	for i := range 200 {
		c := pepConfig()
		c.Title, c.Language = fmt.Sprint("Node ", i, " of ", service), strings.Repeat("l", 100)
		for j := range 20 {
			c.Contact = append(c.Contact, fmt.Sprintf("contact%d.%s", j, service))
		}
		all = append(all, Found{Node: Node{Name: fmt.Sprint("eu.siacs.conversations.axolotl.bundles:", i), Config: c, Creator: service, Created: time.Now(), Items: 1}})
	}
	return all, nil
}

// What is remembered of accounts that have many nodes is bounded, and takes about as much as it is counted for.
func TestRememberedNodesAreBounded(t *testing.T) {
	m := New(full{}, nil, nil, slog.New(slog.DiscardHandler))
	read := func(i int) {
		account := jid.MustParse(fmt.Sprint("user", i, "@localhost"))
		if _, err := m.listing(t.Context(), account); err != nil {
			t.Fatal(err)
		}
	}
	before := Heap()
	const some, many = 20, 1000
	for i := range some {
		read(i)
	}
	one := (Heap() - before) / some
	counted := int64(listedSize("user0@localhost", func() (all []Node) {
		found, _ := full{}.PubSubNodes(t.Context(), jid.MustParse("user0@localhost"), jid.JID{})
		for _, f := range found {
			all = append(all, f.Node.listed())
		}
		return all
	}()))
	t.Logf("an account with 200 nodes that was looked through: %d bytes, counted as %d", one, counted)
	if one > 2*counted || one < counted/2 {
		t.Errorf("an account with 200 nodes takes %d bytes and is counted as %d", one, counted)
	}
	for i := range many {
		read(i)
	}
	if all := Heap() - before; all > 2*maxListings {
		t.Errorf("%d accounts take %d bytes, the bound is %d", many, all, maxListings)
	}
	runtime.KeepAlive(m)
}

// What is remembered of nodes with their members is bounded, and takes about as much as it is counted for.
func TestRememberedMembersAreBounded(t *testing.T) {
	m := New(full{}, nil, nil, slog.New(slog.DiscardHandler))
	read := func(i int) (counted int64) {
		account := jid.MustParse(fmt.Sprint("user", i, "@localhost"))
		at := place{jid: account, key: account.String(), domain: "localhost"}
		b, err := m.members(t.Context(), at, "eu.siacs.conversations.axolotl.devicelist")
		if err != nil {
			t.Fatal(err)
		}
		return int64(b.size(membersKey(at.key, b.node.Name)))
	}
	before := Heap()
	const some, many = 50, 3000
	counted := int64(0)
	for i := range some {
		counted += read(i)
	}
	if took := Heap() - before; took > 2*counted || took < counted/2 {
		t.Errorf("%d nodes take %d bytes and are counted as %d", some, took, counted)
	}
	for i := range many {
		read(i)
	}
	if all := Heap() - before; all > 2*maxMembers || counted/some*many < maxMembers {
		t.Errorf("%d nodes take %d bytes, the bound is %d", many, all, maxMembers)
	}
	runtime.KeepAlive(m)
}

func (full) PubSubNode(_ context.Context, service jid.JID, name string, _ jid.JID) (Node, Standing, error) {
	c := pepConfig()
	for i := range 60 {
		c.Contact = append(c.Contact, fmt.Sprintf("contact%d.%s", i, service))
	}
	return Node{Name: name, Config: c, Creator: service, Created: time.Now()}, Standing{}, nil
}

func (full) PubSubAffiliations(_ context.Context, service jid.JID, _ string) ([]Affiliate, error) {
	return []Affiliate{{JID: service, Affiliation: Owner}, {JID: jid.MustParse("romeo@localhost"), Affiliation: Member}}, nil
}

func (full) PubSubSubscriptions(_ context.Context, _ jid.JID, _ string) (all []Subscription, err error) {
	for i := range 20 {
		all = append(all, Subscription{JID: jid.MustParse(fmt.Sprint("contact", i, "@localhost")), State: Subscribed})
	}
	return all, nil
}
