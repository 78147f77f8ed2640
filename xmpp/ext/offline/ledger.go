package offline

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// ledger is what of an account's archived messages no client has got: some wait in the spool, some a session has taken whose client has not
// acknowledged them yet, or whose network has not taken them (Registry.Received). It is kept while the account has sessions, and saved now and
// then: what a crash takes from it is delivered once more, under the same stanza-id.
//
// Guarded by the module's mu.
type ledger struct {
	account  jid.JID
	sessions int
	waiting  []Span             // in order, not touching
	held     map[int64]struct{} // at sessions; nil for none so far
	fetched  map[int64]Span     // a client asked the archive for it, and has it once it has the message with that order
	top      int64              // the greatest order that was seen here
	loaded   bool               // the saved state is in waiting
	emptied  bool               // the spool was delivered to its end by this process
	since    int64              // before it is loaded: orders up to here may wait
	early    []Span             // what clients have got before it was loaded
	claimed  []int64            // restored sessions have them; before it is loaded nobody knows whether another client has got them
	dirty    bool
	bound    int // spans in waiting, when that is more than maxWaiting
	saving   int // writes that are under way
}

const (
	saveEvery  = time.Second                         // chosen: what is delivered twice after a crash, at most; one write for all accounts
	maxSpans   = 3000                                // chosen: a spool of the default limit in pieces, 48 kB a row; more are joined, which delivers some twice rather than never
	longAgo    = int64(time.Hour / time.Microsecond) // chosen: orders are times; what is archived in an hour is looked through fast
	maxWaiting = 2 * maxSpans                        // chosen: the same in memory, so that they are seldom joined
)

// open makes the ledger of an account, or finds it. It is called with the module's mu held.
func (m *Module) open(account jid.JID) *ledger {
	key := account.String()
	l := m.ledgers[key]
	if l == nil {
		l = &ledger{account: account, since: m.store.LastOrder()}
		m.ledgers[key] = l
	}
	return l
}

// ledgerKey is the key of the ledger in which a session is counted. It may end long after the account was deleted, when there is another of that name.
type ledgerKey struct{}

// opened counts a session.
func (m *Module) opened(_ context.Context, s xmpp.Session) {
	m.mu.Lock()
	l := m.open(s.JID().Bare())
	l.sessions++
	m.mu.Unlock()
	s.SetValue(ledgerKey{}, l)
}

func (m *Module) closed(s xmpp.Session) {
	bare := s.JID().Bare()
	// One that is being bound in the place of s needs what s had: s may still send it back.
	replaced := len(m.server.Sessions(bare)) > 0
	m.mu.Lock()
	defer m.mu.Unlock()
	if l, ok := s.Value(ledgerKey{}).(*ledger); ok {
		if l.sessions--; !replaced {
			m.forget(l)
		}
	}
}

// forget drops a ledger that nobody needs. It is called with the module's mu held.
func (m *Module) forget(l *ledger) {
	if key := l.account.String(); l.sessions <= 0 && !l.dirty && l.saving == 0 && m.ledgers[key] == l {
		delete(m.ledgers, key)
	}
}

// Forget drops what is known of an account, also what was not saved. Call it after the account's data were deleted. A session that has not told its end
// yet keeps its ledger for itself: it must not save over the spool of another account of that name.
func (m *Module) Forget(account jid.JID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.ledgers, account.Bare().String())
}

// Reread makes what is known of an account's spool be read again, as it stands in the database. Call it after something else has put messages into the
// archive that wait. What clients have got since the last save may come to them twice, rather than the others never.
func (m *Module) Reread(account jid.JID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := account.Bare().String()
	l := m.ledgers[key]
	switch {
	case l == nil:
	case l.sessions <= 0:
		delete(m.ledgers, key)
	default:
		l.loaded, l.emptied, l.since, l.waiting, l.early, l.claimed = false, false, m.store.LastOrder(), nil, nil, nil
	}
}

