package pie

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"balcony/roster"
	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// stampFormat is XEP-0082 §3.2, to the microsecond.
const stampFormat = "2006-01-02T15:04:05.000000Z"

// writer writes children of <user/>, one a line.
type writer struct {
	w   *bufio.Writer
	buf []byte
}

// put writes an element inside of one of namespace parent.
func (w *writer) put(e *xmpp.Element, parent string) error {
	w.buf = append(e.AppendTo(w.buf[:0], parent), '\n')
	_, err := w.w.Write(w.buf)
	return err
}

// open writes the start of an element that has no children yet.
func (w *writer) open(e *xmpp.Element, parent string) error {
	w.buf = e.AppendTo(w.buf[:0], parent)
	return w.text(string(w.buf[:len(w.buf)-len("/>")]) + ">\n")
}

func (w *writer) text(s string) error {
	_, err := w.w.WriteString(s)
	return err
}

// Export writes everything of an account. Nothing was written when the error is auth.ErrNoAccount.
func Export(ctx context.Context, out io.Writer, src Source, account jid.JID) error {
	verifiers, err := src.Verifiers(ctx, account)
	if err != nil {
		return err
	}
	w := &writer{w: bufio.NewWriterSize(out, 64<<10)}
	host := xmpp.El(NS, "host", "jid", account.Domainpart()).String()
	user := xmpp.El(NS, "user", "name", account.Localpart()).String()
	head := fmt.Sprintf("<?xml version='1.0' encoding='UTF-8'?>\n<server-data xmlns='%s'>\n%s>\n%s>\n", NS, strings.TrimSuffix(host, "/>"), strings.TrimSuffix(user, "/>"))
	if err := w.text(head); err != nil {
		return err
	}
	for _, v := range verifiers { // XEP-0227 §4.3
		encode := base64.StdEncoding.EncodeToString
		if err := w.put(xmpp.El(nsScram, "scram-credentials", "mechanism", v.Mechanism).Add(
			xmpp.El("", "iter-count").Say(strconv.Itoa(v.Iterations)), xmpp.El("", "salt").Say(encode(v.Salt)),
			xmpp.El("", "server-key").Say(encode(v.ServerKey)), xmpp.El("", "stored-key").Say(encode(v.StoredKey))), NS); err != nil {
			return err
		}
	}
	for _, part := range []func(context.Context, *writer, Source, jid.JID) error{account0, contacts, vCard, private, blockList, nodes, preferences, archive, messages} {
		if err := part(ctx, w, src, account); err != nil {
			return fmt.Errorf("export %s: %w", account, err)
		}
	}
	if err := w.text("</user>\n</host>\n</server-data>\n"); err != nil {
		return err
	}
	return w.w.Flush()
}

// account0 is what the format has no place for.
func account0(ctx context.Context, w *writer, src Source, account jid.JID) error {
	disabled, err := src.AccountDisabled(ctx, account)
	if err != nil {
		return err
	}
	if disabled {
		if err := w.put(xmpp.El(nsOurs, "disabled"), NS); err != nil {
			return err
		}
	}
	at, status, err := src.LastActivity(ctx, account) // XEP-0012 §4
	if err != nil || at.IsZero() {
		return err
	}
	return w.put(xmpp.El(nsOurs, "last-activity", "stamp", at.UTC().Format(stampFormat)).Say(status), NS)
}

// contacts is XEP-0227 §4.4 and §4.9.
func contacts(ctx context.Context, w *writer, src Source, account jid.JID) error {
	items, _, err := src.Roster(ctx, account)
	if err != nil {
		return err
	}
	slices.SortFunc(items, func(a, b roster.Item) int { return strings.Compare(a.Contact.String(), b.Contact.String()) })
	if err := w.text("<query xmlns='" + nsRoster + "'>\n"); err != nil {
		return err
	}
	for _, i := range items {
		if !i.Listed {
			continue
		}
		if err := w.put(item(i), nsRoster); err != nil {
			return err
		}
	}
	if err := w.text("</query>\n"); err != nil {
		return err
	}
	for _, i := range items {
		if i.In && i.Request != nil {
			// The presence stanza as it is stored has no declaration of its content namespace.
			request, err := parseStanza(i.Request)
			if err != nil {
				return fmt.Errorf("subscription request of %s: %w", i.Contact, err)
			}
			if err := w.put(xmpp.RawElement(request.AppendStandalone(nil)), NS); err != nil {
				return err
			}
		}
	}
	return nil
}

// item is RFC 6121 §2.1.2.
func item(i roster.Item) *xmpp.Element {
	subscription := map[[2]bool]string{{}: "none", {true, false}: "to", {false, true}: "from", {true, true}: "both"}[[2]bool{i.To, i.From}]
	e := xmpp.El("", "item", "jid", i.Contact.String(), "name", i.Name, "subscription", subscription)
	if i.Ask {
		e.Attrs = append(e.Attrs, xmpp.Attr{Name: "ask", Value: "subscribe"})
	}
	if i.Approved {
		e.Attrs = append(e.Attrs, xmpp.Attr{Name: "approved", Value: "true"})
	}
	for _, g := range i.Groups {
		e.Add(xmpp.El("", "group").Say(g))
	}
	return e
}

// vCard is XEP-0227 §4.7.
func vCard(ctx context.Context, w *writer, src Source, account jid.JID) error {
	card, err := src.VCard(ctx, account)
	if err != nil || card == nil {
		return err
	}
	return w.put(xmpp.RawElement(card), NS)
}

// private is XEP-0227 §4.6.
func private(ctx context.Context, w *writer, src Source, account jid.JID) error {
	all, err := src.PrivateElements(ctx, account)
	if err != nil || len(all) == 0 {
		return err
	}
	if err := w.text("<query xmlns='" + nsPrivate + "'>\n"); err != nil {
		return err
	}
	for _, e := range all {
		if err := w.put(xmpp.RawElement(e), nsPrivate); err != nil {
			return err
		}
	}
	return w.text("</query>\n")
}

// blockList: the format knows only privacy lists (XEP-0227 §4.8). XEP-0191 §5 says how a block list is one: items of type "jid" that deny everything.
func blockList(ctx context.Context, w *writer, src Source, account jid.JID) error {
	all, err := src.Blocked(ctx, account)
	if err != nil || len(all) == 0 {
		return err
	}
	if err := w.text("<query xmlns='" + nsPrivacy + "'>\n<default name='" + blocked + "'/>\n<list name='" + blocked + "'>\n"); err != nil {
		return err
	}
	for n, j := range all {
		if err := w.put(xmpp.El("", "item", "type", "jid", "value", j.String(), "action", "deny", "order", strconv.Itoa(n+1)), nsPrivacy); err != nil {
			return err
		}
	}
	return w.text("</list>\n</query>\n")
}

// blocked is the name of the list.
const blocked = "blocked"

// parseTime reads a time of XEP-0082 §3.2.
func parseTime(s string) (time.Time, error) { return time.Parse(time.RFC3339Nano, s) }
