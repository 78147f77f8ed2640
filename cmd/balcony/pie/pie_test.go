package pie_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/cmd/balcony/pie"
	"balcony/roster"
	"balcony/storage/storagetest/pgtest"
	"balcony/xmpp"
	"balcony/xmpp/auth"
	"balcony/xmpp/caps"
	"balcony/xmpp/ext/mam"
	"balcony/xmpp/ext/offline"
	"balcony/xmpp/ext/pubsub"
	"balcony/xmpp/stream"
	"balcony/xmpp/xmpptest"

	"mellium.im/xmpp/jid"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

var juliet = jid.MustParse("juliet@localhost")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func export(t testing.TB, srv *xmpptest.Server, account jid.JID) string {
	t.Helper()
	var b bytes.Buffer
	must(t, srv.Accounts().Export(context.Background(), account, &b))
	return b.String()
}

// fill gives an account everything that an export knows.
func fill(t testing.TB, srv *xmpptest.Server, account jid.JID) {
	t.Helper()
	ctx, db := context.Background(), srv.DB()
	srv.Account(account.String())
	for n, i := range []roster.Item{
		{Contact: jid.MustParse("romeo@montague.example"), Name: "Romeo <3 & \"co\"", Groups: []string{"Friends", "Lovers"}, To: true, From: true, Listed: true},
		{Contact: jid.MustParse("nurse@localhost"), To: true, Listed: true, In: true, Request: []byte("<presence to='juliet@localhost' from='nurse@localhost/kitchen' type='subscribe' id='r1'><status>let me in</status></presence>")},
		{Contact: jid.MustParse("paris@localhost"), From: true, Listed: true, Ask: true},
		{Contact: jid.MustParse("friar@localhost"), Listed: true, Approved: true},
		{Contact: jid.MustParse("capulet.example"), Listed: true},
		{Contact: jid.MustParse("tybalt@localhost"), In: true, Request: []byte("<presence to='juliet@localhost' from='tybalt@localhost' type='subscribe'/>")},
	} {
		_, err := db.UpdateItem(ctx, account, i.Contact, func(it *roster.Item) bool { *it = i; return true })
		if err != nil {
			t.Fatalf("item %d: %v", n, err)
		}
	}
	must(t, db.SetVCard(ctx, account, []byte("<vCard xmlns='vcard-temp'><FN>Juliet Capulet</FN><NOTE>a\nb &lt;</NOTE></vCard>")))
	must(t, db.SetPrivateXML(ctx, account, "exodus:prefs", "exodus", []byte("<exodus xmlns='exodus:prefs'><defaultnick>Juliet</defaultnick></exodus>")))
	must(t, db.SetPrivateXML(ctx, account, "storage:bookmarks", "storage", []byte("<storage xmlns='storage:bookmarks'/>")))
	must(t, db.Block(ctx, account, []jid.JID{jid.MustParse("iago@shakespeare.lit"), jid.MustParse("spam.example"), jid.MustParse("a@b.example/c")}))
	must(t, db.SetLastActivity(account, time.Date(2026, 11, 25, 20, 0, 0, 123456000, time.UTC), "to bed & away").Wait(ctx))
	for n := range 3 {
		name := fmt.Sprintf("urn:x:node %d <'&>", n)
		c := pubsub.DefaultConfig()
		c.Title, c.Access, c.MaxItems, c.Groups = "Title & more", pubsub.Whitelist, pubsub.MaxItems, []string{"Friends"}
		must(t, db.CreatePubSubNode(ctx, account, pubsub.Node{Name: name, Config: c, Creator: account, Created: time.Date(2026, 1, 1, 0, 0, n, 5000, time.UTC)}))
		for i := range n * 125 {
			it := pubsub.Item{ID: fmt.Sprintf("%d'", i), Published: time.Date(2026, 2, 1, 0, 0, i, 7000, time.UTC), Payload: []byte("<x xmlns='urn:x'><y xmlns='jabber:client'>1</y>2</x>")}
			if i%2 == 1 {
				it.Publisher, it.Payload = jid.MustParse("romeo@montague.example"), nil
			}
			_, err := db.PublishPubSubItem(ctx, account, name, it, 1000, false, time.Time{})
			must(t, err)
		}
		must(t, db.SetPubSubAffiliation(ctx, account, name, jid.MustParse("romeo@montague.example"), pubsub.Publisher))
		must(t, db.SetPubSubSubscription(ctx, account, name, pubsub.Subscription{JID: jid.MustParse("romeo@montague.example/o"), State: pubsub.Subscribed, Options: pubsub.Options{Silent: true, Show: []string{"away"}}}))
		must(t, db.SetPubSubSubscription(ctx, account, name, pubsub.Subscription{JID: jid.MustParse("nurse@localhost"), State: pubsub.Pending}))
	}
	for n := range 250 { // more than two pages
		sent := n%3 == 0
		text, peer := fmt.Sprintf("<message to='juliet@localhost/balcony' from='romeo@localhost/o' type='chat' id='a%d'><body>%d &lt;</body><x:y xmlns:x='urn:x' x:z='1'/></message>", n, n), jid.MustParse("romeo@localhost/o")
		if sent {
			text, peer = fmt.Sprintf("<message to='romeo@localhost' from='juliet@localhost/balcony' id='a%d'><body>%d</body></message>", n, n), jid.MustParse("romeo@localhost")
		}
		s, err := stream.Parse([]byte(text), stream.DefaultLimits())
		must(t, err)
		must(t, db.AppendMessage(ctx, mam.Item{Owner: account, Peer: peer, Stanza: s, Stamp: time.Date(2026, 11, 24, 21, 0, n, n*1000, time.UTC), Sent: sent, Archived: true, Spool: !sent}).Commit.Wait(ctx))
	}
	page, err := db.QueryArchive(ctx, account, mam.Query{Max: 1000})
	must(t, err)
	order := func(n int) int64 { return page.Messages[n].Order }
	// What was received of these waits.
	must(t, db.SaveSpoolStates(ctx, []offline.State{{Account: account, Top: order(230), Gaps: []offline.Span{{From: order(100), To: order(103)}}}}).Wait(ctx))
	must(t, db.SetArchivePreferences(ctx, account, mam.Preferences{Default: mam.Roster, Always: []jid.JID{jid.MustParse("romeo@localhost")}, Never: []jid.JID{jid.MustParse("a@b.example/c"), jid.MustParse("spam.example")}}))
	for n := range 250 {
		s, err := stream.Parse(fmt.Appendf(nil, "<message to='juliet@localhost' from='romeo@montague.example/o' type='chat' id='m%d' xml:lang='it'><body>%d &lt;</body>"+
			"<delay xmlns='urn:xmpp:delay' from='montague.example' stamp='2020-01-01T00:00:00Z'/><x:y xmlns:x='urn:x' x:z='1'/></message>", n, n), stream.DefaultLimits())
		must(t, err)
		must(t, db.AppendOffline(ctx, account, time.Date(2026, 11, 25, 21, 0, n, n*1000, time.UTC), s).Wait(ctx))
	}
}

