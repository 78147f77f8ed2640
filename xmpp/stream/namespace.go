package stream

import (
	"bytes"

	"balcony/xmpp"
)

// nsComponent is the content namespace of XEP-0114 §3.
const nsComponent = "jabber:component:accept"

const nsXMLNS = "http://www.w3.org/2000/xmlns/" // bound to the prefix xmlns, never declared (Namespaces in XML §3)

// maxPrefixes bounds the prefixes in scope, those of the stream header apart. chosen: real stanzas have one or two, and each use of a
// prefix compares it with all of them, so that the cost of a stanza stays linear in its size.
const maxPrefixes = 64

// The stream header is kept for as long as the stream, and a stanza that uses its prefixes carries them along. chosen: a header of today
// has about 100 bytes of declarations.
const (
	maxHeaderPrefixes = 16
	maxHeaderBytes    = 1024
)

// nsKind says where the bytes of a namespace name are.
type nsKind uint8

const (
	nsContent nsKind = iota // the content namespace, inherited
	nsNone                  // no namespace: xmlns=''
	nsPlain                 // in the element
	nsCooked                // in the element, and its value differs from its source
	nsHeader                // in the stream header: lo is the index of the binding
	nsXML                   // the namespace of the prefix xml
)

// nsRef is a namespace name without a copy of it.
type nsRef struct {
	lo, hi int32
	kind   nsKind
}

// bind is a prefix that an element declares.
type bind struct {
	lo, hi int32 // the prefix
	ns     nsRef
	id     int32 // two bindings in scope have the same one if their namespace is the same
}

// headerBind is a prefix that the stream header declares.
type headerBind struct {
	prefix, uri []byte
	id          int32
}

const idXML = -1 // id of the namespace of the prefix xml

// isContent reports whether uri is a content namespace, of whichever kind of stream.
func isContent(uri []byte) bool {
	switch string(uri) {
	case xmpp.NSClient, xmpp.NSServer, nsComponent:
		return true
	}
	return false
}

// uri is the namespace name of r in the element b.
func (d *Decoder) uri(b []byte, r nsRef) []byte {
	switch r.kind {
	case nsPlain:
		return b[r.lo:r.hi]
	case nsCooked:
		return appendValue(nil, b[r.lo:r.hi])
	case nsHeader:
		return d.header[r.lo].uri
	case nsXML:
		return []byte(xmpp.NSXML)
	}
	return nil
}

// lookup finds the namespace of a prefix that an element or attribute uses.
func (d *Decoder) lookup(b []byte, prefix []byte) (ns nsRef, id int32, f fault) {
	s := d.s
	if string(prefix) == "xml" {
		return nsRef{kind: nsXML}, idXML, none
	}
	for i := len(s.binds) - 1; i >= 0; i-- {
		if x := &s.binds[i]; x.hi-x.lo == int32(len(prefix)) && string(b[x.lo:x.hi]) == string(prefix) {
			return x.ns, x.id, none
		}
	}
	for i := range d.header {
		if x := &d.header[i]; string(x.prefix) == string(prefix) {
			s.used |= 1 << i
			return nsRef{kind: nsHeader, lo: int32(i)}, x.id, none
		}
	}
	return nsRef{}, 0, notWellFormed // RFC 6120 §4.9.3.13: the prefix is not declared
}

