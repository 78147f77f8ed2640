-- Offline messages (XEP-0160). offline_spool has one row an account, so that the bound costs no counting and an id is never given twice
-- within an account.

CREATE TABLE offline_spool (
	account_id {{key}} REFERENCES account (id) ON DELETE CASCADE,
	messages BIGINT NOT NULL DEFAULT 0,
	bytes BIGINT NOT NULL DEFAULT 0,
	last_id BIGINT NOT NULL DEFAULT 0
);

INSERT INTO offline_spool (account_id) SELECT id FROM account;

-- Appended in the order of arrival whoever the owner is; the index finds the owner's.
CREATE TABLE offline_message (
	account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
	id BIGINT NOT NULL,
	stamp BIGINT NOT NULL,
	stanza {{bytes}} NOT NULL
);

CREATE UNIQUE INDEX offline_message_owner ON offline_message (account_id, id);
