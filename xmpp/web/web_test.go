package web

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a server on two loopback ports.
type running struct {
	*Server
	http, https string // base URLs
	client      *http.Client
	log         *buffer
}

type buffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func start(t *testing.T, cfg Config, health func(context.Context) error, handlers map[string]http.Handler) *running {
	t.Helper()
	reg := prometheus.NewRegistry()
	answers := prometheus.NewCounter(prometheus.CounterOpts{Name: "balcony_answers_total", Help: "Answers."})
	answers.Add(42)
	reg.MustRegister(answers)
	r := &running{log: new(buffer)}
	r.Server = New(cfg, slog.New(slog.NewTextHandler(r.log, nil)), reg, health)
	for pattern, h := range handlers {
		r.Handle(pattern, h)
	}
	config := serverTLS(t)
	var serving sync.WaitGroup
	listen := func(serve func(net.Listener) error) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		serving.Go(func() {
			if err := serve(l); err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
		return l.Addr().String()
	}
	r.http = "http://" + listen(r.Serve)
	r.https = "https://" + listen(func(l net.Listener) error {
		return r.ServeTLS(l, func(*tls.ClientHelloInfo) *tls.Config { return config })
	})
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	r.client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := r.Shutdown(t.Context()); err != nil && t.Context().Err() == nil {
			t.Errorf("Shutdown: %v", err)
		}
		serving.Wait()
	})
	return r
}

func serverTLS(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: ALPN, MinVersion: tls.VersionTLS12}
}

func (r *running) get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	resp, err := r.client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func healthy(context.Context) error { return nil }

