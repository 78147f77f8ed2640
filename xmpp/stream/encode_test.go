package stream

import (
	"encoding/xml"
	"net"
	"strings"
	"testing"

	streamerr "mellium.im/xmpp/stream"

	"balcony/xmpp"
)

// RFC 6120 §4.7: what we write is a header that we read.
func TestAppendHeader(t *testing.T) {
	h := Header{To: "juliet@im.example.com", From: "im.example.com", ID: "++TR84Sm6A3hnt3Q065SnAbbk3Y=", Version: "1.0", Lang: "en", Content: xmpp.NSClient}
	got := string(AppendHeader(nil, h))
	want := `<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'` +
		` id='++TR84Sm6A3hnt3Q065SnAbbk3Y=' from='im.example.com' to='juliet@im.example.com' version='1.0' xml:lang='en'>`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, h := range []Header{
		h,
		{Content: xmpp.NSServer, From: "a"},
		{Content: nsComponent, ID: "<&'\">", To: "é"},
		{Content: xmpp.NSClient, From: "a\r\n\tb", Lang: "'/><message/>"},
	} {
		d := NewDecoder(h.Content, BeforeAuth)
		d.Feed(AppendHeader(nil, h))
		ev, err := d.Next()
		h.Prefix = "stream"
		if err != nil || *ev.Header != h {
			t.Errorf("%+v became %+v, %v", h, ev.Header, err)
		}
		if d.Feed([]byte(CloseTag)); d.Buffered() != len(CloseTag) {
			t.Error("the header is followed by something")
		}
		if ev, err := d.Next(); err != nil || ev.Kind != Close {
			t.Errorf("the end tag is %v, %v", ev, err)
		}
	}
}

// RFC 6120 §4.9.2, §4.9.4.
func TestAppendError(t *testing.T) {
	const ns = ` xmlns='urn:ietf:params:xml:ns:xmpp-streams'`
	text := streamerr.PolicyViolation
	text.Text = []struct{ Lang, Value string }{{"en", "a<b"}, {"", "c"}}
	for _, tt := range []struct {
		err    streamerr.Error
		detail *xmpp.Element
		want   string
	}{
		{streamerr.NotAuthorized, nil, `<stream:error><not-authorized` + ns + `/></stream:error>`},
		{text, xmpp.El("urn:xmpp:errors", "stanza-too-big"), `<stream:error><policy-violation` + ns + `/><text` + ns + ` xml:lang='en'>a&lt;b</text><text` + ns + `>c</text><stanza-too-big xmlns='urn:xmpp:errors'/></stream:error>`},
		{text, nil, `<stream:error><policy-violation` + ns + `/><text` + ns + ` xml:lang='en'>a&lt;b</text><text` + ns + `>c</text></stream:error>`},
		{streamerr.SeeOtherHostError(&net.TCPAddr{IP: net.IPv6loopback, Port: 5222}), nil, `<stream:error><see-other-host` + ns + `>[::1]:5222</see-other-host></stream:error>`},
		{streamerr.Error{}, nil, `<stream:error><undefined-condition` + ns + `/></stream:error>`},
	} {
		got := string(AppendError([]byte("x"), tt.err, tt.detail))
		if got != "x"+tt.want {
			t.Errorf("got  %s\nwant x%s", got, tt.want)
		}
		if tt.detail != nil {
			continue // mellium does not read past an application's condition
		}
		var read streamerr.Error
		doc := strings.Replace(tt.want, "<stream:error>", "<stream:error xmlns:stream='"+xmpp.NSStream+"'>", 1)
		if err := xml.Unmarshal([]byte(doc), &read); err != nil || tt.err.Err != "" && read.Err != tt.err.Err || len(read.Text) != len(tt.err.Text) {
			t.Errorf("%s is read as %+v, %v", got, read, err)
		}
	}
}

// Every error of a decoder can be sent.
func TestFaultsAreConditions(t *testing.T) {
	defined := map[string]bool{"bad-format": true, "bad-namespace-prefix": true, "invalid-namespace": true, "not-well-formed": true,
		"restricted-xml": true, "unsupported-encoding": true, "policy-violation": true}
	for f := more + 1; int(f) < len(faults); f++ {
		if err := f.err(); !defined[err.Error()] {
			t.Errorf("fault %d is %q", f, err)
		}
	}
	if err := none.err(); !streamerr.InternalServerError.Is(err) {
		t.Errorf("none is %v", err)
	}
}

// RFC 6120 §4.3.2.
func TestAppendFeatures(t *testing.T) {
	for _, tt := range []struct {
		features []*xmpp.Element
		want     string
	}{
		{nil, `<stream:features/>`},
		{[]*xmpp.Element{nil}, `<stream:features/>`},
		{[]*xmpp.Element{xmpp.El("urn:ietf:params:xml:ns:xmpp-tls", "starttls").Add(xmpp.El("", "required")), nil, xmpp.El("urn:xmpp:sm:3", "sm")},
			`<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls><sm xmlns='urn:xmpp:sm:3'/></stream:features>`},
	} {
		if got := string(AppendFeatures(nil, tt.features...)); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}
