package upload

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// memory is a Store and a Files without a database and a disk, with faults.
type memory struct {
	mu       sync.Mutex
	known    map[string]File
	finished map[string]bool
	contents map[string][]byte
	create   error // what Create, Write and Commit fail with
	write    error
	commit   error
	store    error // what the store fails with, but for ForgetUploads
	writing  chan struct{}
}

func newMemory() *memory {
	return &memory{known: make(map[string]File), finished: make(map[string]bool), contents: make(map[string][]byte)}
}

func (m *memory) UploadUsage(context.Context, jid.JID, Bucket, time.Time) (int64, error) {
	return 0, m.store
}

func (m *memory) UploadRetry(context.Context, jid.JID, Bucket, int64, time.Time) (time.Time, error) {
	return time.Time{}, m.store
}

func (m *memory) BeginUpload(_ context.Context, f File, _ int64, _ time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.known[f.ID]; ok {
		return ErrUsed
	}
	if m.store == nil {
		m.known[f.ID] = f
	}
	return m.store
}

func (m *memory) FinishUpload(_ context.Context, f File, _ int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.finished[f.ID] = true
	return nil
}

func (m *memory) Upload(_ context.Context, id string) (File, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[id], m.finished[id], m.store
}

func (m *memory) AbandonUploads(context.Context) error { return nil }

func (m *memory) DoomedUploads(context.Context, time.Time, int) ([]string, error) { return nil, nil }

func (m *memory) ForgetUploads(_ context.Context, ids ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		delete(m.known, id)
		delete(m.finished, id)
	}
	return nil
}

func (m *memory) Create(_ context.Context, id string) (Writer, error) {
	return &memoryFile{m: m, id: id}, m.create
}

type reader struct{ *bytes.Reader }

func (reader) Close() error { return nil }

func (m *memory) Open(_ context.Context, id string) (io.ReadSeekCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.contents[id]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return reader{bytes.NewReader(b)}, nil
}

func (m *memory) Remove(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.contents, id)
	return nil
}

func (m *memory) empty() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.known) == 0 && len(m.contents) == 0
}

type memoryFile struct {
	m  *memory
	id string
	b  []byte
}

func (f *memoryFile) Write(b []byte) (int, error) {
	if f.m.writing != nil {
		f.m.writing <- struct{}{}
	}
	f.b = append(f.b, b...)
	return len(b), f.m.write
}

func (f *memoryFile) Commit() error {
	if f.m.commit != nil {
		return f.m.commit
	}
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.m.contents[f.id] = f.b
	return nil
}

func (f *memoryFile) Abort() {}

// fixed is a server of which only the clock is asked.
type fixed struct{ xmpp.Server }

func (fixed) Now() time.Time { return time.Now() }

func newTest(m *memory, change func(*Config)) *Module {
	cfg := DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	mod := New(cfg, []byte("0123456789abcdef0123456789abcdef"), m, m, func(string) string { return "https://localhost" }, slog.New(slog.DiscardHandler))
	mod.Register(xmpp.NewRegistry(fixed{}))
	return mod
}

// path is the path of a new slot.
func (m *Module) path(account string, size int64) string {
	id := newID()
	return Path + id + "/a?slot=" + m.seal(slot{ID: id, Account: account, Size: size, Expires: time.Now().Add(slotTime).Unix()})
}

func put(m *Module, path, from, body string) int {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPut, path, strings.NewReader(body))
	r.RemoteAddr = from
	m.ServeHTTP(deadlines{w}, r)
	return w.Code
}

// deadlines lets a recorder have deadlines, which it ignores.
type deadlines struct{ *httptest.ResponseRecorder }

func (deadlines) SetReadDeadline(time.Time) error  { return nil }
func (deadlines) SetWriteDeadline(time.Time) error { return nil }

const here = "127.0.0.1:1234"

