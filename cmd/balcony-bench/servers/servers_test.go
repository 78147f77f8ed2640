package servers

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func newEnv(t *testing.T) *Env {
	e, err := NewEnv(t.TempDir(), "localhost", "nobody")
	if err != nil {
		t.Fatal(err)
	}
	e.Credential = nil // the test's folder is closed to others
	return e
}

func TestCertificate(t *testing.T) {
	e := newEnv(t)
	pair, err := tls.LoadX509KeyPair(e.Cert, e.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Leaf.VerifyHostname("localhost"); err != nil {
		t.Error(err)
	}
}

func TestNewKnowsAllNames(t *testing.T) {
	for _, name := range Names {
		s, err := New(name, nil)
		if err != nil || s.Name() != name {
			t.Errorf("New(%q): %v, %v", name, s, err)
		}
	}
	if _, err := New("jabberd14", nil); err == nil {
		t.Error("an unknown server was made")
	}
}

// TestProsodyAccount compares with a file that prosodyctl adduser wrote, apart from the values.
func TestProsodyAccount(t *testing.T) {
	e := newEnv(t)
	p := &prosody{env: e, name: "prosody"}
	if err := p.Prepare(t.Context(), []string{"romeo"}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(e.Dir, "prosody", "data", "localhost", "accounts", "romeo.dat"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"return {\n", `["iteration_count"] = 10000;`, `["salt"] = "`, `["server_key"] = "`, `["stored_key"] = "`, "};\n"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %q in\n%s", want, b)
		}
	}
}

func TestLaunchAndStop(t *testing.T) {
	e := newEnv(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, err := e.launch(t.Context(), e.Dir, l.Addr().String(), nil, "/bin/sleep", "600")
	if err != nil {
		t.Fatal(err)
	}
	if p.Ended() {
		t.Error("ended by itself")
	}
	p.Stop()
	if !p.Ended() {
		t.Error("still running")
	}
}

func TestLaunchReportsOutput(t *testing.T) {
	e := newEnv(t)
	addr, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.launch(t.Context(), e.Dir, addr, nil, "/bin/sh", "-c", "echo no such option; exit 1")
	if err == nil || !strings.Contains(err.Error(), "no such option") {
		t.Errorf("got %v", err)
	}
}

func TestSize(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]int{"x": 1, "a/y": 20, "a/b/z": 300} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := Size(dir); err != nil || n != 321 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := Size(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a folder that is not there has a size")
	}
}
