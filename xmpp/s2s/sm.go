package s2s

import (
	"context"
	"crypto/rand"
	"strconv"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/listen"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/stanza"
	streamerr "mellium.im/xmpp/stream"
)

// askForAck is this server's <r/>: XEP-0198 §4. One is under way at a time; the next follows an answer that leaves something unacknowledged.
var askForAck = []byte("<r xmlns='" + xmpp.NSSM + "'/>")

// manage handles a nonza of stream management.
func (c *conn) manage(ctx context.Context, n *stream.Nonza) error {
	_, any := c.mayUse(pair{})
	sess := c.managed()
	switch n.Local {
	case "enable":
		switch {
		case c.outgoing:
			return streamerr.UnsupportedStanzaType
		case !any:
			return c.sendElement(xmpp.SMFailed(stanza.UnexpectedRequest, "")) // XEP-0198 §3: after authentication
		case sess != nil:
			return xmpp.StreamText(streamerr.PolicyViolation, "stream management is enabled already") // XEP-0198 §3
		}
		return c.enable(n)
	case "resume":
		if c.outgoing || !any || sess != nil {
			return c.sendElement(xmpp.SMFailed(stanza.UnexpectedRequest, ""))
		}
		return c.resume(ctx, n)
	case "r":
		if sess == nil {
			return c.sendElement(xmpp.SMFailed(stanza.UnexpectedRequest, ""))
		}
		c.wanted = true // answered when everything that came before is durable
		return nil
	case "a":
		return c.acknowledged(n)
	case "enabled":
		if !c.outgoing || sess == nil {
			return streamerr.UnsupportedStanzaType
		}
		c.enabled(n, sess)
		return nil
	case "failed":
		if !c.outgoing || sess == nil {
			return nil
		}
		return c.refused(sess)
	}
	return streamerr.UnsupportedStanzaType
}

// enable is XEP-0198 §3 as the receiving side.
func (c *conn) enable(n *stream.Nonza) error {
	sess := &session{conn: c, confirmed: true, domain: c.identity()}
	el := xmpp.El(xmpp.NSSM, "enabled")
	if r := n.Attr("resume"); (r == "true" || r == "1") && c.cfg.Management.Resumption > 0 {
		sess.id, sess.max = rand.Text(), c.cfg.Management.Resumption
		el = xmpp.El(xmpp.NSSM, "enabled", "id", sess.id, "resume", "true", "max", strconv.Itoa(int(sess.max/time.Second)))
		if !c.server.keep(sess) {
			sess.id, el = "", xmpp.El(xmpp.NSSM, "enabled")
		}
	}
	c.nop.Lock()
	defer c.nop.Unlock()
	c.mu.Lock()
	c.session = sess
	c.mu.Unlock()
	c.received = 0 // the peer counts from <enable/>
	return c.sendElement(el)
}

// identity is for whom the peer has authenticated: the domains of the header, or a pair that dialback has proven.
func (c *conn) identity() pair {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.proven[c.domains]; ok {
		return c.domains
	}
	for p := range c.proven {
		return p
	}
	return pair{}
}

// askEnable begins stream management as the initiating side; what is sent from here counts.
func (c *conn) askEnable() error {
	sess := &session{conn: c, domain: c.domains}
	c.nop.Lock()
	defer c.nop.Unlock()
	c.mu.Lock()
	c.session = sess
	c.mu.Unlock()
	return c.sendElement(xmpp.El(xmpp.NSSM, "enable", "resume", "true"))
}

// enabled is the peer's answer. It counts what this server sends from <enable/>, and this server what it sends from here.
func (c *conn) enabled(n *stream.Nonza, sess *session) {
	sess.mu.Lock()
	sess.confirmed = true
	if r := n.Attr("resume"); (r == "true" || r == "1") && n.Attr("id") != "" && len(n.Attr("id")) <= maxSMID {
		sess.id, sess.max = n.Attr("id"), time.Hour
		if s, err := strconv.ParseUint(n.Attr("max"), 10, 31); err == nil {
			sess.max = min(sess.max, time.Duration(s)*time.Second)
		}
	}
	sess.mu.Unlock()
	c.received = 0
	c.askAck(sess)
}

const maxSMID = 4000 // XEP-0198 §3: 4000 bytes

// refused ends the attempt at stream management: what was sent was sent without it.
func (c *conn) refused(sess *session) error {
	c.nop.Lock()
	c.mu.Lock()
	c.session = nil
	c.mu.Unlock()
	for _, it := range sess.take() {
		c.unconfirmed(it)
	}
	c.nop.Unlock()
	c.pump()
	return nil
}

// askAck asks the peer for an acknowledgement, if something waits for one and none was asked for.
func (c *conn) askAck(sess *session) {
	sess.mu.Lock()
	ask := sess.confirmed && !sess.asked && len(sess.unacked) > 0 && sess.conn == c
	if ask {
		sess.asked, sess.askedAt = true, time.Now()
	}
	sess.mu.Unlock()
	if ask && c.out.add(entry{raw: askForAck}) {
		c.out.flush()
	}
}

