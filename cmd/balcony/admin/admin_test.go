package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

	"balcony/xmpp/auth"

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

func serve(t *testing.T, dir string, accounts Accounts) *Client {
	t.Helper()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(accounts, slog.New(slog.DiscardHandler))
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
	h := handler{b, slog.New(slog.DiscardHandler)}
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
	h := handler{newBook(), slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
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
		handler{b, slog.New(slog.DiscardHandler)}.ServeHTTP(w, r)
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
