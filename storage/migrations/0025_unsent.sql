-- Stanzas of accounts to other servers that could not be sent before the server stopped.

CREATE TABLE unsent (
	account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
	position BIGINT NOT NULL,
	stanza {{bytes}} NOT NULL,
	PRIMARY KEY (account_id, position)
) {{clustered}};
