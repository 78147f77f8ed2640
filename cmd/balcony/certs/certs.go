// Package certs holds the certificates of the served domains, and makes self-signed ones for those that mean this machine or nothing.
package certs

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"balcony/cmd/balcony/config"
	"balcony/xmpp"
)

// Set is the certificates in use, one for each domain. Its methods may be called from any goroutine.
type Set struct {
	mu      sync.RWMutex
	current *generation
}

// generation is what one load gave. It is never changed except for the configs that are made of it, under the Set's lock.
type generation struct {
	byName   map[string]*tls.Certificate // by domain name in its ASCII form
	first    *tls.Certificate            // the default domain's
	roots    *x509.CertPool
	warnings []string
	configs  map[string]*tls.Config // by domain and ALPN protocols
}

// Load reads the certificates of all domains of cfg, makes the self-signed ones that are missing or about to expire, and reads the
// additional authorities. What is wrong is reported at once, each with its place in the configuration file.
func Load(cfg *config.Config) (*Set, error) {
	s := new(Set)
	return s, s.Reload(cfg)
}

// Reload does what Load does and, when nothing is wrong, puts the result in place of what was there: connections that exist keep
// theirs, and no session ticket given out before is accepted any more. On an error the old certificates stay.
func (s *Set) Reload(cfg *config.Config) error {
	g, err := read(cfg, true)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = g
	return nil
}

// Check does what Load does but writes no file. It returns what an operator should know although it is no error.
func Check(cfg *config.Config) (warnings []string, err error) {
	g, err := read(cfg, false)
	if err != nil {
		return nil, err
	}
	return g.warnings, nil
}

// Warnings are sentences about certificates that are in use and should not be: expired, about to expire, with a key that others can read.
func (s *Set) Warnings() []string { return s.now().warnings }

// Roots are the authorities that certificates of other servers are verified with: the system's and those of the configuration.
func (s *Set) Roots() *x509.CertPool { return s.now().roots }

// Leaf is the certificate that a handshake for domain shows, as GetCertificate chooses it. For an empty domain it is the default domain's.
func (s *Set) Leaf(domain string) *x509.Certificate { return s.now().find(domain).Leaf }

// GetCertificate chooses by the name that the client asks for (SNI). No name or an unknown one gets the default domain's certificate.
func (s *Set) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.now().find(hello.ServerName), nil
}

// ServerConfig is how connections to a domain are served. With a domain, the to address of a stream before STARTTLS, its certificate is
// shown whatever the handshake asks for; with an empty one the handshake decides (SNI). A client that offers application protocols
// (ALPN) must offer one of alpn, or the handshake fails. The result is shared and must not be changed. Call it for each connection: it
// is the same one until the next Reload, so that its session tickets and their rotation work, and a new one after that.
func (s *Set) ServerConfig(domain string, alpn ...string) *tls.Config {
	domain = xmpp.ASCII(domain)
	key := strings.Join(append([]string{domain}, alpn...), "\x00")
	s.mu.RLock()
	g := s.current
	c := g.configs[key]
	s.mu.RUnlock()
	if c != nil {
		return c
	}
	c = newConfig(g, domain, alpn)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := g.configs[key]; old != nil {
		return old
	}
	// Only served domains are kept: a peer must not be able to fill the map.
	if _, served := g.byName[domain]; served || domain == "" {
		g.configs[key] = c
	}
	return c
}

// PeerConfig is how connections of other servers are served: like ServerConfig, but the peer is asked for a certificate, which it need not
// have and which is not verified here.
func (s *Set) PeerConfig(domain string, alpn ...string) *tls.Config {
	domain = xmpp.ASCII(domain)
	c := newConfig(s.now(), domain, alpn)
	c.ClientAuth = tls.RequestClientCert
	c.SessionTicketsDisabled = true // a resumed session would bring a certificate that was verified long ago
	return c
}

// DialConfig is how this server connects to others, for a domain of its own whose certificate it shows. Whom it reaches is the caller's to verify.
func (s *Set) DialConfig(local string, alpn ...string) *tls.Config {
	g := s.now()
	c := newConfig(g, "", alpn)
	c.GetCertificate = nil
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return g.find(local), nil }
	return c
}

func newConfig(g *generation, domain string, alpn []string) *tls.Config {
	return &tls.Config{
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if domain != "" {
				return g.find(domain), nil
			}
			return g.find(hello.ServerName), nil
		},
		NextProtos: alpn,
		// RFC 7590 §3.1, RFC 9325 §3.1.1: nothing before TLS 1.2; §4.2: with 1.2 only forward secrecy and AEAD. TLS 1.3 has nothing else.
		MinVersion: tls.VersionTLS12,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		Renegotiation: tls.RenegotiateNever,
		// An idle connection would pay for small records with timers and system calls; stanzas are small anyhow.
		DynamicRecordSizingDisabled: true,
	}
}

