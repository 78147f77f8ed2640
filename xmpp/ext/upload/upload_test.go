package upload_test

import (
	"context"
	"crypto/tls"
	"encoding/xml"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
)

func TestTranscripts(t *testing.T) { xmpptest.Transcripts(t, "testdata/*.txt") }

// XEP-0363 §3, examples 1 and 2: the service is among the domain's items.
func TestDomainListsTheService(t *testing.T) {
	c := xmpptest.New(t).Client("romeo@localhost/garden")
	c.Send("<iq id='step_01' to='localhost' type='get'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>")
	if e := c.Read(); !strings.Contains(e.String(), "<item jid='upload.localhost' name='HTTP File Upload'/>") {
		t.Errorf("items: %s", e)
	}
}

// service is a server with HTTP clients.
type service struct {
	*xmpptest.Server
	t      *testing.T
	romeo  *xmpptest.Client
	client *http.Client // speaks HTTP/2
	old    *http.Client // speaks HTTP/1.1
	ids    int
}

func start(t *testing.T, change func(*config.Upload)) *service {
	s := &service{t: t}
	s.Server = xmpptest.New(t, xmpptest.Config(func(c *config.Config) {
		if change != nil {
			change(&c.Upload)
		}
	}))
	trust := &tls.Config{InsecureSkipVerify: true} // a certificate made for this test
	h2, h1 := &http.Transport{TLSClientConfig: trust, ForceAttemptHTTP2: true}, &http.Transport{TLSClientConfig: trust.Clone(), TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	s.client, s.old = &http.Client{Transport: h2, Timeout: xmpptest.Patience}, &http.Client{Transport: h1, Timeout: xmpptest.Patience}
	t.Cleanup(func() { h2.CloseIdleConnections(); h1.CloseIdleConnections() })
	s.romeo = s.Client("romeo@localhost/garden")
	return s
}

// request sends a request for a slot and returns the answer.
func (s *service) request(c *xmpptest.Client, attrs, purpose string) string {
	s.t.Helper()
	s.ids++
	c.Send(fmt.Sprintf("<iq type='get' id='slot-%d' to='upload.localhost'><request xmlns='urn:xmpp:http:upload:0' %s>%s</request></iq>", s.ids, attrs, purpose))
	return c.Read().String()
}

// slot gets a slot and returns its URLs.
func (s *service) slot(c *xmpptest.Client, attrs, purpose string) (put, get string) {
	s.t.Helper()
	var iq struct {
		Put struct {
			URL string `xml:"url,attr"`
		} `xml:"slot>put"`
		Get struct {
			URL string `xml:"url,attr"`
		} `xml:"slot>get"`
	}
	answer := s.request(c, attrs, purpose)
	if err := xml.Unmarshal([]byte(answer), &iq); err != nil || iq.Put.URL == "" || iq.Get.URL == "" {
		s.t.Fatalf("no slot: %v: %s", err, answer)
	}
	return iq.Put.URL, iq.Get.URL
}

// do makes a request and returns the answer with its body.
func (s *service) do(c *http.Client, method, url string, body io.Reader, header ...string) (*http.Response, string) {
	s.t.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, string(text)
}

func (s *service) status(want int, method, url, body string, header ...string) {
	s.t.Helper()
	var r io.Reader
	if method == http.MethodPut {
		r = strings.NewReader(body)
	}
	if resp, text := s.do(s.client, method, url, r, header...); resp.StatusCode != want {
		s.t.Errorf("%s: status %d, want %d: %q", method, resp.StatusCode, want, text)
	}
}

// files are the names of everything that lies on the disk.
func (s *service) files() (names []string) {
	s.t.Helper()
	if err := filepath.WalkDir(filepath.Join(s.Config.Data, "uploads"), func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			names = append(names, e.Name())
		}
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	return names
}

// XEP-0363 §4 and §8: a file goes up and comes down, over HTTP/2 and HTTP/1.1 with TLS and over plain HTTP as behind a proxy.
func TestUploadAndDownload(t *testing.T) {
	s := start(t, nil)
	_, port, _ := strings.Cut(s.Addr("https").String(), ":")
	const body = "But, soft! what light through yonder window breaks?"
	for name, c := range map[string]*http.Client{"HTTP/2": s.client, "HTTP/1.1": s.old, "plain": s.client} {
		t.Run(name, func(t *testing.T) {
			put, get := s.slot(s.romeo, fmt.Sprintf("filename='très cool &amp; näive?#%%.jpg' size='%d' content-type='image/jpeg'", len(body)), "")
			if want := "https://localhost:" + port + "/upload/"; !strings.HasPrefix(get, want) || !strings.HasSuffix(get, "/tr%C3%A8s%20cool%20&%20n%C3%A4ive%3F%23%25.jpg") {
				t.Errorf("get URL %s", get)
			}
			if !strings.HasPrefix(put, get+"?") {
				t.Errorf("put URL %s does not belong to %s", put, get)
			}
			if name == "plain" {
				plain := strings.NewReplacer("https://localhost:"+port, "http://"+s.Addr("http").String())
				put, get = plain.Replace(put), plain.Replace(get)
			}
			s.status(http.StatusNotFound, http.MethodGet, get, "")
			resp, text := s.do(c, http.MethodPut, put, strings.NewReader(body), "Content-Type", "image/jpeg")
			if resp.StatusCode != http.StatusCreated || text != "" {
				t.Fatalf("PUT: %d %q", resp.StatusCode, text)
			}
			resp, text = s.do(c, http.MethodGet, get, nil)
			if resp.StatusCode != http.StatusOK || text != body {
				t.Errorf("GET: %d %q", resp.StatusCode, text)
			}
			etag := resp.Header.Get("ETag")
			for header, want := range map[string]string{
				"Content-Type": "image/jpeg", "Content-Length": fmt.Sprint(len(body)), "Content-Disposition": "", "X-Content-Type-Options": "nosniff",
				"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox", "Accept-Ranges": "bytes",
				"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "", "Referrer-Policy": "no-referrer",
			} {
				if got := resp.Header.Get(header); got != want {
					t.Errorf("%s: %q, want %q", header, got, want)
				}
			}
			if cc := resp.Header.Get("Cache-Control"); cc != "private, max-age=7776000, immutable" && cc != "private, max-age=7775999, immutable" {
				t.Errorf("Cache-Control: %q, want 90 days", cc)
			}
			resp, text = s.do(c, http.MethodHead, get, nil)
			if resp.StatusCode != http.StatusOK || text != "" || resp.ContentLength != int64(len(body)) {
				t.Errorf("HEAD: %d %q, length %d", resp.StatusCode, text, resp.ContentLength)
			}
			for _, tt := range []struct {
				header, value string
				status        int
				text, span    string
			}{
				{"If-None-Match", etag, 304, "", ""},
				{"If-None-Match", `"x"`, 200, body, ""},
				{"Range", "bytes=5-8", 206, body[5:9], fmt.Sprintf("bytes 5-8/%d", len(body))},
				{"Range", "bytes=-7", 206, body[len(body)-7:], fmt.Sprintf("bytes %d-%d/%d", len(body)-7, len(body)-1, len(body))},
				{"Range", "bytes=5-", 206, body[5:], fmt.Sprintf("bytes 5-%d/%d", len(body)-1, len(body))},
				{"Range", "bytes=900-", 416, "", fmt.Sprintf("bytes */%d", len(body))},
				{"Range", "bytes=0-1,3-4", 200, body, ""}, // one range at most
				{"Range", "bytes=0-,0-,0-,0-", 200, body, ""},
			} {
				resp, text := s.do(c, http.MethodGet, get, nil, tt.header, tt.value)
				if resp.StatusCode != tt.status || tt.status != 416 && text != tt.text || resp.Header.Get("Content-Range") != tt.span {
					t.Errorf("%s: %s: %d %q %q, want %d %q %q", tt.header, tt.value, resp.StatusCode, text, resp.Header.Get("Content-Range"), tt.status, tt.text, tt.span)
				}
			}
			s.status(http.StatusConflict, http.MethodPut, put, body, "Content-Type", "image/jpeg") // once
			// The name is for people.
			id := strings.Split(get, "/")[4]
			s.status(http.StatusOK, http.MethodGet, strings.Split(get, id)[0]+id+"/other.name", "")
			s.status(http.StatusOK, http.MethodGet, strings.Split(get, id)[0]+id, "")
		})
	}
	if names := s.files(); len(names) != 3 || len(names[0]) != 26 {
		t.Errorf("on the disk: %v", names)
	}
}

// XEP-0363 §8: what does not keep to its slot is rejected, nothing of it stays, and the slot can still be used.
func TestPutKeepsToItsSlot(t *testing.T) {
	s := start(t, nil)
	const body = "0123456789"
	put, get := s.slot(s.romeo, "filename='a.txt' size='10' content-type='text/plain; charset=utf-8'", "")
	_, other := s.slot(s.romeo, "filename='a.txt' size='10'", "")
	forged := put[:len(put)-4] + "AAAA"
	token := put[strings.Index(put, "?"):]
	for _, tt := range []struct {
		name, url, body string
		chunked         bool
		typ             string
		want            int
	}{
		{"no slot", get, body, false, "text/plain; charset=utf-8", 403},
		{"an empty slot", get + "?slot=", body, false, "text/plain; charset=utf-8", 403},
		{"a forged slot", forged, body, false, "text/plain; charset=utf-8", 403},
		{"the slot of another file", other + token, body, false, "text/plain; charset=utf-8", 403},
		{"no id", strings.Replace(get, strings.Split(get, "/")[4], "x", 1) + token, body, false, "text/plain; charset=utf-8", 403},
		{"too small", put, body[1:], false, "text/plain; charset=utf-8", 400},
		{"empty", put, "", false, "text/plain; charset=utf-8", 400},
		{"too large", put, body + "x", false, "text/plain; charset=utf-8", 413},
		{"without its length", put, body, true, "text/plain; charset=utf-8", 411},
		{"another type", put, body, false, "text/html", 415},
		{"another charset", put, body, false, "text/plain", 415},
		{"no type", put, body, false, "", 415},
		{"a type that is none", put, body, false, "text/plain; charset", 415},
	} {
		for _, c := range []*http.Client{s.client, s.old} {
			var r io.Reader = strings.NewReader(tt.body)
			if tt.chunked {
				r = io.MultiReader(r)
			}
			header := []string{}
			if tt.typ != "" {
				header = []string{"Content-Type", tt.typ}
			}
			if resp, _ := s.do(c, http.MethodPut, tt.url, r, header...); resp.StatusCode != tt.want {
				t.Errorf("%s: status %d, want %d", tt.name, resp.StatusCode, tt.want)
			}
		}
		s.status(http.StatusNotFound, http.MethodGet, get, "")
	}
	if names := s.files(); len(names) != 0 {
		t.Errorf("on the disk: %v", names)
	}
	s.status(http.StatusCreated, http.MethodPut, put, body, "Content-Type", `TEXT/plain;charset="utf-8"`) // the same type, written otherwise
	resp, text := s.do(s.client, http.MethodGet, get, nil)
	if text != body || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" || resp.Header.Get("Content-Disposition") != "attachment" {
		t.Errorf("GET: %q %v", text, resp.Header)
	}
	// §8: without a type in either place it is some bytes.
	put, get = s.slot(s.romeo, "filename='a' size='10'", "")
	s.status(http.StatusCreated, http.MethodPut, put, body)
	if resp, _ := s.do(s.client, http.MethodGet, get, nil); resp.Header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("Content-Type: %q", resp.Header.Get("Content-Type"))
	}
}

