package s2s

import (
	"errors"
	"slices"

	"balcony/xmpp"
)

// A peer without stream management does not say what it has got. What is written to a socket may be lost with it, so a lasting stanza is kept until there
// is a sign: the answer to a ping of this server that went behind it (RFC 6120 §10.1: a server handles what comes over a stream in order, and §8.2.3:
// it answers every request), or the end of the stream with which both sides agree (§4.4). One ping is under way at a time, and none while nothing waits.

// unconfirmed notes a stanza that was handed to the writer without stream management. It is called with nop held.
func (c *conn) unconfirmed(it *item) {
	if it.row == 0 {
		c.server.done(it)
		return
	}
	c.unsure = append(c.unsure, it)
	c.unsized += it.stanza.Size()
	c.handed++
	m := &c.cfg.Management
	for len(c.unsure) > max(m.Stanzas, 1) || c.unsized > m.Bytes && len(c.unsure) > 1 {
		c.had(c.handed - uint64(len(c.unsure)) + 1) // it does not answer in time for what it gets; it was written long ago
	}
}

// had is that the peer has the first n of all stanzas that were handed over. It is called with nop held.
func (c *conn) had(n uint64) {
	k := len(c.unsure) - int(c.handed-n)
	if k <= 0 {
		return
	}
	for _, it := range c.unsure[:k] {
		c.unsized -= it.stanza.Size()
	}
	c.server.done(c.unsure[:k]...)
	clear(c.unsure[:k])
	if c.unsure = c.unsure[k:]; len(c.unsure) == 0 {
		c.unsure = nil
	}
}

// unconfirmedAt is what has to be sent again when a stream without stream management has ended with err: what was not written, and before it what the
// peer has perhaps not got.
func (c *conn) unconfirmedAt(err error, unwritten []*item) []*item {
	c.nop.Lock()
	defer c.nop.Unlock()
	list := c.unsure
	if i := slices.Index(list, firstLasting(unwritten)); i >= 0 {
		list = list[:i]
	}
	c.unsure, c.unsized = nil, 0
	// One that goes away with an error need not have read to the end (RFC 6120 §4.9.1.1). Any other error may be for what it has read, and would come again with it.
	away := errors.As(err, new(peerError)) && unfinished(err)
	if c.parted && !away || errors.Is(err, errClosed) || errors.Is(err, errIdle) || errors.Is(err, errSpare) {
		c.server.done(list...)
		list = nil
	}
	return append(repeat(list, nil), unwritten...)
}

func firstLasting(list []*item) *item {
	for _, it := range list {
		if it.row != 0 {
			return it
		}
	}
	return nil
}

// confirm asks a peer without stream management for a sign that it has got what it was sent.
func (c *conn) confirm() {
	c.nop.Lock()
	if len(c.unsure) == 0 || c.asking || c.managed() != nil {
		c.nop.Unlock()
		return
	}
	last, n := c.unsure[len(c.unsure)-1].stanza, c.handed
	c.asking = true
	c.nop.Unlock()
	p := pair{last.From.Domainpart(), last.To.Domainpart()}
	c.mu.Lock()
	var over *link
	for _, l := range c.links {
		if l.pair == p {
			over = l
		}
	}
	c.mu.Unlock()
	asked := over != nil && c.server.start(func() {
		ping := xmpp.New(xmpp.IQ, "get", last.To.Domain(), last.From.Domain(), xmpp.El("urn:xmpp:ping", "ping"))
		reply, err := c.server.router.Ask(c.server.ctx, ping)
		over.mu.Lock()
		same := over.conn == c // then the ping went over it, too
		over.mu.Unlock()
		c.nop.Lock()
		defer c.nop.Unlock()
		c.asking = false
		// Whoever does not answer at all, in all that time on a stream that works, has most likely got it. To send it for ever would be worse.
		if same && (err == nil && theirs(reply) || errors.Is(err, xmpp.ErrRemoteTimeout) && !c.stalled()) {
			c.had(n)
		}
	})
	if !asked {
		c.nop.Lock()
		c.asking = false
		c.nop.Unlock()
	}
}

// stalled reports whether something waits in this server or for the network: then the silence of the peer may be that of a cable that was cut.
func (c *conn) stalled() bool { return c.out.bytes() > 0 || unacknowledged(c.sock.TCPConn) }

// theirs reports whether an answer is the peer's, and not an error of this server for a request that could not be sent.
func theirs(reply *xmpp.Stanza) bool {
	if reply.Type == "result" {
		return true
	}
	e, ok := reply.Child("", "error")
	if !ok {
		return false
	}
	el, err := e.Element()
	if err != nil {
		return false
	}
	for _, c := range el.Children {
		switch c.Local {
		case "remote-server-not-found", "remote-server-timeout", "resource-constraint":
			return false
		}
	}
	return true
}
