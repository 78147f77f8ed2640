package component_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"sync/atomic"
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/xmpptest"

	_ "modernc.org/sqlite"
)

// The disk stands still: what a component sends is delivered, and it is read on, but no request of it is answered before everything before it is durable.
func TestComponentIsReadOn(t *testing.T) {
	var data string
	srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive), xmpptest.Config(func(c *config.Config) {
		c.Storage.DSN, data = "", c.Data
		c.Components = append(c.Components, config.Component{Name: "plays.localhost", Secret: secret})
	}))
	romeo := srv.Client("romeo@localhost/orchard")
	romeo.Online()
	plays := srv.Component("plays.localhost", secret)
	message := func(id string) {
		t.Helper()
		plays.Send("<message from='hamlet@plays.localhost' to='romeo@localhost/orchard' type='chat' id='" + id + "'><body>" + id + "</body></message>") // a read of its own
		for _, a := range romeo.Read().Attrs {
			if a.Name == "id" && a.Value != id {
				t.Fatalf("romeo got message %s, want %s", a.Value, id)
			}
		}
	}
	message("0") // his preferences are known now
	plays.Sync()

	raw, err := sql.Open("sqlite", filepath.Join(data, "balcony.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	lock, err := raw.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.ExecContext(context.Background(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	message("1")
	message("2")
	var free atomic.Bool
	early := make(chan bool)
	plays.Send("<iq from='plays.localhost' to='localhost' type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>")
	go func() {
		plays.Read()
		early <- !free.Load()
	}()
	romeo.Sync() // a round trip through the same server
	free.Store(true)
	if _, err := lock.ExecContext(context.Background(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if <-early {
		t.Error("the component was answered before its messages are durable")
	}
}
