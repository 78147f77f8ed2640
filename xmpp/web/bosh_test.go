package web_test

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
)

func TestBOSHChat(t *testing.T) {
	s := xmpptest.New(t)
	romeo := s.BOSHClient("romeo@localhost/orchard")
	juliet := s.Client("juliet@localhost/balcony")
	romeo.Online()
	juliet.Online()
	for range 3 {
		romeo.Send("<message to='juliet@localhost/balcony' type='chat' id='1'><body>hi</body></message><message to='juliet@localhost' type='chat' id='2'><body>there</body></message>")
		juliet.Expect("<message from='romeo@localhost/orchard' to='juliet@localhost/balcony' type='chat' id='1'><body>hi</body></message>")
		juliet.Expect("<message from='romeo@localhost/orchard' to='juliet@localhost' type='chat' id='2'><body>there</body></message>")
		juliet.Send("<message to='romeo@localhost/orchard' type='chat' id='3'><body>you</body></message>")
		romeo.Expect("<message from='juliet@localhost/balcony' to='romeo@localhost/orchard' type='chat' id='3'><body>you</body></message>")
	}
	large := strings.Repeat("x", 200_000)
	romeo.Send("<message to='juliet@localhost/balcony'><body>" + large + "</body></message>")
	juliet.Expect("<message from='romeo@localhost/orchard' to='juliet@localhost/balcony'><body>" + large + "</body></message>")
	romeo.Close()
	s.Eventually("the end of the session", func() bool { return !s.Available("romeo@localhost/orchard") })
}

// A message in an answer that the client does not have for sure (XEP-0124 §9, §14.3) goes to the account's next session, although the archive has it.
func TestBOSHUnacknowledgedWaits(t *testing.T) {
	s := xmpptest.New(t, xmpptest.Config(xmpptest.Archive))
	s.Account("juliet@localhost")
	p := newPoster(t, s)
	p.create("wait='0' hold='1'")
	full := p.signIn("juliet")
	p.next("", "<presence/>")
	romeo := s.Client("romeo@localhost/orchard")
	for _, id := range []string{"1", "2"} {
		romeo.Send("<message to='juliet@localhost' type='chat' id='" + id + "'><body>hi</body></message>")
		romeo.Sync()
		got := ""
		s.Eventually("message "+id, func() bool { // the request that brings it acknowledges what the answer before it had
			w := p.next("", "")
			got = w.Inner
			return strings.Contains(w.Inner, "<message ")
		})
		if !strings.Contains(got, "id='"+id+"'") {
			t.Fatalf("%s, want message %s", got, id)
		}
	}
	if _, _, err := s.Accounts().Kick(t.Context(), jid.MustParse(full), false); err != nil {
		t.Fatal(err)
	}
	juliet := s.Client("juliet@localhost/balcony")
	juliet.Send("<presence/>")
	juliet.Sync()
	var ids []string
	for _, e := range juliet.Take() {
		for _, a := range e.Attrs {
			if e.Local == "message" && a.Name == "id" {
				ids = append(ids, a.Value)
			}
		}
	}
	if strings.Join(ids, " ") != "2" {
		t.Errorf("the next session gets %q, want message 2", ids)
	}
}

// poster sends bodies as the test has them.
type poster struct {
	t      *testing.T
	url    string
	client *http.Client
	sid    string
	rid    int
}

func newPoster(t *testing.T, s *xmpptest.Server) *poster {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(transport.CloseIdleConnections)
	return &poster{t: t, url: "https://" + s.Addr("https").String() + "/http-bind", client: &http.Client{Transport: transport, Timeout: xmpptest.Patience}, rid: 1573741820}
}

type wrapper struct {
	XMLName xml.Name
	Attrs   []xml.Attr `xml:",any,attr"`
	Inner   string     `xml:",innerxml"`
	text    string
}

func (w wrapper) attr(name string) string {
	for _, a := range w.Attrs {
		if a.Name.Local == name && a.Name.Space != "xmlns" {
			return a.Value
		}
	}
	return ""
}

