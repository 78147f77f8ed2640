package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"balcony/cmd/balcony/pie"
	"balcony/xmpp/auth"
	"balcony/xmpp/router"

	"go.uber.org/goleak"
	"mellium.im/xmpp/jid"
)

// TestMain is also the other process of TestLockKeepsOthersOut.
func TestMain(m *testing.M) {
	if dir := os.Getenv("BALCONY_TEST_LOCK"); dir != "" {
		_, err := Acquire(dir, Serving)
		fmt.Println(err)
		return
	}
	goleak.VerifyTestMain(m)
}

// book is Accounts in memory.
type book struct {
	mu        sync.Mutex
	passwords map[string]string
}

func newBook() *book { return &book{passwords: make(map[string]string)} }

func (b *book) Add(_ context.Context, account jid.JID, password string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if password == "" {
		return errors.New("the password is empty")
	}
	if _, ok := b.passwords[account.String()]; ok {
		return fmt.Errorf("add: %w", auth.ErrAccountExists)
	}
	b.passwords[account.String()] = password
	return nil
}

func (b *book) SetPassword(_ context.Context, account jid.JID, password string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.passwords[account.String()]; !ok {
		return auth.ErrNoAccount
	}
	b.passwords[account.String()] = password
	return nil
}

func (b *book) Delete(_ context.Context, account jid.JID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.passwords[account.String()]; !ok {
		return auth.ErrNoAccount
	}
	delete(b.passwords, account.String())
	return nil
}

func (b *book) List(_ context.Context, domain, after string, limit int) ([]jid.JID, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []jid.JID
	for s := range b.passwords {
		if j := jid.MustParse(s); j.Domainpart() == domain && j.Localpart() > after {
			list = append(list, j)
		}
	}
	slices.SortFunc(list, func(a, b jid.JID) int { return strings.Compare(a.Localpart(), b.Localpart()) })
	return list[:min(limit, len(list))], nil
}

var issued = time.Date(2026, 11, 25, 22, 0, 0, 0, time.UTC)

func (b *book) Sessions(_ context.Context, account jid.JID) ([]router.Description, []auth.TokenInfo, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.passwords[account.String()]; !ok {
		return nil, nil, auth.ErrNoAccount
	}
	return []router.Description{{Resource: "a b\u202e", Priority: -1, Since: issued, Queue: 3}}, []auth.TokenInfo{{Client: "x", Issued: issued}}, nil
}

func (b *book) Kick(_ context.Context, who jid.JID, tokens bool) (sessions, revoked int, err error) {
	if who.Resourcepart() == "" {
		return 0, 0, errors.New("which?")
	}
	if tokens {
		revoked = len(who.Resourcepart())
	}
	return 1, revoked, nil
}

func (b *book) Export(_ context.Context, account jid.JID, w io.Writer) error {
	switch account.Localpart() {
	case "nobody":
		return auth.ErrNoAccount
	case "broken":
		_, _ = io.WriteString(w, "<half>")
		return errors.New("the disk\nis gone")
	}
	_, err := io.Copy(w, strings.NewReader(strings.Repeat("<x/>", 1<<20)))
	return err
}

func (b *book) Import(_ context.Context, r io.Reader) (pie.Imported, error) {
	first := make([]byte, 5)
	if _, err := io.ReadFull(r, first); err != nil || string(first) != "<bad>" {
		n, err := io.Copy(io.Discard, r)
		return pie.Imported{Accounts: []string{"a@localhost"}, Warnings: []string{fmt.Sprint(n)}}, err
	}
	return pie.Imported{Accounts: []string{"a@localhost"}}, errors.New("line 1, column 2: no")
}

