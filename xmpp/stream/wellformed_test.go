package stream

import (
	"strings"
	"testing"

	streamerr "mellium.im/xmpp/stream"

	"balcony/xmpp"
)

// Each is one top-level element or what stands in its place, on an ordinary client's stream, and the error that it must give.
var bodyErrors = []struct {
	rule, in string
	want     streamerr.Error
}{
	// RFC 6120 §11.1: what XMPP prohibits.
	{"RFC 6120 §4.9.3.18, example", `<message to='juliet@im.example.com'><!--<subject/>--><body>This message has no subject.</body></message>`, streamerr.RestrictedXML},
	{"comment between stanzas", `<!-- -->`, streamerr.RestrictedXML},
	{"processing instruction in a stanza", `<message><?php x ?></message>`, streamerr.RestrictedXML},
	{"processing instruction between stanzas", `<?xml-stylesheet href='a'?>`, streamerr.RestrictedXML},
	{"second XML declaration", `<?xml version='1.0'?>`, streamerr.RestrictedXML},
	{"document type declaration", `<!DOCTYPE a [<!ENTITY b "c">]>`, streamerr.RestrictedXML},
	{"declaration inside", `<message><!ENTITY lol "lol"></message>`, streamerr.RestrictedXML},
	{"undeclared entity in text", `<message><body>&lol9;</body></message>`, streamerr.RestrictedXML},
	{"undeclared entity in an attribute", `<message id='&lol9;'/>`, streamerr.RestrictedXML},
	{"HTML entity", `<message><body>&nbsp;</body></message>`, streamerr.RestrictedXML},

	// RFC 6120 §11.6, §4.9.3.22: encoding.
	{"overlong slash", "<message><body>\xc0\xaf</body></message>", streamerr.UnsupportedEncoding},
	{"surrogate", "<message><body>\xed\xa0\x80</body></message>", streamerr.UnsupportedEncoding},
	{"beyond Unicode", "<message><body>\xf4\x90\x80\x80</body></message>", streamerr.UnsupportedEncoding},
	{"lone continuation byte", "<message><body>\x80</body></message>", streamerr.UnsupportedEncoding},
	{"Latin-1", "<message><body>caf\xe9</body></message>", streamerr.UnsupportedEncoding},
	{"cut character before markup", "<message><body>\xe2\x82</body></message>", streamerr.UnsupportedEncoding},
	{"in an attribute", "<message id='\xff'/>", streamerr.UnsupportedEncoding},
	{"in a name", "<message><b\xffdy/></message>", streamerr.UnsupportedEncoding},
	{"in CDATA", "<message><body><![CDATA[\xff]]></body></message>", streamerr.UnsupportedEncoding},
	{"between stanzas", "\xff", streamerr.UnsupportedEncoding},

	// XML 1.0 §2.2: Char.
	{"NUL", "<message><body>\x00</body></message>", streamerr.NotWellFormed},
	{"control character", "<message><body>\x1b[0m</body></message>", streamerr.NotWellFormed},
	{"U+FFFE", "<message><body>\ufffe</body></message>", streamerr.NotWellFormed},
	{"U+FFFF in an attribute", "<message id='\uffff'/>", streamerr.NotWellFormed},
	{"control character in an attribute", "<message id='\x01'/>", streamerr.NotWellFormed},
	{"control character in CDATA", "<message><body><![CDATA[\x08]]></body></message>", streamerr.NotWellFormed},

	// XML 1.0 §4.1: references.
	{"reference to NUL", `<message><body>&#0;</body></message>`, streamerr.NotWellFormed},
	{"reference to U+FFFF", `<message><body>&#xFFFF;</body></message>`, streamerr.NotWellFormed},
	{"reference to a surrogate", `<message><body>&#xD800;</body></message>`, streamerr.NotWellFormed},
	{"reference beyond Unicode", `<message><body>&#x110000;</body></message>`, streamerr.NotWellFormed},
	{"reference without digits", `<message><body>&#;</body></message>`, streamerr.NotWellFormed},
	{"hexadecimal without digits", `<message><body>&#x;</body></message>`, streamerr.NotWellFormed},
	{"capital X", `<message><body>&#X41;</body></message>`, streamerr.NotWellFormed},
	{"hexadecimal digit in decimal", `<message><body>&#4a;</body></message>`, streamerr.NotWellFormed},
	{"no semicolon", `<message><body>&amp </body></message>`, streamerr.NotWellFormed},
	{"bare ampersand", `<message><body>a & b</body></message>`, streamerr.NotWellFormed},
	{"empty reference", `<message><body>&;</body></message>`, streamerr.NotWellFormed},
	{"name that begins with a digit", `<message><body>&1a;</body></message>`, streamerr.NotWellFormed},
	{"ampersand before markup", `<message><body>&</body></message>`, streamerr.NotWellFormed},
	{"overlong reference", `<message><body>&#` + strings.Repeat("0", 64) + `65;</body></message>`, streamerr.NotWellFormed},

	// XML 1.0 §2.4, §2.7: character data and CDATA sections.
	{"]]> in text", `<message><body>a]]>b</body></message>`, streamerr.NotWellFormed},
	{"]]]> in text", `<message><body>]]]></body></message>`, streamerr.NotWellFormed},
	{"]]> behind CDATA", `<message><body><![CDATA[x]]>]]></body></message>`, streamerr.NotWellFormed},
	{"lower-case CDATA", `<message><![cdata[x]]></message>`, streamerr.RestrictedXML},
	{"text between stanzas", `hello`, streamerr.BadFormat},
	{"reference between stanzas", `&#32;`, streamerr.BadFormat},
	{"CDATA between stanzas", `<![CDATA[ ]]>`, streamerr.BadFormat},
	{"text behind a stanza", `<message/>x`, streamerr.BadFormat},
	{"byte order mark between stanzas", "\ufeff<message/>", streamerr.BadFormat},
	{"control character between stanzas", "\x01", streamerr.NotWellFormed},

	// XML 1.0 §3: elements and tags.
	{"RFC 6120 §4.9.3.1, example", "<message>\n<body>No closing tag!\n</message>", streamerr.NotWellFormed},
	{"end tag of another case", `<message></Message>`, streamerr.NotWellFormed},
	{"end tag with a longer name", `<message></messages>`, streamerr.NotWellFormed},
	{"end tag with an attribute", `<message></message id='1'>`, streamerr.NotWellFormed},
	{"end tag of the stream inside", `<message></stream:stream>`, streamerr.NotWellFormed},
	{"end tag of nothing", `</message>`, streamerr.NotWellFormed},
	{"space before the name", `< message/>`, streamerr.NotWellFormed},
	{"space in the end tag's start", `<message></ message>`, streamerr.NotWellFormed},
	{"space in an empty tag's end", `<message / >`, streamerr.NotWellFormed},
	{"no name", `<>`, streamerr.NotWellFormed},
	{"name that begins with a digit", `<1message/>`, streamerr.NotWellFormed},
	{"name that begins with a hyphen", `<-message/>`, streamerr.NotWellFormed},
	{"name with a forbidden character", `<mess$age/>`, streamerr.NotWellFormed},
	{"name with U+00D7", `<a×/>`, streamerr.NotWellFormed},
	{"name that only XML 1.0's fifth edition allows", "<a\u0220/>", streamerr.NotWellFormed},
	{"markup in a tag", `<message <body/>`, streamerr.NotWellFormed},
	{"attribute without value", `<message to/>`, streamerr.NotWellFormed},
	{"attribute without quotes", `<message to=a/>`, streamerr.NotWellFormed},
	{"attributes without space", `<message to='a'id='b'/>`, streamerr.NotWellFormed},
	{"quotes that differ", `<message to='a"/>`, streamerr.NotWellFormed},
	{"< in an attribute value", `<message id='<'/>`, streamerr.NotWellFormed},
	{"attribute twice", `<message id='a' id='a'/>`, streamerr.NotWellFormed},
	{"attribute twice in a child", `<message><x a='1' b='2' a='1'/></message>`, streamerr.NotWellFormed},
	{"slash in the middle", `<message/ id='a'>`, streamerr.NotWellFormed},

	// Namespaces in XML 1.0.
	{"RFC 6120 §4.9.3.13, example", "<message>\n<foo:body>What is this foo?</foo:body>\n</message>", streamerr.NotWellFormed},
	{"prefix of an attribute not declared", `<message foo:bar='1'/>`, streamerr.NotWellFormed},
	{"prefix out of scope", `<message><a xmlns:p='urn:p'/><p:b/></message>`, streamerr.NotWellFormed},
	{"prefix out of scope behind an end tag", `<message><a xmlns:p='urn:p'></a><b p:c=''/></message>`, streamerr.NotWellFormed},
	{"prefix of the stanza before", `<p:a xmlns:p='urn:p'/><p:b/>`, streamerr.NotWellFormed},
	{"two colons", `<message><a:b:c xmlns:a='urn:a'/></message>`, streamerr.NotWellFormed},
	{"colon first", `<message><:a/></message>`, streamerr.NotWellFormed},
	{"colon last", `<message><a: xmlns:a='urn:a'/></message>`, streamerr.NotWellFormed},
	{"digit behind a colon", `<message><a:1 xmlns:a='urn:a'/></message>`, streamerr.NotWellFormed},
	{"empty prefix declared", `<message xmlns:=''/>`, streamerr.NotWellFormed},
	{"prefix undeclared (§5: not in 1.0)", `<message><a xmlns:p=''/></message>`, streamerr.NotWellFormed},
	{"xml bound to another name", `<message xmlns:xml='urn:x'/>`, streamerr.NotWellFormed},
	{"another prefix for xml's name", `<message xmlns:p='http://www.w3.org/XML/1998/namespace'/>`, streamerr.NotWellFormed},
	{"xml's name as the default", `<message><a xmlns='http://www.w3.org/XML/1998/namespace'/></message>`, streamerr.NotWellFormed},
	{"xmlns declared", `<message xmlns:xmlns='http://www.w3.org/2000/xmlns/'/>`, streamerr.NotWellFormed},
	{"another prefix for xmlns's name", `<message xmlns:p='http://www.w3.org/2000/xmlns/'/>`, streamerr.NotWellFormed},
	{"xmlns's name as the default", `<message><a xmlns='http://www.w3.org/2000/xmlns/'/></message>`, streamerr.NotWellFormed},
	{"element with the prefix xmlns", `<message><xmlns:a/></message>`, streamerr.NotWellFormed},
	{"declared twice", `<message xmlns:p='urn:p' xmlns:p='urn:p'/>`, streamerr.NotWellFormed},
	{"default declared twice", `<a xmlns='urn:a' xmlns='urn:b'/>`, streamerr.NotWellFormed},
	{"attribute twice by expanded name", `<message><x xmlns:a='urn:n' xmlns:b='urn:n' a:c='1' b:c='2'/></message>`, streamerr.NotWellFormed},
	{"the same, declared apart", `<message xmlns:a='urn:n'><x xmlns:b='urn:n' b:c='1' a:c='2'/></message>`, streamerr.NotWellFormed},
	{"the same, name with a reference", `<message xmlns:a='urn:n'><x xmlns:b='urn:&#110;' b:c='1' a:c='2'/></message>`, streamerr.NotWellFormed},
	{"the same, one in the header", `<message><x xmlns:b='http://etherx.jabber.org/streams' b:c='1' stream:c='2'/></message>`, streamerr.NotWellFormed},

	// RFC 6120 §4.8: namespaces of XMPP.
	{"§4.8.5, example", `<foo:message xmlns:foo='jabber:client'><foo:body>foo</foo:body></foo:message>`, streamerr.BadNamespacePrefix},
	{"§4.8.5 in a child", `<message xmlns:foo='jabber:client'><foo:body>foo</foo:body></message>`, streamerr.BadNamespacePrefix},
	{"§4.8.3: another content namespace", `<message xmlns='jabber:server'/>`, streamerr.InvalidNamespace},
	{"§4.8.3: another content namespace, no stanza", `<foo xmlns='jabber:component:accept'/>`, streamerr.InvalidNamespace},
}