func (p *poster) post(body string) (wrapper, *http.Response) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.url, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		p.t.Error(err)
		return wrapper{}, &http.Response{}
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Error(err)
	}
	w := wrapper{text: string(b)}
	if resp.StatusCode == http.StatusOK {
		if err := xml.Unmarshal(b, &w); err != nil || w.XMLName != (xml.Name{Space: xmpptest.NSBody, Local: "body"}) {
			p.t.Errorf("answer %q: %v", b, err)
		}
		if resp.ContentLength != int64(len(b)) {
			p.t.Errorf("Content-Length %d of %d", resp.ContentLength, len(b)) // XEP-0124 §5
		}
	}
	return w, resp
}

// body makes a request of the session.
func (p *poster) body(rid int, attrs, content string) string {
	return fmt.Sprintf("<body rid='%d' sid='%s' %s xmlns='%s' xmlns:xmpp='urn:xmpp:xbosh'>%s</body>", rid, p.sid, attrs, xmpptest.NSBody, content)
}

// create begins a session.
func (p *poster) create(attrs string) wrapper {
	p.t.Helper()
	w, resp := p.post(fmt.Sprintf("<body rid='%d' to='localhost' ver='1.6' xml:lang='en' xmpp:version='1.0' %s xmlns='%s' xmlns:xmpp='urn:xmpp:xbosh'/>", p.rid, attrs, xmpptest.NSBody))
	if resp.StatusCode != http.StatusOK || w.attr("sid") == "" {
		p.t.Fatalf("session creation: %d %s", resp.StatusCode, w.text)
	}
	p.sid = w.attr("sid")
	return w
}

// next sends the next request.
func (p *poster) next(attrs, content string) wrapper {
	p.t.Helper()
	p.rid++
	w, _ := p.post(p.body(p.rid, attrs, content))
	return w
}

// signIn logs in with SASL2 and Bind 2.
func (p *poster) signIn(user string) (full string) {
	p.t.Helper()
	w := p.next("", "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>"+base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+user))+
		"</initial-response><bind xmlns='urn:xmpp:bind:0'/></authenticate>")
	_, after, _ := strings.Cut(w.Inner, "<authorization-identifier>")
	full, _, _ = strings.Cut(after, "</authorization-identifier>")
	if full == "" || !strings.Contains(w.Inner, "<stream:features ") {
		p.t.Fatalf("login: %s", w.text)
	}
	return full
}

// is checks a terminal binding condition.
func (w wrapper) is(t *testing.T, condition string) {
	t.Helper()
	if w.attr("type") != "terminate" || w.attr("condition") != condition {
		t.Errorf("answer %s, want %s", w.text, condition)
	}
}