func databases(t *testing.T, f func(*testing.T, *xmpptest.Server)) {
	t.Run("SQLite", func(t *testing.T) { f(t, xmpptest.New(t, xmpptest.Archive)) })
	t.Run("PostgreSQL", func(t *testing.T) {
		dsn := pgtest.Start(t)
		f(t, xmpptest.New(t, func(c *config.Config) { c.Storage.Driver, c.Storage.DSN = "postgres", dsn }, xmpptest.Archive))
	})
}

// Everything of an account comes back: the export of what was imported says the same.
func TestRoundTrip(t *testing.T) {
	databases(t, func(t *testing.T, srv *xmpptest.Server) {
		ctx := context.Background()
		fill(t, srv, juliet)
		first := export(t, srv, juliet)
		stands := spool(t, srv, juliet)
		must(t, srv.Accounts().Delete(ctx, juliet))
		done, err := srv.Accounts().Import(ctx, strings.NewReader(first))
		must(t, err)
		if len(done.Accounts) != 1 || done.Accounts[0] != juliet.String() || len(done.Warnings) != 0 {
			t.Errorf("%+v", done)
		}
		if again := export(t, srv, juliet); canonical(t, again) != canonical(t, first) {
			t.Errorf("first\n%s\nagain\n%s", head(first), head(again))
		}
		for _, want := range []string{"SCRAM-SHA-512", "jabber:iq:roster", "approved='true'", "ask='subscribe'", "<group>Lovers</group>", "type='subscribe'", "exodus:prefs", "vcard-temp",
			"jabber:iq:privacy", "<offline-messages>", "last-activity", "pubsub#access_model", "<affiliation jid='romeo@montague.example' affiliation='publisher'/>",
			"<archive xmlns='urn:xmpp:pie:0#mam'>", "b:waits='true'", "<archived xmlns='urn:balcony:pie:0'/>", "<prefs xmlns='urn:xmpp:mam:2' default='roster'>",
			"subscription='pending'", "pubsub#show-values", "<items node='urn:x:node 2 &lt;&apos;&amp;&gt;'>"} {
			if !strings.Contains(first, want) {
				t.Errorf("no %s in %s", want, head(first))
			}
		}
		// Of the archive waits what waited, and nothing else: three of the four in the gap were received, and twelve of those behind the top.
		if again := spool(t, srv, juliet); len(again) != 3+12 || !slices.Equal(again, stands) {
			t.Errorf("%d waiting %q, not %d %q", len(again), again, len(stands), stands)
		}
		// The password is what it was, and the block list holds at once.
		c := srv.Client("juliet@localhost/balcony")
		c.Send("<iq type='get' id='b'><blocklist xmlns='urn:xmpp:blocking'/></iq>")
		c.Expect("<iq type='result' id='b' from='juliet@localhost' to='juliet@localhost/balcony'><blocklist xmlns='urn:xmpp:blocking'>" +
			"<item jid='iago@shakespeare.lit'/><item jid='spam.example'/><item jid='a@b.example/c'/></blocklist></iq>")
		if _, err := srv.Accounts().Import(ctx, strings.NewReader(first)); !errors.Is(err, pie.ErrInUse) {
			t.Errorf("over an account that is there: %v", err)
		}
		c.Close()
		if _, err := srv.Accounts().Import(ctx, strings.NewReader(first)); !errors.Is(err, pie.ErrInUse) {
			t.Errorf("over an account with data: %v", err)
		}
		if again := export(t, srv, juliet); len(again) < len(first)/2 {
			t.Error("a refused import has removed something")
		}
	})
}

