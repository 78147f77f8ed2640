package pubsub

import (
	"strings"

	"balcony/xmpp"
)

const nsForms = "jabber:x:data" // XEP-0004 §3

// form is a submitted data form: XEP-0004 §3.
type form struct {
	typ    string // of the form: submit, cancel
	kind   string // FORM_TYPE (XEP-0068)
	fields []formField
}

type formField struct {
	name   string
	values []string
}

// maxFields bounds the fields of a form. chosen: node_config has about 30.
const maxFields = 100

// readForm reads an <x/>. ok is false when it is no form, or one with too many fields.
func readForm(x *xmpp.Element) (f form, ok bool) {
	if x == nil || x.Space != nsForms || x.Local != "x" {
		return f, false
	}
	f.typ = x.Attr("type")
	for _, c := range x.Children {
		if c.Local != "field" || c.Space != nsForms {
			continue
		}
		fd := formField{name: c.Attr("var")}
		for _, v := range c.Children {
			if v.Local == "value" && v.Space == nsForms {
				fd.values = append(fd.values, text(v))
			}
		}
		if fd.name == "FORM_TYPE" {
			if len(fd.values) > 0 {
				f.kind = fd.values[0]
			}
			continue
		}
		if f.fields = append(f.fields, fd); len(f.fields) > maxFields {
			return f, false
		}
	}
	return f, true
}

// value is the first value of a field.
func (f form) value(name string) (string, bool) {
	for _, fd := range f.fields {
		if fd.name == name && len(fd.values) > 0 {
			return fd.values[0], true
		}
	}
	return "", false
}

// newForm makes an <x/> with its FORM_TYPE.
func newForm(typ, kind string) *xmpp.Element {
	x := xmpp.El(nsForms, "x", "type", typ)
	return x.Add(xmpp.El("", "field", "var", "FORM_TYPE", "type", "hidden").Add(xmpp.El("", "value").Say(kind)))
}

// newField makes a field; typ and label may be empty.
func newField(name, typ, label string, values ...string) *xmpp.Element {
	f := xmpp.El("", "field", "var", name, "type", typ, "label", label)
	for _, v := range values {
		f.Add(xmpp.El("", "value").Say(v))
	}
	return f
}

func lookup(e *xmpp.Element, name string) (string, bool) {
	for _, a := range e.Attrs {
		if a.Name == name {
			return a.Value, true
		}
	}
	return "", false
}

// text is the character data of an element without children.
func text(e *xmpp.Element) string { return e.Text }

// child is the first child of that name in the namespace of e or in space.
func child(e *xmpp.Element, space, local string) *xmpp.Element {
	for _, c := range e.Children {
		if c.Local == local && c.Space == space {
			return c
		}
	}
	return nil
}

// boolean reads an xs:boolean (XML Schema Part 2 §3.2.2).
func boolean(s string) (value, ok bool) {
	switch strings.TrimSpace(s) {
	case "1", "true":
		return true, true
	case "0", "false":
		return false, true
	}
	return false, false
}

func digit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}
