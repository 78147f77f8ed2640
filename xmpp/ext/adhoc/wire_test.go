package adhoc_test

import (
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/xmpptest"
)

func TestTranscripts(t *testing.T) {
	xmpptest.Transcripts(t, "testdata/*.txt", xmpptest.Config(func(c *config.Config) { c.Domains[0].Admins = []string{"requester@localhost"} }))
}