// A client that goes away in the middle leaves nothing, and may try again.
func TestCutUploadLeavesNothing(t *testing.T) {
	s := start(t, nil)
	for _, c := range []*http.Client{s.client, s.old} {
		put, get := s.slot(s.romeo, "filename='a' size='1000000'", "")
		ctx, cancel := context.WithCancel(t.Context())
		reader, writer := io.Pipe()
		r, err := http.NewRequestWithContext(ctx, http.MethodPut, put, reader)
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = 1000000
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if resp, err := c.Do(r); err == nil {
				_ = resp.Body.Close()
				t.Errorf("an upload that was cut: %s", resp.Status)
			}
		}()
		if _, err := writer.Write(make([]byte, 300_000)); err != nil {
			t.Fatal(err)
		}
		s.Eventually("the upload's beginning", func() bool { return len(s.files()) == 1 })
		s.status(http.StatusConflict, http.MethodPut, put, strings.Repeat("x", 1000000)) // it is being used
		cancel()
		_ = writer.CloseWithError(io.ErrUnexpectedEOF)
		<-ended
		s.Eventually("the upload's end", func() bool { return len(s.files()) == 0 })
		s.status(http.StatusNotFound, http.MethodGet, get, "")
		s.Eventually("that the slot is free", func() bool {
			resp, _ := s.do(s.client, http.MethodPut, put, strings.NewReader(strings.Repeat("x", 1000000)))
			return resp.StatusCode == http.StatusCreated
		})
		s.status(http.StatusOK, http.MethodHead, get, "")
		s.RemoveAll()
	}
}

