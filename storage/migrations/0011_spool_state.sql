-- What of the messages that are kept for an account still waits for a client (XEP-0160): everything behind top, and what lies in the gaps
-- up to it. gaps are pairs of numbers of eight bytes each, both ends included. Without a row everything waits. What was archived before this
-- table came was taken care of by the spool of its own.

CREATE TABLE spool_state (
	account_id {{key}} REFERENCES account (id) ON DELETE CASCADE,
	top BIGINT NOT NULL,
	gaps {{bytes}} NOT NULL
);

INSERT INTO spool_state (account_id, top, gaps) SELECT account_id, max(id), {{nothing}} FROM archive_entry GROUP BY account_id;
