package auth

import (
	"crypto/tls"
	"strings"
	"testing"

	"mellium.im/xmpp/jid"
)

func TestStartSASL2(t *testing.T) {
	a, _ := newTest(t)
	p := connect(t, tls.VersionTLS13, newCertificate(t)).server
	fast := &Fast{}
	tests := []struct {
		name, mechanism string
		ch              Channel
		agent           string
		fast            *Fast
		want            string
	}{
		{"password", "SCRAM-SHA-256", secured, "", nil, ""},
		{"token", none, secured, testAgent, fast, ""},
		{"token with channel binding", "HT-SHA-256-EXPR", p, testAgent, fast, ""},
		{"token without saying so", none, secured, testAgent, nil, "invalid-mechanism"}, // XEP-0484 §3.4: MUST include fast
		{"password with fast", "SCRAM-SHA-256", secured, testAgent, fast, "invalid-mechanism"},
		{"not offered", "HT-SHA-256-EXPR", secured, testAgent, fast, "invalid-mechanism"},
		{"tls-unique with TLS 1.3", "HT-SHA-256-UNIQ", p, testAgent, fast, "invalid-mechanism"},
		{"another hash", "HT-SHA-512-NONE", secured, testAgent, fast, "invalid-mechanism"},
		{"lower case", strings.ToLower(none), secured, testAgent, fast, "invalid-mechanism"},
		{"none", "", secured, testAgent, fast, "invalid-mechanism"},
		{"without TLS", none, Channel{}, testAgent, fast, "encryption-required"},
		{"password without TLS", "PLAIN", Channel{}, testAgent, nil, "encryption-required"},
		{"no user agent", none, secured, "", fast, "malformed-request"}, // XEP-0484 §4.1: MUST provide it
		{"user agent without a UUID", none, secured, "phone", fast, "malformed-request"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := a.StartSASL2(t.Context(), testDomain, tt.mechanism, tt.ch, a.Mechanisms(tt.ch), a.FastMechanisms(tt.ch),
				Request{Agent: UserAgent{ID: tt.agent}, Fast: tt.fast})
			condition(t, err, tt.want)
		})
	}
	// What works here and was not offered, or was offered and does not work here.
	r := Request{Agent: UserAgent{ID: testAgent}, Fast: fast}
	_, err := a.StartSASL2(t.Context(), testDomain, none, secured, a.Mechanisms(secured), nil, r)
	condition(t, err, "invalid-mechanism")
	_, err = a.StartSASL2(t.Context(), testDomain, "HT-SHA-256-EXPR", secured, nil, []string{"HT-SHA-256-EXPR"}, r)
	condition(t, err, "invalid-mechanism")
	_, err = a.StartSASL2(t.Context(), testDomain, "SCRAM-SHA-256", secured, []string{"SCRAM-SHA-256"}, []string{"SCRAM-SHA-256"}, r)
	condition(t, err, "invalid-mechanism")
}

// XEP-0388 §2.3: a non-empty authorization identity that is not the stream's from is an error; §5: it is compared as a JID.
func TestFrom(t *testing.T) {
	tests := []struct{ name, from, authzid, want string }{
		{"neither", "", "", ""},
		{"from only", "user@example.org", "", ""},
		{"identity only", "", "user@example.org", ""},
		{"the same", "user@example.org", "user@example.org", ""},
		{"full JID in from", "user@example.org/balcony", "user@example.org", ""},
		{"another spelling", "USER@EXAMPLE.ORG", "User@Example.org", ""},
		{"another account in from", "juliet@example.org", "user@example.org", "invalid-authzid"},
		{"the domain in from", "example.org", "user@example.org", "invalid-authzid"},
		{"another account as identity", "juliet@example.org", "juliet@example.org", "invalid-authzid"},
		// from alone is a hint (§3) and no claim.
		{"another account in from, no identity", "juliet@example.org", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, _ := newTest(t)
			var r Request
			if tt.from != "" {
				r.From = jid.MustParse(tt.from)
			}
			e := sasl2(t, a, "SCRAM-SHA-256", secured, r)
			condition(t, (&client{mechanism: "SCRAM-SHA-256", user: testUser, password: testPassword, authzid: tt.authzid}).run(t, e), tt.want)
			e = sasl2(t, a, "PLAIN", secured, r)
			_, _, err := e.Step(t.Context(), plainMessage(tt.authzid, testUser, testPassword), true)
			condition(t, err, tt.want)
		})
	}
}

func TestParseFast(t *testing.T) {
	tests := []struct {
		count, invalidate string
		want              Fast
		bad               bool
	}{
		{"", "", Fast{}, false},
		{"123", "", Fast{Count: count(123)}, false},
		{"123", "true", Fast{Count: count(123), Invalidate: true}, false},
		{"", "1", Fast{Invalidate: true}, false},
		{"0", "0", Fast{Count: count(0)}, false},
		{"2147483647", "false", Fast{Count: count(2147483647)}, false},
		{"2147483648", "", Fast{}, true},
		{"-1", "", Fast{}, true},
		{"1.0", "", Fast{}, true},
		{"0x1", "", Fast{}, true},
		{" 1", "", Fast{}, true},
		{"99999999999999999999", "", Fast{}, true},
		{"", "yes", Fast{}, true},
		{"", "TRUE", Fast{}, true},
	}
	for _, tt := range tests {
		got, err := ParseFast(tt.count, tt.invalidate)
		if tt.bad {
			condition(t, err, "malformed-request")
			continue
		}
		if err != nil || got.Invalidate != tt.want.Invalidate || (got.Count == nil) != (tt.want.Count == nil) || got.Count != nil && *got.Count != *tt.want.Count {
			t.Errorf("%q, %q: %+v, %v", tt.count, tt.invalidate, got, err)
		}
	}
}

// XEP-0388 §2.2.
func TestDecodeData(t *testing.T) {
	tests := []struct {
		text, want string
		bad        bool
	}{
		{"", "", false},
		{"YQ==", "a", false},
		{"\n    YQ==\n  ", "a", false}, // as in the examples of §2.3
		{" \t\r\n", "", false},
		{"=", "", true}, // means something with RFC 6120 only
		{"YQ", "", true},
		{"YR==", "", true},
		{"YW\nJj", "", true},
		{"é", "", true},
	}
	for _, tt := range tests {
		got, err := DecodeData(tt.text)
		if tt.bad {
			condition(t, err, "incorrect-encoding")
		} else if err != nil || got == nil || string(got) != tt.want {
			t.Errorf("%q: %q, %v", tt.text, got, err)
		}
	}
}