// A disk that is full, or that has no more file descriptors, costs the upload alone: nothing is published, and the slot stays good.
func TestFaultsOfTheDisk(t *testing.T) {
	full := &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	for name, tt := range map[string]struct {
		fault func(*memory, error)
		err   error
		want  int
	}{
		"full at the beginning":     {func(m *memory, err error) { m.create = err }, full, 507},
		"full in the middle":        {func(m *memory, err error) { m.write = err }, full, 507},
		"full at the end":           {func(m *memory, err error) { m.commit = err }, full, 507},
		"over the system's quota":   {func(m *memory, err error) { m.write = err }, syscall.EDQUOT, 507},
		"no more descriptors":       {func(m *memory, err error) { m.create = err }, syscall.EMFILE, 503},
		"broken":                    {func(m *memory, err error) { m.commit = err }, syscall.EIO, 503},
		"the database is not there": {func(m *memory, err error) { m.store = err }, errors.New("away"), 503},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			mod := newTest(m, nil)
			path := mod.path("romeo@localhost", 4)
			tt.fault(m, tt.err)
			if got := put(mod, path, here, "text"); got != tt.want {
				t.Errorf("status %d, want %d", got, tt.want)
			}
			if !m.empty() {
				t.Errorf("left: %v %v", m.known, m.contents)
			}
			tt.fault(m, nil)
			if got := put(mod, path, here, "text"); got != http.StatusCreated {
				t.Errorf("again: status %d", got)
			}
		})
	}
}

// A file whose content is not what was uploaded is not served as if it were.
func TestDamagedContent(t *testing.T) {
	m := newMemory()
	mod := newTest(m, nil)
	path := mod.path("romeo@localhost", 4)
	put(mod, path, here, "text")
	get := func() int {
		w := httptest.NewRecorder()
		mod.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code
	}
	if got := get(); got != 200 {
		t.Errorf("status %d", got)
	}
	for id := range m.contents {
		m.contents[id] = []byte("tex")
		if got := get(); got != 500 {
			t.Errorf("a part: status %d", got)
		}
		delete(m.contents, id)
		if got := get(); got != 404 {
			t.Errorf("nothing: status %d", got)
		}
	}
	m.store = errors.New("away")
	if got := get(); got != 503 {
		t.Errorf("without the database: status %d", got)
	}
}

// Uploads at the same time are bounded in total, for an account and for an address.
func TestUploadsAtTheSameTime(t *testing.T) {
	m := newMemory()
	m.writing = make(chan struct{})
	mod := newTest(m, func(c *Config) {
		c.Gate = GateConfig{Uploads: 6, UploadsPerAccount: 2, UploadsPerAddress: 3, Downloads: 1, DownloadsPerAddress: 1}
	})
	var wait sync.WaitGroup
	begun := 0
	for i, tt := range []struct {
		account, from string
		want          int
	}{
		{"a@localhost", "192.0.2.1:1", 201}, {"a@localhost", "192.0.2.1:2", 201}, {"a@localhost", "192.0.2.2:1", 503}, // a has two
		{"b@localhost", "192.0.2.1:3", 201}, {"c@localhost", "192.0.2.1:4", 503}, // the address has three
		{"c@localhost", "[2001:db8::1]:1", 201}, {"d@localhost", "[2001:db8::2]:1", 201},
		{"e@localhost", "127.0.0.1:1", 201}, {"f@localhost", "127.0.0.1:2", 503}, // six in total
	} {
		path := mod.path(tt.account, 4)
		if tt.want == 503 {
			if got := put(mod, path, tt.from, "text"); got != 503 {
				t.Errorf("%d: status %d", i, got)
			}
			continue
		}
		wait.Go(func() {
			if got := put(mod, path, tt.from, "text"); got != tt.want {
				t.Errorf("%d: status %d, want %d", i, got, tt.want)
			}
		})
		for begun++; ; time.Sleep(time.Millisecond) { // until it has got in
			mod.uploads.mu.Lock()
			mod.accounts.mu.Lock()
			in := mod.uploads.n == begun && mod.accounts.n == begun
			mod.accounts.mu.Unlock()
			mod.uploads.mu.Unlock()
			if in {
				break
			}
		}
	}
	for range begun {
		<-m.writing
	}
	wait.Wait()
	if mod.uploads.n != 0 || mod.accounts.n != 0 || len(mod.uploads.by) != 0 || len(mod.accounts.by) != 0 {
		t.Errorf("after all have ended: %+v %+v", mod.uploads, mod.accounts)
	}
}

