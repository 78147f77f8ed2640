package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestInteropOMEMO lets two Profanity clients exchange device lists, bundles and encrypted messages (XEP-0384 0.3 over XEP-0163) through the server, without
// a presence subscription, online and offline. The scenario omemo of slixmpp does more of that with libraries.
func TestInteropOMEMO(t *testing.T) {
	t.Parallel()
	const path = "/usr/bin/profanity"
	installed(t, path, "profanity")
	s := start(t, "romeo@localhost", "juliet@localhost")
	connect := func(name string) string {
		return "/connect " + name + "@localhost/profanity server 127.0.0.1 port " + strings.TrimPrefix(s.addrs["c2s"], "127.0.0.1:") + " tls trust"
	}
	begin := func(name string) *screen {
		home := t.TempDir()
		config := filepath.Join(home, "config")
		if err := os.MkdirAll(filepath.Join(config, "profanity"), 0o700); err != nil {
			t.Fatal(err)
		}
		const preferences = "[ui]\nsplash=false\n[chatstates]\nenabled=false\nouttype=false\n[omemo]\ntrustmode=blind\n"
		if err := os.WriteFile(filepath.Join(config, "profanity", "profrc"), []byte(preferences), 0o600); err != nil {
			t.Fatal(err)
		}
		env := []string{"HOME=" + home, "XDG_CONFIG_HOME=" + config, "XDG_DATA_HOME=" + filepath.Join(home, "data"), "LANG=C.UTF-8", "TERM=screen", "PATH=" + os.Getenv("PATH")}
		p := newScreen(t, env, path)
		p.shows("Type '/help' to show complete help.")
		connected(p, connect(name), name)
		return p
	}
	romeo, juliet := begin("romeo"), begin("juliet")
	// The first device list is published where item-not-found carries the code 404 (XEP-0086), and bundles with publish-options (XEP-0060 §7.1.5).
	for _, p := range []*screen{romeo, juliet} {
		p.enter("/omemo gen")
		p.shows("OMEMO crytographic materials generated")
		p.shows("Going to publish own device ID") // who asks before that asks in vain, and a stranger is not told
	}
	for _, p := range []*screen{romeo, juliet} {
		p.enter("/omemo trustmode blind")
		p.enter("/omemo policy automatic")
	}
	// Strangers to each other's presence: XEP-0384 §4.2, the lists and bundles are open.
	romeo.enter("/msg juliet@localhost plain")
	romeo.enter("/omemo start")
	romeo.shows("[OMEMO]")
	bundle(romeo, "juliet")
	romeo.enter("by yonder blessed moon")
	juliet.shows("chat message: romeo@localhost")
	juliet.enter("/win 2")
	juliet.shows("by yonder blessed moon")
	juliet.enter("/omemo start")
	juliet.shows("[OMEMO]")
	bundle(juliet, "romeo")
	juliet.enter("swear not by the moon")
	romeo.shows("swear not by the moon")
	// What is encrypted for one who is away waits for her: XEP-0160.
	juliet.enter("/win 1")
	juliet.enter("/disconnect")
	juliet.shows("juliet@localhost logged out successfully")
	juliet.enter("/clear")
	romeo.enter("what shall I swear by")
	connected(juliet, connect("juliet"), "juliet")
	juliet.shows("chat message: romeo@localhost") // and a window for it
	juliet.enter("/win 2")
	juliet.shows("what shall I swear by")
}

// bundle waits until a Profanity has the other's bundle, of which it says nothing; until then it has no fingerprint to tell.
func bundle(p *screen, of string) {
	p.t.Helper()
	for p.ctx.Err() == nil {
		p.enter("/omemo fingerprint " + of + "@localhost")
		if strings.Contains(strings.Join(p.command("capture-pane -p"), "\n"), of+"@localhost\u0027s OMEMO fingerprint:") {
			return
		}
	}
	p.t.Fatal("no bundle of " + of)
}

// connected connects a Profanity.
func connected(p *screen, connect, name string) {
	p.t.Helper()
	p.enter(connect)
	p.shows("Enter password:")
	p.enter(password)
	p.shows(name + "@localhost/profanity logged in successfully")
}
