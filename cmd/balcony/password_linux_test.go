package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// terminal opens a pseudo-terminal: what is written to the one side is typed on the other.
func terminal(t *testing.T) (keyboard, tty *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keyboard.Close() })
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	return keyboard, tty
}

// ask runs a command line on a terminal and types an answer after each question, which ends with ": ". It returns the status, what was
// asked, and what the terminal showed of the answers.
func ask(t *testing.T, dir string, answers []string, args ...string) (status int, asked, shown string) {
	t.Helper()
	keyboard, tty := terminal(t)
	cmd := program(t, dir, args...)
	questions, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = tty
	before, err := term.GetState(int(tty.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1024)
	for {
		n, err := questions.Read(b)
		asked += string(b[:n])
		if err != nil {
			break
		}
		if strings.HasSuffix(asked, ": ") && len(answers) > 0 {
			answer := answers[0]
			answers = answers[1:]
			waitForNoEcho(t, tty)
			if answer == "\x03" {
				if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
					t.Fatal(err)
				}
			} else if _, err := io.WriteString(keyboard, answer+"\n"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		if _, ok := err.(*exec.ExitError); !ok {
			t.Fatal(err)
		}
	}
	after, err := term.GetState(int(tty.Fd()))
	if err != nil || *after != *before {
		t.Errorf("the terminal is left in another state: %v", err)
	}
	if _, err := io.WriteString(tty, "END"); err != nil {
		t.Fatal(err)
	}
	for !strings.HasSuffix(shown, "END") {
		n, err := keyboard.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		shown += string(b[:n])
	}
	return cmd.ProcessState.ExitCode(), asked, shown
}

// waitForNoEcho waits until the program reads a password: what is typed before would be shown by the terminal itself.
func waitForNoEcho(t *testing.T, tty *os.File) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range int(patience / time.Millisecond) {
		s, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		if s.Lflag&unix.ECHO == 0 {
			return
		}
		<-tick.C
	}
	t.Fatal("the terminal still shows what is typed")
}

func TestPasswordFromTheTerminal(t *testing.T) {
	dir := configure(t, "")
	for _, tt := range []struct {
		name    string
		answers []string
		status  int
		asked   []string
	}{
		{"typed twice", []string{"hunter2", "hunter2"}, 0, []string{"Password for romeo@localhost: \n", "The same again: \n"}},
		{"mistyped", []string{"hunter2", "hunter3"}, 1, []string{"balcony: the two passwords differ"}},
		{"empty", []string{"", ""}, 1, []string{"balcony: the password is empty"}},
		{"interrupted", []string{"\x03"}, 1, []string{"Password for romeo@localhost: \n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, asked, shown := ask(t, dir, tt.answers, "user", "add", "romeo@localhost")
			if status != tt.status {
				t.Errorf("status %d, want %d", status, tt.status)
			}
			for _, want := range tt.asked {
				if !strings.Contains(asked, want) {
					t.Errorf("%q, want %q", asked, want)
				}
			}
			if strings.Contains(shown+asked, "hunter") {
				t.Errorf("the password was shown: %q", shown+asked)
			}
		})
	}
	expect(t, dir, "", "romeo@localhost\n", "user", "list")
}
