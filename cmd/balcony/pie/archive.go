package pie

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/ext/mam"
	"balcony/xmpp/ext/offline"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

const (
	nsArchive = "urn:xmpp:pie:0#mam" // XEP-0227 §4.11
	nsForward = "urn:xmpp:forward:0" // XEP-0297
)

// preferences are those of XEP-0441, as a client gets them. The format has no place for them.
func preferences(ctx context.Context, w *writer, src Source, account jid.JID) error {
	p, err := src.ArchivePreferences(ctx, account)
	if err != nil || unset(p) {
		return err
	}
	e := xmpp.El(mam.NS, "prefs", "default", string(p.Default))
	for _, list := range []struct {
		name string
		jids []jid.JID
	}{{"always", p.Always}, {"never", p.Never}} {
		l := xmpp.El("", list.name)
		for _, j := range list.jids {
			l.Add(xmpp.El("", "jid").Say(j.String()))
		}
		e.Add(l)
	}
	return w.put(e, NS)
}

// unset reports whether preferences are those of a new account.
func unset(p mam.Preferences) bool {
	return p.Default == mam.Always && len(p.Always) == 0 && len(p.Never) == 0
}

// archive is XEP-0227 §4.11. An attribute of our namespace marks what waits in the spool as well.
func archive(ctx context.Context, w *writer, src Source, account jid.JID) error {
	state, err := src.SpoolState(ctx, account)
	if err != nil {
		return err
	}
	for after, open := int64(0), false; ; {
		p, err := src.ReadArchive(ctx, account, after, page, pageBytes)
		if err != nil {
			return err
		}
		for i := range p.Messages {
			m := &p.Messages[i]
			after = m.Order
			message := standalone(m.XML)
			if message == nil {
				continue // it cannot be: only messages are stored
			}
			if !open {
				open = true
				if err := w.text("<archive xmlns='" + nsArchive + "'>\n"); err != nil {
					return err
				}
			}
			result := xmpp.El(mam.NS, "result", "id", m.ID)
			if m.Spool && waits(&state, m.Order) {
				result.Attrs = append(result.Attrs, xmpp.Attr{Name: "xmlns:b", Value: nsOurs}, xmpp.Attr{Name: "b:waits", Value: "true"})
			}
			if err := w.put(result.Add(xmpp.El(nsForward, "forwarded").Add(
				xmpp.El(xmpp.NSDelay, "delay", "stamp", m.Stamp.UTC().Format(stampFormat)), xmpp.RawElement(message))), nsArchive); err != nil {
				return err
			}
		}
		if p.Complete {
			if !open {
				return nil
			}
			return w.text("</archive>\n")
		}
	}
}

// standalone is a stored message with its namespace; nil for what is none.
func standalone(stored []byte) []byte {
	const name = "<message"
	if !bytes.HasPrefix(stored, []byte(name)) {
		return nil
	}
	return slices.Concat([]byte(name+" xmlns='"+xmpp.NSClient+"'"), stored[len(name):])
}

func waits(s *offline.State, order int64) bool {
	return order > s.Top || slices.ContainsFunc(s.Gaps, func(g offline.Span) bool { return g.From <= order && order <= g.To })
}

