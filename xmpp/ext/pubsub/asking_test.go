package pubsub

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/caps"

	"mellium.im/xmpp/jid"
)

// clients is a server at which everybody answers after a minute at most, as they say.
type clients struct {
	xmpp.Server
	answer func(ctx context.Context, to jid.JID) (*xmpp.Element, error)
}

func (c clients) Ask(ctx context.Context, s *xmpp.Stanza) (*xmpp.Stanza, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	query, err := c.answer(ctx, s.To)
	if err != nil {
		return nil, err
	}
	return xmpp.New(xmpp.IQ, "result", s.From, s.To, query), nil
}

func silent(ctx context.Context) (*xmpp.Element, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// empty checks that nothing is left of what was asked.
func (a *asking) empty(t *testing.T) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.under)+len(a.pairs)+len(a.domains)+a.running+a.waiting != 0 {
		t.Errorf("left over: %d lines, %d pairs, %d domains, %d under way, %d waiting", len(a.under), len(a.pairs), len(a.domains), a.running, a.waiting)
	}
}

// Many clients with the same capabilities come at once. Those that are silent, lie, or are gone do not hold up the others, and while one answers truly
// the others are not asked.
func TestCapabilitiesOfManyClients(t *testing.T) {
	const node = "http://jabber.org/protocol/tune"
	truth := func() *xmpp.Element {
		return xmpp.El(nsInfo, "query").Add(xmpp.El("", "identity", "category", "client", "type", "pc"), xmpp.El("", "feature", "var", node+notify))
	}
	ver, err := caps.Ver(reread(t, truth()), crypto.SHA1)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		bad    func(ctx context.Context) (*xmpp.Element, error)
		before int           // bad ones that come before the good ones
		later  time.Duration // between them
		within time.Duration // the good ones are known then
		most   int           // are asked
	}{
		"all good":         {nil, 0, 0, 0, 1},
		"one silent":       {silent, 1, 0, firstSilence, 2},
		"of one contact":   {silent, maxOfPair, 0, 3 * time.Second, 64},
		"many silent":      {silent, 500, 0, 7 * time.Second, 1000},
		"silent for long":  {silent, 1, 10 * time.Second, 0, 2},
		"one liar":         {func(context.Context) (*xmpp.Element, error) { return xmpp.El(nsInfo, "query"), nil }, 1, 0, 0, 3},
		"many liars":       {func(context.Context) (*xmpp.Element, error) { return xmpp.El(nsInfo, "query"), nil }, 500, 0, 0, 1000},
		"many that failed": {func(context.Context) (*xmpp.Element, error) { return nil, errors.New("gone") }, 500, 0, 0, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := make(chan string, 10_000)
				m := &Module{caps: xmpp.NewCache[map[string]struct{}](10), srv: clients{answer: func(ctx context.Context, to jid.JID) (*xmpp.Element, error) {
					asked <- to.String()
					if to.Domainpart() == "bad" {
						return tt.bad(ctx)
					}
					time.Sleep(time.Millisecond)
					return truth(), nil
				}}}
				m.asking.init()
				begin := time.Now()
				known := make(chan time.Duration, 1000)
				learn := func(who string) {
					m.learn(t.Context(), &question{of: capability{algo: "sha-1", hash: ver, node: "urn:c#" + ver}, from: jid.MustParse("juliet@localhost"), to: jid.MustParse(who),
						then: func(_ context.Context, nodes map[string]struct{}) {
							if _, ok := nodes[node]; ok {
								known <- time.Since(begin)
							}
						}, lost: func() {}})
				}
				for i := range tt.before {
					learn(fmt.Sprint(i, "@bad/x"))
				}
				time.Sleep(tt.later)
				begin = time.Now()
				const good = 300
				for i := range good {
					learn(fmt.Sprint(i, "@good/x"))
				}
				for range good {
					if d := <-known; d > tt.within+10*time.Millisecond {
						t.Fatalf("known after %v", d)
					}
				}
				synctest.Wait()
				if n := len(asked); n > tt.most {
					t.Errorf("%d clients were asked", n)
				}
				m.asking.close()
				synctest.Wait()
				m.asking.empty(t)
			})
		})
	}
}

