package interop

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// goSendxmpp is a command line of go-sendxmpp, which trusts this server's certificate and has a home of its own.
func (s *server) goSendxmpp(account string, args ...string) *exec.Cmd {
	s.t.Helper()
	const path = "/usr/bin/go-sendxmpp"
	installed(s.t, path, "go-sendxmpp")
	cmd := exec.CommandContext(within(s.t), path, append([]string{"-u", account, "-p", password}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+s.t.TempDir(), "SSL_CERT_FILE="+s.certificate("localhost"))
	return cmd
}

// address is what go-sendxmpp wants as -j: the host is what the certificate is checked for.
func (s *server) address(listener string) string {
	_, port, _ := strings.Cut(s.addrs[listener], ":")
	return "localhost:" + port
}

// TestInteropGoSendxmpp sends and receives with go-sendxmpp. Debian's has PLAIN only.
func TestInteropGoSendxmpp(t *testing.T) {
	t.Parallel()
	s := start(t, "romeo@localhost", "juliet@localhost", "nurse@localhost")
	juliet := s.mellium("juliet@localhost/balcony").online()
	send := func(text string, args ...string) {
		t.Helper()
		cmd := s.goSendxmpp("romeo@localhost", args...)
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("go-sendxmpp %q: %v\n%s", args, err, out)
		}
	}
	send("Art thou not <Romeo>? 🌹", "-j", s.address("c2s"), "juliet@localhost")
	juliet.expect("message chat from romeo@localhost/go-sendxmpp: Art thou not <Romeo>? 🌹")
	send("by direct TLS", "-t", "-j", s.address("c2s_tls"), "juliet@localhost")
	juliet.expect("message chat from romeo@localhost/go-sendxmpp: by direct TLS")

	// The nurse listens: first what came while she was away (XEP-0160 §2), then what comes, until the server ends her session.
	send("for later", "-j", s.address("c2s"), "nurse@localhost")
	nurse := s.goSendxmpp("nurse@localhost", "-l", "-j", s.address("c2s"))
	var errs bytes.Buffer
	nurse.Stderr = &errs
	out, err := nurse.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := nurse.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	heard := func(want string) {
		t.Helper()
		if !lines.Scan() || !strings.HasSuffix(lines.Text(), want) {
			t.Errorf("go-sendxmpp -l printed %q, want …%q\n%s", lines.Text(), want, &errs)
		}
	}
	heard("for later")
	juliet.say("nurse@localhost", "Anon, good nurse!")
	heard("Anon, good nurse!")
	if err := nurse.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = nurse.Wait() // killed

	wrong := s.goSendxmpp("romeo@localhost", "-p", "wrong", "-j", s.address("c2s"), "juliet@localhost")
	wrong.Stdin = strings.NewReader("x")
	if out, err := wrong.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("not-authorized")) {
		t.Errorf("a wrong password: %v, want not-authorized\n%s", err, out)
	}
	juliet.nothingElse()
	s.logins(map[string]int{"PLAIN success": 4, "PLAIN not-authorized": 1, "SCRAM-SHA-256-PLUS success": 1})
}

// goSendxmppResource is what go-sendxmpp calls itself.
var goSendxmppResource = regexp.MustCompile(`/go-sendxmpp\.[0-9a-f]+`)
