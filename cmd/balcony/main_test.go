package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain is also the program: these tests run it as a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("BALCONY_TEST_PROGRAM") != "" {
		os.Exit(run(os.Args[1:], std{os.Stdin, os.Stdout, os.Stderr}))
	}
	os.Exit(m.Run())
}

// patience is how long a test waits for something that must happen.
const patience = 30 * time.Second

// program is a command line of balcony that runs in dir.
func program(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "BALCONY_TEST_PROGRAM=1", "GORACE=atexit_sleep_ms=0") // the race detector waits a second for nothing
	return cmd
}

// result is what a command line said and how it ended.
type result struct {
	out, err string
	status   int
}

func balcony(t *testing.T, dir, stdin string, args ...string) result {
	t.Helper()
	cmd := program(t, dir, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// expect runs a command line that must succeed and print out.
func expect(t *testing.T, dir, stdin, out string, args ...string) {
	t.Helper()
	if r := balcony(t, dir, stdin, args...); r.status != 0 || r.out != out || r.err != "" {
		t.Errorf("balcony %s: status %d, output %q, want %q; errors:\n%s", strings.Join(args, " "), r.status, r.out, out, r.err)
	}
}

// fails runs a command line that must fail with a status and a message.
func fails(t *testing.T, dir, stdin string, status int, message string, args ...string) {
	t.Helper()
	if r := balcony(t, dir, stdin, args...); r.status != status || r.out != "" || !strings.Contains(r.err, message) {
		t.Errorf("balcony %s: status %d, want %d; output %q, errors:\n%swant %q", strings.Join(args, " "), r.status, status, r.out, r.err, message)
	}
}

const local = `
[listen]
c2s = ["127.0.0.1:0"]
c2s_tls = ["127.0.0.1:0"]
s2s = []
s2s_tls = []
http = ["127.0.0.1:0"]
https = ["127.0.0.1:0"]
component = []
`

// configure makes a folder with a configuration for free ports.
func configure(t *testing.T, more string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	write(t, filepath.Join(dir, "balcony.toml"), more+local)
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// process is a running server.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	start string            // what it printed when it had started
	addrs map[string]string // listener → address
	ended chan struct{}     // closed when the process and its log have ended

	mu   sync.Mutex
	log  []string
	more chan struct{} // closed and replaced with each line
}

func start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: program(t, dir, append([]string{"serve"}, args...)...), addrs: make(map[string]string), ended: make(chan struct{}), more: make(chan struct{})}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		for s := bufio.NewScanner(errs); s.Scan(); {
			p.mu.Lock()
			p.log = append(p.log, s.Text())
			close(p.more)
			p.more = make(chan struct{})
			p.mu.Unlock()
		}
		_ = p.cmd.Wait() // the tests look at ProcessState
	}()
	t.Cleanup(func() { p.kill() })
	lines := bufio.NewScanner(out)
	for i := 0; i < 3 && lines.Scan(); i++ {
		p.start += lines.Text() + "\n"
	}
	for _, m := range regexp.MustCompile(`([a-z0-9_]+) (127\.0\.0\.1:\d+)`).FindAllStringSubmatch(p.start, -1) {
		p.addrs[m[1]] = m[2]
	}
	if len(p.addrs) == 0 {
		p.kill()
		t.Fatalf("the server did not start: %s\n%s", p.start, strings.Join(p.log, "\n"))
	}
	return p
}

