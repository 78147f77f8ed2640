// Package interop has clients that we did not write talk to the real program.
//
// Which of them logs in by which mechanism; the tests check it by the server's own count:
//
//	mechanism           TLS 1.2                         TLS 1.3
//	SCRAM-SHA-512-PLUS  slixmpp (tls-unique)
//	SCRAM-SHA-256-PLUS  slixmpp, mellium (tls-unique)   mellium (tls-exporter), aioxmpp (tls-server-end-point)
//	SCRAM-SHA-1-PLUS    slixmpp, mellium (tls-unique)   mellium (tls-exporter), aioxmpp (tls-server-end-point)
//	SCRAM-SHA-512                                       Profanity, nbxmpp
//	SCRAM-SHA-256       mellium                         mellium, nbxmpp, aioxmpp
//	SCRAM-SHA-1         mellium                         mellium, nbxmpp
//	PLAIN               slixmpp, mellium                slixmpp, mellium, nbxmpp, go-sendxmpp
//
// None of them can do SCRAM-SHA-512-PLUS with TLS 1.3.
package interop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"balcony/cmd/balcony/programtest"

	"github.com/google/go-cmp/cmp"
)

const (
	// patience is how long a client may take for everything that a test has it do.
	patience = 60 * time.Second
	// password is that of every account: what a client has to encode right in SASL, in XML and on its command line.
	password = `Sésame, open="1"`
)

// binary is the program, built by TestMain.
var binary string

func TestMain(m *testing.M) { os.Exit(programtest.Main(&binary, m.Run)) }

// within is a context for everything that a test waits for.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

const configuration = `
[[domain]]
name = "localhost"
admins = ["admin@localhost"]

[[domain]]
name = "open.test"
registration = "open"

[listen]
c2s = ["127.0.0.1:0"]
c2s_tls = ["127.0.0.1:0"]
s2s = []
s2s_tls = []
http = ["127.0.0.1:0"]
https = []
component = []

[log]
level = "debug"
`

// server is the program at work.
type server struct {
	t     *testing.T
	dir   string
	cmd   *exec.Cmd
	addrs map[string]string // listener → address
	ended chan struct{}     // closed when the log has ended
	names [][2]string       // full JIDs with a resource that the server made up, and what the test calls them

	mu  sync.Mutex
	log bytes.Buffer
}

// start runs the program, and stops it when the test ends.
func start(t *testing.T, accounts ...string) *server {
	t.Helper()
	return startIn(t, t.TempDir(), configuration, accounts...)
}

func startIn(t *testing.T, dir, configuration string, accounts ...string) *server {
	t.Helper()
	s := &server{t: t, dir: dir, addrs: make(map[string]string), ended: make(chan struct{})}
	if err := os.WriteFile(filepath.Join(s.dir, "balcony.toml"), []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	s.cmd = s.program("serve")
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	go func() {
		defer close(s.ended)
		for lines := bufio.NewScanner(errs); lines.Scan(); {
			s.mu.Lock()
			s.log.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
		}
	}()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		for _, m := range regexp.MustCompile(`([a-z0-9_]+) (127\.0\.0\.1:\d+)`).FindAllStringSubmatch(lines.Text(), -1) {
			s.addrs[m[1]] = m[2]
		}
		if strings.HasPrefix(lines.Text(), "add an account") {
			break
		}
	}
	if len(s.addrs) == 0 {
		t.Fatal("the server did not start")
	}
	for _, account := range accounts {
		s.balcony(password+"\n", "user", "add", account)
	}
	return s
}

// program is a command line of balcony.
func (s *server) program(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // the race detector waits a second for nothing
	return cmd
}

// balcony runs a command line, which must succeed.
func (s *server) balcony(stdin string, args ...string) {
	s.t.Helper()
	cmd := s.program(args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("balcony %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// stop ends the server as an operator does. A test that failed shows its log.
func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended; then its status tells
	timer := time.AfterFunc(patience, func() { _ = s.cmd.Process.Kill() })
	<-s.ended
	err := s.cmd.Wait()
	timer.Stop()
	if err != nil {
		s.t.Errorf("the server: %v", err)
	}
	if s.t.Failed() {
		s.t.Logf("log of the server:\n%s", &s.log)
	}
}

// certificate is the path of a domain's self-signed certificate.
func (s *server) certificate(domain string) string {
	return filepath.Join(s.dir, "balcony-data", "certificates", domain+".crt")
}

// tls is a client's configuration that trusts this server and nothing else.
func (s *server) tls(domain string) *tls.Config {
	s.t.Helper()
	pem, err := os.ReadFile(s.certificate(domain))
	if err != nil {
		s.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		s.t.Fatal("no certificate of " + domain)
	}
	return &tls.Config{ServerName: domain, RootCAs: roots}
}

// named puts the test's names for full JIDs in a text.
func (s *server) named(text string) string {
	for _, n := range s.names {
		text = strings.ReplaceAll(text, n[0], n[1])
	}
	return goSendxmppResource.ReplaceAllString(text, "/go-sendxmpp")
}

// jid is the JID of a session by its name; the last one, if several have had that name.
func (s *server) jid(name string) string {
	for _, n := range slices.Backward(s.names) {
		if n[1] == name {
			return n[0]
		}
	}
	return name
}

// logins checks how often which mechanism has been tried with which result since the server started, such as
// {"SCRAM-SHA-1 success": 1}.
func (s *server) logins(want map[string]int) {
	s.t.Helper()
	resp, err := http.Get("http://" + s.addrs["http"] + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	got := make(map[string]int)
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		var mechanism, result string
		var n int
		if _, err := fmt.Sscanf(lines.Text(), "balcony_auth_total{mechanism=%q,result=%q} %d", &mechanism, &result, &n); err == nil {
			got[mechanism+" "+result] = n
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("logins (-want +got):\n%s", diff)
	}
}
