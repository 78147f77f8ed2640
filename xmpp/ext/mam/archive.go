package mam

import (
	"context"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// meaningful are the namespaces of payloads that belong to a conversation although they have no body, with the elements that do; nil for
// all of them.
var meaningful = map[string][]string{
	"urn:xmpp:chat-markers:0":             {"received", "displayed", "acknowledged"}, // XEP-0333 §4
	"urn:xmpp:receipts":                   {"received"},                              // XEP-0184 §5
	"urn:xmpp:message-retract:1":          {"retract"},                               // XEP-0424 §5: "MUST store"
	"urn:xmpp:message-correct:0":          {"replace"},                               // XEP-0308
	"urn:xmpp:reactions:0":                {"reactions"},                             // XEP-0444
	"urn:xmpp:jingle-message:0":           nil,                                       // XEP-0353: calls
	"urn:xmpp:omemo:2":                    {"encrypted"},                             // XEP-0384
	"eu.siacs.conversations.axolotl":      {"encrypted"},                             // XEP-0384 before 0.4
	"urn:xmpp:openpgp:0":                  {"openpgp"},                               // XEP-0373
	"jabber:x:encrypted":                  {"x"},                                     // XEP-0027
	"urn:xmpp:eme:0":                      {"encryption"},                            // XEP-0380
	"jabber:x:conference":                 {"x"},                                     // XEP-0249: invitations
	"http://jabber.org/protocol/muc#user": {"x"},                                     // XEP-0045 §7.8.2: the same, and declined ones
	"urn:xmpp:attaching:1":                {"attach-to"},                             // XEP-0367
	"jabber:x:oob":                        {"x"},                                     // XEP-0066
	"urn:xmpp:sfs:0":                      {"file-sharing"},                          // XEP-0447
	"http://jabber.org/protocol/geoloc":   {"geoloc"},                                // XEP-0080
	"urn:xmpp:attention:0":                {"attention"},                             // XEP-0224
	"urn:xmpp:message-moderate:1":         nil,                                       // XEP-0425
	"urn:xmpp:call-invites:0":             nil,                                       // XEP-0482
	"http://jabber.org/protocol/rosterx":  {"x"},                                     // XEP-0144
}

// archivable decides what belongs in an archive: XEP-0313 §6.1.1, and XEP-0334 §4.
func archivable(s *xmpp.Stanza) bool {
	switch s.MessageType() {
	case stanza.ErrorMessage, stanza.GroupChatMessage:
		return false // a room keeps its own
	case stanza.HeadlineMessage:
		return s.Has(nsHints, "store") && !s.Has(nsHints, "no-store") && !s.Has(nsHints, "no-permanent-store")
	}
	kept := false
	for _, c := range s.Spans() {
		switch {
		case c.Space == nsHints && (c.Local == "no-store" || c.Local == "no-permanent-store"):
			return false // XEP-0334 §4.1, §4.2
		case c.Space == nsHints && c.Local == "store", c.Space == "" && (c.Local == "body" || c.Local == "subject"):
			kept = true
		case !kept:
			names, known := meaningful[c.Space]
			kept = known && names == nil
			for _, n := range names {
				kept = kept || n == c.Local
			}
		}
	}
	return kept
}

// forged reports whether a child is a stanza-id in the name of an account or domain of this server.
func (m *Module) forged(c xmpp.Child) bool {
	if c.Space != NSStanzaID || c.Local != "stanza-id" {
		return false
	}
	by, err := jid.Parse(c.Attr("by"))
	return err == nil && m.server.Serves(by.Domainpart())
}

// strip removes them: XEP-0359 §3 rule 2, "MUST delete that element even if they are not adding their own".
func (m *Module) strip(s *xmpp.Stanza) *xmpp.Stanza {
	if !s.Has(NSStanzaID, "stanza-id") {
		return s
	}
	forged := make(map[int]bool)
	for _, c := range s.Children() {
		if m.forged(c) {
			forged[c.Start] = true
		}
	}
	return s.Without(func(c xmpp.Span) bool { return forged[c.Start] })
}

// stanzaID is the mark of XEP-0359 §2.1.
func stanzaID(by jid.JID, id string) *xmpp.Element {
	return xmpp.El(NSStanzaID, "stanza-id", "by", by.String(), "id", id)
}

// outgoing archives what a session sends for its account. The id is no part of what the recipient gets: XEP-0313 §3.3.
func (m *Module) outgoing(ctx context.Context, o *xmpp.Outgoing) error {
	if o.Stanza.Kind != xmpp.Message {
		return nil
	}
	o.Stanza = m.strip(o.Stanza)
	s := o.Stanza
	owner := o.Sender.JID().Bare()
	if err := m.retract(ctx, owner, s.To, true, s); err != nil {
		return err
	}
	if !m.Enabled(owner.Domainpart()) || !archivable(s) {
		return nil
	}
	if wanted, err := m.wanted(ctx, owner, s.To); !wanted {
		return err
	}
	toSelf := s.To.Bare().Equal(owner)
	k := m.store.AppendMessage(ctx, Item{Owner: owner, Peer: s.To, Stanza: s, Stamp: m.server.Now(), Sent: true, Archived: true, Spool: toSelf && m.spool.Spools(s)})
	if k.Order == 0 {
		return k.Commit.Wait(ctx) // not even queued: it goes no further
	}
	o.Stanza, o.ArchiveID = s.Kept(k.Order, 0), k.ID
	shared := !toSelf && m.server.Serves(s.To.Domainpart())
	xmpp.Await(ctx, k.Commit, func(err error) {
		if err != nil {
			m.refuse(xmpp.Detach(ctx), s, err)
			if shared {
				m.noteFailed(k.Order)
			}
		}
	})
	return nil
}

// incoming archives what an account receives: XEP-0313 §3.3, with its stanza-id.
func (m *Module) incoming(ctx context.Context, d *xmpp.Delivery) error {
	if d.Stanza.Kind != xmpp.Message {
		return nil
	}
	if d.Again {
		if d.Stanza.From.Equal(d.Account) && d.Stanza.Has(NS, "result") {
			return xmpp.ErrDrop // of a query whose session has ended
		}
		return nil
	}
	if !m.server.Serves(d.Stanza.From.Domainpart()) { // a session's own was stripped when it sent it; hosts here write none for accounts, and may be components
		d.Stanza = m.strip(d.Stanza)
	}
	s := d.Stanza
	if len(d.Targets) == 0 && !d.Waits && (m.copies == nil || !m.copies.Copied(d)) {
		return nil // §6.1: what is refused is not archived
	}
	if err := m.retract(ctx, d.Account, s.From, false, s); err != nil {
		return err
	}
	if !m.Enabled(d.Account.Domainpart()) || !archivable(s) {
		return nil
	}
	if wanted, err := m.wanted(ctx, d.Account, s.From); !wanted {
		return err
	}
	if s.Row != 0 && s.From.Bare().Equal(d.Account) {
		// To oneself: §6.1.1, "only once".
		d.Stanza = s.Append(stanzaID(d.Account, m.store.ArchiveID(d.Account, s.Row))).Kept(s.Row, s.Row)
		return nil
	}
	k := m.store.AppendMessage(ctx, Item{Owner: d.Account, Peer: s.From, Stanza: s, Stamp: m.server.Now(), Archived: true, Spool: d.Waits && m.spool.Spools(s)})
	if k.Order == 0 {
		return k.Commit.Wait(ctx)
	}
	row := s.Row
	if row == 0 {
		row = k.Order
	}
	d.Stanza = s.Append(stanzaID(d.Account, k.ID)).Kept(row, k.Order)
	xmpp.Await(ctx, k.Commit, func(err error) {
		if err != nil && !m.wasFailed(s.Row) {
			m.refuse(xmpp.Detach(ctx), s, err)
		}
	})
	return nil
}

// refuse tells the sender that a message could not be stored: it may send it again, whether a session of the recipient has got it or not.
func (m *Module) refuse(ctx context.Context, s *xmpp.Stanza, err error) {
	m.log.Error("archive message", "err", err)
	if b := s.Bounce(xmpp.ErrInternal); b != nil {
		m.server.Route(ctx, b)
	}
}

// maxFailed bounds the list. chosen: it is emptied by the messages themselves.
const maxFailed = 10_000

func (m *Module) noteFailed(row int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.failed) >= maxFailed {
		clear(m.failed)
	}
	m.failed[row] = struct{}{}
}

func (m *Module) wasFailed(row int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.failed[row]
	delete(m.failed, row)
	return ok
}
