package s2s

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"strings"

	"balcony/xmpp"
	"balcony/xmpp/stream"

	"mellium.im/xmpp/jid"
)

const (
	nsDialback        = stream.NSDialback
	nsDialbackFeature = "urn:xmpp:features:dialback" // XEP-0220 §2.4.2
)

// dialbackKey is XEP-0185 §2: for a stream with that id, which the receiving server gave, from a domain of this server.
func dialbackKey(secret []byte, receiving, originating, id string) string {
	hashed := sha256.Sum256(secret)
	mac := hmac.New(sha256.New, []byte(hex.EncodeToString(hashed[:])))
	mac.Write([]byte(receiving + " " + originating + " " + id))
	return hex.EncodeToString(mac.Sum(nil))
}

// sameKey compares in constant time. The peer's element may have white space around its key, as the examples of XEP-0220 have.
func sameKey(want, got string) bool {
	return subtle.ConstantTimeCompare([]byte(want), []byte(strings.TrimSpace(got))) == 1
}

// maxKey bounds a key in bytes. chosen: XEP-0185 has 64, others make their own.
const maxKey = 1024

// dialbackElement is a <db:result/> or <db:verify/>. XEP-0220 §2: its prefix is the one on the stream header, which old servers want to be "db".
func dialbackElement(local, from, to, id, typ string) *xmpp.Element {
	return xmpp.El("", "db:"+local, "from", from, "to", to, "id", id, "type", typ)
}

// domain reads the address of a server: RFC 6120 §4.7.1, §4.7.2. It is canonical then; false when it is none.
func domain(s string) (string, bool) {
	if s == "" || len(s) > maxDomain {
		return "", false
	}
	j, err := jid.Parse(s)
	if err != nil || j.Localpart() != "" || j.Resourcepart() != "" {
		return "", false
	}
	return j.Domainpart(), true
}

const maxDomain = 1023 // RFC 7622 §3.2
