-- Messages that are kept for an account. message has the bytes once, whoever they are kept for, and is appended to; archive_entry has one small
-- row for each account that has the message: the sender's and the recipient's.
--
-- An id is a time in microseconds, given when the message arrives; no two are the same, and they grow also when the clock goes back: then the
-- stamp is less than the id. message.id is the id of the first of its entries.

CREATE TABLE message (
	id {{key}},
	stamp BIGINT NOT NULL,
	stanza {{bytes}} NOT NULL
);

-- peer and resource are keyed digests of the other end's bare and full JID; resource is 0 for a bare one. flags is a set of bits: 1 archived
-- (XEP-0313), 2 may wait in the offline spool (XEP-0160), 4 sent by the account.
CREATE TABLE archive_entry (
	account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
	id BIGINT NOT NULL,
	message_id BIGINT NOT NULL,
	peer BIGINT NOT NULL,
	resource BIGINT NOT NULL,
	flags INTEGER NOT NULL,
	PRIMARY KEY (account_id, id)
) {{clustered}};

CREATE INDEX archive_entry_peer ON archive_entry (account_id, peer, id);
CREATE INDEX archive_entry_message ON archive_entry (message_id);
CREATE INDEX archive_entry_waiting ON archive_entry (account_id, id) WHERE flags = 2;

-- How far the clock went back: the most by which an id of message is greater than its stamp. One row.
CREATE TABLE archive_clock (
	id {{key}},
	skew BIGINT NOT NULL
);

INSERT INTO archive_clock (id, skew) VALUES (1, 1000000);

-- XEP-0441: one row an account that has set its preferences. Each JID has U+000A behind it.
CREATE TABLE archive_preferences (
	account_id {{key}} REFERENCES account (id) ON DELETE CASCADE,
	standard TEXT NOT NULL,
	always TEXT NOT NULL,
	never TEXT NOT NULL
);
