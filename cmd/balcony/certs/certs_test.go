package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"balcony/cmd/balcony/config"
)

// write makes a self-signed certificate for names in dir and returns the paths of its files.
func write(t *testing.T, dir, file string, notAfter time.Time, names ...string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, NotBefore: notAfter.AddDate(-1, 0, 0), NotAfter: notAfter}
	return store(t, dir, file, template, k.Public(), k)
}

func store(t *testing.T, dir, file string, template *x509.Certificate, public, private any) (cert, key string) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, file+".pem"), filepath.Join(dir, file+".key")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func configure(t *testing.T, domains ...string) *config.Config {
	t.Helper()
	c := config.Default()
	c.Data = t.TempDir()
	c.Domains = nil
	for _, d := range domains {
		c.Domains = append(c.Domains, config.Domain{Name: d, Registration: config.Closed})
	}
	return c
}

func load(t *testing.T, c *config.Config) *Set {
	t.Helper()
	s, err := Load(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// handshake connects a client to a server and returns what each of them saw.
func handshake(t *testing.T, server, client *tls.Config) (state tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	a, b := net.Pipe()
	s, c := tls.Server(a, server), tls.Client(b, client)
	done := make(chan error)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x")) // carries the session ticket of TLS 1.3 to the client
		}
		_ = a.Close()
		done <- err
	}()
	clientErr = c.Handshake()
	if clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	_ = b.Close()
	return c.ConnectionState(), clientErr, <-done
}