// A domain that is being asked as much as it may be holds up its own clients alone, and those for no longer than that is so.
func TestFullDomainIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(map[string]time.Duration)
		var mu sync.Mutex
		most, now := 0, 0 // of the full domain
		begin := time.Now()
		m := &Module{caps: xmpp.NewCache[map[string]struct{}](10), srv: clients{answer: func(ctx context.Context, to jid.JID) (*xmpp.Element, error) {
			mu.Lock()
			asked[to.String()] = time.Since(begin)
			if to.Domainpart() == "full" {
				now++
				most = max(most, now)
				defer func() { mu.Lock(); now--; mu.Unlock() }()
			}
			mu.Unlock()
			return silent(ctx)
		}}}
		m.asking.init()
		learn := func(ver, who string) {
			m.learn(t.Context(), &question{of: capability{algo: "sha-1", hash: ver, node: "urn:c#" + ver}, from: jid.MustParse("juliet@localhost"), to: jid.MustParse(who),
				elsewhere: true, then: func(context.Context, map[string]struct{}) {}, lost: func() {}})
		}
		for i := range maxOfDomain {
			learn(fmt.Sprint("ver", i), fmt.Sprint(i, "@full/x"))
		}
		learn("popular", "first@good/x")
		for i := range 5 {
			learn("popular", fmt.Sprint("passed", i, "@full/x"))
		}
		learn("popular", "second@good/x")
		learn("popular", "third@good/x")
		synctest.Wait()
		time.Sleep(5 * time.Second)
		mu.Lock()
		for who, want := range map[string]time.Duration{"first@good/x": 0, "second@good/x": firstSilence, "third@good/x": 3 * firstSilence} {
			if got, ok := asked[who]; !ok || got != want {
				t.Errorf("%s: asked %v, after %v, want %v", who, ok, got, want)
			}
		}
		mu.Unlock()
		time.Sleep(time.Minute) // those who are being asked have been given up, and that is noticed
		mu.Lock()
		for i := range 5 {
			if got, ok := asked[fmt.Sprint("passed", i, "@full/x")]; !ok || got > time.Minute+maxSilence {
				t.Errorf("passed over for ever: %v, %v", ok, got)
			}
		}
		if most > maxOfDomain {
			t.Errorf("%d requests to one domain", most)
		}
		mu.Unlock()
		time.Sleep(2 * time.Minute)
		m.asking.empty(t)
		before := time.Now()
		m.asking.close()
		if d := time.Since(before); d > 0 {
			t.Errorf("a timer was left for %v", d)
		}
	})
}

// When the module ends, nothing is asked any more, whoever waits, and nothing is waited for.
func TestEndWhileManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		m := &Module{caps: xmpp.NewCache[map[string]struct{}](10), srv: clients{answer: func(ctx context.Context, _ jid.JID) (*xmpp.Element, error) {
			asked.Add(1)
			return silent(ctx)
		}}}
		m.asking.init()
		for i := range 100 {
			m.learn(t.Context(), &question{of: capability{algo: "sha-1", hash: "ver", node: "urn:c#ver"}, from: jid.MustParse("juliet@localhost"), to: jid.MustParse(fmt.Sprint(i, "@remote/x")),
				elsewhere: true, then: func(context.Context, map[string]struct{}) {}, lost: func() {}})
		}
		time.Sleep(firstSilence + firstSilence/2)
		before, end := asked.Load(), time.Now()
		if before != 2 {
			t.Errorf("%d asked after one silence", before)
		}
		m.asking.close()
		if d := time.Since(end); d > 0 {
			t.Errorf("it took %v", d)
		}
		m.asking.empty(t)
		time.Sleep(time.Minute)
		if n := asked.Load(); n != before {
			t.Errorf("%d asked after the end", n-before)
		}
	})
}