// spool are the ids of the archived messages that wait.
func spool(t testing.TB, srv *xmpptest.Server, account jid.JID) (ids []string) {
	t.Helper()
	ctx := context.Background()
	state, err := srv.DB().SpoolState(ctx, account)
	must(t, err)
	for _, span := range append(state.Gaps, offline.Span{From: state.Top + 1, To: math.MaxInt64}) {
		entries, err := srv.DB().Waiting(ctx, account, span, 1000)
		must(t, err)
		for _, e := range entries {
			ids = append(ids, e.Mark+" "+e.Stanza.ID)
		}
	}
	return ids
}

// canonical is a document as what it means: prefixes and the order of attributes do not count.
func canonical(t testing.TB, document string) string {
	t.Helper()
	var b strings.Builder
	for d := xml.NewDecoder(strings.NewReader(document)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		must(t, err)
		switch token := token.(type) {
		case xml.StartElement:
			var attrs []string
			for _, a := range token.Attr {
				if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
					attrs = append(attrs, fmt.Sprintf(" {%s}%s=%q", a.Name.Space, a.Name.Local, a.Value))
				}
			}
			slices.Sort(attrs)
			fmt.Fprintf(&b, "<{%s}%s%s>", token.Name.Space, token.Name.Local, strings.Join(attrs, ""))
		case xml.EndElement:
			b.WriteString("</>")
		case xml.CharData:
			b.Write(token)
		}
	}
}

func head(s string) string { return s[:min(len(s), 6000)] }

// A disabled account stays disabled; an empty one that exists keeps its password.
func TestFlagsAndPasswords(t *testing.T) {
	srv := xmpptest.New(t)
	ctx := context.Background()
	srv.Account("juliet@localhost")
	must(t, srv.Accounts().SetDisabled(ctx, juliet, true))
	text := export(t, srv, juliet)
	must(t, srv.Accounts().Delete(ctx, juliet))
	_, err := srv.Accounts().Import(ctx, strings.NewReader(text))
	must(t, err)
	if disabled, err := srv.DB().AccountDisabled(ctx, juliet); !disabled || err != nil {
		t.Errorf("disabled: %t, %v", disabled, err)
	}
	romeo := srv.Account("romeo@localhost")
	other := strings.ReplaceAll(strings.ReplaceAll(text, "juliet", "romeo"), "<disabled xmlns='urn:balcony:pie:0'/>", "<vCard xmlns='vcard-temp'><FN>R</FN></vCard>")
	_, err = srv.Accounts().Import(ctx, strings.NewReader(other))
	must(t, err)
	srv.Client("romeo@localhost/orchard") // with the password that it had
	if card, err := srv.DB().VCard(ctx, romeo); err != nil || !strings.Contains(string(card), "<FN>R</FN>") {
		t.Errorf("%s, %v", card, err)
	}
	done, err := srv.Accounts().Import(ctx, strings.NewReader("<server-data xmlns='urn:xmpp:pie:0'><host jid='localhost'><user name='a' password='secret'/><user name='b'/></host></server-data>"))
	must(t, err)
	if len(done.Accounts) != 2 || len(done.Warnings) != 1 || !strings.Contains(done.Warnings[0], "b@localhost has no password") {
		t.Errorf("%+v", done)
	}
	for name, want := range map[string]int{"a": 3, "b": 0} {
		v, err := srv.DB().Verifiers(ctx, jid.MustParse(name+"@localhost"))
		if err != nil || len(v) != want {
			t.Errorf("%s has %d verifiers, %v", name, len(v), err)
		}
	}
}

