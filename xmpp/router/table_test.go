package router

import (
	"testing"

	"balcony/xmpp"

	"pgregory.net/rapid"
)

// where gives the sessions for which ok is true, in order, and never a list that an append would change for others.
func TestOnlineWhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keep := rapid.SliceOfN(rapid.Bool(), 0, 6).Draw(t, "keep")
		list := make([]*Session, len(keep))
		wanted := make(map[*Session]bool)
		var want []*Session
		for i, k := range keep {
			list[i] = new(Session)
			if k {
				wanted[list[i]] = true
				want = append(want, list[i])
			}
		}
		o := newOnline(list)
		got := o.where(func(s *Session) bool { return wanted[s] })
		if len(got) != len(want) {
			t.Fatalf("%d sessions, want %d", len(got), len(want))
		}
		for i := range got {
			if got[i] != xmpp.Session(want[i]) {
				t.Fatalf("session %d is another one", i)
			}
		}
		_ = append(got, new(Session))
		for i, s := range list {
			if o.all[i] != xmpp.Session(s) {
				t.Fatalf("session %d was changed", i)
			}
		}
	})
}
