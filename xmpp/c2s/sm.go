package c2s

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
	streamerr "mellium.im/xmpp/stream"
)

var errUnacknowledged = errors.New("the client does not acknowledge what it receives")

// askForAck is the server's <r/>: XEP-0198 §4. One is under way at a time; the next follows an answer that leaves something unacknowledged.
var askForAck = []byte("<r xmlns='" + xmpp.NSSM + "'/>")

// Management bounds stream management (XEP-0198).
type Management struct {
	// Stanzas is how many stanzas may wait for a client's acknowledgement.
	Stanzas int
	// Bytes is how large they may be altogether.
	Bytes int
	// Resumption is how long a lost session waits for its client.
	Resumption time.Duration
}

// management is the state of stream management on a session. It is guarded by the session's mu.
type management struct {
	id     string // SM-ID: opens the session to its account, so it is not to be guessed
	resume bool
	max    time.Duration
	in     uint32 // stanzas of the client that were handled: everything that they must leave behind is durable
	queue  smQueue
	asked  bool // an <r/> is under way
}

// full reports whether the queue has reached its bound.
func (m *management) full(l *Management) bool {
	return len(m.queue.items) > l.Stanzas || m.queue.bytes > l.Bytes
}

// manage handles a nonza of stream management on a bound stream.
func (c *conn) manage(ctx context.Context, n *stream.Nonza) error {
	s := c.session
	switch n.Local {
	case "enable":
		return c.enable(n)
	case "r":
		s.mu.Lock()
		on := s.sm != nil
		s.mu.Unlock()
		if !on {
			return c.unexpected()
		}
		c.ackWanted = true // answered when everything that came before is durable
		return nil
	case "a":
		return c.acknowledged(ctx, n)
	case "resume":
		// XEP-0198 §5: instead of binding, not after it.
		c.out.Load().append(entry{raw: xmpp.SMFailed(stanza.UnexpectedRequest, "").AppendTo(nil, "")})
		c.batch.Add(c.out.Load())
		return nil
	}
	return streamerr.UnsupportedStanzaType
}

// unexpected answers stream management that was not enabled.
func (c *conn) unexpected() error {
	c.out.Load().append(entry{raw: xmpp.SMFailed(stanza.UnexpectedRequest, "").AppendTo(nil, "")})
	c.batch.Add(c.out.Load())
	return nil
}

// newManagement makes the state of stream management as the client asks for it with <enable/>, and the answer (XEP-0198 §3).
func (c *conn) newManagement(resume, max string) (*management, *xmpp.Element) {
	l := &c.cfg.Management
	m := &management{queue: smQueue{got: c.server.got(c.account)}}
	if resume != "true" && resume != "1" || l.Resumption <= 0 {
		return m, xmpp.El(xmpp.NSSM, "enabled")
	}
	m.resume, m.max = true, l.Resumption
	if n, err := strconv.ParseUint(max, 10, 31); err == nil && time.Duration(n)*time.Second < m.max {
		m.max = time.Duration(n) * time.Second
	}
	m.id = rand.Text()
	return m, xmpp.El(xmpp.NSSM, "enabled", "id", m.id, "resume", "true", "max", strconv.Itoa(int(m.max/time.Second)))
}

// enable is XEP-0198 §3. Stanzas of the client count from here, the server's from <enabled/>.
func (c *conn) enable(n *stream.Nonza) error {
	s := c.session
	m, enabled := c.newManagement(n.Attr("resume"), n.Attr("max"))
	s.mu.Lock()
	if s.sm != nil {
		s.mu.Unlock()
		return xmpp.StreamText(streamerr.PolicyViolation, "stream management is enabled already") // XEP-0198 §3: a second attempt ends the stream
	}
	s.sm = m
	o := c.out.Load()
	o.append(entry{raw: enabled.AppendTo(nil, "")})
	s.mu.Unlock()
	if m.resume {
		s.server.manage(s, m.id)
	}
	c.counting, c.received = true, 0
	c.batch.Add(o)
	return nil
}

// acknowledged is the client's <a/>: XEP-0198 §4.
func (c *conn) acknowledged(ctx context.Context, n *stream.Nonza) error {
	h, err := strconv.ParseUint(n.Attr("h"), 10, 32)
	s := c.session
	s.mu.Lock()
	defer s.mu.Unlock()
	before := 0
	if s.sm != nil {
		before = len(s.sm.queue.items)
	}
	switch {
	case s.sm == nil:
		return nil // an answer to nothing
	case err != nil:
		return xmpp.StreamText(streamerr.BadFormat, "h is not a number")
	case s.sm.queue.behind(uint32(h)):
		return nil // XEP-0198 §4: only more than before says anything
	case !s.sm.queue.ack(uint32(h)):
		return c.tooHigh(uint32(h), s.sm.queue.sent())
	}
	// Asked again when something has moved: a client that counts wrong would be asked without end.
	left := len(s.sm.queue.items)
	s.sm.asked = left > 0 && left < before
	if s.sm.asked {
		o := c.out.Load()
		o.append(entry{raw: askForAck})
		c.batch.Add(o)
	}
	return nil
}

// tooHigh is the stream error for an h that was never reached, for finish.
func (c *conn) tooHigh(h, sent uint32) error {
	e, detail := xmpp.SMTooHigh(h, sent)
	c.detail = detail
	return e
}