// Documents of any length go both ways, and an error comes back whenever it happens.
func TestDocumentsOverTheSocket(t *testing.T) {
	c := serve(t, t.TempDir(), newBook())
	ctx := t.Context()
	var got bytes.Buffer
	if err := c.Export(ctx, jid.MustParse("a@localhost"), &got); err != nil || got.Len() != 4<<20 {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
	got.Reset()
	if err := c.Export(ctx, jid.MustParse("nobody@localhost"), &got); !errors.Is(err, auth.ErrNoAccount) || got.Len() != 0 {
		t.Errorf("no account: %d bytes, %v", got.Len(), err)
	}
	if err := c.Export(ctx, jid.MustParse("broken@localhost"), &got); err == nil || err.Error() != "the disk is gone" {
		t.Errorf("an error in the middle: %v", err)
	}
	done, err := c.Import(ctx, strings.NewReader("<ok />"+strings.Repeat(" ", 4<<20)))
	if err != nil || fmt.Sprint(done) != "{[a@localhost] [4194305]}" {
		t.Errorf("%v, %v", done, err)
	}
	done, err = c.Import(ctx, strings.NewReader("<bad>"+strings.Repeat(" ", 4<<20)))
	if err == nil || err.Error() != "line 1, column 2: no" || len(done.Accounts) != 1 {
		t.Errorf("%v, %v", done, err)
	}
}

func TestSessionsOverTheSocket(t *testing.T) {
	b := newBook()
	c := serve(t, t.TempDir(), b)
	romeo := jid.MustParse("romeo@montague.test")
	if _, _, err := c.Sessions(t.Context(), romeo); !errors.Is(err, auth.ErrNoAccount) {
		t.Errorf("sessions of nobody: %v", err)
	}
	if err := c.Add(t.Context(), romeo, "secret"); err != nil {
		t.Fatal(err)
	}
	wantSessions, wantTokens, _ := b.Sessions(t.Context(), romeo)
	list, tokens, err := c.Sessions(t.Context(), romeo)
	if err != nil || !slices.Equal(list, wantSessions) || !slices.Equal(tokens, wantTokens) {
		t.Errorf("got %+v %+v %v, want %+v %+v", list, tokens, err, wantSessions, wantTokens)
	}
	full := jid.MustParse("romeo@montague.test/a&b=c d")
	for _, with := range []bool{false, true} {
		want := 0
		if with {
			want = len(full.Resourcepart())
		}
		if n, revoked, err := c.Kick(t.Context(), full, with); n != 1 || revoked != want || err != nil {
			t.Errorf("kick: %d %d %v", n, revoked, err)
		}
	}
	if _, _, err := c.Kick(t.Context(), romeo, false); err == nil || err.Error() != "which?" {
		t.Errorf("the server's words are lost: %v", err)
	}
	for method, query := range map[string]string{http.MethodGet: "jid=nobody", http.MethodPost: "jid=a@b", http.MethodDelete: "jid=a@b&tokens=perhaps"} {
		r := httptest.NewRecorder()
		handler{b, nil, slog.New(slog.DiscardHandler)}.ServeHTTP(r, httptest.NewRequest(method, "/sessions?"+query, nil))
		if r.Code != http.StatusBadRequest {
			t.Errorf("%s %s: %d %s", method, query, r.Code, r.Body)
		}
	}
}

func serve(t *testing.T, dir string, accounts Accounts) *Client {
	t.Helper()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(accounts, nil, slog.New(slog.DiscardHandler))
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	c, err := Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if err := errors.Join(s.Shutdown(context.Background()), <-done); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(filepath.Join(dir, socketName)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
	})
	return c
}

func TestClientDoesWhatTheAccountsDo(t *testing.T) {
	b := newBook()
	c := serve(t, t.TempDir(), b)
	ctx := t.Context()
	romeo := jid.MustParse("romeo@montague.test")
	// A localpart and a password with everything that JSON and queries must escape.
	odd := jid.MustParse("o\\27=?#%+é@montague.test")
	password := "p\"\\\n\u2028&=+%00é 𝄞"
	if err := c.Add(ctx, romeo, "secret"); err != nil {
		t.Fatal(err)
	}
	if err := c.Add(ctx, odd, password); err != nil {
		t.Fatal(err)
	}
	if err := c.Add(ctx, romeo, "other"); !errors.Is(err, auth.ErrAccountExists) {
		t.Errorf("a second account of that name: %v", err)
	}
	if err := c.Add(ctx, jid.MustParse("juliet@capulet.test"), ""); err == nil || err.Error() != "the password is empty" {
		t.Errorf("the server's words are lost: %v", err)
	}
	if err := c.SetPassword(ctx, romeo, "new"); err != nil {
		t.Fatal(err)
	}
	if got := b.passwords["romeo@montague.test"]; got != "new" {
		t.Errorf("password %q", got)
	}
	if got := b.passwords[odd.String()]; got != password {
		t.Errorf("password %q, want %q", got, password)
	}
	for i := range 5 {
		if err := c.Add(ctx, jid.MustParse(fmt.Sprintf("user%d@montague.test", i)), "x"); err != nil {
			t.Fatal(err)
		}
	}
	var all []string
	after := ""
	for {
		page, err := c.List(ctx, "montague.test", after, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range page {
			all = append(all, j.String())
			after = j.Localpart()
		}
		if len(page) < 3 {
			break
		}
	}
	want := []string{odd.String(), "romeo@montague.test", "user0@montague.test", "user1@montague.test", "user2@montague.test", "user3@montague.test", "user4@montague.test"}
	if !slices.Equal(all, want) {
		t.Errorf("list %q, want %q", all, want)
	}
	if err := c.Delete(ctx, odd); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{c.Delete(ctx, odd), c.SetPassword(ctx, odd, "x")} {
		if !errors.Is(err, auth.ErrNoAccount) {
			t.Errorf("an account that is gone: %v", err)
		}
	}
}

func TestSocketIsForItsOwnerOnly(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir, newBook())
	info, err := os.Lstat(filepath.Join(dir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 || info.Mode()&fs.ModeSocket == 0 {
		t.Errorf("mode %v", info.Mode())
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("more is left than the socket: %v %v", entries, err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, socketName)})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as kill -9 leaves it
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), dir); err == nil {
		t.Error("a socket without a server answers")
	}
	if _, err := serve(t, dir, newBook()).List(t.Context(), "montague.test", "", 1); err != nil {
		t.Error(err)
	}
}

func TestLongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := serve(t, dir, newBook()).Add(t.Context(), jid.MustParse("romeo@montague.test"), "x"); err != nil {
		t.Error(err)
	}
}

func TestLockKeepsOthersOut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	other := func() string {
		t.Helper()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "BALCONY_TEST_LOCK="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	l, err := Acquire(dir, Serving)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data folder: %v %v", info.Mode(), err)
	}
	if got, want := other(), fmt.Sprintf("the data folder %s is in use by another balcony (process %d)", dir, os.Getpid()); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	var use *InUseError
	if _, err := Acquire(dir, Changing); !errors.As(err, &use) || use.As != Serving || use.PID != os.Getpid() {
		t.Errorf("second lock in one process: %v", err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if got := other(); got != "<nil>" {
		t.Errorf("after the release: %s", got)
	}
	// The process that had it has ended without releasing it.
	l, err = Acquire(dir, Changing)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
}

func TestBadRequests(t *testing.T) {
	b := newBook()
	h := handler{b, nil, slog.New(slog.DiscardHandler)}
	for _, tt := range []struct {
		method, target, body string
		status               int
	}{
		{"GET", "/", "", 400},
		{"GET", "/accounts", "", 400},
		{"GET", "/accounts?domain=a&limit=1001", "", 400},
		{"GET", "/accounts?domain=a&limit=0", "", 400},
		{"PATCH", "/accounts", "", 400},
		{"POST", "/accounts", "", 400},
		{"POST", "/accounts", "[]", 400},
		{"POST", "/accounts", `{"jid":"a@b","password":"x"}{}`, 400},
		{"POST", "/accounts", `{"jid":"a@b","password":"x","admin":true}`, 400},
		{"POST", "/accounts", `{"jid":"a","password":"x"}`, 400},
		{"POST", "/accounts", `{"jid":"a@b/c","password":"x"}`, 400},
		{"POST", "/accounts", `{"jid":"a@b","password":"` + strings.Repeat("x", maxRequest) + `"}`, 400},
		{"DELETE", "/accounts?jid=b", "", 400},
		{"DELETE", "/accounts?jid=a@b", "", 404},
		{"PUT", "/accounts", `{"jid":"a@b","password":"x"}`, 404},
		{"POST", "/accounts", `{"jid":"a@b","password":""}`, 500},
		{"POST", "/accounts", `{"jid":"a@b","password":"x"}`, 200},
		{"POST", "/accounts", `{"jid":"A@B","password":"x"}`, 409},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tt.method, tt.target, strings.NewReader(tt.body)))
		if w.Code != tt.status {
			t.Errorf("%s %s %.80s: %d %s, want %d", tt.method, tt.target, tt.body, w.Code, w.Body, tt.status)
		}
	}
	if len(b.passwords) != 1 {
		t.Errorf("accounts %v", b.passwords)
	}
}

func TestLogHasNoPasswords(t *testing.T) {
	var log bytes.Buffer
	h := handler{newBook(), nil, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, "/accounts?jid=romeo@montague.test", strings.NewReader(`{"jid":"romeo@montague.test","password":"hunter2"}`)))
	}
	if got := strings.Count(log.String(), "jid=romeo@montague.test"); got != 3 || strings.Contains(log.String(), "hunter2") {
		t.Errorf("log:\n%s", &log)
	}
}

func FuzzControlSocket(f *testing.F) {
	f.Add("POST", "jid=a@b", []byte(`{"jid":"romeo@montague.test","password":"x"}`))
	f.Add("PUT", "", []byte(`{"jid":"romeo@montague.test","password":"\u0000"}`))
	f.Add("DELETE", "jid=romeo@montague.test", []byte(nil))
	f.Add("GET", "domain=montague.test&after=a&limit=10", []byte(nil))
	f.Fuzz(func(t *testing.T, method, query string, body []byte) {
		r := httptest.NewRequest(http.MethodGet, "/accounts", bytes.NewReader(body))
		r.Method, r.URL.RawQuery = method, query
		w := httptest.NewRecorder()
		b := newBook()
		handler{b, nil, slog.New(slog.DiscardHandler)}.ServeHTTP(w, r)
		// Whatever was accepted is the address of an account.
		for s := range b.passwords {
			if j, err := jid.Parse(s); err != nil || j.Localpart() == "" || j.Resourcepart() != "" {
				t.Errorf("account %q", s)
			}
		}
		if w.Code == 200 && method != "GET" && method != "POST" {
			t.Errorf("%s of an account that does not exist: %d %s", method, w.Code, w.Body)
		}
	})
}
