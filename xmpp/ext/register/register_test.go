package register

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// accounts is a server's account table, and what was done to it.
type accounts struct {
	exists map[string]string // password by bare JID
	err    error             // of every call
	spared xmpp.Session
}

func (a *accounts) Register(_ context.Context, account jid.JID, password string) error {
	if a.err != nil {
		return a.err
	}
	if _, ok := a.exists[account.String()]; ok {
		return xmpp.ErrConflict
	}
	a.exists[account.String()] = password
	return nil
}

func (a *accounts) SetPassword(_ context.Context, account jid.JID, password string, spare xmpp.Session) error {
	if a.err != nil {
		return a.err
	}
	a.exists[account.String()], a.spared = password, spare
	return nil
}

func (a *accounts) Delete(_ context.Context, account jid.JID) error {
	delete(a.exists, account.String())
	return a.err
}

// server is the part of a server that the module uses.
type server struct {
	xmpp.Server
	now      time.Time
	sessions []xmpp.Session
	routed   []*xmpp.Stanza
}

func (s *server) Now() time.Time                           { return s.now }
func (s *server) Sessions(jid.JID) []xmpp.Session          { return s.sessions }
func (s *server) Route(_ context.Context, st *xmpp.Stanza) { s.routed = append(s.routed, st) }

type session struct {
	xmpp.Session
	full jid.JID
}

func (s session) JID() jid.JID { return s.full }

var (
	globe    = jid.MustParse("bill@shakespeare.lit/globe")
	domain   = jid.MustParse("shakespeare.lit")
	loopback = netip.MustParseAddr("127.0.0.1")
	peer     = netip.MustParseAddr("192.0.2.1")
)

type fixture struct {
	*Module
	accounts *accounts
	server   *server
}

func newFixture(policy Policy, perHour int) fixture {
	a := &accounts{exists: map[string]string{"bill@shakespeare.lit": "theglobe"}}
	s := &server{now: time.Unix(1_000_000, 0), sessions: []xmpp.Session{session{full: jid.MustParse("bill@shakespeare.lit/home")}, session{full: globe}}}
	m := New(Config{PerHour: perHour}, a, func(string) Policy { return policy }, slog.New(slog.NewTextHandler(io.Discard, nil)))
	m.Register(xmpp.NewRegistry(s))
	return fixture{m, a, s}
}

var between = regexp.MustCompile(`>\s+<`)

func read(t *testing.T, s string) *xmpp.Element {
	t.Helper()
	e, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader(between.ReplaceAllString(s, "><"))))
	if err != nil {
		t.Fatalf("%v: %s", err, s)
	}
	return e
}

func request(t *testing.T, typ, inner string) *xmpp.Stanza {
	t.Helper()
	s := xmpp.New(xmpp.IQ, typ, jid.JID{}, jid.JID{}, read(t, `<query xmlns='`+NS+`'>`+inner+`</query>`))
	s.ID = "reg1"
	return s
}

// condition is the error's type and condition, "" for none.
func condition(err error) string {
	if err == nil {
		return ""
	}
	e, _ := xmpp.AsStanzaError(err)
	return string(e.Stanza.Type) + " " + string(e.Stanza.Condition)
}

// XEP-0077 §3.1, §8: what each policy lets a stranger do.
func TestPolicies(t *testing.T) {
	for _, c := range []struct {
		policy Policy
		want   string // of get and set; "" when it is allowed
	}{
		{Open, ""},
		{Invite, "cancel service-unavailable"},
		{Closed, "cancel service-unavailable"},
		{"", "cancel service-unavailable"},
	} {
		f := newFixture(c.policy, 0)
		if got := f.StreamFeature("shakespeare.lit"); (got != nil) != (c.want == "") {
			t.Errorf("%s: stream feature %v", c.policy, got)
		}
		for _, iq := range []*xmpp.Stanza{request(t, "get", ""), request(t, "set", "<username>juliet</username><password>R0m30</password>")} {
			_, err := f.Unauthenticated(t.Context(), "shakespeare.lit", peer, iq)
			if got := condition(err); got != c.want {
				t.Errorf("%s: %s: %q, want %q", c.policy, iq.Type, got, c.want)
			}
		}
	}
	if got := newFixture(Open, 0).StreamFeature("shakespeare.lit").String(); got != `<register xmlns='http://jabber.org/features/iq-register'/>` {
		t.Errorf("stream feature %s", got)
	}
}

