package offline

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"pgregory.net/rapid"
)

// The spans of a ledger are the set of orders that wait; what is saved has all of them, and all that sessions have.
func TestSpans(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		l := &ledger{held: make(map[int64]struct{})}
		model := map[int64]bool{}
		for range rapid.IntRange(0, 40).Draw(r, "steps") {
			from := rapid.Int64Range(1, 60).Draw(r, "from")
			s := Span{from, from + rapid.Int64Range(0, 8).Draw(r, "length")}
			add := rapid.Bool().Draw(r, "add")
			if add {
				l.add(s)
			} else {
				l.cut(s)
			}
			for o := s.From; o <= s.To; o++ {
				if add {
					model[o] = true
				} else {
					delete(model, o)
				}
			}
			var got []int64
			for i, w := range l.waiting {
				if w.From > w.To || i > 0 && w.From <= l.waiting[i-1].To+1 {
					r.Fatalf("spans %v", l.waiting)
				}
				for o := w.From; o <= w.To; o++ {
					got = append(got, o)
				}
			}
			if want := slices.Sorted(maps.Keys(model)); !slices.Equal(got, want) {
				r.Fatalf("%v waits, want %v", got, want)
			}
		}
		for range rapid.IntRange(0, 10).Draw(r, "held") {
			o := rapid.Int64Range(1, 80).Draw(r, "order")
			l.held[o], model[o] = struct{}{}, true
		}
		l.top = 100
		st := l.state(50)
		if st.Top != 50 {
			r.Fatalf("top %d", st.Top)
		}
		for o := range model {
			if !slices.ContainsFunc(st.Gaps, func(g Span) bool { return o >= g.From && o <= g.To }) {
				r.Fatalf("%d is not saved: %v", o, st.Gaps)
			}
		}
	})
}

// Many gaps are joined, which makes some wait that need not, and never the other way round.
func TestSavedStateIsBounded(t *testing.T) {
	l := &ledger{top: 1 << 40}
	for i := range int64(3 * maxSpans) {
		l.add(Span{10 * i * i, 10*i*i + 1})
	}
	st := l.state(1 << 40)
	if len(st.Gaps) != maxSpans {
		t.Fatalf("%d gaps", len(st.Gaps))
	}
	for _, w := range l.waiting {
		if !slices.ContainsFunc(st.Gaps, func(g Span) bool { return w.From >= g.From && w.To <= g.To }) {
			t.Errorf("%v is not saved", w)
		}
	}
}

func ordered(t *rapid.T, list []Span) {
	for i, s := range list {
		if s.From > s.To || i > 0 && s.From <= list[i-1].To+1 {
			t.Fatalf("%v", list)
		}
	}
}

func covers(list []Span, o int64) bool {
	return slices.ContainsFunc(list, func(s Span) bool { return s.From <= o && o <= s.To })
}

// What waits is in the ledger, and what a session has is not, whatever their number; what is saved has both.
func TestLedgerModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &ledger{held: make(map[int64]struct{}), loaded: true}
		waiting := make(map[int64]bool)
		n, r := rapid.IntRange(0, 6*maxWaiting).Draw(t, "messages"), rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		for range n {
			o := 1 + r.Int64N(1<<14)
			switch r.IntN(7) {
			case 0:
				l.cut(Span{o, o})
				l.held[o] = struct{}{}
				delete(waiting, o)
			case 1:
				l.got(Span{o, o})
				delete(l.held, o)
				delete(waiting, o)
			default:
				delete(l.held, o)
				l.add(Span{o, o})
				waiting[o] = true
			}
		}
		l.top = 1 << 14
		ordered(t, l.waiting)
		if len(l.waiting) > maxWaiting+1+len(l.held) {
			t.Fatalf("%d spans", len(l.waiting))
		}
		st := l.state(1 << 14)
		ordered(t, st.Gaps)
		if len(st.Gaps) > maxSpans {
			t.Fatalf("%d gaps are saved", len(st.Gaps))
		}
		for o := range waiting {
			if !l.waits(o) || !covers(l.waiting, o) || !covers(st.Gaps, o) {
				t.Fatalf("%d is lost", o)
			}
		}
		for o := range l.held {
			if l.waits(o) || covers(l.waiting, o) {
				t.Fatalf("%d is delivered twice", o)
			}
			if !covers(st.Gaps, o) {
				t.Fatalf("%d is lost when the server ends", o)
			}
		}
	})
}