// RemoveAll deletes romeo's account with his files, and makes it again.
func (s *service) RemoveAll() {
	s.t.Helper()
	if err := s.Accounts().Delete(context.Background(), jid.MustParse("romeo@localhost")); err != nil {
		s.t.Fatal(err)
	}
	s.romeo.Disconnect()
	s.Eventually("the removal of the files", func() bool { return len(s.files()) == 0 })
	s.romeo = s.Client("romeo@localhost/garden")
}

// Security promise 22: deleting an account deletes its files, also one that is being uploaded; a slot of it is worth nothing to a later account of that name.
func TestDeletedAccountsFilesGo(t *testing.T) {
	s := start(t, nil)
	julia := s.Client("juliet@localhost/balcony")
	put, theirs := s.slot(julia, "filename='a' size='1'", "")
	s.status(http.StatusCreated, http.MethodPut, put, "x")
	put, get := s.slot(s.romeo, "filename='a' size='1'", "")
	s.status(http.StatusCreated, http.MethodPut, put, "x")
	unused, _ := s.slot(s.romeo, "filename='a' size='1'", "")
	if err := s.Accounts().Delete(context.Background(), jid.MustParse("romeo@localhost")); err != nil {
		t.Fatal(err)
	}
	s.status(http.StatusNotFound, http.MethodGet, get, "")
	s.status(http.StatusForbidden, http.MethodPut, unused, "x")
	s.Account("romeo@localhost") // of somebody else, who has not asked for a slot
	s.status(http.StatusForbidden, http.MethodPut, unused, "x")
	s.Eventually("the removal of the file", func() bool { return len(s.files()) == 1 })
	s.status(http.StatusOK, http.MethodGet, theirs, "")
}

