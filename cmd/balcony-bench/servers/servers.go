// Package servers starts and stops the servers that are compared: each from a configuration that it generates in a folder of the run,
// on loopback, never touching what the system runs.
package servers

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Server is one of the compared servers. Prepare is called once, then Start any number of times, one process at a time.
type Server interface {
	Name() string
	// Prepare writes the server's data and creates the accounts (localparts), all with the password of the Env.
	Prepare(ctx context.Context, accounts []string) error
	// Start runs the server until Process.Stop. Its data survives.
	Start(ctx context.Context) (*Process, error)
	// Data is the folder of what it keeps, empty where it keeps nothing; to be looked at while it does not run.
	Data() string
}

// Names of all servers, in the order in which a run interleaves and prints them.
var Names = []string{"prosody", "prosody-gengc", "prosody-sqlite", "prosody-sqlite-gengc", "ejabberd", "ejabberd-sqlite", "relay", "balcony", "balcony-postgres"}

// Default are those that a run compares unless it is told others.
var Default = []string{"prosody", "prosody-gengc", "ejabberd", "relay", "balcony"}

// New returns the server with that name.
func New(name string, e *Env) (Server, error) {
	switch name {
	case "prosody":
		return &prosody{env: e, name: name}, nil
	case "prosody-gengc":
		return &prosody{env: e, name: name, generational: true}, nil
	case "prosody-sqlite":
		return &prosody{env: e, name: name, sqlite: true}, nil
	case "prosody-sqlite-gengc":
		return &prosody{env: e, name: name, generational: true, sqlite: true}, nil
	case "ejabberd":
		return &ejabberd{env: e, name: name}, nil
	case "ejabberd-sqlite":
		return &ejabberd{env: e, name: name, sqlite: true}, nil
	case "relay":
		return &relayServer{env: e}, nil
	case "balcony":
		return &balcony{env: e, name: name}, nil
	case "balcony-postgres":
		return &balcony{env: e, name: name, postgres: true}, nil
	}
	return nil, fmt.Errorf("unknown server %q", name)
}

// ForArchive reports whether a server is another one only where messages are archived.
func ForArchive(name string) bool { return strings.Contains(name, "-sqlite") }

// Size is the size of the files in a folder and those below it, in bytes.
func Size(folder string) (n int64, err error) {
	err = filepath.WalkDir(folder, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}

// Env is what all servers of a run share.
type Env struct {
	Dir        string // a folder for each server is made in it
	Domain     string
	Password   string
	Balcony    string          // path of the balcony binary; empty: built from this module
	Archive    bool            // messages are archived (XEP-0313) by the servers that are started now
	Profile    bool            // ask the servers that can to offer profiles
	Cert, Key  string          // PEM files
	Pair       tls.Certificate // the same
	Roots      *x509.CertPool
	Credential *syscall.Credential // whom to run the servers as; nil: as the driver
}

// NewEnv makes the run's folder ready: a certificate for the domain, and, if the driver runs as root, the unprivileged account that
// the servers run as (Prosody and ejabberd refuse root).
func NewEnv(dir, domain, runAs string) (*Env, error) {
	e := &Env{Dir: dir, Domain: domain, Password: "correct horse", Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	if os.Geteuid() == 0 {
		u, err := user.Lookup(runAs)
		if err != nil {
			return nil, err
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("account %s has ids %s:%s", runAs, u.Uid, u.Gid)
		}
		e.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	if err := os.Chmod(dir, 0o755); err != nil { // a temp folder is closed to others
		return nil, err
	}
	return e, e.certificate()
}

// certificate writes a self-signed ECDSA P-256 certificate, the same for all servers.
func (e *Env) certificate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: e.Domain},
		DNSNames:     []string{e.Domain},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(1, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	if e.Pair, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		return err
	}
	e.Roots = x509.NewCertPool()
	e.Roots.AppendCertsFromPEM(certPEM)
	if err := e.write(e.Cert, certPEM); err != nil {
		return err
	}
	return e.write(e.Key, keyPEM)
}

// folder makes a folder below Dir that belongs to the servers' account.
func (e *Env) folder(parts ...string) (string, error) {
	dir := e.Dir
	for _, p := range parts {
		dir = filepath.Join(dir, p)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
		if err := e.own(dir); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// write makes a file that belongs to the servers' account.
func (e *Env) write(name string, data []byte) error {
	if err := os.WriteFile(name, data, 0o600); err != nil {
		return err
	}
	return e.own(name)
}

func (e *Env) own(name string) error {
	if e.Credential == nil {
		return nil
	}
	return os.Chown(name, int(e.Credential.Uid), int(e.Credential.Gid))
}
