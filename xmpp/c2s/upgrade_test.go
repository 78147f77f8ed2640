package c2s_test

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"hash"
	"strconv"
	"testing"

	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/xmpptest"

	"mellium.im/sasl"
	"mellium.im/xmpp/jid"
)

// oldAccount is one that has only a verifier for SCRAM-SHA-1, as one that was imported from an older server.
func oldAccount(t *testing.T, srv *xmpptest.Server, account string) {
	t.Helper()
	j := jid.MustParse(account)
	all, err := auth.MakeVerifiers(j.Localpart(), 4096)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		if v.Mechanism == "SCRAM-SHA-1" {
			if err := srv.DB().CreateAccount(t.Context(), j, []auth.Verifier{v}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// salted answers the salt of a task with the SaltedPassword (RFC 5802 §3).
func salted(t *testing.T, data *xmpp.Element, password string, h func() hash.Hash) string {
	t.Helper()
	salt := child(data, "salt")
	if data.Local != "task-data" || salt == nil {
		t.Fatalf("got %s", data)
	}
	raw, err := base64.StdEncoding.DecodeString(salt.Text)
	if err != nil {
		t.Fatal(err)
	}
	iterations, err := strconv.Atoi(salt.Attr("iterations"))
	if err != nil || iterations < 4096 {
		t.Fatalf("%s iterations: %v", salt.Attr("iterations"), err)
	}
	key, err := pbkdf2.Key(h, password, raw, iterations, h().Size())
	if err != nil {
		t.Fatal(err)
	}
	return "<task-data xmlns='urn:xmpp:sasl:2'><hash xmlns='urn:xmpp:scram-upgrade:0'>" + base64.StdEncoding.EncodeToString(key) + "</hash></task-data>"
}

// XEP-0480 §3 with the framework of XEP-0388 §2.6.3: an account that has only SCRAM-SHA-1 gains SHA-256 and SHA-512, one task after the other, and what was
// asked for inline comes with the success after the last.
func TestUpgradeTasks(t *testing.T) {
	srv := xmpptest.New(t)
	oldAccount(t, srv, "romeo@localhost")
	if err := tlsStream(srv).Authenticate(sasl.ScramSha256, "romeo", "romeo"); err == nil {
		t.Fatal("SCRAM-SHA-256 works before the task")
	}
	const upgrades = "<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-256</upgrade><upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-512</upgrade>"
	c := tlsStream(srv)
	c.Write(plain("romeo", "romeo", agent+upgrades+"<bind xmlns='urn:xmpp:bind:0'/>"))
	for _, task := range []struct {
		name string
		hash func() hash.Hash
	}{{"UPGR-SCRAM-SHA-512", sha512.New}, {"UPGR-SCRAM-SHA-256", sha256.New}} {
		c.ExpectElement("<continue xmlns='urn:xmpp:sasl:2'><tasks><task>" + task.name + "</task></tasks></continue>")
		c.Write("<next xmlns='urn:xmpp:sasl:2' task='" + task.name + "'/>")
		c.Write(salted(t, c.Element(), "romeo", task.hash))
	}
	if e := c.Element(); e.Local != "success" || child(e, "bound") == nil {
		t.Fatalf("got %s", e)
	}
	if err := tlsStream(srv).Authenticate(sasl.ScramSha256, "romeo", "romeo"); err != nil {
		t.Errorf("SCRAM-SHA-256 after the task: %v", err)
	}
	// Nothing is left to do.
	d := tlsStream(srv)
	d.Write(plain("romeo", "romeo", upgrades))
	if e := d.Element(); e.Local != "success" {
		t.Errorf("got %s", e)
	}
}

// XEP-0388 §2.6.3 and §2.4: what a client may and may not say in a task. A login whose task fails has failed, and nothing that it asked for is done.
func TestUpgradeTaskFails(t *testing.T) {
	srv := xmpptest.New(t)
	oldAccount(t, srv, "romeo@localhost")
	begin := func() *xmpptest.Client {
		c := tlsStream(srv)
		c.Write(plain("romeo", "romeo", "<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-256</upgrade><bind xmlns='urn:xmpp:bind:0'/>"))
		if e := c.Element(); e.Local != "continue" {
			t.Fatalf("got %s", e)
		}
		return c
	}
	for _, tt := range []struct{ says, then, condition string }{
		{"<abort xmlns='urn:xmpp:sasl:2'/>", "", "aborted"},
		{"<next xmlns='urn:xmpp:sasl:2' task='UPGR-SCRAM-SHA-512'/>", "", "malformed-request"},
		{"<next xmlns='urn:xmpp:sasl:2'/>", "", "malformed-request"},
		{"<next xmlns='urn:xmpp:sasl:2' task='UPGR-SCRAM-SHA-256'/>", "<abort xmlns='urn:xmpp:sasl:2'/>", "aborted"},
		{"<next xmlns='urn:xmpp:sasl:2' task='UPGR-SCRAM-SHA-256'/>", "<task-data xmlns='urn:xmpp:sasl:2'/>", "malformed-request"},
		{"<next xmlns='urn:xmpp:sasl:2' task='UPGR-SCRAM-SHA-256'/>", "<task-data xmlns='urn:xmpp:sasl:2'><hash xmlns='urn:xmpp:scram-upgrade:0'>YWJj</hash></task-data>", "malformed-request"},
		{"<next xmlns='urn:xmpp:sasl:2' task='UPGR-SCRAM-SHA-256'/>", "<task-data xmlns='urn:xmpp:sasl:2'><hash xmlns='urn:xmpp:scram-upgrade:0'>?</hash></task-data>", "incorrect-encoding"},
	} {
		c := begin()
		c.Write(tt.says)
		e := c.Element()
		if tt.then != "" {
			c.Write(tt.then)
			e = c.Element()
		}
		if e.Local != "failure" || child(e, tt.condition) == nil {
			t.Errorf("%s%s: %s, want %s", tt.says, tt.then, e, tt.condition)
		}
		c.Write(plain("romeo", "romeo", "")) // the stream goes on
		if e := c.Element(); e.Local != "success" {
			t.Errorf("after %s%s: %s", tt.says, tt.then, e)
		}
	}
	c := begin()
	c.Write(ping)
	c.ExpectElement("<stream:error><not-authorized xmlns='" + streams + "'/></stream:error>")
	if n := len(srv.Sessions(jid.MustParse("romeo@localhost"))); n != 0 {
		t.Errorf("%d sessions of logins that failed", n)
	}
	if err := tlsStream(srv).Authenticate(sasl.ScramSha256, "romeo", "romeo"); err == nil {
		t.Error("a task that failed left a verifier")
	}
}
