package offline_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/xmpptest"
)

func TestTranscripts(t *testing.T) { xmpptest.Transcripts(t, "testdata/*.txt") }

// XEP-0160 §2, step 3.
func TestWireFullSpool(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Limits.OfflineMessages = 1 }))
	romeo := srv.Client("romeo@localhost/orchard")
	srv.Account("juliet@localhost")
	romeo.Send(`<message to='juliet@localhost' type='chat'><body>one</body></message>`)
	romeo.Send(`<message to='juliet@localhost' type='chat' id='2'><body>two</body></message>`)
	romeo.Expect(`<message from='juliet@localhost' to='romeo@localhost/orchard' type='error' id='2'><body>two</body>
		<error type='cancel' code='503'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>`)
	// The same as for an account that does not exist: nobody learns of a spool.
	romeo.Send(`<message to='nobody@localhost' type='chat' id='2'><body>two</body></message>`)
	romeo.Expect(`<message from='nobody@localhost' to='romeo@localhost/orchard' type='error' id='2'><body>two</body>
		<error type='cancel' code='503'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>`)
}

// A spool of several outboxes reaches a client that takes its time, in order.
func TestWireLargeSpool(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) {
		c.Limits.Outbox = 128 << 10
		c.Limits.ClientRate = -1
	}))
	romeo := srv.Client("romeo@localhost/orchard")
	srv.Account("juliet@localhost")
	const n = 300
	filler := strings.Repeat(".", 16<<10)
	for i := range n {
		romeo.Send(fmt.Sprintf(`<message to='juliet@localhost' type='chat'><body>%d%s</body></message>`, i, filler))
	}
	romeo.Sync()
	if got := srv.Offline("juliet@localhost"); got != n {
		t.Fatalf("%d messages in the spool, want %d", got, n)
	}
	juliet := srv.Client("juliet@localhost/balcony")
	juliet.Online()
	for i := range n {
		e := juliet.Read()
		if body := e.Children[0].Text; strings.TrimRight(body, ".") != strconv.Itoa(i) {
			t.Fatalf("message %d is %.20s", i, body)
		}
	}
	juliet.ExpectNothing()
	if got := srv.Offline("juliet@localhost"); got != 0 {
		t.Errorf("%d messages are left in the spool", got)
	}
}

// A connection that is cut while the spool is delivered loses nothing that it had not been given.
func TestWireCutInTheMiddle(t *testing.T) {
	srv := xmpptest.New(t)
	romeo := srv.Client("romeo@localhost/orchard")
	srv.Account("juliet@localhost")
	const n = 200
	for i := range n {
		romeo.Send(fmt.Sprintf(`<message to='juliet@localhost' type='chat'><body>%d</body></message>`, i))
	}
	romeo.Sync()
	juliet := srv.Client("juliet@localhost/balcony")
	juliet.Send("<presence/>")
	juliet.Disconnect()
	srv.Eventually("the end of the session", func() bool { return len(srv.Sessions(juliet.JID.Bare())) == 0 })
	left := srv.Offline("juliet@localhost")
	again := srv.Client("juliet@localhost/balcony")
	again.Online()
	for i := n - left; i < n; i++ {
		if body := again.Read().Children[0].Text; body != strconv.Itoa(i) {
			t.Fatalf("message %d is %s", i, body)
		}
	}
	again.ExpectNothing()
}

// A client that does not read what the spool holds for it does not keep its next connection from taking its place.
func TestWireReplacedInTheMiddle(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Limits.ClientRate = -1 }))
	romeo := srv.Client("romeo@localhost/orchard")
	srv.Account("juliet@localhost")
	const n = 600
	filler := strings.Repeat(".", 20<<10)
	for i := range n {
		romeo.Send(fmt.Sprintf(`<message to='juliet@localhost' type='chat'><body>%d%s</body></message>`, i, filler))
	}
	romeo.Sync()
	dead, _ := srv.Login("juliet@localhost")
	if err := dead.Conn().(*tls.Conn).NetConn().(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	dead.Write(`<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>balcony</resource></bind></iq>`)
	dead.Element()
	dead.Write("<presence/>")
	srv.Eventually("presence", func() bool { return srv.Available("juliet@localhost/balcony") })
	c := srv.Client("juliet@localhost/balcony")
	left := srv.Offline("juliet@localhost")
	if left == 0 {
		t.Error("the kernel took the whole spool: this test shows nothing")
	}
	c.Online()
	for i := n - left; i < n; i++ {
		if body := c.Read().Children[0].Text; strings.TrimRight(body, ".") != strconv.Itoa(i) {
			t.Fatalf("message %d is %.20s", i, body)
		}
	}
	c.ExpectNothing()
}

// A session that reads gets what is sent to it while another one is busy with the account's spool, in the order in which it was sent (RFC
// 6120 §10.1), and nobody who writes to it sees an error.
func TestWireSlowLoginDelaysNobody(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(func(c *config.Config) { c.Limits.ClientRate = config.Off }))
	romeo := srv.Client("romeo@localhost/orchard")
	desk := srv.Client("juliet@localhost/desk")
	desk.Send("<presence><priority>-1</priority></presence>")
	desk.Read()
	filler := strings.Repeat(".", 8<<10)
	for i := range 900 {
		romeo.Send(fmt.Sprintf(`<message to='juliet@localhost' type='chat'><body>%d%s</body></message>`, i, filler))
	}
	romeo.Sync()
	slow, _ := srv.Login("juliet@localhost")
	slow.Write(`<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>slow</resource></bind></iq><presence/>`)
	srv.Eventually("presence", func() bool { return srv.Available("juliet@localhost/slow") })
	desk.Sync()
	desk.Discard()
	romeo.Send(`<message to='juliet@localhost/desk' type='chat'><body>first</body></message><presence to='juliet@localhost/desk'/>`)
	desk.Expect(`<message from='romeo@localhost/orchard' to='juliet@localhost/desk' type='chat'><body>first</body></message>`)
	desk.Expect(`<presence from='romeo@localhost/orchard' to='juliet@localhost/desk'/>`)
	for i := range 40 {
		romeo.Send(fmt.Sprintf(`<message to='juliet@localhost/desk' type='chat'><body>%d%s</body></message>`, i, filler))
	}
	romeo.ExpectNothing()
	for i := range 40 {
		if body := desk.Read().Children[0].Text; strings.TrimRight(body, ".") != strconv.Itoa(i) {
			t.Fatalf("message %d is %.20s", i, body)
		}
	}
}
