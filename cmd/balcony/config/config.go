// Package config is the configuration file of balcony: its keys, their defaults, and what is wrong with them. docs/configuration.md is
// generated from the comments of the struct fields, so they are written for operators.
//
//go:generate env BALCONY_WRITE_DOCS=1 go test -count=1 -run TestReferencePage
package config

import "time"

// Config is the whole configuration.
type Config struct {
	// Path is the file that was read, empty when there was none.
	Path string `toml:"-"`
	// The data folder: database, self-signed certificates, control socket and lock file. It is created with mode 0700. Like every relative
	// path in the file it is relative to the folder of the file.
	Data string `toml:"data"`
	// The domains that this server serves, each with its own certificate, accounts and admins. The first one is the default domain: its
	// certificate is shown to a peer that names no domain or an unknown one.
	Domains []Domain `toml:"domain"`
	// Where the server listens: lists of host:port. An empty list turns a listener off; port 0 takes a free port. The defaults are
	// loopback only; for the whole network write ":5222".
	Listen Listen `toml:"listen"`
	// Where accounts and messages are kept.
	Storage Storage `toml:"storage"`
	// Whom the server trusts. What it may negotiate is not configurable: TLS 1.2 with ECDHE and AEAD suites, and TLS 1.3.
	TLS TLS `toml:"tls"`
	// Federation with other servers.
	S2S S2S `toml:"s2s"`
	// External components (XEP-0114): programs that serve a domain of their own through this server.
	Components []Component `toml:"component"`
	// The message archive (XEP-0313).
	Archive Archive `toml:"archive"`
	// Limits on what peers can make the server hold or do. Sizes are written "10KB" or "256KiB", durations "30s", "15m" or "1d". Every
	// limit can be set to "off", which is the only way to have none.
	Limits Limits `toml:"limits"`
	// The log, on standard error.
	Log Log `toml:"log"`

	lines map[string]int // where in the file a key or list element stands
}

// Domain is one served domain.
type Domain struct {
	// The domain name: what stands behind the @ of its accounts.
	Name string `toml:"name"`
	// PEM file with the certificate and its chain. When it and key are empty, a self-signed certificate is made and kept in the data
	// folder; that is for localhost, *.localhost and *.test only.
	Certificate string `toml:"certificate" apply:"reload"`
	// PEM file with the private key.
	Key string `toml:"key" apply:"reload"`
	// Who may register an account (XEP-0077): "closed": nobody, the operator adds accounts; "invite": who was invited; "open": everybody.
	Registration string `toml:"registration" apply:"reload"`
	// The accounts that may administer this domain (XEP-0133): bare JIDs of domains of this server. They get rights on this domain only.
	Admins []string `toml:"admins" apply:"reload"`
	// Addresses to contact about this domain (XEP-0157), told to everybody: lists of URIs such as "mailto:abuse@example.org" or
	// "xmpp:admin@example.org".
	Contact Contact `toml:"contact"`
}

// The values of Domain.Registration.
const (
	Closed = "closed"
	Invite = "invite"
	Open   = "open"
)

// Contact are the contact addresses of a domain (XEP-0157 §3), each a list of URIs.
type Contact struct {
	// For complaints about abuse of the service.
	Abuse []string `toml:"abuse" apply:"reload"`
	// For the administration of the service.
	Admin []string `toml:"admin" apply:"reload"`
	// For feedback from its users.
	Feedback []string `toml:"feedback" apply:"reload"`
	// For questions about buying.
	Sales []string `toml:"sales" apply:"reload"`
	// For security problems.
	Security []string `toml:"security" apply:"reload"`
	// Where the service tells of outages.
	Status []string `toml:"status" apply:"reload"`
	// For help with its use.
	Support []string `toml:"support" apply:"reload"`
}

// Listen are the addresses of the listeners.
type Listen struct {
	// Clients, with STARTTLS (RFC 6120 §5).
	C2S []string `toml:"c2s"`
	// Clients, with direct TLS and ALPN xmpp-client (XEP-0368).
	C2STLS []string `toml:"c2s_tls"`
	// Other servers, with STARTTLS.
	S2S []string `toml:"s2s"`
	// Other servers, with direct TLS and ALPN xmpp-server (XEP-0368).
	S2STLS []string `toml:"s2s_tls"`
	// Plain HTTP: /healthz and /metrics. Keep it on loopback or behind a proxy.
	HTTP []string `toml:"http"`
	// HTTP over TLS.
	HTTPS []string `toml:"https"`
	// External components (XEP-0114). The protocol has no encryption: keep it on loopback.
	Component []string `toml:"component"`
}

// Storage is the database.
type Storage struct {
	// "sqlite": embedded, nothing to set up; "postgres": a PostgreSQL server.
	Driver string `toml:"driver"`
	// For sqlite the database file, empty for balcony.db in the data folder, ":memory:" to keep nothing. For postgres a connection string of github.com/lib/pq such as
	// "postgres://balcony@/balcony?host=/run/postgresql"; what it leaves out comes from the PG* environment variables, so a password
	// need not stand here.
	DSN string `toml:"dsn"`
}

// The values of Storage.Driver.
const (
	SQLite   = "sqlite"
	Postgres = "postgres"
)

// TLS is what the server trusts.
type TLS struct {
	// PEM files with certificates of authorities that are trusted beside the system's: for private federations and tests.
	CA []string `toml:"ca" apply:"reload"`
}

// S2S is federation.
type S2S struct {
	// The resolver that is asked for other servers' addresses, as host:port; empty for the system's.
	DNS string `toml:"dns"`
	// What proves another server's domain: "certificate": a certificate that is valid for it (EXTERNAL, or dialback over it); "dialback":
	// any certificate, the domain is proven by dialback over TLS (XEP-0220).
	Auth string `toml:"auth"`
}

