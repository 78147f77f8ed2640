package c2s_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
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
	if !strings.HasPrefix(full, "romeo@localhost/AwesomeXMPP.") {
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

	b, success := login("<resume xmlns='urn:xmpp:sm:3' h='0' previd='" + attr(enabled, "id") + "'/>" + bind)
	if r := child(success, "resumed"); r == nil || attr(r, "h") != "1" || child(success, "bound") != nil || child(success, "authorization-identifier").Text != full {
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
	_ = c
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
	token := attr(child(success, "token"), "token")
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