// XEP-0077 §3.1 and §6: fields and form say the same.
func TestFields(t *testing.T) {
	el, err := newFixture(Open, 0).Unauthenticated(t.Context(), "shakespeare.lit", peer, request(t, "get", ""))
	if err != nil {
		t.Fatal(err)
	}
	want := read(t, `<query xmlns='jabber:iq:register'>
		<instructions>Choose a username and password for use with this service.</instructions>
		<username/><password/>
		<x xmlns='jabber:x:data' type='form'>
			<title>Registration</title>
			<instructions>Choose a username and password for use with this service.</instructions>
			<field type='hidden' var='FORM_TYPE'><value>jabber:iq:register</value></field>
			<field type='text-single' var='username' label='Username'><required/></field>
			<field type='text-private' var='password' label='Password'><required/></field>
		</x></query>`)
	if got := read(t, el.String()).String(); got != want.String() {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func dataForm(fields string) string {
	return `<x xmlns='jabber:x:data' type='submit'>` + fields + `</x>`
}

func field(name, value string) string {
	return `<field var='` + name + `'><value>` + value + `</value></field>`
}

// XEP-0077 §3.1: registration by a stranger.
func TestRegister(t *testing.T) {
	for _, c := range []struct {
		what, inner string
		want        string // error
		account     string // that was made
	}{
		{"fields", "<username>juliet</username><password>R0m30</password>", "", "juliet@shakespeare.lit"},
		{"form", dataForm(field("FORM_TYPE", NS) + field("username", "juliet") + field("password", "R0m30")), "", "juliet@shakespeare.lit"},
		{"form without FORM_TYPE", dataForm(field("username", "juliet") + field("password", "R0m30")), "", "juliet@shakespeare.lit"},
		{"form before fields", "<username>nurse</username><password>x</password>" + dataForm(field("username", "juliet")+field("password", "R0m30")), "", "juliet@shakespeare.lit"},
		{"one spelling of a name", "<username>Juliet</username><password>R0m30</password>", "", "juliet@shakespeare.lit"},
		{"further fields", "<username>juliet</username><password>R0m30</password><email>j@capulet.lit</email>", "", "juliet@shakespeare.lit"},
		{"taken", "<username>bill</username><password>m1cro$oft</password>", "cancel conflict", ""},
		{"taken in another spelling", "<username>BILL</username><password>m1cro$oft</password>", "cancel conflict", ""},
		{"no password", "<username>juliet</username>", "modify not-acceptable", ""},
		{"empty password", "<username>juliet</username><password/>", "modify not-acceptable", ""},
		{"empty password in the form", dataForm(field("username", "juliet") + field("password", "")), "modify not-acceptable", ""},
		{"no username", "<password>R0m30</password>", "modify not-acceptable", ""},
		{"empty username", "<username/><password>R0m30</password>", "modify not-acceptable", ""},
		{"username with an @", "<username>juliet@shakespeare.lit</username><password>R0m30</password>", "modify not-acceptable", ""},
		{"username with a resource", "<username>juliet/balcony</username><password>R0m30</password>", "modify not-acceptable", ""},
		{"username with a space", "<username>juliet capulet</username><password>R0m30</password>", "modify not-acceptable", ""},
		{"username that is too long", "<username>" + strings.Repeat("j", 1024) + "</username><password>R0m30</password>", "modify not-acceptable", ""},
		{"password that is too long", "<username>juliet</username><password>" + strings.Repeat("R", maxPassword+1) + "</password>", "modify not-acceptable", ""},
		{"nothing", "", "modify not-acceptable", ""},
		{"form of something else", dataForm(field("FORM_TYPE", "jabber:iq:register:cancel") + field("username", "juliet") + field("password", "R0m30")), "modify bad-request", ""},
		{"no form", "<x xmlns='jabber:x:data'><nonsense/></x>", "modify bad-request", ""},
		{"remove", "<remove/>", "wait unexpected-request", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := newFixture(Open, 1)
			before := len(f.accounts.exists)
			el, err := f.Unauthenticated(t.Context(), "shakespeare.lit", peer, request(t, "set", c.inner))
			if got := condition(err); got != c.want || el != nil {
				t.Errorf("%v, %q, want %q", el, got, c.want)
			}
			if c.account == "" {
				if len(f.accounts.exists) != before || f.accounts.exists["bill@shakespeare.lit"] != "theglobe" {
					t.Errorf("accounts are now %v", f.accounts.exists)
				}
			} else if f.accounts.exists[c.account] != "R0m30" {
				t.Errorf("%s was not made: %v", c.account, f.accounts.exists)
			}
		})
	}
}

func TestRegistrationFailsInternally(t *testing.T) {
	f := newFixture(Open, 1)
	f.accounts.err = errors.New("database is gone")
	_, err := f.Unauthenticated(t.Context(), "shakespeare.lit", peer, request(t, "set", "<username>juliet</username><password>R0m30</password>"))
	if !errors.Is(err, f.accounts.err) {
		t.Errorf("error %v is not the one to log", err)
	}
	// It cost the address none of its accounts.
	f.accounts.err = nil
	if _, err = f.Unauthenticated(t.Context(), "shakespeare.lit", peer, request(t, "set", "<username>juliet</username><password>R0m30</password>")); err != nil {
		t.Error(err)
	}
	_, err = f.Unauthenticated(t.Context(), "shakespeare.lit", peer, request(t, "set", "<username>nurse</username><password>R0m30</password>"))
	if got := condition(err); got != "wait resource-constraint" {
		t.Errorf("one account too many: %q", got)
	}
}

// authenticated asks as bill/globe.
func (f fixture) authenticated(t *testing.T, h xmpp.IQHandler, typ string, to jid.JID, inner string) (*xmpp.Element, error) {
	t.Helper()
	return h(t.Context(), request(t, typ, inner).With(to, globe))
}

// XEP-0077 §3.1: "already registered".
func TestGetWhenRegistered(t *testing.T) {
	f := newFixture(Closed, 0)
	for _, to := range []jid.JID{domain, globe.Bare()} {
		el, err := f.authenticated(t, f.get, "get", to, "")
		if err != nil {
			t.Fatal(err)
		}
		got := el.String()
		for _, want := range []string{"<registered/>", "<username>bill</username>", "<password/>"} {
			if !strings.Contains(got, want) {
				t.Errorf("to %s: no %s in %s", to, want, got)
			}
		}
	}
	if _, err := f.authenticated(t, f.get, "get", jid.MustParse("elsewhere.lit"), ""); condition(err) != "cancel service-unavailable" {
		t.Errorf("another domain: %v", err)
	}
}

// XEP-0077 §3.3.
func TestChangePassword(t *testing.T) {
	elsewhere := jid.MustParse("elsewhere.lit")
	for _, c := range []struct {
		what  string
		to    jid.JID
		inner string
		want  string // error
	}{
		{"to the domain", domain, "<username>bill</username><password>newpass</password>", ""},
		{"to the account", globe.Bare(), "<username>bill</username><password>newpass</password>", ""},
		{"another spelling", domain, "<username>Bill</username><password>newpass</password>", ""},
		{"form with a bare JID", domain, dataForm(field("FORM_TYPE", NS+":changepassword") + field("username", "bill@shakespeare.lit") + field("old_password", "theglobe") + field("password", "newpass")), ""},
		{"somebody else's", domain, "<username>juliet</username><password>newpass</password>", "cancel not-allowed"},
		{"somebody else's JID", domain, "<username>bill@elsewhere.lit</username><password>newpass</password>", "cancel not-allowed"},
		{"at another domain", elsewhere, "<username>bill</username><password>newpass</password>", "cancel not-allowed"},
		{"no username", domain, "<password>newpass</password>", "modify bad-request"},
		{"no password", domain, "<username>bill</username>", "modify bad-request"},
		{"empty password", domain, "<username>bill</username><password></password>", "modify bad-request"},
		{"password that is too long", domain, "<username>bill</username><password>" + strings.Repeat("n", maxPassword+1) + "</password>", "modify not-acceptable"},
		{"nothing", domain, "", "modify bad-request"},
		{"form of a cancellation", domain, dataForm(field("FORM_TYPE", NS+":cancel") + field("username", "bill") + field("password", "newpass")), "modify bad-request"},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := newFixture(Closed, 0) // the policy is about new accounts
			el, err := f.authenticated(t, f.set, "set", c.to, c.inner)
			if c.want == "" {
				if el != nil || err != nil {
					t.Errorf("answer %v, error %v", el, err)
				}
				if f.accounts.exists["bill@shakespeare.lit"] != "newpass" {
					t.Errorf("accounts are now %v", f.accounts.exists)
				}
				if f.accounts.spared == nil || !f.accounts.spared.JID().Equal(globe) {
					t.Errorf("the session that asked is not the one that stays: %v", f.accounts.spared)
				}
				return
			}
			if !errors.Is(err, xmpp.ErrDrop) || len(f.server.routed) != 1 {
				t.Fatalf("error %v, answers %v", err, f.server.routed)
			}
			// "SHOULD NOT return the original XML".
			b := f.server.routed[0]
			if b.ID != "reg1" || b.Type != "error" || !b.To.Equal(globe) || !b.From.Equal(c.to) || len(b.Spans()) != 1 {
				t.Errorf("answer %s", b)
			}
			typ, cond, _ := strings.Cut(c.want, " ")
			if s := b.String(); !strings.Contains(s, "type='"+typ+"'") || !strings.Contains(s, "<"+cond+" ") || strings.Contains(s, "newpass") {
				t.Errorf("answer %s, want %s", s, c.want)
			}
			if f.accounts.exists["bill@shakespeare.lit"] != "theglobe" {
				t.Errorf("accounts are now %v", f.accounts.exists)
			}
		})
	}
}

