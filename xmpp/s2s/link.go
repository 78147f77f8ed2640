package s2s

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/listen"

	"mellium.im/xmpp/stanza"
	streamerr "mellium.im/xmpp/stream"
)

// link is what waits to be sent from one domain of this server to one of another, and the connection that it goes over: one for the pair.
type link struct {
	// Static after construction.
	server *Server
	pair   pair

	mu sync.Mutex
	// Guarded by mu.
	queue   []*item
	bytes   int
	conn    *conn    // that stanzas go over; nil: none
	running bool     // run is at it
	asker   string   // whose turn to connect is waited for
	next    *item    // of one who came meanwhile, and may have it earlier; nil: none
	stop    func()   // ends the wait; nil: none
	resume  *session // of a connection of this server's that was lost
	hold    *session // of a connection of the peer's that was lost, whose return is waited for
	until   time.Time
	fails   int
	err     error // for stanzas that come before the next attempt
	why     string
	lastUp  time.Time // when a connection worked last
	gone    bool      // no longer in the table
}

// Times of attempts. chosen: a peer that restarts is there again within seconds, one that is gone is not asked more than once in five minutes.
const (
	firstDelay = time.Second
	lastDelay  = 5 * time.Minute
	// keepDelay bounds the delay while stanzas wait for a connection that has worked before.
	keepDelay = 10 * time.Second
	// holdTime is how long stanzas wait for a peer to resume its stream before this server opens one.
	holdTime = 20 * time.Second
	// ackTimeout is how long a peer may take to acknowledge what it was sent.
	ackTimeout = 60 * time.Second
)

// admit returns the error for the sender of so many bytes more. It is called with mu held.
func (l *link) admit(cfg *Config, size int) error {
	switch {
	case l.idle() && time.Now().Before(l.until):
		return l.err
	case l.bytes+size > cfg.Queue && l.bytes > 0:
		return xmpp.Fail(stanza.Wait, stanza.ResourceConstraint, "too much waits for the other server")
	}
	return nil
}

// idle reports whether nothing carries stanzas, or is about to. It is called with mu held.
func (l *link) idle() bool { return l.conn == nil && !l.running && l.hold == nil }

// enqueue takes a stanza, or returns the error for its sender. gone means that the link has ended and another one is to be asked for.
func (l *link) enqueue(ctx context.Context, cfg *Config, it *item) (err error, gone bool) {
	size := it.stanza.Size()
	l.mu.Lock()
	if l.gone {
		l.mu.Unlock()
		return nil, true
	}
	if err := l.admit(cfg, size); err != nil {
		l.mu.Unlock()
		return err, false
	}
	it.end = time.Now().Add(cfg.QueueTime)
	l.queue = append(l.queue, it)
	l.bytes += size
	idle, up := l.idle(), l.conn != nil
	if l.stop != nil {
		if who := sender(it); who != l.asker && l.server.turns.free(who) {
			l.next = it
			l.stop()
			l.stop = nil
		}
	}
	l.mu.Unlock()
	switch {
	case idle:
		l.kick()
	case up:
		if b := xmpp.BatchFrom(ctx); b != nil {
			b.Add(l)
		} else {
			l.Flush()
		}
	}
	return nil, false
}

// Flush is xmpp.Flusher.
func (l *link) Flush() {
	l.mu.Lock()
	c := l.conn
	l.mu.Unlock()
	if c != nil {
		l.pump(c)
	}
}

// pump gives to c what it takes of what waits.
func (l *link) pump(c *conn) {
	n := 0
	l.mu.Lock()
	for len(l.queue) > 0 && l.conn == c && c.ready() {
		it := l.queue[0]
		size := it.stanza.Size()
		if !c.deliver(it) {
			break
		}
		l.queue[0] = nil
		l.queue = l.queue[1:]
		l.bytes -= size
		n++
	}
	if len(l.queue) == 0 {
		l.queue, l.bytes = nil, 0
	}
	l.mu.Unlock()
	if n == 0 {
		return
	}
	c.out.flush()
	if sess := c.managed(); sess != nil {
		c.askAck(sess)
	}
}

// front puts items back that were taken and did not reach the peer, before everything else.
func (l *link) front(list []*item) (gone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return true
	}
	l.prepend(list)
	return false
}

// prepend is front with mu held.
func (l *link) prepend(list []*item) {
	if len(list) == 0 {
		return
	}
	end := time.Now().Add(l.server.config.Load().QueueTime)
	for _, it := range list {
		it.end = end
		l.bytes += it.stanza.Size()
	}
	l.queue = append(slices.Clone(list), l.queue...)
}

// kick begins to connect, if there is something to send and nobody is at it.
func (l *link) kick() {
	l.mu.Lock()
	wanted := len(l.queue) > 0 || l.resume != nil
	if l.conn != nil || l.running || l.hold != nil || l.gone || !wanted {
		l.mu.Unlock()
		return
	}
	l.running = true
	l.mu.Unlock()
	if !l.server.start(l.run) {
		l.mu.Lock()
		l.running = false
		l.mu.Unlock()
	}
}

