// Package vcard implements XEP-0054: vcard-temp 1.3.0 for accounts.
package vcard

import (
	"bytes"
	"context"
	"encoding/xml"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// NS is the namespace of the payload and the disco feature.
const NS = "vcard-temp" // XEP-0054 §3

// Module keeps the vCards. Their size is bounded by that of a stanza.
type Module struct {
	Store Store
	// Changed hears of every vCard that a client has stored, after that; before is what it was, nil for none. It may be nil.
	Changed func(ctx context.Context, account jid.JID, before, card []byte)
	// Shown is what of an account's vCard somebody else sees. It may be nil.
	Shown func(ctx context.Context, account, asker jid.JID, card []byte) ([]byte, error)
}

var _ xmpp.Module = Module{}

// Protocol lists XEP-0054.
func (Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{{XEP: 54, Version: "1.3.0", Status: xmpp.Complete}}
}

// Register adds the handlers.
func (m Module) Register(r *xmpp.Registry) {
	r.Feature(xmpp.ToServer, NS) // XEP-0054 §4
	r.Feature(xmpp.ToAccount, NS)
	r.IQ(xmpp.ToSelf, stanza.GetIQ, NS, "vCard", m.own)
	r.IQ(xmpp.ToSelf, stanza.SetIQ, NS, "vCard", m.set)
	r.IQ(xmpp.ToContact, stanza.SetIQ, NS, "vCard", m.refuse)
	r.IQ(xmpp.ToAccount, stanza.GetIQ, NS, "vCard", m.get)
}

// own: XEP-0054 §3.1.
func (m Module) own(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	return m.load(ctx, s, xmpp.ErrItemNotFound)
}

// get: XEP-0054 §3.3, everybody may read a vCard, and nobody can tell an account without one from an account that does not exist.
func (m Module) get(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	return m.load(ctx, s, xmpp.ErrServiceUnavailable)
}

func (m Module) load(ctx context.Context, s *xmpp.Stanza, none error) (*xmpp.Element, error) {
	account := s.To.Bare()
	card, err := m.Store.VCard(ctx, account)
	if err == nil && card != nil && m.Shown != nil && !s.From.Bare().Equal(account) {
		card, err = m.Shown(ctx, account, s.From, card)
	}
	if err != nil {
		return nil, err
	}
	if empty(card) {
		return nil, none
	}
	return xmpp.RawElement(card), nil
}

// set: XEP-0054 §3.2, the whole vCard is replaced.
func (m Module) set(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	p, _ := s.Payload()
	account, card := s.To.Bare(), p.Standalone()
	var before []byte
	err := m.Store.UpdateVCard(ctx, account, func(stored []byte) []byte {
		before = stored
		return card
	})
	if err != nil {
		return nil, err
	}
	if m.Changed != nil {
		m.Changed(ctx, account, before, card)
	}
	return nil, nil
}

// refuse: XEP-0054 §3.2, forbidden to change another's vCard. Only who knows that the account exists is told so: to everybody else the
// router answers service-unavailable.
func (m Module) refuse(context.Context, *xmpp.Stanza) (*xmpp.Element, error) {
	return nil, xmpp.ErrForbidden
}

// empty reports whether a stored vCard says nothing: storing an empty one is how a client takes its vCard back.
func empty(card []byte) bool {
	d := xml.NewDecoder(bytes.NewReader(card))
	for depth := 0; ; {
		t, err := d.Token()
		if err != nil {
			return true
		}
		switch t := t.(type) {
		case xml.StartElement:
			if depth++; depth > 1 {
				return false
			}
		case xml.CharData:
			if len(bytes.TrimSpace(t)) > 0 {
				return false
			}
		}
	}
}