// XEP-0077 §3.2.
func TestRemove(t *testing.T) {
	for _, c := range []struct {
		what  string
		to    jid.JID
		inner string
		want  string
	}{
		{"to the domain", domain, "<remove/>", ""},
		{"to the account", globe.Bare(), "<remove/>", ""},
		{"at another domain", jid.MustParse("elsewhere.lit"), "<remove/>", "registration-required"},
		{"with something else", domain, "<remove/><username>bill</username>", "bad-request"},
		{"with something unknown", domain, "<remove/><really/>", "bad-request"},
		{"with a form", domain, "<remove/>" + dataForm(""), "bad-request"},
		{"elsewhere's remove", domain, "<remove xmlns='urn:x'/>", "bad-request"},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := newFixture(Closed, 0)
			el, err := f.authenticated(t, f.set, "set", c.to, c.inner)
			_, exists := f.accounts.exists["bill@shakespeare.lit"]
			if exists != (c.want != "") {
				t.Errorf("account exists: %v", exists)
			}
			if c.want == "" {
				if el != nil || err != nil {
					t.Errorf("answer %v, error %v", el, err)
				}
				return
			}
			if !errors.Is(err, xmpp.ErrDrop) || len(f.server.routed) != 1 || !strings.Contains(f.server.routed[0].String(), "<"+c.want+" ") {
				t.Errorf("error %v, answers %v, want %s", err, f.server.routed, c.want)
			}
		})
	}
}

