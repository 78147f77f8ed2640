package auth

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// clientFirst is a client-first-message: RFC 5802 §7.
type clientFirst struct {
	header       string // gs2-header, as received
	binding      string // cb-name, "" without channel binding
	believesNone bool   // flag "y": the client can do channel binding and thinks that the server cannot
	authzid      string // unescaped, "" for none
	name         string // unescaped
	nonce        string
	bare         string // client-first-message-bare, as received
}

// clientFinal is a client-final-message: RFC 5802 §7.
type clientFinal struct {
	binding      string // the value of c=, which is base64
	nonce        string
	proof        []byte
	withoutProof string // client-final-message-without-proof, as received
}

func malformed(what string) error { return failf(malformedRequest, "%s", what) }

// parseClientFirst takes a client-first-message apart. The order of the attributes is fixed (RFC 5802 §5.1).
func parseClientFirst(message string) (f clientFirst, err error) {
	if err := checkText(message); err != nil {
		return f, err
	}
	flag, rest, _ := strings.Cut(message, ",")
	switch name, bound := strings.CutPrefix(flag, "p="); {
	case bound && isBindingName(name):
		f.binding = name
	case flag == "y":
		f.believesNone = true
	case flag != "n":
		return f, malformed("gs2-cbind-flag")
	}
	authzid, rest, found := strings.Cut(rest, ",")
	if !found {
		return f, malformed("gs2-header")
	}
	if authzid != "" {
		if f.authzid, err = saslname(authzid, "a="); err != nil {
			return f, err
		}
	}
	f.header, f.bare = message[:len(message)-len(rest)], rest
	if strings.HasPrefix(rest, "m=") {
		return f, extension()
	}
	name, rest, found := strings.Cut(rest, ",")
	if f.name, err = saslname(name, "n="); err != nil {
		return f, err
	}
	if !found {
		return f, malformed("no nonce")
	}
	nonce, rest, more := strings.Cut(rest, ",")
	if f.nonce, err = nonceOf(nonce); err != nil {
		return f, err
	}
	if more {
		return f, checkExtensions(rest)
	}
	return f, nil
}

// parseClientFinal takes a client-final-message apart. size is that of the proof.
func parseClientFinal(message string, size int) (f clientFinal, err error) {
	if err := checkText(message); err != nil {
		return f, err
	}
	end := strings.LastIndexByte(message, ',')
	if end < 0 {
		return f, malformed("no proof")
	}
	f.withoutProof = message[:end]
	binding, rest, found := strings.Cut(f.withoutProof, ",")
	if !found {
		return f, malformed("no nonce")
	}
	if strings.HasPrefix(binding, "m=") {
		return f, extension()
	}
	if f.binding, found = strings.CutPrefix(binding, "c="); !found {
		return f, malformed("channel-binding")
	}
	if data, err := decodeStrict(f.binding); err != nil || len(data) == 0 {
		return f, malformed("channel-binding")
	}
	nonce, rest, more := strings.Cut(rest, ",")
	if f.nonce, err = nonceOf(nonce); err != nil {
		return f, err
	}
	if more {
		if err := checkExtensions(rest); err != nil {
			return f, err
		}
	}
	proof, found := strings.CutPrefix(message[end+1:], "p=")
	if !found || len(proof) != base64.StdEncoding.EncodedLen(size) {
		return f, malformed("proof")
	}
	if f.proof, err = decodeStrict(proof); err != nil || len(f.proof) != size {
		return f, malformed("proof")
	}
	return f, nil
}

// checkText: RFC 5802 §7, all values are UTF-8 without NUL.
func checkText(message string) error {
	if !utf8.ValidString(message) || strings.IndexByte(message, 0) >= 0 {
		return malformed("not UTF-8, or with NUL")
	}
	return nil
}

// isBindingName is cb-name: RFC 5802 §7.
func isBindingName(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && !('0' <= c && c <= '9') && c != '.' && c != '-' {
			return false
		}
	}
	return s != ""
}

// saslname unescapes the name in an attribute: RFC 5802 §5.1, "=2C" is a comma, "=3D" an equals sign, and "=" is nothing else.
func saslname(attribute, prefix string) (string, error) {
	escaped, found := strings.CutPrefix(attribute, prefix)
	if !found || escaped == "" {
		return "", malformed(prefix)
	}
	if strings.IndexByte(escaped, '=') < 0 {
		return escaped, nil
	}
	var name strings.Builder
	for {
		before, after, found := strings.Cut(escaped, "=")
		name.WriteString(before)
		switch {
		case !found:
			return name.String(), nil
		case strings.HasPrefix(after, "2C"):
			name.WriteByte(',')
		case strings.HasPrefix(after, "3D"):
			name.WriteByte('=')
		default:
			return "", malformed("escape in " + prefix)
		}
		escaped = after[2:]
	}
}

// nonceOf returns the value of r=: RFC 5802 §7, printable characters but the comma.
func nonceOf(attribute string) (string, error) {
	nonce, found := strings.CutPrefix(attribute, "r=")
	if !found || nonce == "" {
		return "", malformed("nonce")
	}
	for i := range len(nonce) {
		if nonce[i] < 0x21 || nonce[i] > 0x7E {
			return "", malformed("nonce")
		}
	}
	return nonce, nil
}

// checkExtensions: RFC 5802 §5.1, unknown optional extensions are ignored, mandatory ones ("m") make the exchange fail. An attribute of
// SCRAM itself is no extension, so it has no place there.
func checkExtensions(list string) error {
	for attribute := range strings.SplitSeq(list, ",") {
		if len(attribute) < 3 || !isLetter(attribute[0]) || attribute[1] != '=' {
			return malformed("extension")
		}
		if attribute[0] == 'm' {
			return extension()
		}
		if strings.IndexByte("anrcsipve", attribute[0]) >= 0 {
			return malformed("attribute out of place")
		}
	}
	return nil
}

// extension is the failure for a mandatory extension: RFC 5802 §5.1, "m" MUST cause authentication failure.
func extension() error {
	f := failf(malformedRequest, "mandatory extension")
	f.Text = "SCRAM extensions are not supported."
	return f
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
