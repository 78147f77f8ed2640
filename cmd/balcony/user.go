package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"time"

	"balcony/cmd/balcony/admin"
	"balcony/cmd/balcony/certs"
	"balcony/cmd/balcony/config"
	"balcony/cmd/balcony/server"
	"balcony/xmpp/auth"

	"mellium.im/xmpp/jid"
)

// user manages accounts: of the running server through its control socket, else in the database.
func user(args []string, s std) error {
	if len(args) == 0 {
		return usageError{errors.New("user add, passwd, del, list, sessions, kick, export or import?")}
	}
	what := args[0]
	switch what {
	case "add", "passwd", "del", "list", "sessions", "kick", "export", "import":
	default:
		return usageError{fmt.Errorf("there is no command user %q", what)}
	}
	least, most := 1, 1
	switch what {
	case "list":
		least = 0
	case "export":
		most = 2
	}
	tokens, flags := false, []func(*flag.FlagSet){}
	if what == "kick" {
		flags = append(flags, func(f *flag.FlagSet) { f.BoolVar(&tokens, "tokens", false, "") })
	}
	path, rest, err := options(args[1:], least, most, flags...)
	if err != nil {
		return err
	}
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	switch what {
	case "list":
		return list(cfg, rest, s)
	case "import":
		return imports(cfg, rest[0], s)
	}
	account, err := jid.Parse(rest[0])
	if err != nil || account.Localpart() == "" || account.Resourcepart() != "" && what != "kick" {
		return fmt.Errorf("%q is not an account such as you@%s", rest[0], cfg.Domains[0].Name)
	}
	switch what {
	case "sessions":
		return sessions(cfg, account, s)
	case "kick":
		return kick(cfg, account, tokens, s)
	case "export":
		return export(cfg, account, rest[1:], s)
	}
	password := ""
	if what != "del" {
		if password, err = readPassword(s, account.String()); err != nil {
			return err
		}
	}
	err = withAccounts(cfg, func(ctx context.Context, accounts admin.Accounts) error {
		switch what {
		case "add":
			return accounts.Add(ctx, account, password)
		case "passwd":
			return accounts.SetPassword(ctx, account, password)
		}
		return accounts.Delete(ctx, account)
	})
	switch {
	case errors.Is(err, auth.ErrAccountExists):
		return fmt.Errorf("there already is an account %s", account)
	case err != nil:
		return noAccount(err, account)
	}
	_, err = fmt.Fprintf(s.out, map[string]string{"add": "added %s\n", "passwd": "changed the password of %s\n", "del": "deleted %s\n"}[what], account)
	return err
}

// list prints the accounts of a domain or of all of them, one to a line.
func list(cfg *config.Config, only []string, s std) error {
	domains := only
	if len(only) == 0 {
		for _, d := range cfg.Domains {
			domains = append(domains, d.Name)
		}
	}
	return withAccounts(cfg, func(ctx context.Context, accounts admin.Accounts) error {
		for _, domain := range domains {
			const page = 1000
			for after, n := "", page; n == page; {
				accounts, err := accounts.List(ctx, domain, after, page)
				if err != nil {
					return err
				}
				for _, account := range accounts {
					if _, err := fmt.Fprintln(s.out, account); err != nil {
						return err
					}
					after = account.Localpart()
				}
				n = len(accounts)
			}
		}
		return nil
	})
}

// withAccounts calls f with the accounts of the server that runs on the data folder, or with those of a server that is made for it and
// does not listen.
func withAccounts(cfg *config.Config, f func(context.Context, admin.Accounts) error) error {
	return within(time.Minute, cfg, f)
}

// within is withAccounts with another time limit.
func within(limit time.Duration, cfg *config.Config, f func(context.Context, admin.Accounts) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	lock, client, err := lockOrDial(ctx, cfg.Data)
	if err != nil {
		return err
	}
	if client != nil {
		defer client.Close()
		return f(ctx, client)
	}
	log := slog.New(slog.DiscardHandler)
	srv, err := server.New(ctx, cfg, new(certs.Set), log, version())
	if err != nil {
		return errors.Join(err, lock.Release())
	}
	err = f(ctx, srv.Accounts())
	return errors.Join(err, srv.Shutdown(ctx), lock.Release())
}

// lockOrDial locks the data folder, or connects to the server that has it. It waits a while for one that is starting or stopping.
func lockOrDial(ctx context.Context, data string) (*admin.Lock, *admin.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		lock, err := admin.Acquire(data, admin.Changing)
		if err == nil {
			return lock, nil, nil
		}
		if !errors.As(err, new(*admin.InUseError)) {
			return nil, nil, err
		}
		client, dialErr := admin.Dial(ctx, data)
		if dialErr == nil {
			return nil, client, nil
		}
		if !pause(ctx) {
			return nil, nil, errors.Join(err, dialErr)
		}
	}
}

// pause waits before the next try; false when there is no time for one.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(50 * time.Millisecond):
		return true
	}
}