// What the server remembers of an account that had nothing does not outlive an import: its next session gets the newest items of its nodes, and its
// presence has the hash of its photo.
func TestNothingStaleAfterImport(t *testing.T) {
	srv := xmpptest.New(t)
	const nick = "http://jabber.org/protocol/nick"
	const info = "http://jabber.org/protocol/disco#info"
	query := xmpp.El(info, "query").Add(xmpp.El(info, "identity", "category", "client", "type", "pc"), xmpp.El(info, "feature", "var", nick+"+notify"))
	ver, err := caps.Ver(query, crypto.SHA1)
	must(t, err)
	initial := "<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:c' ver='" + ver + "'/></presence>"

	// The server learns what such a client wants from another account, whose item tells that it has.
	srv.Account("nurse@localhost")
	nurse := srv.Client("nurse@localhost/kitchen")
	nurse.Send("<iq type='set' id='p'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='" + nick + "'><item id='current'><nick xmlns='" + nick + "'>Angelica</nick></item></publish></pubsub></iq>")
	nurse.Sync()
	nurse.Send(initial)
	for learnt := false; !learnt; {
		e := nurse.Read()
		text := string(e.AppendTo(nil, ""))
		if strings.Contains(text, info) {
			nurse.Send("<iq type='result' id='" + e.Attr("id") + "' to='" + e.Attr("from") + "'>" + string(query.AppendTo(nil, "")) + "</iq>")
		}
		learnt = strings.Contains(text, "Angelica</nick>") && strings.Contains(text, "#event")
	}

	srv.Account("juliet@localhost")
	login := func() string {
		c := srv.Client("juliet@localhost/balcony")
		c.Send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>" + initial)
		c.Sync()
		var got []byte
		for _, e := range c.Take() {
			got = e.AppendTo(got, "")
		}
		c.Close()
		return string(got)
	}
	if got := login(); strings.Contains(got, "#event") || strings.Contains(got, "<photo>") {
		t.Errorf("before the import %s", got)
	}
	_, err = srv.Accounts().Import(context.Background(), strings.NewReader("<server-data xmlns='urn:xmpp:pie:0'><host jid='localhost'><user name='juliet'>"+
		"<query xmlns='jabber:iq:roster'><item jid='romeo@localhost' subscription='none'/></query>"+
		"<vCard xmlns='vcard-temp'><PHOTO><TYPE>image/png</TYPE><BINVAL>cG5n</BINVAL></PHOTO></vCard>"+
		"<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='"+nick+"'><item id='current'><nick xmlns='"+nick+"'>Jule</nick></item></items></pubsub>"+
		"</user></host></server-data>"))
	must(t, err)
	got := login()
	if !strings.Contains(got, "jid='romeo@localhost'") {
		t.Errorf("no contact in %s", got)
	}
	if !strings.Contains(got, ">Jule</nick>") {
		t.Errorf("no item in %s", got)
	}
	if sum := sha1.Sum([]byte("png")); !strings.Contains(got, "<photo>"+hex.EncodeToString(sum[:])+"</photo>") {
		t.Errorf("no photo in %s", got)
	}
}