func TestRemoveFailsInternally(t *testing.T) {
	f := newFixture(Closed, 0)
	f.accounts.err = errors.New("SELECT secret")
	if _, err := f.authenticated(t, f.set, "set", domain, "<remove/>"); !errors.Is(err, xmpp.ErrDrop) {
		t.Fatal(err)
	}
	if s := f.server.routed[0].String(); !strings.Contains(s, "<internal-server-error ") || strings.Contains(s, "SELECT") {
		t.Errorf("answer %s", s)
	}
}

func TestHandlers(t *testing.T) {
	s := &server{}
	r := xmpp.NewRegistry(s)
	New(Config{}, nil, nil, nil).Register(r)
	for _, to := range []xmpp.Address{xmpp.ToServer, xmpp.ToSelf} {
		for _, typ := range []stanza.IQType{stanza.GetIQ, stanza.SetIQ} {
			if r.IQs[xmpp.IQKey{To: to, Type: typ, Space: NS, Local: "query"}] == nil {
				t.Errorf("no handler for %s to %d", typ, to)
			}
		}
	}
	if len(r.IQs) != 4 {
		t.Errorf("%d handlers: somebody else's account answers too", len(r.IQs))
	}
	if !slices.Contains(r.Features[xmpp.ToServer], NS) {
		t.Error("no disco feature")
	}
}

func FuzzQuery(f *testing.F) {
	f.Add("<query xmlns='jabber:iq:register'><username>bill</username><password>x</password><remove/></query>")
	f.Add("<query xmlns='jabber:iq:register'>" + dataForm(field("username", "bill")+field("password", "x")) + "</query>")
	f.Fuzz(func(t *testing.T, s string) {
		e, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader(s)))
		if err != nil || e.Local != "query" || e.Space != NS {
			return
		}
		fx := newFixture(Open, 0)
		iq := xmpp.New(xmpp.IQ, "set", jid.JID{}, jid.JID{}, e)
		if _, err := fx.Unauthenticated(t.Context(), "shakespeare.lit", loopback, iq); err == nil && len(fx.accounts.exists) != 2 {
			t.Error("success without an account")
		}
		if _, err := fx.set(t.Context(), iq.With(domain, globe)); err != nil && !errors.Is(err, xmpp.ErrDrop) {
			t.Error(err)
		}
		for account := range fx.accounts.exists {
			if j, err := jid.Parse(account); err != nil || j.String() != account || j.Domainpart() != "shakespeare.lit" || j.Resourcepart() != "" {
				t.Errorf("account %q", account)
			}
		}
	})
}
