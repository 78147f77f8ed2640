package push_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/storage/storagetest/pgtest"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestTranscripts(t *testing.T) { xmpptest.Transcripts(t, "testdata/*.txt") }

// XEP-0357 §4.1 and §7.1 with both databases: announced to the owner, and removed when the push service says that the node is gone.
func TestWholeServer(t *testing.T) {
	for name, change := range map[string]func(*testing.T) xmpptest.Option{
		"SQLite": func(*testing.T) xmpptest.Option { return func(*config.Config) {} },
		"PostgreSQL": func(t *testing.T) xmpptest.Option {
			dsn := pgtest.Start(t)
			return func(c *config.Config) { c.Storage.Driver, c.Storage.DSN = "postgres", dsn }
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := xmpptest.New(t, change(t))
			service, romeo := srv.Client("push@localhost/service"), srv.Client("romeo@localhost/mobile")
			romeo.Send("<iq type='get' id='d' to='romeo@localhost'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
			if e := romeo.Read().String(); !strings.Contains(e, "'urn:xmpp:push:0'") {
				t.Errorf("not announced: %s", e)
			}
			romeo.Send("<iq type='set' id='1'><enable xmlns='urn:xmpp:push:0' jid='push@localhost/service' node='n'/></iq>")
			romeo.Expect("<iq type='result' id='1' from='romeo@localhost' to='romeo@localhost/mobile'/>")
			romeo.Close()
			registrations := func() int {
				all, err := srv.DB().PushRegistrations(context.Background(), jid.MustParse("romeo@localhost"))
				if err != nil {
					t.Fatal(err)
				}
				return len(all)
			}
			if n := registrations(); n != 1 {
				t.Fatalf("%d registrations", n)
			}
			juliet := srv.Client("juliet@localhost/balcony")
			juliet.Send("<message type='chat' to='romeo@localhost'><body>hi</body></message>")
			id := ""
			for _, a := range service.Read().Attrs {
				if a.Name == "id" {
					id = a.Value
				}
			}
			service.Send(fmt.Sprintf("<iq type='error' id='%s' to='localhost'><error type='cancel'>"+
				"<item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>", id))
			srv.Eventually("the removal", func() bool { return registrations() == 0 })
		})
	}
}
