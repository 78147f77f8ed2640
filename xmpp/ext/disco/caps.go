package disco

import (
	"cmp"
	"crypto/sha1"
	"encoding/base64"
	"slices"
	"strings"

	"balcony/xmpp"
)

// caps is the stream feature of XEP-0115 §6.3.
func (m *Module) caps(domain string) *xmpp.Element {
	return xmpp.El(NSCaps, "c", "hash", "sha-1", "node", m.Node, "ver", ver(m.server(domain)))
}

// ver is the verification string of a disco#info answer: XEP-0115 §5.1 with SHA-1, which §8.1 makes mandatory. Go compares strings by
// their bytes, which is the "i;octet" collation that all sorting there wants.
func ver(query *xmpp.Element) string {
	var identities [][4]string
	var features []string
	var forms []form
	for _, c := range query.Children {
		switch c.Local {
		case "identity":
			identities = append(identities, [4]string{attr(c, "category"), attr(c, "type"), attr(c, "xml:lang"), attr(c, "name")})
		case "feature":
			features = append(features, attr(c, "var"))
		case "x":
			if f, ok := readForm(c); ok {
				forms = append(forms, f)
			}
		}
	}
	var b strings.Builder
	add := func(s string) {
		b.WriteString(s)
		b.WriteByte('<')
	}
	// Steps 2 and 3: by category, then type, then language.
	slices.SortFunc(identities, func(x, y [4]string) int {
		return cmp.Or(cmp.Compare(x[0], y[0]), cmp.Compare(x[1], y[1]), cmp.Compare(x[2], y[2]))
	})
	for _, id := range identities {
		add(strings.Join(id[:], "/"))
	}
	// Steps 4 and 5.
	slices.Sort(features)
	for _, f := range features {
		add(f)
	}
	// Steps 6 and 7.
	slices.SortFunc(forms, func(x, y form) int { return cmp.Compare(x.typ, y.typ) })
	for _, f := range forms {
		add(f.typ)
		slices.SortFunc(f.fields, func(x, y field) int { return cmp.Compare(x.name, y.name) })
		for _, field := range f.fields {
			add(field.name)
			slices.Sort(field.values)
			for _, v := range field.values {
				add(v)
			}
		}
	}
	// Steps 8 and 9.
	sum := sha1.Sum([]byte(b.String()))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// form is a data form of XEP-0128 without its FORM_TYPE field, field one of its fields.
type (
	form struct {
		typ    string
		fields []field
	}
	field struct {
		name   string
		values []string
	}
)

// readForm reads an <x/>; false when XEP-0115 §5.4 ignores it, because it has no hidden FORM_TYPE.
func readForm(x *xmpp.Element) (f form, ok bool) {
	for _, c := range x.Children {
		if c.Local != "field" {
			continue
		}
		fd := field{name: attr(c, "var")}
		for _, v := range c.Children {
			if v.Local == "value" {
				fd.values = append(fd.values, v.Text)
			}
		}
		if fd.name != "FORM_TYPE" {
			f.fields = append(f.fields, fd)
		} else if attr(c, "type") == "hidden" && len(fd.values) > 0 {
			f.typ, ok = fd.values[0], true
		}
	}
	return f, ok
}

func attr(e *xmpp.Element, name string) string {
	for _, a := range e.Attrs {
		if a.Name == name {
			return a.Value
		}
	}
	return ""
}