// TestBOSHCreation: XEP-0124 §7, XEP-0206 §2.
func TestBOSHCreation(t *testing.T) {
	s := xmpptest.New(t)
	seen := make(map[string]bool)
	for _, tt := range []struct {
		attrs, wait, hold, requests, version, content string
	}{
		{"wait='30' hold='1'", "30", "1", "2", "1.6", "text/xml; charset=utf-8"},
		{"wait='3600' hold='9' content='text/html'", "60", "2", "3", "1.6", "text/xml; charset=utf-8"}, // no answer is ever a page
		{"wait='0' hold='1' content='text/plain'", "0", "0", "1", "1.6", "text/plain; charset=utf-8"},
		{"wait='60' hold='0' content='application/xml&#13;&#10;X: y'", "0", "0", "1", "1.6", "text/xml; charset=utf-8"},
		{"route='xmpp:example.com:9999' wait='nonsense' secure='true'", "60", "1", "2", "1.6", "text/xml; charset=utf-8"},
		{"stream='x'", "60", "1", "2", "1.6", "text/xml; charset=utf-8"},
	} {
		p := newPoster(t, s)
		w, resp := p.post(fmt.Sprintf("<body rid='1573741820' to='localhost' ver='1.6' ack='1' xmpp:version='1.0' %s xmlns='%s' xmlns:xmpp='urn:xmpp:xbosh'/>", tt.attrs, xmpptest.NSBody))
		for name, want := range map[string]string{"wait": tt.wait, "hold": tt.hold, "requests": tt.requests, "ver": tt.version, "from": "localhost", "ack": "1573741820",
			"restartlogic": "true", "version": "1.0", "polling": "2", "maxpause": "120", "stream": ""} {
			if got := w.attr(name); got != want {
				t.Errorf("%s: %s='%s', want '%s'", tt.attrs, name, got, want)
			}
		}
		if sid := w.attr("sid"); len(sid) < 32 || seen[sid] {
			t.Errorf("sid %q", sid)
		} else {
			seen[sid] = true
		}
		if got := resp.Header.Get("Content-Type"); got != tt.content {
			t.Errorf("%s: Content-Type %q, want %q", tt.attrs, got, tt.content)
		}
		if !strings.HasPrefix(w.Inner, "<stream:features ") || strings.Contains(w.Inner, "xmpp-tls") || strings.Contains(w.Inner, "-PLUS") || !strings.Contains(w.Inner, "<mechanism>SCRAM-SHA-256</mechanism>") {
			t.Errorf("features %s", w.Inner)
		}
	}
	for _, tt := range []struct {
		body, condition string
		status          int
	}{
		{"<body ver='1.6' to='localhost' xmlns='http://jabber.org/protocol/httpbind'/>", "bad-request", 200}, // no rid
		{"<body ver='1.6' rid='9007199254740992' to='localhost' xmlns='http://jabber.org/protocol/httpbind'/>", "bad-request", 200},
		{"<body ver='1.6' rid='-1' to='localhost' xmlns='http://jabber.org/protocol/httpbind'/>", "bad-request", 200},
		{"<body ver='1.6' rid='1' xmlns='http://jabber.org/protocol/httpbind'/>", "improper-addressing", 200},
		{"<body ver='1.6' rid='1' to='example.org' xmlns='http://jabber.org/protocol/httpbind'/>", "host-unknown", 200},
		{"<body ver='1.6' rid='1' to='localhost' sid='0123456789abcdef' xmlns='http://jabber.org/protocol/httpbind'/>", "item-not-found", 200},
		{"<body ver='1.6' rid='1' to='localhost' xmlns='http://jabber.org/protocol/httpbind'>", "bad-request", 200},
		{"<body ver='1.6' rid='1' to='localhost' xmlns='http://jabber.org/protocol/httpbind'>text</body>", "bad-request", 200},
		{"<body ver='1.6' rid='1' to='localhost' xmlns='http://jabber.org/protocol/httpbind'><!-- x --></body>", "bad-request", 200},
		{"<!DOCTYPE x [<!ENTITY y 'z'>]><body ver='1.6' rid='1' to='localhost' xmlns='http://jabber.org/protocol/httpbind'/>", "bad-request", 200},
		{"<body ver='1.6' rid='1' to='localhost'/>", "bad-request", 200},
		{"", "bad-request", 200},
		{"not XML", "bad-request", 200},
		{"<body ver='1.6' rid='1' to='localhost' xmlns='http://jabber.org/protocol/httpbind'><x xmlns='y'>" + strings.Repeat("x", 20_000) + "</x></body>", "policy-violation", 200},
		// A client that says no version is of the first kind: XEP-0124 §17.1.
		{"<body to='localhost' xmlns='http://jabber.org/protocol/httpbind'/>", "", 400},
		{"<body rid='1' to='localhost' xmlns='http://jabber.org/protocol/httpbind'><x xmlns='y'>" + strings.Repeat("x", 20_000) + "</x></body>", "", 403},
	} {
		w, resp := newPoster(t, s).post(tt.body)
		if resp.StatusCode != tt.status {
			t.Errorf("%.80s: %d, want %d", tt.body, resp.StatusCode, tt.status)
		}
		if tt.status == 200 {
			w.is(t, tt.condition)
		}
	}
	s.Eventually("the end of all but the sessions that were begun", func() bool { return connections(t, s) == len(seen) })
}

