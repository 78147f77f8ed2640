package mam

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// request is <query/>: XEP-0313 §4.
type request struct {
	QueryID string `xml:"queryid,attr"`
	Node    string `xml:"node,attr"`
	Form    *form  `xml:"jabber:x:data x"`
	Set     *set   `xml:"http://jabber.org/protocol/rsm set"`
	Flip    *empty `xml:"urn:xmpp:mam:2 flip-page"`
}

type empty struct{}

// form is a submitted form of XEP-0004.
type form struct {
	Type   string `xml:"type,attr"`
	Fields []struct {
		Var    string   `xml:"var,attr"`
		Values []string `xml:"jabber:x:data value"`
	} `xml:"jabber:x:data field"`
}

// set is XEP-0059 §2.
type set struct {
	Max    *string `xml:"http://jabber.org/protocol/rsm max"`
	After  *string `xml:"http://jabber.org/protocol/rsm after"`
	Before *string `xml:"http://jabber.org/protocol/rsm before"`
	Index  *string `xml:"http://jabber.org/protocol/rsm index"`
}

// counted is up to how many messages the first page of a query says how many there are. chosen: counting them is a small part of reading the
// page; XEP-0059 §2.7 allows to leave it out.
const counted = 1000

// mostCounted is the same for a query that asks for nothing but the count. chosen: some ten milliseconds; XEP-0059 §2.7 allows an
// approximate number.
const mostCounted = 100_000

// parse makes a Query of a request, with search of an archive that can be searched; the error is what the client is told.
func (m *Module) parse(r *request, search bool) (Query, error) {
	q := Query{Max: m.cfg.Page, Bytes: m.cfg.PageBytes, Count: counted}
	if r.Node != "" {
		return q, xmpp.ErrItemNotFound // XEP-0442: an account's archive has no nodes
	}
	if r.Form != nil {
		if err := m.parseForm(r.Form, &q, search); err != nil {
			return q, err
		}
	}
	if r.Set == nil {
		return q, nil
	}
	if r.Set.Index != nil {
		return q, xmpp.ErrFeatureNotImpl // XEP-0059 §2.6
	}
	if r.Set.Max != nil {
		n, err := strconv.ParseUint(*r.Set.Max, 10, 31)
		if err != nil {
			return q, xmpp.ErrBadRequest
		}
		if q.Max = min(int(n), m.cfg.MaxPage); n == 0 {
			q.Count = mostCounted
		}
	}
	// XEP-0059 §2.3 and §2.5: an empty <before/> is the last page, an empty <after/> the first.
	if a := r.Set.After; a != nil && *a != "" {
		q.After = append(q.After, *a)
	}
	if b := r.Set.Before; b != nil {
		q.Backward = true
		if *b != "" {
			q.Before = append(q.Before, *b)
		}
	}
	if q.Words != nil {
		q.Count = min(q.Count, counted) // each of them is looked up
	}
	if q.Max > 0 && (r.Set.After != nil && *r.Set.After != "" || r.Set.Before != nil && *r.Set.Before != "") {
		q.Count = 0 // whoever asks for the next page has been told
	}
	return q, nil
}

// parseForm: XEP-0313 §4.1.
func (m *Module) parseForm(f *form, q *Query, search bool) error {
	if f.Type != "submit" {
		return xmpp.ErrBadRequest
	}
	typed := false
	seen := make(map[string]bool, len(f.Fields))
	for _, field := range f.Fields {
		if seen[field.Var] {
			return xmpp.ErrBadRequest
		}
		seen[field.Var] = true
		if field.Var == "ids" {
			if q.IDs = field.Values; q.IDs == nil {
				q.IDs = []string{}
			}
			if len(q.IDs) > m.cfg.IDs {
				return xmpp.ErrPolicyViolation
			}
			continue
		}
		if len(field.Values) > 1 {
			return xmpp.ErrBadRequest
		}
		value := ""
		if len(field.Values) == 1 {
			value = field.Values[0]
		}
		var err error
		switch field.Var {
		case "FORM_TYPE":
			typed = value == NS
		case "with":
			if q.With, err = jid.Parse(value); err != nil {
				return xmpp.ErrBadRequest
			}
		case "start":
			q.Start, err = dateTime(value)
		case "end":
			q.End, err = dateTime(value)
		case "after-id":
			q.After = append(q.After, value)
		case "before-id":
			q.Before = append(q.Before, value)
		case fieldFulltext:
			if !search {
				return xmpp.ErrFeatureNotImpl // §4.1.5, as any field that the form does not have
			}
			var ok bool
			if q.Words, ok = Terms(value); !ok && strings.TrimSpace(value) != "" { // XEP-0431 §2.2: "which if non-empty is used"
				return xmpp.ErrBadRequest
			}
		case "include-groupchat": // §4.1.4: there are none
			if !slices.Contains([]string{"true", "false", "1", "0"}, value) {
				return xmpp.ErrBadRequest
			}
		default:
			return xmpp.ErrFeatureNotImpl // §4.1.5
		}
		if err != nil {
			return err
		}
	}
	if !typed {
		return xmpp.ErrBadRequest // §4.1: "The hidden FORM_TYPE field MUST be set"
	}
	return nil
}

