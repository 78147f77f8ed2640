package xmpp_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
	"pgregory.net/rapid"

	"balcony/xmpp"
	"balcony/xmpp/stream"
)

var (
	zero   jid.JID
	romeo  = jid.MustParse("romeo@montague.example/orchard")
	juliet = jid.MustParse("juliet@capulet.example/balcony")
	roomy  = stream.Limits{Bytes: 1 << 20, Depth: 1 << 10, Attributes: 1 << 10, Children: 1 << 16}
)

func parse(t testing.TB, in string) *xmpp.Stanza {
	t.Helper()
	s, err := stream.Parse([]byte(in), roomy)
	if err != nil {
		t.Fatalf("%s: %v", in, err)
	}
	return s
}

// sound fails unless s survives encoding and decoding with the same index.
func sound(t interface{ Fatalf(string, ...any) }, s *xmpp.Stanza) {
	out := s.String()
	again, err := stream.Parse([]byte(out), roomy)
	if err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	if again.String() != out || !slices.Equal(again.Spans(), s.Spans()) {
		t.Fatalf("%s became %s\n%v\n%v", out, again, s.Spans(), again.Spans())
	}
}

func TestNew(t *testing.T) {
	s := xmpp.New(xmpp.Message, "chat", juliet, romeo, xmpp.El("", "body").Say("a'<b"), xmpp.El("urn:a", "x"), xmpp.RawElement([]byte(`<y xmlns='urn:b'/>`)))
	s.ID, s.Lang = "1&2", "de"
	want := `<message to='juliet@capulet.example/balcony' from='romeo@montague.example/orchard' type='chat' id='1&amp;2' xml:lang='de'>` +
		`<body>a&apos;&lt;b</body><x xmlns='urn:a'/><y xmlns='urn:b'/></message>`
	if s.String() != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	sound(t, s)
	if s := xmpp.New(xmpp.Presence, "", zero, zero); s.String() != "<presence/>" {
		t.Errorf("got %s", s)
	}
	if k := xmpp.Kind(9); k.String() != "unknown" {
		t.Errorf("got %s", k)
	}
}

// RFC 7622 §3.4: a resource may hold what XML must not.
func TestAddressesAreEscaped(t *testing.T) {
	to := jid.MustParse(`juliet@capulet.example/<&'">`)
	s := xmpp.New(xmpp.IQ, "get", to, to.Domain())
	if want := `<iq to='juliet@capulet.example/&lt;&amp;&apos;&quot;&gt;' from='capulet.example' type='get'/>`; s.String() != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	if again := parse(t, s.String()); !again.To.Equal(to) {
		t.Errorf("to became %s", again.To)
	}
}

const withPrefixes = `<message xmlns:p='urn:p' p:hint='1' id='1'><body xml:lang='de'>a<![CDATA[<b>]]>&amp;</body> ` +
	`<p:x p:a='no' a='&lt;1' b="2"><y/>t</p:x><body>c</body><z xmlns='urn:z'><p:w/></z><n xmlns=''/></message>`

func TestChildren(t *testing.T) {
	s := parse(t, withPrefixes)
	var names []string
	for _, c := range s.Children() {
		names = append(names, fmt.Sprintf("{%s}%s", c.Space, c.Local))
	}
	if want := []string{"{}body", "{urn:p}x", "{}body", "{urn:z}z", "{" + xmpp.NoNamespace + "}n"}; !slices.Equal(names, want) {
		t.Errorf("got %q", names)
	}
	body, ok := s.Child("", "body")
	if !ok || body.Text() != "a<b>&" || string(body.XML()) != `<body xml:lang='de'>a<![CDATA[<b>]]>&amp;</body>` {
		t.Errorf("%q %s", body.Text(), body.XML())
	}
	x, ok := s.Child("urn:p", "x")
	if !ok || x.Attr("a") != "<1" || x.Attr("b") != "2" || x.Attr("c") != "" || x.Text() != "t" {
		t.Errorf("%q %q %q %q", x.Attr("a"), x.Attr("b"), x.Attr("c"), x.Text())
	}
	var v struct {
		P string    `xml:"urn:p a,attr"`
		Y *struct{} `xml:"y"`
	}
	if err := x.Decode(&v); err != nil || v.P != "no" || v.Y == nil {
		t.Errorf("%+v, %v", v, err)
	}
	if err := x.Decode(new(struct {
		B bool `xml:"a,attr"`
	})); err == nil {
		t.Error("no error for what is no boolean")
	}
	for _, name := range [][2]string{{"", "n"}, {"urn:p", "body"}, {"", "x"}, {"urn:z", "w"}} {
		if s.Has(name[0], name[1]) {
			t.Errorf("there is no {%s}%s", name[0], name[1])
		}
	}
	if p, ok := s.Payload(); !ok || p.Local != "body" {
		t.Errorf("payload %v", p)
	}
	if p, ok := parse(t, "<iq/>").Payload(); ok {
		t.Errorf("payload %v", p)
	}
}

