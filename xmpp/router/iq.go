package router

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// askAccount answers a request to an account's bare JID on its behalf (RFC 6121 §8.5.2.1.3, §8.5.2.2.3). One table says who may ask what;
// everybody else, and every question about an account that does not exist, gets service-unavailable.
func (r *Router) askAccount(ctx context.Context, s *xmpp.Stanza, account jid.JID) {
	asker := s.From.Bare()
	if asker.Equal(account) {
		r.ask(ctx, s, xmpp.ToSelf, xmpp.ToContact, xmpp.ToAccount)
		return
	}
	exists, err := r.Exists(ctx, account)
	if err != nil {
		r.bounce(ctx, s, err)
		return
	}
	// Incoming filters (blocking) hold for requests too.
	if exists {
		d := &xmpp.Delivery{Stanza: s, Account: account, Key: account.String()}
		for _, f := range r.reg.IncomingFilters {
			if err := f(ctx, d); err != nil {
				r.bounce(ctx, s, err)
				return
			}
		}
	}
	p, _ := s.Payload()
	if !exists || r.handler(s, p, xmpp.ToContact, xmpp.ToAccount) == nil {
		r.bounce(ctx, s, xmpp.ErrServiceUnavailable)
		return
	}
	if r.handler(s, p, xmpp.ToContact) != nil && r.subs != nil {
		_, from, err := r.subs.Subscribed(ctx, account, asker)
		if err != nil {
			r.bounce(ctx, s, err)
			return
		}
		if from {
			r.ask(ctx, s, xmpp.ToContact, xmpp.ToAccount)
			return
		}
	}
	r.ask(ctx, s, xmpp.ToAccount)
}

func (r *Router) handler(s *xmpp.Stanza, p xmpp.Child, scopes ...xmpp.Address) xmpp.IQHandler {
	for _, to := range scopes {
		if h := r.reg.IQs[xmpp.IQKey{To: to, Type: stanza.IQType(s.Type), Space: p.Space, Local: p.Local}]; h != nil {
			return h
		}
	}
	return nil
}

// askHost answers a request to a host of its own.
func (r *Router) askHost(ctx context.Context, h *xmpp.Host, s *xmpp.Stanza) {
	p, _ := s.Payload()
	f := h.IQs[xmpp.IQKey{To: xmpp.ToHost, Type: stanza.IQType(s.Type), Space: p.Space, Local: p.Local}]
	if f == nil && s.To.Localpart() == "" && s.To.Resourcepart() == "" {
		f = r.handler(s, p, xmpp.ToHost)
	}
	r.answer(ctx, s, f)
}

// ask runs the handler of a request and sends its answer: exactly one, whatever the handler does (RFC 6120 §8.2.3).
func (r *Router) ask(ctx context.Context, s *xmpp.Stanza, scopes ...xmpp.Address) {
	p, _ := s.Payload()
	r.answer(ctx, s, r.handler(s, p, scopes...))
}

func (r *Router) answer(ctx context.Context, s *xmpp.Stanza, h xmpp.IQHandler) {
	if h == nil {
		r.bounce(ctx, s, xmpp.ErrServiceUnavailable) // RFC 6120 §8.4: a payload that is not understood
		return
	}
	el, err := h(ctx, s)
	if err != nil {
		r.bounce(ctx, s, err)
		return
	}
	r.Route(ctx, s.Result(el))
}

// ask is a request of the server that waits for its answer.
type ask struct {
	peer  jid.JID // who was asked
	asker jid.JID // the local address that asked
	reply chan *xmpp.Stanza
}

const maxAsks = 10_000 // chosen: each is a goroutine that waits at most Config.AskTimeout

var errTooManyAsks = errors.New("too many requests of the server wait for an answer")

// Ask sends a request and waits for the answer of type result or error.
func (r *Router) Ask(ctx context.Context, s *xmpp.Stanza) (*xmpp.Stanza, error) {
	var b [16]byte
	_, _ = rand.Read(b[:])
	q := *s
	q.ID = hex.EncodeToString(b[:])
	a := &ask{peer: q.To, asker: q.From, reply: make(chan *xmpp.Stanza, 1)}
	r.asksMu.Lock()
	if len(r.asks) >= maxAsks {
		r.asksMu.Unlock()
		return nil, errTooManyAsks
	}
	r.asks[q.ID] = a
	r.asksMu.Unlock()
	defer func() {
		r.asksMu.Lock()
		delete(r.asks, q.ID)
		r.asksMu.Unlock()
	}()
	timeout := time.NewTimer(r.cfg.AskTimeout)
	defer timeout.Stop()
	r.Route(xmpp.Detach(ctx), &q)
	select {
	case reply := <-a.reply:
		return reply, nil
	case <-timeout.C:
		return nil, xmpp.ErrRemoteTimeout
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// answered gives an IQ of type result or error to the one who asked: the id, the kind, the one who answers and the one who asked must
// all be right. It reports whether somebody has asked.
func (r *Router) answered(s *xmpp.Stanza) bool {
	r.asksMu.Lock()
	a := r.asks[s.ID]
	if a != nil && a.peer.Equal(s.From) && a.asker.Equal(s.To) {
		delete(r.asks, s.ID)
	} else {
		a = nil
	}
	r.asksMu.Unlock()
	if a != nil {
		a.reply <- s
	}
	return a != nil
}
