package c2s_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"

	"balcony/xmpp"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
)

const agent = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'><software>AwesomeXMPP</software><device>Kiva's Phone</device></user-agent>"

// tlsStream is a stream over TLS that waits for authentication.
func tlsStream(srv *xmpptest.Server) *xmpptest.Client {
	c := srv.Dial()
	c.Open("localhost")
	c.StartTLS(nil)
	c.Open("localhost")
	return c
}

// plain is <authenticate/> with PLAIN and something inside.
func plain(user, password, inside string) string {
	return "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>" +
		base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+password)) + "</initial-response>" + inside + "</authenticate>"
}

func child(e *xmpp.Element, local string) *xmpp.Element {
	for _, c := range e.Children {
		if c.Local == local {
			return c
		}
	}
	return nil
}

// XEP-0388 §6.1: nothing inline. The features follow success without a stream restart, and the old resource binding works, as Gajim does it.
func TestSASL2Simple(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("romeo@localhost")
	c := tlsStream(srv)
	c.Write(plain("romeo", "wrong", ""))
	c.ExpectElement("<failure xmlns='urn:xmpp:sasl:2'><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>")
	c.Write("<abort xmlns='urn:xmpp:sasl:2'/>")
	c.ExpectElement("<failure xmlns='urn:xmpp:sasl:2'><aborted xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>")
	c.Write(plain("romeo", "romeo", agent))
	c.ExpectElement("<success xmlns='urn:xmpp:sasl:2'><authorization-identifier>romeo@localhost</authorization-identifier></success>")
	if f := c.Element(); f.Local != "features" || child(f, "bind") == nil {
		t.Fatalf("features: %s", f)
	}
	c.Bind("orchard")
	c.Online()
}

// XEP-0386 §3 and XEP-0198 §9: login, binding and stream management in one round trip; the same client gets the same resource again, and then
// resumes in one round trip too.
func TestBind2AndInlineResumption(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("romeo@localhost")
	juliet := srv.Client("juliet@localhost/balcony")
	const bind = "<bind xmlns='urn:xmpp:bind:0'><tag>AwesomeXMPP</tag><enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>"
	login := func(inside string) (*xmpptest.Client, *xmpp.Element) {
		c := tlsStream(srv)
		c.Write(plain("romeo", "romeo", agent+inside))
		return c, c.Element()
	}
	a, success := login(bind)
	full := child(success, "authorization-identifier").Text
	if !strings.HasPrefix(full, "romeo@localhost/AwesomeXMPP/") {
		t.Fatalf("success: %s", success)
	}
	enabled := child(child(success, "bound"), "enabled")
	if f := a.Element(); f.Local != "features" || child(f, "bind") != nil {
		t.Fatalf("features of a bound stream: %s", f)
	}
	a.JID = jid.MustParse(full)
	a.Start()
	a.Send("<message to='juliet@localhost/balcony' type='chat'><body>hi</body></message><r xmlns='" + sm + "'/>")
	juliet.Expect("<message from='" + full + "' to='juliet@localhost/balcony' type='chat'><body>hi</body></message>")
	a.Expect("<a xmlns='" + sm + "' h='1'/>")
	a.Disconnect()
	juliet.Send("<message to='" + full + "' type='chat'><body>hello</body></message>")
	juliet.Sync()

	b, success := login("<resume xmlns='urn:xmpp:sm:3' h='0' previd='" + enabled.Attr("id") + "'/>" + bind)
	if r := child(success, "resumed"); r == nil || r.Attr("h") != "1" || child(success, "bound") != nil || child(success, "authorization-identifier").Text != full {
		t.Fatalf("success: %s", success)
	}
	b.ExpectElement("<message from='juliet@localhost/balcony' to='" + full + "' type='chat'><body>hello</body></message>") // no features
	b.ExpectElement("<r xmlns='" + sm + "'/>")

	// XEP-0386 §3.1: a new session of the same client replaces the one before.
	c, success := login("<resume xmlns='urn:xmpp:sm:3' h='0' previd='nonsense'/>" + bind)
	if child(success, "failed") == nil || child(success, "bound") == nil || child(success, "authorization-identifier").Text != full {
		t.Fatalf("success: %s", success)
	}
	b.ExpectElement("<stream:error><conflict xmlns='" + streams + "'/></stream:error>")

	// Also with another tag; another client's session and one without an id go on.
	const otherAgent = "<user-agent id='0b5f8a4e-2d0e-4d8f-9d51-7d2c1a6f0c11'/>"
	const otherTag = "<bind xmlns='urn:xmpp:bind:0'><tag>Awesome 2</tag></bind>"
	d := tlsStream(srv)
	d.Write(plain("romeo", "romeo", otherAgent+otherTag))
	other := child(d.Element(), "authorization-identifier").Text
	nobody := srv.Client("romeo@localhost/nobody")
	_, success = login(otherTag)
	if again := child(success, "authorization-identifier").Text; !strings.HasPrefix(again, "romeo@localhost/Awesome 2/") || again == other {
		t.Fatalf("%s beside %s", again, other)
	}
	c.Element()                                                                                                            // features
	c.ExpectElement("<message from='juliet@localhost/balcony' to='" + full + "' type='chat'><body>hello</body></message>") // b had not acknowledged it
	c.ExpectElement("<r xmlns='" + sm + "'/>")
	c.ExpectElement("<stream:error><conflict xmlns='" + streams + "'/></stream:error>")
	nobody.Sync()
	if !slices.ContainsFunc(srv.Sessions(jid.MustParse("romeo@localhost")), func(s xmpp.Session) bool { return s.JID().String() == other }) {
		t.Error("another client's session has ended")
	}
}