// run connects and reads until there is nothing more to send, or no hope.
func (l *link) run() {
	s := l.server
	for {
		l.mu.Lock()
		resume := l.resume
		l.mu.Unlock()
		cfg := s.config.Load()
		leave, err := l.turn(cfg)
		if err != nil {
			if !l.missed(err) {
				return
			}
			continue
		}
		ctx, cancel := context.WithTimeout(s.ctx, cfg.ConnectTimeout)
		var c *conn
		err = listen.Guard(s.log, nil, func() (err error) {
			c, err = s.dial(ctx, cfg, l.pair, toSend, resume, nil)
			return err
		})
		cancel()
		leave()
		if err == nil {
			s.metrics.connects.WithLabelValues("success").Inc()
			l.serve(c, resume)
			if !l.again() {
				return
			}
			continue
		}
		s.metrics.connects.WithLabelValues("failure").Inc()
		if !l.failed(err) {
			return
		}
	}
}

// sender is who waits for a stanza to be sent; nobody in particular for the server itself.
func sender(it *item) string {
	if it.stanza.From.Localpart() == "" {
		return ""
	}
	return it.stanza.From.Bare().String()
}

// turn waits until the one who wants to send something first may have another domain dialled.
func (l *link) turn(cfg *Config) (leave func(), err error) {
	l.mu.Lock()
	if l.next != nil {
		l.asker, l.next = sender(l.next), nil
	} else if l.asker = ""; len(l.queue) > 0 {
		l.asker = sender(l.queue[0])
	}
	who := l.asker
	ctx, cancel := context.WithTimeout(l.server.ctx, cfg.QueueTime)
	defer cancel()
	l.stop = cancel
	l.mu.Unlock()
	leave, err = l.server.turns.enter(ctx, who)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop = nil
	return leave, err
}

// missed is called when there was no turn. It reports whether to try again: somebody else has come, or is there. That a sender has too many says
// nothing of the domain, so nothing is put off for others.
func (l *link) missed(err error) (again bool) {
	s := l.server
	l.mu.Lock()
	var left []*item
	if errors.Is(err, errTurn) {
		keep := l.queue[:0:0]
		for _, it := range l.queue {
			if sender(it) == l.asker {
				left = append(left, it)
				l.bytes -= it.stanza.Size()
			} else {
				keep = append(keep, it)
			}
		}
		l.queue = keep
	}
	again = s.ctx.Err() == nil && l.conn == nil && (len(l.queue) > 0 || l.resume != nil)
	l.running = again
	l.mu.Unlock()
	s.fail(left, xmpp.Fail(stanza.Wait, stanza.ResourceConstraint, errTurn.Error()))
	return again
}

// serve is the life of a connection that this server has opened.
func (l *link) serve(c *conn, resume *session) {
	s := l.server
	var back []*item // of a stream that was not resumed
	if resume != nil && c.managed() != resume {
		back = repeat(resume.take(), nil)
	}
	l.mu.Lock()
	l.resume = nil
	l.fails, l.err, l.why, l.until = 0, nil, "", time.Time{}
	l.lastUp = time.Now()
	spare := l.conn != nil
	l.prepend(back) // in one step with the connection: nothing that comes meanwhile goes before it
	if !spare {
		l.conn = c
	}
	l.mu.Unlock()
	if !spare {
		c.mu.Lock()
		c.links = append(c.links, l)
		c.mu.Unlock()
		l.pump(c)
		if sess := c.managed(); sess != nil {
			c.askAck(sess)
		}
	} else {
		c.retire(errSpare) // the peer's own stream was quicker
	}
	s.lost(c, c.run(c.read))
}

// again reports whether run goes on after a connection has ended.
func (l *link) again() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil && (len(l.queue) > 0 || l.resume != nil) && l.server.ctx.Err() == nil {
		return true
	}
	l.running = false
	return false
}

// failed is called when no connection could be made. It reports whether to try again, after it has waited.
func (l *link) failed(err error) (again bool) {
	s := l.server
	cfg := s.config.Load()
	s.log.Info("no stream to another server", "domain", l.pair.remote, "for", l.pair.local, "err", fmt.Sprintf("%.256q", err.Error()))
	now := time.Now()
	l.mu.Lock()
	l.fails++
	l.err, l.why = refusal(err), err.Error()
	delay := backoff(l.fails)
	keep := s.ctx.Err() != nil || now.Sub(l.lastUp) < cfg.QueueTime && l.conn == nil
	var left []*item
	var lost *session
	if !keep {
		left, l.queue, l.bytes = l.queue, nil, 0
		lost, l.resume = l.resume, nil
		l.until, l.running = now.Add(delay), false
	}
	reason := l.err
	l.mu.Unlock()
	if !keep {
		var list []*item
		if lost != nil {
			list = lost.take()
		}
		s.fail(append(list, left...), reason)
		return false
	}
	timer := time.NewTimer(min(delay, keepDelay))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.ctx.Done():
		l.mu.Lock()
		l.running = false
		l.mu.Unlock()
		return false
	}
	return l.again()
}

