package server_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// TestImports holds the direction of imports (docs/architecture.md). Test files are free.
func TestImports(t *testing.T) {
	rules := []struct {
		pkg   string   // prefix of the importing package
		allow []string // prefixes of ours that it may import
		why   string
	}{
		{"balcony/xmpp/caps", []string{"balcony/xmpp"}, "hashes of disco#info, shared by the server's own and those of clients"},
		{"balcony/xmpp/ext/", []string{"balcony/xmpp", "balcony/xmpp/caps"}, "an extension sees only the shared words, never another one"},
		{"balcony/roster", []string{"balcony/xmpp"}, "the roster is a module like the extensions"},
		{"balcony/xmpp/stream", []string{"balcony/xmpp"}, "bytes and stanzas, nothing else"},
		{"balcony/xmpp/auth", []string{"balcony/xmpp"}, "authentication knows no connection"},
		{"balcony/xmpp/router", []string{"balcony/xmpp"}, "routing knows no transport and no module"},
		{"balcony/xmpp/listen", []string{"balcony/xmpp"}, "connections, whatever is spoken on them"},
		{"balcony/xmpp/c2s", []string{"balcony/xmpp", "balcony/xmpp/listen", "balcony/xmpp/router", "balcony/xmpp/stream", "balcony/xmpp/auth"}, "a transport knows no module and no database"},
		{"balcony/xmpp/s2s", []string{"balcony/xmpp", "balcony/xmpp/listen", "balcony/xmpp/router", "balcony/xmpp/stream", "balcony/xmpp/auth"}, "a transport knows no module and no database"},
		{"balcony/xmpp/component", []string{"balcony/xmpp", "balcony/xmpp/listen", "balcony/xmpp/router", "balcony/xmpp/stream"}, "a transport knows no module and no database"},
		{"balcony/xmpp/web", []string{"balcony/xmpp", "balcony/xmpp/listen", "balcony/xmpp/router", "balcony/xmpp/stream", "balcony/xmpp/auth"}, "a transport knows no module and no database"},
		{"balcony/storage", []string{"balcony/xmpp", "balcony/xmpp/stream", "balcony/xmpp/auth", "balcony/roster", "balcony/xmpp/ext/", "balcony/storage"}, "storage knows its consumers' words"},
	}
	only := map[string]string{ // packages of others, and the only package of ours that may import them
		"database/sql":                    "balcony/storage",
		"modernc.org/sqlite":              "balcony/storage",
		"github.com/lib/pq":               "balcony/storage",
		"mellium.im/sasl":                 "balcony/xmpp/auth",
		"mellium.im/xmpp":                 "nobody: its receiving side is not used",
		"mellium.im/xmpp/xtime":           "balcony/xmpp/ext/",
		"github.com/pelletier/go-toml/v2": "balcony/cmd/balcony/config",
	}
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "balcony/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, imp := range p.Imports {
			if who, ok := only[imp]; ok && !strings.HasPrefix(p.ImportPath, who) && !strings.Contains(p.ImportPath, "test") && !strings.HasPrefix(p.ImportPath, "balcony/cmd/balcony-bench") {
				t.Errorf("%s imports %s, which is for %s", p.ImportPath, imp, who)
			}
			if !strings.HasPrefix(imp, "balcony/") {
				continue
			}
			if strings.HasPrefix(p.ImportPath, "balcony/xmpp/xmpptest") || strings.HasPrefix(p.ImportPath, "balcony/cmd/") || strings.HasPrefix(p.ImportPath, "balcony/storage/storagetest") {
				continue
			}
			if p.ImportPath == "balcony/xmpp" {
				t.Errorf("balcony/xmpp imports %s: the shared words import nothing of ours", imp)
			}
			for _, r := range rules {
				if !strings.HasPrefix(p.ImportPath, r.pkg) {
					continue
				}
				ok := false
				for _, a := range r.allow {
					ok = ok || imp == a || strings.HasSuffix(a, "/") && strings.HasPrefix(imp, a)
				}
				if !ok {
					t.Errorf("%s imports %s: %s", p.ImportPath, imp, r.why)
				}
			}
		}
	}
}