// kill ends the process at once.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// logged waits for a line of the log that has all the words, among those from line from on; it returns the number of the next line.
func (p *process) logged(from int, words ...string) int {
	p.t.Helper()
	deadline := time.After(patience)
	for i := from; ; i++ {
		p.mu.Lock()
		line, ok, more := "", i < len(p.log), p.more
		if ok {
			line = p.log[i]
		}
		p.mu.Unlock()
		if !ok {
			select {
			case <-more:
				i--
				continue
			case <-deadline:
				p.t.Fatalf("not in the log: %q\n%s", words, strings.Join(p.log, "\n"))
			}
		}
		found := true
		for _, w := range words {
			found = found && strings.Contains(line, w)
		}
		if found {
			return i + 1
		}
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// stop ends the server as an operator does, and checks the contract: exit status 0 within 10 s.
func (p *process) stop() {
	p.t.Helper()
	began := time.Now()
	p.signal(syscall.SIGTERM)
	<-p.ended
	if took := time.Since(began); p.cmd.ProcessState.ExitCode() != 0 || took > 10*time.Second {
		p.t.Errorf("SIGTERM: status %d after %s\n%s", p.cmd.ProcessState.ExitCode(), took, strings.Join(p.log, "\n"))
	}
}

// client is a connection to c2s_tls, spoken by hand.
type client struct {
	t *testing.T
	*tls.Conn
	got strings.Builder
}

func (p *process) dial(domain string) *client {
	p.t.Helper()
	c, err := tls.Dial("tcp", p.addrs["c2s_tls"], &tls.Config{ServerName: domain, InsecureSkipVerify: true, NextProtos: []string{"xmpp-client"}})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	return &client{t: p.t, Conn: c}
}

// say sends a text and reads until one of the words has come; it returns which one.
func (c *client) say(text string, words ...string) string {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
	return c.until(words...)
}

func (c *client) until(words ...string) string {
	c.t.Helper()
	c.got.Reset()
	_ = c.SetReadDeadline(time.Now().Add(patience)) // an error comes back from Read
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		c.got.Write(b[:n])
		for _, w := range words {
			if strings.Contains(c.got.String(), w) {
				return w
			}
		}
		if err != nil {
			c.t.Fatalf("%v while waiting for %q; got %s", err, words, &c.got)
		}
	}
}

// login returns a bound session, or nil when the password is refused.
func (p *process) login(account, password string) *client {
	p.t.Helper()
	name, domain, _ := strings.Cut(account, "@")
	c := p.dial(domain)
	header := "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='" + domain + "' version='1.0'>"
	c.say(header, "</stream:features>")
	initial := base64.StdEncoding.EncodeToString([]byte("\x00" + name + "\x00" + password))
	if c.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>"+initial+"</auth>", "<success", "<failure") == "<failure" {
		_ = c.Close()
		return nil
	}
	c.say(header, "</stream:features>")
	c.say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "</iq>")
	return c
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	expect(t, dir, "", usage, "help")
	expect(t, dir, "", usage, "--help")
	for _, args := range [][]string{{"version"}, {"--version"}} {
		if r := balcony(t, dir, "", args...); r.status != 0 || !strings.HasPrefix(r.out, "balcony ") || strings.Count(r.out, "\n") != 1 {
			t.Errorf("%v: %+v", args, r)
		}
	}
	for _, tt := range []struct {
		message string
		args    []string
	}{
		{`there is no command "run"`, []string{"run"}},
		{`there is no command ""`, []string{""}},
		{`flag provided but not defined: -verbose`, []string{"serve", "--verbose"}},
		{`flag needs an argument: -config`, []string{"--config"}},
		{`"x" is one argument too many`, []string{"serve", "x"}},
		{`"x" is one argument too many`, []string{"check", "x"}},
		{`user add, passwd, del, list, sessions, kick, export or import?`, []string{"user"}},
		{`there is no command user "rename"`, []string{"user", "rename", "a@localhost"}},
		{`an argument is missing`, []string{"user", "add"}},
		{`"b@localhost" is one argument too many`, []string{"user", "del", "a@localhost", "b@localhost"}},
	} {
		fails(t, dir, "", 2, tt.message, tt.args...)
		fails(t, dir, "", 2, "usage:", tt.args...)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("mistakes left %v, %v", entries, err)
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	r := balcony(t, dir, "", "check")
	if r.status != 0 || r.err != "" || !strings.Contains(r.out, "data = \"./balcony-data\"\n") || !strings.Contains(r.out, "stanza = \"256KiB\"") {
		t.Errorf("defaults: %+v", r)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("check left %v, %v", entries, err)
	}
	file := filepath.Join(dir, "x.toml")
	write(t, file, "[limits]\nstanzza = 5\n[log]\nlevel = \"loud\"\n")
	want := fmt.Sprintf("balcony: %s:2: unknown key \"limits.stanzza\": did you mean \"stanza\"?\nbalcony: %s:4: log.level must be one of debug, info, warn, error, not \"loud\"\n", file, file)
	if r := balcony(t, dir, "", "check", "--config", file); r.status != 1 || r.out != "" || r.err != want {
		t.Errorf("%+v\nwant %s", r, want)
	}
	write(t, file, "[[domain]]\nname = \"example.org\"\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n[tls]\nca = [\"ca.pem\"]\n")
	for _, want := range []string{`x.toml:3: certificate of "example.org": open `, `x.toml:6: authority: open `} {
		fails(t, dir, "", 1, want, "check", "--config", file)
	}
	fails(t, dir, "", 1, "no such file", "check", "--config", "missing.toml")
}

