package interop

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mellium.im/xmpp/stanza"
)

// screen is a terminal with a program, kept by a tmux of its own in control mode: tmux reads commands from its standard input and writes
// a block of answer for each, and a line that starts with %output whenever the program has written.
type screen struct {
	t       *testing.T
	ctx     context.Context
	in      io.Writer
	answers chan []string // one for each command
	changed chan struct{} // there may be something new on the screen
	ended   chan struct{} // closed when tmux has ended
}

// newScreen starts a program, which gets env beside tmux's own variables.
func newScreen(t *testing.T, env []string, program ...string) *screen {
	t.Helper()
	installed(t, "/usr/bin/tmux", "tmux")
	s := &screen{t: t, ctx: within(t), answers: make(chan []string, 100), changed: make(chan struct{}, 1), ended: make(chan struct{})}
	socket := filepath.Join(t.TempDir(), "tmux")
	args := append([]string{"-S", socket, "-f", "/dev/null", "-C", "new-session", "-x", "160", "-y", "50"}, program...)
	cmd := exec.Command("/usr/bin/tmux", args...)
	cmd.Env = env
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in = in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go s.read(bufio.NewScanner(out))
	t.Cleanup(func() {
		tmux := func(args ...string) string {
			out, _ := exec.Command("/usr/bin/tmux", append([]string{"-S", socket}, args...)...).Output() // it may be gone with its program
			return string(out)
		}
		if t.Failed() {
			t.Logf("the screen:\n%s", tmux("capture-pane", "-p"))
		}
		tmux("kill-server")
		<-s.ended
		_ = cmd.Wait() // it was killed
	})
	s.answer() // of new-session
	return s
}

// read takes apart what tmux writes.
func (s *screen) read(lines *bufio.Scanner) {
	defer close(s.ended)
	var block []string
	inside := false
	for lines.Scan() {
		word, _, _ := strings.Cut(lines.Text(), " ")
		switch {
		case word == "%begin":
			inside, block = true, nil
		case word == "%end" || word == "%error":
			inside = false
			s.answers <- block
		case inside:
			block = append(block, lines.Text())
		case word == "%output":
			select {
			case s.changed <- struct{}{}:
			default:
			}
		}
	}
}

// answer waits for the answer of a command; there is none when the program has ended.
func (s *screen) answer() []string {
	select {
	case lines := <-s.answers:
		return lines
	case <-s.ended:
	case <-s.ctx.Done():
	}
	return nil
}

func (s *screen) command(c string) []string {
	if _, err := fmt.Fprintln(s.in, c); err != nil {
		return nil // it has ended, and whoever looks at the screen finds nothing
	}
	return s.answer()
}

// enter types a line, which has no single quote in it.
func (s *screen) enter(line string) {
	s.command("send-keys -l -- '" + line + "'")
	s.command("send-keys Enter")
}

// shows waits until a text is on the screen.
func (s *screen) shows(text string) {
	s.t.Helper()
	for {
		if strings.Contains(strings.Join(s.command("capture-pane -p"), "\n"), text) {
			return
		}
		select {
		case <-s.changed:
		case <-s.ended:
			s.t.Fatalf("the program ended before it showed %q", text)
		case <-s.ctx.Done():
			s.t.Fatalf("not on the screen: %q", text)
		}
	}
}

