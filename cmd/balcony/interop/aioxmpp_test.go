package interop

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestInteropAioxmpp has aioxmpp go through the scenarios of testdata/drive_aioxmpp.py, among them logins with tls-server-end-point,
// which no other client here can do.
func TestInteropAioxmpp(t *testing.T) {
	t.Parallel()
	installed(t, "/usr/lib/python3/dist-packages/aioxmpp", "python3-aioxmpp")
	t.Run("login", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		rsaCertificate(t, dir, "rsa256.test", x509.SHA256WithRSA)
		rsaCertificate(t, dir, "rsa384.test", x509.SHA384WithRSA)
		domains := ""
		for _, d := range []string{"rsa256.test", "rsa384.test"} {
			domains += fmt.Sprintf("[[domain]]\nname = %q\ncertificate = %q\nkey = %q\n", d, d+".crt", d+".key")
		}
		s := startIn(t, dir, domains+configuration, "romeo@localhost", "romeo@rsa256.test", "romeo@rsa384.test")
		s.python("drive_aioxmpp.py", "login", "aioxmpp/login.txt")
		s.logins(map[string]int{"SCRAM-SHA-256 success": 6, "SCRAM-SHA-256-PLUS success": 4, "SCRAM-SHA-1-PLUS success": 4})
	})
	t.Run("chat", func(t *testing.T) {
		t.Parallel()
		start(t, "romeo@localhost", "juliet@localhost").python("drive_aioxmpp.py", "chat", "aioxmpp/chat.txt")
	})
}

// rsaCertificate writes a self-signed certificate and its key.
func rsaCertificate(t *testing.T, dir, domain string, signature x509.SignatureAlgorithm) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: domain}, DNSNames: []string{domain}, SignatureAlgorithm: signature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{domain + ".crt": {Type: "CERTIFICATE", Bytes: cert}, domain + ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