func TestAccountsWithoutServer(t *testing.T) {
	dir := configure(t, "[[domain]]\nname = \"localhost\"\n[[domain]]\nname = \"chat.test\"\n")
	expect(t, dir, "", "", "user", "list")
	expect(t, dir, "secret\n", "added romeo@localhost\n", "user", "add", "romeo@localhost")
	expect(t, dir, "secret\r\nmore", "added juliet@chat.test\n", "user", "add", "Juliet@Chat.test")
	expect(t, dir, "no newline", "added nurse@localhost\n", "user", "add", "--config", "balcony.toml", "nurse@localhost")
	expect(t, dir, "", "nurse@localhost\nromeo@localhost\njuliet@chat.test\n", "user", "list")
	expect(t, dir, "", "juliet@chat.test\n", "user", "list", "chat.test")
	expect(t, dir, "other\n", "changed the password of romeo@localhost\n", "user", "passwd", "romeo@localhost", "--config", "balcony.toml")
	expect(t, dir, "", "deleted nurse@localhost\n", "user", "del", "nurse@localhost")
	expect(t, dir, "", "romeo@localhost\n", "user", "list", "localhost")

	fails(t, dir, "x\n", 1, "there already is an account romeo@localhost", "user", "add", "romeo@localhost")
	fails(t, dir, "x\n", 1, "there is no account nurse@localhost", "user", "passwd", "nurse@localhost")
	fails(t, dir, "", 1, "there is no account nurse@localhost", "user", "del", "nurse@localhost")
	fails(t, dir, "x\n", 1, "elsewhere.test", "user", "add", "romeo@elsewhere.test")
	fails(t, dir, "", 1, "elsewhere.test", "user", "list", "elsewhere.test")
	fails(t, dir, "", 1, "the password is empty", "user", "add", "x@localhost")
	fails(t, dir, "\n", 1, "the password is empty", "user", "add", "x@localhost")
	fails(t, dir, strings.Repeat("x", 1024)+"\n", 1, "the password is longer than 1023 bytes", "user", "add", "x@localhost")
	fails(t, dir, "\xff\n", 1, "the password is not UTF-8", "user", "add", "x@localhost")
	for _, bad := range []string{"romeo", "romeo@localhost/orchard", "@localhost", "ro meo@localhost"} {
		fails(t, dir, "x\n", 1, fmt.Sprintf("%q is not an account such as you@localhost", bad), "user", "add", bad)
	}
	for _, path := range []string{"balcony-data", "balcony-data/balcony.db"} {
		if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v %v", path, info.Mode(), err)
		}
	}
}