// A child that leaves its stanza keeps its meaning.
func TestStandalone(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{`<message><x xmlns='urn:x'><y/></x></message>`, `<x xmlns='urn:x'><y/></x>`},
		{`<message><x xmlns='urn:x'><y xmlns=''/></x></message>`, `<x xmlns='urn:x'><y xmlns=''/></x>`},
		{`<message xmlns:p='urn:p'><x xmlns='urn:x'><p:y p:z='1'/></x></message>`, `<x xmlns='urn:x'><y xmlns='urn:p' xmlns:a0='urn:p' a0:z='1'/></x>`},
		{`<message xmlns:p='urn:p'><p:x><y/></p:x></message>`, `<x xmlns='urn:p'><y xmlns='jabber:client'/></x>`},
		{`<message><x:x xmlns:x='urn:x'><y/></x:x></message>`, `<x xmlns='urn:x'><y xmlns='jabber:client'/></x>`},
		{`<message><n xmlns=''><y/></n></message>`, `<n xmlns=''><y/></n>`},
		{`<message xmlns:p='urn:p'><n xmlns=''><y/><p:z/></n></message>`, `<n xmlns=''><y/><z xmlns='urn:p'/></n>`},
		{`<message><error><a/><b xmlns=''/></error></message>`, `<error><a/><b xmlns=''/></error>`},
		{`<message xmlns:p='urn:p'><xml:a><p:b/></xml:a></message>`, `<xml:a><b xmlns='urn:p'/></xml:a>`},
	} {
		c, _ := parse(t, tt.in).Payload()
		if got := string(c.Standalone()); got != tt.want {
			t.Errorf("%s:\n got  %s\n want %s", tt.in, got, tt.want)
		}
	}
}

func TestEditing(t *testing.T) {
	s := parse(t, withPrefixes)
	before := s.String()
	if got := s.With(romeo, juliet); !got.To.Equal(romeo) || !got.From.Equal(juliet) || s.String() != before {
		t.Errorf("%s, %s", got, s)
	}
	if got := s.WithTo(romeo).WithFrom(juliet).String(); got != s.With(romeo, juliet).String() {
		t.Errorf("got %s", got)
	}
	a, b := s.Append(xmpp.El("urn:a", "a")), s.Append(xmpp.El("urn:b", "b"))
	for _, got := range []*xmpp.Stanza{a, b} {
		sound(t, got)
	}
	if !strings.HasSuffix(a.String(), `<n xmlns=''/><a xmlns='urn:a'/></message>`) || !strings.HasSuffix(b.String(), `<n xmlns=''/><b xmlns='urn:b'/></message>`) || s.String() != before {
		t.Errorf("%s, %s, %s", a, b, s)
	}
	got := s.Without(func(sp xmpp.Span) bool { return sp.Space == "" })
	sound(t, got)
	if want := `<message id='1' xmlns:p='urn:p' p:hint='1'> <p:x p:a='no' a='&lt;1' b="2"><y/>t</p:x><z xmlns='urn:z'><p:w/></z><n xmlns=''/></message>`; got.String() != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if s.Without(func(xmpp.Span) bool { return false }) != s {
		t.Error("a copy although nothing is cut")
	}
}

// Any sequence of edits leaves a stanza whose children are those that a list would have.
func TestEditingLikeAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var model []string
		s := xmpp.New(xmpp.Message, "", zero, zero)
		var old []*xmpp.Stanza
		var texts []string
		for range rapid.IntRange(1, 8).Draw(t, "edits") {
			if rapid.Bool().Draw(t, "append") {
				e := genTree(2).Draw(t, "element")
				s = s.Append(e)
				model = append(model, e.String())
			} else {
				cut := rapid.IntRange(0, 3).Draw(t, "every")
				i := -1
				s = s.Without(func(xmpp.Span) bool { i++; return i%4 == cut })
				kept := model[:0:0]
				for i, m := range model {
					if i%4 != cut {
						kept = append(kept, m)
					}
				}
				model = kept
			}
			old, texts = append(old, s), append(texts, s.String())
			sound(t, s)
			var got []string
			for _, c := range s.Children() {
				got = append(got, string(c.XML()))
			}
			if !slices.Equal(got, model) {
				t.Fatalf("got  %q\nwant %q", got, model)
			}
		}
		for i, o := range old {
			if o.String() != texts[i] {
				t.Fatalf("an edit changed what others hold: %s, was %s", o, texts[i])
			}
		}
	})
}

