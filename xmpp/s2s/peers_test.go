package s2s_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"balcony/xmpp/s2s/s2stest"
	"balcony/xmpp/xmpptest"

	"mellium.im/sasl"
)

// peer is a server of others that runs as a process, with two domains: one has a certificate of the authority, the other a self-signed one.
type peer struct {
	*xmpptest.Server // its clients' port

	name    string // of the software
	trusted string // the domain with a valid certificate
	other   string // the domain that can only be proven by dialback
	s2s     *net.TCPAddr
	direct  *net.TCPAddr

	t     *testing.T
	dir   string
	argv  []string
	env   []string
	c2s   *net.TCPAddr
	marks bool       // it makes a file when it is ready
	cmd   **exec.Cmd // the process, nil while it does not run; shared by the subtests
}

// recipe says how a peer is set up.
type recipe struct {
	name  string
	host  string // a loopback address of its own
	write func(p *peer, w *world, certs map[string][2]string)
}

var prosody = recipe{"prosody", "127.0.0.2", writeProsody}
var ejabberd = recipe{"ejabberd", "127.0.0.3", writeEjabberd}

// startPeer starts a server in its own folder, with romeo and juliet on both domains.
func (w *world) startPeer(r recipe) *peer {
	t := w.t
	t.Helper()
	dir, err := os.MkdirTemp("", r.name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &peer{name: r.name, trusted: r.name + ".test", other: "other-" + r.name + ".test", t: t, dir: dir, cmd: new(*exec.Cmd),
		s2s: free(t, r.host), direct: free(t, r.host), c2s: free(t, r.host)}
	p.Server = xmpptest.Foreign(t, p.c2s)
	certs := make(map[string][2]string)
	cert, key := w.ca.Files(p.trusted)
	certs[p.trusted] = [2]string{cert, key}
	cert, key = s2stest.NewCA(t).Files(p.other)
	certs[p.other] = [2]string{cert, key}
	r.write(p, w, certs)
	p.own()
	p.start()
	t.Cleanup(p.kill)
	return p
}

// free is an address that nobody listens on.
func free(t *testing.T, host string) *net.TCPAddr {
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return l.Addr().(*net.TCPAddr)
}

func (p *peer) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// copy puts a file that only this process may read into the peer's folder.
func (p *peer) copy(path, as string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(as, string(b))
	return filepath.Join(p.dir, as)
}

// nobody is whom the servers run as: they refuse root.
func nobody(t *testing.T) *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (p *peer) own() {
	c := nobody(p.t)
	if c == nil {
		return
	}
	err := filepath.WalkDir(p.dir, func(name string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(name, int(c.Uid), int(c.Gid))
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

// start runs the server and waits until it listens.
func (p *peer) start() {
	p.t.Helper()
	_ = os.Remove(filepath.Join(p.dir, "ready"))
	out, err := os.OpenFile(filepath.Join(p.dir, "output"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	*p.cmd = cmd
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, out, out
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, "LANG=C.UTF-8"}, p.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: nobody(p.t)}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(p.dir, "ready")); p.marks && err != nil {
			if time.Now().Before(end) && p.alive() {
				continue
			}
			p.t.Fatalf("%s does not start\n%s", p.name, p.log())
		}
		c, err := net.Dial("tcp", p.c2s.String())
		if err == nil {
			_ = c.Close()
			if c, err = net.Dial("tcp", p.direct.String()); err == nil {
				_ = c.Close()
				return
			}
		}
		if time.Now().After(end) || !p.alive() {
			p.t.Fatalf("%s does not listen\n%s", p.name, p.log())
		}
	}
}

// alive reports whether the process has not ended by itself.
func (p *peer) alive() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", (*p.cmd).Process.Pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z ")) // proc(5): it waits for its parent
}

// in makes a subtest the one that the peer's clients belong to.
func (p *peer) in(t *testing.T) *peer {
	one := *p
	one.t, one.Server = t, xmpptest.Foreign(t, p.c2s)
	return &one
}

