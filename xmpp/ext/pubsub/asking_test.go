package pubsub

import (
	"context"
	"crypto"
	"errors"
	"fmt"
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
		"one silent":       {silent, 1, 0, maxSilence, 2},
		"many silent":      {silent, 500, 0, 8 * maxSilence, 1000},
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
					if d := <-known; d > tt.within+time.Second {
						t.Fatalf("known after %v", d)
					}
				}
				synctest.Wait()
				if n := len(asked); n > tt.most {
					t.Errorf("%d clients were asked", n)
				}
				m.asking.close()
				synctest.Wait()
				a := &m.asking
				if len(a.under)+len(a.pairs)+len(a.domains)+a.running+a.waiting != 0 {
					t.Errorf("left over: %+v", a)
				}
			})
		})
	}
}
