package load

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"balcony/cmd/balcony-bench/client"
)

func fanoutAccounts(o *Options) []string { return append(accounts("contact", o.Contacts), client.Hub) }

// Fanout lets one account change its presence, wait until all its contacts have received it, and so on. The contacts subscribe to the
// account once, through the protocol.
func Fanout(ctx context.Context, r *Run) ([]Metric, error) {
	all, hub, _, err := r.hub(ctx)
	if err != nil {
		return nil, err
	}
	b := newBroadcast(r.Contacts)
	in := read(ctx, all, func(i int, s *client.Session) error {
		for {
			st, err := s.Next()
			if err != nil {
				return err
			}
			if s == hub || !bytes.HasPrefix(st, []byte("<presence")) {
				continue
			}
			if due, ok := stampOf(st, "<status>"); ok {
				b.got(due)
			}
		}
	})
	presence := []byte("<presence><show>away</show><status>0000000000000000 by the orchard wall</status><priority>5</priority></presence>")
	stamp := presence[bytes.Index(presence, []byte("0000")):][:stampLen]
	update := func(patience time.Duration) error { return b.send(in, hub, presence, stamp, patience) }
	return r.broadcasts(in, "presence", nil, update)
}

// hub logs the hub and its contacts in, and makes these its subscribers.
func (r *Run) hub(ctx context.Context) (all sessions, hub *client.Session, contacts sessions, err error) {
	if all, err = r.login(ctx, fanoutAccounts(&r.Options), true); err != nil {
		return nil, nil, nil, err
	}
	hub, contacts = all[r.Contacts], all[:r.Contacts]
	if err := r.subscribe(ctx, hub, contacts); err != nil {
		all.close()
		return nil, nil, nil, fmt.Errorf("subscriptions: %w", err)
	}
	return all, hub, contacts, nil
}

// subscribe makes every contact a subscriber of the hub (RFC 6121 §3.1), unless the hub's roster says that they are.
func (r *Run) subscribe(ctx context.Context, hub *client.Session, contacts sessions) error {
	deadline := time.Now().Add(2 * time.Minute)
	hub.SetReadDeadline(deadline)
	defer hub.SetReadDeadline(time.Time{})
	n, err := subscribers(hub)
	if err != nil || n >= len(contacts) {
		return err
	}
	approve := func(from string) error {
		return hub.WriteString("<presence type='subscribed' to='" + from + "'/>")
	}
	// In batches that the server's limits for requests that wait for approval cannot mind.
	for batch := range slices.Chunk(contacts, 20) {
		for _, c := range batch {
			if err := c.WriteString("<presence type='subscribe' to='" + client.Hub + "@" + r.Dialer.Domain + "'/>"); err != nil {
				return err
			}
		}
		waiting := len(batch)
		err := hub.Until(func(st []byte) bool {
			if bytes.HasPrefix(st, []byte("<presence")) && string(client.Attr(st, "type")) == "subscribe" {
				if err := approve(string(client.Attr(st, "from"))); err != nil {
					return true // the next read reports the broken connection
				}
				waiting--
			}
			return waiting == 0
		})
		if err != nil {
			return err
		}
	}
	for time.Now().Before(deadline) {
		if n, err = subscribers(hub); err != nil || n >= len(contacts) {
			return err
		}
		if err := wait(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%d of %d contacts are subscribed", n, len(contacts))
}

// subscribers counts the roster items with a subscription from the contact.
func subscribers(hub *client.Session) (n int, err error) {
	const id = "subscribers"
	if err := hub.WriteString("<iq type='get' id='" + id + "'><query xmlns='jabber:iq:roster'/></iq>"); err != nil {
		return 0, err
	}
	err = hub.Until(func(st []byte) bool {
		if !bytes.HasPrefix(st, []byte("<iq")) || string(client.Attr(st, "id")) != id {
			return false
		}
		for _, q := range []string{"'", `"`} {
			n += bytes.Count(st, []byte("subscription="+q+"from")) + bytes.Count(st, []byte("subscription="+q+"both"))
		}
		return true
	})
	return n, err
}
