package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode/utf8"

	"golang.org/x/term"
)

// maxPassword is how long a password may be, in bytes. chosen: as long as a localpart (RFC 7622 §3.3).
const maxPassword = 1023

// readPassword asks for a new password twice if standard input is a terminal, else it takes the first line.
func readPassword(s std, account string) (string, error) {
	var password string
	var err error
	if term.IsTerminal(int(s.in.Fd())) {
		password, err = prompt(s, "Password for "+account+": ")
		if err != nil {
			return "", err
		}
		again, err := prompt(s, "The same again: ")
		if err != nil {
			return "", err
		}
		if again != password {
			return "", errors.New("the two passwords differ")
		}
	} else {
		password, err = bufio.NewReader(io.LimitReader(s.in, maxPassword+3)).ReadString('\n')
		if err != nil && err != io.EOF {
			return "", fmt.Errorf("read the password: %w", err)
		}
		password = strings.TrimSuffix(strings.TrimSuffix(password, "\n"), "\r")
	}
	switch {
	case password == "":
		return "", errors.New("the password is empty")
	case len(password) > maxPassword:
		return "", fmt.Errorf("the password is longer than %d bytes", maxPassword)
	case !utf8.ValidString(password):
		return "", errors.New("the password is not UTF-8")
	}
	return password, nil
}

// prompt asks a question on the terminal and reads the answer without showing it.
func prompt(s std, question string) (string, error) {
	fd := int(s.in.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	// Who gives up in the middle must not be left with a terminal that shows nothing.
	interrupted, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupted)
	defer close(done)
	go func() {
		select {
		case <-interrupted:
			_ = term.Restore(fd, state)
			_, _ = fmt.Fprintln(s.err)
			os.Exit(1)
		case <-done:
		}
	}()
	_, _ = fmt.Fprint(s.err, question)
	answer, err := term.ReadPassword(fd)
	_, _ = fmt.Fprintln(s.err)
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return string(answer), nil
}