// XEP-0363 §6: at the quota a slot is refused, with the time when there is room again; what was promised before it was reached is refused
// by HTTP (RFC 4331 §6).
func TestQuota(t *testing.T) {
	s := start(t, func(u *config.Upload) { u.Quota, u.MaxSize = 20000, 15000 })
	first, get := s.slot(s.romeo, "filename='a' size='12000'", "")
	second, _ := s.slot(s.romeo, "filename='a' size='12000'", "")
	s.status(http.StatusCreated, http.MethodPut, first, strings.Repeat("x", 12000))
	s.status(http.StatusInsufficientStorage, http.MethodPut, second, strings.Repeat("x", 12000))
	answer := s.request(s.romeo, "filename='a' size='8001'", "")
	for _, want := range []string{"type='wait'", "<resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>", "<retry xmlns='urn:xmpp:http:upload:0' stamp='"} {
		if !strings.Contains(answer, want) {
			t.Errorf("%s has no %s", answer, want)
		}
	}
	_, stamp, _ := strings.Cut(answer, "stamp='")
	at, err := time.Parse(time.RFC3339, stamp[:max(0, strings.IndexByte(stamp, '\''))])
	if wait := time.Until(at); err != nil || wait < 90*24*time.Hour-time.Minute || wait > 90*24*time.Hour+2*time.Second || !strings.HasSuffix(at.String(), "UTC") {
		t.Errorf("retry in %s, %v, want 90 days", wait, err)
	}
	s.slot(s.romeo, "filename='a' size='8000'", "")
	s.slot(s.Client("juliet@localhost/balcony"), "filename='a' size='12000'", "") // an account's own
	s.slot(s.romeo, "filename='a' size='15000'", "<permanent xmlns='urn:xmpp:http:upload:purpose:0'/>")
	s.status(http.StatusOK, http.MethodGet, get, "")
}

