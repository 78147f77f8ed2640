package xmpp_test

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"balcony/xmpp"
	"balcony/xmpp/stream"
)

func TestElementAsXML(t *testing.T) {
	for _, tt := range []struct {
		rule string
		el   *xmpp.Element
		want string
	}{
		{"content namespace", xmpp.El("", "body").Say("a"), `<body>a</body>`},
		{"another namespace", xmpp.El("urn:a", "x"), `<x xmlns='urn:a'/>`},
		{"the parent's is inherited", xmpp.El("urn:a", "x").Add(xmpp.El("", "y"), xmpp.El("urn:a", "z")), `<x xmlns='urn:a'><y/><z/></x>`},
		{"it changes and comes back", xmpp.El("urn:a", "x").Add(xmpp.El("urn:b", "y").Add(xmpp.El("urn:a", "z"))),
			`<x xmlns='urn:a'><y xmlns='urn:b'><z xmlns='urn:a'/></y></x>`},
		{"no namespace", xmpp.El("urn:a", "x").Add(xmpp.El(xmpp.NoNamespace, "y").Add(xmpp.El("", "z"), xmpp.El("urn:a", "w"))),
			`<x xmlns='urn:a'><y xmlns=''><z/><w xmlns='urn:a'/></y></x>`},
		{"Namespaces in XML §3: xml is never the default", xmpp.El("urn:a", "x").Add(xmpp.El(xmpp.NSXML, "y").Say("b").Add(xmpp.El("", "z"))),
			`<x xmlns='urn:a'><xml:y>b<z/></xml:y></x>`},
		{"RFC 6120 §4.8.3: the content namespace is that of the stream", xmpp.El(xmpp.NSClient, "x").Add(xmpp.El(xmpp.NSServer, "y")), `<x><y/></x>`},
		{"but not inside another", xmpp.El("urn:a", "x").Add(xmpp.El(xmpp.NSClient, "y")), `<x xmlns='urn:a'><y xmlns='jabber:client'/></x>`},
		{"attributes", xmpp.El("", "x", "a", "1", "b", "", "xml:lang", "de"), `<x a='1' xml:lang='de'/>`},
		{"empty attributes that were asked for", &xmpp.Element{Local: "x", Attrs: []xmpp.Attr{{Name: "ver"}}}, `<x ver=''/>`},
		{"escapes", xmpp.El("urn:a&b'", "x", "a", "<>&'\"\t\r\n").Say("<>&'\"\t\r\n\x00"),
			`<x xmlns='urn:a&amp;b&apos;' a='&lt;&gt;&amp;&apos;&quot;&#9;&#13;&#10;'>&lt;&gt;&amp;&apos;&quot;&#9;&#13;&#10;` + "\uFFFD" + `</x>`},
		{"text, children, raw", (&xmpp.Element{Local: "x", Text: "a", Raw: []byte("<z/>")}).Add(xmpp.El("", "y"), nil), `<x>a<y/><z/></x>`},
		{"raw", xmpp.RawElement([]byte("<y/>")), `<y/>`},
		{"odd attributes are left out", xmpp.El("", "x", "a", "1", "b"), `<x a='1'/>`},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			if got := tt.el.String(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestMarshal(t *testing.T) {
	type item struct {
		XMLName xml.Name `xml:"urn:a item"`
		ID      string   `xml:"id,attr"`
	}
	el, err := xmpp.Marshal(item{ID: "<1>"})
	if err != nil || el.String() != `<item xmlns="urn:a" id="&lt;1&gt;"></item>` {
		t.Errorf("%v, %v", el, err)
	}
	s := xmpp.New(xmpp.IQ, "set", zero, zero, el)
	if !s.Has("urn:a", "item") {
		t.Errorf("%v is not in the index", s.Spans())
	}
	if el, err := xmpp.Marshal(func() {}); err == nil {
		t.Errorf("a function became %v", el)
	}
}

// XML 1.0 §2.2: whatever the string, what comes out is well-formed and says the same, with U+FFFD for what XML cannot say.
func checkEscaped(t interface{ Fatalf(string, ...any) }, s string) {
	want := strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
			return utf8.RuneError
		}
		return r
	}, s)
	if !utf8.ValidString(s) {
		want = string([]rune(want))
	}
	out := string(xmpp.AppendEscaped([]byte("prefix"), s))
	out, ok := strings.CutPrefix(out, "prefix")
	if !ok || strings.ContainsAny(out, "<>'\"\t\r\n") {
		t.Fatalf("%q became %q", s, out)
	}
	var v struct {
		A    string `xml:"a,attr"`
		B    string `xml:"b,attr"`
		Text string `xml:",chardata"`
	}
	doc := "<x a='" + out + "' b=\"" + out + "\">" + out + "</x>"
	if err := xml.Unmarshal([]byte(doc), &v); err != nil || v.A != want || v.B != want || v.Text != want {
		t.Fatalf("%q became %q: %q, %v", s, out, v, err)
	}
	if _, err := stream.ParseElement([]byte(doc), roomy); err != nil {
		t.Fatalf("%q became %q: %v", s, out, err)
	}
}

