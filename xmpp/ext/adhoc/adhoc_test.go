package adhoc

import (
	"context"
	"encoding/xml"
	"errors"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/form"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

var (
	requester = jid.MustParse("requester@domain/a")
	other     = jid.MustParse("requester@domain/b")
	stranger  = jid.MustParse("stranger@elsewhere/c")
	responder = jid.MustParse("domain")
)

// config is the command of XEP-0050 §2.4.2: two forms, and a note at the end.
func config() Command {
	return Command{
		Node: "config", Name: "Configure Service", Stages: 2,
		Allowed: func(from jid.JID, domain string) bool { return from.Domainpart() == domain },
		Form: func(_ context.Context, _ jid.JID, _ string, submitted []*form.Data) (*form.Data, error) {
			if len(submitted) == 0 {
				return form.New(form.Title("Configure Service"), form.Text("service")), nil
			}
			service, _ := submitted[0].Raw("service")
			if len(service) == 0 {
				return nil, errBadPayload
			}
			return form.New(form.Title("Run modes of "+service[0]), form.Text("runlevel")), nil
		},
		Run: func(_ context.Context, _ jid.JID, _ string, submitted []*form.Data) (*form.Data, string, error) {
			service, _ := submitted[0].Raw("service")
			level, _ := submitted[1].Raw("runlevel")
			if len(level) == 0 {
				return nil, "", xmpp.ErrConflict
			}
			return nil, "Service '" + service[0] + "' has been configured: " + level[0], nil
		},
	}
}

// list is the command of XEP-0050 §2.4.1, which asks nothing.
func list() Command {
	return Command{
		Node: "list", Name: "List Service Configurations",
		Allowed: func(jid.JID, string) bool { return true },
		Run: func(context.Context, jid.JID, string, []*form.Data) (*form.Data, string, error) {
			return form.New(form.Result, form.Text("service", form.Value("httpd"))), "", nil
		},
	}
}

// clock is a Server of which the module uses the time, and Route for errors.
type clock struct {
	xmpp.Server
	t      time.Time
	routed []*xmpp.Stanza
}

func (c *clock) Route(_ context.Context, s *xmpp.Stanza) { c.routed = append(c.routed, s) }

func (c *clock) Now() time.Time { return c.t }

func newModule() (*Module, *clock, *xmpp.Registry) {
	m, c := New(slog.New(slog.DiscardHandler), list(), config()), &clock{t: time.Unix(1_000_000, 0)}
	r := xmpp.NewRegistry(c)
	m.Register(r)
	return m, c, r
}

func read(t *testing.T, s string) *xmpp.Element {
	t.Helper()
	s = between.ReplaceAllString(s, "><")
	e, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader(s)))
	if err != nil {
		t.Fatalf("%v: %s", err, s)
	}
	sorted(e)
	return e
}

var between = regexp.MustCompile(`>\s+<`)

func sorted(e *xmpp.Element) {
	slices.SortFunc(e.Attrs, func(a, b xmpp.Attr) int { return strings.Compare(a.Name, b.Name) })
	for _, c := range e.Children {
		sorted(c)
	}
}

// ask sends a <command/> with these attributes and this inner XML.
func ask(t *testing.T, m *Module, from jid.JID, attrs, inner string) (*xmpp.Element, error) {
	t.Helper()
	s := xmpp.New(xmpp.IQ, "set", responder, from, read(t, `<command xmlns='`+NS+`' `+attrs+`>`+inner+`</command>`))
	el, err := m.command(t.Context(), s)
	if err != nil {
		return nil, err
	}
	return read(t, el.String()), nil
}

// answer checks the answer, in which ID stands for the session id.
func answer(t *testing.T, m *Module, from jid.JID, attrs, inner, want string) (id string) {
	t.Helper()
	el, err := ask(t, m, from, attrs, inner)
	if err != nil {
		t.Fatalf("%s: %v", attrs, err)
	}
	id = el.Attr("sessionid")
	if w := read(t, strings.ReplaceAll(want, "ID", id)).String(); el.String() != w {
		t.Fatalf("%s:\n got %s\nwant %s", attrs, el, w)
	}
	return id
}

