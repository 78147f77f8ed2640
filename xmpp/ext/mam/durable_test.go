package mam_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/xmpptest"

	_ "modernc.org/sqlite"
)

// The disk stands still: messages are delivered, and their sender is read on, but nothing is acknowledged, and no request answered, before it is durable
// (XEP-0198 §4; docs/security.md).
func TestDeliveryDoesNotWaitForTheDisk(t *testing.T) {
	var data string
	srv := xmpptest.New(t, xmpptest.Config(xmpptest.Archive), xmpptest.Config(func(c *config.Config) { c.Storage.DSN, data = "", c.Data }))
	romeo, juliet := srv.Client("romeo@localhost/orchard"), srv.Client("juliet@localhost/balcony")
	juliet.Online()
	romeo.Send("<enable xmlns='urn:xmpp:sm:3'/>")
	romeo.Expect("<enabled xmlns='urn:xmpp:sm:3'/>")
	romeo.Send("<message to='juliet@localhost/balcony' type='chat' id='0'><body>0</body></message>") // the preferences of both are known now
	juliet.Read()
	romeo.Sync()

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
	var released atomic.Bool
	early := make(chan string, 1)
	done := make(chan []string)
	go func() { // what romeo gets until his ping is answered
		var got []string
		for {
			e := romeo.Read()
			if e.Local == "r" {
				continue
			}
			if !released.Load() {
				select {
				case early <- e.String():
				default:
				}
			}
			if got = append(got, e.String()); e.Local == "iq" {
				break
			}
		}
		done <- got
	}()
	for _, id := range []string{"1", "2"} {
		romeo.Send("<message to='juliet@localhost/balcony' type='chat' id='" + id + "'><body>" + id + "</body></message><r xmlns='urn:xmpp:sm:3'/>")
		if e := juliet.Read(); e.Attrs[len(e.Attrs)-1].Value != id {
			t.Fatalf("juliet got %s, want message %s", e, id)
		}
	}
	romeo.Send("<iq type='get' id='ping' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
	juliet.Sync()
	released.Store(true)
	if _, err := lock.ExecContext(context.Background(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	got := <-done
	select {
	case e := <-early:
		t.Errorf("before anything is durable romeo gets %s", e)
	default:
	}
	want := []string{"<a xmlns='urn:xmpp:sm:3' h='3'/>", "<a xmlns='urn:xmpp:sm:3' h='4'/>", // message 0, the ping of Sync, message 1
		"<iq to='romeo@localhost/orchard' from='localhost' type='result' id='ping'/>"}
	if !slices.Equal(got, want) {
		t.Errorf("romeo got %q, want %q", got, want)
	}
}
