package main

import (
	"strings"
	"testing"
	"time"

	"balcony/xmpp/s2s"
)

func TestFederationCommand(t *testing.T) {
	dir := configure(t, "\n[s2s]\nblocked = [\"blocked.test\"]\n")
	fails(t, dir, "", 1, "the server does not run", "federation")
	blocked := "domain: blocked.test, from localhost\npolicy: blocked, or not among the domains that are allowed\nresult: nothing is sent to or taken from blocked.test\n"
	expect(t, dir, "", blocked, "federation", "explain", "blocked.test")
	fails(t, dir, "", 1, "is not a domain name", "federation", "explain", "u@blocked.test")
	fails(t, dir, "", 2, "an argument is missing", "federation", "explain")
	p := start(t, dir)
	expect(t, dir, "", "REMOTE  LOCAL  DIRECTION  PROVEN BY  TLS  SM  QUEUE  UNACKED  AGE  ADDRESS\n", "federation")
	expect(t, dir, "", blocked, "federation", "explain", "blocked.test", "localhost")
	fails(t, dir, "", 1, "is not a domain of this server", "federation", "explain", "blocked.test", "elsewhere.test")
	p.stop()
}

func TestPrintStreams(t *testing.T) {
	var b strings.Builder
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	err := printStreams(&b, []s2s.Stream{
		{Local: "a.test", Remote: "b.test", Direction: "out", Address: "192.0.2.1:5270", TLS: "TLS 1.3", Direct: true, Method: "EXTERNAL", Valid: true, Bidi: true,
			SM: "resumable", Queue: 12, Unacked: 3, Since: now.Add(-90 * time.Second)},
		{Local: "a.test", Remote: "c.test", Direction: "in", Address: "192.0.2.2:40000", TLS: "TLS 1.2", Method: "dialback", Since: now.Add(-time.Second)},
		{Local: "a.test", Remote: "d.test", Direction: "none", Queue: 700, Problem: "connection \x1b[2Jrefused"},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range [][]string{
		{"REMOTE", "PROVEN BY"},
		{"b.test", "both, opened out", "EXTERNAL", "TLS 1.3, direct", "resumable", "12", "3", "1m30s", "192.0.2.1:5270"},
		{"c.test", "in", "dialback, certificate not valid", "TLS 1.2", "1s"},
		{"d.test", "-", "700", "no stream: connection  [2Jrefused"},
	} {
		line := strings.Split(b.String(), "\n")[i]
		for _, w := range want {
			if !strings.Contains(line, w) {
				t.Errorf("no %q in %q", w, line)
			}
		}
	}
}
