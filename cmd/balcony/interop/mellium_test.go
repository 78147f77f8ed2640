package interop

import (
	"context"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"mellium.im/sasl"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/blocklist"
	"mellium.im/xmpp/delay"
	"mellium.im/xmpp/disco"
	"mellium.im/xmpp/disco/info"
	"mellium.im/xmpp/disco/items"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/ping"
	"mellium.im/xmpp/roster"
	"mellium.im/xmpp/stanza"
	"mellium.im/xmpp/version"
	"mellium.im/xmpp/xtime"
)

// mellium is a session of the client library mellium.im/xmpp. It lets the server choose the resource: given a full JID it would claim
// that in its stream header instead of a bare one (RFC 6120 §4.7.1), and refuse the bare one that comes back (§4.7.2).
type mellium struct {
	*xmpp.Session
	s   *server
	t   *testing.T
	ctx context.Context
	// came has what the server sent without being asked, in words.
	came  chan string
	ended chan error
}

// login says how mellium logs in; the zero value is STARTTLS with the newest TLS and the strongest mechanism that it has.
type login struct {
	directTLS bool
	tls       uint16 // the only version, 0 for any
	mechanism []sasl.Mechanism
}

// connect logs an account in.
func (l login) connect(ctx context.Context, s *server, address string) (*xmpp.Session, error) {
	me := jid.MustParse(address)
	config := s.tls(me.Domainpart())
	config.MinVersion, config.MaxVersion = l.tls, l.tls
	if l.mechanism == nil {
		l.mechanism = []sasl.Mechanism{sasl.ScramSha256Plus, sasl.ScramSha1Plus, sasl.ScramSha256, sasl.ScramSha1, sasl.Plain}
	}
	features := []xmpp.StreamFeature{xmpp.SASL("", password, l.mechanism...), roster.Versioning(), xmpp.BindResource()}
	var conn net.Conn
	var err error
	state := xmpp.SessionState(0)
	if l.directTLS {
		config.NextProtos = []string{"xmpp-client"}
		conn, err = (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", s.addrs["c2s_tls"])
		state |= xmpp.Secure
	} else {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", s.addrs["c2s"])
		features = append(features, xmpp.StartTLS(config))
	}
	if err != nil {
		return nil, err
	}
	session, err := xmpp.NewSession(ctx, me.Domain(), me, conn, state, xmpp.NewNegotiator(
		func(*xmpp.Session, *xmpp.StreamConfig) xmpp.StreamConfig {
			return xmpp.StreamConfig{Features: features}
		}))
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return session, nil
}

// mellium logs in and listens. The test calls its full JID by a name of its own.
func (s *server) mellium(name string) *mellium {
	s.t.Helper()
	m := &mellium{s: s, t: s.t, ctx: within(s.t), came: make(chan string, 100), ended: make(chan error, 1)}
	account, _, _ := strings.Cut(name, "/")
	var err error
	if m.Session, err = (login{}).connect(m.ctx, s, account); err != nil {
		s.t.Fatalf("mellium as %s: %v", account, err)
	}
	s.names = append(s.names, [2]string{m.LocalAddr().String(), name})
	go func() { m.ended <- m.Serve(xmpp.HandlerFunc(m.handle)) }()
	s.t.Cleanup(m.leave)
	return m
}

// handle takes what the server sends, but for answers.
func (m *mellium) handle(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
	d := xml.NewTokenDecoder(xmlstream.MultiReader(xmlstream.Token(*start), t))
	var in struct {
		From  string       `xml:"from,attr"`
		Type  string       `xml:"type,attr"`
		ID    string       `xml:"id,attr"`
		Body  string       `xml:"body"`
		Delay *delay.Delay `xml:"urn:xmpp:delay delay"`
		Query struct {
			Ver  string      `xml:"ver,attr"`
			Item roster.Item `xml:"item"`
		} `xml:"jabber:iq:roster query"`
		Block   *struct{} `xml:"urn:xmpp:blocking block"`
		Unblock *struct{} `xml:"urn:xmpp:blocking unblock"`
		Error   struct {
			Condition []struct{ XMLName xml.Name } `xml:",any"`
		} `xml:"error"`
	}
	if err := d.Decode(&in); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	words := start.Name.Local + " " + in.Type
	if in.From != "" {
		words += " from " + in.From
	}
	if len(in.Error.Condition) > 0 {
		words += " " + in.Error.Condition[0].XMLName.Local
	}
	if in.Body != "" && in.Type != "error" {
		words += ": " + in.Body
	}
	if in.Delay != nil && time.Since(in.Delay.Time).Abs() < patience {
		words += " (delayed by " + in.Delay.From.String() + ")"
	}
	if start.Name.Local == "iq" {
		iq := stanza.IQ{ID: in.ID, Type: stanza.GetIQ}
		if in.From != "" {
			iq.From = jid.MustParse(in.From)
		}
		switch item := in.Query.Item; {
		case in.Type != "set":
			// RFC 6120 §8.4: somebody wants to know something that this client does not.
			_, err := xmlstream.Copy(t, iq.Error(stanza.Error{Type: stanza.Cancel, Condition: stanza.ServiceUnavailable}))
			return err
		case !item.JID.Equal(jid.JID{}):
			words = fmt.Sprintf("push %s %q %s %q", item.JID, item.Name, item.Subscription, item.Group)
		case in.Block != nil:
			words = "push block"
		case in.Unblock != nil:
			words = "push unblock"
		}
		m.came <- words
		_, err := xmlstream.Copy(t, iq.Result(nil))
		return err
	}
	m.came <- words
	return nil
}

// expect waits for what the server sends next.
func (m *mellium) expect(want ...string) {
	m.t.Helper()
	for _, w := range want {
		select {
		case got := <-m.came:
			if got = m.s.named(got); got != w {
				m.t.Fatalf("%s received %s, want %s", m.s.named(m.LocalAddr().String()), got, w)
			}
		case err := <-m.ended:
			m.ended <- err
			m.t.Fatalf("%s: the stream ended (%v) before: %s", m.LocalAddr(), err, w)
		case <-m.ctx.Done():
			m.t.Fatalf("%s did not receive: %s", m.LocalAddr(), w)
		}
	}
}

// nothingElse proves with a ping that nothing else has come.
func (m *mellium) nothingElse() {
	m.t.Helper()
	m.do(ping.Send(m.ctx, m.Session, m.LocalAddr().Domain()))
	select {
	case got := <-m.came:
		m.t.Errorf("%s received %s", m.LocalAddr(), got)
	default:
	}
}

func (m *mellium) do(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatalf("%s: %v", m.LocalAddr(), err)
	}
}

