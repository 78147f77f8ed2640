package c2s

import (
	"context"
	"strconv"

	"balcony/xmpp"
)

var _ xmpp.Settler = (*conn)(nil)

// submit hands over what the batch has gathered, of so many bytes; it has been flushed.
func (c *conn) submit(ctx context.Context, bytes int) {
	l := xmpp.Load{Pending: c.batch.Take(), Ack: c.ackWanted, Bytes: bytes}
	if c.counting {
		l.Stanzas = c.received
	}
	c.received, c.ackWanted = 0, false
	c.settling.Submit(ctx, c, l)
}

// Settle is xmpp.Settler.
func (c *conn) Settle(p xmpp.Pending) {
	_ = guard(c.log, c.server.metrics, func() error { p.Settle(c.server.work); return nil })
}

// Count is xmpp.Settler: it counts stanzas as handled, and acknowledges them if the client has asked.
func (c *conn) Count(l xmpp.Load) {
	s := c.session
	s.mu.Lock()
	if s.sm == nil {
		s.mu.Unlock()
		return
	}
	s.sm.in += l.Stanzas
	in := s.sm.in
	s.mu.Unlock()
	if l.Ack {
		o := c.out.Load()
		o.append(entry{raw: xmpp.El(xmpp.NSSM, "a", "h", strconv.FormatUint(uint64(in), 10)).AppendTo(nil, "")})
		o.Flush()
	}
}

// durable waits for everything that came before the stanza at hand, which is a request: its answer tells the client that all of it is durable
// (docs/security.md).
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