// The examples of XEP-0227 in one document, and what ejabberd writes: its old namespace, and text between elements.
func TestExamples(t *testing.T) {
	srv := xmpptest.New(t)
	ctx := context.Background()
	key, salt := base64.StdEncoding.EncodeToString(make([]byte, 20)), base64.StdEncoding.EncodeToString([]byte("NaClNaClNaClNaCl"))
	for _, ns := range []string{"urn:xmpp:pie:0", "http://www.xmpp.org/extensions/xep-0227.html#ns"} {
		done, err := srv.Accounts().Import(ctx, strings.NewReader(`<?xml version='1.0' encoding='UTF-8'?>
<!-- §4.2 to §4.9 -->
<server-data xmlns='`+ns+`' xmlns:xi='http://www.w3.org/2001/XInclude'>
  <host jid='localhost'>
    <user name='Juliet'>
      <scram-credentials xmlns='urn:xmpp:pie:0#scram' mechanism='SCRAM-SHA-1'>
        <iter-count>100000</iter-count>
        <salt>`+salt+`</salt>
        <server-key>`+key+`</server-key>
        <stored-key>
          `+key+`
        </stored-key>
      </scram-credentials>
      <scram-credentials xmlns='urn:xmpp:pie:0#scram' mechanism='SCRAM-MD5'/>
      <query xmlns='jabber:iq:roster'>
        <item jid='romeo@montague.net' name='Romeo' subscription='both'>
          <group>Friends</group>
        </item>
      </query>
      <offline-messages>
        <message xmlns='jabber:client' from='romeo@montague.net/orchard' to='juliet@capulet.com/balcony' type='chat'>
          <body>Neither, fair saint, if either thee dislike.</body>
          <delay xmlns='urn:xmpp:delay' from='localhost' stamp='1999-07-21T00:32:29Z'>
            Offline Storage
          </delay>
        </message>
      </offline-messages>
      <query xmlns="jabber:iq:private">
        <exodus xmlns="exodus:prefs">
          <defaultnick>Hamlet</defaultnick>
        </exodus>
      </query>
      <vCard xmlns='vcard-temp'>
        <FN>Juliet Capulet</FN>
      </vCard>
      <query xmlns='jabber:iq:privacy'>
        <default name='public'/>
        <list name='public'>
          <item type='jid' value='tybalt@example.com' action='deny' order='1'/>
          <item action='allow' order='2'/>
        </list>
        <list name='private'>
          <item type='subscription' value='both' action='allow' order='10'/>
          <item action='deny' order='15'/>
        </list>
      </query>
      <blocklist xmlns='urn:xmpp:blocking'><item jid='paris@example.com'/><item jid='localhost'/></blocklist>
      <presence xmlns='jabber:client' type='subscribe' id='xk3h1v69' from='romeo@montague.net'>
        <nick xmlns="http://jabber.org/protocol/nick">Romeo</nick>
      </presence>
      <presence xmlns='jabber:client' type='subscribe' from='mercutio@montague.net'/>
      <pubsub xmlns='http://jabber.org/protocol/pubsub#owner'>
        <configure node='urn:xmpp:bookmarks:1'>
          <x xmlns='jabber:x:data' type='form'>
            <field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#node_config</value></field>
            <field var='pubsub#access_model'><value>whitelist</value></field>
            <field var='example#unknown'><value>1</value></field>
          </x>
        </configure>
        <affiliations node='urn:xmpp:bookmarks:1'>
          <affiliation jid='mercutio@example.net' affiliation='member'/>
        </affiliations>
        <subscriptions node='urn:xmpp:bookmarks:1'>
          <subscription jid='mercutio@example.net' subscription='subscribed' subid='123-abc'/>
        </subscriptions>
      </pubsub>
      <pubsub xmlns='http://jabber.org/protocol/pubsub'>
        <items node='urn:xmpp:bookmarks:1'>
          <item id='theplay@conference.shakespeare.lit'>
            <conference xmlns='urn:xmpp:bookmarks:1' name='The Play&apos;s the Thing' autojoin='true'>
              <nick>Romeo</nick>
            </conference>
          </item>
        </items>
        <items node='http://jabber.org/protocol/nick'>
          <item id='current'>
            <nick xmlns='http://jabber.org/protocol/nick'>Romy</nick>
          </item>
        </items>
      </pubsub>
      <unknown xmlns='urn:example'><deep><deeper/></deep></unknown>
    </user>
  </host>
</server-data>
`))
		must(t, err)
		if len(done.Accounts) != 1 || done.Accounts[0] != "juliet@localhost" || len(done.Warnings) != 5 {
			t.Errorf("%q", done)
		}
		v, err := srv.DB().Verifiers(ctx, juliet)
		if err != nil || len(v) != 1 || v[0].Iterations != 100000 || string(v[0].Salt) != "NaClNaClNaClNaCl" {
			t.Errorf("verifiers %v, %v", v, err)
		}
		items, _, err := srv.DB().Roster(ctx, juliet)
		must(t, err)
		got := ""
		for _, i := range items {
			got += fmt.Sprintf("%s %s %v to=%t from=%t in=%t listed=%t; ", i.Contact, i.Name, i.Groups, i.To, i.From, i.In, i.Listed)
		}
		if want := "romeo@montague.net Romeo [Friends] to=true from=true in=false listed=true"; !strings.Contains(got, want) || !strings.Contains(got, "mercutio@montague.net  [] to=false from=false in=true listed=false") {
			t.Errorf("roster %s", got)
		}
		entries, err := srv.DB().Offline(ctx, juliet, 0, 10)
		must(t, err)
		if len(entries) != 1 || entries[0].Stanza.Has(xmpp.NSDelay, "delay") || entries[0].Stamp.Format(time.RFC3339) != "1999-07-21T00:32:29Z" || entries[0].Stanza.To.String() != "juliet@localhost" {
			t.Errorf("messages %v", entries)
		}
		blocked, err := srv.DB().Blocked(ctx, juliet)
		if err != nil || fmt.Sprint(blocked) != "[tybalt@example.com paris@example.com]" {
			t.Errorf("blocked %v, %v", blocked, err)
		}
		n, standing, err := srv.DB().PubSubNode(ctx, juliet, "urn:xmpp:bookmarks:1", jid.MustParse("mercutio@example.net"))
		if err != nil || n.Config.Access != pubsub.Whitelist || n.Items != 1 || standing != (pubsub.Standing{Affiliation: pubsub.Member, Subscription: pubsub.Subscribed}) {
			t.Errorf("node %+v, %+v, %v", n, standing, err)
		}
		p, err := srv.DB().PubSubItems(ctx, juliet, "http://jabber.org/protocol/nick", pubsub.Query{Max: 10})
		if err != nil || len(p.Items) != 1 || string(p.Items[0].Payload) != "<nick xmlns='http://jabber.org/protocol/nick'>Romy</nick>" {
			t.Errorf("items %+v, %v", p, err)
		}
		must(t, srv.Accounts().Delete(ctx, juliet))
	}
}