// messages is XEP-0227 §4.5: what has a place of its own in the spool and what waits in the archive, by their stamps. <archived/> of our namespace, before a message,
// tells that the archive of the document has it.
func messages(ctx context.Context, w *writer, src Source, account jid.JID) error {
	state, err := src.SpoolState(ctx, account)
	if err != nil {
		return err
	}
	spans := append(slices.Clone(state.Gaps), offline.Span{From: state.Top + 1, To: math.MaxInt64})
	var last int64
	own := queue{read: func() (entries []offline.Entry, err error) {
		entries, err = src.Offline(ctx, account, last, page)
		if n := len(entries); n > 0 {
			last = entries[n-1].ID
		}
		return entries, err
	}}
	archived := queue{read: func() ([]offline.Entry, error) {
		for len(spans) > 0 {
			entries, err := src.Waiting(ctx, account, spans[0], page)
			if n := len(entries); n == page {
				spans[0].From = entries[n-1].Order + 1
			} else {
				spans = spans[1:]
			}
			if err != nil || len(entries) > 0 {
				return entries, err
			}
		}
		return nil, nil
	}}
	for open := false; ; {
		a, err := own.first()
		b, berr := archived.first()
		if err = errors.Join(err, berr); err != nil {
			return err
		}
		if a == nil && b == nil {
			if !open {
				return nil
			}
			return w.text("</offline-messages>\n")
		}
		from := &own
		if a == nil || b != nil && b.Stamp.Before(a.Stamp) {
			from = &archived
		}
		e := from.entries[0]
		from.entries = from.entries[1:]
		if e.Stanza == nil {
			continue // what cannot be read is no message
		}
		if !open {
			open = true
			if err := w.text("<offline-messages>\n"); err != nil {
				return err
			}
		}
		s := e.Stanza
		if from == &archived {
			if err := w.put(xmpp.El(nsOurs, "archived"), NS); err != nil {
				return err
			}
			s = s.Append(xmpp.El(mam.NSStanzaID, "stanza-id", "by", account.String(), "id", e.Mark))
		}
		delay := xmpp.El(xmpp.NSDelay, "delay", "from", account.Domainpart(), "stamp", e.Stamp.UTC().Format(stampFormat)).Say("Offline Storage")
		if err := w.put(xmpp.RawElement(s.Append(delay).AppendStandalone(nil)), NS); err != nil {
			return err
		}
	}
}

// queue is one of the sources of offline messages.
type queue struct {
	read    func() ([]offline.Entry, error) // the next page, none at the end
	entries []offline.Entry
	end     bool
}

// first is the first message that is left, nil at the end.
func (q *queue) first() (*offline.Entry, error) {
	if len(q.entries) == 0 && !q.end {
		var err error
		if q.entries, err = q.read(); err != nil {
			return nil, err
		}
		q.end = len(q.entries) == 0
	}
	if q.end {
		return nil, nil
	}
	return &q.entries[0], nil
}

// preferences reads those of XEP-0441.
func (i *importer) preferences(start xml.StartElement, account jid.JID) error {
	e, err := i.element(start)
	if err != nil {
		return err
	}
	p := mam.Preferences{Default: mam.Default(e.Attr("default"))}
	if !slices.Contains([]mam.Default{mam.Always, mam.Never, mam.Roster}, p.Default) {
		return i.at(fmt.Errorf("archive preferences: default %q", p.Default))
	}
	for _, list := range e.Children {
		to := map[string]*[]jid.JID{"always": &p.Always, "never": &p.Never}[list.Local]
		if to == nil {
			continue
		}
		for _, c := range list.Children {
			if c.Local != "jid" {
				continue
			}
			j, err := jid.Parse(strings.TrimSpace(c.Text))
			if err != nil {
				return i.at(fmt.Errorf("archive preferences: %q is no address", c.Text))
			}
			*to = append(*to, j)
		}
	}
	return i.t.SetArchivePreferences(i.ctx, account, p)
}

