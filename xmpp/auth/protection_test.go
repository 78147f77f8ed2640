package auth

import (
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestOfferText(t *testing.T) {
	tests := []struct {
		name                 string
		mechanisms, bindings []string
		want                 string
	}{
		// XEP-0474 §4.3.
		{"the example", []string{"SCRAM-SHA-1", "SCRAM-SHA-1-PLUS"}, []string{"tls-server-end-point", "tls-exporter"},
			"SCRAM-SHA-1\x1eSCRAM-SHA-1-PLUS\x1ftls-exporter\x1etls-server-end-point"},
		{"no channel binding announced", []string{"SCRAM-SHA-256", "PLAIN"}, nil, "PLAIN\x1eSCRAM-SHA-256"},
		{"one of each", []string{"SCRAM-SHA-1-PLUS"}, []string{"tls-exporter"}, "SCRAM-SHA-1-PLUS\x1ftls-exporter"},
		// RFC 4790 §9.3: i;octet knows no numbers and puts capitals before small letters.
		{"order of octets", []string{"b", "B", "SCRAM-SHA-512", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"}, nil,
			"B\x1eSCRAM-SHA-1\x1eSCRAM-SHA-1-PLUS\x1eSCRAM-SHA-512\x1eb"},
		{"nothing", nil, nil, ""},
	}
	for _, tt := range tests {
		if got := offerText(tt.mechanisms, tt.bindings); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	// The order in which a server offers does not matter, and its own lists stay as they are.
	mechanisms := []string{"SCRAM-SHA-256", "PLAIN"}
	offerText(mechanisms, nil)
	if !slices.Equal(mechanisms, []string{"SCRAM-SHA-256", "PLAIN"}) {
		t.Errorf("the list became %v", mechanisms)
	}
}

// XEP-0474 §4.3: the example's hash.
func TestProtectionOfTheExample(t *testing.T) {
	offer := "SCRAM-SHA-1\x1eSCRAM-SHA-1-PLUS\x1ftls-exporter\x1etls-server-end-point"
	if got := hashOf("SCRAM-SHA-1-PLUS").protection(offer); got != ",h=G6k/rBLDqgOhRRaCuuatSDFkJ08=" {
		t.Errorf("attribute %q", got)
	}
}

// Two offers that differ have texts that differ: the delimiters are in no name.
func TestOfferTextTellsOffersApart(t *testing.T) {
	names := rapid.SliceOfDistinct(rapid.StringMatching("[A-Za-z0-9.-]{1,4}"), rapid.ID)
	rapid.Check(t, func(t *rapid.T) {
		m1, b1, m2, b2 := names.Draw(t, "m1"), names.Draw(t, "b1"), names.Draw(t, "m2"), names.Draw(t, "b2")
		sorted := func(s []string) []string { return slices.Sorted(slices.Values(s)) }
		same := slices.Equal(sorted(m1), sorted(m2)) && slices.Equal(sorted(b1), sorted(b2))
		if (offerText(m1, b1) == offerText(m2, b2)) != same {
			t.Fatalf("%q with %q, and %q with %q", m1, b1, m2, b2)
		}
	})
}

// What reached the client is compared with what was sent, with every hash, with and without channel binding.
func TestDowngradeOfTheOfferIsSeen(t *testing.T) {
	a, _ := newTest(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		p := connect(t, version, newCertificate(t))
		bindings := map[uint16]string{tls.VersionTLS12: "tls-exporter\x1etls-server-end-point\x1etls-unique",
			tls.VersionTLS13: "tls-exporter\x1etls-server-end-point"}[version]
		offer := "PLAIN\x1eSCRAM-SHA-1\x1eSCRAM-SHA-1-PLUS\x1eSCRAM-SHA-256\x1eSCRAM-SHA-256-PLUS\x1eSCRAM-SHA-512\x1eSCRAM-SHA-512-PLUS\x1f" + bindings
		for _, h := range hashes {
			bound := &client{mechanism: h.name + plus, user: testUser, password: testPassword, flag: "p=tls-exporter", data: p.exporter(t), offer: offer}
			condition(t, bound.run(t, start(t, a, h.name+plus, p.server)), "")
			c := &client{mechanism: h.name, user: testUser, password: testPassword, offer: offer}
			condition(t, c.run(t, start(t, a, h.name, p.server)), "")
			for _, stripped := range []string{
				"SCRAM-SHA-1\x1f" + bindings,
				strings.Replace(offer, "tls-exporter\x1e", "", 1),
				strings.Split(offer, "\x1f")[0],
			} {
				c := &client{mechanism: h.name, user: testUser, password: testPassword, offer: stripped}
				challenge, _, err := start(t, a, h.name, p.server).Step(t.Context(), []byte(c.first()), true)
				condition(t, err, "")
				if _, err := c.final(string(challenge)); !errors.Is(err, errDowngrade) {
					t.Errorf("%s: a client that saw %q goes on: %v", h.name, stripped, err)
				}
			}
		}
	}
}

// Somebody between who changes h as well is found out by the proof, which covers the whole server-first-message.
func TestForgedProtection(t *testing.T) {
	a, _ := newTest(t)
	e := start(t, a, "SCRAM-SHA-256", secured)
	c := &client{mechanism: "SCRAM-SHA-256", user: testUser, password: testPassword, offer: "SCRAM-SHA-256"}
	challenge, _, err := e.Step(t.Context(), []byte(c.first()), true)
	condition(t, err, "")
	first := string(challenge)
	final, err := c.final(first[:strings.Index(first, ",h=")] + hashOf("SCRAM-SHA-256").protection("SCRAM-SHA-256"))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = e.Step(t.Context(), []byte(final), true)
	condition(t, err, "not-authorized")
}
