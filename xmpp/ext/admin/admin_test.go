package admin

import (
	"context"
	"encoding/xml"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"

	"balcony/xmpp"

	"mellium.im/xmpp/form"
	"mellium.im/xmpp/jid"
	streamerr "mellium.im/xmpp/stream"
)

// accounts is a server's account table, and what was done to it.
type accounts struct {
	password map[string]string // by bare JID
	disabled map[string]bool
	spared   xmpp.Session
	err      error // of every call
}

func (a *accounts) Register(_ context.Context, account jid.JID, password string) error {
	if _, ok := a.password[account.String()]; ok {
		return xmpp.ErrConflict
	}
	a.password[account.String()] = password
	return a.err
}

func (a *accounts) SetPassword(_ context.Context, account jid.JID, password string, spare xmpp.Session) error {
	if _, ok := a.password[account.String()]; !ok {
		return xmpp.ErrItemNotFound
	}
	a.password[account.String()], a.spared = password, spare
	return a.err
}

func (a *accounts) Delete(_ context.Context, account jid.JID) error {
	delete(a.password, account.String())
	return a.err
}

func (a *accounts) SetDisabled(_ context.Context, account jid.JID, disabled bool) error {
	a.disabled[account.String()] = disabled
	return a.err
}

func (a *accounts) List(_ context.Context, domain, after string, limit int) ([]jid.JID, error) {
	var list []jid.JID
	for k := range a.password {
		if j := jid.MustParse(k); j.Domainpart() == domain && j.Localpart() > after {
			list = append(list, j)
		}
	}
	slices.SortFunc(list, func(a, b jid.JID) int { return strings.Compare(a.String(), b.String()) })
	return list[:min(limit, len(list))], a.err
}

func (a *accounts) Count(ctx context.Context, domain string) (int, error) {
	list, err := a.List(ctx, domain, "", 1<<30)
	return len(list), err
}

// server is the part of a server that the module uses: bard administers shakespeare.lit.
type server struct {
	xmpp.Server
	accounts *accounts
	sessions []*session
	routed   []*xmpp.Stanza
}

func (s *server) IsAdmin(bare jid.JID, domain string) bool {
	return bare.String() == "bard@shakespeare.lit" && domain == "shakespeare.lit"
}

func (s *server) Exists(_ context.Context, bare jid.JID) (bool, error) {
	_, ok := s.accounts.password[bare.String()]
	return ok, nil
}

func (s *server) Sessions(bare jid.JID) (list []xmpp.Session) {
	for _, x := range s.sessions {
		if x.full.Bare().Equal(bare) {
			list = append(list, x)
		}
	}
	return list
}

func (s *server) EachSession(f func(xmpp.Session) bool) {
	for _, x := range s.sessions {
		if !f(x) {
			return
		}
	}
}

func (s *server) Route(_ context.Context, st *xmpp.Stanza) { s.routed = append(s.routed, st) }

type session struct {
	xmpp.Session
	full   jid.JID
	closed string
}

func (s *session) JID() jid.JID                 { return s.full }
func (s *session) Close(reason streamerr.Error) { s.closed = reason.Err }

var globe = jid.MustParse("bard@shakespeare.lit/globe")

type fixture struct {
	accounts *accounts
	server   *server
	log      *strings.Builder
	commands map[string]Command
}

func newFixture() fixture {
	a := &accounts{password: map[string]string{}, disabled: map[string]bool{}}
	for _, j := range []string{"bard@shakespeare.lit", "juliet@shakespeare.lit", "iago@shakespeare.lit", "eve@elsewhere.lit"} {
		a.password[j] = "old"
	}
	s := &server{accounts: a}
	for _, j := range []string{"bard@shakespeare.lit/globe", "bard@shakespeare.lit/home", "juliet@shakespeare.lit/balcony", "juliet@shakespeare.lit/chamber", "eve@elsewhere.lit/x"} {
		s.sessions = append(s.sessions, &session{full: jid.MustParse(j)})
	}
	log := new(strings.Builder)
	m := New(a, slog.New(slog.NewTextHandler(log, nil)))
	m.Register(xmpp.NewRegistry(s))
	f := fixture{a, s, log, map[string]Command{}}
	for _, c := range m.Commands() {
		f.commands[strings.TrimPrefix(c.Node, NS+"#")] = c
	}
	return f
}