// XEP-0386 §4: a tag that can be no resource, is too long or is nothing is left out or cut, and the client is bound all the same.
func TestBind2Tags(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("romeo@localhost")
	for tag, want := range map[string]string{
		"": "^.{12}$", "<tag/>": "^.{12}$", "<tag>  </tag>": "^.{12}$", "<tag>a&#x85;b</tag>": "^.{12}$", "<tag> Gajim </tag>": "^Gajim/.{12}$",
		"<tag>" + strings.Repeat("é", 100) + "</tag>": "^é{32}/.{12}$", "<tag>a/b@c</tag>": "^a/b@c/.{12}$",
	} {
		c := tlsStream(srv)
		c.Write(plain("romeo", "romeo", agent+"<bind xmlns='urn:xmpp:bind:0'>"+tag+"</bind>"))
		e := c.Element()
		if e.Local != "success" || child(e, "bound") == nil {
			t.Errorf("%s: %s", tag, e)
			continue
		}
		if r := jid.MustParse(child(e, "authorization-identifier").Text).Resourcepart(); !regexp.MustCompile(want).MatchString(r) {
			t.Errorf("%s gives the resource %q", tag, r)
		}
	}
}

// XEP-0388 §2.3: another from than the one that authenticates.
func TestSASL2From(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("romeo@localhost")
	c := srv.Dial()
	c.Open("localhost")
	c.StartTLS(nil)
	c.Write(hello("to=", "from='juliet@localhost' to="))
	c.Header()
	c.Element()
	c.Write(plain("romeo", "romeo", ""))
	if e := c.Element(); e.Local != "failure" {
		t.Fatalf("got %s", e)
	}
}

// XEP-0388 §2.1: a from of another domain.
func TestSASL2FromElsewhere(t *testing.T) {
	srv := xmpptest.New(t)
	c := srv.Dial()
	c.Open("localhost")
	c.StartTLS(nil)
	c.Write(hello("to=", "from='romeo@elsewhere.test' to="))
	c.Header()
	c.ExpectElement("<stream:error><invalid-from xmlns='" + streams + "'/></stream:error>")
}

// XEP-0388 §2.4: anything but an answer ends the stream; unknown mechanisms and bad base64 fail.
func TestSASL2Errors(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("romeo@localhost")
	c := tlsStream(srv)
	for text, condition := range map[string]string{
		"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='NONSENSE'/>":                                                  "invalid-mechanism",
		"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>%</initial-response></authenticate>": "incorrect-encoding",
		"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response/></authenticate>":                    "malformed-request",
	} {
		c.Write(text)
		if e := c.Element(); e.Local != "failure" || e.Children[0].Local != condition {
			t.Errorf("%s: %s, want %s", text, e, condition)
		}
	}
	c.Write("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-1'><initial-response>" +
		base64.StdEncoding.EncodeToString([]byte("n,,n=romeo,r=abc")) + "</initial-response></authenticate>" + ping)
	if e := c.Element(); e.Local != "challenge" {
		t.Fatalf("got %s", e)
	}
	c.ExpectElement("<stream:error><not-authorized xmlns='" + streams + "'/></stream:error>")
}