// join closes the narrowest gaps and no more of them than it has to.
func TestJoin(t *testing.T) {
	list := []Span{{1, 2}, {10, 11}, {13, 13}, {20, 25}, {27, 27}, {40, 41}}
	for _, c := range []struct {
		n    int
		want []Span
	}{
		{6, list},
		{5, []Span{{1, 2}, {10, 13}, {20, 25}, {27, 27}, {40, 41}}},
		{4, []Span{{1, 2}, {10, 13}, {20, 27}, {40, 41}}},
		{2, []Span{{1, 27}, {40, 41}}},
		{1, []Span{{1, 41}}},
	} {
		if got := join(slices.Clone(list), c.n); !slices.Equal(got, c.want) {
			t.Errorf("%d spans: %v, want %v", c.n, got, c.want)
		}
	}
}

// An account whose client is connected and not available can be sent any number of messages: what is known of them stays small, and saving it, during
// which no other message can be delivered, takes no time that anybody notices.
func TestLedgerOfAFlood(t *testing.T) {
	l := &ledger{account: jid.MustParse("juliet@capulet.com"), held: make(map[int64]struct{}), loaded: true}
	const n = 100_000
	for o := int64(0); o < 10*n; o += 10 {
		l.held[o] = struct{}{}
		l.top = o
		delete(l.held, o)
		l.add(Span{o, o})
	}
	for o := int64(10 * n); o < 10*n+50_000; o += 10 { // and a session that acknowledges nothing
		l.held[o] = struct{}{}
		l.top = o
	}
	start := time.Now()
	st := l.state(l.top)
	if took := time.Since(start); took > 10*time.Second { // it is some milliseconds on a quiet machine, and minutes if the time grows with the square
		t.Errorf("%d spans and %d messages at sessions: %s", len(l.waiting), len(l.held), took)
	}
	if len(st.Gaps) > maxSpans || !covers(st.Gaps, 0) || !covers(st.Gaps, l.top) {
		t.Errorf("%d gaps", len(st.Gaps))
	}
}

type quiet struct{ xmpp.Server }

func (quiet) Sessions(jid.JID) []xmpp.Session { return nil }

type orders struct{ Store }

func (orders) LastOrder() int64 { return 7 }

type ending struct {
	xmpp.Session
	values map[any]any
}

func (e *ending) JID() jid.JID { return jid.MustParse("juliet@localhost/balcony") }
func (e *ending) SetValue(key, v any) any {
	before := e.values[key]
	e.values[key] = v
	return before
}
func (e *ending) Value(key any) any { return e.values[key] }

// Security promise 22: an account that was deleted and made again knows nothing of the one before, also while a session of that has not quite ended.
func TestLedgerOfADeletedAccount(t *testing.T) {
	m := &Module{server: quiet{}, store: orders{}, ledgers: make(map[string]*ledger)}
	before, after := &ending{values: make(map[any]any)}, &ending{values: make(map[any]any)}
	key := before.JID().Bare().String()
	m.opened(t.Context(), before)
	old := m.ledgers[key]
	old.dirty = true
	m.Forget(before.JID())
	if m.ledgers[key] != nil {
		t.Error("what was known stays")
	}
	m.opened(t.Context(), after)
	m.closed(before)
	if l := m.ledgers[key]; l == nil || l == old || l.sessions != 1 {
		t.Errorf("the new account has the ledger %+v", l)
	}
	m.closed(after)
	if len(m.ledgers) != 0 {
		t.Error("a ledger is left")
	}
}

// An import into the archive of an account that is online: what waits is read again, and its sessions stay counted.
func TestRereadLedger(t *testing.T) {
	m := &Module{server: quiet{}, store: orders{}, ledgers: make(map[string]*ledger)}
	first, second := &ending{values: make(map[any]any)}, &ending{values: make(map[any]any)}
	key := first.JID().Bare().String()
	m.opened(t.Context(), first)
	l := m.ledgers[key]
	l.loaded, l.emptied, l.dirty, l.waiting = true, true, true, []Span{{1, 2}}
	l.hold(3)
	m.Reread(first.JID())
	if l.loaded || l.emptied || l.waiting != nil || l.since != 7 || len(l.held) != 1 || m.ledgers[key] != l {
		t.Errorf("the ledger is %+v", l)
	}
	m.opened(t.Context(), second)
	m.closed(second)
	l.dirty = false
	if m.ledgers[key] != l || l.sessions != 1 {
		t.Errorf("the ledger of the session that is left: %+v", m.ledgers[key])
	}
	m.closed(first)
	if len(m.ledgers) != 0 {
		t.Error("a ledger is left")
	}
	m.opened(t.Context(), first)
	m.ledgers[key].dirty = true
	m.closed(first)
	m.Reread(first.JID())
	if len(m.ledgers) != 0 {
		t.Error("what an ended session knew is saved over the import")
	}
}
