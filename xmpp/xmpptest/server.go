// Package xmpptest runs a whole server inside a test, with every module, TLS and a real database, and speaks to it over TCP.
package xmpptest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"balcony/cmd/balcony/certs"
	"balcony/cmd/balcony/config"
	"balcony/cmd/balcony/server"
	"balcony/xmpp/auth"

	"go.uber.org/goleak"
	"mellium.im/xmpp/jid"
)

// Server is a server under test.
type Server struct {
	*server.Server
	Config *config.Config

	t       testing.TB
	foreign net.Addr // of a server that is not ours
	stop    sync.Once
	stopped error

	mu     sync.Mutex
	online []*Client // guarded by mu: bound clients that have not ended
}

// Option changes how a server is made.
type Option func(*config.Config)

// Config changes the configuration before the server starts.
func Config(f func(*config.Config)) Option { return f }

// Archive turns the archive on, which is off in tests: archived messages reach their recipient with a stanza-id (XEP-0313 §3.3).
func Archive(c *config.Config) { c.Archive.Enabled = true }

// New starts a server for the domain localhost with an empty database in memory. It ends with the test, which fails if a goroutine is left.
func New(t testing.TB, options ...Option) *Server {
	t.Helper()
	before := goleak.IgnoreCurrent()
	cfg := config.Default()
	cfg.Data = t.TempDir()
	cfg.Storage.DSN = ":memory:"
	local := []string{"127.0.0.1:0"}
	cfg.Listen = config.Listen{C2S: local, C2STLS: local, HTTP: local, HTTPS: local, Component: local}
	cfg.Archive.Enabled = false
	for _, o := range options {
		o(cfg)
	}
	set, err := certs.Load(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Config: cfg, t: t}
	s.Server, err = server.New(context.Background(), cfg, set, slog.New(slog.NewTextHandler(logTo{t}, &slog.HandlerOptions{Level: slog.LevelDebug})), "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range s.clients() {
			_ = c.conn.Close()
			c.wait()
		}
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if !t.Failed() {
			goleak.VerifyNone(t, before,
				goleak.IgnoreAnyFunction("balcony/storage/storagetest/pgtest.(*Server).run.func1")) // a database that the test started again
		}
	})
	return s
}

// Foreign is a server that this package does not run, with a STARTTLS listener for clients at addr: only Dial may be used of it, and what clients do.
func Foreign(t testing.TB, addr net.Addr) *Server { return &Server{t: t, foreign: addr} }

// Stop shuts the server down before the test ends.
func (s *Server) Stop(ctx context.Context) error {
	s.stop.Do(func() { s.stopped = s.Shutdown(ctx) })
	return s.stopped
}

// logTo writes the server's log to the test's, while the test runs.
type logTo struct{ t testing.TB }

func (l logTo) Write(b []byte) (int, error) {
	l.t.Logf("%s", b[:len(b)-1])
	return len(b), nil
}

// Addr is the address of a listener, by its name in the configuration.
func (s *Server) Addr(name string) net.Addr {
	if s.foreign != nil {
		return s.foreign
	}
	a := s.Addrs()[name]
	if len(a) == 0 {
		s.t.Fatalf("no listener %s", name)
	}
	return a[0]
}

// Account makes an account whose password is its localpart, unless it is there.
func (s *Server) Account(bare string) jid.JID {
	s.t.Helper()
	j := jid.MustParse(bare)
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := s.Accounts().Add(ctx, j, j.Localpart()); err != nil && !errors.Is(err, auth.ErrAccountExists) {
		s.t.Fatalf("add account %s: %v", bare, err)
	}
	return j
}

// Eventually waits until ok, for what the server does on its own time, such as the end of a cut connection.
func (s *Server) Eventually(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if ok() {
			return
		}
	}
	s.t.Fatalf("%s did not happen", what)
}

func (s *Server) add(c *Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.online = append(s.online, c)
}

func (s *Server) remove(c *Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, o := range s.online {
		if o == c {
			s.online = append(s.online[:i:i], s.online[i+1:]...)
			return
		}
	}
}

func (s *Server) clients() []*Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Client(nil), s.online...)
}

// Offline is the number of messages in an account's offline spool.
func (s *Server) Offline(bare string) int {
	s.t.Helper()
	n, err := s.DB().CountOffline(context.Background(), jid.MustParse(bare))
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// EmptySpool deletes an account's offline messages.
func (s *Server) EmptySpool(bare string) {
	s.t.Helper()
	if err := s.DB().RemoveOffline(context.Background(), jid.MustParse(bare), 1<<62); err != nil {
		s.t.Fatal(err)
	}
}

// Available reports whether a full JID has sent presence.
func (s *Server) Available(full string) bool {
	j := jid.MustParse(full)
	for _, o := range s.Sessions(j.Bare()) {
		if o.JID().Equal(j) {
			return o.Presence() != nil
		}
	}
	return false
}
