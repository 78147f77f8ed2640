package pubsub

import (
	"encoding/json"
	"encoding/xml"
	"reflect"
	"strings"
	"testing"

	"balcony/xmpp"
)

func formOf(t testing.TB, kind string, fields ...string) form {
	t.Helper()
	x := newForm("submit", kind)
	for i := 0; i+1 < len(fields); i += 2 {
		x.Add(newField(fields[i], "", "", strings.Split(fields[i+1], "|")...))
	}
	f, ok := readForm(reread(t, x))
	if !ok {
		t.Fatal("no form")
	}
	return f
}

func reread(t testing.TB, e *xmpp.Element) *xmpp.Element {
	t.Helper()
	got, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader(e.String())))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// What a form shows can be submitted, and changes nothing; it survives the database.
func TestConfigurationFormIsItsOwnAnswer(t *testing.T) {
	for name, c := range map[string]Config{"service": serviceConfig(), "account": pepConfig(), "other": {Title: "t", Description: "d", Type: "urn:x", Language: "de",
		Contact: []string{"a@b", "c@d"}, Access: Roster, Groups: []string{"Friends", "ä"}, PublishModel: Anybody, MaxItems: 17, ItemExpire: 60, MaxPayload: 1028,
		NodeFull: Reject, ItemReply: "publisher", SendLast: OnSub, NotifyConfig: true, NotifySub: true, Notification: "normal"}} {
		f, ok := readForm(reread(t, c.form()))
		if !ok || f.kind != formConfig {
			t.Fatalf("%s: no configuration form", name)
		}
		got := Config{}
		if err := got.submit(f); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got.MaxPayload == maxPayload {
			got.MaxPayload = 0
		}
		if len(got.Contact) == 0 {
			got.Contact, got.Groups = c.Contact, c.Groups
		}
		if !reflect.DeepEqual(got, c) {
			t.Errorf("%s: %+v, want %+v", name, got, c)
		}
		if !c.meets(f) {
			t.Errorf("%s does not meet itself", name)
		}
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var kept Config
		if err := json.Unmarshal(text, &kept); err != nil || !reflect.DeepEqual(kept, c) {
			t.Errorf("%s: kept as %s: %+v, %v", name, text, kept, err)
		}
	}
}

