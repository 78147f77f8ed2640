package xmpp_test

import (
	"net/netip"
	"testing"

	"balcony/xmpp"
)

func TestNetwork(t *testing.T) {
	for in, want := range map[string]string{
		"198.51.100.7":            "198.51.100.7",
		"::ffff:198.51.100.7":     "198.51.100.7",
		"2001:db8::1":             "2001:db8::",
		"2001:db8:0:1::1":         "2001:db8:0:1::",
		"2001:db8:1:2:3:4:5:6":    "2001:db8:1:2::",
		"2001:db8:1:2::":          "2001:db8:1:2::",
		"fe80::1:2:3%eth0":        "fe80::",
		"::1":                     "::1",
		"2001:db8:1:3:3:4:5:6%lo": "2001:db8:1:3::",
	} {
		if got := xmpp.Network(netip.MustParseAddr(in)); got != netip.MustParseAddr(want) {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	if got := xmpp.Network(netip.Addr{}); got.IsValid() {
		t.Errorf("no address: %s", got)
	}
}
