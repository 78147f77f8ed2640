package auth

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
)

// The channel bindings of the server, strongest first.
const (
	tlsExporter       = "tls-exporter"         // RFC 9266
	tlsUnique         = "tls-unique"           // RFC 5929 §3
	tlsServerEndPoint = "tls-server-end-point" // RFC 5929 §4
)

// ChannelBindings returns the types of channel binding that work on a connection, strongest first, for XEP-0440; none without TLS.
//
// RFC 5802 §6.1 makes tls-unique mandatory, RFC 9266 §3 replaces it by tls-exporter from TLS 1.3 on, XEP-0440 §3 makes
// tls-server-end-point mandatory.
func (a *Authenticator) ChannelBindings(ch Channel) []string {
	var types []string
	for _, name := range []string{tlsExporter, tlsUnique, tlsServerEndPoint} {
		if hasBinding(ch, name) {
			types = append(types, name)
		}
	}
	return types
}

// hasBinding reports whether bindingData has data, mostly without computing it: it is asked several times in each login.
func hasBinding(ch Channel, name string) bool {
	switch {
	case ch.TLS == nil || !ch.TLS.HandshakeComplete:
		return false
	case name == tlsExporter && ch.TLS.Version >= tls.VersionTLS13:
		return true // RFC 9266 §4
	}
	return bindingData(ch, name) != nil
}

// bindingData returns the data of a type of channel binding on a connection, any of which proves the channel; none when the type is
// unknown or not available there.
func bindingData(ch Channel, name string) [][]byte {
	if ch.TLS == nil || !ch.TLS.HandshakeComplete {
		return nil
	}
	switch name {
	case tlsExporter:
		return exporterData(ch.TLS)
	case tlsUnique:
		// RFC 7677 §4: only with the session hash extension, or without resumption; crypto/tls gives no value otherwise, nor with TLS 1.3,
		// where the type is not defined (RFC 8446 appendix C.5).
		if ch.TLS.Version < tls.VersionTLS13 && len(ch.TLS.TLSUnique) > 0 {
			return [][]byte{ch.TLS.TLSUnique}
		}
	case tlsServerEndPoint:
		if data := endPointData(ch.Cert); data != nil {
			return [][]byte{data}
		}
	}
	return nil
}

// exporterData is RFC 9266 §2. With TLS 1.2 it needs the extended master secret (RFC 9266 §4), else crypto/tls returns an error.
func exporterData(state *tls.ConnectionState) [][]byte {
	const label, size = "EXPORTER-Channel-Binding", 32
	var all [][]byte
	// The context is a "zero-length string". RFC 5705 §4 tells that from no context at all, and clients do either; with TLS 1.3 both give
	// the same value. Each is the exported secret of this connection, so either proves it.
	contexts := [][]byte{{}, nil}
	if state.Version >= tls.VersionTLS13 {
		contexts = contexts[:1]
	}
	for _, context := range contexts {
		data, err := state.ExportKeyingMaterial(label, context, size)
		if err != nil {
			return nil
		}
		all = append(all, data)
	}
	return all
}

// endPointData is RFC 5929 §4.1: the hash of the certificate, made with the hash of the certificate's signature, and with SHA-256 where
// that is MD5 or SHA-1. A signature with no hash of its own (Ed25519) has no such data.
func endPointData(cert *x509.Certificate) []byte {
	if cert == nil {
		return nil
	}
	switch cert.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1,
		x509.SHA256WithRSA, x509.SHA256WithRSAPSS, x509.DSAWithSHA256, x509.ECDSAWithSHA256:
		sum := sha256.Sum256(cert.Raw)
		return sum[:]
	case x509.SHA384WithRSA, x509.SHA384WithRSAPSS, x509.ECDSAWithSHA384:
		sum := sha512.Sum384(cert.Raw)
		return sum[:]
	case x509.SHA512WithRSA, x509.SHA512WithRSAPSS, x509.ECDSAWithSHA512:
		sum := sha512.Sum512(cert.Raw)
		return sum[:]
	}
	return nil
}