// acknowledged is the peer's <a/>: XEP-0198 §4.
func (c *conn) acknowledged(n *stream.Nonza) error {
	sess := c.managed()
	if sess == nil {
		return nil // an answer to nothing
	}
	h, err := strconv.ParseUint(n.Attr("h"), 10, 32)
	if err != nil {
		return xmpp.StreamText(streamerr.BadFormat, "h is not a number")
	}
	var had []*item
	sess.mu.Lock()
	ok := sess.behind(uint32(h))
	if !ok {
		had, ok = sess.ack(uint32(h))
	}
	sent := sess.sent()
	sess.asked = false
	sess.mu.Unlock()
	c.server.done(had...)
	if !ok {
		return c.tooHigh(uint32(h), sent)
	}
	c.askAck(sess)
	c.pump()
	return nil
}

// tooHigh is the stream error for an h that was never reached, for finish.
func (c *conn) tooHigh(h, sent uint32) error {
	e, detail := xmpp.SMTooHigh(h, sent)
	c.detail = detail
	return e
}

// submit hands over what the batch has gathered, of so many bytes; it has been flushed. What was received counts as handled when that is durable.
func (c *conn) submit(ctx context.Context, bytes int) {
	l := xmpp.Load{Pending: c.batch.Take(), Ack: c.wanted, Bytes: bytes}
	if sess := c.managed(); sess != nil {
		sess.mu.Lock()
		if sess.confirmed {
			l.Stanzas = c.received
		}
		sess.mu.Unlock()
	}
	c.received, c.wanted = 0, false
	c.settling.Submit(ctx, c, l)
}

var _ xmpp.Settler = (*conn)(nil)

// Settle is xmpp.Settler.
func (c *conn) Settle(p xmpp.Pending) {
	_ = listen.Guard(c.log, nil, func() error { p.Settle(c.server.work); return nil })
}

// Count is xmpp.Settler: it counts stanzas as handled, and acknowledges them if the peer has asked (XEP-0198 §4).
func (c *conn) Count(l xmpp.Load) {
	sess := c.managed()
	if sess == nil {
		return
	}
	sess.mu.Lock()
	sess.in += l.Stanzas
	in := sess.in
	sess.mu.Unlock()
	if l.Ack {
		_ = c.sendElement(xmpp.El(xmpp.NSSM, "a", "h", strconv.FormatUint(uint64(in), 10)))
	}
}

// durable waits for everything that came before the stanza at hand, which is a request of the other server itself: without stream management the
// answer is how it learns that this one has got all of it.
func (c *conn) durable(ctx context.Context) {
	if !c.batch.Waits() && !c.settling.Busy() {
		return
	}
	c.received-- // the request itself is not handled yet
	c.batch.Flush()
	c.submit(ctx, 0)
	c.received++
	c.settling.Drain(ctx)
}

// resume takes over the session that n names for this connection: XEP-0198 §5 as the receiving side.
func (c *conn) resume(ctx context.Context, n *stream.Nonza) error {
	h, err := strconv.ParseUint(n.Attr("h"), 10, 32)
	if err != nil {
		return c.sendElement(xmpp.SMFailed(stanza.BadRequest, ""))
	}
	id := n.Attr("previd")
	sess := c.server.session(id)
	if sess == nil {
		return c.sendElement(xmpp.SMFailed(stanza.ItemNotFound, ""))
	}
	if ok, _ := c.mayUse(sess.domain); !ok {
		return c.sendElement(xmpp.SMFailed(stanza.ItemNotFound, "")) // it belongs to somebody else
	}
	// One resumption at a time: the next one takes the session from this one.
	for {
		sess.mu.Lock()
		old := sess.conn
		if old == nil || old == c {
			break
		}
		sess.mu.Unlock()
		old.Close(streamerr.Conflict) // XEP-0198 §5: the former stream is still open
		select {
		case <-old.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if sess.over || sess.behind(uint32(h)) {
		// When the peer misses what it had acknowledged, that is gone. It may begin anew.
		in := sess.in
		sess.mu.Unlock()
		return c.sendElement(xmpp.SMFailed(stanza.ItemNotFound, strconv.FormatUint(uint64(in), 10)))
	}
	had, ok := sess.ack(uint32(h))
	if !ok {
		sent := sess.sent()
		sess.mu.Unlock()
		return c.tooHigh(uint32(h), sent)
	}
	sess.conn, sess.asked = c, false
	in := sess.in
	waiting := sess.unacked
	sess.mu.Unlock()
	c.server.done(had...)
	c.received = 0
	if err := c.again(sess, xmpp.El(xmpp.NSSM, "resumed", "previd", id, "h", strconv.FormatUint(uint64(in), 10)), waiting); err != nil {
		return err
	}
	c.server.resumed(sess, c)
	c.askAck(sess)
	return nil
}

// again sends what the peer has not got, behind first, before anything new.
func (c *conn) again(sess *session, first *xmpp.Element, waiting []*item) error {
	c.nop.Lock()
	defer c.nop.Unlock()
	c.mu.Lock()
	c.session = sess
	c.mu.Unlock()
	if first != nil {
		if err := c.sendElement(first); err != nil {
			return err
		}
	}
	for _, it := range waiting {
		c.out.add(entry{item: it, stanza: it.sent(time.Now())}) // bounded by the queue of stream management
	}
	c.out.flush()
	return nil
}
