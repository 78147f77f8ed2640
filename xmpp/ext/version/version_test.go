package version_test

import (
	"context"
	"testing"

	"balcony/xmpp"
	"balcony/xmpp/ext/version"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

func TestTranscripts(t *testing.T) { xmpptest.Transcripts(t, "testdata/*.txt") }

// XEP-0092 §3 (the second example) and §5.
func TestOperatingSystemIsToldOnlyIfConfigured(t *testing.T) {
	for _, tt := range []struct {
		module version.Module
		want   string
	}{
		{version.Module{Name: "Exodus", Number: "0.7.0.4", OS: "Windows-XP 5.01.2600"},
			"<query xmlns='jabber:iq:version'><name>Exodus</name><version>0.7.0.4</version><os>Windows-XP 5.01.2600</os></query>"},
		{version.Module{Name: "Exodus", Number: "0.7.0.4"},
			"<query xmlns='jabber:iq:version'><name>Exodus</name><version>0.7.0.4</version></query>"},
	} {
		r := xmpp.NewRegistry(nil)
		tt.module.Register(r)
		h := r.IQs[xmpp.IQKey{To: xmpp.ToServer, Type: stanza.GetIQ, Space: version.NS, Local: "query"}]
		got, err := h(context.Background(), xmpp.New(xmpp.IQ, "get", jid.JID{}, jid.JID{}, xmpp.El(version.NS, "query")))
		if err != nil || got.String() != tt.want {
			t.Errorf("got %v, %v\nwant %s", got, err, tt.want)
		}
	}
}
