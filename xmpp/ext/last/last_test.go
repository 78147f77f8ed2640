package last_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"balcony/xmpp"
	"balcony/xmpp/ext/last"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

func TestTranscripts(t *testing.T) { xmpptest.Transcripts(t, "testdata/*.txt") }

// kept is what the server has stored for juliet.
func kept(t *testing.T, srv *xmpptest.Server) (time.Time, string) {
	t.Helper()
	at, status, err := srv.DB().LastActivity(context.Background(), jid.MustParse("juliet@localhost"))
	if err != nil {
		t.Fatal(err)
	}
	return at, status
}

// XEP-0012 §3: "logged out" is when the last available resource went, whichever way it did.
func TestLastResourceThatGoesCounts(t *testing.T) {
	srv := xmpptest.New(t)
	balcony, chamber := srv.Client("juliet@localhost/balcony"), srv.Client("juliet@localhost/chamber")
	balcony.Online()
	balcony.Send("<presence type='unavailable'><status>one</status></presence>")
	balcony.Read()
	first, status := kept(t, srv)
	if first.IsZero() || status != "one" {
		t.Fatalf("after the only available resource went: %v %q", first, status)
	}
	chamber.Online()
	balcony.Send("<presence/>")
	balcony.ExpectAll("<presence from='juliet@localhost/balcony' to='{any}'/>", "<presence from='juliet@localhost/chamber' to='{any}'/>")
	balcony.Send("<presence type='unavailable'><status>two</status></presence>")
	balcony.Sync()
	if at, status := kept(t, srv); !at.Equal(first) || status != "one" {
		t.Errorf("while another resource is available: %v %q", at, status)
	}
	chamber.Disconnect()
	srv.Eventually("last activity of a cut connection", func() bool {
		at, status := kept(t, srv)
		return at.After(first) && status == ""
	})
}

func TestStatusIsBoundedAndWhole(t *testing.T) {
	srv := xmpptest.New(t)
	c := srv.Client("juliet@localhost/balcony")
	c.Online()
	c.Send("<presence type='unavailable'><status>x" + strings.Repeat("é", 3000) + "</status></presence>")
	c.Read()
	if _, status := kept(t, srv); status != "x"+strings.Repeat("é", 511) {
		t.Errorf("%d bytes are kept: %.20q", len(status), status)
	}
}

// clock is a server that only knows what time it is, and nobody is online.
type clock struct {
	xmpp.Server
	now time.Time
}

func (c clock) Now() time.Time                  { return c.now }
func (c clock) Sessions(jid.JID) []xmpp.Session { return nil }

// at is a store in which everybody went at one time.
type at struct{ time.Time }

func (a at) LastActivity(context.Context, jid.JID) (time.Time, string, error) { return a.Time, "", nil }
func (a at) NoteLastActivity(jid.JID, time.Time, string)                      {}

func TestSeconds(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		ago  time.Duration
		want string
	}{
		{903 * time.Second, "903"},       // the example of XEP-0012 §3
		{123456 * time.Second, "123456"}, // the example of §5
		{1999 * time.Millisecond, "1"},   // whole seconds
		{-time.Hour, "0"},                // the clock was set back
		{250 * 365 * 24 * time.Hour, "7884000000"},
	} {
		r := xmpp.NewRegistry(clock{now: now})
		(&last.Module{Store: at{now.Add(-tt.ago)}, Start: now.Add(-tt.ago)}).Register(r)
		for to, address := range map[xmpp.Address]string{xmpp.ToServer: "capulet.com", xmpp.ToContact: "juliet@capulet.com"} {
			h := r.IQs[xmpp.IQKey{To: to, Type: stanza.GetIQ, Space: last.NS, Local: "query"}]
			got, err := h(context.Background(), xmpp.New(xmpp.IQ, "get", jid.MustParse(address), jid.JID{}, xmpp.El(last.NS, "query")))
			if want := "<query xmlns='jabber:iq:last' seconds='" + tt.want + "'/>"; err != nil || got.String() != want {
				t.Errorf("%v ago, asked at %s: %v, %v, want %s", tt.ago, address, got, err, want)
			}
		}
	}
}