// TestInteropProfanity talks through Profanity, which logs in by the strongest SCRAM without channel binding: libstrophe 0.12.2 has none.
func TestInteropProfanity(t *testing.T) {
	t.Parallel()
	const path = "/usr/bin/profanity"
	installed(t, path, "profanity")
	s := start(t, "romeo@localhost", "juliet@localhost")
	home := t.TempDir()
	config := filepath.Join(home, "config")
	if err := os.MkdirAll(filepath.Join(config, "profanity"), 0o700); err != nil {
		t.Fatal(err)
	}
	// Nothing but the lines that are asked for, and nobody told of every key.
	const preferences = "[ui]\nsplash=false\n[chatstates]\nenabled=false\nouttype=false\n"
	if err := os.WriteFile(filepath.Join(config, "profanity", "profrc"), []byte(preferences), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"HOME=" + home, "XDG_CONFIG_HOME=" + config, "XDG_DATA_HOME=" + filepath.Join(home, "data"), "LANG=C.UTF-8", "TERM=screen", "PATH=" + os.Getenv("PATH")}
	romeo := newScreen(t, env, path)
	juliet := s.mellium("juliet@localhost/balcony")
	juliet.roster()
	juliet.online()
	connect := "/connect romeo@localhost/orchard server 127.0.0.1 port " + strings.TrimPrefix(s.addrs["c2s"], "127.0.0.1:") + " tls trust"

	romeo.shows("Type '/help' to show complete help.")
	romeo.enter(connect)
	romeo.shows("Enter password:")
	romeo.enter("wrong")
	romeo.shows("Login failed.")
	romeo.enter(connect)
	romeo.shows("Enter password:")
	romeo.enter(password)
	romeo.shows("romeo@localhost/orchard logged in successfully")
	s.logins(map[string]int{
		"SCRAM-SHA-512 not-authorized": 1, "SCRAM-SHA-256 not-authorized": 1, "SCRAM-SHA-1 not-authorized": 1, // libstrophe tries the next one
		"SCRAM-SHA-512 success": 1, "SCRAM-SHA-256-PLUS success": 1, // and Juliet
	})

	// RFC 6121 §3.1: subscriptions both ways, and presence.
	romeo.enter("/sub request juliet@localhost")
	juliet.expect("presence subscribe from romeo@localhost")
	juliet.presence(stanza.SubscribedPresence, "romeo@localhost")
	juliet.expect(`push romeo@localhost "" from []`)
	romeo.shows("Subscription received from juliet@localhost")
	romeo.shows("is online")
	juliet.presence(stanza.SubscribePresence, "romeo@localhost")
	juliet.expect(`push romeo@localhost "" from []`)
	romeo.shows("Received authorization request from juliet@localhost")
	romeo.enter("/sub allow juliet@localhost")
	juliet.expect("presence subscribed from romeo@localhost", `push romeo@localhost "" both []`, "presence  from romeo@localhost/orchard")
	romeo.enter("/roster nick juliet@localhost Jülïet")
	romeo.shows("   Jülïet") // in the panel: the push has come
	romeo.enter("/roster")
	romeo.shows("juliet@localhost (Jülïet) - both")
	romeo.enter(`/status set away "gone to Mantua"`)
	juliet.expect("presence  from romeo@localhost/orchard")

	// RFC 6121 §5: chat both ways.
	romeo.enter("/msg juliet@localhost Art thou not <Romeo> & a Montague? 🌹")
	juliet.expect("message chat from romeo@localhost/orchard: Art thou not <Romeo> & a Montague? 🌹")
	juliet.say("romeo@localhost", "Neither, fair saint 🌹")
	romeo.shows("Neither, fair saint 🌹")

	// XEP-0199, XEP-0030, XEP-0092
	romeo.enter("/win 1")
	romeo.enter("/ping")
	romeo.shows("Ping response from")
	romeo.enter("/disco info localhost")
	romeo.shows("urn:xmpp:blocking")
	romeo.enter("/serversoftware localhost")
	romeo.shows("Name    : Balcony")

	// XEP-0191
	romeo.enter("/blocked add juliet@localhost")
	juliet.expect("presence unavailable from romeo@localhost/orchard")
	juliet.say("romeo@localhost", "hear me")
	juliet.expect("message error from romeo@localhost service-unavailable")
	romeo.shows("successfully blocked")
	romeo.enter("/blocked remove juliet@localhost")
	juliet.expect("presence  from romeo@localhost/orchard")

	// XEP-0160: what came while he was away.
	romeo.enter("/disconnect")
	juliet.expect("presence unavailable from romeo@localhost/orchard")
	juliet.say("romeo@localhost", "first while away")
	juliet.say("romeo@localhost", "second while away")
	juliet.nothingElse()
	romeo.enter(connect)
	romeo.shows("Enter password:")
	romeo.enter(password)
	juliet.expect("presence  from romeo@localhost/orchard")
	romeo.shows("<< chat message: Jülïet") // and a window for it
	romeo.enter("/win 2")
	romeo.shows("second while away")
	if before, _, _ := strings.Cut(strings.Join(romeo.command("capture-pane -p"), "\n"), "second while away"); !strings.Contains(before, "first while away") {
		t.Error("the offline messages are not in order")
	}
	romeo.enter("/quit")
	juliet.expect("presence unavailable from romeo@localhost/orchard")
	juliet.nothingElse()
}
