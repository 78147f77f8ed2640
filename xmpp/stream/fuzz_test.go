package stream

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"balcony/xmpp"
)

// Traffic of real clients and servers, and payloads that hurt others (security.md rows 1-8, 53-58).
var corpus = []string{
	`<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>biwsbj1yb21lbyxyPWZ5a28rZDJsYmJGZ09OUnY5cWt4ZGF3TA==</auth>`,
	`<iq type="set" id="aab2a"><bind xmlns="urn:ietf:params:xml:ns:xmpp-bind"><resource>orchard</resource></bind></iq>`,
	`<enable xmlns='urn:xmpp:sm:3' resume='true'/><r xmlns='urn:xmpp:sm:3'/><a xmlns='urn:xmpp:sm:3' h='12'/>`,
	`<iq id="q3" type="set"><query xmlns="urn:xmpp:mam:2" queryid="f27"><x xmlns="jabber:x:data" type="submit"><field var="FORM_TYPE" type="hidden"><value>urn:xmpp:mam:2</value></field><field var="start"><value>2010-08-07T00:00:00Z</value></field></x><set xmlns="http://jabber.org/protocol/rsm"><max>10</max><before/></set></query></iq>`,
	`<message to="juliet@capulet.example" type="chat"><forwarded xmlns="urn:xmpp:forward:0"><delay xmlns="urn:xmpp:delay" stamp="2010-07-10T23:08:25Z"/><message xmlns="jabber:client" to="a@b" from="c@d"><body>Yet I should kill thee</body></message></forwarded></message>`,
	`<message to="a@b"><encrypted xmlns="eu.siacs.conversations.axolotl"><header sid="27183"><key rid="31415">BASE64==</key><iv>BASE64==</iv></header><payload>BASE64</payload></encrypted><store xmlns="urn:xmpp:hints"/></message>`,
	`<iq type="set" id="publish"><pubsub xmlns="http://jabber.org/protocol/pubsub"><publish node="urn:xmpp:avatar:metadata"><item id="111f"><metadata xmlns="urn:xmpp:avatar:metadata"><info bytes="12345" height="64" id="111f" type="image/png" width="64"/></metadata></item></publish></pubsub></iq>`,
	`<message to="a@b"><html xmlns="http://jabber.org/protocol/xhtml-im"><body xmlns="http://www.w3.org/1999/xhtml"><p style="font-weight:bold">hi! &#x1F48B; &lt;3</p></body></html></message>`,
	`<db:result xmlns:db='jabber:server:dialback' from='a' to='b'>1e701f120f66824b57303384e83b51feba858024fd2221d39f7acc52dcf767a9</db:result>`,
	"<message><body>Привет, 日本, \U0001f9d1\u200d\U0001f680</body></message>",
	`<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>`,
	`<message xmlns='jabber:client' xmlns:x='urn:x' x:y='z' xml:lang='de'><body xmlns='jabber:client' xml:lang='en'>a</body><x:z/></message>`,
	// billion laughs, quadratic blow-up, external entities
	`<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol1 "&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;">]><lolz>&lol1;</lolz>`,
	`<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><message><body>&e;</body></message>`,
	`<message><!ENTITY % x SYSTEM "http://127.0.0.1/"></message>`,
	// namespace separators (CVE-2022-25236), prefixes, directives (CVE-2020-29509 to -29511)
	"<message xmlns='jabber:client\nmessage'/><message xmlns='jabber:client message'/>",
	`<message xmlns:a="urn:a" a:xmlns="urn:b" xmlns:xmlns="urn:c"><:body/></message>`,
	`<message><x::y/><:z a=""/><a: xmlns:a="x"/></message>`,
	`<message><!x<!-->--><y></message>`,
	// stanza smuggling
	"<message><body>\xe2\x80<\x8b/body></message>",
	"<message><body>\xf0\x28\x8c\x28</body></message><message\xc2\xa0/>",
	`<message to='a@b"><message to=" '/>`,
	`<message><body><![CDATA[</body></message><message from='admin@b'/>]]></body></message>`,
	"<message\x00/><message a='\x00'/>",
	// size and depth
	strings.Repeat("<x>", 100) + strings.Repeat("</x>", 100),
	`<message>` + strings.Repeat("<x/>", 300) + `</message>`,
	`<message` + strings.Repeat(" a='1'", 100) + `/>`,
	`<message id='&#0000000000000000000000000000000000000000065;'/>`,
	`<x xmlns:a='u'` + manyPrefixes(80) + `/>`,
}

func seeds(f *testing.F, add func(in string)) {
	for _, s := range corpus {
		add(clientHeader + s)
	}
	for _, s := range benchStanzas {
		add(clientHeader + s.xml)
	}
	for _, tt := range bodyErrors {
		add(clientHeader + tt.in)
	}
	for _, tt := range headerErrors {
		add(tt.in + clientHeader)
	}
	for _, h := range genHeaders {
		add(h.header + corpus[4] + corpus[11])
	}
}

// FuzzDecoder: no input panics, exceeds a limit, depends on chunks or is understood in another way than encoding/xml does.
func FuzzDecoder(f *testing.F) {
	seeds(f, func(in string) { f.Add(in, uint64(len(in)), false) })
	f.Add(genHeaders[2].header+corpus[8], uint64(1), true)
	f.Fuzz(func(t *testing.T, in string, seed uint64, server bool) {
		content := xmpp.NSClient
		if server {
			content = xmpp.NSServer
		}
		l := Limits{Bytes: 600, Depth: 6, Attributes: 6, Children: 6}
		want := strings.Join(feed(NewDecoder(content, l), in, whole), "\n")
		rnd := rand.New(rand.NewPCG(seed, 0))
		d := NewDecoder(content, l)
		got := strings.Join(feed(d, in, func(int) int { return 1 + rnd.IntN(20) }), "\n")
		if got != want {
			t.Fatalf("in pieces:\n%s\nwhole:\n%s", got, want)
		}
		if d.Buffered() > l.Bytes {
			t.Fatalf("%d bytes are held", d.Buffered())
		}
		differ(t, content, in, l)
		differ(t, content, in, DefaultLimits())
	})
}

// FuzzParse: what Parse and ParseElement accept can be encoded, decoded again and stays the same. What a Parser has read before makes no difference to it.
func FuzzParse(f *testing.F) {
	seeds(f, func(in string) { f.Add(strings.TrimPrefix(in, clientHeader)) })
	f.Fuzz(func(t *testing.T, in string) {
		s, err := Parse([]byte(in), DefaultLimits())
		if err == nil {
			checkStanza(t, s)
		}
		p := NewParser(DefaultLimits())
		for range 2 {
			if again, other := p.Parse([]byte(in)); fmt.Sprint(other) != fmt.Sprint(err) || err == nil && again.String() != s.String() {
				t.Fatalf("%q: %v, %v; by a parser %v, %v", in, s, err, again, other)
			}
		}
		if n, err := ParseElement([]byte(in), DefaultLimits()); err == nil {
			checkNonza(t, n)
		}
	})
}
