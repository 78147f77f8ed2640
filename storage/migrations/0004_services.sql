-- The small services. digest is the SHA-256 of what names the row: names of several kilobytes do not fit into a PostgreSQL index.

-- XEP-0049: digest of namespace and local name, separated by a zero byte.
CREATE TABLE private_xml (
	account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
	digest {{bytes}} NOT NULL,
	element {{bytes}} NOT NULL,
	PRIMARY KEY (account_id, digest)
);

-- XEP-0054
CREATE TABLE vcard (
	account_id {{key}} REFERENCES account (id) ON DELETE CASCADE,
	element {{bytes}} NOT NULL
);

-- XEP-0191: digest of the JID; place is the order of blocking.
CREATE TABLE block_entry (
	account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
	digest {{bytes}} NOT NULL,
	place BIGINT NOT NULL,
	jid TEXT NOT NULL,
	PRIMARY KEY (account_id, digest)
) {{clustered}};

-- XEP-0012 section 4
CREATE TABLE last_activity (
	account_id {{key}} REFERENCES account (id) ON DELETE CASCADE,
	at BIGINT NOT NULL,
	status TEXT NOT NULL
);
