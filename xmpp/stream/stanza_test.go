package stream

import (
	"strconv"
	"strings"
	"testing"

	streamerr "mellium.im/xmpp/stream"

	"balcony/xmpp"
)

// A payload means the same on any other stream: RFC 6120 §4.8.3 (re-scoping), §4.8.5 (declarations of the header).
func TestPayloadIsPortable(t *testing.T) {
	const stream = ` xmlns:stream='http://etherx.jabber.org/streams'`
	for _, tt := range []struct{ rule, content, header, in, want string }{
		{"as received", xmpp.NSClient, `<stream:stream xmlns='jabber:client'` + stream + `>`,
			`<message><body>a</body> <x xmlns='urn:x'><y/></x></message>`,
			`stanza <message><body>a</body> <x xmlns='urn:x'><y/></x></message> ["" body 0:14] ["urn:x" x 15:40]`},
		{"the content namespace on the stanza", xmpp.NSClient, `<stream:stream xmlns='jabber:client'` + stream + `>`,
			`<message xmlns='jabber:client'><body/></message>`,
			`stanza <message><body/></message> ["" body 0:7]`},
		{"the content namespace on children", xmpp.NSClient, `<stream:stream xmlns='jabber:client'` + stream + `>`,
			`<message><body xmlns='jabber:client'>a</body> <subject xmlns="jabber:client" a='1'/><x xmlns='urn:x'/></message>`,
			`stanza <message><body>a</body> <subject a='1'/><x xmlns='urn:x'/></message> ["" body 0:14] ["" subject 15:31] ["urn:x" x 31:49]`},
		{"the content namespace on grandchildren", xmpp.NSClient, `<stream:stream xmlns='jabber:client'` + stream + `>`,
			`<iq><error xmlns='jabber:client'><a xmlns='jabber:client'/><b><c xmlns='jabber:client'/></b></error></iq>`,
			`stanza <iq><error><a/><b><c/></b></error></iq> ["" error 0:30]`},
		{"the content namespace of other streams on children", xmpp.NSServer, `<stream:stream xmlns='jabber:server'` + stream + `>`,
			`<message><body xmlns='jabber:client'>a</body><subject xmlns='jabber:component:accept'/></message>`,
			`stanza <message><body>a</body><subject/></message> ["" body 0:14] ["" subject 14:24]`},
		{"inside an extension it stays (RFC 6120 §4.8.3)", xmpp.NSServer, `<stream:stream xmlns='jabber:server'` + stream + `>`,
			`<message><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'><body>a</body></message></forwarded></message>`,
			`stanza <message><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'><body>a</body></message></forwarded></message> ["urn:xmpp:forward:0" forwarded 0:105]`},
		{"inside an extension with a prefix it stays", xmpp.NSClient, `<stream:stream xmlns='jabber:client'` + stream + `>`,
			`<message><f:forwarded xmlns:f='urn:f'><message xmlns='jabber:client'/></f:forwarded></message>`,
			`stanza <message><f:forwarded xmlns:f='urn:f'><message xmlns='jabber:client'/></f:forwarded></message> ["urn:f" forwarded 0:75]`},
		{"no namespace is not the content namespace", xmpp.NSClient, `<stream:stream xmlns='jabber:client'` + stream + `>`,
			`<message><body xmlns=''>a</body></message>`,
			`stanza <message><body xmlns=''>a</body></message> ["\x01" body 0:23]`},
		{"a prefix of the header", xmpp.NSClient, `<stream:stream xmlns='jabber:client' xmlns:p='urn:p' xmlns:q='urn:q'` + stream + `>`,
			`<message><p:a/></message><message><b/></message>`,
			`stanza <message xmlns:p='urn:p'><p:a/></message> ["urn:p" a 0:6]` + "\n" + `stanza <message><b/></message> ["" b 0:4]`},
		{"a prefix of the header deep inside and in an attribute", xmpp.NSClient, `<stream:stream xmlns='jabber:client' xmlns:p='urn:p' xmlns:q='urn:q?a&amp;b'` + stream + `>`,
			`<message q:x='1'><a><b><p:c/></b></a></message>`,
			`stanza <message xmlns:p='urn:p' xmlns:q='urn:q?a&amp;b' q:x='1'><a><b><p:c/></b></a></message> ["" a 0:20]`},
		{"a prefix of the header that the stanza binds anew", xmpp.NSClient, `<stream:stream xmlns='jabber:client' xmlns:p='urn:p'` + stream + `>`,
			`<message xmlns:p='urn:1'><p:a/></message><message><p:a xmlns:p='urn:2'/></message>`,
			`stanza <message xmlns:p='urn:1'><p:a/></message> ["urn:1" a 0:6]` + "\n" + `stanza <message><p:a xmlns:p='urn:2'/></message> ["urn:2" a 0:22]`},
		{"the stream prefix", xmpp.NSClient, `<stream:stream xmlns='jabber:client'` + stream + `>`,
			`<message><stream:error/></message>`,
			`stanza <message xmlns:stream='http://etherx.jabber.org/streams'><stream:error/></message> ["http://etherx.jabber.org/streams" error 0:15]`},
		{"the prefix xml needs no declaration", xmpp.NSClient, `<stream:stream xmlns='jabber:client'` + stream + `>`,
			`<message><body xml:lang='de'>a</body><xml:a/></message>`,
			`stanza <message><body xml:lang='de'>a</body><xml:a/></message> ["" body 0:28] ["http://www.w3.org/XML/1998/namespace" a 28:36]`},
		{"prefix-free streams (RFC 6120 §4.8.2)", xmpp.NSClient, `<stream xmlns='http://etherx.jabber.org/streams'>`,
			`<message xmlns='jabber:client'><body/></message>`,
			`stanza <message><body/></message> ["" body 0:7]`},
		{"a namespace name with references", xmpp.NSClient, `<stream:stream xmlns='jabber:client'` + stream + `>`,
			`<message><body xmlns='jabber&#58;client'/><a xmlns='urn:&#97;'/></message>`,
			`stanza <message><body/><a xmlns='urn:&#97;'/></message> ["" body 0:7] ["urn:a" a 7:29]`},
		{"attributes of the stanza", xmpp.NSClient, `<stream:stream xmlns='jabber:client'` + stream + `>`,
			"<message foo = \"bar'\" id='1' xmlns:p='urn:p'\n\tp:to='x' xml:space='preserve' xml:lang='de' type='chat'/>",
			`stanza <message type='chat' id='1' xml:lang='de' foo = "bar'" xmlns:p='urn:p' p:to='x' xml:space='preserve'/>`},
		{"values are written anew", xmpp.NSClient, `<stream:stream xmlns='jabber:client'` + stream + `>`,
			"<iq id='a\t&#10;\"' type='&#103;et'/>",
			`stanza <iq type='get' id='a &#10;&quot;'/>`},
		{"empty", xmpp.NSClient, `<stream:stream xmlns='jabber:client'` + stream + `>`,
			`<presence></presence><presence> </presence>`, "stanza <presence/>\nstanza <presence> </presence>"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			got := decode(t, tt.content, tt.header+tt.in, DefaultLimits())
			if want := tt.want + "\nmore opened=true"; strings.Join(got[1:], "\n") != want {
				t.Errorf("got  %s\nwant %s", strings.Join(got[1:], "\n"), want)
			}
		})
	}
}