// XEP-0484 §3: a token for the next login, which then takes one round trip; a token that is wrong, or of a password that was changed, fails
// and the password still works on the same stream.
func TestFast(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("romeo@localhost")
	c := tlsStream(srv)
	c.Write(plain("romeo", "romeo", agent+"<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/><bind xmlns='urn:xmpp:bind:0'/>"))
	success := c.Element()
	token := child(success, "token").Attr("token")
	if len(token) < 22 {
		t.Fatalf("success: %s", success)
	}
	fast := func(secret string) string {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte("Initiator"))
		return fmt.Sprintf("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='HT-SHA-256-NONE'><initial-response>%s</initial-response>%s<fast xmlns='urn:xmpp:fast:0'/><bind xmlns='urn:xmpp:bind:0'/></authenticate>",
			base64.StdEncoding.EncodeToString(append([]byte("romeo\x00"), mac.Sum(nil)...)), agent)
	}
	d := tlsStream(srv)
	d.Write(fast("nonsense"))
	d.ExpectElement("<failure xmlns='urn:xmpp:sasl:2'><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>")
	d.Write(fast(token))
	if e := d.Element(); e.Local != "success" || child(e, "bound") == nil || child(e, "additional-data") == nil {
		t.Fatalf("login with a token: %s", e)
	}
	if err := srv.Accounts().SetPassword(t.Context(), jid.MustParse("romeo@localhost"), "rosaline"); err != nil {
		t.Fatal(err)
	}
	e := tlsStream(srv)
	e.Write(fast(token))
	e.ExpectElement("<failure xmlns='urn:xmpp:sasl:2'><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>")
	e.Write(plain("romeo", "rosaline", agent))
	if s := e.Element(); s.Local != "success" {
		t.Fatalf("login with the password: %s", s)
	}
}

// XEP-0509: the features have a name, with which a client may send its authentication ahead of them. With another name it fails, and does not
// count as a try.
func TestAuthenticationAhead(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("romeo@localhost")
	open := func(version string) *xmpptest.Client {
		c := srv.Dial()
		c.Open("localhost")
		c.StartTLS(nil)
		c.Write(hello("", "") + plain("romeo", "romeo", agent+"<bind xmlns='urn:xmpp:bind:0'/><config-version xmlns='urn:xmpp:iap:0' scheme='opaque' value='"+version+"'/>"))
		c.Header()
		return c
	}
	c := open("old")
	version := child(c.Element(), "config-version").Attr("value")
	if len(version) < 8 {
		t.Fatalf("version %q", version)
	}
	const mismatch = "<failure xmlns='urn:xmpp:sasl:2'><aborted xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/><config-version-mismatch xmlns='urn:xmpp:iap:0'/></failure>"
	c.ExpectElement(mismatch)
	c.Write(plain("romeo", "romeo", "<config-version xmlns='urn:xmpp:iap:0'/>"))
	c.ExpectElement(mismatch)
	for range 4 { // two mismatches count for nothing: the fifth wrong password is the last
		c.Write(plain("romeo", "wrong", ""))
		if e := c.Element(); e.Local != "failure" || child(e, "not-authorized") == nil {
			t.Fatalf("got %s", e)
		}
	}
	c.Write(plain("romeo", "romeo", "<config-version xmlns='urn:xmpp:iap:0' value='"+version+"'/>"))
	if e := c.Element(); e.Local != "success" {
		t.Fatalf("got %s", e)
	}
	d := open(version)
	if v := child(d.Element(), "config-version").Attr("value"); v != version {
		t.Errorf("version %q, then %q", version, v)
	}
	if e := d.Element(); e.Local != "success" || child(e, "bound") == nil {
		t.Fatalf("ahead: %s", e)
	}
	// Without an end they count.
	f := open("old")
	f.Element()
	for range 6 {
		f.ExpectElement(mismatch)
		f.Write(plain("romeo", "romeo", "<config-version xmlns='urn:xmpp:iap:0' value='old'/>"))
	}
	f.ExpectElement(mismatch)
	f.ExpectElement("<stream:error><policy-violation xmlns='" + streams + "'/></stream:error>")
}

