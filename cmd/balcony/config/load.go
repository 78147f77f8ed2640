package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"mellium.im/xmpp/jid"
)

// DefaultPath is the file that is read when none is named, if it is there.
const DefaultPath = "balcony.toml"

// Load reads and validates a configuration file. For an empty path it is DefaultPath if that exists, else the defaults. Unknown keys,
// values of a wrong type and values that make no sense are all reported at once: the error joins an *Error for each, in the order of
// their lines.
func Load(path string) (*Config, error) {
	name := path
	if name == "" {
		name = DefaultPath
	}
	text, err := os.ReadFile(name)
	if path == "" && errors.Is(err, fs.ErrNotExist) {
		c := Default()
		return c, c.Validate()
	}
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return read(name, text)
}

func read(name string, text []byte) (*Config, error) {
	values, lines, bad := parse(name, text)
	if bad != nil {
		return nil, bad
	}
	c := Default()
	c.Path, c.lines = name, lines
	d := decoder{c: c}
	d.table("", reflect.ValueOf(c).Elem(), values)
	c.resolvePaths()
	if err := join(append(d.errs, c.problems()...)); err != nil {
		return nil, err
	}
	return c, nil
}

// resolvePaths makes relative paths relative to the folder of the file.
func (c *Config) resolvePaths() {
	resolve := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(c.Path), *p)
		}
	}
	resolve(&c.Data)
	for i := range c.Domains {
		resolve(&c.Domains[i].Certificate)
		resolve(&c.Domains[i].Key)
	}
	for i := range c.TLS.CA {
		resolve(&c.TLS.CA[i])
	}
	if c.Storage.Driver == SQLite && c.Storage.DSN != ":memory:" {
		resolve(&c.Storage.DSN)
	}
}

// Errorf makes an Error about the value of a key such as "domain[0].certificate", with its place in the file.
func (c *Config) Errorf(key, format string, args ...any) error { return c.errorf(key, format, args...) }

func (c *Config) errorf(key, format string, args ...any) *Error {
	e := &Error{File: c.Path, Key: key, Message: fmt.Sprintf(format, args...)}
	// A key that is missing is reported where the table around it begins.
	for ok := false; !ok && key != ""; key = parent(key) {
		e.Line, ok = c.lines[key]
	}
	return e
}

// parent is the key around a key: "domain[0]" for "domain[0].name", "domain" for "domain[0]".
func parent(key string) string { return key[:max(0, strings.LastIndexAny(key, ".["))] }

// Validate reports every value that makes no sense. It opens no file and no connection.
func (c *Config) Validate() error { return join(c.problems()) }

func (c *Config) problems() []*Error {
	v := validator{c: c}
	if c.Data == "" {
		v.fail("data", "data must name a folder")
	}
	v.domains()
	v.listen()
	v.oneOf("storage.driver", c.Storage.Driver, SQLite, Postgres)
	if c.Storage.Driver == SQLite && strings.ContainsAny(c.Storage.DSN, ":?") && c.Storage.DSN != ":memory:" {
		v.fail("storage.dsn", "storage.dsn: with sqlite it is the path of a file, without : and ?")
	}
	v.s2s()
	v.components()
	v.services()
	v.web()
	if c.Archive.Keep == Off {
		v.fail("archive.keep", `archive.keep: write "0" to keep messages for ever`)
	}
	for i, d := range c.Domains {
		key := fmt.Sprintf("domain[%d].archive", i)
		if !d.Archive.isBool() {
			v.fail(key, "%s must be true or false", key)
		}
		key += "_"
		if !d.ArchiveSearch.isBool() {
			v.fail(key+"search", "%ssearch must be true or false", key)
		}
		if keep, err := d.ArchiveKeep.duration(); d.ArchiveKeep != "" && (err != nil || keep == Off) {
			v.fail(key+"keep", `%skeep: write a time such as "30d", or "0" to keep messages for ever`, key)
		}
		if n, err := d.ArchiveMessages.count(); d.ArchiveMessages != "" && (err != nil || n == Off) {
			v.fail(key+"messages", "%smessages: write a number, or 0 for all", key)
		}
	}
	v.upload()
	v.limits()
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", c.Log.Format, "text", "json")
	return v.errs
}

