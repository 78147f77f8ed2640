-- XEP-0198: sessions that wait for their client while the server restarts.

CREATE TABLE saved_session (
	account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
	resource {{text}} NOT NULL,
	expires BIGINT NOT NULL,
	data {{bytes}} NOT NULL,
	PRIMARY KEY (account_id, resource)
) {{clustered}};
