package s2s

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/listen"

	"mellium.im/xmpp/stanza"
)

// item is a stanza on its way to another server, until that has it or its sender the error.
type item struct {
	// Static once it is in a link.
	stanza *xmpp.Stanza
	since  time.Time // when it was taken, also by the process before this one
	row    int64     // of the store; 0: it is only in memory

	// Owned by whatever has the item: a link, a session, a connection.
	end   time.Time // when its sender gets the error, unless it is sent before
	again bool      // the peer may have it: it was written to a stream that was lost
	ends  int       // streams that the peer has ended with an error while it was on them

	over atomic.Bool // nobody needs it any more
}

const (
	nsHints      = "urn:xmpp:hints"                        // XEP-0334
	nsChatStates = "http://jabber.org/protocol/chatstates" // XEP-0085
)

// lasting reports whether a stanza survives a crash: what an account has sent, and was told is handled. A headline is for those who are there (RFC 6121
// §5.2.2), a chat state is stale when it arrives late (XEP-0085 §5.5), and no-store asks for nothing else (XEP-0334 §4.2). IQs have senders who wait for answers, and presence is told anew.
func (s *Server) lasting(st *xmpp.Stanza) bool {
	if !s.account(st) {
		return false
	}
	switch st.Kind {
	case xmpp.Presence:
		return subscribes(st) // RFC 6121 §3: both rosters must hear of it
	case xmpp.Message:
		switch st.MessageType() {
		case stanza.HeadlineMessage, stanza.ErrorMessage:
			return false
		}
		passing := len(st.Spans()) > 0
		for _, c := range st.Spans() {
			switch {
			case c.Space == nsHints && c.Local == "no-store":
				return false
			case c.Space != nsChatStates && c.Space != nsHints && (c.Space != "" || c.Local != "thread"):
				passing = false
			}
		}
		return !passing
	}
	return false
}

// account reports whether a stanza is from an account.
func (s *Server) account(st *xmpp.Stanza) bool {
	return st.From.Localpart() != "" && s.router.Serves(st.From.Domainpart())
}

func subscribes(st *xmpp.Stanza) bool {
	switch st.Type {
	case "subscribe", "subscribed", "unsubscribe", "unsubscribed":
		return st.Kind == xmpp.Presence
	}
	return false
}

// record has an item stored, if it is a lasting one: it counts as handled for its sender when the row is durable. It is delivered meanwhile.
func (s *Server) record(ctx context.Context, it *item) error {
	if !s.lasting(it.stanza) {
		return nil
	}
	row, commit := s.store.AppendUnsent(it.stanza, it.since)
	if row == 0 {
		return commit.Wait(ctx) // not even queued: it goes no further
	}
	it.row, it.since = row, time.UnixMicro(row) // as the next process will have it
	written := func(err error) {
		if err == nil || it.over.Load() || errors.Is(err, auth.ErrNoAccount) {
			return
		}
		// As with an archive: it may arrive, and the sender may send it again, which is better than to believe that nothing can happen to it.
		s.log.Error("store stanza to another server", "err", err)
		s.router.Fail(xmpp.Detach(ctx), it.stanza, xmpp.ErrInternal)
	}
	if xmpp.BatchFrom(ctx) != nil {
		xmpp.Await(ctx, commit, written)
		return nil
	}
	commit.Then(func(err error) { // nobody counts
		if err != nil {
			s.start(func() { _ = listen.Guard(s.log, nil, func() error { written(err); return nil }) })
		}
	})
	return nil
}

// done is called for items that nobody needs any more: the peer has them, or their senders an error. Their rows go with the next round of forget.
func (s *Server) done(list ...*item) { s.pending.done(list) }

const (
	forgetEvery = time.Second // chosen: what a crash makes come twice is of that time, and a transaction a second costs nothing
	forgetMost  = 1000        // rows. chosen: a transaction of some milliseconds
	// maxFinished bounds the rows that the store does not take. chosen: 8 MB; those beyond are sent again after the next start.
	maxFinished = 1 << 20
)

// forget removes the rows of what is done, now and then.
func (s *Server) forget() {
	tick := time.NewTicker(forgetEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
			_ = listen.Guard(s.log, nil, func() error { return s.forgetAll(s.work) })
		}
	}
}