// What is no document of ours is refused with its place, and leaves nothing behind: no account, and of one that was there nothing is lost.
func TestErrors(t *testing.T) {
	srv := xmpptest.New(t, xmpptest.Archive)
	ctx := context.Background()
	srv.Account("empty@localhost")
	before := export(t, srv, jid.MustParse("empty@localhost"))
	const open, end = "<server-data xmlns='urn:xmpp:pie:0'>\n<host jid='localhost'>\n", "\n</host></server-data>"
	user := func(inside string) string {
		return open + "<user name='x' password='p'><vCard xmlns='vcard-temp'/>" + inside + "</user>" + end
	}
	archived := func(delay, body string) string {
		return user("<archive xmlns='urn:xmpp:pie:0#mam'><result xmlns='urn:xmpp:mam:2'><forwarded xmlns='urn:xmpp:forward:0'>" + delay + "<message xmlns='jabber:client' from='a@b'>" + body + "</message></forwarded></result></archive>")
	}
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "line 1, column 1: the document ends too early"},
		{"not XML", "hello", "line 1"},
		{"another document", "<html xmlns='http://www.w3.org/1999/xhtml'/>", "not a document of XEP-0227"},
		{"without a namespace", "<server-data/>", "not a document of XEP-0227"},
		{"another domain", "<server-data xmlns='urn:xmpp:pie:0'>\n<host jid='example.org'>", "line 2, column 25: \"example.org\" is not a domain of this server"},
		{"no domain", "<server-data xmlns='urn:xmpp:pie:0'><host/>", "is not a domain of this server"},
		{"no name", open + "<user/>" + end, "line 3, column 8: \"\" cannot be the name of an account"},
		{"a bad name", open + "<user name='a b'/>" + end, "cannot be the name of an account"},
		{"the end is missing", open + "<user name='x'>", "line 3, column 16: x@localhost: "},
		{"crossed", open + "<user name='x'></host>", "line 3"},
		{"text", open + "<user name='x'>text</user>" + end, "text where only elements may be"},
		{"document type", "<!DOCTYPE x [<!ENTITY a 'b'>]>" + open + end, "a document type is not allowed"},
		{"entity", user("<vCard xmlns='vcard-temp'>&a;</vCard>"), "line 3"},
		{"something behind", open + end + "<x/>", "something follows the end"},
		{"include", open + "<xi:include xmlns:xi='http://www.w3.org/2001/XInclude' href='x'/>" + end, "an XInclude that was not resolved"},
		{"contact", user("<query xmlns='jabber:iq:roster'><item jid='@'/></query>"), "is no contact"},
		{"subscription", user("<query xmlns='jabber:iq:roster'><item jid='a@b' subscription='remove'/></query>"), "subscription"},
		{"presence", user("<presence xmlns='jabber:client' from='a@b'/>"), "only subscription requests"},
		{"attributes", user("<vCard xmlns='vcard-temp'><FN a='1' a='2'/></vCard>"), "line 3"},
		{"depth", user("<vCard xmlns='vcard-temp'>" + strings.Repeat("<a>", 5000) + strings.Repeat("</a>", 5000) + "</vCard>"), "elements more than 128 deep"},
		{"depth of what is not known", user(strings.Repeat("<a xmlns='urn:x'>", 5000) + strings.Repeat("</a>", 5000)), "elements more than 128 deep"},
		{"size", user("<vCard xmlns='vcard-temp'><FN>" + strings.Repeat("x", 5<<20) + "</FN></vCard>"), "an element of more than"},
		{"message", user("<offline-messages><message xmlns='jabber:client' from='@'/></offline-messages>"), "line 3"},
		{"stamp", user("<last-activity xmlns='urn:balcony:pie:0' stamp='yesterday'/>"), "last activity"},
		{"block", user("<blocklist xmlns='urn:xmpp:blocking'><item jid='@'/></blocklist>"), "is no address"},
		{"privacy", user("<query xmlns='jabber:iq:privacy'><list name='blocked'><item type='jid' action='deny' value='@'/></list></query>"), "is no address"},
		{"access model", user("<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><configure node='n'><x xmlns='jabber:x:data' type='form'><field var='pubsub#access_model'><value>secret</value></field></x></configure></pubsub>"), "pubsub#access_model"},
		{"configuration", user("<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><configure node='n'/></pubsub>"), "no form"},
		{"a node from nowhere", user("<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><affiliations node='n'><affiliation jid='a@b' affiliation='member'/></affiliations></pubsub>"), "was not described before"},
		{"an item without id", user("<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='n'><item/></items></pubsub>"), "without an id"},
		{"an item of two elements", user("<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='n'><item id='1'><a xmlns='urn:x'/><b xmlns='urn:x'/></item></items></pubsub>"), "more than one element"},
		{"a result of nothing", user("<archive xmlns='urn:xmpp:pie:0#mam'>\n<result xmlns='urn:xmpp:mam:2'/></archive>"), "line 4, column 33: x@localhost: a result without its message"},
		{"a result without a time", archived("", "<body/>"), "a result without its message"},
		{"a result with another time", archived("<delay xmlns='urn:xmpp:delay' stamp='yesterday'/>", "<body/>"), "time of a message"},
		{"archive preferences", user("<prefs xmlns='urn:xmpp:mam:2' default='sometimes'/>"), "default \"sometimes\""},
		{"archive preferences of nobody", user("<prefs xmlns='urn:xmpp:mam:2' default='never'><never><jid>@</jid></never></prefs>"), "is no address"},
		{"base64", user("<scram-credentials xmlns='urn:xmpp:pie:0#scram' mechanism='SCRAM-SHA-1'><iter-count>4096</iter-count><salt>!</salt></scram-credentials>"), "credentials for SCRAM-SHA-1"},
		{"iterations", user("<scram-credentials xmlns='urn:xmpp:pie:0#scram' mechanism='SCRAM-SHA-1'><iter-count>1</iter-count></scram-credentials>"), "1 iterations"},
		{"password", open + "<user name='x' password='&#x200;&#9;'/>" + end, "unusable password"},
		{"an empty account", strings.ReplaceAll(user("<query xmlns='jabber:iq:roster'><item jid='a@b'/><item jid='@'/></query>"), "'x'", "'empty'"), "is no contact"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			done, err := srv.Accounts().Import(ctx, strings.NewReader(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "line ") {
				t.Errorf("error %v, want %s", err, tt.want)
			}
			if len(done.Accounts) != 0 {
				t.Errorf("%+v", done)
			}
			if exists, err := srv.DB().AccountExists(ctx, jid.MustParse("x@localhost")); exists || err != nil {
				t.Errorf("half an account: %t, %v", exists, err)
			}
			if after := export(t, srv, jid.MustParse("empty@localhost")); after != before {
				t.Errorf("the empty account was changed: %s", after)
			}
		})
	}
	// The accounts before the one that fails stay.
	done, err := srv.Accounts().Import(ctx, strings.NewReader(open+"<user name='one' password='p'/><user name='two' password='p'><x/></user><user name=''/>"+end))
	if err == nil || fmt.Sprint(done.Accounts) != "[one@localhost two@localhost]" {
		t.Errorf("%v, %v", done, err)
	}
	if err := srv.Accounts().Export(ctx, jid.MustParse("nobody@localhost"), &bytes.Buffer{}); !errors.Is(err, auth.ErrNoAccount) {
		t.Errorf("no account: %v", err)
	}
}

