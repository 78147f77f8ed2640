package c2s

import (
	"time"

	"balcony/xmpp/listen"
	"balcony/xmpp/stream"
)

// Config of client connections.
type Config struct {
	// Domain is the domain that the server speaks for to a client that has named none of its own.
	Domain string
	// TLSTimeout is how long a client has to finish TLS, from the moment it is accepted.
	TLSTimeout time.Duration
	// LoginTimeout is how long a client has to finish login, resource binding included, from the moment it is accepted.
	LoginTimeout time.Duration
	// Unauthenticated are the limits of a stream before authentication.
	Unauthenticated stream.Limits
	// Authenticated are the limits of a stream after authentication.
	Authenticated stream.Limits
	// Outbox is how many bytes may wait for a client that does not read; beyond that its session is closed.
	Outbox int
	// Rate is how many bytes a client may send in a second, sustained; reading is delayed beyond that. 0: no limit.
	Rate int
	// ConnectionsPerAddress is how many connections one address may have; loopback is exempt. 0: no limit.
	ConnectionsPerAddress int
	// Proxies carry the connections of clients.
	Proxies listen.Proxies
	// PingAfter is the silence after which a client is asked for a sign of life.
	PingAfter time.Duration
	// PingTimeout is how long the client then has to send anything.
	PingTimeout time.Duration
	// LoginTries is how many times a client may try to authenticate on one stream (RFC 6120 §6.4.5: two to five).
	LoginTries int
	// Management bounds stream management.
	Management Management
}

// DefaultConfig returns the limits of a server that nobody configured.
func DefaultConfig() Config {
	return Config{
		TLSTimeout:            10 * time.Second,
		LoginTimeout:          30 * time.Second,
		Unauthenticated:       stream.BeforeAuth,
		Authenticated:         stream.DefaultLimits(),
		Outbox:                1 << 20,
		Rate:                  512 << 10,
		ConnectionsPerAddress: 64,
		PingAfter:             5 * time.Minute,
		PingTimeout:           time.Minute,
		LoginTries:            5,
		Management:            Management{Stanzas: 5000, Bytes: 4 << 20, Resumption: 15 * time.Minute},
	}
}