// archive reads XEP-0227 §4.11.
func (i *importer) archive(start xml.StartElement, account jid.JID) error {
	if !i.t.Archives(account) {
		return i.unknown(start)
	}
	i.archived = true
	var items []mam.Foreign
	size := 0
	write := func() (err error) {
		if len(items) > 0 {
			i.order, err = i.t.ImportArchive(i.ctx, account, i.order, items)
		}
		clear(items)
		items, size = items[:0], 0
		return i.at(err)
	}
	err := i.each(func(start xml.StartElement) error {
		if start.Name.Space != mam.NS || start.Name.Local != "result" {
			return i.unknown(start)
		}
		it, err := i.result(start, account)
		if err != nil || it == nil {
			return err
		}
		items = append(items, *it)
		if size += it.Stanza.Size(); len(items) == page || size >= pageBytes {
			return write()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return write()
}

// result is one message of an archive, nil for one that is not taken over.
func (i *importer) result(start xml.StartElement, account jid.JID) (*mam.Foreign, error) {
	it := &mam.Foreign{ID: attr(start, "id")}
	for _, a := range start.Attr {
		it.Spool = it.Spool || a.Name.Space == nsOurs && a.Name.Local == "waits" && a.Value == "true"
	}
	e, err := i.element(start)
	if err != nil {
		return nil, err
	}
	var delay, message *xmpp.Element
	for _, f := range e.Children {
		if f.Local != "forwarded" || f.Space != nsForward {
			continue
		}
		for _, c := range f.Children {
			switch {
			case c.Local == "delay" && c.Space == xmpp.NSDelay:
				delay = c
			case c.Local == "message" && c.Space == xmpp.NSClient:
				message = c
			}
		}
	}
	if delay == nil || message == nil {
		return nil, i.at(errors.New("a result without its message and the time of it")) // XEP-0313 §4.2
	}
	if it.Stamp, err = parseTime(delay.Attr("stamp")); err != nil {
		return nil, i.at(fmt.Errorf("time of a message: %w", err))
	}
	if now := time.Now(); it.Stamp.After(now) {
		i.warn("a message of %s, which has not come yet, becomes one of now", it.Stamp.Format(time.RFC3339))
		it.Stamp = now
	} else if it.Stamp.Unix() < 0 {
		i.warn("a message of %s becomes one of 1970", it.Stamp.Format(time.RFC3339))
	}
	s, err := parseStanza(message.AppendTo(nil, ""))
	if err != nil {
		return nil, i.at(err)
	}
	if s.MessageType() == stanza.GroupChatMessage {
		i.warn("a message of a room is not taken over: the room has it") // XEP-0313 §6.1.1
		return nil, nil
	}
	it.Stanza = withoutID(s, account)
	it.Sent = sameBare(s.From, account) || s.From.Equal(jid.JID{}) && !sameBare(s.To, account)
	if it.Peer = s.From; it.Sent {
		it.Peer = s.To
	}
	if it.Peer.Equal(jid.JID{}) {
		it.Peer = account
	}
	return it, nil
}

func sameBare(j, account jid.JID) bool { return j.Bare().Equal(account) }

// withoutID removes the ids of another archive of the account: XEP-0359 §3. They may be others here.
func withoutID(s *xmpp.Stanza, account jid.JID) *xmpp.Stanza {
	if !s.Has(mam.NSStanzaID, "stanza-id") {
		return s
	}
	cut := make(map[int]bool)
	for _, c := range s.Children() {
		if c.Space != mam.NSStanzaID || c.Local != "stanza-id" {
			continue
		}
		if by, err := jid.Parse(c.Attr("by")); err == nil && by.Equal(account) {
			cut[c.Start] = true
		}
	}
	return s.Without(func(c xmpp.Span) bool { return cut[c.Start] })
}

// messages is XEP-0227 §4.5.
func (i *importer) messages(account jid.JID) error {
	var commits []*xmpp.Commit
	wait := func() error {
		for _, c := range commits {
			if err := c.Wait(i.ctx); err != nil {
				return err
			}
		}
		commits = commits[:0]
		return nil
	}
	archived := false
	err := i.each(func(start xml.StartElement) error {
		if start.Name.Space == nsOurs && start.Name.Local == "archived" {
			archived = i.archived
			return i.skip()
		}
		if start.Name.Space != xmpp.NSClient || start.Name.Local != "message" {
			return i.unknown(start)
		}
		s, err := i.stanza(start)
		if err != nil {
			return err
		}
		if archived { // and waits there
			archived = false
			return nil
		}
		at, s := received(withoutID(s, account), account)
		if at.IsZero() {
			at = time.Now()
		}
		commits = append(commits, i.t.AppendOffline(i.ctx, account, at, s))
		if len(commits) == page {
			return wait()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return wait()
}

// received is when the server got a message, without what says so: the last delay of the account's domain (XEP-0203), else any.
func received(s *xmpp.Stanza, account jid.JID) (at time.Time, rest *xmpp.Stanza) {
	if !s.To.Bare().Equal(account) {
		s = s.WithTo(account)
	}
	mine := -1
	for n, c := range s.Children() {
		if c.Space != xmpp.NSDelay || c.Local != "delay" {
			continue
		}
		t, err := parseTime(c.Attr("stamp"))
		if err != nil {
			continue
		}
		if c.Attr("from") == account.Domainpart() {
			mine, at = n, t
		} else if mine < 0 {
			at = t
		}
	}
	n := -1
	return at, s.Without(func(xmpp.Span) bool { n++; return n == mine })
}
