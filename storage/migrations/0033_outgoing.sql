-- Stanzas of accounts that are on their way to other servers. id is a time in microseconds as that of message, and from the same sequence. A message
-- that is archived for its sender has everything there (message_id), and goes with it; another one is its account's. It is appended to, and emptied in the
-- order of appending.

CREATE TABLE outgoing (
	id {{key}},
	message_id BIGINT,
	account_id BIGINT REFERENCES account (id) ON DELETE CASCADE,
	stanza {{bytes}}
);

-- What was stored when the server stopped had a number and no time.
INSERT INTO outgoing (id, account_id, stanza) SELECT position + 1, account_id, stanza FROM unsent;

DROP TABLE unsent;
