package chaos

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"balcony/cmd/balcony/programtest"
	"balcony/storage/storagetest/pgtest"
)

// binary is the program, built by TestMain.
var binary string

func TestMain(m *testing.M) { os.Exit(programtest.Main(&binary, func() int { return pgtest.Main(m) })) }

const configuration = `
[listen]
c2s = []
c2s_tls = ["127.0.0.1:0"]
s2s = []
s2s_tls = []
http = []
https = []
component = []

[log]
level = "debug"
`

// server is the program, which is ended and started again.
type server struct {
	t   *testing.T
	dir string

	cmd   *exec.Cmd
	addr  string
	s2s   string        // where other servers reach it; empty without such a listener
	ended chan struct{} // closed when the log has ended

	mu  sync.Mutex
	log bytes.Buffer // of all processes
}

// newServer makes a data folder. dsn is that of a PostgreSQL database, "" for SQLite.
func newServer(t *testing.T, dsn string) *server {
	t.Helper()
	text := configuration
	if dsn != "" {
		text += fmt.Sprintf("\n[storage]\ndriver = \"postgres\"\ndsn = %q\n", dsn)
	}
	return configured(t, text)
}

// configured makes a data folder with a configuration.
func configured(t *testing.T, text string) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(s.dir, "balcony.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd != nil {
			s.kill()
		}
		if t.Failed() {
			const most = 100_000
			log := s.log.Bytes()
			t.Logf("log of the server:\n%s", log[max(0, len(log)-most):])
		}
	})
	return s
}

func (s *server) program(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	return cmd
}

var (
	listening = regexp.MustCompile(`c2s_tls (127\.0\.0\.1:\d+)`)
	peering   = regexp.MustCompile(`s2s (127\.0\.0\.1:\d+)`)
)

func (s *server) start() {
	s.t.Helper()
	s.cmd, s.addr, s.s2s, s.ended = s.program("serve"), "", "", make(chan struct{})
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	errs, err := s.cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := s.ended
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(errs); lines.Scan(); {
			s.mu.Lock()
			s.log.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
		}
	}()
	lines := bufio.NewScanner(out)
	for s.addr == "" && lines.Scan() {
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			s.addr = m[1]
		}
		if m := peering.FindStringSubmatch(lines.Text()); m != nil {
			s.s2s = m[1]
		}
	}
	if s.addr == "" {
		s.t.Fatal("the server did not start")
	}
	go func() {
		for lines.Scan() {
		}
	}()
}

// term ends the server as an operator does: exit status 0 within 10 s.
func (s *server) term() {
	s.t.Helper()
	began := time.Now()
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // Wait tells
	err := s.wait()
	if took := time.Since(began); err != nil || took > 10*time.Second {
		s.t.Errorf("SIGTERM: %v after %s", err, took)
	}
}

// kill ends the server at once.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	var exit *exec.ExitError
	if err := s.wait(); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != -1) {
		s.t.Errorf("the server ended by itself: %v", err) // a data race, for example
	}
}

func (s *server) wait() error {
	<-s.ended
	err := s.cmd.Wait()
	s.cmd = nil
	return err
}

func (s *server) addAccount(jid string) {
	s.t.Helper()
	cmd := s.program("user", "add", jid)
	cmd.Stdin = strings.NewReader(password + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("add %s: %v\n%s", jid, err, out)
	}
}

// interrupt ends the server at once while it is busy with its planned end.
func (s *server) interrupt(after time.Duration) {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(after):
	}
	s.kill()
}