// refused checks the error: type, condition and the condition of XEP-0050 §4.4.
func refused(t *testing.T, m *Module, from jid.JID, attrs, inner, want string) {
	t.Helper()
	_, err := ask(t, m, from, attrs, inner)
	if err == nil {
		t.Fatalf("%s: no error, want %s", attrs, want)
	}
	e, ok := xmpp.AsStanzaError(err)
	got := string(e.Stanza.Type) + " " + string(e.Stanza.Condition)
	if e.Detail != nil {
		got += " " + e.Detail.Local
	}
	if !ok || got != want {
		t.Errorf("%s: %s, want %s", attrs, got, want)
	}
}

const (
	submit1 = `<x xmlns='jabber:x:data' type='submit'><field var='service'><value>httpd</value></field></x>`
	submit2 = `<x xmlns='jabber:x:data' type='submit'><field var='runlevel'><value>3</value></field></x>`
	stage1  = `<command xmlns='` + NS + `' node='config' sessionid='ID' status='executing' xml:lang='en'>
		<actions execute='next'><next/></actions>
		<x xmlns='jabber:x:data' type='form'><title>Configure Service</title><field type='text-single' var='service'/></x></command>`
	stage2 = `<command xmlns='` + NS + `' node='config' sessionid='ID' status='executing' xml:lang='en'>
		<actions execute='complete'><prev/><complete/></actions>
		<x xmlns='jabber:x:data' type='form'><title>Run modes of httpd</title><field type='text-single' var='runlevel'/></x></command>`
	done = `<command xmlns='` + NS + `' node='config' sessionid='ID' status='completed' xml:lang='en'>
		<note type='info'>Service &apos;httpd&apos; has been configured: 3</note></command>`
)

// XEP-0050 §2.4.1.
func TestCommandWithoutFormCompletesAtOnce(t *testing.T) {
	m, _, _ := newModule()
	answer(t, m, requester, `node='list' action='execute'`, "",
		`<command xmlns='`+NS+`' node='list' sessionid='ID' status='completed' xml:lang='en'>
		<x xmlns='jabber:x:data' type='result'><field type='text-single' var='service'><value>httpd</value></field></x></command>`)
	if n := len(m.executions.list); n != 0 {
		t.Errorf("%d executions are kept", n)
	}
}

// XEP-0050 §2.4.2.
func TestStagesForwardBackAndToTheEnd(t *testing.T) {
	m, _, _ := newModule()
	id := answer(t, m, requester, `node='config'`, "", stage1)
	same := `node='config' sessionid='` + id + `'`
	answer(t, m, requester, same, submit1, stage2)
	answer(t, m, requester, same+` action='prev'`, "", stage1)
	answer(t, m, requester, same+` action='next'`, submit1, stage2)
	answer(t, m, requester, same+` action='complete'`, submit2, done)
	// §3.3: a session id is not used again.
	refused(t, m, requester, same, submit1, "cancel not-allowed session-expired")
}

// XEP-0050 §3.5.1: a cancel form is a submission.
func TestCancelFormIsASubmission(t *testing.T) {
	m, _, _ := newModule()
	id := answer(t, m, requester, `node='config'`, "", stage1)
	answer(t, m, requester, `node='config' sessionid='`+id+`'`, strings.Replace(submit1, "submit", "cancel", 1), stage2)
}

// XEP-0050 §2.4.3.
func TestCancel(t *testing.T) {
	m, _, _ := newModule()
	id := answer(t, m, requester, `node='config'`, "", stage1)
	answer(t, m, requester, `node='config' action='cancel' sessionid='`+id+`'`, "",
		`<command xmlns='`+NS+`' node='config' sessionid='ID' status='canceled' xml:lang='en'/>`)
	refused(t, m, requester, `node='config' action='cancel' sessionid='`+id+`'`, "", "cancel not-allowed session-expired")
}