// An account moves out and in again, with and without a running server.
func TestExportAndImport(t *testing.T) {
	dir := configure(t, "")
	file := filepath.Join(dir, "romeo.xml")
	expect(t, dir, "secret\n", "added romeo@localhost\n", "user", "add", "romeo@localhost")
	expect(t, dir, "", "", "user", "export", "romeo@localhost", file)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, dir, "", string(text), "user", "export", "romeo@localhost")
	fails(t, dir, "", 1, "there is no account nurse@localhost", "user", "export", "nurse@localhost", filepath.Join(dir, "nurse.xml"))
	for _, name := range []string{"nurse.xml", ".balcony-export-*"} {
		if left, _ := filepath.Glob(filepath.Join(dir, name)); len(left) > 0 {
			t.Errorf("a failure left %v", left)
		}
	}
	expect(t, dir, "", "deleted romeo@localhost\n", "user", "del", "romeo@localhost")
	expect(t, dir, "", "imported romeo@localhost\n", "user", "import", file)
	expect(t, dir, "", "deleted romeo@localhost\n", "user", "del", "romeo@localhost")

	p := start(t, dir)
	expect(t, dir, string(text), "imported romeo@localhost\n", "user", "import", "-")
	c := p.login("romeo@localhost", "secret")
	if c == nil {
		t.Fatal("the password is another one")
	}
	fails(t, dir, "", 1, "romeo@localhost: the account has data already", "user", "import", file)
	expect(t, dir, "", string(text), "user", "export", "romeo@localhost")
	fails(t, dir, "", 1, "there is no account nurse@localhost", "user", "export", "nurse@localhost")
	write(t, file, "<server-data xmlns='urn:xmpp:pie:0'>\n<host jid='localhost'>\n<user name='nurse'><x/></user>\n</hos")
	r := balcony(t, dir, "", "user", "import", file)
	if r.status != 1 || r.out != "imported nurse@localhost\n" || !strings.Contains(r.err, "balcony: line 4, column 6: ") || !strings.Contains(r.err, "balcony: warning: line 3: <x xmlns='urn:xmpp:pie:0'> is not taken over\n") {
		t.Errorf("%+v", r)
	}
	fails(t, dir, "", 1, "no such file", "user", "import", "missing.xml")

	// The server remembers nothing of how the account logged in before.
	expect(t, dir, "", "deleted romeo@localhost\n", "user", "del", "romeo@localhost")
	if p.login("romeo@localhost", "secret") != nil {
		t.Error("a deleted account logs in")
	}
	write(t, file, "<server-data xmlns='urn:xmpp:pie:0'><host jid='localhost'><user name='romeo' password='another'/></host></server-data>")
	expect(t, dir, "", "imported romeo@localhost\n", "user", "import", file)
	if p.login("romeo@localhost", "another") == nil {
		t.Error("no login with the password of the document")
	}
	if p.login("romeo@localhost", "secret") != nil {
		t.Error("a login with the password of before")
	}
	expect(t, dir, "", "deleted romeo@localhost\n", "user", "del", "romeo@localhost")
	expect(t, dir, string(text), "imported romeo@localhost\n", "user", "import", "-") // credentials, not a password
	if p.login("romeo@localhost", "secret") == nil {
		t.Error("no login with the password of which the document has the verifiers")
	}
	if p.login("romeo@localhost", "another") != nil {
		t.Error("a login with the password of before")
	}
	p.stop()
}