func TestErrorsOfElements(t *testing.T) {
	for _, tt := range bodyErrors {
		t.Run(tt.rule, func(t *testing.T) { wantError(t, tt.in, decodeBody(t, tt.in+"<message/>"), tt.want, true) })
	}
}

// Each is a whole stream up to its header.
var headerErrors = []struct {
	rule, in string
	want     streamerr.Error
}{
	{"RFC 6120 §4.9.1.2, example", `<?xml version='1.0'?><stream:stream from='juliet@im.example.com' to='im.example.com' version='1.0' xml:lang='en' xmlns='jabber:client' xmlns:stream='http://wrong.namespace.example.org/'>`, streamerr.InvalidNamespace},
	{"RFC 6120 §4.9.3.2, example", `<?xml version='1.0'?><foobar:stream from='juliet@im.example.com' to='im.example.com' version='1.0' xmlns='jabber:client' xmlns:foobar='http://etherx.jabber.org/streams'>`, streamerr.BadNamespacePrefix},
	{"RFC 6120 §4.9.3.22, example", `<?xml version='1.0' encoding='UTF-16'?><stream:stream from='juliet@im.example.com' to='im.example.com' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>`, streamerr.UnsupportedEncoding},
	{"no prefix although it is declared", `<stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>`, streamerr.BadNamespacePrefix},
	{"no stream namespace", `<stream xmlns='jabber:client'>`, streamerr.InvalidNamespace},
	{"no namespace", `<stream>`, streamerr.InvalidNamespace},
	{"another element", `<message xmlns='jabber:client'/>`, streamerr.InvalidNamespace},
	{"another element of the stream namespace", `<stream:features xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>`, streamerr.BadFormat},
	{"content of a server", `<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams'>`, streamerr.InvalidNamespace},
	{"unknown content", `<stream:stream xmlns='urn:x' xmlns:stream='http://etherx.jabber.org/streams'>`, streamerr.InvalidNamespace},
	{"prefix not declared", `<stream:stream xmlns='jabber:client'>`, streamerr.NotWellFormed},
	{"HTTP", "GET / HTTP/1.1\r\n", streamerr.NotWellFormed},
	{"TLS", "\x16\x03\x01\x02\x00", streamerr.NotWellFormed},
	{"end tag", `</stream:stream>`, streamerr.NotWellFormed},
	{"CDATA", `<![CDATA[x]]>`, streamerr.NotWellFormed},
	{"document type", `<?xml version='1.0'?><!DOCTYPE lolz [<!ENTITY lol "lol">]>`, streamerr.RestrictedXML},
	{"comment", `<!-- x --><stream:stream>`, streamerr.RestrictedXML},
	{"processing instruction", `<?xml-foo?>`, streamerr.RestrictedXML},
	{"entity in an attribute", `<stream:stream to='&lol;' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>`, streamerr.RestrictedXML},
	{"UTF-16 big-endian", "\xfe\xff\x00<\x00s", streamerr.UnsupportedEncoding},
	{"UTF-16 little-endian", "\xff\xfe<\x00s\x00", streamerr.UnsupportedEncoding},
	{"UTF-16 without a mark", "<\x00s\x00", streamerr.UnsupportedEncoding},
	{"UTF-32", "\x00\x00\x00<", streamerr.UnsupportedEncoding},
	{"invalid UTF-8", "\xc3(", streamerr.UnsupportedEncoding},
	{"RFC 6120 §11.6: no byte order mark", "\ufeff<?xml version='1.0'?>", streamerr.NotWellFormed},
	{"XML 1.0 §2.8: whitespace first", " <?xml version='1.0'?>", streamerr.RestrictedXML},
	{"RFC 6120 §11.8: XML 1.1", `<?xml version='1.1'?>`, streamerr.BadFormat},
	{"no version", `<?xml encoding='UTF-8'?>`, streamerr.NotWellFormed},
	{"wrong order", `<?xml version='1.0' standalone='yes' encoding='UTF-8'?>`, streamerr.NotWellFormed},
	{"standalone", `<?xml version='1.0' standalone='maybe'?>`, streamerr.NotWellFormed},
	{"no space", `<?xml version='1.0'encoding='UTF-8'?>`, streamerr.NotWellFormed},
	{"unknown part", `<?xml version='1.0' foo='bar'?>`, streamerr.NotWellFormed},
	{"no quotes", `<?xml version=1.0?>`, streamerr.NotWellFormed},
	{"no equals sign", `<?xml version '1.0'?>`, streamerr.NotWellFormed},
	{"quote left open", `<?xml version='1.0?>`, streamerr.NotWellFormed},
	{"another encoding", `<?xml version='1.0' encoding='ISO-8859-1'?>`, streamerr.UnsupportedEncoding},
	{"overlong declaration", `<?xml version='1.0'` + strings.Repeat(" ", 300) + `?>`, streamerr.PolicyViolation},
	{"prefixes without end", `<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xmlns:p='` + strings.Repeat("p", 2000) + `'>`, streamerr.PolicyViolation},
	{"many prefixes", `<stream:stream xmlns:stream='http://etherx.jabber.org/streams'` + manyPrefixes(17) + `>`, streamerr.PolicyViolation},
}

