package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"balcony/xmpp"
)

const (
	// chosen: clients trust a self-signed certificate on first use, so each renewal bothers their users
	validity = 10 * 365 * 24 * time.Hour
	// chosen: the server looks once a day
	renewal = 30 * 24 * time.Hour
)

// selfSigned reads the self-signed certificate of a domain from the data folder, and makes one if there is none, it is about to expire
// or it is damaged. The files are DATA/certificates/DOMAIN.crt and .key; the former can be given to clients to trust. Without write
// nothing is kept.
func selfSigned(data, domain string, now time.Time, write bool) (*tls.Certificate, error) {
	dir := filepath.Join(data, "certificates")
	certFile, keyFile := filepath.Join(dir, domain+".crt"), filepath.Join(dir, domain+".key")
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err == nil && now.After(cert.Leaf.NotBefore) && now.Add(renewal).Before(cert.Leaf.NotAfter) && cert.Leaf.VerifyHostname(xmpp.ASCII(domain)) == nil {
		return &cert, nil
	}
	// A file that is there and cannot be opened is not replaced: something is wrong that the operator must know.
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	certPEM, keyPEM, err := generate(domain, now)
	if err != nil {
		return nil, err
	}
	if write {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		// The key first: whatever is there after a crash, a pair that does not match is made anew.
		if err := replace(keyFile, keyPEM); err != nil {
			return nil, err
		}
		if err := replace(certFile, certPEM); err != nil {
			return nil, err
		}
	}
	cert, err = tls.X509KeyPair(certPEM, keyPEM)
	return &cert, err
}

// generate makes an ECDSA P-256 key and a certificate for a domain and its subdomains.
func generate(domain string, now time.Time) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	name := xmpp.ASCII(domain)
	template := &x509.Certificate{
		// SerialNumber is left to CreateCertificate, which takes a random one.
		Subject:               pkix.Name{CommonName: name},
		DNSNames:              []string{name, "*." + name},
		NotBefore:             now.Add(-time.Hour), // chosen: for clients whose clock is behind
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, // the latter for federation
		BasicConstraintsValid: true,
	}
	if name == "localhost" {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}

// replace writes a file in one step, readable by its owner only.
func replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
