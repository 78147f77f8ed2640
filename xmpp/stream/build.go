package stream

import (
	"bytes"

	"balcony/xmpp"
)

// value is the value of attribute a.
func value(b []byte, a *attr) string {
	if a.cooked {
		return string(appendValue(nil, b[a.vlo:a.vhi]))
	}
	return intern(b[a.vlo:a.vhi])
}

// openHeader makes the header that was scanned.
func (d *Decoder) openHeader(b []byte) *Header {
	h := &Header{Content: d.content}
	if i := bytes.IndexByte(d.name, ':'); i >= 0 {
		h.Prefix = string(d.name[:i])
	}
	for i := range d.s.attrs {
		a := &d.s.attrs[i]
		switch string(b[a.lo:a.hi]) {
		case "to":
			h.To = value(b, a)
		case "from":
			h.From = value(b, a)
		case "id":
			h.ID = value(b, a)
		case "version":
			h.Version = value(b, a)
		case "xml:lang":
			h.Lang = value(b, a)
		}
	}
	return h
}

// stanza makes the stanza that was scanned from its bytes.
func (d *Decoder) stanza(b []byte) Event {
	s := d.s
	ev := Event{Kind: Stanzas}
	head := xmpp.Stanza{Kind: stanzaKind(b[s.root.lo:s.root.hi])}
	var ok bool
	extra := s.redeclared(d)
	for i := range s.attrs[:s.rootEnd] {
		a := &s.attrs[i]
		switch string(b[a.lo:a.hi]) {
		case "to":
			if head.To, ok = d.jids.parse(b, a); !ok {
				ev.BadTo, ev.RawTo = true, value(b, a)
			}
		case "from":
			if head.From, ok = d.jids.parse(b, a); !ok {
				ev.BadFrom, ev.RawFrom = true, value(b, a)
			}
		case "type":
			head.Type = value(b, a)
		case "id":
			head.ID = value(b, a)
		case "xml:lang":
			head.Lang = value(b, a)
		case "xmlns":
		default:
			extra += 1 + int(a.vhi+1-a.lo)
		}
	}

	size := int(s.inner.hi - s.inner.lo)
	for _, c := range s.cuts {
		size -= int(c.hi - c.lo)
	}
	var payload []byte
	if size+extra > 0 {
		payload = make([]byte, 0, size+extra)
	}
	payload, index := s.payload(d, b, payload)
	all := payload
	if extra > 0 {
		all = s.appendExtra(d, b, payload)
	}
	ev.Stanza = xmpp.NewStanza(head, all[size:len(all):len(all)], payload[:size:size], index)
	return ev
}

// redeclared is the number of bytes that the header's bindings take which the stanza needs.
func (s *scanner) redeclared(d *Decoder) (n int) {
	if s.used == 0 {
		return 0
	}
	return len(s.appendUsed(d, nil))
}

// appendUsed appends the declarations of the header that the element uses (RFC 6120 §4.8.5: they must be declared when it is routed).
func (s *scanner) appendUsed(d *Decoder, to []byte) []byte {
	for i := range d.header {
		if s.used&(1<<i) != 0 {
			to = append(append(append(to, " xmlns:"...), d.header[i].prefix...), "='"...)
			to = append(xmpp.AppendEscaped(to, string(d.header[i].uri)), '\'')
		}
	}
	return to
}

// appendExtra appends what xmpp.NewStanza calls extra.
func (s *scanner) appendExtra(d *Decoder, b, to []byte) []byte {
	to = s.appendUsed(d, to)
	for i := range s.attrs[:s.rootEnd] {
		a := &s.attrs[i]
		switch string(b[a.lo:a.hi]) {
		case "to", "from", "type", "id", "xml:lang", "xmlns":
		default:
			to = append(append(to, ' '), b[a.lo:a.vhi+1]...)
		}
	}
	return to
}

// payload appends the bytes between start and end tag without what was cut, and makes the index of the children.
func (s *scanner) payload(d *Decoder, b, to []byte) ([]byte, []xmpp.Span) {
	if len(s.kids) == 0 {
		return append(to, b[s.inner.lo:s.inner.hi]...), nil
	}
	index := make([]xmpp.Span, len(s.kids))
	at, next := s.inner.lo, 0
	moved := func(offset int32) int { return len(to) + int(offset-at) }
	cut := func(end int32) {
		for ; next < len(s.cuts) && s.cuts[next].lo < end; next++ {
			to = append(to, b[at:s.cuts[next].lo]...)
			at = s.cuts[next].hi
		}
	}
	for i := range s.kids {
		k := &s.kids[i]
		x := &index[i]
		x.Local = intern(b[k.nlo:k.nhi])
		x.Space = d.space(b, k.ns)
		x.Start = moved(k.lo)
		if len(s.cuts) > 0 {
			cut(k.hi)
		}
		x.End = moved(k.hi)
	}
	return append(to, b[at:s.inner.hi]...), index
}

// space is the namespace of a child as xmpp.Span has it.
func (d *Decoder) space(b []byte, r nsRef) string {
	switch r.kind {
	case nsContent:
		return ""
	case nsNone:
		return xmpp.NoNamespace
	}
	return intern(d.uri(b, r))
}

// nonza makes the element that was scanned, with the declarations of the header that it needs.
func (d *Decoder) nonza(b []byte) *Nonza {
	s := d.s
	local := b[s.root.lo:s.root.hi]
	if i := bytes.IndexByte(local, ':'); i >= 0 {
		local = local[i+1:]
	}
	space := d.def
	if s.rootNS.kind != nsContent {
		space = d.uri(b, s.rootNS)
	}
	declared := false
	for i := range s.attrs[:s.rootEnd] {
		a := &s.attrs[i]
		declared = declared || string(b[a.lo:a.hi]) == "xmlns"
	}
	raw := append(make([]byte, 0, len(b)+64), b[:s.root.hi]...)
	if !declared {
		raw = append(raw, " xmlns='"...)
		raw = append(xmpp.AppendEscaped(raw, string(d.def)), '\'')
	}
	raw = append(s.appendUsed(d, raw), b[s.root.hi:]...)
	return &Nonza{Space: intern(space), Local: intern(local), raw: raw}
}