// The values of S2S.Auth.
const (
	AuthCertificate = "certificate"
	AuthDialback    = "dialback"
)

// Component is one external component.
type Component struct {
	// The domain name of the component.
	Name string `toml:"name"`
	// The secret that the component proves to know.
	Secret string `toml:"secret" secret:"true"`
}

// Archive is the message archive.
type Archive struct {
	// Whether messages of accounts and rooms are archived.
	Enabled bool `toml:"enabled"`
	// How long archived messages are kept, for example "365d"; "0" for ever.
	Keep Duration `toml:"keep"`
}

// Limits bounds what peers can do.
type Limits struct {
	// Sustained bytes per second that one client session may send. Above it reading is delayed, nothing is dropped.
	ClientRate Bytes `toml:"client_rate" apply:"connections"`
	// The same for a stream of another server.
	ServerRate Bytes `toml:"server_rate"`
	// The largest stanza after authentication. RFC 6120 §13.12 forbids less than 10000 bytes.
	Stanza Bytes `toml:"stanza" apply:"connections"`
	// How deep elements may be nested in a stanza.
	Depth Count `toml:"depth" apply:"connections"`
	// Attributes that one element may have.
	Attributes Count `toml:"attributes" apply:"connections"`
	// Connections from one address at the same time. Limits by address do not apply to loopback.
	ConnectionsPerAddress Count `toml:"connections_per_address" apply:"connections"`
	// Accounts that one address may register in an hour (XEP-0077).
	RegistrationsPerHour Count `toml:"registrations_per_hour"`
	// The time a peer has to finish the TLS handshake.
	TLSTime Duration `toml:"tls_time" apply:"connections"`
	// The time a client has from connecting to a bound resource.
	LoginTime Duration `toml:"login_time" apply:"connections"`
	// The largest element before authentication.
	LoginStanza Bytes `toml:"login_stanza" apply:"connections"`
	// Failed logins on one stream before it is closed (RFC 6120 §6.4.5 recommends 2 to 5).
	LoginTries Count `toml:"login_tries" apply:"connections"`
	// The longest delay put on further logins from an address, or to an account, after failed ones. It grows from one second and fades;
	// it delays and never locks an account.
	LoginDelay Duration `toml:"login_delay"`
	// Output that waits for one session; a session whose client does not read is closed at that size.
	Outbox Bytes `toml:"outbox" apply:"connections"`
	// Stanzas that a session with stream management (XEP-0198) may have unacknowledged.
	Unacknowledged Count `toml:"unacknowledged"`
	// The size of those stanzas.
	UnacknowledgedBytes Bytes `toml:"unacknowledged_bytes"`
	// How long a lost session can be resumed (XEP-0198).
	Resumption Duration `toml:"resumption"`
	// Silence after which the server pings a client, and closes the connection when nothing comes back (XEP-0199).
	Idle Duration `toml:"idle" apply:"connections"`
	// Resources that one account may have bound at the same time.
	Resources Count `toml:"resources"`
	// Items in one roster.
	RosterItems Count `toml:"roster_items"`
	// Subscription requests that wait for one account's answer.
	SubscriptionRequests Count `toml:"subscription_requests"`
	// Entries in one block list (XEP-0191).
	BlockedJIDs Count `toml:"blocked_jids"`
	// Offline messages kept for one account (XEP-0160); the sender of a further one gets an error.
	OfflineMessages Count `toml:"offline_messages"`
	// The size of those messages.
	OfflineBytes Bytes `toml:"offline_bytes"`
	// Elements of private XML (XEP-0049) kept for one account.
	PrivateElements Count `toml:"private_elements"`
	// The size of those elements.
	PrivateBytes Bytes `toml:"private_bytes"`
}

// Log is the log.
type Log struct {
	// The least important lines that are written: "debug", "info", "warn" or "error".
	Level string `toml:"level" apply:"reload"`
	// "text" for people, "json" for programs.
	Format string `toml:"format"`
}

// Default is the configuration without a file: the domain localhost on loopback, SQLite and a self-signed certificate.
func Default() *Config {
	return &Config{
		Data:    "./balcony-data",
		Domains: []Domain{{Name: "localhost", Registration: Closed}},
		Listen: Listen{
			C2S: []string{"127.0.0.1:5222"}, C2STLS: []string{"127.0.0.1:5223"},
			S2S: []string{"127.0.0.1:5269"}, S2STLS: []string{"127.0.0.1:5270"},
			HTTP: []string{"127.0.0.1:5280"}, HTTPS: []string{"127.0.0.1:5281"},
			Component: []string{"127.0.0.1:5347"},
		},
		Storage: Storage{Driver: SQLite},
		S2S:     S2S{Auth: AuthCertificate},
		Archive: Archive{Enabled: true},
		Limits: Limits{
			ClientRate: 512 << 10, ServerRate: 2 << 20,
			Stanza: 256 << 10, Depth: 64, Attributes: 64,
			ConnectionsPerAddress: 64, RegistrationsPerHour: 5,
			TLSTime: Duration(10 * time.Second), LoginTime: Duration(30 * time.Second),
			LoginStanza: 10000, LoginTries: 5, LoginDelay: Duration(time.Minute),
			Outbox: 1 << 20, Unacknowledged: 5000, UnacknowledgedBytes: 4 << 20,
			Resumption: Duration(15 * time.Minute), Idle: Duration(5 * time.Minute),
			Resources: 20, RosterItems: 5000, SubscriptionRequests: 1000, BlockedJIDs: 1000,
			OfflineMessages: 1000, OfflineBytes: 16 << 20, PrivateElements: 100, PrivateBytes: 1 << 20,
		},
		Log: Log{Level: "info", Format: "text"},
	}
}