// Thousands of uploads that get on slowly hold no more than their number allows, and stop nobody who wants to download; those who are told to come again
// do not wait for it.
func TestManySlowUploads(t *testing.T) {
	m := newMemory()
	mod := newTest(m, func(c *Config) { c.Stall = time.Hour })
	srv := httptest.NewServer(mod)
	t.Cleanup(srv.Close)
	stored := mod.path("romeo@localhost", 4)
	if got := put(mod, stored, "192.0.2.1:1", "text"); got != http.StatusCreated {
		t.Fatalf("status %d", got)
	}
	inUse := func() int64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return int64(s.HeapInuse + s.StackInuse)
	}
	before := inUse()
	const all, each, size = 2000, 16, 100
	in := DefaultConfig().Gate.Uploads
	type answer struct{ i, status int }
	answers := make(chan answer, all)
	conns := make([]net.Conn, all)
	var reading sync.WaitGroup
	for i := range conns {
		c, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		path := mod.path(fmt.Sprintf("account%d@localhost", i/each), size)
		if _, err := fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\nx", path, size); err != nil {
			t.Fatal(err)
		}
		conns[i] = c
		reading.Go(func() {
			var status int
			if _, err := fmt.Fscanf(c, "HTTP/1.1 %d", &status); err != nil {
				t.Error(err)
			}
			answers <- answer{i, status}
		})
	}
	for range all - in {
		a := <-answers
		if a.status != http.StatusServiceUnavailable {
			t.Errorf("connection %d: status %d", a.i, a.status)
		}
		_ = conns[a.i].Close()
		conns[a.i] = nil
	}
	held := inUse() - before
	t.Logf("%d KiB for %d slow uploads", held>>10, in)
	if most := int64(all) * bufferSize; held > most { // that all had a buffer; both ends of the connections are in it
		t.Errorf("%d KiB for %d slow uploads, more than %d KiB", held>>10, in, most>>10)
	}
	get, _, _ := strings.Cut(stored, "?")
	resp, err := http.Get(srv.URL + get)
	if err != nil {
		t.Fatal(err)
	}
	if _ = resp.Body.Close(); resp.StatusCode != http.StatusOK {
		t.Errorf("GET meanwhile: %d", resp.StatusCode)
	}
	for _, c := range conns {
		if c == nil {
			continue
		}
		if _, err := io.WriteString(c, strings.Repeat("x", size-1)); err != nil {
			t.Error(err)
		}
		if a := <-answers; a.status != http.StatusCreated {
			t.Errorf("connection %d: status %d", a.i, a.status)
		}
	}
	reading.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.finished); n != in+1 {
		t.Errorf("%d files, want %d", n, in+1)
	}
}

// Three addresses of one IPv6 customer are one, loopback is none.
func TestAddress(t *testing.T) {
	for from, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1", "[2001:db8::1]:80": "2001:db8::", "[2001:db8::ffff:1]:9": "2001:db8::",
		"127.0.0.1:1": "", "[::1]:1": "", "[fe80::1%eth0]:1": "fe80::", "@": "@",
	} {
		if got := address(&http.Request{RemoteAddr: from}); got != want {
			t.Errorf("%s: %q, want %q", from, got, want)
		}
	}
}

// slow is a server with a module whose transfers may take stall for 1,000 bytes.
func slow(t *testing.T, m *memory, stall time.Duration) (*Module, *httptest.Server) {
	t.Helper()
	mod := newTest(m, func(c *Config) { c.Stall, c.StallBytes = stall, 1000 })
	srv := httptest.NewUnstartedServer(mod)
	srv.EnableHTTP2 = true
	srv.Config.ReadTimeout, srv.Config.WriteTimeout = 500*time.Millisecond, 500*time.Millisecond // those of other requests
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return mod, srv
}

// An upload may take longer than other requests as long as it gets on, and ends when it does not.
func TestSlowUploads(t *testing.T) {
	for _, tt := range []struct {
		name  string
		piece int
		pause time.Duration
		stall time.Duration
		want  int
	}{
		{"slow", 10_000, 100 * time.Millisecond, 30 * time.Second, http.StatusCreated}, // the client gathers some KiB
		{"stalled", 20_000, time.Hour, time.Second, http.StatusRequestTimeout},
	} {
		for _, proto := range []string{"HTTP/1.1", "HTTP/2"} {
			t.Run(tt.name+" "+proto, func(t *testing.T) {
				t.Parallel()
				m := newMemory()
				mod, srv := slow(t, m, tt.stall)
				client := srv.Client()
				if proto == "HTTP/1.1" {
					tr := client.Transport.(*http.Transport).Clone()
					tr.ForceAttemptHTTP2, tr.TLSClientConfig.NextProtos, tr.Protocols = false, nil, nil
					tr.TLSNextProto = nil
					client = &http.Client{Transport: tr}
					t.Cleanup(tr.CloseIdleConnections)
				}
				const size = 100_000
				in, out := io.Pipe()
				r, err := http.NewRequest(http.MethodPut, srv.URL+mod.path("romeo@localhost", size), in)
				if err != nil {
					t.Fatal(err)
				}
				r.ContentLength = size
				ended := make(chan struct{})
				writer := make(chan struct{})
				go func() {
					defer close(writer)
					for n := 0; n < size; n += tt.piece {
						if _, err := out.Write(make([]byte, min(tt.piece, size-n))); err != nil {
							return
						}
						select {
						case <-time.After(tt.pause):
						case <-ended:
							return
						}
					}
					_ = out.Close()
				}()
				began := time.Now()
				resp, err := client.Do(r)
				if err != nil {
					if tt.want == http.StatusCreated {
						t.Error(err)
					}
				} else {
					_ = resp.Body.Close()
					if resp.StatusCode != tt.want || resp.Proto[:6] != proto[:6] {
						t.Errorf("%s: %d, want %d", resp.Proto, resp.StatusCode, tt.want)
					}
				}
				took := time.Since(began)
				close(ended)
				_ = in.Close()
				<-writer
				if tt.want == http.StatusCreated && took < 800*time.Millisecond {
					t.Errorf("took %s: not longer than the deadline of other requests", took)
				}
				for end := time.Now().Add(time.Minute); m.empty() != (tt.want != http.StatusCreated); time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("left: %v", m.known)
					}
				}
			})
		}
	}
}