// TestBOSHStream: XEP-0206 §4 and §5, with its examples.
func TestBOSHStream(t *testing.T) {
	s := xmpptest.New(t)
	s.Account("romeo@localhost")
	p := newPoster(t, s)
	p.create("")
	plain := base64.StdEncoding.EncodeToString([]byte("\x00romeo\x00romeo"))
	if w := p.next("", "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>"+plain+"</auth>"); w.Inner != "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>" {
		t.Fatal(w.text)
	}
	w := p.next("to='localhost' xml:lang='en' xmpp:restart='true'", "<message to='romeo@localhost'><body>passed over</body></message>")
	if !strings.HasPrefix(w.Inner, "<stream:features ") || !strings.Contains(w.Inner, "urn:ietf:params:xml:ns:xmpp-bind") || w.attr("sid") != "" {
		t.Fatal(w.text)
	}
	w = p.next("", "<iq id='bind_1' type='set' xmlns='jabber:client'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>httpclient</resource></bind></iq>")
	if w.Inner != "<iq xmlns='jabber:client' type='result' id='bind_1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>romeo@localhost/httpclient</jid></bind></iq>" {
		t.Fatal(w.text)
	}
	// No second stream in a session that did not offer one: XEP-0124 §16.2.
	w = p.next("to='example.org' stream='other'", "<iq id='p' type='get' xmlns='jabber:client'><ping xmlns='urn:xmpp:ping'/></iq>")
	if !strings.Contains(w.Inner, "type='result' id='p'") {
		t.Fatal(w.text)
	}
	// A stream error: XEP-0206 §7.
	w = p.next("", "<nonsense xmlns='urn:x'/>")
	if w.is(t, "remote-stream-error"); w.Inner != "<stream:error xmlns:stream='http://etherx.jabber.org/streams'><unsupported-stanza-type xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>" {
		t.Error(w.text)
	}
	s.Eventually("the end of the session", func() bool { return connections(t, s) == 0 })
	p.next("", "").is(t, "item-not-found")
}

// TestBOSHRequestIDs: XEP-0124 §14.
func TestBOSHRequestIDs(t *testing.T) {
	s := xmpptest.New(t)
	s.Account("romeo@localhost")
	begin := func(t *testing.T, attrs string) (*poster, string) {
		p := newPoster(t, s)
		p.create(attrs)
		return p, p.signIn("romeo")
	}
	iq := func(id string) string {
		return "<iq id='" + id + "' type='get' xmlns='jabber:client'><ping xmlns='urn:xmpp:ping'/></iq>"
	}
	t.Run("a resent request gets the same answer, and nothing is done twice", func(t *testing.T) {
		p, full := begin(t, "")
		sent := "<message to='" + full + "' id='once' xmlns='jabber:client'><body>x</body></message>"
		first := p.next("", sent)
		if strings.Count(first.Inner, "id='once'") != 1 {
			t.Fatal(first.text)
		}
		for range 3 {
			again, _ := p.post(p.body(p.rid, "", sent))
			if again.text != first.text {
				t.Errorf("%s, want %s", again.text, first.text)
			}
		}
		if w := p.next("", iq("1")); strings.Contains(w.Inner, "once") || !strings.Contains(w.Inner, "id='1'") {
			t.Error(w.text)
		}
	})
	t.Run("an answer that is no longer kept", func(t *testing.T) {
		p, _ := begin(t, "")
		old := p.rid
		for i := range 5 {
			p.next("", iq(fmt.Sprint(i)))
		}
		w, _ := p.post(p.body(old, "", ""))
		w.is(t, "item-not-found")
		p.next("", "").is(t, "item-not-found") // the session is over
	})
	t.Run("too large", func(t *testing.T) {
		p, _ := begin(t, "")
		w, _ := p.post(p.body(p.rid+3, "", iq("1"))) // two requests: the window is two
		w.is(t, "item-not-found")
		p.next("", "").is(t, "item-not-found")
	})
	t.Run("out of order", func(t *testing.T) {
		p, full := begin(t, "")
		second := make(chan wrapper)
		go func() {
			w, _ := p.post(p.body(p.rid+2, "", "<message to='"+full+"' id='b' xmlns='jabber:client'><body>x</body></message>"))
			second <- w
		}()
		a, _ := p.post(p.body(p.rid+1, "", "<message to='"+full+"' id='a' xmlns='jabber:client'><body>x</body></message>"))
		all := a.Inner
		if !strings.Contains(all, "id='b'") {
			all += (<-second).Inner
		} else { // both came with the first answer: the second request waits
			p.rid += 2
			p.next("type='terminate'", "")
			<-second
		}
		if i, k := strings.Index(all, "id='a'"), strings.Index(all, "id='b'"); i < 0 || k < i {
			t.Errorf("order: %s", all)
		}
	})
	t.Run("repeated while it waits", func(t *testing.T) {
		p, full := begin(t, "")
		p.rid++
		first := make(chan wrapper)
		go func() {
			w, _ := p.post(p.body(p.rid, "", ""))
			first <- w
		}()
		// The repetition is the second of the two, whichever comes first: the other one is told to try again.
		again := make(chan wrapper)
		go func() {
			w, _ := p.post(p.body(p.rid, "", ""))
			again <- w
		}()
		var w wrapper
		rest := again
		select {
		case w = <-first:
		case w = <-again:
			rest = first
		}
		if w.attr("type") != "error" || w.attr("condition") != "" { // XEP-0124 §17.3
			t.Errorf("%s, want a recoverable error", w.text)
		}
		juliet := s.Client("juliet@localhost/balcony")
		juliet.Send("<message to='" + full + "' id='later'><body>x</body></message>")
		if w := <-rest; !strings.Contains(w.Inner, "id='later'") {
			t.Errorf("%s", w.text)
		}
		juliet.Close()
	})
	t.Run("repeated too often", func(t *testing.T) {
		p, _ := begin(t, "")
		for range 10 {
			if w, _ := p.post(p.body(p.rid, "", "")); w.attr("type") == "terminate" {
				t.Fatal(w.text)
			}
		}
		w, _ := p.post(p.body(p.rid, "", ""))
		w.is(t, "policy-violation")
	})
	t.Run("one more request ends the one that is held", func(t *testing.T) {
		p, _ := begin(t, "")
		held := make(chan wrapper)
		go func() {
			w, _ := p.post(p.body(p.rid+1, "", ""))
			held <- w
		}()
		w, _ := p.post(p.body(p.rid+2, "", iq("1")))
		h := <-held
		if !strings.Contains(h.Inner+w.Inner, "id='1'") {
			t.Errorf("%s %s", h.text, w.text)
		}
	})
}