type validator struct {
	c    *Config
	errs []*Error
}

func (v *validator) fail(key, format string, args ...any) {
	v.errs = append(v.errs, v.c.errorf(key, format, args...))
}

func (v *validator) oneOf(key, value string, allowed ...string) {
	if slices.Contains(allowed, value) {
		return
	}
	hint := ""
	for _, a := range allowed {
		if distance(value, a) <= 2 {
			hint = fmt.Sprintf(": did you mean %q?", a)
			break
		}
	}
	v.fail(key, "%s must be one of %s, not %q%s", key, strings.Join(allowed, ", "), value, hint)
}

// domainpart puts a domain name into its canonical form (RFC 7622 §3.2); false if it is none.
func (v *validator) domainpart(key string, name *string) bool {
	j, err := jid.Parse(*name)
	switch {
	case *name == "":
		v.fail(key, "%s is missing", key)
	case err != nil || j.Localpart() != "" || j.Resourcepart() != "":
		v.fail(key, "%s: %q is not a domain name", key, *name)
	default:
		*name = j.Domainpart()
		return true
	}
	return false
}

func (v *validator) domains() {
	c := v.c
	if len(c.Domains) == 0 {
		v.fail("domain", "there must be a [[domain]]")
	}
	served := make(map[string]bool)
	for i := range c.Domains {
		d, path := &c.Domains[i], fmt.Sprintf("domain[%d]", i)
		named := v.domainpart(path+".name", &d.Name)
		if served[d.Name] && d.Name != "" {
			v.fail(path+".name", "%s.name: %q is there twice", path, d.Name)
		}
		served[d.Name] = true
		switch {
		case d.Certificate == "" && d.Key != "":
			v.fail(path+".key", "%s has a key but no certificate", path)
		case d.Certificate != "" && d.Key == "":
			v.fail(path+".certificate", "%s has a certificate but no key", path)
		case d.Certificate == "" && named && !SelfSigned(d.Name):
			v.fail(path+".certificate", "%s: %q needs a certificate: set certificate and key to PEM files (a self-signed one is made only for "+
				"localhost, *.localhost and *.test)", path, d.Name)
		}
		v.oneOf(path+".registration", d.Registration, Closed, Invite, Open)
		v.contact(path+".contact", d.Contact)
		v.uri(path+".url", d.URL, "https", "http")
		d.URL = strings.TrimSuffix(d.URL, "/")
		v.uri(path+".websocket_moved", d.WebSocketMoved, "wss", "https")
		for k, a := range d.Addresses {
			if _, err := netip.ParseAddr(a); err != nil {
				v.fail(fmt.Sprintf("%s.addresses[%d]", path, k), "%s.addresses: %q is not an IP address", path, a)
			}
		}
	}
	for i := range c.Domains {
		for k, admin := range c.Domains[i].Admins {
			key := fmt.Sprintf("domain[%d].admins[%d]", i, k)
			j, err := jid.Parse(admin)
			switch {
			case err != nil || j.Localpart() == "" || j.Resourcepart() != "":
				v.fail(key, "%s: %q is not a bare JID such as \"admin@example.org\"", key, admin)
			case !served[j.Domainpart()]:
				v.fail(key, "%s: %q is not an account of a domain of this server", key, admin)
			default:
				c.Domains[i].Admins[k] = j.String()
			}
		}
	}
}

// SelfSigned reports whether a domain without a configured certificate gets a self-signed one: names that mean this machine or nothing
// (RFC 6761 §6.2, §6.3).
func SelfSigned(domain string) bool {
	return domain == "localhost" || strings.HasSuffix(domain, ".localhost") || strings.HasSuffix(domain, ".test")
}