func (s *Set) now() *generation {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.current
}

// find is the certificate for a name: its own, else the one of the domain that it is a subdomain of (a service such as
// conference.example.org), else the default domain's.
func (g *generation) find(name string) *tls.Certificate {
	name = xmpp.ASCII(name)
	if c := g.byName[name]; c != nil {
		return c
	}
	if _, parent, ok := strings.Cut(name, "."); ok && g.byName[parent] != nil {
		return g.byName[parent]
	}
	return g.first
}

func read(cfg *config.Config, write bool) (*generation, error) {
	g := &generation{byName: make(map[string]*tls.Certificate), configs: make(map[string]*tls.Config)}
	var errs []error
	for i, d := range cfg.Domains {
		cert, err := g.domain(cfg, i, write)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		g.byName[xmpp.ASCII(d.Name)] = cert
		if g.first == nil {
			g.first = cert
		}
	}
	if err := g.authorities(cfg); err != nil {
		errs = append(errs, err)
	}
	return g, errors.Join(errs...)
}

// domain reads or makes the certificate of the domain with that index.
func (g *generation) domain(cfg *config.Config, i int, write bool) (*tls.Certificate, error) {
	d := cfg.Domains[i]
	key := fmt.Sprintf("domain[%d].certificate", i)
	if d.Certificate == "" {
		if !config.SelfSigned(d.Name) {
			return nil, cfg.Errorf(key, "%q needs a certificate: set certificate and key to PEM files", d.Name)
		}
		cert, err := selfSigned(cfg.Data, d.Name, time.Now(), write)
		if err != nil {
			return nil, fmt.Errorf("self-signed certificate of %s: %w", d.Name, err)
		}
		return cert, nil
	}
	certPEM, err := os.ReadFile(d.Certificate)
	if err != nil {
		return nil, cfg.Errorf(key, "certificate of %q: %v", d.Name, err)
	}
	keyPEM, err := os.ReadFile(d.Key)
	if err != nil {
		return nil, cfg.Errorf(fmt.Sprintf("domain[%d].key", i), "key of %q: %v", d.Name, err)
	}
	// X509KeyPair also checks that the key belongs to the certificate. Its errors do not quote the files.
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, cfg.Errorf(key, "certificate and key of %q: %v", d.Name, err)
	}
	if err := cert.Leaf.VerifyHostname(xmpp.ASCII(d.Name)); err != nil {
		return nil, cfg.Errorf(key, "the certificate does not cover %q: %v", d.Name, err)
	}
	if k, ok := cert.PrivateKey.(*rsa.PrivateKey); ok && k.N.BitLen() < 2048 { // RFC 9325 §4.5
		return nil, cfg.Errorf(key, "the certificate of %q has an RSA key of %d bits; it must have at least 2048", d.Name, k.N.BitLen())
	}
	g.warn(cert.Leaf, d, time.Now())
	return &cert, nil
}

// warn notes what is wrong with a certificate that can be used nevertheless.
func (g *generation) warn(leaf *x509.Certificate, d config.Domain, now time.Time) {
	const soon = 14 * 24 * time.Hour // chosen: whoever renews automatically has renewed by then
	day := func(t time.Time) string { return t.UTC().Format(time.DateOnly) }
	switch {
	case now.After(leaf.NotAfter):
		g.warnings = append(g.warnings, fmt.Sprintf("the certificate of %q expired on %s", d.Name, day(leaf.NotAfter)))
	case now.Add(soon).After(leaf.NotAfter):
		g.warnings = append(g.warnings, fmt.Sprintf("the certificate of %q expires on %s", d.Name, day(leaf.NotAfter)))
	case now.Before(leaf.NotBefore):
		g.warnings = append(g.warnings, fmt.Sprintf("the certificate of %q is not valid before %s", d.Name, day(leaf.NotBefore)))
	}
	if info, err := os.Stat(d.Key); err == nil && info.Mode().Perm()&0o007 != 0 {
		g.warnings = append(g.warnings, fmt.Sprintf("the key of %q can be read by everybody: chmod 600 %s", d.Name, d.Key))
	}
}

func (g *generation) authorities(cfg *config.Config) error {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
		g.warnings = append(g.warnings, "the system's certificate authorities could not be read: "+err.Error())
	}
	var errs []error
	for i, path := range cfg.TLS.CA {
		key := fmt.Sprintf("tls.ca[%d]", i)
		text, err := os.ReadFile(path)
		if err != nil {
			errs = append(errs, cfg.Errorf(key, "authority: %v", err))
		} else if !roots.AppendCertsFromPEM(text) {
			errs = append(errs, cfg.Errorf(key, "authority: %s has no certificate in PEM form", path))
		}
	}
	g.roots = roots
	slices.Sort(g.warnings)
	return errors.Join(errs...)
}