// TestBOSHKeys: XEP-0124 §15.
func TestBOSHKeys(t *testing.T) {
	s := xmpptest.New(t)
	keys := func(seed string, n int) []string { // K(n) first
		var all []string
		for range n {
			sum := sha1.Sum([]byte(seed))
			seed = hex.EncodeToString(sum[:])
			all = append([]string{seed}, all...)
		}
		return all
	}
	k := keys("seed", 4)
	begin := func() *poster {
		p := newPoster(t, s)
		p.create("newkey='" + k[0] + "'")
		return p
	}
	sasl := "<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"
	p := begin()
	if w := p.next("key='"+k[1]+"'", sasl); w.attr("type") != "" {
		t.Fatal(w.text)
	}
	if w, _ := p.post(p.body(p.rid, "key='"+strings.ToUpper(k[1])+"'", sasl)); w.attr("type") != "" { // §15.2: case does not count
		t.Error(w.text)
	}
	again := keys("another", 3)
	if w := p.next("key='"+k[2]+"' newkey='"+again[0]+"'", sasl); w.attr("type") != "" {
		t.Error(w.text)
	}
	if w := p.next("key='"+again[1]+"'", sasl); w.attr("type") != "" {
		t.Error(w.text)
	}
	p.next("key='"+again[1]+"'", sasl).is(t, "item-not-found")
	p.next("key='"+again[2]+"'", sasl).is(t, "item-not-found") // the session is over
	begin().next("", sasl).is(t, "item-not-found")
	begin().next("key=''", sasl).is(t, "item-not-found")
	begin().next("key='"+k[2]+"'", sasl).is(t, "item-not-found")
	// Who repeats a request to get its answer has to know the key too.
	p = begin()
	p.next("key='"+k[1]+"'", sasl)
	w, _ := p.post(p.body(p.rid, "", sasl))
	w.is(t, "item-not-found")
}

// TestBOSHPolling: XEP-0124 §12.
func TestBOSHPolling(t *testing.T) {
	s := xmpptest.New(t)
	s.Account("romeo@localhost")
	p := newPoster(t, s)
	p.create("hold='0'")
	full := p.signIn("romeo")
	for range 3 { // with something to say as often as it likes
		if w := p.next("", "<presence xmlns='jabber:client' to='"+full+"'/>"); w.attr("type") != "" {
			t.Fatal(w.text)
		}
	}
	var w wrapper
	for range 3 {
		if w = p.next("", ""); w.attr("type") == "terminate" {
			break
		}
	}
	w.is(t, "policy-violation")
}