// XEP-0352 §5: while inactive, presence waits and is merged, chat states are dropped, messages come at once and bring what was held before
// them; active brings the rest.
func TestClientState(t *testing.T) {
	srv := xmpptest.New(t)
	romeo, juliet := srv.Client("romeo@localhost/orchard"), srv.Client("juliet@localhost/balcony")
	juliet.Online()
	juliet.Send("<inactive xmlns='urn:xmpp:csi:0'/>")
	juliet.Sync()
	for _, show := range []string{"away", "xa", "dnd"} {
		romeo.Send("<presence to='juliet@localhost/balcony'><show>" + show + "</show></presence>")
	}
	romeo.Send("<message to='juliet@localhost' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>")
	romeo.Sync()
	romeo.Send("<message to='juliet@localhost' type='chat'><body>hi</body></message>")
	juliet.Expect("<presence from='romeo@localhost/orchard' to='juliet@localhost/balcony'><show>dnd</show></presence>")
	juliet.Expect("<message from='romeo@localhost/orchard' to='juliet@localhost' type='chat'><body>hi</body></message>")
	romeo.Send("<presence to='juliet@localhost/balcony'/>")
	romeo.Sync()
	juliet.Send("<active xmlns='urn:xmpp:csi:0'/>")
	juliet.Expect("<presence from='romeo@localhost/orchard' to='juliet@localhost/balcony'/>")
	juliet.ExpectNothing()
}

// XEP-0386 §2.1 and §2.2: features of modules are listed, asked for inside of <bind/>, and answer inside of <bound/>; what reaches the session
// while it is being bound comes after that and counts for stream management.
func TestBind2Features(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("romeo@localhost")
	const asked = "<p:enable xmlns:p='urn:x:one' level='3'><p:more/></p:enable>"
	got := make(map[string]string)
	for _, name := range []string{"one", "two", "three"} {
		f := xmpp.BindFeature{Name: "urn:x:" + name, Space: "urn:x:" + name, Local: "enable"}
		if name == "three" {
			f = xmpp.BindFeature{} // what every binding gets
		}
		f.Bind = func(ctx context.Context, s xmpp.Session, request *xmpp.Element) *xmpp.Element {
			if request != nil {
				got[name] = request.String()
			}
			if name == "two" {
				return nil
			}
			s.Enqueue(ctx, xmpp.New(xmpp.Message, "", s.JID(), s.JID().Bare(), xmpp.El("urn:x", name)))
			return xmpp.El("urn:x:"+name, "bound")
		}
		srv.Registry().BindFeature(f)
	}
	c := srv.Dial()
	c.Open("localhost")
	c.StartTLS(nil)
	_, features := c.Open("localhost")
	var names []string
	for _, f := range child(child(child(child(features, "authentication"), "inline"), "bind"), "inline").Children {
		names = append(names, f.Attr("var"))
	}
	if list := strings.Join(names, " "); !strings.Contains(list, "urn:xmpp:sm:3") || !strings.HasSuffix(list, " urn:x:one urn:x:two") {
		t.Errorf("features: %s", list)
	}
	c.Write(plain("romeo", "romeo", "<bind xmlns='urn:xmpp:bind:0'>"+asked+"<enable xmlns='urn:xmpp:sm:3'/><enable xmlns='urn:x:unknown'/></bind>"))
	success := c.Element()
	var bound []string
	for _, e := range child(success, "bound").Children {
		if strings.HasPrefix(e.Space, "urn:x:") || e.Space == sm {
			bound = append(bound, e.Space+" "+e.Local)
		}
	}
	sort.Strings(bound)
	if want := "urn:x:one bound, urn:x:three bound, urn:xmpp:sm:3 enabled"; strings.Join(bound, ", ") != want {
		t.Errorf("bound: %s", success)
	}
	if want := "<enable xmlns='urn:x:one' level='3'><more/></enable>"; got["one"] != want || len(got) != 1 {
		t.Errorf("requests: %v", got)
	}
	c.Element() // the features
	c.ExpectElement("<message to='{any}' from='romeo@localhost'><one xmlns='urn:x'/></message>")
	c.ExpectElement("<r xmlns='urn:xmpp:sm:3'/>")
	c.ExpectElement("<message to='{any}' from='romeo@localhost'><three xmlns='urn:x'/></message>")
	c.Write("<a xmlns='urn:xmpp:sm:3' h='2'/><iq type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
	c.ExpectElement("<iq type='result' id='p' from='localhost' to='{any}'/>")
}
