package c2s

import (
	"context"

	"balcony/xmpp"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

// stamp makes of what the client sent a stanza that the router may take: from is the session's, to is there unless it is broadcast
// presence, and an IQ has its shape. nil without an error means that the client has its answer already; an error ends the stream.
func (c *conn) stamp(ctx context.Context, ev stream.Event) (*xmpp.Stanza, error) {
	s := ev.Stanza
	full, bare := c.session.bound.JID(), c.session.bound.Bare()
	// RFC 6120 §8.1.2.1: from is overridden. One that names another account ends the stream (§4.9.3.9); one that names another resource does
	// not: clients that resume a session may have made up a new one meanwhile.
	if ev.BadFrom || !s.From.Equal(jid.JID{}) && !s.From.Equal(full) && !s.From.Bare().Equal(bare) {
		return nil, streamerr.InvalidFrom
	}
	to := s.To
	if to.Equal(jid.JID{}) && s.Kind != xmpp.Presence {
		to = bare // RFC 6120 §10.3.1 and §10.3.3: addressed to the account itself
	}
	asked := s.To // an answer comes from the address that was asked
	s = s.With(to, full)
	if s.Lang == "" {
		s.Lang = c.lang // RFC 6120 §8.1.5, before anybody else sees the stanza
	}
	switch {
	case ev.BadTo:
		c.refuseStanza(ctx, s.WithTo(jid.JID{}), xmpp.ErrJIDMalformed) // RFC 6120 §8.1.1.1 and §8.3.3.8
		return nil, nil
	case s.Kind != xmpp.IQ:
		return s, nil
	}
	// RFC 6120 §8.2.3
	n := len(s.Spans())
	switch s.Type {
	case "get", "set":
		if s.ID == "" || n != 1 {
			c.refuseStanza(ctx, s.WithTo(asked), xmpp.ErrBadRequest)
			return nil, nil
		}
	case "result", "error":
		if s.ID == "" || s.Type == "result" && n > 1 {
			return nil, nil // an answer that answers nothing
		}
		return s, nil
	default:
		c.refuseStanza(ctx, s.WithTo(asked), xmpp.ErrBadRequest)
		return nil, nil
	}
	switch p, _ := s.Payload(); {
	case p.Space == nsSession && p.Local == "session" && (to.Equal(bare) || to.Equal(bare.Domain())):
		c.session.bound.Enqueue(ctx, s.WithTo(asked).Result(nil)) // RFC 3921 §3: it has had no effect since RFC 6120
		return nil, nil
	case p.Space == nsBind:
		c.refuseStanza(ctx, s.WithTo(asked), xmpp.ErrNotAllowed) // RFC 6120 §7: one resource on one stream
		return nil, nil
	}
	return s, nil
}

// refuseStanza answers a stanza of this client with an error.
func (c *conn) refuseStanza(ctx context.Context, s *xmpp.Stanza, err error) {
	if b := s.Bounce(err); b != nil {
		c.session.bound.Enqueue(ctx, b)
	}
}
