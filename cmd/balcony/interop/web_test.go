package interop

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestInteropWeb has strophe.js and xmpp.js go through the scenario of testdata/js/drive.mjs, over WebSocket and BOSH. What it must see is in
// testdata/js/facts.txt.
func TestInteropWeb(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("testdata/js/node_modules/strophe.js"); err != nil {
		t.Fatalf("%v: run make deps", err)
	}
	s := startIn(t, t.TempDir(), strings.Replace(configuration, "https = []", `https = ["127.0.0.1:0"]`, 1), "romeo@localhost", "juliet@localhost", "mercutio@localhost")
	_, port, _ := strings.Cut(s.addrs["https"], ":")
	options, err := json.Marshal(map[string]any{
		"websocket": "ws://" + s.addrs["http"] + "/xmpp-websocket", "bosh": "http://" + s.addrs["http"] + "/http-bind",
		"secure": "wss://localhost:" + port + "/xmpp-websocket", "password": password, "seconds": patience.Seconds() - 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/js/facts.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(within(t), "node", "testdata/js/drive.mjs", string(options))
	cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+s.certificate("localhost"))
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if diff := cmp.Diff(string(want), out.String()); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s\n%s", err, diff, &errs)
	}
}
