package push

import (
	"context"
	"encoding/xml"
	"strconv"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// outcome of a notification.
type outcome uint8

const (
	accepted outcome = iota
	failed           // it may succeed later
	refused          // it never will
)

// summary is what a notification says.
type summary struct {
	priority priority
	count    int // messages that the device has not seen; 0: not known
	last     news
}

// notification is the request of XEP-0357 §7. Version 0.3 made the server's domain its sender.
func (m *Module) notification(account jid.JID, r Registration, s summary) *xmpp.Stanza {
	n := xmpp.El(NS, "notification")
	if s.count > 0 {
		f := form{Fields: []field{{Var: "FORM_TYPE", Values: []string{NSSummary}}, {Var: "message-count", Values: []string{strconv.Itoa(s.count)}}}}
		if m.cfg.Sender {
			f.Fields = append(f.Fields, field{Var: "last-message-sender", Values: []string{s.last.sender.String()}})
		}
		body := s.last.body // empty unless the configuration wants it
		if !m.cfg.Body && s.priority >= high {
			body = m.cfg.Placeholder
		}
		if body != "" {
			f.Fields = append(f.Fields, field{Var: "last-message-body", Values: []string{body}})
		}
		n.Add(f.element())
	}
	if s.priority >= high {
		n.Add(xmpp.El(NSPriority, "priority").Say("high"))
	}
	pubsub := xmpp.El(nsPubSub, "pubsub").Add(xmpp.El("", "publish", "node", r.Node).Add(xmpp.El("", "item").Add(n)))
	if r.Options != nil {
		pubsub.Add(xmpp.El("", "publish-options").Add(xmpp.RawElement(r.Options)))
	}
	return xmpp.New(xmpp.IQ, "set", r.Service, account.Domain(), pubsub)
}

// publish sends a notification and waits for the answer. failures is how many went before in a row. A registration that is of no use any more
// is removed.
func (m *Module) publish(ctx context.Context, account jid.JID, r Registration, s summary, failures int) outcome {
	reply, err := m.server.Ask(ctx, m.notification(account, r, s))
	if ctx.Err() != nil {
		return failed // the server shuts down
	}
	what, reason := judge(reply, err)
	if what == failed && failures+1 >= m.bounds.failures {
		what, reason = refused, "too many failures, the last one "+reason
	}
	if what != accepted {
		m.log.Debug("push notification failed", "account", account.String(), "service", r.Service.String(), "reason", reason)
	}
	if what != refused {
		return what
	}
	if err := m.remove(ctx, account, r, reason); err != nil {
		m.log.Error("remove push registration", "account", account.String(), "err", err)
		return failed
	}
	return refused
}

// final are the conditions that say that this registration will not work again. The others are those of services that are out of order or out of
// reach, and bad-request, which the service of Monal gives when it has a fault itself.
var final = map[stanza.Condition]bool{
	stanza.Conflict:              true, // XEP-0060 §7.1.5: precondition-not-met
	stanza.FeatureNotImplemented: true,
	stanza.Forbidden:             true,
	stanza.Gone:                  true,
	stanza.ItemNotFound:          true,
	stanza.JIDMalformed:          true,
	stanza.NotAcceptable:         true,
	stanza.NotAllowed:            true,
	stanza.NotAuthorized:         true,
	stanza.PolicyViolation:       true,
	stanza.RegistrationRequired:  true,
	stanza.SubscriptionRequired:  true,
}

// judge: XEP-0357 §7.1, "a server MAY choose to keep a service enabled if the error is deemed recoverable or transient, until a sufficient
// number of errors have been received in a row". A missing answer is such an error.
func judge(reply *xmpp.Stanza, err error) (what outcome, reason string) {
	switch {
	case err != nil:
		return failed, err.Error()
	case reply.Type != "error":
		return accepted, ""
	}
	var e struct {
		Type       string `xml:"type,attr"`
		Conditions []struct {
			XMLName xml.Name
		} `xml:",any"`
	}
	c, ok := reply.Child("", "error")
	if !ok || c.Decode(&e) != nil {
		return failed, "error without a condition"
	}
	for _, c := range e.Conditions {
		if c.XMLName.Space != xmpp.NSStanzas || c.XMLName.Local == "text" {
			continue
		}
		reason = cut(c.XMLName.Local, 40)
		if final[stanza.Condition(reason)] && e.Type != string(stanza.Wait) {
			return refused, reason
		}
		return failed, reason
	}
	return failed, "error without a condition"
}
