package s2s

import (
	"strings"
	"testing"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/router"

	"github.com/prometheus/client_golang/prometheus"
)

// TestStalledIsNotConfirmed: a peer that does not answer is taken to have what its machine has acknowledged, and nothing that waits for the network or in this
// server: the cable may be cut.
func TestStalledIsNotConfirmed(t *testing.T) {
	for name, size := range map[string]int{"what the network has taken": 1, "what waits": 16 << 20} {
		t.Run(name, func(t *testing.T) {
			s, p := loose(), pair{"a.test", "b.test"}
			quick := router.DefaultConfig()
			quick.AskTimeout = 500 * time.Millisecond
			s.router = router.New(quick, nobody{}, router.NewMetrics(prometheus.NewRegistry()), s.log)
			s.router.SetHosts(map[string]router.Host{"a.test": {}})
			s.router.SetRemote(s.Send)
			c := deaf(t, s, p)
			if !s.link(p).attach(c, nil) {
				t.Fatal("the link does not take the connection")
			}
			if err := s.Send(t.Context(), numbered(0, 1)[0]); err != nil {
				t.Fatal(err)
			}
			c.out.add(entry{raw: nil, stanza: numbered(1, 1)[0].Append(xmpp.El("", "body").Say(strings.Repeat("x", size)))})
			c.out.flush()
			unsure := 1
			for end := time.Now().Add(time.Minute); unsure > 0 && time.Now().Before(end); {
				c.confirm()
				s.tasks.Wait()
				c.nop.Lock()
				unsure = len(c.unsure)
				c.nop.Unlock()
				if size > 1 {
					break
				}
			}
			if stalled := size > 1; stalled != (unsure == 1) {
				t.Errorf("%d are not confirmed", unsure)
			}
			c.cut()
			c.out.stop()
		})
	}
}