func (v *validator) contact(path string, contact Contact) {
	t := reflect.ValueOf(contact)
	for key, i := range fieldsOf(t.Type()) {
		for k, uri := range t.Field(i).Interface().([]string) {
			// XEP-0157 §3: the values are URIs.
			if u, err := url.Parse(uri); err != nil || u.Scheme == "" {
				key := fmt.Sprintf("%s.%s[%d]", path, key, k)
				v.fail(key, "%s: %q is not a URI such as \"mailto:abuse@example.org\"", key, uri)
			}
		}
	}
}

// uri checks an address with a host, empty for none.
func (v *validator) uri(key, value string, schemes ...string) {
	if value == "" {
		return
	}
	u, err := url.Parse(value)
	if err != nil || !slices.Contains(schemes, u.Scheme) || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		v.fail(key, "%s: %q is not an address such as \"%s://chat.example.org\"", key, value, schemes[0])
	}
}

func (v *validator) web() {
	w := v.c.Web
	v.networks("web.proxies", w.Proxies)
	v.networks("web.metrics", w.Metrics)
	for k, o := range w.Origins {
		u, err := url.Parse(o)
		// RFC 6454 §6.2: a scheme and a host, nothing else.
		if o != "*" && (err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil) {
			key := fmt.Sprintf("web.origins[%d]", k)
			v.fail(key, "%s: %q is not an origin such as \"https://chat.example.org\"", key, o)
		}
	}
}

// networks checks a list of addresses and networks.
func (v *validator) networks(list string, networks []string) {
	for k, n := range networks {
		if _, err := Network(n); err != nil {
			key := fmt.Sprintf("%s[%d]", list, k)
			v.fail(key, "%s: %q is not an address or network such as \"192.0.2.1\" or \"192.0.2.0/24\"", key, n)
		}
	}
}

// Network is an address, or a network as address/bits.
func Network(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("read network: %w", err)
	}
	return p.Masked(), nil
}

func (v *validator) listen() {
	v.networks("listen.proxies", v.c.Listen.Proxies)
	taken := make(map[string]string)
	t := reflect.ValueOf(v.c.Listen)
	for i := range t.NumField() {
		name := t.Type().Field(i).Tag.Get("toml")
		if name == "proxies" {
			continue
		}
		for k, address := range t.Field(i).Interface().([]string) {
			key := fmt.Sprintf("listen.%s[%d]", name, k)
			if !v.address(key, address, 0) || strings.HasSuffix(address, ":0") {
				continue
			}
			if other, ok := taken[address]; ok {
				v.fail(key, "%s: %s is already used by %s", key, address, other)
			}
			taken[address] = key
		}
	}
}

// address checks a host:port with a port from least to 65535.
func (v *validator) address(key, address string, least int) bool {
	_, port, err := net.SplitHostPort(address)
	n, perr := strconv.Atoi(port)
	if err != nil || perr != nil || n < least || n > 65535 {
		v.fail(key, "%s: %q is not an address such as \"127.0.0.1:5222\"", key, address)
		return false
	}
	return true
}

func (v *validator) s2s() {
	c := &v.c.S2S
	if c.DNS != "" {
		v.address("s2s.dns", c.DNS, 1)
	}
	v.oneOf("s2s.auth", c.Auth, AuthCertificate, AuthDialback)
	for _, list := range []struct {
		key     string
		domains []string
	}{{"s2s.blocked", c.Blocked}, {"s2s.allowed", c.Allowed}} {
		for i := range list.domains {
			v.domainpart(fmt.Sprintf("%s[%d]", list.key, i), &list.domains[i])
		}
	}
	taken := make(map[string]bool)
	for i := range c.Peers {
		p, path := &c.Peers[i], fmt.Sprintf("s2s.peer[%d]", i)
		if v.domainpart(path+".domain", &p.Domain) && taken[p.Domain] {
			v.fail(path+".domain", "%s.domain: %q is there twice", path, p.Domain)
		}
		taken[p.Domain] = true
		if p.Auth != "" {
			v.oneOf(path+".auth", p.Auth, AuthCertificate, AuthDialback)
		}
		for k, a := range p.Addresses {
			v.address(fmt.Sprintf("%s.addresses[%d]", path, k), a, 1)
		}
	}
}

