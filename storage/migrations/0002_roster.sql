-- Rosters (RFC 6121 section 2). One row an account with its version (section 2.6), which starts at a random number, the oldest version
-- from which the changes are still known, and how many items of each kind there are.

CREATE TABLE roster (
	account_id {{key}} REFERENCES account (id) ON DELETE CASCADE,
	version BIGINT NOT NULL,
	oldest BIGINT NOT NULL,
	items BIGINT NOT NULL DEFAULT 0,
	requests BIGINT NOT NULL DEFAULT 0,
	removed BIGINT NOT NULL DEFAULT 0
);

INSERT INTO roster (account_id, version, oldest) SELECT id, {{random}}, 0 FROM account;
UPDATE roster SET oldest = version;

-- state is a set of bits: 1 to, 2 from, 4 ask, 8 in, 16 approved, 32 listed, 64 removed. group_names has U+001F behind each group.
-- request is the subscription request as a presence stanza.
CREATE TABLE roster_item (
	account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
	contact {{text}} NOT NULL,
	name TEXT NOT NULL,
	group_names TEXT NOT NULL,
	state INTEGER NOT NULL,
	version BIGINT NOT NULL,
	request {{bytes}},
	PRIMARY KEY (account_id, contact)
) {{clustered}};

CREATE INDEX roster_item_version ON roster_item (account_id, version);
