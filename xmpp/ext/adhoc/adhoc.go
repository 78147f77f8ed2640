// Package adhoc implements XEP-0050: Ad-Hoc Commands 1.3.0, for commands that are addressed to a domain of this server. What the commands
// do is given to New by the wiring.
package adhoc

import (
	"context"
	"log/slog"
	"slices"

	"balcony/xmpp"

	"mellium.im/xmpp/form"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// NS is the namespace of commands and the disco node that lists them (XEP-0050 §2.2).
const NS = "http://jabber.org/protocol/commands"

// Command is one command: a number of forms to fill in, one after the other, and what is done with them. Modules that bring commands
// declare a type of the same fields, so that the wiring can convert it.
type Command struct {
	Node, Name string // XEP-0050 §3.2: the node is unique, the name is for people
	// Allowed reports whether from may execute the command at domain. It is asked for every request.
	Allowed func(from jid.JID, domain string) bool
	// Stages is the number of forms.
	Stages int
	// Form is the form of the next stage, given what was submitted for the stages before. An error leaves the session as it was.
	Form func(ctx context.Context, from jid.JID, domain string, submitted []*form.Data) (*form.Data, error)
	// Run does it; submitted has one form for every stage. result and note may be empty.
	Run func(ctx context.Context, from jid.JID, domain string, submitted []*form.Data) (result *form.Data, note string, err error)
}

// Module answers commands.
type Module struct {
	commands   []Command // in the order of listing
	executions executions
	log        *slog.Logger
	server     xmpp.Server // static after Register
}

// New makes the module of these commands.
func New(log *slog.Logger, commands ...Command) *Module {
	m := &Module{commands: commands, log: log}
	m.executions.init()
	return m
}

// Protocol lists XEP-0050, and XEP-0004 for the forms.
func (m *Module) Protocol() []xmpp.Protocol {
	return []xmpp.Protocol{
		{XEP: 50, Version: "1.3.0", Status: xmpp.Complete, Note: "commands of the server; in English only"},
		{XEP: 4, Version: "2.13.2", Status: xmpp.Complete},
	}
}

// Register adds the command handler.
func (m *Module) Register(r *xmpp.Registry) {
	m.server = r.Server
	r.Feature(xmpp.ToServer, NS) // XEP-0050 §2.1
	r.IQ(xmpp.ToServer, stanza.SetIQ, NS, "command", m.answer)
	r.Ended(func(_ context.Context, s xmpp.Session) { m.executions.endAll(s.JID().String()) })
	m.executions.now = r.Server.Now
}

// DiscoItems are the commands that asker may execute at the domain to, for the node NS (XEP-0050 §2.2). found is false for every other node.
func (m *Module) DiscoItems(_ context.Context, asker, to jid.JID, node string, _ *xmpp.Element) (items []*xmpp.Element, found bool, err error) {
	if node != NS || to.Localpart() != "" {
		return nil, false, nil
	}
	for _, c := range m.commands {
		if c.Allowed(asker, to.Domainpart()) { // "not required to send the same list of commands to all requesters"
			items = append(items, xmpp.El("", "item", "jid", to.String(), "node", c.Node, "name", c.Name))
		}
	}
	return items, true, nil
}

// DiscoInfo tells of the node NS and of each command's node (XEP-0050 §2.2). found is false for every other node; the error is forbidden
// when asker may not execute the command.
func (m *Module) DiscoInfo(_ context.Context, asker, to jid.JID, node string) (info []*xmpp.Element, found bool, err error) {
	if to.Localpart() != "" {
		return nil, false, nil
	}
	if node == NS {
		return describe("command-list", "Commands", NS), true, nil
	}
	c := m.find(node)
	switch {
	case c == nil:
		return nil, false, nil
	case !c.Allowed(asker, to.Domainpart()):
		return nil, true, errForbidden
	}
	return describe("command-node", c.Name, NS, form.NS), true, nil
}

func describe(typ, name string, features ...string) []*xmpp.Element {
	info := []*xmpp.Element{xmpp.El("", "identity", "category", "automation", "type", typ, "name", name)}
	for _, f := range features {
		info = append(info, xmpp.El("", "feature", "var", f))
	}
	return info
}

func (m *Module) find(node string) *Command {
	i := slices.IndexFunc(m.commands, func(c Command) bool { return c.Node == node })
	if i < 0 {
		return nil
	}
	return &m.commands[i]
}

// The errors of XEP-0050 §4.4.
var (
	errMalformedAction = specific(xmpp.ErrBadRequest, "malformed-action")
	errBadAction       = specific(xmpp.ErrBadRequest, "bad-action")
	errBadPayload      = specific(xmpp.ErrBadRequest, "bad-payload")
	errBadSessionID    = specific(xmpp.ErrBadRequest, "bad-sessionid")
	errSessionExpired  = specific(xmpp.ErrNotAllowed, "session-expired")
	errForbidden       = xmpp.Fail(stanza.Cancel, stanza.Forbidden, "") // cancel, unlike RFC 6120: no credentials help
)

func specific(e stanza.Error, condition string) xmpp.Error {
	return xmpp.Error{Stanza: e, Detail: xmpp.El(NS, condition)}
}

// request is a <command/> as the requester sends it. The status attribute is ignored, as §4.1 says.
type request struct {
	Node      string `xml:"node,attr"`
	SessionID string `xml:"sessionid,attr"`
	Action    string `xml:"action,attr"`
	// Form is taken for a submission whatever its type says (§3.5.1: even a cancel form).
	Form *form.Data `xml:"jabber:x:data x"`
}

// answer is command, whose errors do not repeat what was submitted: it may be a password. RFC 6120 §8.3.1 leaves the original XML up to
// whoever returns the error, and XEP-0050 §3.7 shows it with the empty <command/> alone. That has to be there: by its sessionid slixmpp
// knows what the answer is for.
func (m *Module) answer(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	el, err := m.command(ctx, s)
	if err == nil || isEmpty(s) {
		return el, err
	}
	e, expected := xmpp.AsStanzaError(err)
	if !expected {
		m.log.Error("execute command", "err", err)
	}
	bounce := xmpp.New(xmpp.IQ, string(stanza.ErrorIQ), s.From, s.To, emptied(s), xmpp.ErrorElement(e))
	bounce.ID = s.ID
	m.server.Route(ctx, bounce)
	return nil, xmpp.ErrDrop
}

// emptied is the <command/> of a request without what was submitted in it.
func emptied(s *xmpp.Stanza) *xmpp.Element {
	var q struct {
		Node      string `xml:"node,attr"`
		SessionID string `xml:"sessionid,attr"`
		Action    string `xml:"action,attr"`
	}
	var attrs []string
	if p, ok := s.Payload(); ok && p.Decode(&q) == nil {
		for _, a := range [][]string{{"node", q.Node}, {"sessionid", q.SessionID}, {"action", q.Action}} {
			if a[1] != "" {
				attrs = append(attrs, a...)
			}
		}
	}
	return xmpp.El(NS, "command", attrs...)
}

// isEmpty reports whether the <command/> has nothing in it.
func isEmpty(s *xmpp.Stanza) bool {
	var q struct {
		Inner []byte `xml:",innerxml"`
	}
	p, ok := s.Payload()
	return ok && p.Decode(&q) == nil && len(q.Inner) == 0
}

// command answers XEP-0050 §2.4.
func (m *Module) command(ctx context.Context, s *xmpp.Stanza) (*xmpp.Element, error) {
	p, _ := s.Payload()
	q, err := parse(p)
	if err != nil {
		return nil, err
	}
	c := m.find(q.Node)
	switch {
	case c == nil:
		return nil, xmpp.ErrItemNotFound // §4.4: "cannot find the requested command node"
	case !c.Allowed(s.From, s.To.Domainpart()):
		return nil, errForbidden
	case q.SessionID == "":
		return m.begin(ctx, c, s, q)
	}
	return m.proceed(ctx, c, s, q)
}

func parse(p xmpp.Child) (q request, err error) {
	if err := p.Decode(&q); err != nil {
		return q, errBadPayload
	}
	if q.Node == "" {
		return q, xmpp.ErrBadRequest // §4.1: "This attribute MUST be present"
	}
	switch q.Action {
	case "":
		q.Action = "execute" // §4.1: the default
	case "execute", "cancel", "prev", "next", "complete":
	default:
		return q, errMalformedAction
	}
	return q, nil
}

// begin executes a command's first stage.
func (m *Module) begin(ctx context.Context, c *Command, s *xmpp.Stanza, q request) (*xmpp.Element, error) {
	if q.Action != "execute" {
		return nil, errBadAction
	}
	e := &execution{id: newID(), node: c.Node, from: s.From, domain: s.To.Domainpart()}
	if c.Stages == 0 {
		return e.run(ctx, c, nil)
	}
	el, err := e.show(ctx, c, nil)
	if err != nil {
		return nil, err
	}
	return el, m.executions.start(e)
}

// proceed takes the next step of an execution: XEP-0050 §2.4.2, §2.4.3 and §3.4.
func (m *Module) proceed(ctx context.Context, c *Command, s *xmpp.Stanza, q request) (*xmpp.Element, error) {
	e, err := m.executions.take(q.SessionID, c.Node, s.From, s.To.Domainpart())
	if err != nil {
		return nil, err
	}
	el, err := e.step(ctx, c, q, len(s.PayloadBytes()))
	if err != nil || !e.ended {
		m.executions.back(e) // an error can be mended: the requester sends the form again
	}
	return el, err
}
