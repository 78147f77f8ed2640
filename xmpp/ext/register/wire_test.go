package register_test

import (
	"testing"

	"balcony/cmd/balcony/config"
	"balcony/xmpp"
	"balcony/xmpp/xmpptest"

	"mellium.im/sasl"
)

func TestTranscripts(t *testing.T) { xmpptest.Transcripts(t, "testdata/*.txt") }

func policy(p string) xmpptest.Option {
	return xmpptest.Config(func(c *config.Config) { c.Domains[0].Registration = p })
}

// stranger is a client that has not authenticated, and the features it was offered.
func stranger(srv *xmpptest.Server) (*xmpptest.Client, *xmpp.Element) {
	c := srv.Dial()
	c.Open("localhost")
	c.StartTLS(nil)
	_, features := c.Open("localhost")
	return c, features
}

func offers(features *xmpp.Element) bool {
	for _, f := range features.Children {
		if f.Space == "http://jabber.org/features/iq-register" && f.Local == "register" {
			return true
		}
	}
	return false
}

// XEP-0077 §3.1, its examples from the fields to the account, and a login with it on the same stream.
func TestWireRegistration(t *testing.T) {
	srv := xmpptest.New(t, policy(config.Open))
	c, features := stranger(srv)
	if !offers(features) {
		t.Errorf("features %s", features)
	}
	c.Write(`<iq type='get' id='reg1' to='localhost'><query xmlns='jabber:iq:register'/></iq>`)
	c.ExpectElement(`<iq type='result' id='reg1'><query xmlns='jabber:iq:register'>
		<instructions>{any}</instructions><username/><password/>
		<x xmlns='jabber:x:data' type='form'><title>{any}</title><instructions>{any}</instructions>
		<field type='hidden' var='FORM_TYPE'><value>jabber:iq:register</value></field>
		<field type='text-single' var='username' label='{any}'><required/></field>
		<field type='text-private' var='password' label='{any}'><required/></field></x></query></iq>`)
	c.Write(`<iq type='set' id='reg2'><query xmlns='jabber:iq:register'><username>bill</username></query></iq>`)
	c.ExpectElement(`<iq type='error' id='reg2'><query xmlns='jabber:iq:register'><username>bill</username></query>
		<error code='406' type='modify'><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`)
	c.Write(`<iq type='set' id='reg2'><query xmlns='jabber:iq:register'><username>bill</username><password>Calliope</password></query></iq>`)
	c.ExpectElement(`<iq type='result' id='reg2'/>`)
	c.Write(`<iq type='set' id='reg3'><query xmlns='jabber:iq:register'><username>bill</username><password>m1cro$oft</password></query></iq>`)
	c.ExpectElement(`<iq type='error' id='reg3'><query xmlns='jabber:iq:register'><username>bill</username><password>m1cro$oft</password></query>
		<error code='409' type='cancel'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`)
	if err := c.Authenticate(sasl.ScramSha256, "bill", "Calliope"); err != nil {
		t.Fatal(err)
	}
	if _, features := c.Open("localhost"); offers(features) {
		t.Error("registration is offered to somebody who is registered")
	}
	c.Bind("globe")
	c.Online()
}

// XEP-0077 §3.1: "If the host does not support In-Band Registration".
func TestWireRegistrationIsClosed(t *testing.T) {
	for _, p := range []string{config.Closed, config.Invite} {
		t.Run(p, func(t *testing.T) {
			srv := xmpptest.New(t, policy(p))
			c, features := stranger(srv)
			if offers(features) {
				t.Errorf("features %s", features)
			}
			c.Write(`<iq type='get' id='reg1' to='localhost'><query xmlns='jabber:iq:register'/></iq>`)
			c.ExpectElement(`<iq type='error' id='reg1'><query xmlns='jabber:iq:register'/>
				<error code='503' type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`)
			c.Write(`<iq type='set' id='reg2'><query xmlns='jabber:iq:register'><username>bill</username><password>Calliope</password></query></iq>`)
			c.ExpectElement(`<iq type='error' id='reg2'><query xmlns='jabber:iq:register'><username>bill</username><password>Calliope</password></query>
				<error code='503' type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`)
			if err := c.Authenticate(sasl.ScramSha256, "bill", "Calliope"); err == nil {
				t.Error("the account exists")
			}
		})
	}
}

// XEP-0077 §3.3: the session that changed the password stays, the others do not outlive it.
func TestWirePasswordChange(t *testing.T) {
	srv := xmpptest.New(t)
	globe, home := srv.Client("bill@localhost/globe"), srv.Client("bill@localhost/home")
	globe.Online()
	home.Sync()
	globe.Send(`<iq type='set' to='localhost' id='change1'><query xmlns='jabber:iq:register'><username>bill</username><password>newpass</password></query></iq>`)
	globe.Expect(`<iq type='result' id='change1' from='localhost' to='bill@localhost/globe'/>`)
	home.ExpectClose(`<not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>`)
	globe.ExpectNothing()
	for password, ok := range map[string]bool{"bill": false, "newpass": true} {
		c, _ := stranger(srv)
		if err := c.Authenticate(sasl.ScramSha256, "bill", password); (err == nil) != ok {
			t.Errorf("login with %q: %v", password, err)
		}
	}
}

// XEP-0077 §3.2: the result, then the end of every session; nothing of the account is left.
func TestWireRemoval(t *testing.T) {
	srv := xmpptest.New(t)
	srv.Account("romeo@localhost")
	globe, home, romeo := srv.Client("bill@localhost/globe"), srv.Client("bill@localhost/home"), srv.Client("romeo@localhost/orchard")
	home.Sync()
	romeo.Send(`<message to='bill@localhost' type='chat'><body>for the spool</body></message>`)
	romeo.Sync()
	globe.Send(`<iq type='set' id='unreg1'><query xmlns='jabber:iq:register'><remove/></query></iq>` +
		`<message to='romeo@localhost/orchard'><body>from nobody</body></message>`)
	globe.Expect(`<iq type='result' id='unreg1' from='{any}' to='bill@localhost/globe'/>`)
	globe.ExpectClose(`<not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>`)
	home.ExpectClose(`<not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>`)
	romeo.ExpectNothing()
	c, _ := stranger(srv)
	if err := c.Authenticate(sasl.ScramSha256, "bill", "bill"); err == nil {
		t.Error("the account is still there")
	}
	// A name that is registered again inherits nothing.
	again := srv.Client("bill@localhost/globe")
	again.Online()
	again.ExpectNothing()
}