func TestConfigurationValues(t *testing.T) {
	for _, tt := range []struct {
		name, value string
		ok          bool
	}{
		{"access_model", "open", true}, {"access_model", "OPEN", false}, {"access_model", "", false},
		{"max_items", "max", true}, {"max_items", "128", true}, {"max_items", "0", false}, {"max_items", "-1", false}, {"max_items", "many", false}, {"max_items", "99999999999", false},
		{"item_expire", "0", true}, {"item_expire", "max", true}, {"item_expire", "604800", true}, {"item_expire", "-1", false},
		{"max_payload_size", "1028", true}, {"max_payload_size", "9999999", true}, {"max_payload_size", "x", false},
		{"persist_items", "true", true}, {"persist_items", "0", true}, {"persist_items", "yes", false},
		{"publish_model", "publishers", true}, {"publish_model", "whitelist", false},
		{"send_last_published_item", "on_sub_and_presence", true}, {"send_last_published_item", "always", false},
		{"node_type", "leaf", true}, {"node_type", "collection", false},
		{"purge_offline", "false", true}, {"purge_offline", "1", false}, {"tempsub", "0", true},
		{"itemreply", "owner", true}, {"itemreply", "publisher", true}, {"itemreply", "none", true}, {"itemreply", "room", false}, // XEP-0060 §12.17, §16.4.4
		{"contact", "a@b", true}, {"contact", "@", false},
		{"notification_type", "headline", true}, {"notification_type", "chat", false},
		{"title", strings.Repeat("t", maxText), true}, {"title", strings.Repeat("t", maxText+1), false},
		{"roster_groups_allowed", strings.Repeat("|g", maxListed)[1:], true}, {"roster_groups_allowed", strings.Repeat("|g", maxListed+1)[1:], false},
	} {
		c := pepConfig()
		if err := c.submit(formOf(t, formConfig, "pubsub#"+tt.name, tt.value)); (err == nil) != tt.ok {
			t.Errorf("%s = %.20q: %v", tt.name, tt.value, err)
		}
	}
	// What its owner writes is bounded as a whole, whatever the field.
	half := strings.Repeat("|"+strings.Repeat("g", 1000), 5)[1:]
	contacts := strings.ReplaceAll(half, "g|", "@x|") + "@x"
	for _, tt := range []struct {
		fields []string
		ok     bool
	}{
		{[]string{"pubsub#roster_groups_allowed", half}, true},
		{[]string{"pubsub#contact", contacts}, true},
		{[]string{"pubsub#roster_groups_allowed", half, "pubsub#contact", contacts}, false},
		{[]string{"pubsub#roster_groups_allowed", half, "pubsub#title", half[:1000], "pubsub#description", half[:1000], "pubsub#type", half[:1000], "pubsub#language", half[:1000]}, false},
	} {
		c := pepConfig()
		if err := c.submit(formOf(t, formConfig, tt.fields...)); (err == nil) != tt.ok {
			t.Errorf("a configuration of %d bytes: %v", c.Texts(), err)
		}
		c = pepConfig()
		if err := c.apply(formOf(t, formOptions, tt.fields...)); (err == nil) != tt.ok {
			t.Errorf("options of %d bytes: %v", c.Texts(), err)
		}
	}
	large := pepConfig()
	large.Groups = []string{strings.Repeat("g", 10_000)} // from before there was a bound
	if err := large.submit(formOf(t, formConfig, "pubsub#max_items", "2")); err != nil {
		t.Errorf("another field of a large configuration: %v", err)
	}
	c := pepConfig()
	if err := c.submit(formOf(t, formConfig, "pubsub#unknown", "x")); err != nil {
		t.Errorf("an unknown field in a configuration: %v", err)
	}
	if err := c.apply(formOf(t, formOptions, "pubsub#unknown", "x")); err == nil {
		t.Error("an unknown field in publish-options is accepted")
	}
}

// XEP-0060 §7.1.5: each field is compared with the configuration.
func TestPreconditions(t *testing.T) {
	c := pepConfig()
	c.MaxItems, c.Access, c.Groups = 10, Roster, []string{"a", "b"}
	for _, tt := range []struct {
		fields string
		want   bool
	}{
		{"access_model=roster", true}, {"access_model=open", false}, {"access_model=unknown", false},
		{"roster_groups_allowed=b|a", true}, {"roster_groups_allowed=a", false},
		{"persist_items=true", true}, {"persist_items=1", true}, {"persist_items=false", false},
		{"max_items=10", true}, {"max_items=5", true}, {"max_items=1", false}, {"max_items=11", false}, {"max_items=max", false},
		{"send_last_published_item=on_sub_and_presence", true}, {"send_last_published_item=never", false},
		{"notify_delete=1", true}, {"notify_retract=1", true}, {"notify_retract=0", false},
		{"unknown=1", false}, {"access_model=roster,persist_items=0", false},
	} {
		var fields []string
		for _, f := range strings.Split(tt.fields, ",") {
			name, value, _ := strings.Cut(f, "=")
			fields = append(fields, "pubsub#"+name, value)
		}
		if got := c.meets(formOf(t, formOptions, fields...)); got != tt.want {
			t.Errorf("%s: %v", tt.fields, got)
		}
	}
	c.MaxItems = MaxItems
	for value, want := range map[string]bool{"max": true, "128": true, "1": false} {
		if got := c.meets(formOf(t, formOptions, "pubsub#max_items", value)); got != want {
			t.Errorf("max meets %s: %v", value, got)
		}
	}
	if len(c.Groups) != 2 || c.Groups[0] != "a" {
		t.Errorf("comparing has changed the configuration: %v", c.Groups)
	}
}

