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
	// External components (XEP-0114): programs that serve a domain of their own through this server. Clients see one among the services of the
	// domain that its name is below, else of the first domain, while it is connected.
	Components []Component `toml:"component"`
	// External services that clients are told of (XEP-0215): STUN and TURN servers for calls.
	Services []Service `toml:"service"`
	// What is served over HTTP.
	Web Web `toml:"web"`
	// The message archive (XEP-0313).
	Archive Archive `toml:"archive"`
	// File upload over HTTP (XEP-0363): the service upload.DOMAIN of each domain. It needs an https listener, or a proxy with TLS. The files lie
	// in the folder uploads of the data folder.
	Upload Upload `toml:"upload"`
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
	// The address of this server's HTTP for the clients of this domain, as they reach it through whatever stands in front, for example
	// "https://chat.example.org". It is told to them (XEP-0156). Empty: the address at which a client asks.
	URL string `toml:"url" apply:"reload"`
	// The IP addresses of this server, as clients reach them. When they are given, host-meta tells all ways to connect with them
	// (XEP-0487).
	Addresses []string `toml:"addresses" apply:"reload"`
	// Where the WebSockets of this domain have moved, for example "wss://new.example.org/xmpp-websocket": clients that connect here are sent
	// there (RFC 7395). Empty: they have not.
	WebSocketMoved string `toml:"websocket_moved" apply:"reload"`
	// What archive.enabled is for the accounts of this domain: true or false. Empty: archive.enabled. An archive that was kept before is not shown while
	// it is false, and stays within what archive_keep and archive_messages allow.
	Archive Override `toml:"archive"`
	// What archive.search is for the accounts of this domain: true or false. Empty: archive.search.
	ArchiveSearch Override `toml:"archive_search"`
	// What archive.keep is for the accounts of this domain, for example "30d"; "0" for ever. Empty: archive.keep.
	ArchiveKeep Override `toml:"archive_keep"`
	// What archive.messages is for the accounts of this domain; 0 for all. Empty: archive.messages.
	ArchiveMessages Override `toml:"archive_messages"`
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

// Listen are the addresses of the listeners, and who stands in front of them.
type Listen struct {
	// Clients, with STARTTLS (RFC 6120 §5).
	C2S []string `toml:"c2s"`
	// Clients, with direct TLS and ALPN xmpp-client (XEP-0368).
	C2STLS []string `toml:"c2s_tls"`
	// Other servers, with STARTTLS.
	S2S []string `toml:"s2s"`
	// Other servers, with direct TLS and ALPN xmpp-server (XEP-0368).
	S2STLS []string `toml:"s2s_tls"`
	// Plain HTTP: for the machine itself and for a proxy in front that speaks TLS. Streams of clients are refused on it unless they come from
	// this machine, or from a proxy that says that the client used TLS.
	HTTP []string `toml:"http"`
	// HTTP over TLS: WebSocket (RFC 7395), BOSH (XEP-0124), host-meta (XEP-0156).
	HTTPS []string `toml:"https"`
	// External components (XEP-0114). The protocol has no encryption: keep it on loopback.
	Component []string `toml:"component"`
	// The addresses and networks of TCP proxies in front of the listeners for clients and other servers, such as HAProxy. Every connection from
	// there must begin with the PROXY protocol (version 1 or 2), which says whose it is; from all others it is not understood. The HTTP listeners go
	// by web.proxies, and components connect directly.
	Proxies []string `toml:"proxies" apply:"connections"`
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
	DNS string `toml:"dns" apply:"connections"`
	// What proves another server's domain: "certificate": a certificate that is valid for it (EXTERNAL, or dialback over it); "dialback":
	// any certificate, the domain is proven by dialback over TLS (XEP-0220).
	Auth string `toml:"auth" apply:"connections"`
	// Whether streams carry stanzas in both directions when the other server can do that (XEP-0288).
	Bidi bool `toml:"bidi" apply:"connections"`
	// Domains that this server does not talk to, with their subdomains.
	Blocked []string `toml:"blocked" apply:"reload"`
	// When not empty, the only domains that this server talks to, with their subdomains.
	Allowed []string `toml:"allowed" apply:"reload"`
	// What is different for single domains and their subdomains.
	Peers []Peer `toml:"peer" apply:"connections"`
}

