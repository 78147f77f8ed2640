package stream

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"

	"balcony/xmpp"
)

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// normalise does what XML 1.0 §3.3.3 asks for and encoding/xml leaves out.
func normalise(v string) string {
	return strings.NewReplacer("\t", " ", "\n", " ", "\r", " ").Replace(v)
}

// canonical is the next element of d as lines: expanded names, attributes in order, joined text. The content namespaces are one on the
// stanza and its children (RFC 6120 §4.8.3), and on everything with anywhere; addresses of the top-level element are left out.
func canonical(d *xml.Decoder, anywhere bool) (string, error) {
	var out, text strings.Builder
	var content []bool // of the open elements
	for {
		t, err := d.Token()
		if err != nil {
			return "", err
		}
		if c, ok := t.(xml.CharData); ok {
			if len(content) > 0 {
				text.Write(c)
			}
			continue
		}
		if text.Len() > 0 {
			fmt.Fprintf(&out, "text %q\n", text.String())
			text.Reset()
		}
		switch t := t.(type) {
		case xml.StartElement:
			top := len(content) == 0
			isContent := isContent([]byte(t.Name.Space)) && (anywhere || top || content[len(content)-1])
			if isContent {
				t.Name.Space = "content"
			}
			content = append(content, isContent)
			fmt.Fprintf(&out, "start %q %q\n", normalise(t.Name.Space), t.Name.Local)
			var attrs []string
			for _, a := range t.Attr {
				if a.Name.Space == "xmlns" || a.Name == (xml.Name{Local: "xmlns"}) || top && a.Name.Space == "" && (a.Name.Local == "to" || a.Name.Local == "from") {
					continue
				}
				if top && a.Value == "" && (a.Name == xml.Name{Local: "type"} || a.Name == xml.Name{Local: "id"} || a.Name.Local == "lang") {
					continue // the same as absent
				}
				space := normalise(a.Name.Space)
				if space == "xml" {
					space = xmpp.NSXML
				}
				attrs = append(attrs, fmt.Sprintf("  %q %q = %q\n", space, a.Name.Local, normalise(a.Value)))
			}
			slices.Sort(attrs)
			out.WriteString(strings.Join(attrs, ""))
		case xml.EndElement:
			out.WriteString("end\n")
			content = content[:len(content)-1]
			if len(content) == 0 {
				return out.String(), nil
			}
		default:
			return "", fmt.Errorf("unexpected %T", t)
		}
	}
}

// canonicalIn is the element el as it stands on a stream with that header.
func canonicalIn(header, el string, anywhere bool) (string, error) {
	d := xml.NewDecoder(strings.NewReader(header + el))
	for {
		t, err := d.Token()
		if err != nil {
			return "", err
		}
		if _, ok := t.(xml.StartElement); ok {
			return canonical(d, anywhere)
		}
	}
}

// differ checks all that a decoder says of in against encoding/xml: what is accepted is accepted there with the same tokens; every
// element means the same on a stream of our own; the index is right; encoding and decoding again changes nothing.
func differ(t tester, content, in string, l Limits) {
	t.Helper()
	d := NewDecoder(content, l)
	d.Feed([]byte(in))
	header, at := "", 0
	for {
		ev, err := d.Next()
		if err != nil {
			return
		}
		end := len(in) - d.Buffered()
		raw := in[at:end]
		at = end
		switch ev.Kind {
		case Open:
			header = raw
		case Stanzas:
			for _, to := range []string{content, xmpp.NSClient, xmpp.NSServer} {
				// A content namespace of another stream on a child becomes that of this one, also for what inherits it further down.
				anywhere := to != content || strings.Count(raw, "jabber") != strings.Count(raw, content)
				want, err := canonicalIn(header, raw, anywhere)
				if err != nil {
					t.Fatalf("encoding/xml refuses %q after %q: %v", raw, header, err)
				}
				out := ev.Stanza.String()
				got, err := canonicalIn("<stream:stream xmlns='"+to+"' xmlns:stream='"+xmpp.NSStream+"'>", out, anywhere)
				if err != nil || got != want {
					t.Fatalf("%q became %q (%v):\n%s\n%s", raw, out, err, want, got)
				}
			}
			checkStanza(t, ev.Stanza)
		case Nonzas:
			want, err := canonicalIn(header, raw, false)
			if err != nil {
				t.Fatalf("encoding/xml refuses %q after %q: %v", raw, header, err)
			}
			got, err := canonical(xml.NewDecoder(bytes.NewReader(ev.Element.XML())), false)
			if err != nil || got != want {
				t.Fatalf("%q became %q (%v):\n%s\n%s", raw, ev.Element.XML(), err, want, got)
			}
			checkNonza(t, ev.Element)
		case Close:
			return
		}
	}
}

