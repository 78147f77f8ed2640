package auth

import (
	"crypto/tls"
	"net/netip"
	"testing"
)

// The server's part of a whole exchange with SCRAM: the client's messages are made while the clock stands.
func benchmarkSCRAM(b *testing.B, mechanism, flag string, delay bool) {
	a, store := newTest(b, func(c *Config) {
		if delay {
			c.Delay = DefaultConfig().Delay
		}
	})
	p := connect(b, tls.VersionTLS13, newCertificate(b))
	p.server.Remote = netip.MustParseAddr("198.51.100.1")
	offered := a.Mechanisms(p.server)
	c := &client{mechanism: mechanism, user: testUser, password: testPassword, flag: flag}
	if flag != "" {
		c.data = p.exporter(b)
	}
	// The server's nonce is fixed, so the client's messages are the same each time.
	nonce := []byte("3rfcNHYJY1ZVvWVs7jAAAA")
	first := []byte(c.first())
	e, err := a.Start(b.Context(), testDomain, mechanism, p.server, offered)
	if err != nil {
		b.Fatal(err)
	}
	e.nonce = nonce
	challenge, _, err := e.Step(b.Context(), first, true)
	if err != nil {
		b.Fatal(err)
	}
	text, err := c.final(string(challenge))
	if err != nil {
		b.Fatal(err)
	}
	final := []byte(text)
	b.ReportAllocs()
	for b.Loop() {
		store.calls = store.calls[:0]
		e, err := a.Start(b.Context(), testDomain, mechanism, p.server, offered)
		if err != nil {
			b.Fatal(err)
		}
		e.nonce = nonce
		if _, _, err := e.Step(b.Context(), first, true); err != nil {
			b.Fatal(err)
		}
		if _, done, err := e.Step(b.Context(), final, true); err != nil || !done {
			b.Fatal(done, err)
		}
	}
}

func BenchmarkSCRAM(b *testing.B) {
	for _, h := range hashes {
		b.Run(h.name, func(b *testing.B) { benchmarkSCRAM(b, h.name, "", true) })
		b.Run(h.name+"-PLUS", func(b *testing.B) { benchmarkSCRAM(b, h.name+"-PLUS", "p=tls-exporter", true) })
	}
}

// A login with a token that leaves nothing to write, and one that does: memory stands for the database.
func BenchmarkToken(b *testing.B) {
	a, store := newTest(b, func(c *Config) { c.Delay = DefaultConfig().Delay })
	p := connect(b, tls.VersionTLS13, newCertificate(b))
	p.server.Remote = netip.MustParseAddr("198.51.100.1")
	offered, fast := a.Mechanisms(p.server), a.FastMechanisms(p.server)
	const mechanism = "HT-SHA-256-EXPR"
	message := initiator(testUser, issue(b, a, mechanism, p.server).Secret, p.exporter(b))
	for _, counting := range []bool{false, true} {
		var n uint32
		b.Run(map[bool]string{false: "noted", true: "count"}[counting], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				store.calls = store.calls[:0]
				r := Request{Agent: UserAgent{ID: testAgent}, Fast: &Fast{}}
				if n++; counting {
					r.Fast.Count = &n
				}
				e, err := a.StartSASL2(b.Context(), testDomain, mechanism, p.server, offered, fast, r)
				if err != nil {
					b.Fatal(err)
				}
				if _, done, err := e.Step(b.Context(), message, true); err != nil || !done {
					b.Fatal(done, err)
				}
			}
		})
	}
}

func BenchmarkPlain(b *testing.B) {
	a, store := newTest(b)
	verifiers, err := MakeVerifiers(testPassword, DefaultConfig().Iterations)
	if err != nil {
		b.Fatal(err)
	}
	message := plainMessage("", testUser, testPassword)
	for i, h := range hashes {
		b.Run(h.name, func(b *testing.B) {
			store.accounts["user@example.org"].verifiers = verifiers[i:]
			for b.Loop() {
				store.calls = store.calls[:0]
				e := start(b, a, "PLAIN", secured)
				if _, done, err := e.Step(b.Context(), message, true); err != nil || !done {
					b.Fatal(done, err)
				}
			}
		})
	}
}

func BenchmarkFeatures(b *testing.B) {
	a, _ := newTest(b)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		ch := connect(b, version, newCertificate(b)).server
		b.Run(tls.VersionName(version), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if len(a.Mechanisms(ch)) == 0 || len(a.ChannelBindings(ch)) == 0 {
					b.Fatal("nothing offered")
				}
			}
		})
	}
}