func TestWithoutCutsOncePerChild(t *testing.T) {
	calls := 0
	parse(t, withPrefixes).Without(func(xmpp.Span) bool { calls++; return true })
	if calls > 5 {
		t.Errorf("%d calls for 5 children", calls)
	}
}

// RFC 6120 §8.2.3, §8.3.1.
func TestAnswers(t *testing.T) {
	s := parse(t, `<iq to='capulet.example' from='romeo@montague.example/orchard' id='1' type='get' xmlns:p='urn:p'><p:q/></iq>`)
	if got, want := s.Result(xmpp.El("urn:r", "r")).String(), `<iq to='romeo@montague.example/orchard' from='capulet.example' type='result' id='1'><r xmlns='urn:r'/></iq>`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := s.Result(nil).String(), `<iq to='romeo@montague.example/orchard' from='capulet.example' type='result' id='1'/>`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	got := s.Bounce(xmpp.ErrServiceUnavailable)
	sound(t, got)
	if want := `<iq to='romeo@montague.example/orchard' from='capulet.example' type='error' id='1' xmlns:p='urn:p'><p:q/>` +
		`<error type='cancel' code='503'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`; got.String() != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, in := range []string{`<iq type='error'/>`, `<iq type='result'/>`, `<message type='error'/>`, `<presence type='error'/>`} {
		if got := parse(t, in).Bounce(xmpp.ErrBadRequest); got != nil {
			t.Errorf("%s is answered with %s", in, got)
		}
	}
	if got := parse(t, `<message type='result'/>`).Bounce(xmpp.ErrBadRequest); got == nil {
		t.Error("only an IQ of type result is left alone")
	}
	large := strings.Repeat("a", 20<<10)
	for _, in := range []string{`<message><body>` + large + `</body></message>`, `<message a='` + large + `'/>`} {
		if got := parse(t, in).Bounce(xmpp.ErrBadRequest); got.Size() > 1000 {
			t.Errorf("%d bytes are echoed", got.Size())
		}
	}
}

func TestErrorElement(t *testing.T) {
	text := xmpp.Fail(stanza.Wait, stanza.ResourceConstraint, "a<b")
	text.By = jid.MustParse("capulet.example")
	for _, tt := range []struct {
		err      error
		want     string
		expected bool
	}{
		{text, `<error type='wait' code='500' by='capulet.example'><resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>` +
			`<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>a&lt;b</text></error>`, true},
		{xmpp.Error{Stanza: xmpp.ErrConflict, Detail: xmpp.El("urn:d", "d")},
			`<error type='cancel' code='409'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><d xmlns='urn:d'/></error>`, true},
		{fmt.Errorf("wrapped: %w", xmpp.ErrForbidden), `<error type='auth' code='403'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>`, true},
		{fmt.Errorf("wrapped: %w", xmpp.Error{Stanza: xmpp.ErrForbidden}), `<error type='auth' code='403'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>`, true},
		{errors.New("SELECT secret"), `<error type='wait' code='500'><internal-server-error xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>`, false},
	} {
		if got := xmpp.ErrorElement(tt.err).String(); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
		if _, expected := xmpp.AsStanzaError(tt.err); expected != tt.expected {
			t.Errorf("%v: expected %v", tt.err, expected)
		}
	}
	if !errors.Is(xmpp.Error{Stanza: xmpp.ErrConflict}, xmpp.ErrConflict) {
		t.Error("errors.Is does not find the stanza error")
	}
}

// RFC 6121 §5.2.2, RFC 6120 §8.2.3.
func TestTypes(t *testing.T) {
	for typ, want := range map[string]stanza.MessageType{
		"": stanza.NormalMessage, "normal": stanza.NormalMessage, "unknown": stanza.NormalMessage, "chat": stanza.ChatMessage,
		"groupchat": stanza.GroupChatMessage, "headline": stanza.HeadlineMessage, "error": stanza.ErrorMessage,
	} {
		if got := xmpp.New(xmpp.Message, typ, zero, zero).MessageType(); got != want {
			t.Errorf("type %q is %q", typ, got)
		}
	}
	for _, kind := range []xmpp.Kind{xmpp.Message, xmpp.Presence, xmpp.IQ} {
		for _, typ := range []string{"", "get", "set", "result", "error"} {
			want := kind == xmpp.IQ && (typ == "get" || typ == "set")
			if got := xmpp.New(kind, typ, zero, zero).IsRequest(); got != want {
				t.Errorf("%s of type %q: %v", kind, typ, got)
			}
		}
	}
}

