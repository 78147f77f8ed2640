package time_test

import (
	"context"
	"testing"
	"time"

	"balcony/xmpp"
	exttime "balcony/xmpp/ext/time"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

func TestTranscripts(t *testing.T) { xmpptest.Transcripts(t, "testdata/*.txt") }

// clock is a server that only knows what time it is.
type clock struct {
	xmpp.Server
	now time.Time
}

func (c clock) Now() time.Time { return c.now }

// XEP-0202 §3 and XEP-0082 §2: the offset is numeric, the time is in UTC.
func TestOffsetAndUTC(t *testing.T) {
	for _, tt := range []struct{ now, tzo, utc string }{
		{"2006-12-19T11:58:35-06:00", "-06:00", "2006-12-19T17:58:35Z"}, // the example of XEP-0202 §3
		{"2006-12-19T17:58:35Z", "+00:00", "2006-12-19T17:58:35Z"},
		{"2026-03-01T01:15:00.987+05:45", "+05:45", "2026-02-28T19:30:00Z"},
	} {
		now, err := time.Parse(time.RFC3339Nano, tt.now)
		if err != nil {
			t.Fatal(err)
		}
		r := xmpp.NewRegistry(clock{now: now})
		exttime.Module{}.Register(r)
		h := r.IQs[xmpp.IQKey{To: xmpp.ToServer, Type: stanza.GetIQ, Space: exttime.NS, Local: "time"}]
		got, err := h(context.Background(), xmpp.New(xmpp.IQ, "get", jid.JID{}, jid.JID{}, xmpp.El(exttime.NS, "time")))
		want := "<time xmlns='urn:xmpp:time'><tzo>" + tt.tzo + "</tzo><utc>" + tt.utc + "</utc></time>"
		if err != nil || got.String() != want {
			t.Errorf("at %s: got %v, %v\nwant %s", tt.now, got, err, want)
		}
	}
}