// XEP-0363 §5.2: an avatar stays until newer ones need its room.
func TestProfileFilesMakeRoom(t *testing.T) {
	s := start(t, func(u *config.Upload) { u.ProfileQuota = 10000 })
	var urls []string
	for range 3 {
		put, get := s.slot(s.romeo, "filename='a' size='1000'", "<profile xmlns='urn:xmpp:http:upload:purpose:0'/>")
		s.status(http.StatusCreated, http.MethodPut, put, strings.Repeat("x", 1000))
		urls = append(urls, get)
	}
	s.status(http.StatusNotFound, http.MethodGet, urls[0], "")
	s.status(http.StatusOK, http.MethodGet, urls[1], "")
	resp, _ := s.do(s.client, http.MethodGet, urls[2], nil)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Cache-Control") != "private, max-age=31536000, immutable" {
		t.Errorf("GET: %d %s", resp.StatusCode, resp.Header.Get("Cache-Control"))
	}
}

// XEP-0363 §5.3: the file MUST NOT be available after the time that the client has set.
func TestEphemeralFileEnds(t *testing.T) {
	s := start(t, nil)
	before := time.Now().Add(2 * time.Second).UTC().Truncate(time.Second)
	put, get := s.slot(s.romeo, "filename='a' size='1'", "<ephemeral xmlns='urn:xmpp:http:upload:purpose:0' expire-before='"+before.Format(time.RFC3339)+"'/>")
	s.status(http.StatusCreated, http.MethodPut, put, "x")
	s.Eventually("the end of the file", func() bool {
		resp, _ := s.do(s.client, http.MethodGet, get, nil)
		if now := time.Now(); resp.StatusCode == http.StatusNotFound && now.Before(before) {
			t.Fatalf("gone at %s, before %s", now, before)
		}
		return resp.StatusCode == http.StatusNotFound
	})
	// With a longer time than the server keeps files, the server's counts.
	put, get = s.slot(s.romeo, "filename='a' size='1'", "<ephemeral xmlns='urn:xmpp:http:upload:purpose:0' expire-before='2125-09-10T23:08:25.123+02:00'/>")
	s.status(http.StatusCreated, http.MethodPut, put, "x")
	if resp, _ := s.do(s.client, http.MethodGet, get, nil); !strings.HasPrefix(resp.Header.Get("Cache-Control"), "private, max-age=777") {
		t.Errorf("Cache-Control: %s", resp.Header.Get("Cache-Control"))
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	s := start(t, func(u *config.Upload) { u.ProfileQuota, u.PermanentQuota = 0, 0 })
	for _, tt := range []struct{ attrs, children, want string }{
		{"size='1'", "", "bad-request"},
		{"filename='' size='1'", "", "bad-request"},
		{"filename='a'", "", "bad-request"},
		{"filename='a' size=''", "", "bad-request"},
		{"filename='a' size='0'", "", "bad-request"},
		{"filename='a' size='-1'", "", "bad-request"},
		{"filename='a' size='-99999999999999999999'", "", "bad-request"},
		{"filename='a' size='1.5'", "", "bad-request"},
		{"filename='a' size='0x10'", "", "bad-request"},
		{"filename='a' size='1' content-type='image'", "", "bad-request"},
		{"filename='a' size='1' content-type='a/b&#13;&#10;Set-Cookie: x=y'", "", "bad-request"},
		{"filename='a' size='1' content-type='a/" + strings.Repeat("b", 255) + "'", "", "bad-request"},
		{"filename='a' size='1'", "<ephemeral xmlns='urn:xmpp:http:upload:purpose:0'/>", "bad-request"},
		{"filename='a' size='1'", "<ephemeral xmlns='urn:xmpp:http:upload:purpose:0' expire-before='tomorrow'/>", "bad-request"},
		{"filename='a' size='1'", "<ephemeral xmlns='urn:xmpp:http:upload:purpose:0' expire-before='2005-09-10T23:08:25Z'/>", "bad-request"},
		{"filename='a' size='1'", "<message xmlns='urn:xmpp:http:upload:purpose:0'/><message xmlns='urn:xmpp:http:upload:purpose:0'/>", "bad-request"},
		{"filename='a' size='1'", "<profile xmlns='urn:xmpp:http:upload:purpose:0'/>", "feature-not-implemented"},
		{"filename='a' size='1'", "<permanent xmlns='urn:xmpp:http:upload:purpose:0'/>", "feature-not-implemented"},
		{"filename='a' size='1'", "<other xmlns='urn:xmpp:http:upload:purpose:0'/>", "feature-not-implemented"},
	} {
		if answer := s.request(s.romeo, tt.attrs, tt.children); !strings.Contains(answer, "<"+tt.want+" ") {
			t.Errorf("%s %s: %s, want %s", tt.attrs, tt.children, answer, tt.want)
		}
	}
	s.romeo.Send("<iq type='get' id='d' to='upload.localhost'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
	if answer := s.romeo.Read().String(); strings.Contains(answer, "#profile") || strings.Contains(answer, "#permanent") {
		t.Errorf("offers what it refuses: %s", answer)
	}
}

// XEP-0363 §6: who has no account here gets no slot.
func TestStrangersGetNoSlot(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) {
		c.Components = []config.Component{{Name: "elsewhere.example", Secret: "sesame open"}}
	}))
	stranger := srv.Component("elsewhere.example", "sesame open")
	for _, from := range []string{"tybalt@elsewhere.example/x", "elsewhere.example"} {
		stranger.Send("<iq from='" + from + "' to='upload.localhost' type='get' id='1'><request xmlns='urn:xmpp:http:upload:0' filename='a' size='1'/></iq>")
		stranger.Expect("<iq from='upload.localhost' to='" + from + "' type='error' id='1'><request xmlns='urn:xmpp:http:upload:0' filename='a' size='1'/>" +
			"<error type='auth' code='403'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>{any}</text></error></iq>")
	}
}