// TestBOSHPause: XEP-0124 §10.
func TestBOSHPause(t *testing.T) {
	s := xmpptest.New(t)
	s.Account("romeo@localhost")
	p := newPoster(t, s)
	p.create("")
	full := p.signIn("romeo")
	held := make(chan wrapper)
	go func() {
		w, _ := p.post(p.body(p.rid+1, "", ""))
		held <- w
	}()
	w, _ := p.post(p.body(p.rid+2, "pause='100'", "<message to='"+full+"' id='1' xmlns='jabber:client'><body>x</body></message>"))
	if w.Inner != "" || w.attr("type") != "" {
		t.Errorf("the answer to a pause: %s", w.text)
	}
	first := <-held
	p.rid += 2
	if w := p.next("", ""); !strings.Contains(first.Inner+w.Inner, "id='1'") {
		t.Errorf("%s %s", first.text, w.text)
	}
	if w := p.next("", "<iq id='2' type='get' xmlns='jabber:client'><ping xmlns='urn:xmpp:ping'/></iq>"); !strings.Contains(w.Inner, "id='2'") {
		t.Error(w.text)
	}
}

// TestBOSHTerminate: XEP-0124 §13.
func TestBOSHTerminate(t *testing.T) {
	s := xmpptest.New(t)
	juliet := s.Client("juliet@localhost/balcony")
	s.Account("romeo@localhost")
	p := newPoster(t, s)
	p.create("")
	p.signIn("romeo")
	held := make(chan wrapper)
	go func() {
		w, _ := p.post(p.body(p.rid+1, "", ""))
		held <- w
	}()
	w, _ := p.post(p.body(p.rid+2, "type='terminate'", "<message to='juliet@localhost/balcony' id='bye' xmlns='jabber:client'><body>x</body></message><presence type='unavailable' xmlns='jabber:client'/>"))
	h := <-held
	if h.attr("type")+w.attr("type") != "terminate" || h.attr("condition")+w.attr("condition") != "" || h.Inner+w.Inner != "" {
		t.Errorf("%s %s", h.text, w.text) // one of them, the others are empty
	}
	if e := juliet.Read(); e.Local != "message" {
		t.Error(e)
	}
	w, _ = p.post(p.body(p.rid+3, "", ""))
	w.is(t, "item-not-found")
}

// TestBOSHLimits: before login and after it.
func TestBOSHLimits(t *testing.T) {
	s := xmpptest.New(t)
	s.Account("romeo@localhost")
	p := newPoster(t, s)
	p.create("")
	p.next("", "<x xmlns='urn:x'>"+strings.Repeat("x", 13_000)+"</x>").is(t, "policy-violation")
	p = newPoster(t, s)
	p.create("")
	p.next("", strings.Repeat("<x xmlns='y'/>", 200)).is(t, "policy-violation") // more elements than before login make sense
	p = newPoster(t, s)
	p.create("")
	full := p.signIn("romeo")
	message := func(n int) string {
		return "<message to='" + full + "' xmlns='jabber:client'><body>" + strings.Repeat("x", n) + "</body></message>"
	}
	if w := p.next("", message(200_000)); len(w.Inner) < 200_000 {
		t.Error(w.text)
	}
	p.next("", message(300_000)).is(t, "policy-violation")
	p.next("", "").is(t, "item-not-found")
}

// TestBOSHCutBodies: however often a large request is cut on its way, the session goes on with the whole one.
func TestBOSHCutBodies(t *testing.T) {
	s := xmpptest.New(t)
	s.Account("romeo@localhost")
	p := newPoster(t, s)
	p.create("")
	full := p.signIn("romeo")
	message := "<message to='" + full + "' xmlns='jabber:client'><body>" + strings.Repeat("x", 50_000) + "</body></message>"
	body := p.body(p.rid+1, "", message)
	for range 10 {
		c, err := net.Dial("tcp", s.Addr("http").String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(xmpptest.Patience))
		_, _ = fmt.Fprintf(c, "POST /http-bind HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body[:20_000])
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c) // the server has seen the end
		_ = c.Close()
	}
	if w := p.next("", message); len(w.Inner) < 50_000 {
		t.Error(w.text)
	}
}