func TestErrorsOfHeaders(t *testing.T) {
	for _, tt := range headerErrors {
		t.Run(tt.rule, func(t *testing.T) {
			wantError(t, tt.in, decode(t, xmpp.NSClient, tt.in, BeforeAuth), tt.want, false)
		})
	}
}

func TestHeaders(t *testing.T) {
	const ns = ` xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'`
	for _, tt := range []struct{ rule, content, in, want string }{
		{"every attribute", xmpp.NSClient, `<?xml version='1.0' encoding='utf-8' standalone="no" ?>` + "\n" +
			`<stream:stream to='im.example.com' from='juliet@im.example.com' id='1' version='1.0' xml:lang='de-CH'` + ns + ` >`,
			"open {To:im.example.com From:juliet@im.example.com ID:1 Version:1.0 Lang:de-CH Content:jabber:client Prefix:stream}"},
		{"no declaration, whitespace first", xmpp.NSClient, "\r\n <stream:stream" + ns + ">",
			"open {To: From: ID: Version: Lang: Content:jabber:client Prefix:stream}"},
		{"values are normalised", xmpp.NSClient, "<stream:stream id='a\tb&#9;&amp;\"'" + ns + ">",
			"open {To: From: ID:a b\t&\" Version: Lang: Content:jabber:client Prefix:stream}"},
		{"RFC 6120 §4.8.2: prefix-free", xmpp.NSClient, `<stream xmlns='http://etherx.jabber.org/streams' to='a'>`,
			"open {To:a From: ID: Version: Lang: Content:jabber:client Prefix:}"},
		{"RFC 6120 §4.8.2: no default", xmpp.NSClient, `<stream:stream xmlns:stream='http://etherx.jabber.org/streams' to='a'>`,
			"open {To:a From: ID: Version: Lang: Content:jabber:client Prefix:stream}"},
		{"a server", xmpp.NSServer, `<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' xmlns:stream='http://etherx.jabber.org/streams'>`,
			"open {To: From: ID: Version: Lang: Content:jabber:server Prefix:stream}"},
		{"a component", nsComponent, `<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'>`,
			"open {To: From: ID: Version: Lang: Content:jabber:component:accept Prefix:stream}"},
		{"xml may be declared", xmpp.NSClient, `<stream:stream xmlns:xml='http://www.w3.org/XML/1998/namespace'` + ns + `>`,
			"open {To: From: ID: Version: Lang: Content:jabber:client Prefix:stream}"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			got := decode(t, tt.content, tt.in, BeforeAuth)
			if want := []string{tt.want, "more opened=true"}; strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

// An empty tag as header is a stream that ends at once.
func TestEmptyStream(t *testing.T) {
	got := decode(t, xmpp.NSClient, `<stream xmlns='http://etherx.jabber.org/streams'/> ignored`, BeforeAuth)
	want := "open {To: From: ID: Version: Lang: Content:jabber:client Prefix:}\nclose\nmore opened=true"
	if strings.Join(got, "\n") != want {
		t.Errorf("got %q", got)
	}
}

func TestClose(t *testing.T) {
	for _, in := range []string{"</stream:stream>", "</stream:stream \r\n>", " </stream:stream> <message/>", "</stream:stream>\xff"} {
		if got := decodeBody(t, in); strings.Join(got, "\n") != "close\nmore opened=true" {
			t.Errorf("%q: %q", in, got)
		}
	}
}

// What is legal and unusual.
func TestAccepted(t *testing.T) {
	for _, tt := range []struct{ rule, in, want string }{
		{"whitespace in tags", "<message\tid = \n'1'  ><body  a\r=\n\"2\" ></body \n></message\t>", "stanza <message id='1'><body  a\r=\n\"2\" ></body \n></message> [\"\" body 0:25]"},
		{"XML 1.0 §4.6: entities", `<message id='&lt;&amp;&gt;&apos;&quot;&#65;&#x42;'><body>&lt;&amp;&gt;&apos;&quot;&#x10FFFF;&#9;</body></message>`,
			`stanza <message id='&lt;&amp;&gt;&apos;&quot;AB'><body>&lt;&amp;&gt;&apos;&quot;&#x10FFFF;&#9;</body></message> ["" body 0:52]`},
		{"XML 1.0 §2.7: CDATA", `<message><body><![CDATA[<&>]]]]><![CDATA[>]]></body></message>`, `stanza <message><body><![CDATA[<&>]]]]><![CDATA[>]]></body></message> ["" body 0:43]`},
		{"> in text and values", `<message id='>'><body>]> >a</body></message>`, `stanza <message id='&gt;'><body>]> >a</body></message> ["" body 0:18]`},
		{"the other quote", `<message id='"'><x xmlns="urn:x" a="'"/></message>`, `stanza <message id='&quot;'><x xmlns="urn:x" a="'"/></message> ["urn:x" x 0:24]`},
		{"astral characters", "<message><body>\U0001f48b\U0010ffff\ufffd\u0085</body></message>", "stanza <message><body>\U0001f48b\U0010ffff\ufffd\u0085</body></message> [\"\" body 0:26]"},
		{"names beyond ASCII", "<message><é·日 xmlns='urn:x' ä='1'/></message>", "stanza <message><é·日 xmlns='urn:x' ä='1'/></message> [\"urn:x\" é·日 0:31]"},
		{"names with every ASCII mark", `<message><_a-b.c1 xmlns='urn:x'/></message>`, `stanza <message><_a-b.c1 xmlns='urn:x'/></message> ["urn:x" _a-b.c1 0:24]`},
		{"the same local name in two namespaces", `<message><x xmlns:a='urn:a' xmlns:b='urn:b' a:c='1' b:c='2' c='3'/></message>`,
			`stanza <message><x xmlns:a='urn:a' xmlns:b='urn:b' a:c='1' b:c='2' c='3'/></message> ["" x 0:58]`},
		{"an attribute named like a declared prefix", `<message><x xmlns:c='urn:a' c:c='1'/></message>`, `stanza <message><x xmlns:c='urn:a' c:c='1'/></message> ["" x 0:28]`},
		{"a prefix bound anew inside", `<message xmlns:p='urn:1'><p:a><p:b xmlns:p='urn:2'/><p:c/></p:a></message>`,
			`stanza <message xmlns:p='urn:1'><p:a><p:b xmlns:p='urn:2'/><p:c/></p:a></message> ["urn:1" a 0:39]`},
		{"presence and IQ", `<presence/><iq/>`, "stanza <presence/>\nstanza <iq/>"},
		{"whitespace between", " \t\r\n<presence/>\n", "stanza <presence/>"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			if got := strings.Join(decodeBody(t, tt.in), "\n"); got != tt.want+"\nmore opened=true" {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func manyPrefixes(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(" xmlns:p" + strings.Repeat("x", i) + "='u'")
	}
	return b.String()
}

// After an error there is nothing but that error.
func TestFailedStaysFailed(t *testing.T) {
	d := open(t, xmpp.NSClient, clientHeader, DefaultLimits())
	d.Feed([]byte("<message/><!-- --><message/>"))
	if ev, err := d.Next(); err != nil || ev.Kind != Stanzas {
		t.Fatal(ev, err)
	}
	for range 3 {
		if _, err := d.Next(); !streamerr.RestrictedXML.Is(err) {
			t.Fatalf("got %v", err)
		}
		d.Feed([]byte("<message/>"))
		d.Reset()
	}
	if d.Buffered() != 0 {
		t.Errorf("%d bytes are kept", d.Buffered())
	}
}