// XEP-0050 §4.4, each error.
func TestErrors(t *testing.T) {
	m, _, _ := newModule()
	first := answer(t, m, requester, `node='config'`, "", stage1)
	second := answer(t, m, requester, `node='config'`, "", stage1)
	answer(t, m, requester, `node='config' sessionid='`+second+`'`, submit1, stage2)
	s1, s2 := ` sessionid='`+first+`'`, ` sessionid='`+second+`'`
	for _, c := range []struct {
		what        string
		from        jid.JID
		attrs, form string
		want        string
	}{
		{"no node", requester, ``, "", "modify bad-request"},
		{"unknown node", requester, `node='reboot'`, "", "cancel item-not-found"},
		{"not allowed", stranger, `node='config'`, "", "cancel forbidden"},
		{"not allowed any more", stranger, `node='config'` + s1, submit1, "cancel forbidden"},
		{"unknown action", requester, `node='config' action='explode'`, "", "modify bad-request malformed-action"},
		{"next of nothing", requester, `node='config' action='next'`, submit1, "modify bad-request bad-action"},
		{"complete of nothing", requester, `node='config' action='complete'`, submit1, "modify bad-request bad-action"},
		{"cancel of nothing", requester, `node='config' action='cancel'`, "", "modify bad-request bad-action"},
		{"prev at the first stage", requester, `node='config' action='prev'` + s1, "", "modify bad-request bad-action"},
		{"complete before the last stage", requester, `node='config' action='complete'` + s1, submit1, "modify bad-request bad-action"},
		{"next at the last stage", requester, `node='config' action='next'` + s2, submit2, "modify bad-request bad-action"},
		{"no form", requester, `node='config'` + s1, "", "modify bad-request bad-payload"},
		{"form without the field", requester, `node='config'` + s1, `<x xmlns='jabber:x:data' type='submit'/>`, "modify bad-request bad-payload"},
		{"no form at all", requester, `node='config'` + s1, `<x xmlns='jabber:x:data'><nonsense/></x>`, "modify bad-request bad-payload"},
		{"session id of nobody", requester, `node='config' sessionid='list:20020923T213616Z-700'`, submit1, "modify bad-request bad-sessionid"},
		{"session id that is no more", requester, `node='config' sessionid='` + newID() + `'`, submit1, "cancel not-allowed session-expired"},
		{"another resource's session id", other, `node='config'` + s1, submit1, "cancel not-allowed session-expired"},
		{"session id of another command", requester, `node='list'` + s1, submit1, "modify bad-request bad-sessionid"},
		{"the command's own error", requester, `node='config'` + s2, `<x xmlns='jabber:x:data' type='submit'/>`, "cancel conflict"},
	} {
		t.Run(c.what, func(t *testing.T) { refused(t, m, c.from, c.attrs, c.form, c.want) })
	}
	// None of these errors ended a session.
	answer(t, m, requester, `node='config'`+s1, submit1, stage2)
	answer(t, m, requester, `node='config'`+s2, submit2, done)
}

func TestExecutionsAreBounded(t *testing.T) {
	m, clock, r := newModule()
	start := func(from jid.JID) string {
		clock.t = clock.t.Add(time.Millisecond)
		el, err := ask(t, m, from, `node='config'`, "")
		if err != nil {
			t.Fatal(err)
		}
		return el.Attr("sessionid")
	}
	var ids []string
	for range maxPerAccount + 1 {
		ids = append(ids, start(requester))
	}
	if n := len(m.executions.list); n != maxPerAccount {
		t.Errorf("%d executions of one account, want %d", n, maxPerAccount)
	}
	refused(t, m, requester, `node='config' sessionid='`+ids[0]+`'`, submit1, "cancel not-allowed session-expired")
	answer(t, m, requester, `node='config' sessionid='`+ids[1]+`'`, submit1, stage2)

	// They end with the time …
	clock.t = clock.t.Add(lifetime + time.Second)
	refused(t, m, requester, `node='config' sessionid='`+ids[1]+`'`, submit1, "cancel not-allowed session-expired")
	// … and with the session.
	start(requester)
	start(other)
	for _, h := range r.EndedHooks {
		h(t.Context(), ended{full: requester})
	}
	if n := len(m.executions.list); n != 1 {
		t.Errorf("%d executions, want that of the other resource alone", n)
	}

	// All accounts together.
	for i := len(m.executions.list); i < maxExecutions; i++ {
		start(jid.MustParse("a" + strconv.Itoa(i) + "@domain/x"))
	}
	refused(t, m, jid.MustParse("one-too-many@domain/x"), `node='config'`, "", "wait resource-constraint")

	// What waits in one execution.
	m.executions.endAll(other.String())
	id := answer(t, m, other, `node='config'`, "", stage1)
	big := strings.Replace(submit1, "httpd", strings.Repeat("x", maxSubmitted), 1)
	refused(t, m, other, `node='config' sessionid='`+id+`'`, big, "wait resource-constraint")
	answer(t, m, other, `node='config' sessionid='`+id+`'`, submit1, stage2)
}