// declare takes the namespace declarations among the tag's attributes (Namespaces in XML 1.0 §3). at is the attribute that declares the
// default namespace, -1 without one.
func (d *Decoder) declare(b []byte) (def nsRef, at int, f fault) {
	s := d.s
	at = -1
	for k := s.rootEnd; k < len(s.attrs); k++ {
		a := &s.attrs[k]
		var prefix []byte
		switch {
		case a.colon < 0 && a.hi-a.lo == 5 && string(b[a.lo:a.hi]) == "xmlns":
		case a.colon-a.lo == 5 && string(b[a.lo:a.colon]) == "xmlns":
			prefix = b[a.colon+1 : a.hi]
		default:
			continue
		}
		ns := nsRef{a.vlo, a.vhi, nsPlain}
		if a.cooked {
			ns.kind = nsCooked
		}
		uri := d.uri(b, ns)
		if string(prefix) == "xml" && string(uri) == xmpp.NSXML {
			continue // Namespaces in XML §3: may be declared so
		}
		if string(uri) == xmpp.NSXML || string(uri) == nsXMLNS || string(prefix) == "xml" || string(prefix) == "xmlns" {
			return def, at, notWellFormed // Namespaces in XML §3: Reserved Prefixes and Namespace Names
		}
		if prefix == nil {
			def, at = ns, k
			if len(uri) == 0 {
				def.kind = nsNone
			}
			continue
		}
		if len(uri) == 0 {
			return def, at, notWellFormed // Namespaces in XML §5: No Prefix Undeclaring
		}
		if len(s.binds) >= maxPrefixes {
			return def, at, tooManyPrefixes
		}
		s.binds = append(s.binds, bind{a.colon + 1, a.hi, ns, d.identify(b, uri)})
	}
	return def, at, none
}

// identify finds the id of a namespace that is bound now.
func (d *Decoder) identify(b, uri []byte) int32 {
	for i := range d.header {
		if bytes.Equal(d.header[i].uri, uri) {
			return d.header[i].id
		}
	}
	for i := range d.s.binds {
		if x := &d.s.binds[i]; bytes.Equal(d.uri(b, x.ns), uri) {
			return x.id
		}
	}
	return int32(len(d.header) + len(d.s.binds))
}

// resolve checks the prefixes of the tag's attributes and that no expanded name comes twice (Namespaces in XML §6.3: Attributes Unique).
func (d *Decoder) resolve(b []byte) (f fault) {
	attrs := d.s.attrs[d.s.rootEnd:]
	for i := range attrs {
		a := &attrs[i]
		if a.colon < 0 || string(b[a.lo:a.colon]) == "xmlns" {
			continue
		}
		if _, a.ns, f = d.lookup(b, b[a.lo:a.colon]); f != none {
			return f
		}
		local := b[a.colon+1 : a.hi]
		for j := range attrs[:i] {
			c := &attrs[j]
			if c.colon >= 0 && c.ns == a.ns && string(b[c.colon+1:c.hi]) == string(local) && string(b[c.lo:c.colon]) != "xmlns" {
				return notWellFormed
			}
		}
	}
	return none
}

// enter takes the element whose complete start tag begins at b[tag]: its namespaces, its place in the tree, the limits.
func (d *Decoder) enter(b []byte, tag, colon int, qualified bool, e elem, empty bool) (f fault) {
	s := d.s
	if len(s.open) >= s.max.Depth {
		return tooDeep
	}
	ns, def, at := nsRef{}, nsRef{}, -1
	if qualified {
		if def, at, f = d.declare(b); f != none {
			return f
		}
		if f = d.resolve(b); f != none {
			return f
		}
		if colon >= 0 {
			prefix := b[e.lo:colon]
			if string(prefix) == "xmlns" {
				return notWellFormed // Namespaces in XML §3: element names must not have the prefix xmlns
			}
			if ns, _, f = d.lookup(b, prefix); f != none {
				return f
			}
		}
	}
	if len(s.open) == 0 {
		f = d.enterRoot(b, colon, ns, def, at, &e)
	} else {
		f = d.enterChild(b, tag, colon, ns, def, at, &e)
	}
	if f != none {
		return f
	}
	if s.kind == Open {
		d.selfClosed = empty
		return none
	}
	s.open = append(s.open, e)
	return none
}