// TestBOSHOrigins: pages of allowed origins may use it, without credentials, and nobody else's.
func TestBOSHOrigins(t *testing.T) {
	s := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Web.Origins = []string{"https://chat.example.org"} }))
	ask := func(method, origin string, more ...string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Addr("http").String()+"/http-bind", strings.NewReader("<body rid='1' ver='1.6' to='localhost' xmlns='"+xmpptest.NSBody+"'/>"))
		if err != nil {
			t.Fatal(err)
		}
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		for i := 0; i < len(more); i += 2 {
			req.Header.Set(more[i], more[i+1])
		}
		transport := new(http.Transport)
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport, Timeout: xmpptest.Patience}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp
	}
	for _, tt := range []struct {
		method, origin string
		status         int
	}{
		{"POST", "https://chat.example.org", 200}, {"OPTIONS", "https://chat.example.org", 204}, {"POST", "", 200},
		{"POST", "https://evil.example", 403}, {"OPTIONS", "https://evil.example", 403}, {"GET", "", 405}, {"PUT", "", 405},
	} {
		resp := ask(tt.method, tt.origin)
		if resp.StatusCode != tt.status {
			t.Errorf("%s from %q: %d, want %d", tt.method, tt.origin, resp.StatusCode, tt.status)
		}
		allowed := resp.Header.Get("Access-Control-Allow-Origin")
		if want := map[bool]string{true: tt.origin}[tt.status < 300]; allowed != want || resp.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s from %q: %v", tt.method, tt.origin, resp.Header)
		}
		if tt.method == "OPTIONS" && tt.status == 204 && (!strings.Contains(resp.Header.Get("Access-Control-Allow-Methods"), "POST") || resp.Header.Get("Access-Control-Allow-Headers") != "Content-Type") {
			t.Errorf("preflight: %v", resp.Header)
		}
	}
	if resp := ask("POST", "", "X-Forwarded-Proto", "http"); resp.StatusCode != 403 {
		t.Errorf("in clear behind a proxy: %d", resp.StatusCode)
	}
}

func TestBOSHShutdown(t *testing.T) {
	s := xmpptest.New(t)
	s.Account("romeo@localhost")
	p := newPoster(t, s)
	p.create("")
	p.signIn("romeo")
	held := make(chan wrapper)
	p.rid++
	for range 2 { // one of them repeats the other, which says that the server holds it
		go func() {
			w, _ := p.post(p.body(p.rid, "", ""))
			held <- w
		}()
	}
	if w := <-held; w.attr("type") != "error" {
		t.Fatal(w.text)
	}
	stopped := make(chan error)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), xmpptest.Patience)
		defer cancel()
		stopped <- s.Stop(ctx)
	}()
	w := <-held
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	w.is(t, "system-shutdown")
}

// TestBOSHResumption: the session goes on over a WebSocket (XEP-0198 §5), while the server still waits for requests.
func TestBOSHResumption(t *testing.T) {
	s := xmpptest.New(t)
	juliet := s.Client("juliet@localhost/balcony")
	romeo := s.BOSHClient("romeo@localhost/orchard")
	romeo.Online()
	romeo.Send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	romeo.Expect("<enabled xmlns='urn:xmpp:sm:3' id='{sm}' resume='true' max='900'/>")
	romeo.Disconnect()
	juliet.Send("<message to='romeo@localhost/orchard' type='chat' id='1'><body>x</body></message>")
	juliet.Sync()
	over, _ := s.LoginWebSocket("romeo@localhost")
	over.Resumed(romeo)
	over.Send("<resume xmlns='urn:xmpp:sm:3' previd='{sm}' h='0'/>")
	over.Expect("<resumed xmlns='urn:xmpp:sm:3' previd='{sm}' h='0'/>")
	over.Expect("<message from='juliet@localhost/balcony' to='romeo@localhost/orchard' type='chat' id='1'><body>x</body></message>")
}

