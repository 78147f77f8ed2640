package admin_test

import (
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/xmpp/xmpptest"

	"mellium.im/sasl"
)

// bard administers localhost, and nobody another.localhost.
func admins(c *config.Config) {
	c.Domains[0].Admins = []string{"bard@localhost"}
	c.Domains = append(c.Domains, config.Domain{Name: "another.localhost", Registration: config.Closed})
}

func TestTranscripts(t *testing.T) {
	xmpptest.Transcripts(t, "testdata/*.txt", xmpptest.Config(admins))
}

// login tries an account and a password.
func login(srv *xmpptest.Server, account, password string) error {
	c := srv.Dial()
	c.Open("localhost")
	c.StartTLS(nil)
	c.Open("localhost")
	return c.Authenticate(sasl.ScramSha256, account, password)
}

// run executes a command with one form.
func run(t *testing.T, bard *xmpptest.Client, command, fields string) {
	t.Helper()
	start := `<command xmlns='http://jabber.org/protocol/commands' node='http://jabber.org/protocol/admin#` + command + `'`
	bard.Send(`<iq id='1' to='localhost' type='set'>` + start + `/></iq>`)
	session := ""
	if e := bard.Read(); len(e.Children) == 1 {
		for _, a := range e.Children[0].Attrs {
			if a.Name == "sessionid" {
				session = a.Value
			}
		}
	}
	start += ` sessionid='` + session + `'`
	bard.Send(`<iq id='2' to='localhost' type='set'>` + start + `><x xmlns='jabber:x:data' type='submit'>
		<field type='hidden' var='FORM_TYPE'><value>http://jabber.org/protocol/admin</value></field>` + fields + `</x></command></iq>`)
	bard.Expect(`<iq id='2' from='localhost' to='bard@localhost/globe' type='result'>` + start + ` status='completed' xml:lang='en'/></iq>`)
}

// What the commands do to accounts and their sessions.
func TestWireAccounts(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Config(admins))
	bard := srv.Client("bard@localhost/globe")
	const juliet = `<field var='accountjids'><value>juliet@localhost</value></field>`

	run(t, bard, "add-user", `<field var='accountjid'><value>juliet@localhost</value></field>
		<field var='password'><value>juliet</value></field><field var='password-verify'><value>juliet</value></field>`)
	a, b := srv.Client("juliet@localhost/a"), srv.Client("juliet@localhost/b")

	run(t, bard, "end-user-session", `<field var='accountjids'><value>juliet@localhost/a</value></field>`)
	a.ExpectClose(`<policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>`)
	b.ExpectNothing()

	run(t, bard, "change-user-password", `<field var='accountjid'><value>juliet@localhost</value></field><field var='password'><value>V3r0n4</value></field>`)
	b.ExpectClose(`<not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>`)
	if login(srv, "juliet", "juliet") == nil || login(srv, "juliet", "V3r0n4") != nil {
		t.Error("the password is not the new one")
	}

	run(t, bard, "change-user-password", `<field var='accountjid'><value>juliet@localhost</value></field><field var='password'><value>juliet</value></field>`)
	c := srv.Client("juliet@localhost/c")
	run(t, bard, "disable-user", juliet)
	c.ExpectClose(`<not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>`)
	if err := login(srv, "juliet", "juliet"); err == nil || err.Error() != "account-disabled" {
		t.Errorf("login to a disabled account: %v", err) // RFC 6120 §6.5.2
	}
	run(t, bard, "reenable-user", juliet)
	d := srv.Client("juliet@localhost/d")

	run(t, bard, "delete-user", juliet)
	d.ExpectClose(`<not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>`)
	if err := login(srv, "juliet", "juliet"); err == nil {
		t.Error("the account is still there")
	}
	bard.ExpectNothing()
}
