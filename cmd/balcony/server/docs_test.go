package server_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"balcony/xmpp/xmpptest"
)

const docs = "../../../docs/"

// TestGeneratedDocs compares what is generated from the modules with docs; make docs writes them.
func TestGeneratedDocs(t *testing.T) {
	srv := xmpptest.New(t)
	for file, want := range map[string]string{"pipeline.txt": srv.Pipeline(), "protocols.md": srv.Protocols()} {
		if os.Getenv("BALCONY_WRITE_DOCS") != "" {
			if err := os.WriteFile(docs+file, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(docs + file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("docs/%s is stale: run make docs\n%s", file, want)
		}
	}
}

// TestArchitectureNames checks that the functions which docs/architecture.md names exist.
func TestArchitectureNames(t *testing.T) {
	page, err := os.ReadFile(docs + "architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := exec.Command("sh", "-c", "cat ../../../xmpp/*.go ../../../xmpp/*/*.go ../../../xmpp/ext/*/*.go ../*.go ../*/*.go ../../../roster/*.go ../../../storage/*.go").Output()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range regexp.MustCompile("`([a-zA-Z0-9.]+)`").FindAllStringSubmatch(string(page), -1) {
		parts := strings.Split(name[1], ".")
		last := parts[len(parts)-1]
		if last == "go" || last == "txt" || len(parts) == 1 && strings.ToLower(last) == last {
			continue
		}
		n++
		if !regexp.MustCompile(`(func (\([a-z]* \*?[a-zA-Z]+\) )?|type |\t)` + last + `\b`).Match(source) {
			t.Errorf("docs/architecture.md names %s, which does not exist", name[1])
		}
	}
	if n < 15 {
		t.Errorf("docs/architecture.md names only %d functions", n)
	}
}
