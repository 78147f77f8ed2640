package xmpp

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"mellium.im/xmpp/jid"
)

// Attr is an attribute of an Element; Name is written as it is ("xml:lang", "to").
type Attr struct{ Name, Value string }

// Element is a piece of XML that the server writes. An Element without Local is written as Raw alone.
type Element struct {
	Space, Local string // Space "" = the content namespace at top level, the parent's namespace below; NoNamespace = none
	Attrs        []Attr // attributes with an empty value are written too
	Text         string
	Children     []*Element
	Raw          []byte // inner XML, already well-formed and namespace-correct, written after Text
}

// El makes an element; attrs are name, value pairs, and pairs with an empty value are left out.
func El(space, local string, attrs ...string) *Element {
	e := &Element{Space: space, Local: local}
	for i := 0; i+1 < len(attrs); i += 2 {
		if attrs[i+1] != "" {
			e.Attrs = append(e.Attrs, Attr{attrs[i], attrs[i+1]})
		}
	}
	return e
}

// Add appends children (nil ones are skipped) and returns e.
func (e *Element) Add(children ...*Element) *Element {
	for _, c := range children {
		if c != nil {
			e.Children = append(e.Children, c)
		}
	}
	return e
}

// Say sets the character data and returns e.
func (e *Element) Say(text string) *Element {
	e.Text = text
	return e
}

// RawElement wraps bytes of one element that are well-formed and mean the same anywhere (every namespace declared inside).
func RawElement(b []byte) *Element { return &Element{Raw: b} }

// Marshal makes an Element of a value with encoding/xml tags: for cold paths.
func Marshal(v any) (*Element, error) {
	b, err := xml.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("marshal %T: %w", v, err)
	}
	return RawElement(b), nil
}

// Attr is the value of an attribute, "" where there is none.
func (e *Element) Attr(name string) string {
	for _, a := range e.Attrs {
		if a.Name == name {
			return a.Value
		}
	}
	return ""
}

// AppendTo appends e as XML inside an element of namespace parent.
func (e *Element) AppendTo(b []byte, parent string) []byte {
	if e.Local == "" {
		return append(b, e.Raw...)
	}
	prefix, space := "", e.space(parent)
	if space == NSXML { // Namespaces in XML §3: it cannot be the default namespace
		prefix, space = "xml:", parent
	}
	b = append(append(append(b, '<'), prefix...), e.Local...)
	switch space {
	case parent:
	case NoNamespace:
		b = append(b, " xmlns=''"...)
	default:
		b = appendAttr(b, "xmlns", space)
	}
	for _, a := range e.Attrs {
		b = append(b, ' ')
		b = append(b, a.Name...)
		b = append(b, '=', '\'')
		b = AppendEscaped(b, a.Value)
		b = append(b, '\'')
	}
	if e.Text == "" && len(e.Children) == 0 && len(e.Raw) == 0 {
		return append(b, '/', '>')
	}
	b = append(b, '>')
	b = AppendEscaped(b, e.Text)
	for _, c := range e.Children {
		b = c.AppendTo(b, space)
	}
	b = append(b, e.Raw...)
	b = append(append(append(b, '<', '/'), prefix...), e.Local...)
	return append(b, '>')
}

// about is how long e is as XML, without what is escaped and with all namespaces declared.
func (e *Element) about() int {
	n := len(e.Space) + 2*len(e.Local) + len(" xmlns=''<></>") + len(e.Text) + len(e.Raw)
	for _, a := range e.Attrs {
		n += len(a.Name) + len(a.Value) + len(" =''")
	}
	for _, c := range e.Children {
		n += c.about()
	}
	return n
}

// space is the namespace of e inside of parent. RFC 6120 §4.8.3: what is in the content namespace takes that of the stream.
func (e *Element) space(parent string) string {
	if e.Space == "" || parent == "" && (e.Space == NSClient || e.Space == NSServer) {
		return parent
	}
	return e.Space
}

// String is the element as XML.
func (e *Element) String() string { return string(e.AppendTo(nil, "")) }

// nsInherited stands for the content namespace while a child is read into a tree: encoding/xml shows both that and no namespace as "".
const nsInherited = "urn:balcony:content"

// Element decodes the child into a tree whose namespaces are all explicit: for cold paths that keep or change XML. What inherits the
// content namespace inside of another one is jabber:client there (RFC 6120 §4.8.3: it is not re-scoped).
func (c Child) Element() (*Element, error) {
	return readElement(c.decoder(nsInherited), nsInherited, nil, 0)
}

// ReadElement reads the next element from d, which gives tokens with resolved namespaces; io.EOF when the surrounding element ends instead.
// Its own Space is empty for the content namespace and for none. Depth is the scanner's to bound.
func ReadElement(d *xml.Decoder) (*Element, error) { return readElement(d, "", nil, 0) }