func TestServeFromStartToStop(t *testing.T) {
	dir := configure(t, "")
	p := start(t, dir)
	if !strings.Contains(p.start, " serves localhost\n") || !strings.HasSuffix(p.start, "\nadd an account: balcony user add you@localhost\n") {
		t.Errorf("greeting:\n%s", p.start)
	}
	for _, name := range []string{"c2s", "c2s_tls", "http", "https"} {
		if p.addrs[name] == "" {
			t.Errorf("no address of %s in\n%s", name, p.start)
		}
	}
	for path, want := range map[string]string{"/healthz": "ok\n", "/metrics": "go_goroutines"} {
		resp, err := http.Get("http://" + p.addrs["http"] + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d %.200s %v", path, resp.StatusCode, body, err)
		}
	}

	// What the command line does while the server runs takes effect at once.
	if p.login("romeo@localhost", "secret") != nil {
		t.Error("an account that does not exist can log in")
	}
	expect(t, dir, "secret\n", "added romeo@localhost\n", "user", "add", "romeo@localhost")
	expect(t, dir, "", "romeo@localhost\n", "user", "list")
	fails(t, dir, "secret\n", 1, "there already is an account romeo@localhost", "user", "add", "romeo@localhost")
	fails(t, dir, "secret\n", 1, "elsewhere.test", "user", "add", "romeo@elsewhere.test")
	romeo := p.login("romeo@localhost", "secret")
	if romeo == nil {
		t.Fatal("a new account cannot log in")
	}
	expect(t, dir, "other\n", "changed the password of romeo@localhost\n", "user", "passwd", "romeo@localhost")
	romeo.until("</stream:stream>")
	if p.login("romeo@localhost", "secret") != nil {
		t.Error("the old password still works")
	}
	if romeo = p.login("romeo@localhost", "other"); romeo == nil {
		t.Fatal("the new password does not work")
	}
	expect(t, dir, "", "deleted romeo@localhost\n", "user", "del", "romeo@localhost")
	romeo.until("</stream:stream>")
	if p.login("romeo@localhost", "other") != nil {
		t.Error("a deleted account can log in")
	}
	p.logged(0, "account deleted", "jid=romeo@localhost")

	// A second server on the same data folder.
	fails(t, dir, "", 1, fmt.Sprintf("the data folder balcony-data is in use by another balcony (process %d)", p.cmd.Process.Pid), "serve")

	expect(t, dir, "secret\n", "added juliet@localhost\n", "user", "add", "juliet@localhost")
	juliet := p.login("juliet@localhost", "secret")
	p.stop()
	juliet.until("system-shutdown") // RFC 6120 §4.9.3.20
	if _, err := os.Lstat(filepath.Join(dir, "balcony-data", "balcony.sock")); err == nil {
		t.Error("the control socket is left")
	}
	for _, line := range p.log {
		if strings.Contains(line, "secret") || strings.Contains(line, "level=ERROR") {
			t.Errorf("log: %s", line)
		}
	}
	expect(t, dir, "", "juliet@localhost\n", "user", "list")
}

func TestKilledServerLeavesNothingInTheWay(t *testing.T) {
	dir := configure(t, "")
	p := start(t, dir)
	expect(t, dir, "secret\n", "added romeo@localhost\n", "user", "add", "romeo@localhost")
	p.kill()
	// The socket is still there, the lock is not.
	expect(t, dir, "", "romeo@localhost\n", "user", "list")
	p = start(t, dir)
	expect(t, dir, "", "romeo@localhost\n", "user", "list")
	if p.login("romeo@localhost", "secret") == nil {
		t.Error("an account that was added before the crash cannot log in")
	}
	p.stop()
}

