package interop

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// browsing is how long a browser may take for its scenario. chosen: six times of what it takes on a busy machine
const browsing = 4 * time.Minute

// TestInteropConverse has Converse.js go through the scenario of testdata/js/browse.mjs in Chromium, for two users: one over WebSocket, which
// it finds by XEP-0156, and one over BOSH. What they must see is in testdata/js/converse.txt; the pictures of their pages are kept with
// "go test -artifacts".
func TestInteropConverse(t *testing.T) {
	t.Parallel()
	const browser = "/usr/bin/chromium"
	installed(t, browser, "chromium")
	const dist = "testdata/js/node_modules/converse.js/dist"
	if _, err := os.Stat(dist); err != nil {
		t.Fatalf("%v: run make deps", err)
	}
	config := strings.NewReplacer(`https = []`, `https = ["127.0.0.1:0"]`, `name = "localhost"`, `name = "verona.test"`, `admin@localhost`, `admin@verona.test`).Replace(configuration)
	s := startIn(t, t.TempDir(), config, "romeo@verona.test", "juliet@verona.test")

	// The page is of another origin than the server.
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "testdata/js/converse.html") })
	mux.Handle("GET /", http.FileServer(http.Dir(dist)))
	page := httptest.NewServer(mux)
	t.Cleanup(page.Close)

	files := t.TempDir()
	picture, file := filepath.Join(files, "rose.png"), filepath.Join(files, "farewell.txt")
	for path, content := range map[string][]byte{picture: rose(t), file: bytes.Repeat([]byte("Good night, good night! – "), 1000)} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	options, err := json.Marshal(map[string]any{
		"browser": browser, "page": page.URL + "/", "domain": "verona.test", "https": s.addrs["https"], "bosh": "http://" + s.addrs["http"] + "/http-bind",
		"key": s.publicKey("verona.test"), "password": password, "picture": picture, "file": file, "pictures": t.ArtifactDir(), "seconds": browsing.Seconds() - 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/js/converse.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.Command("node", "testdata/js/browse.mjs", string(options))
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(browsing, func() { _ = cmd.Process.Signal(syscall.SIGTERM) }) // it ends the browser too
	err = cmd.Wait()
	timer.Stop()
	if diff := cmp.Diff(string(want), out.String()); err != nil || diff != "" {
		said := errs.Bytes()
		const most = 60000 // chosen: what the last streams said
		t.Errorf("%v (-want +got):\n%s\n%s", err, diff, said[max(0, len(said)-most):])
	}
	s.logins(map[string]int{"SCRAM-SHA-512 success": 3}) // once for each, and once more to resume
}

// publicKey is what a browser calls a domain's key by: the hash of the SubjectPublicKeyInfo.
func (s *server) publicKey(domain string) string {
	s.t.Helper()
	b, err := os.ReadFile(s.certificate(domain))
	if err != nil {
		s.t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		s.t.Fatal("no certificate of " + domain)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		s.t.Fatal(err)
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// rose is a picture of 320×200 pixels.
func rose(t *testing.T) []byte {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, 320, 200))
	for x := range 320 {
		for y := range 200 {
			m.SetRGBA(x, y, color.RGBA{R: 200, G: uint8(x * 255 / 320), B: uint8(y * 255 / 200), A: 255})
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
