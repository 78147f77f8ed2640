package mam

import (
	"context"
	"time"

	"mellium.im/xmpp/jid"
)

const (
	trimEvery   = time.Hour // chosen: what is kept for days may be kept an hour longer
	trimPortion = 500       // chosen: messages that one transaction deletes; about ten milliseconds
	trimPage    = 100       // chosen: accounts that are read at once
)

// Run deletes what is older, or more, than is to be kept, now and then until ctx ends. domains are those that are served.
func (m *Module) Run(ctx context.Context, domains func() []string) {
	t := time.NewTicker(trimEvery)
	defer t.Stop()
	for {
		for _, d := range domains() {
			if err := m.Trim(ctx, d); err != nil && ctx.Err() == nil {
				m.log.Error("delete old messages", "domain", d, "err", err) // the next round goes on
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// Trim deletes the old messages of a domain's accounts, a portion at a time: nobody waits for it for long.
func (m *Module) Trim(ctx context.Context, domain string) error {
	r := m.cfg.policy(domain)
	if r.Keep == 0 && r.Messages == 0 {
		return nil
	}
	var before time.Time
	if r.Keep > 0 {
		before = m.server.Now().Add(-r.Keep)
	}
	for after := ""; ; {
		accounts, err := m.store.Accounts(ctx, domain, after, trimPage)
		if err != nil {
			return err
		}
		for _, a := range accounts {
			if err := m.trim(ctx, a, before, r.Messages); err != nil {
				return err
			}
			after = a.Localpart()
		}
		if len(accounts) < trimPage {
			return nil
		}
	}
}

func (m *Module) trim(ctx context.Context, account jid.JID, before time.Time, keep int) error {
	for {
		n, err := m.store.TrimArchive(ctx, account, before, keep, trimPortion)
		if err != nil || n < trimPortion {
			return err
		}
	}
}