func TestAppendEscaped(t *testing.T) {
	for r := rune(0); r < 0x3000; r++ {
		checkEscaped(t, string(r))
	}
	for _, s := range []string{"", "a", "\ufffd", "\ufffe", "\U0010ffff", "\xff", "a\xc3", "\xed\xa0\x80", "]]>", "&amp;", "a\x00b\x1fc"} {
		checkEscaped(t, s)
	}
	rapid.Check(t, func(t *rapid.T) { checkEscaped(t, rapid.String().Draw(t, "s")) })
	rapid.Check(t, func(t *rapid.T) { checkEscaped(t, string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))) })
}

func FuzzAppendEscaped(f *testing.F) {
	f.Add("plain")
	f.Add("<&>'\"\t\r\n\x00\xff\ufffe")
	f.Fuzz(func(t *testing.T, s string) { checkEscaped(t, s) })
}

// genTree is an element with up to four levels.
func genTree(depth int) *rapid.Generator[*xmpp.Element] {
	return rapid.Custom(func(t *rapid.T) *xmpp.Element {
		space := rapid.SampledFrom([]string{"", "", "urn:a", "urn:b", xmpp.NoNamespace, xmpp.NSClient, xmpp.NSXML}).Draw(t, "space")
		e := xmpp.El(space, rapid.SampledFrom([]string{"x", "y", "body"}).Draw(t, "local"))
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "xml:lang"}), 0, 3, rapid.ID[string]).Draw(t, "attrs") {
			e.Attrs = append(e.Attrs, xmpp.Attr{Name: name, Value: rapid.String().Draw(t, "value")})
		}
		e.Text = rapid.String().Draw(t, "text")
		if depth > 1 {
			for range rapid.IntRange(0, 3).Draw(t, "children") {
				e.Add(genTree(depth-1).Draw(t, "child"))
			}
		}
		return e
	})
}

// An element that was read is written as it was, and an element that was written can be read by the scanner.
func TestElementRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := genTree(4).Draw(t, "element")
		out := e.String()
		s, err := stream.Parse([]byte("<message>"+out+"</message>"), roomy)
		if err != nil || string(s.PayloadBytes()) != out || len(s.Spans()) != 1 {
			t.Fatalf("%s became %v, %v", out, s, err)
		}
		again, err := s.Children()[0].Element()
		if err != nil || again.String() != out {
			t.Fatalf("%s became %s, %v", out, again, err)
		}
		if s := string(s.Children()[0].Standalone()); s != out {
			t.Fatalf("%s became %s", out, s)
		}
	})
}

func TestReadElement(t *testing.T) {
	d := xml.NewDecoder(strings.NewReader(`<r><a xmlns:p='urn:p' p:b='1' c='2' xml:lang='de'>x<b/>y<c xmlns='urn:c'><d xmlns=''/></c>z</a> <e/></r>`))
	if _, err := d.Token(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`<a xmlns:a1='urn:p' a1:b='1' c='2' xml:lang='de'>x<b/>y<c xmlns='urn:c'><d xmlns=''/></c>z</a>`,
		`<e/>`,
	} {
		e, err := xmpp.ReadElement(d)
		if err != nil || e.String() != want {
			t.Errorf("got %v, %v\nwant %s", e, err, want)
		}
	}
	if e, err := xmpp.ReadElement(d); err != io.EOF {
		t.Errorf("behind the last: %v, %v", e, err)
	}
	if e, err := xmpp.ReadElement(d); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("at the end: %v, %v", e, err)
	}
	if e, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader("<a><b"))); err == nil {
		t.Errorf("a torn element: %v", e)
	}
}