// docs/security.md: what was uploaded runs in no browser, and no header is split.
func TestActiveContentIsForSaving(t *testing.T) {
	s := start(t, nil)
	for typ, want := range map[string]struct {
		typ    string
		inline bool
	}{
		"image/png":                             {"image/png", true},
		"audio/ogg; codecs=opus":                {"audio/ogg; codecs=opus", true},
		"video/mp4":                             {"video/mp4", true},
		"text/html":                             {"application/octet-stream", false},
		"TEXT/HTML; charset=utf-8":              {"application/octet-stream", false},
		"image/svg+xml":                         {"application/octet-stream", false},
		"application/xhtml+xml":                 {"application/octet-stream", false},
		"text/xml":                              {"application/octet-stream", false},
		"application/xml":                       {"application/octet-stream", false},
		"text/javascript":                       {"application/octet-stream", false},
		"application/x-shockwave-flash":         {"application/octet-stream", false},
		"multipart/x-mixed-replace; boundary=x": {"application/octet-stream", false},
		"message/rfc822":                        {"application/octet-stream", false},
		"application/pdf":                       {"application/pdf", false},
		"text/plain":                            {"text/plain", false},
		`a/b; x*=utf-8&apos;&apos;y%0D%0ASet-Cookie%3A%20z`: {`a/b; x*=utf-8''y%0D%0ASet-Cookie%3A%20z`, false},
	} {
		const body = "<script>alert(1)</script>"
		put, get := s.slot(s.romeo, fmt.Sprintf("filename='a.html' size='%d' content-type='%s'", len(body), typ), "")
		sent := typ
		if strings.Contains(typ, "&") {
			sent = want.typ
		}
		s.status(http.StatusCreated, http.MethodPut, put, body, "Content-Type", sent)
		resp, text := s.do(s.old, http.MethodGet, get, nil)
		if text != body || resp.Header.Get("Content-Type") != want.typ || (resp.Header.Get("Content-Disposition") != "attachment") != want.inline || resp.Header.Get("Set-Cookie") != "" ||
			resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("Content-Security-Policy") != "default-src 'none'; frame-ancestors 'none'; sandbox" {
			t.Errorf("%s: %q %v", typ, text, resp.Header)
		}
	}
}

