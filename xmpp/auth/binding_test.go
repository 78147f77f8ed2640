package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"slices"
	"testing"
	"time"
)

// newCertificate makes a self-signed certificate, whose signature is ECDSA with SHA-256 unless another is asked for.
func newCertificate(t testing.TB, algorithm ...x509.SignatureAlgorithm) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: testDomain},
		DNSNames:     []string{testDomain},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	var key any
	var public any
	if len(algorithm) > 0 && algorithm[0] == x509.PureEd25519 {
		pub, priv, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key, public = priv, pub
	} else {
		priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key, public = priv, &priv.PublicKey
	}
	if len(algorithm) > 0 {
		template.SignatureAlgorithm = algorithm[0]
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// connection is a TLS connection over loopback, as its two ends know it.
type connection struct {
	server Channel
	client tls.ConnectionState
	cert   []byte // that the client was shown
}

// exporter is RFC 9266 §2, on the client's side.
func (c connection) exporter(t testing.TB) []byte {
	t.Helper()
	data, err := c.client.ExportKeyingMaterial("EXPORTER-Channel-Binding", []byte{}, 32)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// connect makes a TLS connection of that version, and ends it with the test. cache resumes sessions.
func connect(t testing.TB, version uint16, cert tls.Certificate, cache ...tls.ClientSessionCache) connection {
	t.Helper()
	return connectTo(t, &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: version}, cert, cache...)
}

func connectTo(t testing.TB, config *tls.Config, cert tls.Certificate, cache ...tls.ClientSessionCache) connection {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan *tls.Conn, 1)
	go func() {
		defer close(accepted)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		s := tls.Server(conn, config)
		if s.Handshake() == nil {
			_, _ = s.Write([]byte("x")) // so that the client reads, and with it the session ticket of TLS 1.3
		}
		accepted <- s
	}()
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	cc := &tls.Config{ServerName: testDomain, RootCAs: roots}
	if len(cache) > 0 {
		cc.ClientSessionCache = cache[0]
	}
	c, err := tls.Dial("tcp", l.Addr().String(), cc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	s := <-accepted
	t.Cleanup(func() { s.Close() })
	state := s.ConnectionState()
	client := c.ConnectionState()
	return connection{server: Channel{TLS: &state, Cert: cert.Leaf}, client: client, cert: client.PeerCertificates[0].Raw}
}

// Real connections, both versions, all bindings, all hashes: promise 26.
func TestChannelBindings(t *testing.T) {
	a, _ := newTest(t)
	for version, want := range map[uint16][]string{
		tls.VersionTLS12: {"tls-exporter", "tls-unique", "tls-server-end-point"},
		tls.VersionTLS13: {"tls-exporter", "tls-server-end-point"},
	} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			cert := newCertificate(t)
			p := connect(t, version, cert)
			other := connect(t, version, cert)
			if p.client.Version != version {
				t.Fatalf("connected with %s", tls.VersionName(p.client.Version))
			}
			if got := a.ChannelBindings(p.server); !slices.Equal(got, want) {
				t.Fatalf("channel bindings %v, want %v", got, want)
			}
			endPoint := sha256.Sum256(p.cert)
			data := map[string][]byte{"tls-exporter": p.exporter(t), "tls-unique": p.client.TLSUnique, "tls-server-end-point": endPoint[:]}
			for _, name := range want {
				for _, h := range hashes {
					mechanism := h.name + "-PLUS"
					t.Run(mechanism+" "+name, func(t *testing.T) {
						c := client{mechanism: mechanism, user: testUser, password: testPassword, flag: "p=" + name, data: data[name]}
						right := c
						condition(t, right.run(t, start(t, a, mechanism, p.server)), "")
						// Somebody between, who passes the messages on from one connection to another.
						if name != "tls-server-end-point" {
							relayed := c
							condition(t, relayed.run(t, start(t, a, mechanism, other.server)), "not-authorized")
						}
						elsewhere := p.server
						elsewhere.Cert = newCertificate(t).Leaf
						if name == "tls-server-end-point" {
							relayed := c
							condition(t, relayed.run(t, start(t, a, mechanism, elsewhere)), "not-authorized")
						}
					})
				}
			}
		})
	}
}