// RFC 6120 §8.3.3.8: an address that is no JID is the caller's to answer; the stream goes on.
func TestAddresses(t *testing.T) {
	long := strings.Repeat("a", 1023)
	for _, tt := range []struct{ in, want string }{
		{`<iq to='Romeo@Montague.Example/Orchard' from='montague.example'/>`, `stanza <iq to='romeo@montague.example/Orchard' from='montague.example'/>`},
		{`<iq to='a@b@c/&lt;'/>`, `stanza <iq/> bad to "a@b@c/<"`},
		{`<iq to='' from='@'/>`, `stanza <iq/> bad to "" bad from "@"`},
		{`<iq to='romeo&#64;montague.example'/>`, `stanza <iq to='romeo@montague.example'/>`},
		{`<iq to="a@b/&apos;&amp;"/>`, `stanza <iq to='a@b/&apos;&amp;'/>`},
		{`<iq to='` + long + `@b/` + long + long + `'/>`, `stanza <iq/> bad to "` + long + "@b/" + long + long + `"`},
		{`<iq to='` + strings.Repeat("a", 4000) + `'/>`, `stanza <iq/> bad to "` + strings.Repeat("a", 4000) + `"`},
	} {
		if got := strings.Join(decodeBody(t, tt.in), "\n"); got != tt.want+"\nmore opened=true" {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

// The cache gives the right address when there are more of them than it has places, and keeps no long ones.
func TestAddressCache(t *testing.T) {
	for _, many := range []bool{false, true} {
		d := open(t, xmpp.NSClient, clientHeader, DefaultLimits())
		places := maxCachedJIDs
		send := func(from, to int) {
			t.Helper()
			for i := from; i < to; i++ {
				address := strings.Repeat("x", i*i%37) + strconv.Itoa(i*i%700) + "@example.org"
				d.Feed([]byte("<message to='" + address + "'/>"))
				ev, err := d.Next()
				if err != nil || ev.Stanza.To.String() != address {
					t.Fatal(ev, err)
				}
			}
		}
		send(0, 20)
		if many {
			d.ManyAddresses()
			places = manyCachedJIDs
		}
		send(0, 2000)
		d.Feed([]byte("<message to='a@example.org/" + strings.Repeat("r", 1000) + "'/>"))
		if _, err := d.Next(); err != nil {
			t.Fatal(err)
		}
		if len(d.jids.entries) != places || many && len(d.jids.index) != places {
			t.Errorf("%d entries, %d in the index", len(d.jids.entries), len(d.jids.index))
		}
		for i, e := range d.jids.entries {
			if len(e.raw) > maxCachedBytes {
				t.Errorf("an address of %d bytes is kept", len(e.raw))
			}
			if at, ok := d.jids.index[e.raw]; many && (!ok || at != i) {
				t.Errorf("%s is at %d, not at %d", e.raw, i, at)
			}
		}
	}
}

// What a stanza was decoded from may be overwritten.
func TestStanzaOwnsItsBytes(t *testing.T) {
	d := open(t, xmpp.NSClient, clientHeader, DefaultLimits())
	in := []byte(benchStanzas[0].xml)
	d.Feed(in)
	ev, err := d.Next()
	if err != nil {
		t.Fatal(err)
	}
	want := ev.Stanza.String()
	for range 3 {
		clear(in)
		copy(in, strings.Repeat(" ", len(in)))
		copy(in[10:], "<presence/>")
		d.Feed(in)
		if _, err := d.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if got := ev.Stanza.String(); got != want {
		t.Errorf("changed to %s", got)
	}
}

func TestReset(t *testing.T) {
	d := NewDecoder(xmpp.NSClient, BeforeAuth)
	// A client that does not wait for <success/>.
	d.Feed([]byte(`<stream:stream xmlns='jabber:client' xmlns:p='urn:p' xmlns:stream='http://etherx.jabber.org/streams'>` +
		`<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGEAYg==</auth>` + "\n" + clientHeader + `<iq/><p:x/>`))
	want := []EventKind{Open, Nonzas}
	for _, k := range want {
		if ev, err := d.Next(); err != nil || ev.Kind != k {
			t.Fatal(ev, err)
		}
	}
	if n := len("\n" + clientHeader + `<iq/><p:x/>`); d.Buffered() != n {
		t.Errorf("%d bytes are buffered, want %d", d.Buffered(), n)
	}
	d.Reset()
	if d.Opened() {
		t.Error("still opened")
	}
	d.SetLimits(DefaultLimits())
	for _, k := range []EventKind{Open, Stanzas} {
		if ev, err := d.Next(); err != nil || ev.Kind != k {
			t.Fatal(ev, err)
		}
	}
	if _, err := d.Next(); !streamerr.NotWellFormed.Is(err) {
		t.Errorf("a prefix of the first stream is known on the second: %v", err)
	}
}

// RFC 6120 §5.3.3: what stands behind <starttls/> must be seen.
func TestBuffered(t *testing.T) {
	d := open(t, xmpp.NSClient, clientHeader, BeforeAuth)
	if d.Buffered() != 0 {
		t.Errorf("%d bytes behind the header", d.Buffered())
	}
	const starttls = `<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>`
	d.Feed([]byte(starttls))
	if ev, err := d.Next(); err != nil || ev.Element.Local != "starttls" || d.Buffered() != 0 {
		t.Errorf("%v, %v, %d bytes buffered", ev, err, d.Buffered())
	}
	d.Feed([]byte(starttls + "<iq"))
	if ev, err := d.Next(); err != nil || ev.Element.Local != "starttls" || d.Buffered() != 3 {
		t.Errorf("%v, %v, %d bytes buffered", ev, err, d.Buffered())
	}
	d.Feed([]byte("/> "))
	if ev, err := d.Next(); err != nil || ev.Kind != Stanzas || d.Buffered() != 1 {
		t.Errorf("%v, %v, %d bytes buffered", ev, err, d.Buffered())
	}
	if _, err := d.Next(); err != ErrMore || d.Buffered() != 0 {
		t.Errorf("%v, %d bytes buffered", err, d.Buffered())
	}
}

func TestParse(t *testing.T) {
	alone := func(b []byte) (*xmpp.Stanza, error) { return Parse(b, DefaultLimits()) }
	parsers := []func([]byte) (*xmpp.Stanza, error){alone, NewParser(DefaultLimits()).Parse}
	for _, tt := range []struct{ in, want string }{
		{`<message to='a@b' xmlns='jabber:client'><body>x</body></message>`, `<message to='a@b'><body>x</body></message>`},
		{" \n<iq id='1'/>\r\n", `<iq id='1'/>`},
		{`<presence xmlns:p='urn:p'><p:x/></presence>`, `<presence xmlns:p='urn:p'><p:x/></presence>`},
	} {
		for _, parse := range parsers {
			if s, err := parse([]byte(tt.in)); err != nil || s.String() != tt.want {
				t.Errorf("%s: %v, %v", tt.in, s, err)
			}
		}
	}
	for _, tt := range []struct {
		in   string
		want streamerr.Error
	}{
		{``, streamerr.NotWellFormed},
		{`<message>`, streamerr.NotWellFormed},
		{`<message/><message/>`, streamerr.NotWellFormed},
		{`<message/>x`, streamerr.NotWellFormed},
		{`</message>`, streamerr.NotWellFormed},
		{`</>`, streamerr.NotWellFormed},
		{`<?xml version='1.0'?><message/>`, streamerr.RestrictedXML},
		{`<open xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>`, streamerr.UnsupportedStanzaType},
		{`<foo/>`, streamerr.UnsupportedStanzaType},
		{`<message to='@'/>`, streamerr.ImproperAddressing},
		{`<message from=''/>`, streamerr.ImproperAddressing},
		{`<message xmlns='jabber:server'/>`, streamerr.InvalidNamespace},
		{`<message>` + strings.Repeat("a", 256<<10), streamerr.PolicyViolation},
		{`<stream:stream xmlns:stream='http://etherx.jabber.org/streams'>`, streamerr.NotWellFormed},
	} {
		for _, parse := range parsers {
			if s, err := parse([]byte(tt.in)); !tt.want.Is(err) || err == nil {
				t.Errorf("%.80s: %v, %v, want %v", tt.in, s, err, tt.want)
			}
		}
	}
}

func TestParseElement(t *testing.T) {
	for _, tt := range []struct{ in, space, local, xml string }{
		{`<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='a'/>`, "urn:ietf:params:xml:ns:xmpp-framing", "open", `<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='a'/>`},
		{` <message/> `, xmpp.NSClient, "message", `<message xmlns='jabber:client'/>`},
		{`<message xmlns='jabber:server'/>`, xmpp.NSServer, "message", `<message xmlns='jabber:server'/>`},
		{`<x xmlns=''/>`, "", "x", `<x xmlns=''/>`},
		{`<p:x xmlns:p='urn:p'><y/></p:x>`, "urn:p", "x", `<p:x xmlns='jabber:client' xmlns:p='urn:p'><y/></p:x>`},
	} {
		n, err := ParseElement([]byte(tt.in), DefaultLimits())
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		if n.Space != tt.space || n.Local != tt.local || string(n.XML()) != tt.xml {
			t.Errorf("%s: {%s}%s %s", tt.in, n.Space, n.Local, n.XML())
		}
	}
	for _, in := range []string{``, ` `, `<a>`, `<a/><b/>`, `</a>`, `a`, `<p:x/>`, `<!-- -->`} {
		if n, err := ParseElement([]byte(in), DefaultLimits()); err == nil || n != nil {
			t.Errorf("%s: %v, %v", in, n, err)
		}
	}
}

func TestNonza(t *testing.T) {
	d := open(t, xmpp.NSClient, `<stream:stream xmlns='jabber:client' xmlns:p='urn:p' xmlns:stream='http://etherx.jabber.org/streams'>`, BeforeAuth)
	d.Feed([]byte(`<a xmlns='urn:xmpp:sm:3' h='&#53;' xml:lang='de' p:k='6' i = "7
8"/>` +
		`<p:a h='1'>a&amp;<b>c<d/></b>` + "\r\n" + `<![CDATA[<&amp;` + "\r" + `]]></p:a>` +
		`<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>` +
		`<foo></foo><a xmlns='urn:a' b='/>'>x<c d="'>"/>y</a>`))
	next := func() *Nonza {
		t.Helper()
		ev, err := d.Next()
		if err != nil || ev.Kind != Nonzas {
			t.Fatal(ev, err)
		}
		return ev.Element
	}

	n := next()
	if n.Attr("h") != "5" || n.Attr("i") != "7 8" || n.Attr("lang") != "" || n.Attr("x") != "" || n.Text() != "" {
		t.Errorf("%s: %q %q %q", n.XML(), n.Attr("h"), n.Attr("i"), n.Text())
	}
	var v struct {
		H    int    `xml:"h,attr"`
		Lang string `xml:"http://www.w3.org/XML/1998/namespace lang,attr"`
		P    int    `xml:"urn:p k,attr"`
	}
	if err := n.Decode(&v); err != nil || v.H != 5 || v.Lang != "de" || v.P != 6 {
		t.Errorf("%+v, %v", v, err)
	}
	if err := n.Decode(new(struct {
		H int `xml:"lang,attr"`
	})); err == nil {
		t.Error("no error for a number that is none")
	}

	n = next()
	if n.Space != "urn:p" || n.Local != "a" || n.Attr("h") != "1" || n.Text() != "a&\n<&amp;\n" {
		t.Errorf("{%s}%s %q %q", n.Space, n.Local, n.Attr("h"), n.Text())
	}
	n = next()
	if n.Space != xmpp.NSStream || n.Local != "error" {
		t.Errorf("{%s}%s", n.Space, n.Local)
	}
	n = next()
	if n.Space != xmpp.NSClient || n.Local != "foo" || n.Text() != "" || string(n.XML()) != `<foo xmlns='jabber:client'></foo>` {
		t.Errorf("{%s}%s %s", n.Space, n.Local, n.XML())
	}
	if n = next(); n.Text() != "xy" || n.Attr("b") != "/>" {
		t.Errorf("%s: %q", n.XML(), n.Text())
	}
}