// ReadElementFrom is ReadElement for an element whose start d has given already. One whose depth is more than depth is an error.
func ReadElementFrom(d *xml.Decoder, start xml.StartElement, depth int) (*Element, error) {
	return readElement(d, "", &start, depth)
}

// readElement reads an element; content is what d calls the content namespace. first is its start when that was read, depth the bound unless 0.
func readElement(d *xml.Decoder, content string, first *xml.StartElement, depth int) (*Element, error) {
	var stack []*Element
	var text []*strings.Builder
	for {
		var t xml.Token
		var err error
		if first != nil {
			t, first = *first, nil
		} else {
			t, err = d.Token()
		}
		if err == nil && depth > 0 && len(stack) > depth {
			err = fmt.Errorf("elements more than %d deep", depth)
		}
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("read element: %w", err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			e := &Element{Space: t.Name.Space, Local: t.Name.Local}
			inherits := len(stack) == 0 || stack[len(stack)-1].Space == ""
			switch {
			case e.Space == content && inherits:
				e.Space = ""
			case e.Space == content && content != "":
				e.Space = NSClient
			case e.Space == "":
				e.Space = NoNamespace
			}
			for i, a := range t.Attr {
				switch {
				case a.Name.Space == "xmlns" || a.Name.Space == "" && a.Name.Local == "xmlns":
				case a.Name.Space == "xml" || a.Name.Space == NSXML:
					e.Attrs = append(e.Attrs, Attr{"xml:" + a.Name.Local, a.Value})
				case a.Name.Space != "":
					p := fmt.Sprintf("a%d", i)
					e.Attrs = append(e.Attrs, Attr{"xmlns:" + p, a.Name.Space}, Attr{p + ":" + a.Name.Local, a.Value})
				default:
					e.Attrs = append(e.Attrs, Attr{a.Name.Local, a.Value})
				}
			}
			if n := len(stack); n > 0 {
				stack[n-1].flush(text[n-1])
				stack[n-1].Children = append(stack[n-1].Children, e)
			}
			stack, text = append(stack, e), append(text, new(strings.Builder))
		case xml.CharData:
			if n := len(stack); n > 0 {
				text[n-1].Write(t)
			}
		case xml.EndElement:
			n := len(stack) - 1
			if n < 0 {
				return nil, io.EOF // the end of the surrounding element
			}
			stack[n].flush(text[n])
			if n == 0 {
				return stack[0], nil
			}
			stack, text = stack[:n], text[:n]
		}
	}
}

// flush keeps character data in document order: before the first child as Text, between children as a nameless child.
func (e *Element) flush(t *strings.Builder) {
	if t.Len() == 0 {
		return
	}
	if len(e.Children) == 0 {
		e.Text += t.String()
	} else {
		e.Children = append(e.Children, &Element{Raw: AppendEscaped(nil, t.String())})
	}
	t.Reset()
}

func appendAttr(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, ' ')
	b = append(b, name...)
	b = append(b, '=', '\'')
	b = AppendEscaped(b, value)
	return append(b, '\'')
}

// appendJIDAttr appends the parts of j: j.String would allocate for each delivery.
func appendJIDAttr(b []byte, name string, j jid.JID) []byte {
	domain := j.Domainpart()
	if domain == "" {
		return b
	}
	b = append(append(append(b, ' '), name...), '=', '\'')
	if local := j.Localpart(); local != "" {
		b = append(AppendEscaped(b, local), '@')
	}
	b = AppendEscaped(b, domain)
	if resource := j.Resourcepart(); resource != "" {
		b = AppendEscaped(append(b, '/'), resource)
	}
	return append(b, '\'')
}

// AppendEscaped appends s as XML character data that is also safe inside an attribute value of either quote. Characters that XML
// 1.0 forbids become U+FFFD.
func AppendEscaped(b []byte, s string) []byte {
	last := 0
	for i := 0; i < len(s); {
		if plain[s[i]] {
			i++
			continue
		}
		if s[i] >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 || r == 0xFFFE || r == 0xFFFF {
				b = append(append(b, s[last:i]...), "\uFFFD"...)
				last = i + n
			}
			i += n
			continue
		}
		b = append(append(b, s[last:i]...), escapes[s[i]]...)
		i++
		last = i
	}
	return append(b, s[last:]...)
}

// plain are the ASCII characters that stand for themselves.
var plain = func() (t [256]bool) {
	for c, esc := range escapes {
		t[c] = esc == ""
	}
	return t
}()

// escapes is what stands for an ASCII character in XML, "" for itself.
var escapes = func() (t [utf8.RuneSelf]string) {
	for c := range 0x20 {
		t[c] = "\uFFFD" // XML 1.0 §2.2: Char
	}
	t['\t'], t['\n'], t['\r'] = "&#9;", "&#10;", "&#13;" // XML 1.0 §2.11, §3.3.3: else they are normalised
	t['<'], t['>'], t['&'], t['\''], t['"'] = "&lt;", "&gt;", "&amp;", "&apos;", "&quot;"
	return t
}()
