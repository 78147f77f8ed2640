package stream

import (
	"bytes"
	"encoding/xml"
	"fmt"
)

// Nonza is a top-level element that is no stanza: starttls, auth, an acknowledgement … It owns its bytes and is read-only.
type Nonza struct {
	Space, Local string // the expanded name; Space is the namespace itself, also jabber:client

	raw []byte // the element with every namespace that it uses declared
}

// XML is the element as it means the same anywhere. Read-only.
func (n *Nonza) XML() []byte { return n.raw }

// Decode unmarshals the element with encoding/xml: for cold paths. A field without a namespace takes the attribute of any namespace there.
func (n *Nonza) Decode(v any) error {
	if err := xml.Unmarshal(n.raw, v); err != nil {
		return fmt.Errorf("decode %s: %w", n.Local, err)
	}
	return nil
}

// Attr is the value of the attribute without a namespace of that name, "" when absent.
func (n *Nonza) Attr(name string) string {
	i := nameEnd(n.raw, 1)
	for {
		i = skipSpace(n.raw, i)
		if n.raw[i] == '>' || n.raw[i] == '/' {
			return ""
		}
		var a attr
		i, _ = attribute(n.raw, i, &a)
		if string(n.raw[a.lo:a.hi]) == name {
			return value(n.raw, &a)
		}
	}
}

// nameEnd is the end of the name at b[i] in a validated tag.
func nameEnd(b []byte, i int) int {
	for !isSpace(b[i]) && b[i] != '>' && b[i] != '/' {
		i++
	}
	return i
}

// Text is the character data of the element without that of its children.
func (n *Nonza) Text() string {
	var text []byte
	depth := 0
	for b := n.raw; len(b) > 0; {
		if b[0] != '<' {
			end := bytes.IndexByte(b, '<')
			if depth == 1 {
				text = appendCharData(text, b[:end])
			}
			b = b[end:]
			continue
		}
		if b[1] == '!' {
			end := bytes.Index(b, []byte("]]>"))
			if depth == 1 {
				text = appendCDATA(text, b[len(cdataOpen):end])
			}
			b = b[end+len("]]>"):]
			continue
		}
		last, _, _ := tagEnd(b, 1, 0)
		switch {
		case b[1] == '/':
			depth--
		case b[last-1] != '/':
			depth++
		}
		b = b[last+1:]
	}
	return string(text)
}
