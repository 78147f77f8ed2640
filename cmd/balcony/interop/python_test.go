package interop

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// installed checks that a Debian package is there.
func installed(t *testing.T, path, debian string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: install the Debian package %s (make deps)", err, debian)
	}
}

// python runs a scenario of a script in testdata against the server with Debian's Python, and compares the facts that it prints with
// those of a file in testdata, where lines that start with # are comments.
func (s *server) python(script, scenario, want string) {
	s.t.Helper()
	port := func(listener string) int {
		_, port, ok := strings.Cut(s.addrs[listener], ":")
		if !ok {
			return 0
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			s.t.Fatal(err)
		}
		return n
	}
	options, err := json.Marshal(map[string]any{
		"host": "127.0.0.1", "starttls": port("c2s"), "direct_tls": port("c2s_tls"), "component": port("component"), "password": password, "seconds": patience.Seconds() - 10, // so that it says where it waits
		"certificates": map[string]string{"localhost": s.certificate("localhost"), "open.test": s.certificate("open.test"),
			"rsa256.test": filepath.Join(s.dir, "rsa256.test.crt"), "rsa384.test": filepath.Join(s.dir, "rsa384.test.crt")},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	file, err := os.ReadFile("testdata/" + want)
	if err != nil {
		s.t.Fatal(err)
	}
	var facts []string
	for line := range strings.Lines(string(file)) {
		if !strings.HasPrefix(line, "#") {
			facts = append(facts, strings.TrimSuffix(line, "\n"))
		}
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(within(s.t), "/usr/bin/python3", "testdata/"+script, scenario, string(options))
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+s.certificate("localhost"), // what HTTP clients trust
		"PYTHONDONTWRITEBYTECODE=1") // a script imports another
	err = cmd.Run()
	diff := cmp.Diff(facts, strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n"))
	if err == nil && diff == "" {
		return
	}
	said := errs.Bytes()
	const most = 20000 // chosen: the last seconds
	said = said[max(0, len(said)-most):]
	s.t.Errorf("%s %s: %v (-want +got):\n%s\n%s", script, scenario, err, diff, said)
}