// submit makes a submission of "field=value" strings.
func submit(t *testing.T, fields ...string) *form.Data {
	t.Helper()
	x := xmpp.El(form.NS, "x", "type", "submit")
	values := map[string][]string{"FORM_TYPE": {NS}}
	order := []string{"FORM_TYPE"}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		if values[name] == nil {
			order = append(order, name)
		}
		values[name] = append(values[name], value)
	}
	for _, name := range order {
		el := xmpp.El("", "field", "var", name)
		for _, v := range values[name] {
			el.Add(xmpp.El("", "value").Say(v))
		}
		x.Add(el)
	}
	d := new(form.Data)
	if err := xml.Unmarshal([]byte(x.String()), d); err != nil {
		t.Fatal(err)
	}
	return d
}

func (f fixture) run(t *testing.T, command string, fields ...string) (*form.Data, string, error) {
	t.Helper()
	c, ok := f.commands[command]
	if !ok {
		t.Fatalf("no command %s", command)
	}
	var submitted []*form.Data
	if c.Stages == 1 {
		submitted = []*form.Data{submit(t, fields...)}
	}
	return c.Run(t.Context(), globe, "shakespeare.lit", submitted)
}

// condition is the error's type, condition and detail, "" for none.
func condition(err error) string {
	if err == nil {
		return ""
	}
	e, _ := xmpp.AsStanzaError(err)
	s := string(e.Stanza.Type) + " " + string(e.Stanza.Condition)
	if e.Detail != nil {
		s += " " + e.Detail.Local
	}
	return s
}

// XEP-0133 §6, and an administrator of one domain is none of another.
func TestOnlyTheDomainsAdminsAreAllowed(t *testing.T) {
	for name, c := range newFixture().commands {
		for _, who := range []struct {
			from, domain string
			want         bool
		}{
			{"bard@shakespeare.lit/globe", "shakespeare.lit", true},
			{"bard@shakespeare.lit/globe", "elsewhere.lit", false},
			{"juliet@shakespeare.lit/balcony", "shakespeare.lit", false},
			{"bard@elsewhere.lit/globe", "shakespeare.lit", false},
		} {
			if got := c.Allowed(jid.MustParse(who.from), who.domain); got != who.want {
				t.Errorf("%s: %s at %s: %v", name, who.from, who.domain, got)
			}
		}
	}
}