// kill ends the server as a crash does.
func (p *peer) kill() {
	if *p.cmd != nil {
		_ = syscall.Kill(-(*p.cmd).Process.Pid, syscall.SIGKILL) // its group
		_ = (*p.cmd).Wait()
		*p.cmd = nil
	}
	if p.t.Failed() {
		p.t.Logf("log of %s:\n%s", p.name, p.log())
	}
}

func (p *peer) log() string {
	var all []byte
	files, _ := filepath.Glob(filepath.Join(p.dir, "*.log"))
	for _, f := range append(files, filepath.Join(p.dir, "output")) {
		b, _ := os.ReadFile(f)
		all = append(all, b...)
	}
	lines := bytes.Split(all, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-120):], []byte("\n")))
}

// login takes a client to a bound session of the peer.
func (p *peer) login(local, domain, resource string) *xmpptest.Client {
	p.t.Helper()
	c := p.Dial()
	c.Open(domain)
	c.StartTLS(nil)
	c.Open(domain)
	if err := c.Authenticate(sasl.ScramSha1, local, local); err != nil {
		p.t.Fatalf("log in to %s: %v\n%s", p.name, err, p.log())
	}
	c.Open(domain)
	c.Bind(resource)
	return c
}

// found puts the domains of the peer into DNS.
func (p *peer) found(d *s2stest.DNS, direct bool) {
	for _, domain := range []string{p.trusted, p.other} {
		for _, service := range []string{"xmpp-server", "xmpps-server"} {
			d.Remove("_" + service + "._tcp." + domain)
		}
		if direct {
			d.SRV(domain, "xmpps-server", "xmpp."+domain, p.direct.Port, 10, 0)
		} else {
			d.SRV(domain, "xmpp-server", "xmpp."+domain, p.s2s.Port, 10, 0)
		}
		d.Remove("xmpp." + domain)
		d.Host("xmpp."+domain, p.s2s.IP.String())
	}
}

func writeProsody(p *peer, w *world, certs map[string][2]string) {
	// Debian's Prosody asks the servers of resolv.conf, on port 53: this sends it to the test's.
	host, port, _ := net.SplitHostPort(w.dns.Addr)
	p.write("modules/mod_resolver.lua", fmt.Sprintf(`module:set_global();
local methods = getmetatable(require "socket".udp()).__index;
local connect = methods.setpeername;
methods.setpeername = function (self, ip, port)
	if port == 53 then ip, port = %q, %s; end
	return connect(self, ip, port);
end
`, host, port))
	ca := p.copy(w.ca.File, "ca.pem")
	hosts := ""
	for _, domain := range []string{p.trusted, p.other} {
		cert, key := p.copy(certs[domain][0], domain+".crt"), p.copy(certs[domain][1], domain+".key")
		hosts += fmt.Sprintf("VirtualHost %q\n\tssl = { certificate = %q; key = %q; cafile = %q; }\n", domain, cert, key, ca)
		for _, account := range []string{"romeo", "juliet"} {
			folder := strings.NewReplacer("-", "%2d", ".", "%2e").Replace(domain)
			p.write("data/"+folder+"/accounts/"+account+".dat", fmt.Sprintf("return { [\"password\"] = %q; };\n", account))
		}
	}
	p.write("prosody.cfg.lua", fmt.Sprintf(`
interfaces = { %[2]q }
plugin_paths = { "%[1]s/modules" }
data_path = "%[1]s/data"
pidfile = "%[1]s/prosody.pid"
log = { debug = "%[1]s/prosody.log" }
modules_enabled = { "resolver", "disco", "roster", "saslauth", "tls", "dialback", "ping", "vcard", "pep", "mam", "carbons", "smacks", "s2s_bidi", "posix" }
modules_disabled = { "admin_telnet" }
c2s_ports = { %[3]d }
c2s_direct_tls_ports = { }
s2s_ports = { %[4]d }
s2s_direct_tls_ports = { %[5]d }
s2s_secure_auth = false
s2s_require_encryption = true
authentication = "internal_plain"
ssl = { certificate = "%[1]s/%[6]s.crt"; key = "%[1]s/%[6]s.key"; cafile = "%[1]s/ca.pem"; }
%[7]s`, p.dir, p.c2s.IP, p.c2s.Port, p.s2s.Port, p.direct.Port, p.trusted, hosts))
	p.argv = []string{"/usr/bin/prosody", "--config", filepath.Join(p.dir, "prosody.cfg.lua"), "-F"}
}

