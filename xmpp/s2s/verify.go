package s2s

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"balcony/xmpp"

	"mellium.im/xmpp/jid"
)

// verifier is the one place that says whether a certificate proves a domain, for both directions of a stream.
type verifier struct {
	roots func() *x509.CertPool
	now   func() time.Time
}

var (
	errNoCertificate = errors.New("no certificate")
	errLongChain     = errors.New("the certificate chain is too long")
)

// maxChain bounds the certificates of a peer. chosen: public chains have two to four.
const maxChain = 10

// verify reports why a chain, leaf first, does not prove domain: RFC 6120 §13.7.2.1, RFC 6125, RFC 7590 §3.4. A certificate proves only the names that
// are in it.
func (v *verifier) verify(domain string, certs []*x509.Certificate) error {
	switch {
	case len(certs) == 0:
		return errNoCertificate
	case len(certs) > maxChain:
		return errLongChain
	}
	leaf := certs[0]
	ids, err := serviceIDs(leaf)
	if err != nil {
		return err
	}
	if len(ids.services)+len(ids.addresses) > 0 && slices.ContainsFunc(leaf.UnhandledCriticalExtensions, oidSAN.Equal) {
		c := *leaf // crypto/x509 does not know the only names that it has; we do
		c.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(leaf.UnhandledCriticalExtensions), oidSAN.Equal)
		leaf = &c
	}
	intermediates := x509.NewCertPool()
	for _, c := range certs[1:] {
		intermediates.AddCert(c)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: v.roots(), Intermediates: intermediates, CurrentTime: v.now(),
		// Public authorities have ceased to issue certificates for clients: what identifies a server identifies it in both roles.
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return err
	}
	name := xmpp.ASCII(domain)
	if leaf.VerifyHostname(name) == nil { // RFC 6125 §6.4: DNS-ID, with a wildcard as the whole left-most label; never the common name
		return nil
	}
	// crypto/x509 does not hold these names to the name constraints of an authority, so they do not count below one that has some.
	if !slices.ContainsFunc(chains, unconstrained) {
		return fmt.Errorf("the certificate is not for %s, but for %s", name, names(leaf, ids))
	}
	for _, id := range ids.services {
		if strings.EqualFold(id, name) {
			return nil
		}
	}
	for _, id := range ids.addresses {
		if j, err := jid.Parse(id); err == nil && j.Localpart() == "" && j.Resourcepart() == "" && j.Domainpart() == domain {
			return nil // XEP-0178 §3, RFC 6120 §13.7.1.4
		}
	}
	return fmt.Errorf("the certificate is not for %s, but for %s", name, names(leaf, ids))
}

func unconstrained(chain []*x509.Certificate) bool {
	return !slices.ContainsFunc(chain, func(c *x509.Certificate) bool {
		return len(c.PermittedDNSDomains)+len(c.ExcludedDNSDomains)+len(c.PermittedURIDomains)+len(c.ExcludedURIDomains)+
			len(c.PermittedEmailAddresses)+len(c.ExcludedEmailAddresses)+len(c.PermittedIPRanges)+len(c.ExcludedIPRanges) > 0
	})
}

// names are the identifiers of a certificate, for people.
func names(leaf *x509.Certificate, ids identifiers) string {
	list := slices.Concat(leaf.DNSNames, ids.services, ids.addresses)
	if len(list) == 0 {
		return "no domain"
	}
	const most = 8 // chosen: enough to see what is wrong
	text := strings.Join(list[:min(len(list), most)], ", ")
	if len(list) > most {
		text += fmt.Sprintf(" and %d more", len(list)-most)
	}
	return text
}

// identifiers are the names in a certificate that crypto/x509 leaves out.
type identifiers struct {
	services  []string // domains of SRVName (RFC 4985) for this service
	addresses []string // xmppAddr (RFC 6120 §13.7.1.4)
}

var (
	oidSAN      = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidSRVName  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 7} // RFC 4985 §2
	oidXMPPAddr = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 5} // RFC 6120 §13.7.1.4
)

// maxNames bounds the names that are looked at. chosen: far more than a certificate of a public authority has.
const maxNames = 1000

// serviceIDs reads the other names of the subject alternative name extension (RFC 5280 §4.2.1.6).
func serviceIDs(c *x509.Certificate) (ids identifiers, err error) {
	for _, e := range c.Extensions {
		if !e.Id.Equal(oidSAN) {
			continue
		}
		var seq asn1.RawValue
		if rest, err := asn1.Unmarshal(e.Value, &seq); err != nil || len(rest) > 0 || !seq.IsCompound || seq.Tag != asn1.TagSequence {
			return ids, errors.New("the certificate's subject alternative name is malformed")
		}
		for n, rest := 0, seq.Bytes; len(rest) > 0; n++ {
			if n >= maxNames {
				return ids, errors.New("the certificate has too many names")
			}
			var name asn1.RawValue
			if rest, err = asn1.Unmarshal(rest, &name); err != nil {
				return ids, errors.New("the certificate's subject alternative name is malformed")
			}
			if name.Class == asn1.ClassContextSpecific && name.Tag == 0 {
				ids.add(name.Bytes)
			}
		}
	}
	return ids, nil
}

// add takes an otherName: type-id and the explicitly tagged value. One that cannot be read is no name.
func (ids *identifiers) add(other []byte) {
	var oid asn1.ObjectIdentifier
	rest, err := asn1.Unmarshal(other, &oid)
	if err != nil {
		return
	}
	var value asn1.RawValue
	if _, err := asn1.Unmarshal(rest, &value); err != nil || value.Class != asn1.ClassContextSpecific || value.Tag != 0 {
		return
	}
	switch {
	case oid.Equal(oidSRVName):
		var text string
		if _, err := asn1.UnmarshalWithParams(value.Bytes, &text, "ia5"); err != nil {
			return
		}
		for _, service := range []string{"_xmpp-server.", "_xmpps-server."} { // RFC 6120 §13.7.1.2.1; XEP-0368 §3 rule 4
			if domain, ok := strings.CutPrefix(strings.ToLower(text), service); ok && domain != "" {
				ids.services = append(ids.services, strings.TrimSuffix(domain, "."))
			}
		}
	case oid.Equal(oidXMPPAddr):
		var text string
		if _, err := asn1.UnmarshalWithParams(value.Bytes, &text, "utf8"); err == nil {
			ids.addresses = append(ids.addresses, text)
		}
	}
}
