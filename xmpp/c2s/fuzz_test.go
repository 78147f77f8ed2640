package c2s

import (
	"strings"
	"testing"

	"balcony/xmpp"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/stanza"
)

// Whatever a client authenticates with is a request or malformed; what it asks for inline is taken only from its place.
func FuzzAuthenticate(f *testing.F) {
	f.Add("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>AGEAYg==</initial-response><user-agent id='x'><software>a</software><device>b</device></user-agent>" +
		"<resume xmlns='urn:xmpp:sm:3' previd='p' h='4294967295'/><bind xmlns='urn:xmpp:bind:0'><tag>t</tag><enable xmlns='urn:xmpp:sm:3' resume='1' max='60'/><enable xmlns='urn:xmpp:carbons:2'/>" +
		"<inactive xmlns='urn:xmpp:csi:0'/></bind><request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/><fast xmlns='urn:xmpp:fast:0' count='1' invalidate='true'/>" +
		"<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-256</upgrade><config-version xmlns='urn:xmpp:iap:0' value='v'/></authenticate>")
	f.Add("<authenticate xmlns='urn:xmpp:sasl:2'><bind xmlns='urn:xmpp:bind:1'/><x><resume xmlns='urn:xmpp:sm:3'/></x></authenticate>")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := stream.ParseElement([]byte(text), stream.BeforeAuth)
		if err != nil || n == nil {
			return
		}
		r, err := parseRequest(n)
		if err != nil {
			return
		}
		if (r.Resume != nil) && !strings.Contains(text, "resume") || (r.Bind != nil) && !strings.Contains(text, nsBind2) || r.Bind == nil && r.Features != nil {
			t.Errorf("%+v of %q", r, text)
		}
	})
}

// An inactive client misses nothing that a person would: what has a body, an error or an answer is never held and never dropped.
func FuzzClassify(f *testing.F) {
	f.Add("<message from='a@b' to='c@d/e'><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='n'><item id='i'/><retract id='j'/></items></event></message>")
	f.Add("<message from='a@b' to='a@b/e'><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'><active xmlns='http://jabber.org/protocol/chatstates'/><body>x</body></message></forwarded></sent></message>")
	f.Add("<presence from='a@b/c' to='c@d/e' type='unavailable'/>")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := stream.Parse([]byte(text), stream.DefaultLimits())
		if err != nil {
			return
		}
		what, key := classify(s)
		if (what == replace) != (key != "") {
			t.Errorf("%d with key %q", what, key)
		}
		if what != urgent && (s.Kind == xmpp.IQ || s.Kind == xmpp.Message && (s.Has("", "body") || s.MessageType() == stanza.ErrorMessage)) {
			t.Errorf("%s is not urgent", s)
		}
		if s.Kind == xmpp.Message && s.MessageType() != stanza.ErrorMessage {
			if copied, _ := classify(s.Forward("urn:xmpp:carbons:2", "sent")); (copied == drop) != (what == drop) || copied == replace {
				t.Errorf("%s is %d, and its copy %d", s, what, copied)
			}
		}
	})
}