// presence sends presence of a type to an address, "" to everybody.
func (m *mellium) presence(kind stanza.PresenceType, to string) {
	m.t.Helper()
	p := stanza.Presence{Type: kind}
	if to != "" {
		p.To = jid.MustParse(m.s.jid(to))
	}
	m.do(m.Send(m.ctx, p.Wrap(nil)))
}

// online sends initial presence and takes its echo.
func (m *mellium) online() *mellium {
	m.t.Helper()
	m.presence(stanza.AvailablePresence, "")
	m.expect("presence  from " + m.s.named(m.LocalAddr().String()))
	return m
}

// say sends a chat message.
func (m *mellium) say(to, body string) {
	m.t.Helper()
	m.do(m.Encode(m.ctx, struct {
		stanza.Message
		Body string `xml:"body"`
	}{stanza.Message{To: jid.MustParse(m.s.jid(to)), Type: stanza.ChatMessage}, body}))
}

// leave closes the stream and waits for the server to do the same.
func (m *mellium) leave() {
	select {
	case err := <-m.ended:
		m.ended <- err
		return
	default:
	}
	if err := m.Close(); err != nil {
		m.t.Errorf("%s: %v", m.LocalAddr(), err)
	}
	select {
	case err := <-m.ended:
		m.ended <- err
	case <-m.ctx.Done():
		m.t.Errorf("%s: the server does not close the stream", m.LocalAddr())
	}
	_ = m.Conn().Close() // the server may have
}

func TestInteropMelliumLogin(t *testing.T) {
	t.Parallel()
	s := start(t, "romeo@localhost")
	want := make(map[string]int)
	for _, mechanism := range []sasl.Mechanism{sasl.ScramSha256Plus, sasl.ScramSha1Plus, sasl.ScramSha256, sasl.ScramSha1, sasl.Plain} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, direct := range []bool{false, true} {
				l := login{directTLS: direct, tls: version, mechanism: []sasl.Mechanism{mechanism}}
				name := fmt.Sprintf("%s, %s, direct TLS %t", mechanism.Name, tls.VersionName(version), direct)
				session, err := l.connect(within(t), s, "romeo@localhost")
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				if got := session.ConnectionState().Version; got != version {
					t.Errorf("%s: got %s", name, tls.VersionName(got))
				}
				if got := session.LocalAddr(); got.Bare().String() != "romeo@localhost" || got.Resourcepart() == "" {
					t.Errorf("%s: bound %s", name, got)
				}
				if err := errors.Join(session.Close(), session.Conn().Close()); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				want[mechanism.Name+" success"]++
			}
		}
	}
	s.logins(want)
}