// A delivery costs no allocation beyond the buffer that is written.
func TestAppendToDoesNotAllocate(t *testing.T) {
	s := parse(t, withPrefixes).With(romeo, juliet)
	b := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { b = s.AppendTo(b[:0]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if !bytes.Equal(b, []byte(s.String())) {
		t.Errorf("got %s", b)
	}
}

func BenchmarkAppendTo(b *testing.B) {
	s := parse(b, `<message type='chat' id='8b2b5f3e'><body>Neither, fair saint, if either thee dislike.</body><request xmlns='urn:xmpp:receipts'/></message>`).With(romeo, juliet)
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = s.AppendTo(buf[:0])
	}
	b.SetBytes(int64(len(buf)))
}

// FuzzStanza edits any stanza that the scanner accepts, and takes its children out.
func FuzzStanza(f *testing.F) {
	f.Add(withPrefixes, "urn:x", "text")
	f.Add(`<iq type='set' id='1'><query xmlns='jabber:iq:private'><a xmlns=''/><xml:b/></query></iq>`, "", "\x00")
	f.Add(`<message><f:f xmlns:f='urn:f'><message xmlns='jabber:client'><body/></message><x/></f:f></message>`, "jabber:client", "]]>")
	f.Fuzz(func(t *testing.T, in, space, text string) {
		s, err := stream.Parse([]byte(in), stream.DefaultLimits())
		if err != nil {
			return
		}
		sound(t, s)
		sound(t, s.With(romeo, juliet).Append(xmpp.El("", "body").Say(text)))
		reserved := space == xmpp.NSXML || space == "http://www.w3.org/2000/xmlns/" // Namespaces in XML §3
		if !reserved && string(xmpp.AppendEscaped(nil, space)) == space {
			sound(t, s.Append(xmpp.El(space, "x").Say(text)))
		}
		n := 0
		sound(t, s.Without(func(xmpp.Span) bool { n++; return n%2 == 0 }))
		if b := s.Bounce(xmpp.ErrBadRequest); b != nil {
			sound(t, b)
		}
		for _, c := range s.Children() {
			e, err := c.Element()
			if err != nil {
				t.Fatalf("%s: %v", c.XML(), err)
			}
			for _, raw := range [][]byte{c.Standalone(), e.AppendTo(nil, "")} {
				alone := xmpp.New(xmpp.Message, "", zero, zero, xmpp.RawElement(raw))
				parsed, err := stream.Parse([]byte(alone.String()), roomy)
				if err != nil || len(parsed.Spans()) != 1 {
					t.Fatalf("%s became %s: %v", c.XML(), raw, err)
				}
				// encoding/xml, which Element reads with, leaves out the normalisation of XML 1.0 §3.3.3.
				space := strings.NewReplacer("\t", " ", "\n", " ", "\r", " ").Replace(parsed.Spans()[0].Space)
				if sp := parsed.Spans()[0]; space != c.Space || sp.Local != c.Local {
					t.Fatalf("%s became %s: {%s}%s", c.XML(), raw, sp.Space, sp.Local)
				}
			}
		}
	})
}

// XEP-0297 §3: the message as it was, in its own namespace, whatever it declares.
func TestForward(t *testing.T) {
	s := parse(t, "<message to='a@b/c' from='d@e' type='chat' id='1' xml:lang='de' xmlns:x='urn:x'><body>&lt;</body><x:y/></message>")
	f := s.Forward("urn:xmpp:carbons:2", "sent").With(s.From, s.To)
	want := "<message to='d@e' from='a@b/c' type='chat'><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>" +
		"<message xmlns='jabber:client' to='a@b/c' from='d@e' type='chat' id='1' xml:lang='de' xmlns:x='urn:x'><body>&lt;</body><x:y/></message></forwarded></sent></message>"
	if got := f.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if c, ok := f.Child("urn:xmpp:carbons:2", "sent"); !ok || len(f.Spans()) != 1 || string(c.XML()) != string(f.PayloadBytes()) {
		t.Errorf("index %v", f.Spans())
	}
	if f.Original() != s || s.Original() != nil || f.IsShared() {
		t.Error("whose copy it is")
	}
	shared := s.Shared(2)
	if f := shared.Forward("a", "b"); !f.IsShared() || f.Missed() || !shared.Missed() {
		t.Error("a copy does not count with the message")
	}
}
