package s2s_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/s2s/s2stest"
	"balcony/xmpp/xmpptest"
)

// TestLinksAreCut: with stream management on both sides nothing is lost, nothing comes twice, and the order is kept, however often the links break.
func TestLinksAreCut(t *testing.T) {
	for _, bidi := range []bool{true, false} {
		t.Run(fmt.Sprintf("bidi %t", bidi), func(t *testing.T) {
			w := newWorld(t)
			option := func(c *config.Config) { c.S2S.Bidi = bidi }
			a, b := w.server("a.test", option), w.server("b.test", option)
			toA, toB := s2stest.NewCable(t, a.Addr("s2s")), s2stest.NewCable(t, b.Addr("s2s"))
			w.dns.Server("a.test", toA.Addr())
			w.dns.Server("b.test", toB.Addr())
			romeo, juliet := a.Client("romeo@a.test/orchard"), b.Client("juliet@b.test/balcony")
			romeo.Online()
			juliet.Online()
			romeo.Send("<message to='juliet@b.test/balcony' type='chat' id='first'/>")
			expect(juliet, "message", "first")
			juliet.Send("<message to='romeo@a.test/orchard' type='chat' id='first'/>")
			expect(romeo, "message", "first")
			const count = 1500
			send := func(c *xmpptest.Client, to string) func() {
				return func() {
					for i := range count {
						c.Write(fmt.Sprintf("<message to='%s' type='chat' id='m%d'><body>%d</body></message>", to, i, i))
						if i%10 == 0 {
							time.Sleep(time.Millisecond) // cuts fall between messages, not behind them
						}
					}
				}
			}
			var wg sync.WaitGroup
			wg.Go(send(romeo, "juliet@b.test/balcony"))
			wg.Go(send(juliet, "romeo@a.test/orchard"))
			stop := make(chan struct{})
			cuts := 0
			var cutting sync.WaitGroup
			cutting.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Duration(20+rand.IntN(60)) * time.Millisecond):
						toA.Cut()
						toB.Cut()
						cuts++
					}
				}
			})
			wg.Wait()
			close(stop)
			cutting.Wait()
			for _, c := range []*xmpptest.Client{romeo, juliet} {
				for i := range count {
					if e := c.Read(); e.Local != "message" || e.Attr("id") != fmt.Sprintf("m%d", i) || e.Attr("type") == "error" {
						t.Fatalf("%s got %s, want m%d (%d cuts)", c.JID, e, i, cuts)
					}
				}
			}
			t.Logf("%d cuts", cuts)
			romeo.ExpectNothing()
		})
	}
}