func TestInteropMelliumLoginFailures(t *testing.T) {
	t.Parallel()
	s := start(t, "romeo@localhost")
	for _, mechanism := range []sasl.Mechanism{sasl.ScramSha256Plus, sasl.ScramSha1, sasl.Plain} {
		l := login{mechanism: []sasl.Mechanism{mechanism}}
		for _, who := range []string{"tybalt@localhost", "romeo@open.test"} { // no such accounts
			session, err := l.connect(within(t), s, who)
			if err == nil {
				t.Errorf("%s: %s logged in", mechanism.Name, session.LocalAddr())
			} else if !strings.Contains(err.Error(), "not-authorized") {
				t.Errorf("%s: %v, want not-authorized", mechanism.Name, err) // RFC 6120 §6.5.10
			}
		}
	}
	s.logins(map[string]int{"SCRAM-SHA-256-PLUS not-authorized": 2, "SCRAM-SHA-1 not-authorized": 2, "PLAIN not-authorized": 2})
}

func TestInteropMelliumChat(t *testing.T) {
	t.Parallel()
	s := start(t, "romeo@localhost", "juliet@localhost")
	romeo, juliet := s.mellium("romeo@localhost/orchard"), s.mellium("juliet@localhost/balcony").online()
	romeo.online()

	// Between strangers: RFC 6121 §5.2.
	romeo.say("juliet@localhost", "Art thou not Romeo & a <Montague>?")
	juliet.expect("message chat from romeo@localhost/orchard: Art thou not Romeo & a <Montague>?")
	juliet.say("romeo@localhost/orchard", "Neither, fair saint 🌹")
	romeo.expect("message chat from juliet@localhost/balcony: Neither, fair saint 🌹")

	// RFC 6121 §8.5.2.2, XEP-0160: nobody there.
	juliet.leave()
	romeo.say("juliet@localhost", "one")
	romeo.say("juliet@localhost", "two")
	romeo.say("juliet@localhost", "three")
	romeo.nothingElse() // nor an error
	juliet = s.mellium("juliet@localhost/chamber").online()
	juliet.expect("message chat from romeo@localhost/orchard: one (delayed by localhost)",
		"message chat from romeo@localhost/orchard: two (delayed by localhost)",
		"message chat from romeo@localhost/orchard: three (delayed by localhost)")
	juliet.leave()
	juliet = s.mellium("juliet@localhost/chamber").online()
	juliet.nothingElse() // exactly once

	// RFC 6121 §8.5.1: no such account.
	romeo.say("tybalt@localhost", "peace?")
	romeo.expect("message error from tybalt@localhost service-unavailable")
}

func TestInteropMelliumRoster(t *testing.T) {
	t.Parallel()
	s := start(t, "romeo@localhost", "juliet@localhost")
	romeo, juliet := s.mellium("romeo@localhost/orchard"), s.mellium("juliet@localhost/balcony")

	romeo.roster()
	romeo.do(roster.Set(romeo.ctx, romeo.Session, roster.Item{JID: jid.MustParse("juliet@localhost"), Name: "Jülïet", Group: []string{"Capulets", "Loves"}}))
	romeo.expect(`push juliet@localhost "Jülïet" none ["Capulets" "Loves"]`)
	romeo.online()
	juliet.roster()
	juliet.online()

	// RFC 6121 §3.1: both ways.
	romeo.presence(stanza.SubscribePresence, "juliet@localhost")
	juliet.expect("presence subscribe from romeo@localhost")
	juliet.presence(stanza.SubscribedPresence, "romeo@localhost")
	juliet.expect(`push romeo@localhost "" from []`)
	juliet.presence(stanza.SubscribePresence, "romeo@localhost")
	juliet.expect(`push romeo@localhost "" from []`)
	romeo.presence(stanza.SubscribedPresence, "juliet@localhost")
	juliet.expect("presence subscribed from romeo@localhost", `push romeo@localhost "" both []`, "presence  from romeo@localhost/orchard")
	romeo.expect(`push juliet@localhost "Jülïet" none ["Capulets" "Loves"]`, // ask='subscribe', which mellium does not show
		"presence subscribed from juliet@localhost", `push juliet@localhost "Jülïet" to ["Capulets" "Loves"]`, "presence  from juliet@localhost/balcony",
		"presence subscribe from juliet@localhost", `push juliet@localhost "Jülïet" both ["Capulets" "Loves"]`)
	romeo.roster(`juliet@localhost "Jülïet" both ["Capulets" "Loves"]`)

	// RFC 6121 §4.5.2, §4.3.2: who goes and comes back is seen.
	juliet.leave()
	romeo.expect("presence unavailable from juliet@localhost/balcony")
	juliet = s.mellium("juliet@localhost/chamber")
	juliet.roster(`romeo@localhost "" both []`)
	juliet.online()
	juliet.expect("presence  from romeo@localhost/orchard")
	romeo.expect("presence  from juliet@localhost/chamber")

	// RFC 6121 §2.5: removal ends both subscriptions.
	romeo.do(roster.Delete(romeo.ctx, romeo.Session, jid.MustParse("juliet@localhost")))
	juliet.expect("presence unsubscribe from romeo@localhost", `push romeo@localhost "" to []`,
		"presence unavailable from romeo@localhost/orchard", "presence unsubscribed from romeo@localhost", `push romeo@localhost "" none []`)
	romeo.roster()
}