// roomy are limits for what grew by declarations of the header.
var roomy = Limits{Bytes: 1 << 20, Depth: 1 << 10, Attributes: 1 << 10, Children: 1 << 16}

func checkStanza(t tester, s *xmpp.Stanza) {
	t.Helper()
	at := 0
	for _, sp := range s.Spans() {
		if sp.Start < at || sp.End <= sp.Start || sp.End > len(s.PayloadBytes()) {
			t.Fatalf("%s: span %v", s, sp)
		}
		if between := string(s.PayloadBytes()[at:sp.Start]); strings.Contains(strings.ReplaceAll(between, cdataOpen, ""), "</") {
			t.Fatalf("%s: %q is in no span", s, between)
		}
		at = sp.End
		d := xml.NewDecoder(strings.NewReader("<x xmlns='content'" + string(s.ExtraBytes()) + ">" + string(s.PayloadBytes()[sp.Start:sp.End]) + "</x>"))
		_, _ = d.Token()
		first, err := d.Token()
		se, ok := first.(xml.StartElement)
		if err != nil || !ok {
			t.Fatalf("%s: span %v begins with %v, %v", s, sp, first, err)
		}
		name := xml.Name{Space: sp.Space, Local: sp.Local}
		switch sp.Space {
		case "":
			name.Space = "content"
		case xmpp.NoNamespace:
			name.Space = ""
		}
		if se.Name.Space = normalise(se.Name.Space); se.Name != name {
			t.Fatalf("%s: span %v is of %v", s, sp, se.Name)
		}
		if err := d.Skip(); err != nil {
			t.Fatalf("%s: span %v: %v", s, sp, err)
		}
		if end, err := d.Token(); err != nil {
			t.Fatalf("%s: span %v: %v", s, sp, err)
		} else if _, ok := end.(xml.EndElement); !ok {
			t.Fatalf("%s: span %v holds more than one element", s, sp)
		}
	}

	// Decoding again.
	out := s.AppendTo(nil)
	again, err := Parse(out, roomy)
	if err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	if !bytes.Equal(again.AppendTo(nil), out) || !slices.Equal(again.Spans(), s.Spans()) {
		t.Fatalf("%q became %q", out, again.AppendTo(nil))
	}
}

func checkNonza(t tester, n *Nonza) {
	t.Helper()
	again, err := ParseElement(n.XML(), roomy)
	if err != nil || again.Space != n.Space || again.Local != n.Local || !bytes.Equal(again.XML(), n.XML()) {
		t.Fatalf("%q became %v, %v", n.XML(), again, err)
	}
	d := xml.NewDecoder(bytes.NewReader(n.XML()))
	first, err := d.Token()
	if err != nil {
		t.Fatal(err)
	}
	se := first.(xml.StartElement)
	if normalise(se.Name.Space) != n.Space || se.Name.Local != n.Local {
		t.Fatalf("%s is {%s}%s", n.XML(), n.Space, n.Local)
	}
	for _, a := range se.Attr {
		if a.Name.Space == "" && !strings.ContainsAny(a.Value, "\t\n\r") && n.Attr(a.Name.Local) != a.Value {
			t.Fatalf("%s: attribute %q is %q", n.XML(), a.Name.Local, n.Attr(a.Name.Local))
		}
	}
	var text strings.Builder
	for depth := 1; ; {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			depth++
		case xml.EndElement:
			depth--
		case xml.CharData:
			if depth == 1 {
				text.Write(tok)
			}
		}
	}
	if n.Text() != text.String() {
		t.Fatalf("%s: text %q, want %q", n.XML(), n.Text(), text.String())
	}
}
