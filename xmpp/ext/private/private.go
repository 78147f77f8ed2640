// Package private implements XEP-0049: Private XML Storage 1.2.
package private

import (
	"context"
	"errors"
	"strings"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// NS is the namespace of the payload and the disco feature.
const NS = "jabber:iq:private" // XEP-0049 §2

const maxElements = 20 // of one request. chosen: clients send one; each costs a database access

// Module keeps private XML. Others than the owner get service-unavailable from the router, which XEP-0049 §2.3 allows: it does not tell
// whether the account exists.
type Module struct {
	Store Store
	// Mirror keeps what stands in another place as well; nil where nothing does.
	Mirror Mirror
}

// Mirror knows elements that clients also keep elsewhere.
type Mirror interface {
	// Read returns what an element is now; stored is what a client has stored, nil for nothing. found is false for elements that stand nowhere else.
	Read(ctx context.Context, account jid.JID, space, local string, stored []byte) (element []byte, found bool, err error)
	// Stored hears of an element that a client has stored, after that.
	Stored(ctx context.Context, account jid.JID, element *xmpp.Element) error
}

var _ xmpp.Module = Module{}

// Protocol lists XEP-0049.
func (Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{{XEP: 49, Version: "1.2", Status: xmpp.Complete}}
}

// Register adds the handlers.
func (m Module) Register(r *xmpp.Registry) {
	r.Feature(xmpp.ToServer, NS)
	r.Feature(xmpp.ToSelf, NS)
	r.IQ(xmpp.ToSelf, stanza.GetIQ, NS, "query", m.get)
	r.IQ(xmpp.ToSelf, stanza.SetIQ, NS, "query", m.set)
}

// get: XEP-0049 §2.3. What was never stored is returned as an empty element of that name.
func (m Module) get(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	names, err := elements(s)
	if err != nil {
		return nil, err
	}
	answer := xmpp.El(NS, "query")
	for _, e := range names {
		if e.Space != names[0].Space {
			return nil, xmpp.ErrBadRequest // XEP-0049 §2.3: one namespace in a get
		}
		stored, err := m.Store.PrivateXML(ctx, s.To.Bare(), e.Space, e.Local)
		if err != nil {
			return nil, err
		}
		if m.Mirror != nil {
			now, found, err := m.Mirror.Read(ctx, s.To.Bare(), e.Space, e.Local, stored)
			if err != nil {
				return nil, err
			}
			if found {
				stored = now
			}
		}
		if stored == nil {
			answer.Add(xmpp.El(e.Space, e.Local))
		} else {
			answer.Add(xmpp.RawElement(stored))
		}
	}
	return answer, nil
}

// set: XEP-0049 §2.3. Elements are stored one by one: after an error the client sends the request again.
func (m Module) set(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	list, err := elements(s)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		err := m.Store.SetPrivateXML(ctx, s.To.Bare(), e.Space, e.Local, e.AppendTo(nil, ""))
		if errors.Is(err, ErrFull) {
			return nil, xmpp.ErrResourceConstraint
		}
		if err == nil && m.Mirror != nil {
			err = m.Mirror.Stored(ctx, s.To.Bare(), e)
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// elements are the elements inside <query/>, their namespaces explicit.
func elements(s *xmpp.Stanza) ([]*xmpp.Element, error) {
	p, _ := s.Payload()
	query, err := p.Element()
	if err != nil {
		return nil, xmpp.ErrBadRequest
	}
	var list []*xmpp.Element
	for _, e := range query.Children {
		if e.Local == "" {
			continue // white space between elements
		}
		// XEP-0049 §2.1: each element is in a namespace of its own; §3: a reserved one is not acceptable.
		if e.Space == NS || e.Space == "" || e.Space == xmpp.NoNamespace || reserved(e.Space) {
			return nil, xmpp.ErrNotAcceptable
		}
		if list = append(list, e); len(list) > maxElements {
			return nil, xmpp.ErrPolicyViolation
		}
	}
	if len(list) == 0 {
		return nil, xmpp.ErrNotAcceptable // XEP-0049 §2.3: at least one child
	}
	return list, nil
}

// reserved: XEP-0049 §2.3.
func reserved(space string) bool {
	return strings.HasPrefix(space, "jabber:") || strings.HasPrefix(space, "http://jabber.org/") || space == "vcard-temp"
}