// No path leads to another file, to a list, or anywhere else.
func TestPaths(t *testing.T) {
	s := start(t, nil)
	put, get := s.slot(s.romeo, "filename='..%2f..%2fbalcony.db' size='1'", "")
	s.status(http.StatusCreated, http.MethodPut, put, "x")
	s.status(http.StatusOK, http.MethodGet, get, "")
	base := "https://" + s.Addr("https").String()
	id := s.files()[0]
	for _, path := range []string{"/upload/", "/upload", "/upload//", "/upload/.", "/upload/unfinished", "/upload/unfinished/" + id, "/upload/" + id[:2], "/upload/" + id[:2] + "/" + id,
		"/upload/" + strings.ToLower(id), "/upload/" + id + "x", "/upload/%2e%2e/balcony.lock", "/upload/..%2f..%2fbalcony.lock", "/upload/" + id + "%00", "/upload/" + id[:25] + "%2f",
		"/upload/%2fetc%2fpasswd", "/upload/" + strings.Repeat("A", 26), "/upload/" + strings.Repeat("x", 5000)} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			if resp, text := s.do(s.old, method, base+path, nil); resp.StatusCode != http.StatusNotFound || strings.Contains(text, id) {
				t.Errorf("%s %s: %d %q", method, path, resp.StatusCode, text)
			}
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodDelete, http.MethodPatch, "PROPFIND", "COPY"} {
		if resp, _ := s.do(s.old, method, get, nil); resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "OPTIONS, HEAD, GET, PUT" {
			t.Errorf("%s: %d", method, resp.StatusCode)
		}
	}
	// XEP-0363 §9.
	resp, _ := s.do(s.old, http.MethodOptions, put, nil, "Origin", "https://web.example", "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "content-type")
	if h := resp.Header; resp.StatusCode != http.StatusNoContent || h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Methods") != "OPTIONS, HEAD, GET, PUT" ||
		!strings.Contains(h.Get("Access-Control-Allow-Headers"), "Content-Type") || h.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("OPTIONS: %d %v", resp.StatusCode, h)
	}
}

// A file goes to the disk and from it in pieces.
func TestLargeFileTakesNoMemory(t *testing.T) {
	s := start(t, nil)
	const size = 64 << 20
	put, get := s.slot(s.romeo, fmt.Sprintf("filename='a' size='%d'", size), "")
	r, err := http.NewRequest(http.MethodPut, put, io.LimitReader(zeros{}, size))
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = size
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	resp, err := s.old.Do(r) // HTTP/2 has buffers of its own, and this is about ours
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("PUT: %v %v", resp, err)
	}
	_ = resp.Body.Close()
	if resp, err = s.old.Get(get); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if _ = resp.Body.Close(); n != size || err != nil {
		t.Errorf("GET: %d bytes, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > size/2 { // TLS and the network's buffers of both ends
		t.Errorf("%d KiB allocated for a file of %d KiB", grown>>10, size>>10)
	}
}

// zeros is an endless reader.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// Behind a proxy slots have the address of the domain there.
func TestPublicAddress(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Domains[0].URL = "https://chat.example.org/xmpp/" }))
	c := srv.Client("romeo@localhost/garden")
	c.Send("<iq type='get' id='s' to='upload.localhost'><request xmlns='urn:xmpp:http:upload:0' filename='a.png' size='1'/></iq>")
	if e := c.Read(); strings.Count(e.String(), "url='https://chat.example.org/xmpp/upload/") != 2 {
		t.Errorf("%s", e)
	}
}

// Without TLS there are no slots (XEP-0363 §4).
func TestNoSlotsWithoutTLS(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Listen.HTTPS = nil }))
	c := srv.Client("romeo@localhost/garden")
	c.Send("<iq type='get' id='s' to='upload.localhost'><request xmlns='urn:xmpp:http:upload:0' filename='a.png' size='1'/></iq>")
	if e := c.Read(); !strings.Contains(e.String(), "<service-unavailable ") {
		t.Errorf("%s", e)
	}
}

// The names in URLs keep the name and its ending as far as a path allows.
func TestNamesInURLs(t *testing.T) {
	s := start(t, nil)
	for name, want := range map[string]string{
		"a b.jpg": "a b.jpg", "Ünïcödé 日本.png": "Ünïcödé 日本.png", "a/b\\c": "a_b_c", "..": "file", ".": "file", "...": "file", ".hidden": ".hidden", "a&#9;b&#10;": "a_b_",
		"100% &amp; &lt;more&gt; ?x=y#z": "100% & <more> ?x=y#z", strings.Repeat("ä", 200) + ".tar.gz": strings.Repeat("ä", 126) + ".gz", strings.Repeat("n", 300): strings.Repeat("n", 255),
	} {
		_, get := s.slot(s.romeo, "filename='"+name+"' size='1'", "")
		u, err := url.Parse(get)
		if err != nil {
			t.Fatal(err)
		}
		if got := u.Path[strings.Index(u.Path, "/upload/")+len("/upload/")+27:]; got != want || u.RawQuery != "" || u.Fragment != "" {
			t.Errorf("%q: %q, want %q (%s)", name, got, want, get)
		}
		for i := range len(get) {
			if get[i] <= ' ' || get[i] >= 0x7f {
				t.Fatalf("%s is no URL of RFC 3986", get)
			}
		}
	}
}