func (v *validator) components() {
	taken := make(map[string]string)
	for _, d := range v.c.Domains {
		taken[d.Name] = "a domain of this server"
	}
	for i := range v.c.Components {
		p, path := &v.c.Components[i], fmt.Sprintf("component[%d]", i)
		v.domainpart(path+".name", &p.Name)
		if other, ok := taken[p.Name]; ok && p.Name != "" {
			v.fail(path+".name", "%s.name: %q is already %s", path, p.Name, other)
		}
		taken[p.Name] = "another component"
		switch {
		case p.Secret == "":
			v.fail(path+".secret", "%s.secret is missing", path)
		case slices.Contains([]string{"…", "...", "secret", "password", "changeme", Masked}, strings.ToLower(p.Secret)):
			v.fail(path+".secret", "%s.secret is an example: make one of your own", path)
		}
	}
}

func (v *validator) services() {
	for i, s := range v.c.Services {
		path := fmt.Sprintf("service[%d]", i)
		if s.Type == "" || strings.ContainsAny(s.Type, " :/") {
			v.fail(path+".type", "%s.type: %q is no type such as \"turn\"", path, s.Type)
		}
		if s.Host == "" || strings.ContainsAny(s.Host, " /@[]") {
			v.fail(path+".host", "%s.host: %q is no domain name and no IP address", path, s.Host)
		}
		if s.Port < 0 || s.Port > 65535 {
			v.fail(path+".port", "%s.port must be at most 65535", path)
		}
		v.oneOf(path+".transport", s.Transport, "udp", "tcp")
		switch {
		case s.Secret != "" && (s.Username != "" || s.Password != ""):
			v.fail(path+".secret", "%s has a secret and a username or password: the secret makes them", path)
		case s.Username == "" && s.Password != "":
			v.fail(path+".password", "%s has a password but no username", path)
		case s.Secret != "" && s.Lifetime < Duration(time.Minute):
			v.fail(path+".lifetime", "%s.lifetime must be at least 1m", path)
		}
	}
}

func (v *validator) upload() {
	u := v.c.Upload
	for _, b := range []struct {
		key string
		n   Bytes
	}{{"upload.max_size", u.MaxSize}, {"upload.quota", u.Quota}} {
		if b.n == 0 {
			v.fail(b.key, "%s must be more than 0; \"off\" means no limit", b.key)
		}
	}
	if u.Keep == Off {
		v.fail("upload.keep", `upload.keep: write "0" to keep files for ever`)
	}
}

// least holds the limits that may not be as small as one.
var least = map[string]int64{
	"limits.stanza":       10000, // RFC 6120 §13.12: not smaller than 10000 bytes
	"limits.login_stanza": 4096,  // chosen: a SCRAM message with channel binding in base64 fits with room to spare
	"limits.depth":        10,    // chosen: a forwarded message in a carbon with a form is eight deep
	"limits.attributes":   10,    // chosen: namespace declarations count too
}

func (v *validator) limits() {
	t := reflect.ValueOf(v.c.Limits)
	for i := range t.NumField() {
		key := "limits." + t.Type().Field(i).Tag.Get("toml")
		n := t.Field(i).Int()
		switch lowest := max(1, least[key]); {
		case n == Off || n >= lowest:
		case n <= 0:
			v.fail(key, "%s must be more than 0; \"off\" means no limit", key)
		default:
			v.fail(key, "%s must be at least %d", key, lowest)
		}
	}
}
