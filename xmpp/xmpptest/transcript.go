package xmpptest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Transcripts runs wire transcripts, a file a subtest, each against a server of its own. A transcript is lines without indentation
// that say what happens, each with indented XML below where it needs some:
//
//	# XEP-0199 §4.2: a comment names where the exchange comes from
//	romeo connects                           (as romeo@localhost/romeo)
//	juliet connects as juliet@localhost/balcony
//	romeo goes online                        (initial presence, own echo read)
//	romeo sends
//		<iq …/>
//	romeo receives
//		<iq …/>
//	romeo receives in any order
//		<presence …/>
//		<message …/>
//	romeo gets nothing
//	romeo disconnects
//	romeo closes
//
// In expected XML {any} matches any value; {x} captures one and is the same from then on, in what is sent as well.
func Transcripts(t *testing.T, pattern string, options ...Option) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts match %s: %v", pattern, err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			run(t, New(t, options...), f, string(text))
		})
	}
}

func run(t *testing.T, srv *Server, file, text string) {
	t.Helper()
	clients := make(map[string]*Client)
	vars := make(map[string]string)
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); {
		line := strings.TrimSpace(lines[i])
		at := fmt.Sprintf("%s:%d", file, i+1)
		i++
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		var body []string
		for i < len(lines) && (strings.TrimSpace(lines[i]) == "" || strings.HasPrefix(lines[i], "\t") || strings.HasPrefix(lines[i], " ")) {
			body = append(body, lines[i])
			i++
		}
		step(t, srv, clients, vars, at, line, strings.TrimSpace(strings.Join(body, "\n")))
		if t.Failed() {
			return
		}
	}
}

func step(t *testing.T, srv *Server, clients map[string]*Client, vars map[string]string, at, line, body string) {
	t.Helper()
	name, action, _ := strings.Cut(line, " ")
	defer func() {
		if t.Failed() {
			t.Logf("%s: %s", at, line)
		}
	}()
	if as, ok := strings.CutPrefix(action, "connects"); ok {
		full := name + "@localhost/" + name
		if j, ok := strings.CutPrefix(as, " as "); ok {
			full = strings.TrimSpace(j)
		}
		c := srv.Client(full)
		c.vars = vars
		clients[name] = c
		return
	}
	c := clients[name]
	if c == nil {
		t.Fatalf("%s: %s has not connected", at, name)
	}
	switch action {
	case "goes online":
		c.Online()
	case "sends":
		c.Send(body)
	case "receives":
		want, err := parse(body)
		if err != nil || len(want) == 0 {
			t.Fatalf("%s: expected XML: %v", at, err)
		}
		for _, w := range want {
			got := c.Read()
			if err := match(w, got, vars); err != nil {
				t.Fatalf("%s: %s received\n\t%s\nwant\n\t%s\n%v", at, name, got, w, err)
			}
		}
	case "receives in any order":
		c.ExpectAll(body)
	case "gets nothing":
		c.ExpectNothing()
	case "disconnects":
		c.Disconnect()
	case "closes":
		c.Close()
	default:
		t.Fatalf("%s: what does %q mean?", at, line)
	}
}
