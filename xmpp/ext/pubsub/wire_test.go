package pubsub_test

import (
	"os"
	"testing"

	"balcony/storage/storagetest/pgtest"
	"balcony/xmpp/xmpptest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestTranscripts(t *testing.T) { xmpptest.Transcripts(t, "testdata/*.txt") }