// RFC 5705 §4 tells an empty context from none, with TLS 1.2; clients of RFC 9266 do either.
func TestExporterWithoutContext(t *testing.T) {
	a, _ := newTest(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		p := connect(t, version, newCertificate(t))
		data, err := p.client.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
		if err != nil {
			t.Fatal(err)
		}
		if same := bytes.Equal(data, p.exporter(t)); same != (version == tls.VersionTLS13) {
			t.Errorf("%s: same value %t", tls.VersionName(version), same)
		}
		c := &client{mechanism: "SCRAM-SHA-256-PLUS", user: testUser, password: testPassword, flag: "p=tls-exporter", data: data}
		condition(t, c.run(t, start(t, a, "SCRAM-SHA-256-PLUS", p.server)), "")
	}
}

// Sessions that are resumed have channel bindings of their own.
func TestChannelBindingsOfResumedSession(t *testing.T) {
	a, _ := newTest(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		cert := newCertificate(t)
		config := &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: version}
		cache := tls.NewLRUClientSessionCache(1)
		first := connectTo(t, config, cert, cache)
		second := connectTo(t, config, cert, cache)
		if !second.client.DidResume {
			t.Fatalf("%s: not resumed", tls.VersionName(version))
		}
		for data, want := range map[string]string{string(second.exporter(t)): "", string(first.exporter(t)): "not-authorized"} {
			c := &client{mechanism: "SCRAM-SHA-256-PLUS", user: testUser, password: testPassword, flag: "p=tls-exporter", data: []byte(data)}
			condition(t, c.run(t, start(t, a, "SCRAM-SHA-256-PLUS", second.server)), want)
		}
	}
}

// RFC 5929 §4.1: which hash.
func TestServerEndPointHash(t *testing.T) {
	for algorithm, sum := range map[x509.SignatureAlgorithm]func([]byte) []byte{
		x509.ECDSAWithSHA256: func(b []byte) []byte { s := sha256.Sum256(b); return s[:] },
		x509.ECDSAWithSHA384: func(b []byte) []byte { s := sha512.Sum384(b); return s[:] },
		x509.ECDSAWithSHA512: func(b []byte) []byte { s := sha512.Sum512(b); return s[:] },
		x509.PureEd25519:     func([]byte) []byte { return nil }, // undefined
	} {
		cert := newCertificate(t, algorithm)
		if got := endPointData(cert.Leaf); !bytes.Equal(got, sum(cert.Certificate[0])) {
			t.Errorf("%s: %x", algorithm, got)
		}
	}
	for algorithm, size := range map[x509.SignatureAlgorithm]int{
		x509.MD5WithRSA: 32, x509.SHA1WithRSA: 32, x509.ECDSAWithSHA1: 32,
		x509.SHA256WithRSA: 32, x509.SHA384WithRSA: 48, x509.SHA512WithRSA: 64,
		x509.SHA256WithRSAPSS: 32, x509.SHA384WithRSAPSS: 48, x509.SHA512WithRSAPSS: 64,
		x509.MD2WithRSA: 0, x509.UnknownSignatureAlgorithm: 0,
	} {
		if got := endPointData(&x509.Certificate{Raw: []byte("certificate"), SignatureAlgorithm: algorithm}); len(got) != size {
			t.Errorf("%s: %d bytes, want %d", algorithm, len(got), size)
		}
	}
}

// What is not there is not offered.
func TestNoChannelBindings(t *testing.T) {
	a, _ := newTest(t)
	p := connect(t, tls.VersionTLS13, newCertificate(t, x509.PureEd25519))
	for name, tt := range map[string]struct {
		ch   Channel
		want []string
	}{
		"no TLS":                           {Channel{Cert: p.server.Cert}, nil},
		"no handshake":                     {Channel{TLS: &tls.ConnectionState{}, Cert: newCertificate(t).Leaf}, nil},
		"no certificate":                   {Channel{TLS: p.server.TLS}, []string{"tls-exporter"}},
		"certificate without a known hash": {p.server, []string{"tls-exporter"}},
	} {
		if got := a.ChannelBindings(tt.ch); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