// The forms of XEP-0133 §4.
func TestForms(t *testing.T) {
	one := map[string]string{ // field type and name, with * when it is required
		"add-user":                  "jid-single accountjid*, text-private password*, text-private password-verify",
		"delete-user":               "jid-multi accountjids*",
		"disable-user":              "jid-multi accountjids*",
		"reenable-user":             "jid-multi accountjids*",
		"end-user-session":          "jid-multi accountjids*",
		"change-user-password":      "jid-single accountjid*, text-private password*",
		"user-stats":                "jid-single accountjid*",
		"get-registered-users-list": "list-single max_items",
		"get-online-users-list":     "list-single max_items",
		"announce":                  "text-multi announcement*",
		"get-registered-users-num":  "",
		"get-online-users-num":      "",
	}
	f := newFixture()
	if len(f.commands) != len(one) {
		t.Errorf("%d commands, want %d", len(f.commands), len(one))
	}
	for name, want := range one {
		c := f.commands[name]
		if c.Node != NS+"#"+name || c.Name == "" || (c.Stages == 1) != (want != "") {
			t.Errorf("%s: %+v", name, c)
			continue
		}
		if want == "" {
			continue
		}
		d, err := c.Form(t.Context(), globe, "shakespeare.lit", nil)
		if err != nil {
			t.Fatal(err)
		}
		var fields []string
		d.ForFields(func(f form.FieldData) {
			if f.Type == form.TypeHidden {
				if f.Var != "FORM_TYPE" || !slices.Equal(f.Raw, []string{NS}) {
					t.Errorf("%s: hidden %+v", name, f)
				}
				return
			}
			s := string(f.Type) + " " + f.Var
			if f.Required {
				s += "*"
			}
			fields = append(fields, s)
		})
		if got := strings.Join(fields, ", "); got != want || d.Title() == "" || d.Instructions() == "" {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	many := make([]string, maxAccounts+1)
	for i := range many {
		many[i] = "accountjids=u" + strconv.Itoa(i) + "@shakespeare.lit"
	}
	for _, c := range []struct {
		command string
		fields  []string
		want    string
	}{
		{"add-user", []string{"accountjid=juliet@shakespeare.lit", "password=x", "password-verify=x"}, "cancel conflict"},
		{"add-user", []string{"accountjid=nurse@shakespeare.lit", "password=x", "password-verify=y"}, "modify not-acceptable"},
		{"add-user", []string{"accountjid=nurse@shakespeare.lit", "password=x", "password-verify="}, "modify not-acceptable"},
		{"add-user", []string{"accountjid=nurse@shakespeare.lit"}, "modify bad-request bad-payload"},
		{"add-user", []string{"password=x"}, "modify bad-request bad-payload"},
		{"add-user", []string{"accountjid=nurse@elsewhere.lit", "password=x"}, "cancel not-allowed"},
		{"add-user", []string{"accountjid=shakespeare.lit", "password=x"}, "modify not-acceptable"},
		{"add-user", []string{"accountjid=nurse@shakespeare.lit/x", "password=x"}, "modify not-acceptable"},
		{"add-user", []string{"accountjid=nu rse@shakespeare.lit", "password=x"}, "modify not-acceptable"},
		{"add-user", []string{"accountjid=nurse@shakespeare.lit", "password=" + strings.Repeat("x", maxPassword+1)}, "modify not-acceptable"},
		{"add-user", []string{"FORM_TYPE=urn:other", "accountjid=nurse@shakespeare.lit", "password=x"}, ""}, // the first FORM_TYPE counts
		{"delete-user", nil, "modify bad-request bad-payload"},
		{"delete-user", []string{"accountjids=nurse@shakespeare.lit"}, "cancel item-not-found"},
		{"delete-user", []string{"accountjids=juliet@shakespeare.lit", "accountjids=nurse@shakespeare.lit"}, "cancel item-not-found"},
		{"delete-user", []string{"accountjids=juliet@shakespeare.lit", "accountjids=eve@elsewhere.lit"}, "cancel not-allowed"},
		{"delete-user", []string{"accountjids=juliet@shakespeare.lit/balcony"}, "modify not-acceptable"},
		{"delete-user", []string{"accountjids=@"}, "modify not-acceptable"},
		{"delete-user", []string{"accountjids=bard@shakespeare.lit"}, "cancel not-allowed"},
		{"delete-user", many, "modify not-acceptable"},
		{"disable-user", []string{"accountjids=bard@shakespeare.lit"}, "cancel not-allowed"},
		{"disable-user", []string{"accountjids=nurse@shakespeare.lit"}, "cancel item-not-found"},
		{"disable-user", []string{"accountjids=eve@elsewhere.lit"}, "cancel not-allowed"},
		{"reenable-user", []string{"accountjids=nurse@shakespeare.lit"}, "cancel item-not-found"},
		{"reenable-user", []string{"accountjids=eve@elsewhere.lit"}, "cancel not-allowed"},
		{"end-user-session", nil, "modify bad-request bad-payload"},
		{"end-user-session", []string{"accountjids=eve@elsewhere.lit"}, "cancel not-allowed"},
		{"change-user-password", []string{"accountjid=juliet@shakespeare.lit"}, "modify bad-request bad-payload"},
		{"change-user-password", []string{"accountjid=juliet@shakespeare.lit", "password="}, "modify bad-request bad-payload"},
		{"change-user-password", []string{"accountjid=nurse@shakespeare.lit", "password=x"}, "cancel item-not-found"},
		{"change-user-password", []string{"accountjid=eve@elsewhere.lit", "password=x"}, "cancel not-allowed"},
		{"user-stats", []string{"accountjid=nurse@shakespeare.lit"}, "cancel item-not-found"},
		{"user-stats", []string{"accountjid=eve@elsewhere.lit"}, "cancel not-allowed"},
		{"get-registered-users-list", []string{"max_items=many"}, "modify not-acceptable"},
		{"get-online-users-list", []string{"max_items=0"}, "modify not-acceptable"},
		{"get-online-users-list", []string{"max_items=-1"}, "modify not-acceptable"},
		{"announce", nil, "modify bad-request bad-payload"},
		{"announce", []string{"announcement= "}, "modify bad-request bad-payload"},
	} {
		f := newFixture()
		before := len(f.accounts.password)
		_, _, err := f.run(t, c.command, c.fields...)
		if got := condition(err); got != c.want {
			t.Errorf("%s %q: %q, want %q", c.command, c.fields, got, c.want)
		}
		if c.want == "" {
			continue
		}
		// All or nothing.
		if len(f.accounts.password) != before || len(f.accounts.disabled) != 0 || f.accounts.password["juliet@shakespeare.lit"] != "old" || len(f.server.routed) != 0 {
			t.Errorf("%s %q changed something", c.command, c.fields)
		}
		for _, s := range f.server.sessions {
			if s.closed != "" {
				t.Errorf("%s %q ended %s", c.command, c.fields, s.full)
			}
		}
	}
}

func TestFormOfSomethingElse(t *testing.T) {
	d := new(form.Data)
	if err := xml.Unmarshal([]byte(`<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:other</value></field>`+
		`<field var='accountjids'><value>juliet@shakespeare.lit</value></field></x>`), d); err != nil {
		t.Fatal(err)
	}
	_, _, err := newFixture().commands["delete-user"].Run(t.Context(), globe, "shakespeare.lit", []*form.Data{d})
	if condition(err) != "modify bad-request bad-payload" {
		t.Error(err)
	}
}

// ok runs a command that succeeds and returns the field of its result.
func (f fixture) ok(t *testing.T, field, command string, fields ...string) (values []string, note string) {
	t.Helper()
	d, note, err := f.run(t, command, fields...)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	if field == "" {
		if d != nil {
			t.Errorf("%s: a result", command)
		}
		return nil, note
	}
	if typ, _ := d.Raw("FORM_TYPE"); !slices.Equal(typ, []string{NS}) {
		t.Errorf("%s: FORM_TYPE %q", command, typ)
	}
	values, _ = d.Raw(field)
	return values, note
}

func TestAccounts(t *testing.T) {
	f := newFixture()
	f.ok(t, "", "add-user", "accountjid=Nurse@shakespeare.lit", "password=R0m30", "password-verify=R0m30")
	if f.accounts.password["nurse@shakespeare.lit"] != "R0m30" {
		t.Errorf("accounts are %v", f.accounts.password)
	}
	f.ok(t, "", "change-user-password", "accountjid=juliet@shakespeare.lit", "password=V3r0n4")
	if f.accounts.password["juliet@shakespeare.lit"] != "V3r0n4" || f.accounts.spared != nil {
		t.Errorf("accounts are %v, session %v stays", f.accounts.password, f.accounts.spared)
	}
	f.ok(t, "", "change-user-password", "accountjid=bard@shakespeare.lit", "password=V3r0n4")
	if f.accounts.spared != xmpp.Session(f.server.sessions[0]) {
		t.Errorf("the administrator's own session does not stay: %v", f.accounts.spared)
	}
	f.ok(t, "", "disable-user", "accountjids=juliet@shakespeare.lit", "accountjids=iago@shakespeare.lit", "accountjids=Iago@shakespeare.lit")
	if !f.accounts.disabled["juliet@shakespeare.lit"] || !f.accounts.disabled["iago@shakespeare.lit"] {
		t.Errorf("disabled are %v", f.accounts.disabled)
	}
	f.ok(t, "", "reenable-user", "accountjids=juliet@shakespeare.lit")
	if f.accounts.disabled["juliet@shakespeare.lit"] || !f.accounts.disabled["iago@shakespeare.lit"] {
		t.Errorf("disabled are %v", f.accounts.disabled)
	}
	f.ok(t, "", "delete-user", "accountjids=iago@shakespeare.lit")
	if _, ok := f.accounts.password["iago@shakespeare.lit"]; ok {
		t.Error("iago is still there")
	}
	// What was done is in the log, passwords are not.
	log := f.log.String()
	for _, want := range []string{"account added", "password changed", "account disabled", "account enabled", "account deleted", "admin=bard@shakespeare.lit/globe"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in the log:\n%s", want, log)
		}
	}
	if strings.Contains(log, "R0m30") || strings.Contains(log, "V3r0n4") {
		t.Error("a password is in the log")
	}
}

// XEP-0133 §4.5: a bare JID is all sessions, a full JID is one.
func TestEndUserSession(t *testing.T) {
	for _, c := range []struct{ jid, ended string }{
		{"juliet@shakespeare.lit", "balcony chamber"},
		{"juliet@shakespeare.lit/chamber", "chamber"},
		{"juliet@shakespeare.lit/nowhere", ""},
	} {
		f := newFixture()
		f.ok(t, "", "end-user-session", "accountjids="+c.jid)
		var ended []string
		for _, s := range f.server.sessions {
			if s.closed != "" {
				ended = append(ended, s.full.Resourcepart())
			}
		}
		if got := strings.Join(ended, " "); got != c.ended {
			t.Errorf("%s: ended %q, want %q", c.jid, got, c.ended)
		}
	}
}

func TestNumbersAndLists(t *testing.T) {
	f := newFixture()
	for _, c := range []struct {
		command, fields, field, want string
		note                         bool
	}{
		{"get-registered-users-num", "", "registeredusersnum", "3", false},
		{"get-online-users-num", "", "onlineusersnum", "2", false},
		{"get-registered-users-list", "max_items=25", "registereduserjids", "bard@shakespeare.lit iago@shakespeare.lit juliet@shakespeare.lit", false},
		{"get-registered-users-list", "max_items=none", "registereduserjids", "bard@shakespeare.lit iago@shakespeare.lit juliet@shakespeare.lit", false},
		{"get-registered-users-list", "max_items=2", "registereduserjids", "bard@shakespeare.lit iago@shakespeare.lit", true},
		{"get-online-users-list", "max_items=25", "onlineuserjids", "bard@shakespeare.lit juliet@shakespeare.lit", false},
		{"get-online-users-list", "max_items=1", "onlineuserjids", "bard@shakespeare.lit", true},
		{"user-stats", "accountjid=juliet@shakespeare.lit", "onlineresources", "balcony chamber", false},
		{"user-stats", "accountjid=iago@shakespeare.lit", "onlineresources", "", false},
	} {
		values, note := f.ok(t, c.field, c.command, c.fields)
		if got := strings.Join(values, " "); got != c.want || (note != "") != c.note {
			t.Errorf("%s %s: %q %q, want %q", c.command, c.fields, got, note, c.want)
		}
	}
}

// XEP-0133 §4.23: to everybody of the domain who has a session.
func TestAnnounce(t *testing.T) {
	f := newFixture()
	f.ok(t, "", "announce", "announcement=Attention!", "announcement=Log off <now>!")
	var got []string
	for _, s := range f.server.routed {
		body, _ := s.Child("", "body")
		if s.Type != "headline" || s.From.String() != "shakespeare.lit" || body.Text() != "Attention!\nLog off <now>!" {
			t.Errorf("announcement %s", s)
		}
		got = append(got, s.To.String())
	}
	want := []string{"bard@shakespeare.lit/globe", "bard@shakespeare.lit/home", "juliet@shakespeare.lit/balcony", "juliet@shakespeare.lit/chamber"}
	if !slices.Equal(got, want) {
		t.Errorf("sent to %q", got)
	}
}

func TestInternalErrors(t *testing.T) {
	gone := errors.New("database is gone")
	for _, c := range []struct{ command, fields string }{
		{"delete-user", "accountjids=juliet@shakespeare.lit"},
		{"disable-user", "accountjids=juliet@shakespeare.lit"},
		{"get-registered-users-num", ""},
		{"get-registered-users-list", "max_items=25"},
	} {
		f := newFixture()
		f.accounts.err = gone
		if _, _, err := f.run(t, c.command, c.fields); !errors.Is(err, gone) {
			t.Errorf("%s: %v", c.command, err)
		}
	}
}