// resume takes over the session that n names for this connection: XEP-0198 §5. A nil error without success means that the client was told
// and may bind.
func (c *conn) resume(ctx context.Context, n *stream.Nonza) (ok bool, err error) {
	h, herr := strconv.ParseUint(n.Attr("h"), 10, 32)
	if herr != nil {
		return false, c.send(xmpp.SMFailed(stanza.BadRequest, "").AppendTo(nil, ""))
	}
	raw, failed, err := c.take(ctx, n.Attr("previd"), uint32(h))
	if failed == nil && err == nil {
		c.server.returned(c.session.bound)
	}
	if failed != nil {
		return false, c.send(failed.AppendTo(nil, ""))
	}
	if err != nil {
		return false, err
	}
	return true, c.send(raw)
}

// take makes this connection that of the session with an SM-ID. It returns <resumed/>, or <failed/>, or a stream error. What the client has
// not got waits in the outbox.
func (c *conn) take(ctx context.Context, id string, h uint32) (resumed []byte, failed *xmpp.Element, err error) {
	s, last, known := c.server.managed(id, c.account)
	if s == nil {
		count := ""
		if known {
			count = strconv.FormatUint(uint64(last), 10) // XEP-0198 §5: it has timed out
		}
		return nil, xmpp.SMFailed(stanza.ItemNotFound, count), nil
	}
	// One resumption at a time: the next one takes the session from this one.
	select {
	case s.takeover <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	defer func() { <-s.takeover }()
	s.mu.Lock()
	old := s.conn
	s.taken = old != nil
	s.mu.Unlock()
	if old != nil {
		old.Close(streamerr.Conflict) // XEP-0198 §5: the former stream is still open
		select {
		case <-old.done:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = false
	s.expires = time.Now().Add(s.sm.max) // unless this succeeds
	if err != nil {
		return nil, nil, err
	}
	if s.ending {
		return nil, xmpp.SMFailed(stanza.ItemNotFound, strconv.FormatUint(uint64(s.sm.in), 10)), nil
	}
	if s.sm.queue.behind(h) {
		// What the client had acknowledged and now misses is gone. It may begin anew.
		return nil, xmpp.SMFailed(stanza.ItemNotFound, strconv.FormatUint(uint64(s.sm.in), 10)), nil
	}
	if !s.sm.queue.ack(h) {
		return nil, nil, c.tooHigh(h, s.sm.queue.sent())
	}
	o := c.newOutbox()
	now, domain := time.Now(), s.bound.JID().Domainpart()
	for i, st := range s.sm.queue.items {
		o.force(entry{stanza: delayed(st, s.sm.queue.times[i], now, domain)}) // its stanzas are in memory already: the bound of an outbox does not hold for them
	}
	s.sm.asked = len(s.sm.queue.items) > 0
	if s.sm.asked {
		o.force(entry{raw: askForAck})
	}
	c.out.Store(o)
	c.session, c.counting = s, true
	s.conn, s.last = c, c.link()
	return xmpp.El(xmpp.NSSM, "resumed", "previd", id, "h", strconv.FormatUint(uint64(s.sm.in), 10)).AppendTo(nil, ""), nil, nil
}

// got is what a queue or an outbox of an account tells of a stanza that its client has got.
func (s *Server) got(account jid.JID) func(*xmpp.Stanza) {
	return func(st *xmpp.Stanza) { s.router.Received(account, st) }
}

// manage makes a session one that can be resumed.
func (s *Server) manage(sess *session, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resumable[id] = sess
}

// unmanage forgets a session that has ended, and remembers how far it had come.
func (s *Server) unmanage(sess *session) {
	sess.mu.Lock()
	m := sess.sm
	var id string
	var in uint32
	if m != nil {
		id, in = m.id, m.in
	}
	sess.mu.Unlock()
	if id == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.resumable, id)
	s.ended = append(s.ended, endedSession{id, sess.bound.Key(), in})
	if len(s.ended) > maxEnded {
		s.ended = append(s.ended[:0], s.ended[maxEnded/2:]...)
	}
}

// endedSession is what is remembered of a session that can no longer be resumed, so that its client learns which of its stanzas were handled.
type endedSession struct {
	id, account string
	in          uint32
}

const maxEnded = 4096 // chosen: about half a megabyte

// managed is the session with an SM-ID, if it is of that account. known tells that there was one, which had handled last stanzas.
func (s *Server) managed(id string, account jid.JID) (sess *session, last uint32, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sess = s.resumable[id]; sess != nil && sess.bound.Bare().Equal(account) {
		return sess, 0, true
	}
	key := account.String()
	for i := len(s.ended) - 1; i >= 0; i-- {
		if e := s.ended[i]; e.id == id && e.account == key {
			return nil, e.in, true
		}
	}
	return nil, 0, false
}

// expired returns the sessions whose time to be resumed is over, for their caller to end.
func (s *Server) expired(now time.Time) []*session {
	s.mu.Lock()
	list := make([]*session, 0, len(s.resumable))
	for _, sess := range s.resumable {
		list = append(list, sess)
	}
	s.mu.Unlock()
	var over []*session
	for _, sess := range list {
		sess.mu.Lock()
		if sess.conn == nil && !sess.ending && !sess.taken && now.After(sess.expires) {
			sess.ending = true
			over = append(over, sess)
		}
		sess.mu.Unlock()
	}
	return over
}
