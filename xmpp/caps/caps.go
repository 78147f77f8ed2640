// Package caps computes the verification strings of entity capabilities, XEP-0115 1.6.0 and XEP-0390 0.3.2, from a disco#info answer: those of the
// server's own answer, and those that a client's answer must have.
package caps

import (
	"cmp"
	"crypto"
	_ "crypto/sha1"   // XEP-0115 §8.1 makes it mandatory
	_ "crypto/sha256" // XEP-0390 §4.2.1 with XEP-0300
	_ "crypto/sha3"
	_ "crypto/sha512"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"balcony/xmpp"
)

// Namespaces.
const (
	NS   = "http://jabber.org/protocol/caps" // XEP-0115 §4
	NS2  = "urn:xmpp:caps"                   // XEP-0390 §4
	nsX  = "jabber:x:data"
	info = "http://jabber.org/protocol/disco#info"
)

// Hash finds a hash function by its name in XEP-0300 §2 and the IANA registry that XEP-0115 §4 refers to; false for one that is not known, or
// that nobody should use.
func Hash(name string) (crypto.Hash, bool) {
	switch strings.ToLower(name) {
	case "sha-1":
		return crypto.SHA1, true
	case "sha-256":
		return crypto.SHA256, true
	case "sha-512":
		return crypto.SHA512, true
	case "sha3-256":
		return crypto.SHA3_256, true
	case "sha3-512":
		return crypto.SHA3_512, true
	}
	return 0, false
}

// ErrInvalid is the error for an answer that must not be cached: XEP-0115 §5.4 rule 3, XEP-0390 §4.1.
var ErrInvalid = errors.New("disco#info answer that has no verification string")

// Ver is the verification string of a disco#info answer: XEP-0115 §5.1. ErrInvalid where §5.4 rule 3 wants the answer ignored: something stands there
// twice.
//
// Different answers can have the same verification string, because the values may hold the separators (XEP-0115 §8.3). What is remembered for it must
// therefore be taken from Parts, which are the same for all of them.
func Ver(query *xmpp.Element, h crypto.Hash) (string, error) {
	s, err := hashed(query)
	if err != nil {
		return "", err
	}
	return sum(s, h), nil // steps 8 and 9
}

// Parts are the identities, features and form values of a disco#info answer, as the string says them of which Ver is the hash. All answers with one
// verification string have the same parts. nil where Ver is an error.
func Parts(query *xmpp.Element) []string {
	s, err := hashed(query)
	if err != nil {
		return nil
	}
	return strings.Split(s, "<")
}

// hashed is the string that is hashed: XEP-0115 §5.1 steps 1 to 7. Go compares strings by their bytes, which is the "i;octet" collation that all
// sorting there wants.
func hashed(query *xmpp.Element) (string, error) {
	var identities [][4]string
	var features []string
	var forms []form
	for _, c := range query.Children {
		switch c.Local {
		case "identity":
			identities = append(identities, [4]string{c.Attr("category"), c.Attr("type"), c.Attr("xml:lang"), c.Attr("name")})
		case "feature":
			features = append(features, c.Attr("var"))
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
		return cmp.Or(cmp.Compare(x[0], y[0]), cmp.Compare(x[1], y[1]), cmp.Compare(x[2], y[2]), cmp.Compare(x[3], y[3]))
	})
	twice := len(slices.Compact(slices.Clone(identities))) != len(identities)
	for _, id := range identities {
		add(strings.Join(id[:], "/"))
	}
	// Steps 4 and 5.
	slices.Sort(features)
	twice = twice || len(slices.Compact(slices.Clone(features))) != len(features)
	for _, f := range features {
		add(f)
	}
	// Steps 6 and 7.
	slices.SortFunc(forms, func(x, y form) int { return cmp.Compare(x.typ, y.typ) })
	for i, f := range forms {
		twice = twice || i > 0 && forms[i-1].typ == f.typ || f.ambiguous
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
	if twice {
		return "", ErrInvalid
	}
	return b.String(), nil
}

// Ver2 is the hash value of XEP-0390 §4.1 and §4.2, in Base64.
func Ver2(query *xmpp.Element, h crypto.Hash) (string, error) {
	var features, identities, extensions []string
	for _, c := range query.Children {
		switch {
		case c.Local == "": // white space
		case c.Local == "feature" && c.Space == info:
			features = append(features, c.Attr("var")+"\x1f")
		case c.Local == "identity" && c.Space == info:
			identities = append(identities, c.Attr("category")+"\x1f"+c.Attr("type")+"\x1f"+c.Attr("xml:lang")+"\x1f"+c.Attr("name")+"\x1f\x1e")
		case c.Local == "x" && c.Space == nsX:
			f, ok := readForm(c)
			if !ok || f.table {
				return "", ErrInvalid
			}
			f.fields = append(f.fields, field{"FORM_TYPE", []string{f.typ}})
			var fields []string
			for _, fd := range f.fields {
				slices.Sort(fd.values)
				s := fd.name + "\x1f"
				for _, v := range fd.values {
					s += v + "\x1f"
				}
				fields = append(fields, s+"\x1e")
			}
			slices.Sort(fields)
			extensions = append(extensions, strings.Join(fields, "")+"\x1d")
		default:
			return "", ErrInvalid
		}
	}
	var b strings.Builder
	for _, part := range [][]string{features, identities, extensions} {
		slices.Sort(part)
		b.WriteString(strings.Join(part, "") + "\x1c")
	}
	return sum(b.String(), h), nil
}

func sum(s string, h crypto.Hash) string {
	d := h.New()
	d.Write([]byte(s)) // never fails
	return base64.StdEncoding.EncodeToString(d.Sum(nil))
}

// form is a data form of XEP-0128 without its FORM_TYPE field, field one of its fields.
type (
	form struct {
		typ       string
		fields    []field
		ambiguous bool // its FORM_TYPE has several values: XEP-0115 §5.4 rule 3.5
		table     bool // it has <reported/> or <item/>
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
			f.table = f.table || c.Local == "reported" || c.Local == "item"
			continue
		}
		fd := field{name: c.Attr("var")}
		for _, v := range c.Children {
			if v.Local == "value" {
				fd.values = append(fd.values, v.Text)
			}
		}
		if fd.name != "FORM_TYPE" {
			f.fields = append(f.fields, fd)
		} else if c.Attr("type") == "hidden" && len(fd.values) > 0 {
			f.typ, ok = fd.values[0], true
			for _, v := range fd.values {
				f.ambiguous = f.ambiguous || v != f.typ
			}
		}
	}
	return f, ok
}