// enterChild takes an element inside the top-level one.
func (d *Decoder) enterChild(b []byte, tag, colon int, ns, def nsRef, at int, e *elem) fault {
	s := d.s
	parent := &s.open[len(s.open)-1]
	local := e.lo
	switch {
	case colon >= 0:
		local = int32(colon) + 1
		if parent.content && isContent(d.uri(b, ns)) {
			return badNamespacePrefix // RFC 6120 §4.8.5
		}
	case at < 0:
		e.content = parent.content
	case parent.content && isContent(d.uri(b, def)):
		// RFC 6120 §4.8.3: what inherits the content namespace takes that of the stream it is sent on.
		e.content = true
		a := &s.attrs[at]
		s.cuts = append(s.cuts, span{a.lo - 1, a.vhi + 1})
	default:
		ns = def
	}
	if len(s.open) > 1 {
		return none
	}
	if s.children++; s.children > s.max.Children {
		return tooManyChildren
	}
	if s.kind == Stanzas {
		s.kids = append(s.kids, kid{lo: int32(tag), nlo: local, nhi: e.hi, ns: ns})
	}
	return none
}

// enterRoot takes the stream header or a top-level element.
func (d *Decoder) enterRoot(b []byte, colon int, ns, def nsRef, at int, e *elem) fault {
	s := d.s
	s.rootEnd, s.root, s.rootNS = len(s.attrs), *e, nsRef{}
	uri := d.def
	local := b[e.lo:e.hi]
	switch {
	case colon >= 0:
		s.rootNS = ns
		uri, local = d.uri(b, ns), b[colon+1:e.hi]
	case at >= 0:
		s.rootNS = def
		uri = d.uri(b, def)
	}
	if d.state == prolog {
		s.kind = Open
		if d.body {
			return d.enterBody(b, uri, local)
		}
		return d.enterHeader(b, colon, uri, local, def, at)
	}
	s.kind = Nonzas
	switch {
	case d.single || !isContent(uri):
	case colon >= 0:
		return badNamespacePrefix // RFC 6120 §4.8.5
	case string(uri) != d.content:
		return invalidNamespace // RFC 6120 §4.8.3
	case stanzaKind(local) != 0:
		s.kind = Stanzas
		e.content = true
	}
	return none
}

func stanzaKind(local []byte) xmpp.Kind {
	switch string(local) {
	case "message":
		return xmpp.Message
	case "presence":
		return xmpp.Presence
	case "iq":
		return xmpp.IQ
	}
	return 0
}

// enterHeader checks a stream header (RFC 6120 §4.8) and keeps what it declares.
func (d *Decoder) enterHeader(b []byte, colon int, uri, local []byte, def nsRef, at int) fault {
	s := d.s
	defaultURI := d.uri(b, def)
	if at < 0 {
		defaultURI = nil
	}
	switch {
	case string(uri) != xmpp.NSStream:
		for _, x := range s.binds {
			if colon < 0 && string(local) == "stream" && string(d.uri(b, x.ns)) == xmpp.NSStream {
				return badNamespacePrefix // RFC 6120 §4.9.3.2: it needs the prefix that it declares
			}
		}
		return invalidNamespace // RFC 6120 §4.8.1
	case string(local) != "stream":
		return badFormat
	case colon >= 0 && string(b[s.root.lo:colon]) != "stream":
		return badNamespacePrefix // RFC 6120 §4.8.5, §4.9.3.2: the only one that is accepted, as the RFC allows
	case len(defaultURI) > 0 && string(defaultURI) != xmpp.NSStream && string(defaultURI) != d.content:
		return invalidNamespace // RFC 6120 §4.9.3.10
	}
	if f := d.keepHeader(b); f != none {
		return f
	}
	d.def = bytes.Clone(defaultURI)
	if string(d.def) == d.content {
		d.def = []byte(d.content)
	}
	return none
}

// keepHeader keeps the name of the stream element and the prefixes that it declares.
func (d *Decoder) keepHeader(b []byte) fault {
	s := d.s
	total := 0
	for _, x := range s.binds {
		total += int(x.hi-x.lo) + int(x.ns.hi-x.ns.lo)
	}
	if len(s.binds) > maxHeaderPrefixes || total > maxHeaderBytes {
		return tooManyPrefixes
	}
	d.name = bytes.Clone(b[s.root.lo:s.root.hi])
	var header []headerBind
	for _, x := range s.binds {
		header = append(header, headerBind{bytes.Clone(b[x.lo:x.hi]), bytes.Clone(d.uri(b, x.ns)), x.id})
	}
	d.header = header
	return none
}
