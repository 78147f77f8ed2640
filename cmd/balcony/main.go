// Command balcony is an XMPP server and the tool that manages it. docs/configuration.md describes its configuration.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"balcony/cmd/balcony/certs"
	"balcony/cmd/balcony/config"
)

const usage = `usage:
  balcony [serve] [--config FILE]        run the server
  balcony user add [--config FILE] JID   add an account; the password from the terminal, else the first line of standard input
  balcony user passwd [--config FILE] JID
                                         change a password and end the account's sessions
  balcony user del [--config FILE] JID   delete an account with all its data
  balcony user list [--config FILE] [DOMAIN]
                                         list the accounts
  balcony user sessions [--config FILE] JID
                                         list the sessions of an account and the tokens of its clients
  balcony user kick [--config FILE] [--tokens] JID[/RESOURCE]
                                         end sessions, and with --tokens revoke the tokens of their clients
  balcony user export [--config FILE] JID [FILE]
                                         write everything that is held on an account as XEP-0227
  balcony user import [--config FILE] FILE
                                         make the accounts of such a file; - is standard input
  balcony backup [--config FILE] DIR     make a copy of the data folder, also while the server runs
  balcony federation [--config FILE]     list the streams with other servers
  balcony federation explain [--config FILE] DOMAIN [FROM]
                                         say step by step how DOMAIN would be reached from FROM, a domain of this server
  balcony check [--config FILE]          validate the configuration and print it with its defaults
  balcony version                        say which version this is
  balcony help                           this text

Without --config the configuration is ./balcony.toml if there is one, else the defaults: domain localhost, loopback only, data in ./balcony-data.
`

// std are the streams of the process.
type std struct {
	in       *os.File
	out, err io.Writer
}

func main() {
	os.Exit(run(os.Args[1:], std{os.Stdin, os.Stdout, os.Stderr}))
}

// usageError is a mistake in the command line.
type usageError struct{ error }

// run carries out a command line and returns the exit status: 0, 1 when it failed, 2 when the command line makes no sense.
func run(args []string, s std) int {
	err := command(args, s)
	switch {
	case err == nil:
		return 0
	case errors.As(err, new(usageError)):
		_, _ = fmt.Fprintf(s.err, "balcony: %v\n%s", err, usage)
		return 2
	}
	for _, e := range each(err) {
		_, _ = fmt.Fprintf(s.err, "balcony: %v\n", e)
	}
	return 1
}

func command(args []string, s std) error {
	name := "serve"
	if len(args) > 0 && (args[0] == "" || args[0][0] != '-') {
		name, args = args[0], args[1:]
	} else if len(args) > 0 {
		switch args[0] {
		case "-h", "-help", "--help":
			name, args = "help", args[1:]
		case "-version", "--version":
			name, args = "version", args[1:]
		}
	}
	switch name {
	case "serve":
		path, _, err := options(args, 0, 0)
		if err != nil {
			return err
		}
		return serve(path, s)
	case "user":
		return user(args, s)
	case "backup":
		return backup(args, s)
	case "federation":
		return federation(args, s)
	case "check":
		path, _, err := options(args, 0, 0)
		if err != nil {
			return err
		}
		return check(path, s)
	case "version":
		_, err := fmt.Fprintf(s.out, "balcony %s %s %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return err
	case "help":
		_, err := io.WriteString(s.out, usage)
		return err
	}
	return usageError{fmt.Errorf("there is no command %q", name)}
}

// options reads --config, what more defines, and from least to most other arguments; flags may stand anywhere.
func options(args []string, least, most int, more ...func(*flag.FlagSet)) (path string, rest []string, err error) {
	f := flag.NewFlagSet("balcony", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&path, "config", "", "")
	for _, add := range more {
		add(f)
	}
	for {
		if err := f.Parse(args); err != nil {
			return "", nil, usageError{err}
		}
		if f.NArg() == 0 {
			break
		}
		rest, args = append(rest, f.Arg(0)), f.Args()[1:]
	}
	switch {
	case len(rest) < least:
		return "", nil, usageError{errors.New("an argument is missing")}
	case len(rest) > most:
		return "", nil, usageError{fmt.Errorf("%q is one argument too many", rest[most])}
	}
	return path, rest, nil
}

// check validates the configuration and the certificates it names, and prints what is in effect.
func check(path string, s std) error {
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	warnings, err := certs.Check(cfg)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		_, _ = fmt.Fprintf(s.err, "balcony: warning: %s\n", w)
	}
	return cfg.Print(s.out)
}

// version is that of the module that the program was built from, with the revision of a build in a checkout.
func version() string {
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "(unknown)"
}

// each splits joined errors.
func each(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, each(e)...)
		}
		return all
	}
	return []error{err}
}