// TestBOSHLossyNetwork: whatever connections are cut and requests are repeated or overtake each other, each stanza comes once and in order, to the
// server and to the client (XEP-0124 §14.2, §14.3).
func TestBOSHLossyNetwork(t *testing.T) {
	s := xmpptest.New(t)
	s.Account("romeo@localhost")
	for seed := range uint64(2) {
		for _, attrs := range []string{"wait='1'", "wait='1' ack='1'"} {
			t.Run(fmt.Sprintf("%d %s", seed, attrs), func(t *testing.T) {
				t.Parallel()
				random := rand.New(rand.NewPCG(seed, 1))
				p := newPoster(t, s)
				p.create(attrs)
				full := p.signIn("romeo")
				sent := 0
				answers := make(map[int]string) // by rid
				content := func() string {
					var b strings.Builder
					for range 1 + random.IntN(2) {
						fmt.Fprintf(&b, "<message to='%s' id='m%d.' xmlns='jabber:client'><body>x</body></message>", full, sent)
						sent++
					}
					return b.String()
				}
				// try sends a request, and cuts its connection a while later unless that is 0.
				var cutOff sync.WaitGroup
				try := func(body string, cut time.Duration) (string, bool) {
					raw, err := net.Dial("tcp", s.Addr("https").String())
					if err != nil {
						t.Error(err)
						return "", true
					}
					conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
					_, err = fmt.Fprintf(conn, "POST /http-bind HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
					if err != nil {
						t.Error(err)
					}
					answer := make(chan string, 1)
					cutOff.Go(func() {
						defer func() { _ = raw.Close() }()
						defer close(answer)
						resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
						if err != nil {
							return
						}
						defer func() { _ = resp.Body.Close() }()
						if b, err := io.ReadAll(resp.Body); err == nil {
							answer <- string(b)
						}
					})
					var over <-chan time.Time
					if cut > 0 {
						over = time.After(cut)
					}
					select {
					case a, ok := <-answer:
						if strings.Contains(a, "terminate") {
							t.Errorf("%s", a)
						}
						return a, ok && !strings.Contains(a, "type='error'")
					case <-over:
						_ = raw.(*net.TCPConn).CloseWrite()
						return "", false
					}
				}
				insist := func(body string, cuts []time.Duration) string {
					for _, cut := range cuts {
						if w, ok := try(body, cut); ok {
							return w
						}
					}
					for range 5 {
						if w, ok := try(body, 0); ok {
							return w
						}
					} // XEP-0124 §17.3: the request that was cut came after its repetition
					t.Errorf("no answer to %s", body)
					return ""
				}
				cuts := func() (list []time.Duration) {
					for range random.IntN(4) {
						list = append(list, time.Duration(1+random.IntN(3000))*time.Microsecond)
					}
					return list
				}
				for range 12 {
					ack := ""
					if strings.Contains(attrs, "ack") {
						ack = fmt.Sprintf("ack='%d'", p.rid)
					}
					if random.IntN(3) > 0 {
						p.rid++
						answers[p.rid] = insist(p.body(p.rid, ack, content()), cuts())
						cutOff.Wait() // a copy that came much later would end the session: XEP-0124 §14.3
						continue
					}
					first, second := p.body(p.rid+1, ack, content()), p.body(p.rid+2, ack, content())
					firstCuts, secondCuts := cuts(), cuts()
					early := make(chan string)
					go func() { early <- insist(second, secondCuts) }()
					if random.IntN(2) == 0 {
						_, _ = try(first, 50*time.Microsecond)
					}
					answers[p.rid+1] = insist(first, firstCuts)
					answers[p.rid+2] = <-early
					p.rid += 2
					cutOff.Wait()
				}
				p.rid++
				answers[p.rid], _ = try(p.body(p.rid, "", "<iq id='end' type='get' xmlns='jabber:client'><ping xmlns='urn:xmpp:ping'/></iq>"), 0)
				for range 5 { // what had been meant for a request that was cut comes first
					if strings.Contains(answers[p.rid], "id='end'") {
						break
					}
					p.rid++
					answers[p.rid], _ = try(p.body(p.rid, "", ""), 0)
				}
				all := ""
				for _, rid := range slices.Sorted(maps.Keys(answers)) {
					all += answers[rid]
				}
				got := regexp.MustCompile(`id='m(\d+)\.'`).FindAllStringSubmatch(all, -1)
				for i, m := range got {
					if m[1] != fmt.Sprint(i) {
						t.Fatalf("message %s comes in place %d", m[1], i)
					}
				}
				if len(got) != sent || !strings.Contains(all, "id='end'") {
					t.Errorf("%d of %d messages", len(got), sent)
				}
			})
		}
	}
}
