-- Full-text search in archives (XEP-0431). A row of archive_text has the words of the message with that id, once for each account that has it in its archive and
-- whose domain has search: ACCOUNT_WORD, and ACCOUNT__PEER with the digest of the other end. It stores no text.

{{archive_text}}

-- The domains that have search. indexed is the last message that was looked at, spread the most by which an id of an entry is greater than that of its message.
CREATE TABLE archive_search (
	domain {{text}} NOT NULL PRIMARY KEY,
	indexed BIGINT NOT NULL,
	spread BIGINT NOT NULL
);