// Documents have any length: what is read at once is one element.
func TestLongDocument(t *testing.T) {
	srv := xmpptest.New(t)
	r := &endless{rest: 40 << 20}
	done, err := srv.Accounts().Import(context.Background(), r)
	if err != nil || len(done.Accounts) != 1 || len(done.Warnings) != 1 {
		t.Errorf("%v, %v", done, err)
	}
}

// endless is a document with one long element that nobody knows.
type endless struct {
	rest  int
	state int
}

func (e *endless) Read(p []byte) (int, error) {
	switch {
	case e.state == 0:
		e.state = 1
		return copy(p, "<server-data xmlns='urn:xmpp:pie:0'><host jid='localhost'><user name='x' password='p'><archive xmlns='urn:x'>"), nil
	case e.rest > 0:
		n := copy(p, strings.Repeat("<result id='1234567890123456789'/>", len(p)/34))
		e.rest -= n
		return n, nil
	case e.state == 1:
		e.state = 2
		return copy(p, "</archive></user></host></server-data>"), nil
	}
	return 0, io.EOF
}

// XEP-0227 §5: the files of the layout of §5.1, and what is no include.
func TestIncludes(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"main.xml":             "<?xml version='1.0' encoding='UTF-8'?>\n<server-data xmlns='urn:xmpp:pie:0'\n  xmlns:xi='http://www.w3.org/2001/XInclude'>\n <xi:include href='localhost.xml'/>\n</server-data>",
		"localhost.xml":        "<?xml version='1.0'?><host xmlns='urn:xmpp:pie:0' xmlns:xi='http://www.w3.org/2001/XInclude' jid='localhost'><xi:include href='localhost/juliet.xml'></xi:include><xi:include href='localhost/romeo.xml'/></host>",
		"localhost/juliet.xml": "<user xmlns='urn:xmpp:pie:0' name='juliet' password='p'><xi:include xmlns:xi='http://www.w3.org/2001/XInclude' href='card.xml'/></user>",
		"localhost/card.xml":   "<vCard xmlns='vcard-temp'><FN>J</FN><xi:include xmlns:xi='http://www.w3.org/2001/XInclude' href='/etc/passwd'/></vCard>\n",
		"localhost/romeo.xml":  "<!-- x --><user xmlns='urn:xmpp:pie:0' name='romeo' password='p'/>",
		"plain.xml":            "<server-data xmlns='urn:xmpp:pie:0'>\n<x/>&amp; <![CDATA[<]]> <!-- - --></server-data>\n",
		"up.xml":               "<server-data xmlns='urn:xmpp:pie:0'><include xmlns='http://www.w3.org/2001/XInclude' href='../x.xml'/></server-data>",
		"abs.xml":              "<server-data xmlns='urn:xmpp:pie:0'><include xmlns='http://www.w3.org/2001/XInclude' href='file:///etc/passwd'/></server-data>",
		"text.xml":             "<server-data xmlns='urn:xmpp:pie:0'><include xmlns='http://www.w3.org/2001/XInclude' parse='text' href='plain.xml'/></server-data>",
		"loop.xml":             "<server-data xmlns='urn:xmpp:pie:0'><include xmlns='http://www.w3.org/2001/XInclude' href='loop2.xml'/></server-data>",
		"loop2.xml":            "<host xmlns='urn:xmpp:pie:0'><include xmlns='http://www.w3.org/2001/XInclude' href='loop3.xml'/></host>",
		"loop3.xml":            "<user xmlns='urn:xmpp:pie:0'><include xmlns='http://www.w3.org/2001/XInclude' href='missing.xml'/></user>",
		"bad.xml":              "<server-data xmlns='urn:xmpp:pie:0'><include xmlns='http://www.w3.org/2001/XInclude' href='broken.xml'/></server-data>",
		"broken.xml":           "<host>\n</user>",
	} {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, []byte(text), 0o600))
	}
	read := func(name string) (string, error) {
		f, err := pie.Open(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		defer func() { must(t, f.Close()) }()
		var b bytes.Buffer
		_, err = b.ReadFrom(f)
		return b.String(), err
	}
	srv := xmpptest.New(t)
	f, err := pie.Open(filepath.Join(dir, "main.xml"))
	must(t, err)
	done, err := srv.Accounts().Import(context.Background(), f)
	must(t, f.Close())
	if err != nil || fmt.Sprint(done.Accounts) != "[juliet@localhost romeo@localhost]" || len(done.Warnings) != 0 {
		t.Errorf("%v, %v", done, err)
	}
	if card, err := srv.DB().VCard(context.Background(), juliet); err != nil || !strings.Contains(string(card), "href='/etc/passwd'") {
		t.Errorf("card %s, %v", card, err)
	}
	plain, err := read("plain.xml")
	if want, _ := os.ReadFile(filepath.Join(dir, "plain.xml")); err != nil || plain != string(want) {
		t.Errorf("without includes: %q, %v", plain, err)
	}
	for name, want := range map[string]string{"up.xml": "escapes", "abs.xml": "not the relative name", "text.xml": "parse or xpointer", "loop.xml": "missing.xml", "bad.xml": "broken.xml, line 2", "missing.xml": "missing.xml"} {
		if _, err := read(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

// A parser of files that anybody may have written: no panic, an error or an account that exports to a document that imports again.
func FuzzImport(f *testing.F) {
	srv := xmpptest.New(f, xmpptest.Archive)
	srv.Account(juliet.String())
	must(f, srv.DB().SetVCard(context.Background(), juliet, []byte("<vCard xmlns='vcard-temp'/>")))
	f.Add("<?xml version='1.0'?><server-data xmlns='urn:xmpp:pie:0'><host jid='localhost'><user name='fuzz'><presence xmlns='jabber:client' from='a@b' type='subscribe'/><vCard xmlns='vcard-temp'><FN>F</FN></vCard>" +
		"<query xmlns='jabber:iq:private'><a xmlns='urn:a'><b/></a></query><query xmlns='jabber:iq:privacy'><default name='x'/><list name='x'><item type='jid' value='a@b' action='deny' order='1'/></list></query>" +
		"<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><configure node='n' xmlns:b='urn:balcony:pie:0' b:created='2026-01-01T00:00:00Z'><x xmlns='jabber:x:data' type='submit'><field var='pubsub#access_model'><value>open</value></field></x></configure>" +
		"<affiliations node='n'><affiliation jid='a@b' affiliation='member'/></affiliations><subscriptions node='n'><subscription jid='a@b' subscription='subscribed'/></subscriptions></pubsub>" +
		"<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='n'><item id='1'><x xmlns='urn:x'/></item></items></pubsub><last-activity xmlns='urn:balcony:pie:0' stamp='2026-01-01T00:00:00Z'>x</last-activity></user></host></server-data>")
	f.Add("<server-data xmlns='urn:xmpp:pie:0'><host jid='localhost'><user name='fuzz' password='p'><query xmlns='jabber:iq:roster'><item jid='a@b'><group>g</group></item></query>" +
		"<offline-messages><message xmlns='jabber:client' from='a@b'><body>x</body></message></offline-messages></user></host></server-data>")
	f.Add("<server-data xmlns='urn:xmpp:pie:0'><host jid='localhost'><user name='fuzz' password='p'><prefs xmlns='urn:xmpp:mam:2' default='never'/><archive xmlns='urn:xmpp:pie:0#mam'>" +
		"<result xmlns='urn:xmpp:mam:2' id='1' xmlns:b='urn:balcony:pie:0' b:waits='true'><forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='2010-07-10T23:08:25Z'/>" +
		"<message xmlns='jabber:client' from='a@b/c' type='chat'><body>x</body><stanza-id xmlns='urn:xmpp:sid:0' by='fuzz@localhost' id='1'/></message></forwarded></result></archive>" +
		"<offline-messages><archived xmlns='urn:balcony:pie:0'/><message xmlns='jabber:client' from='a@b/c'/></offline-messages></user></host></server-data>")
	f.Fuzz(func(t *testing.T, text string) {
		ctx := context.Background()
		done, _ := srv.Accounts().Import(ctx, strings.NewReader(text))
		for _, a := range done.Accounts {
			account := jid.MustParse(a)
			if account.Equal(juliet) {
				t.Fatal("imported over an account that is there")
			}
			first := export(t, srv, account)
			must(t, srv.DB().DeleteAccount(ctx, account)) // tells no contacts, of whose servers there would be a log
			if _, err := srv.Accounts().Import(ctx, strings.NewReader(first)); err != nil {
				t.Fatalf("%v: %s", err, first)
			}
			if again := export(t, srv, account); canonical(t, again) != canonical(t, first) {
				t.Fatalf("first\n%s\nagain\n%s", first, again)
			}
			must(t, srv.DB().DeleteAccount(ctx, account)) // tells no contacts, of whose servers there would be a log
		}
	})
}