// Dripping bytes is not getting on.
func TestDrippingUpload(t *testing.T) {
	m := newMemory()
	mod, srv := slow(t, m, time.Second)
	c, err := tls.Dial("tcp", srv.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\n", mod.path("romeo@localhost", 10000)); err != nil {
		t.Fatal(err)
	}
	answered := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			select {
			case <-answered:
				return
			case <-time.After(10 * time.Millisecond):
				_, _ = c.Write([]byte("xx")) // until the server has closed
			}
		}
	})
	line, err := bufio.NewReader(c).ReadString('\n')
	close(answered)
	wait.Wait()
	if err != nil || line != "HTTP/1.1 408 Request Timeout\r\n" {
		t.Errorf("%q, %v", line, err)
	}
	if !m.empty() {
		t.Errorf("left: %v", m.known)
	}
}

// A download ends when the client does not read, and may take as long as it reads.
func TestSlowDownloads(t *testing.T) {
	m := newMemory()
	mod, srv := slow(t, m, time.Second)
	const size = 64 << 20 // more than the buffers of the network
	f := File{ID: newID(), Size: size, Type: octetStream, Stored: time.Now()}
	m.known[f.ID], m.finished[f.ID], m.contents[f.ID] = f, true, make([]byte, size)
	resp, err := srv.Client().Get(srv.URL + Path + f.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	began := time.Now()
	n := 0
	for buf := make([]byte, 1<<20); n < 8<<20; time.Sleep(100 * time.Millisecond) { // longer than the deadline of other requests
		k, err := io.ReadFull(resp.Body, buf)
		if n += k; err != nil {
			t.Fatalf("after %d bytes in %s: %v", n, time.Since(began), err)
		}
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		mod.downloads.mu.Lock()
		going := mod.downloads.n
		mod.downloads.mu.Unlock()
		if going == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("a client that does not read keeps its download for 10 s")
		}
	}
}