func (s *Server) forgetAll(ctx context.Context) error {
	rows := s.pending.rows()
	for len(rows) > 0 {
		n := min(len(rows), forgetMost)
		if err := s.store.RemoveUnsent(ctx, rows[:n]); err != nil {
			s.pending.back(rows)
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// maxAge is how long a stored stanza is sent on. chosen: a server that stands still over a weekend; who wrote it hears of one that is older.
const maxAge = 72 * time.Hour

// Restore sends on what the server could not send before it ended the last time, in whatever way. What is too old goes back.
func (s *Server) Restore(ctx context.Context) error {
	var old, list, gone []*item
	now := time.Now()
	for after := int64(0); ; {
		page, err := s.store.Unsent(ctx, after, forgetMost)
		if err != nil {
			return err
		}
		for _, u := range page {
			after = u.Row
			it := &item{stanza: u.Stanza, since: u.Since, row: u.Row, again: true}
			if it.since.IsZero() || it.since.After(now) {
				it.since = now
			}
			switch {
			case u.Stanza == nil || !s.ours(u.Stanza.From.Domainpart()) || s.ours(u.Stanza.To.Domainpart()): // deleted; a domain is gone, or here now
				it.stanza = new(xmpp.Stanza)
				gone = append(gone, it)
			case now.Sub(it.since) > maxAge:
				old = append(old, it)
			default:
				list = append(list, it)
			}
			s.pending.add(it)
		}
		if len(page) < forgetMost {
			break
		}
	}
	s.done(gone...)
	s.fail(old, xmpp.ErrRemoteTimeout)
	order, _ := pairs(list)
	for _, p := range order {
		// A network that is not there yet, when the machine has just started, is no reason to give everything back at once.
		if l := s.link(p); l != nil {
			l.mu.Lock()
			l.lastUp = now
			l.mu.Unlock()
		}
	}
	s.requeue(list)
	return nil
}

// lateBy is from when on a message says when it was sent. chosen: people do not notice less on a clock that shows minutes.
const lateBy = 10 * time.Second

// nsAgain is of <again/>, by which another Balcony knows what to compare with what it has got.
const nsAgain = "urn:balcony:s2s:0"

// sent is the stanza as it goes to the peer now. One that is late has the time at which it was sent (XEP-0203 §2), and so has one that the peer may have
// already, which says that.
func (it *item) sent(now time.Time) *xmpp.Stanza {
	st := it.stanza
	if st.Kind != xmpp.Message || !it.again && now.Sub(it.since) < lateBy {
		return st
	}
	// XEP-0082 §3.2; so exactly because it tells two messages apart.
	st = st.Append(xmpp.El(xmpp.NSDelay, "delay", "from", st.From.Domainpart(), "stamp", it.since.UTC().Format("2006-01-02T15:04:05.000000Z")))
	if it.again {
		st = st.Append(xmpp.El(nsAgain, "again"))
	}
	return st
}

// recent are the messages that came from other servers, as far as they are remembered: what a server sends again because it was killed, or lost a
// stream that cannot be resumed, is not delivered twice.
type recent struct {
	seed maphash.Seed

	mu       sync.Mutex
	now, old map[uint64]int64 // guarded by mu: 0, or of what came again the beginning of its stream in Unix nanoseconds
}

func newRecent() *recent { return &recent{seed: maphash.MakeSeed(), now: make(map[uint64]int64)} }

// maxRecent is half of what is remembered, of all servers. chosen: what two sessions may have unacknowledged several times, in 6 MB.
const maxRecent = 64 << 10

// repeated reports whether a message is one that came before, and notes it; else it returns the message as it is routed. Only one that its own server
// sends again is compared, by its addresses, id and content: who says the same once more is left alone. The stream began at since.
func (r *recent) repeated(st *xmpp.Stanza, since time.Time) (rest *xmpp.Stanza, repeated bool) {
	again := st.Has(nsAgain, "again")
	if again {
		st = st.Without(func(c xmpp.Span) bool { return c.Space == nsAgain })
	}
	if st.Kind != xmpp.Message || st.ID == "" {
		return st, false
	}
	bare, stamp := st, ""
	if st.Has(xmpp.NSDelay, "delay") {
		at := -1
		for _, c := range st.Children() {
			if c.Space == xmpp.NSDelay && c.Local == "delay" && c.Attr("from") == st.From.Domainpart() {
				at, stamp = c.Start, c.Attr("stamp")
			}
		}
		bare = st.Without(func(c xmpp.Span) bool { return c.Start == at })
	}
	var h maphash.Hash
	h.SetSeed(r.seed)
	for _, part := range []string{st.From.String(), st.To.String(), st.Type, st.ID} {
		_, _ = h.WriteString(part)
		_ = h.WriteByte(0)
	}
	_, _ = h.Write(bare.PayloadBytes())
	key := h.Sum64()
	_ = h.WriteByte(0)
	_, _ = h.WriteString(stamp)
	exact := h.Sum64()
	r.mu.Lock()
	defer r.mu.Unlock()
	began, known := r.get(key)
	if !again {
		if since.UnixNano() < began {
			return st, true // on an old stream, after the server has begun anew and sent it again
		}
		r.note(key, 0)
		return st, false
	}
	if _, twice := r.get(exact); twice {
		return st, true
	}
	r.note(exact, since.UnixNano())
	if known && began == 0 {
		// It stands for one: two messages with one id and one content are two.
		delete(r.now, key)
		delete(r.old, key)
		return st, true
	}
	r.note(key, since.UnixNano())
	return st, false
}

func (r *recent) get(key uint64) (began int64, known bool) {
	if began, known = r.now[key]; !known {
		began, known = r.old[key]
	}
	return began, known
}

func (r *recent) note(key uint64, began int64) {
	if len(r.now) >= maxRecent {
		r.now, r.old = make(map[uint64]int64), r.now
	}
	r.now[key] = began
}
