-- Accounts and what proves them. An id is never given twice: nothing that belonged to a deleted account can belong to a later one of the
-- same name. Times are Unix time in microseconds.

CREATE TABLE account (
	id {{id}},
	domain {{text}} NOT NULL,
	localpart {{text}} NOT NULL,
	disabled BOOLEAN NOT NULL DEFAULT FALSE,
	created BIGINT NOT NULL,
	UNIQUE (domain, localpart)
);

-- RFC 5802 section 3: what is kept instead of the password.
CREATE TABLE verifier (
	account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
	mechanism {{text}} NOT NULL,
	salt {{bytes}} NOT NULL,
	iterations INTEGER NOT NULL,
	stored_key {{bytes}} NOT NULL,
	server_key {{bytes}} NOT NULL,
	PRIMARY KEY (account_id, mechanism)
) {{clustered}};

-- Random values of the server itself.
CREATE TABLE secret (
	name {{text}} NOT NULL PRIMARY KEY,
	value {{bytes}} NOT NULL
);