func shown(t *testing.T, server *tls.Config, sni string) string {
	t.Helper()
	state, err, _ := handshake(t, server, &tls.Config{ServerName: sni, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	return state.PeerCertificates[0].Subject.CommonName
}

func TestHandshakeShowsTheCertificateOfItsDomain(t *testing.T) {
	s := load(t, configure(t, "first.test", "second.test", "bücher.test"))
	for _, tt := range []struct{ domain, sni, want string }{
		// Direct TLS: the name in the handshake decides; the first domain is the default.
		{"", "first.test", "first.test"},
		{"", "second.test", "second.test"},
		{"", "SECOND.test", "second.test"},
		{"", "xn--bcher-kva.test", "xn--bcher-kva.test"},
		{"", "conference.second.test", "second.test"},
		{"", "unknown.org", "first.test"},
		{"", "", "first.test"},
		// STARTTLS: the to address of the stream decides (RFC 6120 §5.4.3.1), whatever the handshake says.
		{"second.test", "", "second.test"},
		{"second.test", "first.test", "second.test"},
		{"bücher.test", "", "xn--bcher-kva.test"},
		{"unknown.org", "", "first.test"},
	} {
		if got := shown(t, s.ServerConfig(tt.domain), tt.sni); got != tt.want {
			t.Errorf("stream to %q, handshake for %q: certificate of %s, want %s", tt.domain, tt.sni, got, tt.want)
		}
		name := tt.domain
		if name == "" {
			name = tt.sni
		}
		if got := s.Leaf(name).Subject.CommonName; got != tt.want {
			t.Errorf("Leaf(%q) is the certificate of %s, want %s", name, got, tt.want)
		}
	}
	if c, err := s.GetCertificate(&tls.ClientHelloInfo{ServerName: "second.test"}); err != nil || c.Leaf.Subject.CommonName != "second.test" {
		t.Errorf("GetCertificate: %v", err)
	}
}

func TestSelfSignedCertificateVerifiesWhenTrusted(t *testing.T) {
	c := configure(t, "localhost")
	s := load(t, c)
	text, err := os.ReadFile(filepath.Join(c.Data, "certificates", "localhost.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "conference.localhost"} {
		if _, err, _ := handshake(t, s.ServerConfig(""), &tls.Config{ServerName: name, RootCAs: roots}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if k, ok := s.Leaf("").PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		t.Error("the key is not ECDSA P-256")
	}
}

func TestProtocolVersionsAndSuites(t *testing.T) {
	s := load(t, configure(t, "localhost"))
	server := s.ServerConfig("")
	for _, tt := range []struct {
		name   string
		client *tls.Config
		ok     bool
	}{
		{"TLS 1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		{"TLS 1.2 CBC", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, false},
		{"TLS 1.2 AEAD", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}, true},
		{"TLS 1.3", &tls.Config{MinVersion: tls.VersionTLS13}, true},
	} {
		tt.client.InsecureSkipVerify = true
		if _, err, _ := handshake(t, server, tt.client); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	for _, id := range server.CipherSuites {
		if name := tls.CipherSuiteName(id); !strings.Contains(name, "ECDHE") || !strings.Contains(name, "GCM") && !strings.Contains(name, "POLY1305") {
			t.Errorf("suite %s has no forward secrecy or no AEAD", name)
		}
	}
}

func TestALPN(t *testing.T) {
	s := load(t, configure(t, "localhost"))
	server := s.ServerConfig("", "xmpp-client")
	for _, tt := range []struct {
		offered []string
		ok      bool
	}{{nil, true}, {[]string{"xmpp-client"}, true}, {[]string{"h2", "xmpp-client"}, true}, {[]string{"h2"}, false}, {[]string{"xmpp-server"}, false}} {
		_, err, _ := handshake(t, server, &tls.Config{InsecureSkipVerify: true, NextProtos: tt.offered})
		if (err == nil) != tt.ok {
			t.Errorf("offered %v: %v", tt.offered, err) // XEP-0368 §3: the protocol is xmpp-client
		}
	}
}

func TestConfigsAreSharedUntilReloadAndBounded(t *testing.T) {
	c := configure(t, "localhost")
	s := load(t, c)
	a := s.ServerConfig("localhost", "xmpp-client")
	if s.ServerConfig("LOCALHOST", "xmpp-client") != a || s.ServerConfig("localhost") == a {
		t.Error("one config per domain and protocol is wanted")
	}
	for _, name := range []string{"a.org", "b.org", "c.localhost"} {
		s.ServerConfig(name)
	}
	if n := len(s.current.configs); n != 2 {
		t.Errorf("%d configs are kept: names that a peer makes up fill the map", n)
	}
	// A session ticket is good until the certificates are loaded anew: what it proves must be the certificate in use.
	client := &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	resumed := func() bool {
		state, err, _ := handshake(t, s.ServerConfig("localhost"), client)
		if err != nil {
			t.Fatal(err)
		}
		return state.DidResume
	}
	if resumed() || !resumed() {
		t.Error("the second handshake does not resume the first")
	}
	if err := s.Reload(c); err != nil {
		t.Fatal(err)
	}
	if resumed() {
		t.Error("a session was resumed after a reload")
	}
}

func TestSelfSignedCertificateIsKeptAndRenewed(t *testing.T) {
	data := t.TempDir()
	now := time.Now()
	at := func(now time.Time) string {
		t.Helper()
		c, err := selfSigned(data, "localhost", now, true)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.SerialNumber.String()
	}
	first := at(now)
	dir := filepath.Join(data, "certificates")
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "localhost.key"): 0o600, filepath.Join(dir, "localhost.crt"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", path, info.Mode().Perm(), err, want)
		}
	}
	if again := at(now); again != first {
		t.Error("a new certificate at each start")
	}
	if at(now.Add(validity-renewal-24*time.Hour)) != first {
		t.Error("renewed too early")
	}
	second := at(now.Add(validity - renewal + 24*time.Hour))
	if second == first {
		t.Error("not renewed before it expires")
	}
	if at(now.Add(validity-renewal+48*time.Hour)) != second {
		t.Error("the renewed certificate was not kept")
	}
	// A damaged file, as a crash between the two files leaves it, is replaced.
	if err := os.WriteFile(filepath.Join(dir, "localhost.key"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if third := at(now); third == second {
		t.Error("a damaged key is still used")
	}
	// One that cannot be read is not.
	if err := os.Remove(filepath.Join(dir, "localhost.key")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "localhost.key"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := selfSigned(data, "localhost", now, true); err == nil {
		t.Error("a key file that cannot be read is no error")
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".new-*")); err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %v %v", left, err)
	}
}

func TestReloadIsAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	c := configure(t, "localhost", "example.org")
	c.Domains[1].Certificate, c.Domains[1].Key = write(t, dir, "a", time.Now().AddDate(0, 2, 0), "example.org")
	s := load(t, c)
	old := s.Leaf("example.org").SerialNumber

	bad := *c
	bad.Domains = append([]config.Domain(nil), c.Domains...)
	_, bad.Domains[1].Key = write(t, dir, "b", time.Now().AddDate(0, 2, 0), "example.org")
	if err := s.Reload(&bad); err == nil || s.Leaf("example.org").SerialNumber.Cmp(old) != 0 {
		t.Errorf("a key of another certificate: %v, and the old certificate is gone", err)
	}
	bad.Domains[1].Certificate = filepath.Join(dir, "b.pem")
	if err := s.Reload(&bad); err != nil || s.Leaf("example.org").SerialNumber.Cmp(old) == 0 {
		t.Errorf("the new certificate is not in use: %v", err)
	}
	if len(s.Warnings()) > 0 {
		t.Errorf("warnings: %v", s.Warnings())
	}
}

func TestProblemsAreReportedTogether(t *testing.T) {
	dir := t.TempDir()
	later := time.Now().AddDate(0, 2, 0)
	c := configure(t, "a.org", "b.org", "c.org", "d.org", "e.org")
	c.Domains[0].Certificate, c.Domains[0].Key = filepath.Join(dir, "missing.pem"), filepath.Join(dir, "missing.key")
	c.Domains[1].Certificate, c.Domains[1].Key = write(t, dir, "b", later, "c.org", "www.b.org")
	c.Domains[2].Certificate, c.Domains[2].Key = write(t, dir, "c", later, "c.org")
	if err := os.WriteFile(c.Domains[2].Key, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	c.Domains[3].Certificate, c.Domains[3].Key = store(t, dir, "d", &x509.Certificate{DNSNames: []string{"d.org"}, NotAfter: later}, weak.Public(), weak)
	c.TLS.CA = []string{filepath.Join(dir, "missing-ca.pem"), filepath.Join(dir, "c.key")}
	_, err = Load(c)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`certificate of "a.org": open `,
		`the certificate does not cover "b.org": `,
		`certificate and key of "c.org": tls: failed to find any PEM data in key input`,
		`the certificate of "d.org" has an RSA key of 1024 bits; it must have at least 2048`,
		`"e.org" needs a certificate: set certificate and key to PEM files`,
		`authority: open `,
		`authority: ` + filepath.Join(dir, "c.key") + ` has no certificate in PEM form`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing: %s\n%v", want, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	dir := t.TempDir()
	now := time.Now().UTC()
	c := configure(t, "a.org", "b.org", "c.org", "d.org")
	for i, notAfter := range []time.Time{now.AddDate(0, 0, -1), now.AddDate(0, 0, 7), now.AddDate(1, 0, 1), now.AddDate(0, 2, 0)} {
		d := &c.Domains[i]
		d.Certificate, d.Key = write(t, dir, d.Name, notAfter, d.Name)
	}
	if err := os.Chmod(c.Domains[3].Key, 0o644); err != nil {
		t.Fatal(err)
	}
	warnings, err := Check(c)
	if err != nil {
		t.Fatal(err)
	}
	day := func(years, days int) string { return now.AddDate(years, 0, days).Format(time.DateOnly) }
	want := []string{
		`the certificate of "a.org" expired on ` + day(0, -1),
		`the certificate of "b.org" expires on ` + day(0, 7),
		`the certificate of "c.org" is not valid before ` + now.AddDate(1, 0, 1).AddDate(-1, 0, 0).Format(time.DateOnly),
		`the key of "d.org" can be read by everybody: chmod 600 ` + c.Domains[3].Key,
	}
	if strings.Join(warnings, "\n") != strings.Join(want, "\n") {
		t.Errorf("warnings\n%s\nwant\n%s", strings.Join(warnings, "\n"), strings.Join(want, "\n"))
	}
}

func TestCheckWritesNothing(t *testing.T) {
	c := configure(t, "localhost")
	if _, err := Check(c); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(c.Data); err != nil || len(entries) > 0 {
		t.Errorf("Check left %v, %v", entries, err)
	}
}

func TestRootsHoldTheConfiguredAuthorities(t *testing.T) {
	dir := t.TempDir()
	c := configure(t, "localhost")
	ca, _ := write(t, dir, "ca", time.Now().AddDate(0, 1, 0), "peer.test")
	c.TLS.CA = []string{ca}
	s := load(t, c)
	text, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: s.Roots(), DNSName: "peer.test"}); err != nil {
		t.Error(err)
	}
}