// Peer is what is different for one domain of another server.
type Peer struct {
	// The domain name; its subdomains are meant too, unless they have an entry of their own.
	Domain string `toml:"domain"`
	// What proves this domain, in place of the auth of [s2s]: "certificate" or "dialback"; empty for the same. Dialback without a valid
	// certificate is as safe as DNS is.
	Auth string `toml:"auth"`
	// Where its server is, as host:port, in place of DNS; tried in order.
	Addresses []string `toml:"addresses"`
	// Whether TLS begins at once at these addresses (XEP-0368); else STARTTLS.
	DirectTLS bool `toml:"direct_tls"`
}

// The values of S2S.Auth.
const (
	AuthCertificate = "certificate"
	AuthDialback    = "dialback"
)

// Service is one external service.
type Service struct {
	// What it is: "stun", "stuns", "turn" or "turns", or another type that clients know.
	Type string `toml:"type"`
	// Its domain name or IP address.
	Host string `toml:"host"`
	// Its port; 0 leaves the choice to the clients.
	Port Count `toml:"port"`
	// "udp" or "tcp".
	Transport string `toml:"transport"`
	// A name for people.
	Name string `toml:"name"`
	// The secret that the service shares with this server (coturn: use-auth-secret and static-auth-secret): accounts of this server get
	// credentials that are made with it and end.
	Secret string `toml:"secret" secret:"true"`
	// How long those credentials are good for.
	Lifetime Duration `toml:"lifetime"`
	// The username that all accounts use, instead of a secret.
	Username string `toml:"username"`
	// Its password.
	Password string `toml:"password" secret:"true"`
}

// Component is one external component.
type Component struct {
	// The domain name of the component, such as "irc.example.org". It may be one that the server would use for a service of its own.
	Name string `toml:"name"`
	// The secret that the component proves to know.
	Secret string `toml:"secret" secret:"true"`
}

// Web is what is served over HTTP.
type Web struct {
	// The addresses and networks of proxies in front of this server. Their word is taken for who the client is and whether it used TLS: the
	// headers X-Forwarded-For and X-Forwarded-Proto, and the PROXY protocol (versions 1 and 2).
	Proxies []string `toml:"proxies" apply:"reload"`
	// The web pages whose scripts may use WebSocket and BOSH, by their origin: "https://chat.example.org", "https://*.example.org", or "*"
	// for all. They are never sent credentials of the browser.
	Origins []string `toml:"origins" apply:"reload"`
	// The addresses and networks that may read /metrics, on http listeners.
	Metrics []string `toml:"metrics" apply:"reload"`
	// Whether the https listeners also take XMPP streams of clients and of other servers (ALPN xmpp-client and xmpp-server, XEP-0368), so that one port
	// serves everything, even when no other listener is open.
	OnePort bool `toml:"one_port"`
}

// Archive is the message archive.
type Archive struct {
	// Whether messages of accounts and rooms are archived. Without the archive a message that a client gets at once is only in memory until the
	// client has it, so a crash can lose it, and one for somebody who is away waits in the offline spool within its limits.
	Enabled bool `toml:"enabled"`
	// Whether accounts can search their archives for words (XEP-0431). It makes an archived message cost two and a half times the CPU and a quarter more disk, and is of no use where all
	// messages are encrypted by the clients. What was archived before is indexed in the background; until that is done the search is not offered.
	Search bool `toml:"search"`
	// How long archived messages are kept, for example "365d"; "0" for ever. What is older is deleted, whether a client has got it or not.
	Keep Duration `toml:"keep"`
	// How many messages of an account are kept, the newest; 0 for all of them.
	Messages Count `toml:"messages"`
}

// Archives reports whether the messages of a domain's accounts are archived. The configuration must be valid.
func (c *Config) Archives(d Domain) bool { return d.Archive.choice(c.Archive.Enabled) }

// Searches reports whether the archives of a domain's accounts can be searched. The configuration must be valid.
func (c *Config) Searches(d Domain) bool {
	return c.Archives(d) && d.ArchiveSearch.choice(c.Archive.Search)
}

// Retention is how long the archives of a domain's accounts keep messages, and how many of an account: [archive] with what the domain has instead.
// The configuration must be valid.
func (c *Config) Retention(d Domain) (keep Duration, messages Count) {
	keep, messages = c.Archive.Keep, c.Archive.Messages
	if d.ArchiveKeep != "" {
		keep, _ = d.ArchiveKeep.duration()
	}
	if d.ArchiveMessages != "" {
		messages, _ = d.ArchiveMessages.count()
	}
	return keep, messages
}