func writeEjabberd(p *peer, w *world, certs map[string][2]string) {
	var files, accounts []string
	for _, domain := range []string{p.trusted, p.other} {
		for i, suffix := range []string{"crt", "key"} {
			files = append(files, "  - "+p.copy(certs[domain][i], domain+"."+suffix))
		}
		for _, a := range []string{"romeo", "juliet"} {
			accounts = append(accounts, fmt.Sprintf("ejabberd_auth:try_register(<<%q>>, <<%q>>, <<%q>>)", a, domain, a))
		}
	}
	p.write("ejabberd.yml", fmt.Sprintf(`
loglevel: info
log_rotate_count: 0
hosts:
  - %[1]s
  - %[2]s
certfiles:
%[3]s
ca_file: %[4]s
s2s_use_starttls: required
s2s_timeout: 20
s2s_dns_timeout: 2
auth_password_format: scram
listen:
  - {port: %[5]d, ip: %[8]q, module: ejabberd_c2s, starttls_required: true}
  - {port: %[6]d, ip: %[8]q, module: ejabberd_s2s_in}
  - {port: %[7]d, ip: %[8]q, module: ejabberd_s2s_in, tls: true}
acl: {local: {user_regexp: ""}}
modules:
  mod_caps: {}
  mod_carboncopy: {}
  mod_disco: {}
  mod_last: {}
  mod_mam: {default: always}
  mod_offline: {}
  mod_ping: {}
  mod_pubsub: {plugins: [flat, pep]}
  mod_roster: {versioning: true}
  mod_s2s_dialback: {}
  mod_stream_mgmt: {}
  mod_vcard: {search: false}
`, p.trusted, p.other, strings.Join(files, "\n"), p.copy(w.ca.File, "ca.pem"), p.c2s.Port, p.s2s.Port, p.direct.Port, p.c2s.IP.String()))
	libs, err := filepath.Glob("/usr/lib/*/ejabberd-*/ebin/ejabberd.beam")
	if err != nil || len(libs) == 0 {
		p.t.Fatalf("no ejabberd below /usr/lib: %v", err)
	}
	host, port, _ := net.SplitHostPort(w.dns.Addr)
	// Without a node name there is no distribution, and no epmd is started. Names are asked for at the test's server only.
	p.argv = []string{"/usr/bin/erl", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none", "-noinput",
		"-mnesia", "dir", `"` + filepath.Join(p.dir, "mnesia") + `"`,
		"-eval", fmt.Sprintf(`inet_db:set_lookup([file, dns]), inet_db:res_option(resolv_conf, ""), inet_db:res_option(nameservers, [{{%s}, %s}]), inet_db:res_option(timeout, 500), {ok, _} = ejabberd:start(), %s, file:write_file("ready", <<>>).`,
			strings.ReplaceAll(host, ".", ","), port, strings.Join(accounts, ", "))}
	p.marks = true
	p.env = []string{"ERL_LIBS=" + filepath.Dir(filepath.Dir(filepath.Dir(libs[0]))), "EJABBERD_CONFIG_PATH=" + filepath.Join(p.dir, "ejabberd.yml"),
		"EJABBERD_LOG_PATH=" + filepath.Join(p.dir, "ejabberd.log"), "ERL_CRASH_DUMP=/dev/null"}
}