// roster checks what the roster has.
func (m *mellium) roster(want ...string) {
	m.t.Helper()
	var got []string
	items := roster.Fetch(m.ctx, m.Session)
	for items.Next() {
		i := items.Item()
		slices.Sort(i.Group)
		got = append(got, fmt.Sprintf("%s %q %s %q", i.JID, i.Name, i.Subscription, i.Group))
	}
	m.do(errors.Join(items.Err(), items.Close()))
	if diff := cmp.Diff(want, got); diff != "" {
		m.t.Errorf("roster of %s (-want +got):\n%s", m.LocalAddr(), diff)
	}
}

func TestInteropMelliumBlocking(t *testing.T) {
	t.Parallel()
	s := start(t, "romeo@localhost", "juliet@localhost")
	romeo, juliet := s.mellium("romeo@localhost/orchard").online(), s.mellium("juliet@localhost/balcony").online()
	blocked := func(want ...string) {
		t.Helper()
		var got []string
		list := blocklist.Fetch(juliet.ctx, juliet.Session)
		for list.Next() {
			got = append(got, list.JID().String())
		}
		juliet.do(errors.Join(list.Err(), list.Close()))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("block list (-want +got):\n%s", diff)
		}
	}
	blocked()
	juliet.do(blocklist.Add(juliet.ctx, juliet.Session, jid.MustParse("romeo@localhost")))
	juliet.expect("push block") // XEP-0191 §3.3: to each resource that asked for the list
	blocked("romeo@localhost")
	romeo.say("juliet@localhost", "hear me")
	romeo.expect("message error from juliet@localhost service-unavailable") // XEP-0191 §3.3
	juliet.say("romeo@localhost", "no")
	juliet.expect("message error from romeo@localhost not-acceptable") // XEP-0191 §3.3
	juliet.do(blocklist.Remove(juliet.ctx, juliet.Session, jid.MustParse("romeo@localhost")))
	juliet.expect("push unblock")
	blocked()
	romeo.say("juliet@localhost", "hear me now")
	juliet.expect("message chat from romeo@localhost/orchard: hear me now")
}

func TestInteropMelliumServices(t *testing.T) {
	t.Parallel()
	s := start(t, "romeo@localhost")
	romeo := s.mellium("romeo@localhost/orchard").online()
	domain := jid.MustParse("localhost")
	romeo.do(ping.Send(romeo.ctx, romeo.Session, domain))
	romeo.do(ping.Send(romeo.ctx, romeo.Session, romeo.LocalAddr().Bare()))
	v, err := version.Get(romeo.ctx, romeo.Session, domain)
	if romeo.do(err); v.Name != "Balcony" || v.Version == "" {
		t.Errorf("version %+v", v)
	}
	at, err := xtime.Get(romeo.ctx, romeo.Session, domain)
	if romeo.do(err); time.Since(at).Abs() > patience {
		t.Errorf("the server's time is %s", at)
	}
	found, err := disco.GetInfo(romeo.ctx, "", domain, romeo.Session)
	romeo.do(err)
	if len(found.Identity) != 1 || found.Identity[0].Category != "server" || found.Identity[0].Type != "im" {
		t.Errorf("identity %+v", found.Identity)
	}
	for _, want := range []string{disco.NSInfo, disco.NSItems, ping.NS, version.NS, xtime.NS, blocklist.NS} {
		if !slices.ContainsFunc(found.Features, func(f info.Feature) bool { return f.Var == want }) {
			t.Errorf("no feature %s", want)
		}
	}
	list := disco.FetchItems(romeo.ctx, items.Item{JID: domain}, romeo.Session)
	services := 0
	for ; list.Next(); services++ {
		if !strings.HasSuffix(list.Item().JID.String(), "."+domain.String()) {
			t.Errorf("item %+v is no service of this domain", list.Item())
		}
	}
	romeo.do(errors.Join(list.Err(), list.Close()))
	if services == 0 {
		t.Error("the domain has no services")
	}
}
