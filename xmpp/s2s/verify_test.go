package s2s

import (
	"crypto/x509"
	"encoding/asn1"
	"strings"
	"testing"
	"time"

	"balcony/xmpp/s2s/s2stest"
)

func verifierOf(ca *s2stest.CA) *verifier {
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	return &verifier{func() *x509.CertPool { return roots }, time.Now}
}

func names2(critical bool, raw ...asn1.RawValue) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, s2stest.Names(critical, raw...))
	}
}

func dnsName(name string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(name)}
}

// TestVerify: RFC 6125 §6.4, RFC 6120 §13.7.1.2 and §13.7.2.1, XEP-0178 §3.
func TestVerify(t *testing.T) {
	ca, stranger := s2stest.NewCA(t), s2stest.NewCA(t)
	constrained := s2stest.NewCA(t, func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"inside.example"}, true
	})
	dns := func(names ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.DNSNames = names }
	}
	for _, tt := range []struct {
		name   string
		ca     *s2stest.CA
		cert   func(*x509.Certificate)
		domain string
		ok     bool
	}{
		{"DNS-ID", ca, dns("a.example", "b.example"), "b.example", true},
		{"letter case", ca, dns("B.Example"), "b.example", true},
		{"another domain", ca, dns("a.example"), "b.example", false},
		{"its parent", ca, dns("a.b.example"), "b.example", false},
		{"its child", ca, dns("b.example"), "a.b.example", false},
		{"wildcard", ca, dns("*.b.example"), "a.b.example", true},
		{"wildcard is one label", ca, dns("*.example"), "a.b.example", false},
		{"wildcard is no parent", ca, dns("*.b.example"), "b.example", false},
		{"wildcard is a whole label", ca, dns("a*.b.example"), "ab.b.example", false},
		{"the common name does not count", ca, func(c *x509.Certificate) { c.Subject.CommonName = "b.example" }, "b.example", false},
		{"internationalised", ca, dns("xn--bcher-kva.example"), "bücher.example", true},
		{"SRVName", ca, names2(false, s2stest.OtherName(oidSRVName, "ia5", "_xmpp-server.b.example")), "b.example", true},
		{"SRVName of direct TLS", ca, names2(false, s2stest.OtherName(oidSRVName, "ia5", "_xmpps-server.b.example")), "b.example", true},
		{"SRVName alone and critical", ca, names2(true, s2stest.OtherName(oidSRVName, "ia5", "_xmpp-server.b.example")), "b.example", true},
		{"SRVName of another service", ca, names2(false, s2stest.OtherName(oidSRVName, "ia5", "_xmpp-client.b.example")), "b.example", false},
		{"SRVName of another domain", ca, names2(false, s2stest.OtherName(oidSRVName, "ia5", "_xmpp-server.a.example")), "b.example", false},
		{"SRVName has no wildcard", ca, names2(false, s2stest.OtherName(oidSRVName, "ia5", "_xmpp-server.*.example")), "b.example", false},
		{"xmppAddr", ca, names2(false, s2stest.OtherName(oidXMPPAddr, "utf8", "b.example")), "b.example", true},
		{"xmppAddr internationalised", ca, names2(false, s2stest.OtherName(oidXMPPAddr, "utf8", "bücher.example")), "bücher.example", true},
		{"xmppAddr of a user", ca, names2(false, s2stest.OtherName(oidXMPPAddr, "utf8", "u@b.example")), "b.example", false},
		{"xmppAddr of another domain", ca, names2(false, s2stest.OtherName(oidXMPPAddr, "utf8", "a.example")), "b.example", false},
		{"another kind of name", ca, names2(false, s2stest.OtherName(asn1.ObjectIdentifier{1, 2, 3}, "utf8", "b.example")), "b.example", false},
		{"unknown authority", stranger, dns("b.example"), "b.example", false},
		{"expired", ca, func(c *x509.Certificate) {
			c.DNSNames, c.NotAfter = []string{"b.example"}, time.Now().Add(-time.Minute)
		}, "b.example", false},
		{"not yet valid", ca, func(c *x509.Certificate) {
			c.DNSNames, c.NotBefore = []string{"b.example"}, time.Now().Add(time.Hour)
		}, "b.example", false},
		{"for servers only", ca, func(c *x509.Certificate) {
			c.DNSNames, c.ExtKeyUsage = []string{"b.example"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}, "b.example", true},
		{"for code only", ca, func(c *x509.Certificate) {
			c.DNSNames, c.ExtKeyUsage = []string{"b.example"}, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
		}, "b.example", false},
		{"constrained authority", constrained, dns("a.inside.example"), "a.inside.example", true},
		{"constrained authority, outside", constrained, dns("b.example"), "b.example", false},
		{"constrained authority, SRVName outside", constrained, names2(false, dnsName("a.inside.example"), s2stest.OtherName(oidSRVName, "ia5", "_xmpp-server.b.example")), "b.example", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := verifierOf(ca)
			if tt.ca == constrained {
				v = verifierOf(constrained)
			}
			pair := tt.ca.Pair(tt.cert)
			err := v.verify(tt.domain, []*x509.Certificate{pair.Leaf})
			if (err == nil) != tt.ok {
				t.Errorf("verify %s: %v", tt.domain, err)
			}
		})
	}
}

