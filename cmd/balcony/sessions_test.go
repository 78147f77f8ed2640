package main

import (
	"encoding/base64"
	"regexp"
	"strings"
	"testing"
)

// modern logs in with SASL2 and binds with Bind 2 and stream management, as what inside says.
func (p *process) modern(account, password, agent, inside string) *client {
	p.t.Helper()
	name, domain, _ := strings.Cut(account, "@")
	c := p.dial(domain)
	c.say("<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='"+domain+"' version='1.0'>", "</stream:features>")
	initial := base64.StdEncoding.EncodeToString([]byte("\x00" + name + "\x00" + password))
	c.say("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>"+initial+"</initial-response><user-agent id='"+agent+
		"'><software>Ro\u202emeo's</software><device>Phone</device></user-agent><request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>"+inside+"</authenticate>", "</success>")
	return c
}

// match compares a command's output with lines, each a regular expression, after runs of spaces were made one.
func match(t *testing.T, dir string, want []string, args ...string) {
	t.Helper()
	r := balcony(t, dir, "", args...)
	got := strings.Split(strings.TrimSuffix(regexp.MustCompile(` +`).ReplaceAllString(r.out, " "), "\n"), "\n")
	ok := r.status == 0 && len(got) == len(want)
	for i := range want {
		ok = ok && regexp.MustCompile("^"+want[i]+"$").MatchString(strings.TrimSpace(got[i]))
	}
	if !ok {
		t.Errorf("balcony %s: status %d, errors %q, output\n%s\nwant\n%s", strings.Join(args, " "), r.status, r.err, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

const (
	heading      = `RESOURCE STATE SINCE ADDRESS TLS CLIENT USER AGENT PRESENCE MANAGEMENT QUEUE`
	tokenHeading = `TOKEN FOR USER AGENT MECHANISM ISSUED USED EXPIRES`
	aTime        = `\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`
)

// What `user sessions` shows of sessions in every state, and what `user kick` leaves: while the server runs, after a crash of the client, and
// while the server is down.
func TestSessionsAreListedAndEnded(t *testing.T) {
	dir := configure(t, "")
	p := start(t, dir)
	expect(t, dir, "secret\n", "added romeo@localhost\n", "user", "add", "romeo@localhost")
	expect(t, dir, "", "", "user", "sessions", "romeo@localhost")
	fails(t, dir, "", 1, "there is no account juliet@localhost", "user", "sessions", "juliet@localhost")
	fails(t, dir, "", 1, "there is no account juliet@localhost", "user", "kick", "juliet@localhost")
	fails(t, dir, "", 1, `romeo@localhost has no session "x"`, "user", "kick", "romeo@localhost/x")
	fails(t, dir, "", 1, `"romeo@localhost/x" is not an account such as you@localhost`, "user", "sessions", "romeo@localhost/x")
	expect(t, dir, "", "ended 0 sessions of romeo@localhost\n", "user", "kick", "romeo@localhost")

	const phone, tablet = "d4565fa7-4d72-4749-b3d3-740edbf87770", "0b5f8a4e-2d0e-4d8f-9d51-7d2c1a6f0c11"
	plain := p.login("romeo@localhost", "secret")
	a := p.modern("romeo@localhost", "secret", phone, "<bind xmlns='urn:xmpp:bind:0'><tag>a</tag><enable xmlns='urn:xmpp:sm:3' resume='true'/><inactive xmlns='urn:xmpp:csi:0'/></bind>")
	b := p.modern("romeo@localhost", "secret", tablet, "<bind xmlns='urn:xmpp:bind:0'><tag>b</tag><enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>")
	b.say("<presence><priority>7</priority></presence>", "</presence>")
	_ = b.NetConn().Close()
	p.logged(0, "session waits for its client")
	const tokens = tokenHeading + "\n" + `Romeo's on Phone [0-9a-f]{32} HT-SHA-256-NONE ` + aTime + ` - ` + aTime + "\n" + `Romeo's on Phone [0-9a-f]{32} HT-SHA-256-NONE ` + aTime + ` - ` + aTime
	match(t, dir, append([]string{heading,
		`\S+ connected ` + aTime + ` 127\.0\.0\.1 TLS 1\.3 TLS_\S+ - - unavailable off 0 stanzas, 0 bytes`,
		`a\S+ inactive ` + aTime + ` 127\.0\.0\.1 TLS 1\.3 TLS_\S+ Romeo's on Phone [0-9a-f]{32} unavailable resumable 0 stanzas, 0 bytes`,
		`b\S+ waits until ` + aTime + ` ` + aTime + ` 127\.0\.0\.1 TLS 1\.3 TLS_\S+ Romeo's on Phone [0-9a-f]{32} priority 7 resumable 1 stanzas, \d+ bytes`},
		strings.Split(tokens, "\n")...), "user", "sessions", "romeo@localhost")

	// One session with its tokens; the other client's stay.
	resource := strings.Fields(strings.Split(balcony(t, dir, "", "user", "sessions", "romeo@localhost").out, "\n")[2])[0]
	expect(t, dir, "", "ended 1 sessions of romeo@localhost/"+resource+" and revoked 1 tokens\n", "user", "kick", "--tokens", "romeo@localhost/"+resource)
	a.until("policy-violation")
	match(t, dir, append([]string{heading, `\S+ connected .*`, `b\S+ waits until .*`}, strings.Split(tokens, "\n")[:2]...), "user", "sessions", "romeo@localhost")
	expect(t, dir, "", "ended 2 sessions of romeo@localhost\n", "user", "kick", "romeo@localhost")
	plain.until("policy-violation")
	match(t, dir, strings.Split(tokens, "\n")[:2], "user", "sessions", "romeo@localhost")
	p.logged(0, "sessions ended", "jid=romeo@localhost")

	// Sessions that wait while the server is down.
	for range 2 {
		c := p.modern("romeo@localhost", "secret", tablet, "<bind xmlns='urn:xmpp:bind:0'><tag>b</tag><enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>")
		p.stop()
		c.until("system-shutdown")
		if r := balcony(t, dir, "", "user", "sessions", "romeo@localhost"); r.status != 0 || !strings.Contains(r.err, "the server is not running") || !strings.HasPrefix(r.out, "TOKEN FOR") {
			t.Errorf("without the server: %+v", r)
		}
		p = start(t, dir)
		match(t, dir, []string{heading, `b\S+ waits until ` + aTime + ` ` + aTime + ` - - Romeo's on Phone .*`, tokenHeading, `Romeo's .*`}, "user", "sessions", "romeo@localhost")
		p.stop()
		expect(t, dir, "", "ended 1 sessions of romeo@localhost\n", "user", "kick", "romeo@localhost")
		expect(t, dir, "", "ended 0 sessions of romeo@localhost and revoked 1 tokens\n", "user", "kick", "romeo@localhost", "--tokens")
		p = start(t, dir)
		expect(t, dir, "", "", "user", "sessions", "romeo@localhost")
	}
	p.stop()
}
