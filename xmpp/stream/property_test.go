package stream

import (
	"flag"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"balcony/xmpp"
)

// chosen: a second or two; -rapid.checks on the command line comes later and wins.
func init() { _ = flag.Set("rapid.checks", "1000") }

// Words of which the generators make streams: those that matter to the scanner, right and wrong.
var (
	genNames  = []string{"a", "b", "body", "message", "iq", "presence", "x-1", "_.", "é", "stream", "xmlns", "xml"}
	genSpaces = []string{"urn:a", "urn:b", "jabber:client", "jabber:server", "urn:&#97;", "http://etherx.jabber.org/streams", "", "jabber&#x3a;client", xmpp.NSXML, nsXMLNS, "a\tb"}
	genPrefix = []string{"p", "q", "stream", "xml", "xmlns", "é"}
	genText   = []string{"a", " ", "\n", "\r\n", "&amp;", "&#65;", "é", "\U0001f48b", "]", "]]", ">", "<![CDATA[", "]]>", "&lol;", "&#0;", "\x00", "\xff", "&", "'", "\""}
	genMarkup = []string{"<", "</", "/>", ">", "<!--", "<?xml", "<!DOCTYPE", "='", "=\"", "'", "\"", " ", "xmlns", "xmlns:", ":", "message", "&amp;", "]]>", "\xe2", "&#x", "\x00"}
)

// chance is true once in n times.
func chance(t *rapid.T, n int) bool { return rapid.IntRange(1, n).Draw(t, "chance") == n }

func pick(t *rapid.T, words []string) string { return rapid.SampledFrom(words).Draw(t, "word") }

// genQName is a name, with a prefix sometimes.
func genQName(t *rapid.T, scope []string) string {
	n := pick(t, genNames[:10])
	switch {
	case len(scope) > 0 && chance(t, 4):
		return pick(t, scope) + ":" + n
	case chance(t, 60):
		return pick(t, genPrefix) + ":" + n
	}
	return n
}

func genValue(t *rapid.T) string {
	quote := pick(t, []string{"'", "\""})
	v := strings.Join(rapid.SliceOfN(rapid.SampledFrom(genText[:11]), 0, 3).Draw(t, "value"), "")
	if chance(t, 80) {
		v += pick(t, genText)
	}
	return quote + strings.NewReplacer(quote, "", "<", "").Replace(v) + quote
}

// genElement is an element that is mostly right: prefixes are mostly declared, names mostly match.
func genElement(t *rapid.T, b *strings.Builder, name string, scope []string, depth int) {
	attrs := ""
	if chance(t, 4) {
		attrs += " xmlns='" + pick(t, genSpaces[:6]) + "'"
	}
	if chance(t, 5) {
		p := pick(t, genPrefix[:3])
		attrs += " xmlns:" + p + "='" + pick(t, genSpaces[:6]) + "'"
		scope = append(scope[:len(scope):len(scope)], p)
	}
	if chance(t, 60) {
		attrs += " xmlns:" + pick(t, genPrefix) + "='" + pick(t, genSpaces) + "'"
	}
	for range rapid.IntRange(0, 2).Draw(t, "attributes") {
		attrs += pick(t, []string{" ", "\n", "  "}) + genQName(t, scope) + pick(t, []string{"=", " ="}) + genValue(t)
	}
	if chance(t, 6) {
		attrs += pick(t, []string{" to='a@b/c'", " from='A@B'", " to='@'", " type='chat'", " id='&lt;1'", " xml:lang='de'", " xml:lang=''", " xml:space='preserve'"})
	}
	if name == "" {
		name = genQName(t, scope)
	}
	b.WriteString("<" + name + attrs)
	if chance(t, 3) {
		b.WriteString("/>")
		return
	}
	b.WriteString(">")
	for range rapid.IntRange(0, 3).Draw(t, "content") {
		switch {
		case depth < 5 && chance(t, 2):
			genElement(t, b, "", scope, depth+1)
		case chance(t, 8):
			b.WriteString("<![CDATA[" + strings.ReplaceAll(strings.Join(rapid.SliceOfN(rapid.SampledFrom(genText[:13]), 0, 3).Draw(t, "cdata"), ""), "]]>", "") + "]]>")
		default:
			b.WriteString(strings.ReplaceAll(strings.Join(rapid.SliceOfN(rapid.SampledFrom(genText[:11]), 0, 3).Draw(t, "text"), ""), "]]>", ""))
		}
	}
	b.WriteString("</" + name + ">")
}

var genHeaders = []struct{ content, header string }{
	{xmpp.NSClient, clientHeader},
	{xmpp.NSClient, `<stream xmlns='http://etherx.jabber.org/streams'>`},
	{xmpp.NSServer, `<stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:server' xmlns:p='urn:a' xmlns:q='jabber:client'>`},
	{xmpp.NSClient, `<?xml version="1.0" encoding='UTF-8'?> <stream:stream xmlns:stream="http://etherx.jabber.org/streams" xmlns:q='urn:&#97;'>`},
	{nsComponent, `<stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:component:accept' xmlns:p='urn:p'>`},
}

// genStream is a stream, sometimes damaged.
func genStream(t *rapid.T) (content, in string) {
	h := rapid.SampledFrom(genHeaders).Draw(t, "header")
	var b strings.Builder
	b.WriteString(h.header)
	for range rapid.IntRange(1, 4).Draw(t, "elements") {
		name := ""
		if !chance(t, 3) {
			name = pick(t, []string{"message", "iq", "presence"})
		}
		genElement(t, &b, name, nil, 1)
		b.WriteString(pick(t, []string{"", " ", "\n"}))
	}
	if chance(t, 5) {
		b.WriteString("</stream:stream>")
	}
	in = b.String()
	for chance(t, 3) {
		i := rapid.IntRange(0, len(in)).Draw(t, "at")
		j := min(len(in), i+rapid.IntRange(0, 3).Draw(t, "cut"))
		in = in[:i] + pick(t, append(genMarkup, genText...)) + in[j:]
	}
	return h.content, in
}

// The same bytes give the same events and errors in any pieces.
func TestChunksDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		content, in := genStream(t)
		l := Limits{Bytes: rapid.SampledFrom([]int{60, 200, 1 << 20}).Draw(t, "bytes"), Depth: 4, Attributes: 5, Children: 3}
		want := strings.Join(feed(NewDecoder(content, l), in, whole), "\n")
		sizes := rapid.SliceOfN(rapid.IntRange(1, 40), 1, 20).Draw(t, "sizes")
		i := 0
		for _, cut := range []func(int) int{single, func(int) int { i++; return sizes[i%len(sizes)] }} {
			if got := strings.Join(feed(NewDecoder(content, l), in, cut), "\n"); got != want {
				t.Fatalf("%q in pieces:\n%s\nwhole:\n%s", in, got, want)
			}
		}
	})
}

func TestSameAsEncodingXML(t *testing.T) {
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		content, in := genStream(t)
		differ(t, content, in, DefaultLimits())
		lines := feed(NewDecoder(content, DefaultLimits()), in, whole)
		accepted += len(lines) - 1
	})
	if accepted == 0 {
		t.Error("the generator makes nothing that is accepted")
	}
	t.Logf("%d events", accepted)
}