// Upload is file upload.
type Upload struct {
	// Whether the service is offered to accounts of this server.
	Enabled bool `toml:"enabled"`
	// The largest file; "off" for no limit.
	MaxSize Bytes `toml:"max_size"`
	// How much an account's message attachments may take together; more is refused until older ones have expired. A small file counts
	// 4 KiB. "off" for no limit.
	Quota Bytes `toml:"quota"`
	// How long message attachments are kept; "0" for ever.
	Keep Duration `toml:"keep"`
	// How much an account's profile files (avatars) may take; they do not expire, and the oldest make room for new ones. "0" does not offer
	// that purpose.
	ProfileQuota Bytes `toml:"profile_quota"`
	// How much an account's permanent files (pictures of a blog) may take; they do not expire. "0" does not offer that purpose.
	PermanentQuota Bytes `toml:"permanent_quota"`
}

// Limits bounds what peers can do.
type Limits struct {
	// Sustained bytes per second that one client session may send. Above it reading is delayed, nothing is dropped.
	ClientRate Bytes `toml:"client_rate" apply:"connections"`
	// The same for a domain of another server, over all of its streams.
	ServerRate Bytes `toml:"server_rate" apply:"connections"`
	// Stanzas that wait for the stream of one pair of domains; the sender of a further one gets an error.
	ServerQueue Bytes `toml:"server_queue" apply:"reload"`
	// The same for all of them together, with what was sent and is not acknowledged by the other servers. One sender may have an eighth of it.
	ServerQueueTotal Bytes `toml:"server_queue_total" apply:"reload"`
	// How long a stanza waits for a stream to another server before its sender gets an error.
	ServerQueueTime Duration `toml:"server_queue_time" apply:"reload"`
	// How long a stream to another server stays open that carries nothing.
	ServerIdle Duration `toml:"server_idle" apply:"connections"`
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
	// Nodes of one account (XEP-0163), and nodes of a pubsub service (XEP-0060) that one account owns.
	PubSubNodes Count `toml:"pubsub_nodes"`
	// Nodes of one pubsub service.
	PubSubServiceNodes Count `toml:"pubsub_service_nodes"`
	// Items of one node. One more takes the place of the oldest, unless the node rejects it (pubsub#publish_node_full).
	PubSubItems Count `toml:"pubsub_items"`
	// The size of all nodes of one account with their items and configurations, and of one node of a service.
	PubSubBytes Bytes `toml:"pubsub_bytes"`
	// Affiliations at one node.
	PubSubAffiliations Count `toml:"pubsub_affiliations"`
	// Subscriptions to one node.
	PubSubSubscriptions Count `toml:"pubsub_subscriptions"`
	// Subscriptions to one node that one account may have, with its resources.
	PubSubOwnSubscriptions Count `toml:"pubsub_own_subscriptions"`
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
		Web:     Web{Proxies: []string{"127.0.0.0/8", "::1"}, Origins: []string{"*"}, Metrics: []string{"127.0.0.0/8", "::1"}},
		S2S:     S2S{Auth: AuthCertificate, Bidi: true},
		Archive: Archive{Enabled: true},
		Upload: Upload{Enabled: true, MaxSize: 100 << 20, Quota: 1 << 30, Keep: Duration(90 * 24 * time.Hour),
			ProfileQuota: 16 << 20, PermanentQuota: 256 << 20},
		Limits: Limits{
			ClientRate: 512 << 10, ServerRate: 2 << 20, ServerQueue: 1 << 20, ServerQueueTotal: 64 << 20, ServerQueueTime: Duration(time.Minute), ServerIdle: Duration(10 * time.Minute),
			Stanza: 256 << 10, Depth: 64, Attributes: 64,
			ConnectionsPerAddress: 64, RegistrationsPerHour: 5,
			TLSTime: Duration(10 * time.Second), LoginTime: Duration(30 * time.Second),
			LoginStanza: 10000, LoginTries: 5, LoginDelay: Duration(time.Minute),
			Outbox: 1 << 20, Unacknowledged: 5000, UnacknowledgedBytes: 4 << 20,
			Resumption: Duration(15 * time.Minute), Idle: Duration(5 * time.Minute),
			Resources: 20, RosterItems: 5000, SubscriptionRequests: 1000, BlockedJIDs: 1000,
			OfflineMessages: 1000, OfflineBytes: 16 << 20, PrivateElements: 100, PrivateBytes: 1 << 20,
			PubSubNodes: 500, PubSubServiceNodes: 10000, PubSubItems: 10000, PubSubBytes: 32 << 20,
			PubSubAffiliations: 1000, PubSubSubscriptions: 10000, PubSubOwnSubscriptions: 20,
		},
		Log: Log{Level: "info", Format: "text"},
	}
}