func TestProfiles(t *testing.T) {
	for _, tt := range []struct {
		node   string
		access AccessModel
		items  int
		last   SendLast
	}{
		{"eu.siacs.conversations.axolotl.devicelist", Open, 1, OnSubAndPresence},
		{"eu.siacs.conversations.axolotl.bundles:31415", Open, 1, OnSubAndPresence},
		{"urn:xmpp:omemo:2:devices", Open, 1, OnSubAndPresence},
		{"urn:xmpp:omemo:2:bundles", Open, MaxItems, OnSubAndPresence},
		{"urn:xmpp:bookmarks:1", Whitelist, MaxItems, Never},
		{"storage:bookmarks", Whitelist, 1, OnSubAndPresence},
		{"urn:xmpp:mds:displayed:0", Whitelist, MaxItems, Never},
		{"urn:xmpp:vcard4", Open, 1, OnSubAndPresence},
		{"urn:xmpp:avatar:data", Presence, 1, OnSubAndPresence},
		{"urn:xmpp:avatar:metadata", Presence, 1, OnSubAndPresence},
		{"http://jabber.org/protocol/nick", Presence, 1, OnSubAndPresence},
		{"http://jabber.org/protocol/mood", Presence, 1, OnSubAndPresence},
	} {
		c := fresh(tt.node)
		if c.Access != tt.access || c.MaxItems != tt.items || c.SendLast != tt.last || !c.Persist {
			t.Errorf("%s is made as %+v", tt.node, c)
		}
		p := profileOf(tt.node)
		if right := c; p.repair(&right) {
			t.Errorf("%s is not made right", tt.node)
		}
		if p == nil {
			if tt.node != "http://jabber.org/protocol/mood" {
				t.Errorf("%s has no profile", tt.node)
			}
			continue
		}
		wrong := Config{Access: Authorize, MaxItems: 1, ItemExpire: 5}
		if full := map[bool]NodeFull{true: Reject, false: RetractOldest}[tt.node == "urn:xmpp:bookmarks:1"]; c.NodeFull != full {
			t.Errorf("%s: a full one does %s", tt.node, c.NodeFull)
		}
		if !p.repair(&wrong) || !wrong.Persist || wrong.ItemExpire != 0 || !wrong.Deliver || !wrong.Payloads || !wrong.keeps(tt.items) {
			t.Errorf("%s is repaired to %+v", tt.node, wrong)
		}
		if len(p.access) == 1 && wrong.Access != tt.access || len(p.access) > 1 && wrong.Access != Authorize {
			t.Errorf("%s is repaired to access %s", tt.node, wrong.Access)
		}
		if p.repair(&wrong) {
			t.Errorf("%s is repaired twice", tt.node)
		}
	}
}

func FuzzForm(f *testing.F) {
	f.Add("<field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#node_config</value></field><field var='pubsub#max_items'><value>max</value></field>")
	f.Add("<field var='pubsub#roster_groups_allowed'><value>a</value><value/></field><field var='pubsub#access_model'/>")
	f.Add("<field var='pubsub#deliver'><value>0</value></field><field var='pubsub#show-values'><value>chat</value></field>")
	f.Fuzz(func(t *testing.T, inside string) {
		x, err := xmpp.ReadElement(xml.NewDecoder(strings.NewReader("<x xmlns='jabber:x:data' type='submit'>" + inside + "</x>")))
		if err != nil {
			return
		}
		fm, ok := readForm(x)
		if !ok {
			return
		}
		c := pepConfig()
		if c.apply(fm) == nil && !c.meets(fm) {
			seen := make(map[string]bool)
			for _, fd := range fm.fields {
				if seen[fd.name] {
					return // a field that stands there twice cannot be met
				}
				seen[fd.name] = true
			}
			t.Errorf("what was applied is not met: %+v", c)
		}
		if c := pepConfig(); c.submit(fm) == nil {
			again := c
			g, ok := readForm(reread(t, c.form()))
			if !ok || again.submit(g) != nil {
				t.Errorf("the form of %+v cannot be submitted", c)
			}
		}
		var o Options
		if o.submit(fm) {
			again := Options{}
			if g, ok := readForm(reread(t, o.form("submit"))); !ok || !again.submit(g) || !reflect.DeepEqual(again, o) {
				t.Errorf("%+v is read as %+v", o, again)
			}
		}
	})
}