func TestVerifyChain(t *testing.T) {
	ca := s2stest.NewCA(t)
	v := verifierOf(ca)
	if err := v.verify("b.example", nil); err == nil {
		t.Error("no certificate proves a domain")
	}
	pair := ca.Pair(func(c *x509.Certificate) { c.DNSNames = []string{"b.example"} })
	long := []*x509.Certificate{pair.Leaf}
	for range maxChain {
		long = append(long, ca.Cert)
	}
	if err := v.verify("b.example", long); err == nil {
		t.Error("an endless chain was looked at")
	}
}

// FuzzServiceIDs: what a peer's certificate says is parsed before its signature is known.
func FuzzServiceIDs(f *testing.F) {
	f.Add(s2stest.Names(false, s2stest.OtherName(oidSRVName, "ia5", "_xmpp-server.b.example"), dnsName("a.example")).Value)
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, value []byte) {
		ext := s2stest.Names(false)
		ext.Value = value
		c := &x509.Certificate{}
		c.Extensions = append(c.Extensions, ext)
		ids, err := serviceIDs(c)
		if err != nil && len(ids.services)+len(ids.addresses) > maxNames {
			t.Error("too many names")
		}
		for _, s := range ids.services {
			if s == "" || strings.HasPrefix(s, "_xmpp") && !strings.Contains(string(value), "_xmpp") {
				t.Errorf("service %q", s)
			}
		}
	})
}

// TestDialbackKey: the examples of XEP-0185 §3 and XEP-0220 §2.1.1 and §2.2.2.
func TestDialbackKey(t *testing.T) {
	for _, tt := range []struct{ secret, receiving, originating, id, want string }{
		{"s3cr3tf0rd14lb4ck", "xmpp.example.com", "example.org", "D60000229F", "37c69b1cf07a3f67c04a5ef5902fa5114f2c76fe4a2686482ba5b89323075643"},
		{"s3cr3tf0rd14lb4ck", "montague.example", "capulet.example", "D60000229F", "b4835385f37fe2895af6c196b59097b16862406db80559900d96bf6fa7d23df3"},
		{"d14lb4ck43v3r", "capulet.example", "montague.example", "417GAF25", "225cc5aa6a071133249d25fef42ae516fc7a86c523aa1c6980a7f73e784c972d"},
	} {
		got := dialbackKey([]byte(tt.secret), tt.receiving, tt.originating, tt.id)
		if got != tt.want {
			t.Errorf("key of %s for %s: %s, want %s", tt.originating, tt.receiving, got, tt.want)
		}
		if !sameKey(got, "\n  "+tt.want+"\n") || sameKey(got, tt.want[1:]) || sameKey(got, "") {
			t.Error("comparison")
		}
	}
}

func TestPolicy(t *testing.T) {
	p := Policy{Blocked: []string{"spam.example"}, Allowed: []string{"example", "spam.example"}, Peers: []Peer{
		{Domain: "old.example", Auth: WithDialback, Addresses: []Address{{HostPort: "10.0.0.1:5269"}}},
		{Domain: "new.old.example", Auth: WithCertificate},
	}}
	for domain, want := range map[string]struct{ allowed, dialback, route bool }{
		"example":            {true, false, false},
		"a.example":          {true, false, false},
		"spam.example":       {false, false, false},
		"a.spam.example":     {false, false, false},
		"notspam.example":    {true, false, false},
		"elsewhere.test":     {false, false, false},
		"old.example":        {true, true, true},
		"rooms.old.example":  {true, true, true},
		"new.old.example":    {true, false, true},
		"x.new.old.example":  {true, false, true},
		"veryold.example":    {true, false, false},
		"xnotanexample":      {false, false, false},
		"deep.a.b.c.example": {true, false, false},
	} {
		if got := p.allowed(domain); got != want.allowed {
			t.Errorf("%s allowed: %v", domain, got)
		}
		if got := p.dialback(domain); got != want.dialback {
			t.Errorf("%s dialback: %v", domain, got)
		}
		if got := len(p.route(domain)) > 0; got != want.route {
			t.Errorf("%s route: %v", domain, got)
		}
	}
}

// TestOrder: RFC 2782, priorities in order and weights as probabilities.
func TestOrder(t *testing.T) {
	first := make(map[string]int)
	const rounds = 3000
	for range rounds {
		targets := []target{{host: "late", priority: 20}, {host: "heavy", priority: 10, weight: 90}, {host: "light", priority: 10, weight: 10}, {host: "never", priority: 10}}
		order(targets)
		first[targets[0].host]++
		if targets[3].host != "late" {
			t.Fatalf("order %v", targets)
		}
	}
	if n := first["heavy"]; n < rounds*8/10 || n > rounds*97/100 {
		t.Errorf("of %d, heavy was first %d times", rounds, n)
	}
	if n := first["never"]; n > rounds/20 {
		t.Errorf("a weight of 0 was first %d times", n)
	}
}

func TestBackoff(t *testing.T) {
	for fails := 1; fails < 100; fails++ {
		d := backoff(fails)
		if d < firstDelay/2 || d > lastDelay*3/2 {
			t.Errorf("after %d failures: %s", fails, d)
		}
	}
	if backoff(1) > 2*firstDelay || backoff(20) < lastDelay/2 {
		t.Error("it does not grow")
	}
}