func TestSlots(t *testing.T) {
	mod, other := newTest(newMemory(), nil), newTest(newMemory(), nil)
	other.key = []byte("another key of thirty-two bytes.")
	now := time.Now()
	s := slot{ID: newID(), Account: "romeo@localhost", Size: 10, Type: "image/png", Bucket: Profiles, Before: 5, Expires: now.Add(time.Minute).Unix()}
	token := mod.seal(s)
	if got, err := mod.open(token, now); err != nil || got != s {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := mod.open(token, now.Add(time.Minute)); !errors.Is(err, errExpired) {
		t.Errorf("an expired slot: %v", err)
	}
	if _, err := mod.open(other.seal(s), now); !errors.Is(err, errToken) {
		t.Errorf("a slot with another key: %v", err)
	}
	for i := range token {
		for _, c := range []byte("Ab.=\r\n") {
			if c == token[i] {
				continue
			}
			changed := token[:i] + string(c) + token[i+1:]
			if _, err := mod.open(changed, now); err == nil {
				t.Fatalf("changed at %d: accepted", i)
			}
		}
	}
	for _, bad := range []string{"", ".", token + "=", token + "\n", "\r" + token, token[:9] + "\r" + token[9:], strings.Replace(token, ".", ".\n", 1), token + ".", token[:len(token)-1], strings.Repeat("A", 100_000), "." + strings.SplitN(token, ".", 2)[1]} {
		if _, err := mod.open(bad, now); !errors.Is(err, errToken) {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
}

func FuzzSlot(f *testing.F) {
	mod := newTest(newMemory(), nil)
	now := time.Unix(1_000_000, 0)
	good := mod.seal(slot{ID: "ABCDEFGHIJKLMNOPQRSTUVWX23", Account: "romeo@localhost", Size: 10, Expires: 2_000_000})
	f.Add(good)
	f.Add(strings.ToLower(good))
	f.Add(".")
	f.Fuzz(func(t *testing.T, token string) {
		if s, err := mod.open(token, now); err == nil && token != good {
			t.Errorf("%q is a slot: %+v", token, s)
		}
	})
}

// FuzzServeHTTP: whatever is asked of a server with one file, nothing panics, no header has a line break, and no other body comes than (a part
// of) that file or a few words.
func FuzzServeHTTP(f *testing.F) {
	m := newMemory()
	mod := newTest(m, nil)
	id := "ABCDEFGHIJKLMNOPQRSTUVWX23"
	const content = "But, soft! what light through yonder window breaks?"
	m.known[id], m.finished[id], m.contents[id] = File{ID: id, Size: int64(len(content)), Type: "text/plain", Stored: time.Unix(1, 0)}, true, []byte(content)
	f.Add("GET", "/upload/"+id+"/a", "", "bytes=0-5", "")
	f.Add("GET", "/upload/"+id, "", "bytes=0-5,2-3", `"`+id+`"`)
	f.Add("HEAD", "/upload/../"+id, "x=y", "bytes=-1", "*")
	f.Add("PUT", "/upload/"+id+"/..", "slot=a.b", "", "text/html\r\nX: y")
	f.Fuzz(func(t *testing.T, method, path, query, rng, value string) {
		r := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}, Header: http.Header{"Range": {rng}, "If-None-Match": {value}, "If-Range": {value},
			"Content-Type": {value}}, Body: io.NopCloser(strings.NewReader(value)), ContentLength: int64(len(value)), RemoteAddr: here}
		w := httptest.NewRecorder()
		mod.ServeHTTP(deadlines{w}, r)
		for name, values := range w.Header() {
			for _, v := range values {
				if strings.ContainsAny(v, "\r\n\x00") {
					t.Errorf("%s: %q", name, v)
				}
			}
		}
		if body := w.Body.String(); w.Code < 300 && !strings.Contains(content, body) || w.Code >= 300 && len(body) > 100 {
			t.Errorf("%d %q", w.Code, body)
		}
		if w.Code == http.StatusCreated || len(m.contents) != 1 {
			t.Error("something was stored")
		}
	})
}

// FuzzMediaType: what comes out is a media type that stays as it is, without anything that ends a header.
func FuzzMediaType(f *testing.F) {
	for _, s := range []string{"text/plain", "TEXT/Plain; Charset=UTF-8", "a/b; x*=utf-8''%0d%0a", "a/b; x*=utf-8''%090", "a/b\r\nX: y", "a/b;c=\"\\\"\"", "a/b; x*0=a; x*1=b", "/", "a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		typ := mediaType(s)
		if typ == "" {
			return
		}
		for i := range len(typ) {
			if typ[i] < ' ' || typ[i] >= 0x7f {
				t.Fatalf("%q becomes %q", s, typ)
			}
		}
		if again := mediaType(typ); again != typ {
			t.Errorf("%q becomes %q becomes %q", s, typ, again)
		}
		given, attachment := served(typ)
		media, _, err := mime.ParseMediaType(given)
		if err != nil || !attachment && !inline[media] {
			t.Errorf("%q is served as %q: %v", s, given, err)
		}
	})
}

// FuzzFileName: the last segment of a URL path that means itself.
func FuzzFileName(f *testing.F) {
	for _, s := range []string{"a.jpg", "..", "a/b", "\x00", "\xff", strings.Repeat("ä", 300) + ".txt", strings.Repeat("a", 255) + "." + strings.Repeat("b", 40)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name := fileName(s)
		u, err := url.Parse("https://localhost" + Path + newID() + "/" + url.PathEscape(name))
		if err != nil {
			t.Fatal(err)
		}
		if name == "" || len(name) > maxName || !utf8.ValidString(name) || strings.Count(u.Path, "/") != 3 || !strings.HasSuffix(u.Path, "/"+name) || u.JoinPath("x").Path != u.Path+"/x" {
			t.Errorf("%q becomes %q: %s", s, name, u)
		}
	})
}