type ended struct {
	xmpp.Session
	full jid.JID
}

func (e ended) JID() jid.JID { return e.full }

// XEP-0050 §2.2.
func TestDisco(t *testing.T) {
	m, _, r := newModule()
	if !slices.Contains(r.Features[xmpp.ToServer], NS) {
		t.Error("the server's disco#info lacks the feature")
	}
	ctx, account := t.Context(), requester.Bare()
	xml := func(list []*xmpp.Element) string {
		return xmpp.El("", "query").Add(list...).String()
	}
	for _, c := range []struct {
		what     string
		from, to jid.JID
		node     string
		want     string // "" for no such node
	}{
		{"all", requester, responder, NS, `<query><item jid='domain' node='list' name='List Service Configurations'/><item jid='domain' node='config' name='Configure Service'/></query>`},
		{"what a stranger may do", stranger, responder, NS, `<query><item jid='domain' node='list' name='List Service Configurations'/></query>`},
		{"another node", requester, responder, "elsewhere", ""},
		{"no node", requester, responder, "", ""},
		{"an account", requester, account, NS, ""},
	} {
		items, found, err := m.DiscoItems(ctx, c.from, c.to, c.node, nil)
		if found != (c.want != "") || err != nil || found && xml(items) != c.want {
			t.Errorf("items: %s: %s %v %v", c.what, xml(items), found, err)
		}
	}
	for _, c := range []struct {
		what     string
		from, to jid.JID
		node     string
		want     string
	}{
		{"the list", requester, responder, NS, `<query><identity category='automation' type='command-list' name='Commands'/><feature var='` + NS + `'/></query>`},
		{"a command", requester, responder, "config", `<query><identity category='automation' type='command-node' name='Configure Service'/><feature var='` + NS + `'/><feature var='jabber:x:data'/></query>`},
		{"another node", requester, responder, "elsewhere", ""},
		{"an account", requester, account, "config", ""},
	} {
		info, found, err := m.DiscoInfo(ctx, c.from, c.to, c.node)
		if found != (c.want != "") || err != nil || found && xml(info) != c.want {
			t.Errorf("info: %s: %s %v %v", c.what, xml(info), found, err)
		}
	}
	var se stanza.Error
	if _, _, err := m.DiscoInfo(ctx, stranger, responder, "config"); !errors.As(err, &se) || se.Condition != stanza.Forbidden {
		t.Errorf("info for a stranger: %v", err)
	}
}