func TestRoutes(t *testing.T) {
	r := start(t, DefaultConfig(), healthy, map[string]http.Handler{"GET /hello": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hi") })})
	for _, tt := range []struct {
		url    string
		status int
		body   string
	}{
		{r.http + "/healthz", 200, "ok\n"},
		{r.https + "/healthz", 200, "ok\n"},
		{r.http + "/metrics", 200, "balcony_answers_total 42"},
		{r.https + "/metrics", 404, ""}, // figures about the server are for its operator
		{r.http + "/hello", 200, "hi"},
		{r.https + "/hello", 200, "hi"},
		{r.http + "/", 404, ""},
		{r.http + "/../etc/passwd", 404, ""},
	} {
		resp, body := r.get(t, tt.url)
		if resp.StatusCode != tt.status || !strings.Contains(body, tt.body) {
			t.Errorf("%s: %d %q, want %d %q", tt.url, resp.StatusCode, body, tt.status, tt.body)
		}
		for header, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
			"Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "Access-Control-Allow-Origin": "",
		} {
			if got := resp.Header.Get(header); got != want {
				t.Errorf("%s: %s: %q, want %q", tt.url, header, got, want)
			}
		}
		if want := map[bool]int{true: 2, false: 1}[strings.HasPrefix(tt.url, "https")]; resp.ProtoMajor != want {
			t.Errorf("%s: HTTP/%d, want HTTP/%d", tt.url, resp.ProtoMajor, want)
		}
	}
	resp, err := r.client.Post(r.http+"/healthz", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _ = resp.Body.Close(); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST /healthz: %d", resp.StatusCode)
	}
}

// TestReadyWhileStopping: who still asks a server that stops hears that it is healthy and takes nobody any more.
func TestReadyWhileStopping(t *testing.T) {
	s := New(DefaultConfig(), slog.New(slog.DiscardHandler), prometheus.NewRegistry(), healthy)
	ask := func(h http.Handler, path string) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code
	}
	want := map[string]int{"/healthz": 200, "/readyz": 200}
	for range 2 {
		for path, want := range want {
			for name, h := range map[string]http.Handler{"http": s.plain.Handler, "https": s.secure.Handler} {
				if got := ask(h, path); got != want {
					t.Errorf("%s %s: %d, want %d", name, path, got, want)
				}
			}
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		want["/readyz"] = 503
	}
}

func TestHealthSaysUnavailableWithoutWhy(t *testing.T) {
	r := start(t, DefaultConfig(), func(context.Context) error { return errors.New("secret reason") }, nil)
	for range 2 {
		resp, body := r.get(t, r.http+"/healthz")
		if resp.StatusCode != http.StatusServiceUnavailable || strings.Contains(body, "secret") {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
	}
	if n := strings.Count(r.log.String(), "secret reason"); n != 1 {
		t.Errorf("the reason is in the log %d times, want once", n)
	}
}

func TestHealthChecksAreSharedAndBounded(t *testing.T) {
	var calls atomic.Int32
	started, release := make(chan struct{}), make(chan struct{})
	c := &checker{log: slog.New(slog.DiscardHandler), check: func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("the check has no deadline")
		}
		if calls.Add(1) == 1 {
			close(started)
		}
		<-release
		return nil
	}}
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	// The first asker goes away: those that wait for its check must not notice.
	wait.Go(func() { _ = c.result(ctx) })
	<-started
	cancel()
	for range 20 {
		wait.Go(func() {
			if err := c.result(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.result(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("an asker that is gone waits: %v", err)
	}
	close(release)
	wait.Wait()
	if n := calls.Load(); n != 1 {
		t.Errorf("%d checks for askers at the same time, want 1", n)
	}
}

func TestPanicEndsOneRequestOnly(t *testing.T) {
	r := start(t, DefaultConfig(), healthy, map[string]http.Handler{"/panic": http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oops") })})
	for _, base := range []string{r.http, r.https} {
		if resp, body := r.get(t, base+"/panic"); resp.StatusCode != 500 || strings.Contains(body, "oops") {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
	}
	if !strings.Contains(r.log.String(), "oops") {
		t.Error("the panic is not in the log")
	}
	if resp, _ := r.get(t, r.http+"/healthz"); resp.StatusCode != 200 {
		t.Errorf("healthz: %d", resp.StatusCode)
	}
}

func TestHealthCheckThatPanicsIsUnavailable(t *testing.T) {
	r := start(t, DefaultConfig(), func(context.Context) error { panic("oops") }, nil)
	for _, want := range []int{500, 503} { // the second is told what the first found
		if resp, _ := r.get(t, r.http+"/healthz"); resp.StatusCode != want {
			t.Errorf("%d, want %d", resp.StatusCode, want)
		}
	}
}

// dial sends bytes and returns what comes back until the server closes.
func dial(t *testing.T, base, send string) string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, send); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		t.Errorf("still open after 30 s")
	}
	return string(answer)
}

// TestSlowBody: a body that does not end is waited for as long as a request may take.
func TestSlowBody(t *testing.T) {
	cfg := DefaultConfig()
	cfg.RequestTimeout = time.Second
	read := make(chan error, 1)
	r := start(t, cfg, healthy, map[string]http.Handler{"POST /read": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		read <- err
		panic(http.ErrAbortHandler)
	})})
	for {
		if got := dial(t, r.http, "POST /read HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhell"); got != "" {
			t.Errorf("answer %q", got)
		}
		select {
		case err := <-read:
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the body: %v", err)
			}
			return
		default: // the time was over before the header was there
		}
	}
}

func TestLimits(t *testing.T) {
	cfg := DefaultConfig()
	cfg.HeaderBytes, cfg.IdleTimeout = 4096, 200*time.Millisecond
	r := start(t, cfg, healthy, nil)
	cfg.HeaderTimeout = 200 * time.Millisecond
	hasty := start(t, cfg, healthy, nil)
	const request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
	for _, tt := range []struct{ name, send, want string }{
		{"nothing is sent", "", ""},
		{"the header does not end", request, ""},
		{"no further request", request + "\r\n", "HTTP/1.1 200 OK"},
		{"the header is too large", request + "X: " + strings.Repeat("x", 4096+4096) + "\r\n\r\n", "HTTP/1.1 431 "}, // net/http adds 4096 of its own
		{"two lengths", "POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "HTTP/1.1 400 "},
		{"no host", "GET /healthz HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
	} {
		at := r
		if tt.want == "" {
			at = hasty
		}
		if got := dial(t, at.http, tt.send); !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%s: answer %q, want %q", tt.name, got, tt.want)
		}
	}
}

// from is a listener whose connections come from an address.
type from struct {
	net.Listener
	addr net.Addr
}

func (f from) Accept() (net.Conn, error) {
	c, err := f.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return fromConn{c, f.addr}, nil
}

type fromConn struct {
	net.Conn
	addr net.Addr
}

func (c fromConn) RemoteAddr() net.Addr { return c.addr }

func TestListenerRefusesOneTooMany(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = inner.Close() }()
	cfg := DefaultConfig()
	cfg.ConnectionsPerAddress = 1
	s := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), healthy)
	l := s.listener(from{inner, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}})
	connect := func() net.Conn {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a := connect()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b := connect()
	second := make(chan net.Conn)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		second <- c
	}()
	if n, err := b.Read(make([]byte, 1)); err == nil {
		t.Errorf("the second connection was served: %d", n)
	}
	for range 2 { // closing twice counts once
		_ = accepted.Close()
	}
	c := connect()
	for _, conn := range []net.Conn{<-second, a, b, c} {
		defer func() { _ = conn.Close() }()
	}
	s.SetConnectionsPerAddress(2) // counts for new ones
	d := connect()
	defer func() { _ = d.Close() }()
	if accepted, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	_ = accepted.Close()
}

// TestHandlersSeeTheClient: what a handler counts by address is the client's, behind a trusted proxy too.
func TestHandlersSeeTheClient(t *testing.T) {
	r := start(t, DefaultConfig(), healthy, map[string]http.Handler{"/who": http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		host, _, err := net.SplitHostPort(req.RemoteAddr)
		_, _ = io.WriteString(w, host)
		if err != nil {
			t.Error(err)
		}
	})})
	ask := func(forwarded string) string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.http+"/who", nil)
		if err != nil {
			t.Fatal(err)
		}
		if forwarded != "" {
			req.Header.Set("X-Forwarded-For", forwarded)
		}
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, _ := io.ReadAll(resp.Body)
		return string(b)
	}
	for forwarded, want := range map[string]string{"": "127.0.0.1", "192.0.2.1": "192.0.2.1", "192.0.2.9, 2001:db8::1": "2001:db8::1", "nonsense": "127.0.0.1"} {
		if got := ask(forwarded); got != want {
			t.Errorf("X-Forwarded-For %q: %q, want %q", forwarded, got, want)
		}
	}
	r.SetPolicy(Policy{}) // nobody is trusted
	if got := ask("192.0.2.1"); got != "127.0.0.1" {
		t.Errorf("from a stranger: %q", got)
	}
}
