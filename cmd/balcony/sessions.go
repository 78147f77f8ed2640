package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"balcony/cmd/balcony/admin"
	"balcony/cmd/balcony/config"
	"balcony/cmd/balcony/server"
	"balcony/xmpp/auth"
	"balcony/xmpp/router"

	"mellium.im/xmpp/jid"
)

// sessions prints the sessions of an account and its tokens, a table each.
func sessions(cfg *config.Config, account jid.JID, s std) error {
	var list []router.Description
	var tokens []auth.TokenInfo
	running := false
	err := withAccounts(cfg, func(ctx context.Context, accounts admin.Accounts) (err error) {
		_, running = accounts.(*admin.Client)
		list, tokens, err = accounts.Sessions(ctx, account)
		return err
	})
	if err != nil {
		return noAccount(err, account)
	}
	if !running {
		if _, err := fmt.Fprintln(s.err, "balcony: the server is not running: sessions that go on after its start are not listed"); err != nil {
			return err
		}
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	if len(list) > 0 {
		row(w, "RESOURCE", "STATE", "SINCE", "ADDRESS", "TLS", "CLIENT", "USER AGENT", "PRESENCE", "MANAGEMENT", "QUEUE")
	}
	for _, d := range list {
		state := "connected"
		switch {
		case !d.Connected:
			state = "waits until " + when(d.Until)
		case d.Inactive:
			state = "inactive"
		}
		presence := "unavailable"
		if d.Available {
			presence = "priority " + strconv.Itoa(int(d.Priority))
		}
		management := "off"
		if d.Resumable {
			management = "resumable"
		} else if d.Managed {
			management = "acknowledged"
		}
		queue := fmt.Sprintf("%d stanzas, %d bytes", d.Queue, d.QueueBytes)
		if d.Held > 0 {
			queue += fmt.Sprintf(", %d held", d.Held)
		}
		if d.Outbox > 0 {
			queue += fmt.Sprintf(", %d bytes unwritten", d.Outbox)
		}
		row(w, d.Resource, state, when(d.Since), d.Address, strings.TrimSpace(d.Transport+" "+strings.TrimPrefix(d.TLS, "TLS ")), software(d.Software, d.Device), d.Client, presence, management, queue)
	}
	if len(tokens) > 0 {
		row(w, "TOKEN FOR", "USER AGENT", "MECHANISM", "ISSUED", "USED", "EXPIRES")
	}
	for _, t := range tokens {
		row(w, software(t.Software, t.Device), t.Client, t.Mechanism, when(t.Issued), when(t.Used), when(t.Expires))
	}
	return w.Flush()
}

// kick ends sessions.
func kick(cfg *config.Config, who jid.JID, tokens bool, s std) error {
	var ended, revoked int
	err := withAccounts(cfg, func(ctx context.Context, accounts admin.Accounts) (err error) {
		if here, ok := accounts.(*server.Accounts); ok {
			// Those that go on after the next start. The others are saved again.
			if err := here.Restore(ctx); err != nil {
				return err
			}
		}
		ended, revoked, err = accounts.Kick(ctx, who, tokens)
		return err
	})
	if err != nil {
		return noAccount(err, who.Bare())
	}
	text := fmt.Sprintf("ended %d sessions of %s", ended, who)
	if tokens {
		text += fmt.Sprintf(" and revoked %d tokens", revoked)
	}
	_, err = fmt.Fprintln(s.out, text)
	return err
}

func noAccount(err error, account jid.JID) error {
	if errors.Is(err, auth.ErrNoAccount) {
		return fmt.Errorf("there is no account %s", account)
	}
	return err
}

// row prints a line of a table; "-" stands for nothing.
func row(w *tabwriter.Writer, cells ...string) {
	for i, c := range cells {
		if c = shown(c); c == "" {
			c = "-"
		}
		cells[i] = c
	}
	_, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) // Flush tells
}

// shown is a text that a client has chosen, fit for a terminal.
func shown(text string) string {
	if strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
		return strconv.Quote(text)
	}
	return text
}

func software(name, device string) string {
	if name != "" && device != "" {
		return name + " on " + device
	}
	return name + device
}

// when is a time as the operator's clock shows it; "" for none.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}