func TestReload(t *testing.T) {
	dir := configure(t, "")
	p := start(t, dir)
	shown := func(listener string) string {
		t.Helper()
		c, err := tls.Dial("tcp", p.addrs[listener], &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	file := filepath.Join(dir, "balcony.toml")
	before := shown("c2s_tls")

	write(t, file, "[log]\nlevel = \"debug\"\nformat = \"json\"\n[limits]\nlogin_tries = 3\n"+local)
	p.signal(syscall.SIGHUP)
	at := p.logged(0, "level=INFO", `msg="configuration changed" key=limits.login_tries effect="for new connections"`)
	at = p.logged(at, "level=INFO", `msg="configuration changed" key=log.level effect=now`)
	at = p.logged(at, "level=WARN", `msg="configuration changed" key=log.format effect="after a restart"`)
	at = p.logged(at, `msg="configuration and certificates reloaded" changes=3`)

	// A configuration with errors changes nothing.
	write(t, file, "[log]\nlevle = \"info\"\n[limits]\nstanza = 1\n"+local)
	p.signal(syscall.SIGHUP)
	at = p.logged(at, "level=ERROR", "configuration not reloaded, the old one stays", `balcony.toml:2: unknown key \"log.levle\"`)
	at = p.logged(at, "level=ERROR", "configuration not reloaded, the old one stays", "balcony.toml:4: limits.stanza must be at least 10000")
	write(t, file, "[[domain]]\nname = \"localhost\"\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n"+local)
	p.signal(syscall.SIGHUP)
	at = p.logged(at, "level=ERROR", "configuration not reloaded, the old one stays", "balcony.toml:3: certificate of ")
	if shown("c2s_tls") != before {
		t.Error("the certificate has changed")
	}

	// New certificates are shown at once, on every listener.
	other := t.TempDir()
	write(t, filepath.Join(other, "balcony.toml"), local)
	q := start(t, other) // makes a certificate for localhost
	q.stop()
	for from, to := range map[string]string{"localhost.crt": "c.pem", "localhost.key": "k.pem"} {
		text, err := os.ReadFile(filepath.Join(other, "balcony-data", "certificates", from))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, to), string(text))
	}
	p.signal(syscall.SIGHUP)
	at = p.logged(at, `key="domain \"localhost\".certificate" effect=now`)
	at = p.logged(at, `key="domain \"localhost\".key" effect=now`)
	p.logged(at, "configuration and certificates reloaded")
	after := shown("c2s_tls")
	if after == before || shown("https") != after {
		t.Error("the new certificate is not shown everywhere")
	}
	p.stop()
}

func TestServeSaysWhyItDoesNotStart(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for _, name := range []string{"c2s", "c2s_tls", "http", "https"} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "balcony.toml"), strings.Replace(local, "\n"+name+" = [\"127.0.0.1:0\"]", fmt.Sprintf("\n%s = [%q]", name, l.Addr()), 1))
		fails(t, dir, "", 1, "listener "+name+": listen tcp "+l.Addr().String()+": bind: address already in use", "serve")
		// It left nothing in the way of the next one.
		write(t, filepath.Join(dir, "balcony.toml"), local)
		start(t, dir).stop()
	}
	dir := configure(t, "datta = \"x\"\n")
	fails(t, dir, "", 1, `balcony.toml:1: unknown key "datta": did you mean "data"?`, "serve")
	fails(t, dir, "", 1, `balcony.toml:1: unknown key "datta": did you mean "data"?`)
	dir = configure(t, "data = \"balcony.toml\"\n")
	fails(t, dir, "", 1, "data folder: ", "serve")
}

// Every listener of the configuration is served, and nothing is to be warned of.
func TestAllListenersAreServed(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "x.toml"), strings.ReplaceAll(local, " = []", ` = ["127.0.0.1:0"]`))
	p := start(t, dir, "--config", "x.toml")
	for _, name := range []string{"c2s", "c2s_tls", "s2s", "s2s_tls", "http", "https", "component"} {
		if p.addrs[name] == "" {
			t.Errorf("%s is not served:\n%s", name, p.start)
		}
	}
	if !strings.HasSuffix(p.start, "add an account: balcony user add --config x.toml you@localhost\n") {
		t.Errorf("greeting:\n%s", p.start)
	}
	p.stop()
	if strings.Contains(strings.Join(p.log, "\n"), "level=WARN") {
		t.Errorf("warnings:\n%s", strings.Join(p.log, "\n"))
	}
}

func TestServiceManagerIsTold(t *testing.T) {
	dir := configure(t, "")
	socket := filepath.Join(dir, "n")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	t.Setenv("NOTIFY_SOCKET", socket)
	p := start(t, dir)
	b := make([]byte, 100)
	for _, want := range []string{"READY=1", "STOPPING=1"} {
		_ = l.SetReadDeadline(time.Now().Add(patience)) // an error comes back from Read
		n, err := l.Read(b)
		if err != nil || string(b[:n]) != want {
			t.Errorf("%q, %v; want %q", b[:n], err, want)
		}
		if want == "READY=1" {
			p.stop()
		}
	}
}
