package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestErrorsNameLineAndRemedy(t *testing.T) {
	for _, tt := range []struct {
		name string
		file string
		want []string // the lines of the error, in order
	}{
		{"syntax", "data = \"x\"\n[listen\n", []string{"b.toml:2: expected ']' to close table name"}},
		{"key twice", "data = \"x\"\ndata = \"y\"\n", []string{"b.toml:2: key data is already defined"}},
		{"unknown key", "\n[limits]\nclient_rat = \"1KiB\"\n", []string{`b.toml:3: unknown key "limits.client_rat": did you mean "client_rate"?`}},
		{"dash for underscore", "[limits]\nclient-rate = \"1KiB\"\n", []string{`b.toml:2: unknown key "limits.client-rate": did you mean "client_rate"?`}},
		{"unknown key far from any", "wibble_wobble = 1\n", []string{`b.toml:1: unknown key "wibble_wobble"`}},
		{"key in the wrong table", "registrations_per_hour = 1\n", []string{`b.toml:1: unknown key "registrations_per_hour": did you mean "limits.registrations_per_hour"?`}},
		{"unknown table", "[storge]\ndriver = \"sqlite\"\n", []string{`b.toml:1: unknown key "storge": did you mean "storage"?`}},
		{"unknown key in the second domain", "[[domain]]\nname = \"a.test\"\n[[domain]]\nname = \"b.test\"\ncertifcate = \"x\"\n",
			[]string{`b.toml:5: unknown key "domain[1].certifcate": did you mean "certificate"?`}},
		{"inline table", "storage = { driver = \"sqlite\", dns = \"\" }\n", []string{`b.toml:1: unknown key "storage.dns": did you mean "dsn"?`}},
		{"dotted key", "log.levle = \"info\"\n", []string{`b.toml:1: unknown key "log.levle": did you mean "level"?`}},
		{"string wanted", "data = 5\n", []string{"b.toml:1: data must be a string, not an integer"}},
		{"list wanted", "[listen]\nc2s = \"127.0.0.1:5222\"\n", []string{"b.toml:2: listen.c2s must be a list of strings, not a string"}},
		{"list of strings wanted", "[listen]\nc2s = [\n\t\"127.0.0.1:1\",\n\t5222,\n]\n", []string{"b.toml:4: listen.c2s[1] must be a string, not an integer"}},
		{"boolean wanted", "[archive]\nenabled = \"yes\"\n", []string{"b.toml:2: archive.enabled must be true or false, not a string"}},
		{"table wanted", "log = \"info\"\n", []string{"b.toml:1: log must be a table, not a string"}},
		{"list of tables wanted", "[domain]\nname = \"localhost\"\n", []string{"b.toml:1: domain must be a list of tables, written [[…]], not a table"}},
		{"size wanted", "[limits]\nstanza = true\n", []string{"b.toml:2: limits.stanza must be a string or a number, not a boolean"}},
		{"bad size", "[limits]\nstanza = \"big\"\n", []string{`b.toml:2: limits.stanza: "big" is not a size: write it like "256KiB", "2MiB" or "off"`}},
		{"bad duration", "[limits]\nlogin_time = 30\n", []string{`b.toml:2: limits.login_time: "30" is not a duration: write it like "30s", "15m", "365d" or "off"`}},
		{"bad count", "[limits]\nresources = \"-1\"\n", []string{`b.toml:2: limits.resources: "-1" is not a number: write it like 64 or "off"`}},
		{"no limit needs off", "[limits]\noutbox = 0\n", []string{`b.toml:2: limits.outbox must be more than 0; "off" means no limit`}},
		{"stanza below the RFC's minimum", "[limits]\nstanza = \"9KB\"\n", []string{"b.toml:2: limits.stanza must be at least 10000"}},
		{"empty data", "data = \"\"\n", []string{"b.toml:1: data must name a folder"}},
		{"no domain", "domain = []\n", []string{"b.toml:1: there must be a [[domain]]"}},
		{"domain without a name", "[[domain]]\nregistration = \"open\"\n", []string{"b.toml:1: domain[0].name is missing"}},
		{"domain that is a JID", "[[domain]]\nname = \"me@localhost\"\n", []string{`b.toml:2: domain[0].name: "me@localhost" is not a domain name`}},
		{"domain twice", "[[domain]]\nname = \"a.test\"\n[[domain]]\nname = \"A.test\"\n", []string{`b.toml:4: domain[1].name: "a.test" is there twice`}},
		{"certificate missing", "[[domain]]\nname = \"example.org\"\n",
			[]string{`b.toml:1: domain[0]: "example.org" needs a certificate: set certificate and key to PEM files (a self-signed one is made only for localhost, *.localhost and *.test)`}},
		{"key missing", "[[domain]]\nname = \"example.org\"\ncertificate = \"c.pem\"\n", []string{"b.toml:3: domain[0] has a certificate but no key"}},
		{"certificate forgotten", "[[domain]]\nname = \"localhost\"\nkey = \"k.pem\"\n", []string{"b.toml:3: domain[0] has a key but no certificate"}},
		{"registration", "[[domain]]\nname = \"localhost\"\nregistration = \"opne\"\n",
			[]string{`b.toml:3: domain[0].registration must be one of closed, invite, open, not "opne": did you mean "open"?`}},
		{"admin", "[[domain]]\nname = \"localhost\"\nadmins = [\"a@localhost\", \"admin\", \"a@localhost/x\", \"a@elsewhere.test\"]\n", []string{
			`b.toml:3: domain[0].admins[1]: "admin" is not a bare JID such as "admin@example.org"`,
			`b.toml:3: domain[0].admins[2]: "a@localhost/x" is not a bare JID such as "admin@example.org"`,
			`b.toml:3: domain[0].admins[3]: "a@elsewhere.test" is not an account of a domain of this server`}},
		{"contact", "[[domain]]\nname = \"localhost\"\n[domain.contact]\nabuse = [\"mailto:a@localhost\", \"a@localhost\"]\n",
			[]string{`b.toml:4: domain[0].contact.abuse[1]: "a@localhost" is not a URI such as "mailto:abuse@example.org"`}},
		{"address", "[listen]\nc2s = [\"5222\"]\nhttp = [\"localhost:http\"]\nhttps = [\":70000\"]\n", []string{
			`b.toml:2: listen.c2s[0]: "5222" is not an address such as "127.0.0.1:5222"`,
			`b.toml:3: listen.http[0]: "localhost:http" is not an address such as "127.0.0.1:5222"`,
			`b.toml:4: listen.https[0]: ":70000" is not an address such as "127.0.0.1:5222"`}},
		{"networks", "[listen]\nproxies = [\"10.0.0.1\", \"10.0.0.1:5222\"]\n[web]\nproxies = [\"10.0.0.0/33\"]\nmetrics = [\"::1\", \"localhost\"]\n", []string{
			`b.toml:2: listen.proxies[1]: "10.0.0.1:5222" is not an address or network such as "192.0.2.1" or "192.0.2.0/24"`,
			`b.toml:4: web.proxies[0]: "10.0.0.0/33" is not an address or network such as "192.0.2.1" or "192.0.2.0/24"`,
			`b.toml:5: web.metrics[1]: "localhost" is not an address or network such as "192.0.2.1" or "192.0.2.0/24"`}},
		{"address twice", "[listen]\nc2s = [\":5000\"]\nhttp = [\":5000\", \":0\", \":0\"]\n", []string{"b.toml:3: listen.http[0]: :5000 is already used by listen.c2s[0]"}},
		{"driver", "[storage]\ndriver = \"postgresql\"\n", []string{`b.toml:2: storage.driver must be one of sqlite, postgres, not "postgresql": did you mean "postgres"?`}},
		{"sqlite with another's dsn", "[storage]\ndsn = \"postgres://db/balcony\"\n", []string{"b.toml:2: storage.dsn: with sqlite it is the path of a file, without : and ?"}},
		{"s2s", "[s2s]\ndns = \"9.9.9.9\"\nauth = \"none\"\n", []string{
			`b.toml:2: s2s.dns: "9.9.9.9" is not an address such as "127.0.0.1:5222"`,
			`b.toml:3: s2s.auth must be one of certificate, dialback, not "none"`}},
		{"s2s domains", "[s2s]\nblocked = [\"a@b\"]\n[[s2s.peer]]\ndomain = \"a.test\"\nauth = \"dailback\"\n[[s2s.peer]]\ndomain = \"A.test\"\naddresses = [\"10.0.0.1\"]\n", []string{
			`b.toml:2: s2s.blocked[0]: "a@b" is not a domain name`,
			`b.toml:5: s2s.peer[0].auth must be one of certificate, dialback, not "dailback": did you mean "dialback"?`,
			`b.toml:7: s2s.peer[1].domain: "a.test" is there twice`,
			`b.toml:8: s2s.peer[1].addresses[0]: "10.0.0.1" is not an address such as "127.0.0.1:5222"`}},
		{"component", "[[component]]\nname = \"localhost\"\nsecret = \"…\"\n[[component]]\nsecret = \"kk38fj\"\n[[component]]\nname = \"g.test\"\n", []string{
			`b.toml:2: component[0].name: "localhost" is already a domain of this server`,
			"b.toml:3: component[0].secret is an example: make one of your own",
			"b.toml:4: component[1].name is missing",
			"b.toml:6: component[2].secret is missing"}},
		{"uploads without a size", "[upload]\nmax_size = 0\nquota = \"0\"\nkeep = \"off\"\n", []string{
			`b.toml:2: upload.max_size must be more than 0; "off" means no limit`, `b.toml:3: upload.quota must be more than 0; "off" means no limit`,
			`b.toml:4: upload.keep: write "0" to keep files for ever`,
		}},
		{"services", "[[service]]\ntype = \"turn server\"\nhost = \"a/b\"\nport = 70000\ntransport = \"tpc\"\nsecret = \"x\"\nusername = \"y\"\n" +
			"[[service]]\ntype = \"turn\"\nhost = \"h\"\npassword = \"p\"\n[[service]]\ntype = \"turn\"\nhost = \"h\"\nsecret = \"x\"\nlifetime = \"5s\"\n", []string{
			`b.toml:2: service[0].type: "turn server" is no type such as "turn"`, `b.toml:3: service[0].host: "a/b" is no domain name and no IP address`,
			`b.toml:4: service[0].port must be at most 65535`, `b.toml:5: service[0].transport must be one of udp, tcp, not "tpc": did you mean "tcp"?`,
			`b.toml:6: service[0] has a secret and a username or password: the secret makes them`,
			`b.toml:11: service[1] has a password but no username`, `b.toml:16: service[2].lifetime must be at least 1m`,
		}},
		{"keep of a domain", "[[domain]]\nname = \"a.test\"\narchive_keep = \"off\"\narchive_messages = \"many\"\n", []string{
			`b.toml:3: domain[0].archive_keep: write a time such as "30d", or "0" to keep messages for ever`,
			"b.toml:4: domain[0].archive_messages: write a number, or 0 for all"}},
		{"archive of a domain", "[[domain]]\nname = \"a.test\"\narchive = \"on\"\n", []string{"b.toml:3: domain[0].archive must be true or false"}},
		{"search of a domain", "[[domain]]\nname = \"a.test\"\narchive_search = 1\n", []string{"b.toml:3: domain[0].archive_search must be true or false"}},
		{"keep of a domain is no boolean", "[[domain]]\nname = \"a.test\"\narchive_keep = true\n", []string{
			`b.toml:3: domain[0].archive_keep: write a time such as "30d", or "0" to keep messages for ever`}},
		{"keep off", "[archive]\nkeep = \"off\"\n", []string{`b.toml:2: archive.keep: write "0" to keep messages for ever`}},
		{"log", "[log]\nlevel = \"warning\"\nformat = \"xml\"\n", []string{
			`b.toml:2: log.level must be one of debug, info, warn, error, not "warning"`,
			`b.toml:3: log.format must be one of text, json, not "xml"`}},
		{"everything at once, by line", "datta = \"x\"\n[limits]\nstanza = 5\n[log]\nlevel = 5\n[nonsense_table]\n", []string{
			`b.toml:1: unknown key "datta": did you mean "data"?`,
			"b.toml:3: limits.stanza must be at least 10000",
			"b.toml:5: log.level must be a string, not an integer",
			`b.toml:6: unknown key "nonsense_table"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := read("b.toml", []byte(tt.file))
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(tt.want, strings.Split(err.Error(), "\n")); diff != "" {
				t.Error(diff)
			}
			if e := (*Error)(nil); !errors.As(err, &e) {
				t.Errorf("%T is not an Error", err)
			}
		})
	}
}

const full = `
data = "data"

[[domain]]
name = "EXAMPLE.org"
certificate = "fullchain.pem"
key = "/etc/privkey.pem"
registration = "invite"
admins = ["Admin@Example.org"]
[domain.contact]
abuse = ["mailto:abuse@example.org", "xmpp:abuse@example.org"]
[[domain]]
name = "chat.test"

[listen]
c2s = [":5222", "[::]:5222"]
c2s_tls = []

[storage]
driver = "postgres"
dsn = "host=/run/postgresql user=balcony password=hunter2"

[tls]
ca = ["extra-root.pem"]

[s2s]
dns = "127.0.0.1:53"
auth = "dialback"
bidi = false
blocked = ["Spam.example"]

[[s2s.peer]]
domain = "OLD.example"
auth = "dialback"
addresses = ["10.0.0.1:5269"]
direct_tls = true

[[component]]
name = "gateway.example.org"
secret = "hunter3"

[archive]
enabled = false
keep = "365d"

[limits]
client_rate = "1MiB"
stanza = "off"
resources = "off"
depth = 100
idle = "90s"

[log]
level = "debug"
format = "json"
`

func TestLoadReadsEveryTableAndResolvesPaths(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.toml")
	if err := os.WriteFile(path, []byte(full), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Path, want.Data = path, filepath.Join(dir, "data")
	want.Domains = []Domain{
		{Name: "example.org", Certificate: filepath.Join(dir, "fullchain.pem"), Key: "/etc/privkey.pem", Registration: Invite, Admins: []string{"admin@example.org"},
			Contact: Contact{Abuse: []string{"mailto:abuse@example.org", "xmpp:abuse@example.org"}}},
		{Name: "chat.test", Registration: Closed},
	}
	want.Listen.C2S, want.Listen.C2STLS = []string{":5222", "[::]:5222"}, []string{}
	want.Storage = Storage{Driver: Postgres, DSN: "host=/run/postgresql user=balcony password=hunter2"}
	want.TLS.CA = []string{filepath.Join(dir, "extra-root.pem")}
	want.S2S = S2S{DNS: "127.0.0.1:53", Auth: AuthDialback, Blocked: []string{"spam.example"},
		Peers: []Peer{{Domain: "old.example", Auth: AuthDialback, Addresses: []string{"10.0.0.1:5269"}, DirectTLS: true}}}
	want.Components = []Component{{Name: "gateway.example.org", Secret: "hunter3"}}
	want.Archive = Archive{Keep: Duration(365 * 24 * time.Hour)}
	want.Limits.ClientRate, want.Limits.Stanza, want.Limits.Resources, want.Limits.Depth = 1<<20, Off, Off, 100
	want.Limits.Idle = Duration(90 * time.Second)
	want.Log = Log{Level: "debug", Format: "json"}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Error(diff)
	}
}

// What a domain does not say is that of [archive].
func TestRetention(t *testing.T) {
	c, err := read("b.toml", []byte("[archive]\nkeep = \"365d\"\nmessages = 1000\n[[domain]]\nname = \"a.test\"\n"+
		"[[domain]]\nname = \"b.test\"\narchive_keep = \"30d\"\n[[domain]]\nname = \"c.test\"\narchive_keep = \"0\"\narchive_messages = 0\n"))
	if err != nil {
		t.Fatal(err)
	}
	const day = Duration(24 * time.Hour)
	for i, want := range []struct {
		keep     Duration
		messages Count
	}{{365 * day, 1000}, {30 * day, 1000}, {0, 0}} {
		if keep, messages := c.Retention(c.Domains[i]); keep != want.keep || messages != want.messages {
			t.Errorf("%s keeps %v and %v messages, want %v", c.Domains[i].Name, keep, messages, want)
		}
	}
}

// The archive of a domain is on or off by itself, or as in [archive].
func TestArchives(t *testing.T) {
	for _, server := range []bool{true, false} {
		c, err := read("b.toml", fmt.Appendf(nil, "[archive]\nenabled = %t\n[[domain]]\nname = \"a.test\"\n[[domain]]\nname = \"b.test\"\narchive = true\n"+
			"[[domain]]\nname = \"c.test\"\narchive = false\n", server))
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []bool{server, true, false} {
			if got := c.Archives(c.Domains[i]); got != want {
				t.Errorf("[archive] %t: %s is %t", server, c.Domains[i].Name, got)
			}
		}
	}
}

// What has no archive has no search, whatever stands there.
func TestSearches(t *testing.T) {
	for _, server := range []bool{true, false} {
		c, err := read("b.toml", fmt.Appendf(nil, "[archive]\nsearch = %t\n[[domain]]\nname = \"a.test\"\n[[domain]]\nname = \"b.test\"\narchive_search = true\n"+
			"[[domain]]\nname = \"c.test\"\narchive_search = false\n[[domain]]\nname = \"d.test\"\narchive = false\narchive_search = true\n", server))
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []bool{server, true, false, false} {
			if got := c.Searches(c.Domains[i]); got != want {
				t.Errorf("[archive] %t: %s is %t", server, c.Domains[i].Name, got)
			}
		}
	}
}

func TestLoadWithoutFile(t *testing.T) {
	t.Chdir(t.TempDir())
	c, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), c, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Error(diff)
	}
	if _, err := Load("missing.toml"); err == nil {
		t.Error("a named file that is missing is no error")
	}
	if err := os.WriteFile(DefaultPath, []byte("data = \"elsewhere\""), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(""); err != nil || c.Data != "elsewhere" || c.Path != DefaultPath {
		t.Errorf("./balcony.toml was not read: %v, %v", c, err)
	}
}

func TestPrintedConfigurationReadsBackAndHidesSecrets(t *testing.T) {
	c, err := read("/etc/balcony.toml", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := c.Print(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "hunter") {
		t.Errorf("a secret was printed:\n%s", &b)
	}
	// A masked secret is not a secret: give them back before reading.
	text := strings.ReplaceAll(b.String(), "secret = \"***\"", "secret = \"hunter3\"")
	text = strings.ReplaceAll(text, "password=***", "password=hunter2")
	again, err := read("/etc/balcony.toml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if diff := cmp.Diff(c, again, cmpopts.IgnoreUnexported(Config{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s\n%s", diff, text)
	}
}

func TestPrintQuotesStrings(t *testing.T) {
	c := Default()
	c.Data = "/a\"b\\c\n\x7f<é"
	var b strings.Builder
	if err := c.Print(&b); err != nil {
		t.Fatal(err)
	}
	again, err := read("", []byte(b.String()))
	if err != nil || again.Data != c.Data {
		t.Errorf("%q read back as %q, %v", c.Data, again.Data, err)
	}
}

func TestMaskDSN(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"/var/lib/balcony/balcony.db", "/var/lib/balcony/balcony.db"},
		{"postgres://u:hunter2@h/db?sslmode=disable", "postgres://u:***@h/db?sslmode=disable"},
		{"postgres://u@h/db", "postgres://u@h/db"},
		{"postgres://h/db?password=hunter2", "postgres://h/db?password=***"},
		{"postgres://u:hunter2%zz@h/db", "***"},
		{"host=h password=hunter2 dbname=d", "host=h password=*** dbname=d"},
		{`host=h password = 'hunter2 \' hunter2' dbname=d`, "host=h password = *** dbname=d"},
		{"host=h sslpassword=hunter2", "host=h sslpassword=***"},
	} {
		if got := MaskDSN(tt.in); got != tt.want {
			t.Errorf("MaskDSN(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestDefaultIsValidAndComplete(t *testing.T) {
	c := Default()
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	// Design: each limit has a default.
	limits := reflect.ValueOf(c.Limits)
	for i := range limits.NumField() {
		if limits.Field(i).Int() <= 0 {
			t.Errorf("limit %s has no default", limits.Type().Field(i).Name)
		}
	}
	for i := range reflect.TypeFor[Listen]().NumField() {
		for _, a := range reflect.ValueOf(c.Listen).Field(i).Interface().([]string) { // nobody is a proxy
			if !strings.HasPrefix(a, "127.0.0.1:") {
				t.Errorf("default listener %s is not loopback", a)
			}
		}
	}
}