// backoff is the delay after so many failures in a row, with jitter so that the streams of many do not come back at once.
func backoff(fails int) time.Duration {
	d := firstDelay << min(fails-1, 16)
	d = min(d, lastDelay)
	return d/2 + rand.N(d)
}

// refusal is the stanza error for what could not be sent: RFC 6120 §8.3.3.16, §8.3.3.17; XEP-0220 §2.1.1.
func refusal(err error) error {
	var ce *connectError
	var cert *certificateError
	var de dialbackError
	var pe peerError
	var dns *net.DNSError
	switch {
	case errors.Is(err, errNotAllowed):
		return xmpp.ErrNotAllowed
	case errors.Is(err, errDialbackInvalid):
		return xmpp.ErrInternal // XEP-0220 §2.1.1
	case errors.As(err, &de):
		return xmpp.ErrRemoteTimeout // XEP-0220 §2.5
	case errors.As(err, &pe) && (pe.condition == streamerr.HostUnknown.Err || pe.condition == streamerr.HostGone.Err):
		return xmpp.ErrRemoteNotFound
	case errors.As(err, &cert):
		return xmpp.Fail(stanza.Cancel, stanza.RemoteServerTimeout, "the certificate of the other server is not valid for its domain")
	case errors.Is(err, errNoTLS):
		return xmpp.Fail(stanza.Cancel, stanza.RemoteServerTimeout, "the other server does not encrypt")
	case errors.As(err, &ce) && ce.dns && (errors.Is(err, errNoService) || errors.Is(err, errNoAddress) || errors.As(err, &dns) && dns.IsNotFound):
		return xmpp.ErrRemoteNotFound // it "does not exist or cannot be resolved"
	}
	return xmpp.ErrRemoteTimeout
}

// attach makes c, a connection of the peer's, the one that stanzas go over, unless there is another one.
func (l *link) attach(c *conn, back *session) (ok bool) {
	l.mu.Lock()
	free := !l.gone && l.conn == nil && l.resume == nil && (l.hold == nil || l.hold == back)
	if free {
		l.conn, l.hold = c, nil
		l.fails, l.err, l.why, l.until = 0, nil, "", time.Time{}
		l.lastUp = time.Now()
	}
	l.mu.Unlock()
	if !free {
		return false
	}
	c.mu.Lock()
	over := c.reason != nil
	if !over {
		c.links = append(c.links, l)
	}
	c.mu.Unlock()
	if over { // nobody would take it away again
		l.detach(c, nil, nil)
		l.kick()
		return false
	}
	l.pump(c)
	return true
}

// detach takes a connection away that has ended, and in the same step puts back what it has not brought to the peer: what comes next goes behind it,
// whatever it goes over. sess is what may be resumed. gone means that the link has ended and took nothing.
func (l *link) detach(c *conn, sess *session, back []*item) (gone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return true
	}
	l.prepend(back)
	if l.conn != c {
		return false
	}
	l.conn, l.lastUp = nil, time.Now()
	switch {
	case sess == nil:
	case c.outgoing:
		l.resume = sess
	default:
		l.hold = sess
	}
	return false
}

// release ends the waiting for a session of the peer's that is over.
func (l *link) release(sess *session) {
	l.mu.Lock()
	if l.hold == sess {
		l.hold = nil
	}
	l.mu.Unlock()
	l.kick()
}

// expire gives the senders their errors for what has waited too long.
func (l *link) expire(now time.Time) {
	var old []*item
	l.mu.Lock()
	reason := l.err
	for len(l.queue) > 0 && now.After(l.queue[0].end) {
		old = append(old, l.queue[0])
		l.bytes -= l.queue[0].stanza.Size()
		l.queue = l.queue[1:]
	}
	l.mu.Unlock()
	if reason == nil {
		reason = xmpp.ErrRemoteTimeout
	}
	l.server.fail(old, reason)
}

// leave reports whether nothing depends on the link; then it takes nothing any more.
func (l *link) leave(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := l.until
	if l.fails > 0 {
		end = end.Add(lastDelay) // the next failure counts with those before
	}
	l.gone = l.gone || l.unused() && now.After(end)
	return l.gone
}

// unused reports whether there is nothing to send and no connection. It is called with mu held.
func (l *link) unused() bool {
	return l.conn == nil && !l.running && l.hold == nil && l.resume == nil && len(l.queue) == 0
}

// describe is a stanza error in words.
func describe(err error) string {
	e, _ := xmpp.AsStanzaError(err)
	text := string(e.Stanza.Condition)
	if t := e.Stanza.Text["en"]; t != "" {
		text += " (" + t + ")"
	}
	return text
}