// What was submitted may be a password: it is in no error and not in the log, whether the error is the requester's or the server's.
func TestErrorsDoNotRepeatWhatWasSubmitted(t *testing.T) {
	const secret = "V3r0n4"
	submitted := `<x xmlns='jabber:x:data' type='submit'><field var='password'><value>` + secret + `</value></field></x>`
	for _, tt := range []struct {
		name, attrs, inner string
		err                error // of Run
		echo               bool
		want               string
	}{
		{"refused", "node='x' sessionid='ID'", submitted, xmpp.ErrConflict, false, "conflict"},
		{"failed", "node='x' sessionid='ID'", submitted, errors.New("database is down"), false, "internal-server-error"},
		{"no such action", "node='x' sessionid='ID' action='explode'", submitted, nil, false, "bad-request"},
		{"no such session", "node='x' sessionid='none'", submitted, nil, false, "bad-request"},
		{"no such command", "node='y'", submitted, nil, false, "item-not-found"},
		{"not a form", "node='x' sessionid='ID'", "<password>" + secret + "</password>", nil, false, "bad-request"},
		{"text", "node='x' sessionid='ID'", secret, nil, false, "bad-request"},
		{"nothing submitted", "node='y'", "", nil, true, "item-not-found"}, // XEP-0050 §3.7: with the command
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log strings.Builder
			x := config()
			x.Node, x.Stages = "x", 1
			x.Run = func(context.Context, jid.JID, string, []*form.Data) (*form.Data, string, error) {
				return nil, "", tt.err
			}
			m, c := New(slog.New(slog.NewTextHandler(&log, nil)), x), &clock{t: time.Unix(1_000_000, 0)}
			m.Register(xmpp.NewRegistry(c))
			el, err := ask(t, m, requester, "node='x'", "")
			if err != nil {
				t.Fatal(err)
			}
			id := el.Attr("sessionid")
			s := xmpp.New(xmpp.IQ, "set", responder, requester,
				read(t, `<command xmlns='`+NS+`' `+strings.ReplaceAll(tt.attrs, "ID", id)+`>`+tt.inner+`</command>`))
			s.ID = "id7"
			_, err = m.answer(t.Context(), s)
			if tt.echo {
				if e, _ := xmpp.AsStanzaError(err); string(e.Stanza.Condition) != tt.want || len(c.routed) != 0 {
					t.Errorf("error %v, routed %v", err, c.routed)
				}
				return
			}
			if !errors.Is(err, xmpp.ErrDrop) || len(c.routed) != 1 {
				t.Fatalf("error %v, routed %v", err, c.routed)
			}
			got := c.routed[0]
			if got.Type != "error" || got.ID != "id7" || !got.To.Equal(requester) || !got.From.Equal(responder) || !strings.Contains(got.String(), "<"+tt.want) {
				t.Errorf("answer %s", got)
			}
			// The command is there, with what it was asked to do: a client may go by its sessionid.
			empty := "<command xmlns='" + NS + "' " + strings.ReplaceAll(tt.attrs, "ID", id) + "/>"
			if !strings.Contains(got.String(), empty) {
				t.Errorf("answer %s without %s", got, empty)
			}
			if strings.Contains(got.String()+log.String(), secret) {
				t.Errorf("the secret is in the answer %s or in the log %s", got, &log)
			}
			if failed := tt.want == "internal-server-error"; strings.Contains(log.String(), "database is down") != failed || strings.Contains(got.String(), "database") {
				t.Errorf("the log is %q", &log)
			}
		})
	}
}

// Whatever a peer sends as a command, there is an answer.
func FuzzCommand(f *testing.F) {
	f.Add(`<command xmlns='` + NS + `' node='config'/>`)
	f.Add(`<command xmlns='` + NS + `' node='config' action='next'>` + submit1 + `</command>`)
	f.Add(`<command xmlns='` + NS + `' node='list' sessionid='x'><x xmlns='jabber:x:data'><field/><reported/><item/></x><x xmlns='jabber:x:data'/></command>`)
	f.Fuzz(func(t *testing.T, s string) {
		e, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader(s)))
		if err != nil || e.Local != "command" || e.Space != NS {
			return
		}
		m, _, _ := newModule()
		el, err := m.command(t.Context(), xmpp.New(xmpp.IQ, "set", responder, requester, e))
		if (el == nil) == (err == nil) {
			t.Errorf("answer %v, error %v", el, err)
		}
		if _, ok := xmpp.AsStanzaError(err); err != nil && !ok {
			t.Errorf("not a stanza error: %v", err)
		}
	})
}