// loadLedger reads what was saved of an account. It returns what it has read, nil when it was read before.
func (m *Module) loadLedger(ctx context.Context, account jid.JID) (*State, error) {
	m.mu.Lock()
	l := m.ledgers[account.String()]
	done := l == nil || l.loaded
	m.mu.Unlock()
	if done {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	st, err := m.store.SpoolState(ctx, account)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.loaded {
		return nil, nil
	}
	// What came before it was loaded is in held, and what was got is in early.
	known := l.waiting
	l.loaded = true
	l.waiting = slices.Clone(st.Gaps)
	if (st.Behind || len(l.claimed) > 0) && st.Top < l.since {
		l.add(Span{st.Top + 1, l.since}) // what sessions had is among the gaps behind it too
	}
	if l.since-st.Top > longAgo {
		l.dirty = true // nobody has to look that far back again
	}
	for _, s := range known {
		l.add(s)
	}
	for _, o := range l.claimed {
		if !l.waits(o) {
			delete(l.held, o)
		}
	}
	l.claimed = nil
	for o := range l.held {
		l.cut(Span{o, o})
	}
	for _, s := range l.early {
		l.cut(s)
	}
	l.early = nil
	l.top = max(l.top, st.Top, l.since)
	return &st, nil
}

// take notes that sessions are to get a message, or that it is theirs.
func (m *Module) take(account jid.JID, order int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.ledgers[account.String()]
	if l == nil {
		return // nobody is there: what is behind the saved state waits
	}
	l.cut(Span{order, order})
	l.hold(order)
	l.top, l.dirty = max(l.top, order), true
}

// obtain is take for a message that waits, or that a session had which has ended. It reports false when a client has got the message meanwhile, or another
// session is given it.
func (m *Module) obtain(account jid.JID, order int64, fromSpool bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.ledgers[account.String()]
	if l == nil || !l.loaded {
		return true // twice rather than never
	}
	_, held := l.held[order]
	if held && fromSpool || !held && !l.waits(order) {
		return false
	}
	l.cut(Span{order, order})
	l.hold(order)
	l.dirty = true
	return true
}

// hold is called with the module's mu held.
func (l *ledger) hold(order int64) {
	if l.held == nil {
		l.held = make(map[int64]struct{})
	}
	l.held[order] = struct{}{}
}

// waits is called with the module's mu held.
func (l *ledger) waits(order int64) bool {
	i, _ := slices.BinarySearchFunc(l.waiting, order, func(w Span, o int64) int { return cmp.Compare(w.To, o) })
	return i < len(l.waiting) && l.waiting[i].From <= order
}

// Hold tells that a session has a message for its client, which may not have got it after all.
func (m *Module) Hold(account jid.JID, order int64) { m.take(account, order) }

// release makes a message wait that no session has.
func (m *Module) release(account jid.JID, order int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := account.String()
	if a := m.accounts[key]; a != nil && a.owner != nil {
		a.more = true
	}
	l := m.ledgers[key]
	if l == nil {
		return
	}
	if _, ok := l.held[order]; ok {
		delete(l.held, order)
		l.add(Span{order, order})
		l.dirty = true
	}
}

// received notes that a client has got a message: nobody else has to. It is called from any goroutine and does not block.
func (m *Module) received(account jid.JID, order int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.ledgers[account.String()]
	if l == nil {
		return
	}
	delete(l.held, order)
	l.got(Span{order, order})
	if f, ok := l.fetched[order]; ok {
		delete(l.fetched, order)
		for o := range l.held {
			if o >= f.From && o <= f.To {
				delete(l.held, o)
			}
		}
		l.got(f)
	}
	l.dirty = true
}

// got takes a span out of what waits, also of what is not loaded yet. It is called with the module's mu held.
func (l *ledger) got(s Span) {
	l.cut(s)
	if !l.loaded && len(l.early) < maxSpans { // more are delivered twice rather than never
		l.early = append(l.early, s)
	}
}

// Fetched tells that a session is given everything of its account's archive between two orders. Once its client has the stanza with the order by,
// none of it waits any longer.
func (m *Module) Fetched(ctx context.Context, account jid.JID, by, from, to int64) {
	if _, err := m.loadLedger(ctx, account); err != nil {
		m.log.Error("read spool", "account", account.String(), "err", err)
		return // delivered twice rather than never
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.ledgers[account.String()]; l != nil {
		if len(l.fetched) >= maxSpans {
			clear(l.fetched)
		}
		if l.fetched == nil {
			l.fetched = make(map[int64]Span)
		}
		l.fetched[by] = Span{from, to}
	}
}

// add puts a span into waiting. It is called with the module's mu held.
func (l *ledger) add(s Span) {
	i, _ := slices.BinarySearchFunc(l.waiting, s, func(a, b Span) int {
		switch {
		case a.To+1 < b.From:
			return -1
		case a.From > b.To+1:
			return 1
		}
		return 0
	})
	j := i
	for j < len(l.waiting) && l.waiting[j].From <= s.To+1 && l.waiting[j].To+1 >= s.From {
		s.From, s.To = min(s.From, l.waiting[j].From), max(s.To, l.waiting[j].To)
		j++
	}
	l.waiting = slices.Replace(l.waiting, i, j, s)
	if len(l.waiting) > max(maxWaiting, l.bound) {
		l.waiting = without(join(l.waiting, maxSpans), slices.Sorted(maps.Keys(l.held)))
		l.bound = 2 * len(l.waiting) // with much at sessions it cannot be short
	}
}

// join returns at most n spans that have everything of a list, which is in order: those with the least between them become one.
func join(list []Span, n int) []Span {
	if len(list) <= n {
		return list
	}
	between := make([]int64, 0, len(list)-1)
	for i, s := range list[1:] {
		between = append(between, s.From-list[i].To)
	}
	slices.Sort(between)
	most := between[len(list)-n-1] // so many are closed, with all that are less
	equal := 0
	for _, b := range between[:len(list)-n] {
		if b == most {
			equal++
		}
	}
	out := append(make([]Span, 0, n), list[0])
	for _, s := range list[1:] {
		last := &out[len(out)-1]
		switch b := s.From - last.To; {
		case b == most && equal > 0:
			equal--
			last.To = s.To
		case b < most:
			last.To = s.To
		default:
			out = append(out, s)
		}
	}
	return out
}

// without returns what is left of spans without some orders; both are sorted.
func without(list []Span, orders []int64) []Span {
	out := make([]Span, 0, len(list))
	for _, s := range list {
		for len(orders) > 0 && orders[0] <= s.To {
			o := orders[0]
			orders = orders[1:]
			if o < s.From {
				continue
			}
			if o > s.From {
				out = append(out, Span{s.From, o - 1})
			}
			s.From = o + 1
		}
		if s.From <= s.To {
			out = append(out, s)
		}
	}
	return out
}

// cut takes a span out of waiting. It is called with the module's mu held.
func (l *ledger) cut(s Span) {
	for i := 0; i < len(l.waiting); i++ {
		w := l.waiting[i]
		if w.To < s.From {
			continue
		}
		if w.From > s.To {
			return
		}
		var left []Span
		if w.From < s.From {
			left = append(left, Span{w.From, s.From - 1})
		}
		if w.To > s.To {
			left = append(left, Span{s.To + 1, w.To})
		}
		l.waiting = slices.Replace(l.waiting, i, i+1, left...)
		i += len(left) - 1
	}
}

// state is what is saved: what sessions have waits, if the server ends before their clients have it. top bounds what is known. It is called with the
// module's mu held.
func (l *ledger) state(top int64) State {
	all := make([]Span, 0, len(l.waiting)+len(l.held))
	waiting := l.waiting
	for _, o := range slices.Sorted(maps.Keys(l.held)) {
		for len(waiting) > 0 && waiting[0].From < o {
			all, waiting = append(all, waiting[0]), waiting[1:]
		}
		all = append(all, Span{o, o})
	}
	all = append(all, waiting...)
	return State{Account: l.account, Top: min(l.top, top), Gaps: join(touching(all), maxSpans)}
}

// touching makes one of spans that touch or overlap, in place; they are in the order of their beginnings.
func touching(list []Span) []Span {
	out := list[:0]
	for _, s := range list {
		if n := len(out); n > 0 && s.From <= out[n-1].To+1 {
			out[n-1].To = max(out[n-1].To, s.To)
			continue
		}
		out = append(out, s)
	}
	return out
}

// Run delivers to the sessions that were restored what waits for them, and saves the ledgers now and then, until ctx ends.
func (m *Module) Run(ctx context.Context) {
	var restored sync.WaitGroup
	defer restored.Wait()
	restored.Go(func() { m.deliverRestored(ctx) })
	t := time.NewTicker(saveEvery)
	defer t.Stop()
	// A message gets its order a little before it is noted here: what is younger than the last round may be on its way.
	top := m.store.LastOrder()
	for {
		select {
		case <-t.C:
			next := m.store.LastOrder()
			m.save(ctx, top)
			top = next
		case <-ctx.Done():
			return
		}
	}
}

// Save saves everything, when the last session has ended.
func (m *Module) Save(ctx context.Context) error {
	return m.save(ctx, m.store.LastOrder()).Wait(ctx)
}

func (m *Module) save(ctx context.Context, top int64) *xmpp.Commit {
	m.mu.Lock()
	var unread []jid.JID
	for _, l := range m.ledgers {
		if l.dirty && !l.loaded {
			unread = append(unread, l.account)
		}
	}
	m.mu.Unlock()
	for _, a := range unread {
		if _, err := m.loadLedger(ctx, a); err != nil {
			m.log.Error("read spool", "account", a.String(), "err", err)
			break // the database does not answer
		}
	}
	m.mu.Lock()
	var states []State
	var list []*ledger
	for _, l := range m.ledgers {
		m.forget(l) // of a session that was ended for one that could not be bound
		if l.dirty && l.loaded {
			// What is younger stays unsaved, and the ledger dirty, until the next round.
			states, list = append(states, l.state(top)), append(list, l)
			l.dirty = l.top > top
			l.saving++
		}
	}
	m.mu.Unlock()
	if len(states) == 0 {
		c := new(xmpp.Commit)
		c.Complete(nil)
		return c
	}
	c := m.store.SaveSpoolStates(ctx, states)
	c.Then(func(err error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, l := range list {
			l.saving--
			l.dirty = l.dirty || err != nil
			m.forget(l)
		}
		if err != nil {
			m.log.Error("save spool", "err", err)
		}
	})
	return c
}

// waits reads up to limit messages that wait, from an order on. What it finds empty waits no longer. The ledger is loaded.
func (m *Module) waits(ctx context.Context, account jid.JID, from int64, limit int) (entries []Entry, err error) {
	for len(entries) < limit {
		m.mu.Lock()
		l := m.ledgers[account.String()]
		var in Span
		found := false
		if l != nil {
			for _, w := range l.waiting {
				if found = w.To >= from; found {
					in = Span{max(w.From, from), w.To}
					break
				}
			}
		}
		m.mu.Unlock()
		if !found {
			return entries, nil
		}
		short, cancel := context.WithTimeout(ctx, storeTime)
		got, err := m.store.Waiting(short, account, in, limit-len(entries))
		cancel()
		if err != nil {
			return entries, err
		}
		if len(got) == limit-len(entries) {
			in.To = got[len(got)-1].Order
		}
		m.mu.Lock()
		l.narrow(in, got)
		m.mu.Unlock()
		entries, from = append(entries, got...), in.To+1
	}
	return entries, nil
}

// narrow replaces what waits in a span by the messages that were found in it. It is called with the module's mu held.
func (l *ledger) narrow(in Span, found []Entry) {
	var old []Span
	for _, w := range l.waiting {
		if w.To >= in.From && w.From <= in.To {
			old = append(old, Span{max(w.From, in.From), min(w.To, in.To)})
		}
	}
	l.cut(in)
	for _, e := range found {
		for _, w := range old {
			if e.Order >= w.From && e.Order <= w.To { // not taken meanwhile
				l.add(Span{e.Order, e.Order})
			}
		}
	}
	l.top, l.dirty = max(l.top, in.To), true
}

// catchesUp is the key of a session's mark: the order up to which its client reads the archive itself.
type catchesUp struct{}

// CatchesUp tells that a session's client reads the archive up to an order itself; math.MaxInt64 for up to where it becomes available (XEP-0386
// §3.2). It does not get that from the spool, where it waits for others until a client has got it.
func (m *Module) CatchesUp(s xmpp.Session, order int64) { s.SetValue(catchesUp{}, order) }

// begins is the order from which on a session gets the spool.
func begins(s xmpp.Session) int64 {
	order, _ := s.Value(catchesUp{}).(int64)
	if order == math.MaxInt64 {
		return order
	}
	return order + 1
}
