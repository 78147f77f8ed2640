package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"balcony/cmd/balcony/admin"
	"balcony/cmd/balcony/config"
	"balcony/cmd/balcony/pie"

	"mellium.im/xmpp/jid"
)

// portableTime is how long an export or import may take. chosen: archives of many gigabytes.
const portableTime = 24 * time.Hour

// export writes an account's data to a file that only its user can read (XEP-0227 §6), or to standard output. A file appears when it is whole.
func export(cfg *config.Config, account jid.JID, to []string, s std) (err error) {
	out := s.out
	if len(to) > 0 {
		f, err := os.CreateTemp(filepath.Dir(to[0]), ".balcony-export-") // mode 0600
		if err != nil {
			return err
		}
		defer func() {
			if err != nil {
				_ = os.Remove(f.Name()) // the error says why there is no file
			}
		}()
		err = writeTo(cfg, account, f)
		if err == nil {
			err = f.Sync()
		}
		if err = errors.Join(err, f.Close()); err == nil {
			err = os.Rename(f.Name(), to[0])
		}
		return err
	}
	return writeTo(cfg, account, out)
}

func writeTo(cfg *config.Config, account jid.JID, w io.Writer) error {
	return noAccount(within(portableTime, cfg, func(ctx context.Context, accounts admin.Accounts) error {
		return accounts.Export(ctx, account, w)
	}), account)
}

// imports makes the accounts of a file, with what it includes.
func imports(cfg *config.Config, path string, s std) (err error) {
	in := io.Reader(s.in)
	if path != "-" {
		joined, err := pie.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = joined.Close() }() // it was only read
		in = joined
	}
	var done pie.Imported
	err = within(portableTime, cfg, func(ctx context.Context, accounts admin.Accounts) (err error) {
		done, err = accounts.Import(ctx, in)
		return err
	})
	for _, w := range done.Warnings {
		_, _ = fmt.Fprintf(s.err, "balcony: warning: %s\n", w)
	}
	for _, j := range done.Accounts {
		if _, werr := fmt.Fprintf(s.out, "imported %s\n", j); werr != nil {
			return errors.Join(err, werr)
		}
	}
	return err
}