// dateTime is XEP-0082 §3.2. Years that no message has are refused.
func dateTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() < 1970 || t.Year() > 9999 {
		return t, xmpp.ErrBadRequest
	}
	return t.UTC(), nil
}

// stampFormat is how XEP-0082 §3.2 writes a time.
const stampFormat = "2006-01-02T15:04:05.000000Z"

func stamp(t time.Time) string { return t.UTC().Format(stampFormat) }

// query answers XEP-0313 §4: the messages as stanzas of their own, then the result.
func (m *Module) query(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	var r request
	p, _ := s.Payload()
	if err := p.Decode(&r); err != nil {
		return nil, xmpp.ErrBadRequest
	}
	owner := s.From.Bare()
	q, err := m.parse(&r, m.Searched(owner.Domainpart()))
	if err != nil {
		return nil, err
	}
	if q.Words != nil {
		select { // one at a time: nobody can keep the database busy with them
		case m.searching <- struct{}{}:
			defer func() { <-m.searching }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	session := m.session(s.From)
	if session == nil {
		return nil, xmpp.ErrDrop // it has ended
	}
	upTo := m.store.LastOrder()
	page, err := m.store.QueryArchive(ctx, owner, q)
	switch {
	case errors.Is(err, ErrNoMessage):
		return nil, xmpp.ErrItemNotFound // §4.1.3, §4.3.2
	case errors.Is(err, ErrNoSearch):
		return nil, xmpp.ErrFeatureNotImpl
	case err != nil:
		return nil, err
	}
	fin := xmpp.El(NS, "fin")
	if page.Complete {
		fin.Attrs = append(fin.Attrs, xmpp.Attr{Name: "complete", Value: "true"})
	}
	fin.Add(result(&q, page))
	if session.Presence() == nil && recent(&q) {
		m.spool.CatchesUp(session, upTo)
	}
	var from, to, by int64
	if n := len(page.Messages); n > 0 {
		from, to = page.Messages[0].Order, page.Messages[n-1].Order
		last := to
		if r.Flip != nil {
			slices.Reverse(page.Messages) // §4.3.4: after the <set/>, which it does not change
			last = from
		}
		if q.With.Equal(jid.JID{}) && q.IDs == nil && q.Words == nil {
			by = last
			m.spool.Fetched(ctx, owner, by, from, to)
		}
	}
	var b []byte
	for i := range page.Messages {
		msg := &page.Messages[i]
		// §4.2
		b = appendForwarded(b[:0], msg)
		el := xmpp.El(NS, "result", "queryid", r.QueryID, "id", msg.ID)
		el.Raw = b // which New copies
		st := xmpp.New(xmpp.Message, "", s.From, owner, el)
		if msg.Order == by {
			st.Order = by // once the client has this one, the page waits for the account no longer
		}
		if !session.Enqueue(ctx, st) {
			return nil, xmpp.ErrDrop
		}
		page.Messages[i] = Message{}
	}
	return fin, nil
}

// recent reports whether a client with that query reads up to the newest message of all, with this page or with those that follow it. One that reads older
// pages, or a part, has seen nothing of what came since it read the last one.
func recent(q *Query) bool {
	return q.Max > 0 && q.Before == nil && q.End.IsZero() && q.IDs == nil && q.Words == nil && q.With.Equal(jid.JID{})
}

// result is the <set/> of a page: XEP-0313 §4.3.1, XEP-0059 §2.
func result(q *Query, page Page) *xmpp.Element {
	set := xmpp.El(nsRSM, "set")
	known := q.Count > 0 && page.Count < q.Count
	if n := len(page.Messages); n > 0 {
		first := xmpp.El("", "first").Say(page.Messages[0].ID)
		if known && (!q.Backward || n == page.Count) {
			// XEP-0059 §2.6: a SHOULD. A last page that is not the first has none: slixmpp up to 1.8 and what is built on it go back no further
			// than a page that ends where the set does.
			first.Attrs = append(first.Attrs, xmpp.Attr{Name: "index", Value: "0"})
		}
		set.Add(first, xmpp.El("", "last").Say(page.Messages[n-1].ID))
	}
	if known || q.Max == 0 {
		set.Add(xmpp.El("", "count").Say(strconv.Itoa(page.Count)))
	}
	return set
}

// appendForwarded appends a stored message with its stamp and its namespace: XEP-0297 §3.
func appendForwarded(b []byte, msg *Message) []byte {
	b = append(b, "<forwarded xmlns='"+nsForward+"'><delay xmlns='"+xmpp.NSDelay+"' stamp='"...)
	b = append(msg.Stamp.UTC().AppendFormat(b, stampFormat), "'/>"...)
	if rest, ok := bytes.CutPrefix(msg.XML, []byte("<message")); ok { // only messages are stored
		b = append(append(b, "<message xmlns='"+xmpp.NSClient+"'"...), rest...)
	}
	return append(b, "</forwarded>"...)
}

func (m *Module) session(full jid.JID) xmpp.Session {
	for _, s := range m.server.Sessions(full.Bare()) {
		if s.JID().Equal(full) {
			return s
		}
	}
	return nil
}

// form answers XEP-0313 §4.1.5 with the fields that queries may have.
func (m *Module) form(_ context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	field := func(typ, name string) *xmpp.Element { return xmpp.El("", "field", "type", typ, "var", name) }
	x := xmpp.El(nsForm, "x", "type", "form").Add(
		field("hidden", "FORM_TYPE").Add(xmpp.El("", "value").Say(NS)),
		field("jid-single", "with"),
		field("text-single", "start"),
		field("text-single", "end"),
		field("text-single", "before-id"),
		field("text-single", "after-id"),
		field("list-multi", "ids").Add(xmpp.El(nsValidate, "validate", "datatype", "xs:string").Add(xmpp.El("", "open"))),
		field("boolean", "include-groupchat"),
	)
	if m.Searched(s.From.Domainpart()) {
		x.Add(field("text-single", fieldFulltext)) // XEP-0431 §3.1
	}
	return xmpp.El(NS, "query").Add(x), nil
}

// metadata answers XEP-0313 §5.
func (m *Module) metadata(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	return m.Metadata(ctx, s.From.Bare())
}

// bound tells a client that binds with Bind 2 where its archive stands, so that it knows what to ask for: XEP-0386 §2.3.
func (m *Module) bound(ctx context.Context, s xmpp.Session, _ *xmpp.Element) *xmpp.Element {
	if !m.Enabled(s.JID().Domainpart()) {
		return nil
	}
	m.spool.CatchesUp(s, math.MaxInt64)
	el, err := m.Metadata(ctx, s.JID().Bare())
	if err != nil {
		m.log.Error("read archive", "err", err)
		return nil
	}
	return el
}

// Metadata is what an archive has: XEP-0313 §5, for the answer to its owner's question, and for XEP-0386.
func (m *Module) Metadata(ctx context.Context, owner jid.JID) (*xmpp.Element, error) {
	el := xmpp.El(NS, "metadata")
	for _, end := range []struct {
		name     string
		backward bool
	}{{"start", false}, {"end", true}} {
		page, err := m.store.QueryArchive(ctx, owner, Query{Max: 1, Backward: end.backward})
		if err != nil {
			return nil, err
		}
		for _, msg := range page.Messages {
			el.Add(xmpp.El("", end.name, "id", msg.ID, "timestamp", stamp(msg.Stamp)))
		}
	}
	return el, nil
}
