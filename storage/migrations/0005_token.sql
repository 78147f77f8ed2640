-- XEP-0484: tokens of the clients of an account. client is the digest of the user agent's id, which is not stored itself: it opens sealed.
-- used is 0 for a token that was never used, count -1 when none came with it.

CREATE TABLE fast_token (
	account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
	client {{text}} NOT NULL,
	salt {{bytes}} NOT NULL,
	sealed {{bytes}} NOT NULL,
	mechanism TEXT NOT NULL,
	issued BIGINT NOT NULL,
	expires BIGINT NOT NULL,
	used BIGINT NOT NULL,
	count BIGINT NOT NULL,
	software TEXT NOT NULL,
	device TEXT NOT NULL,
	PRIMARY KEY (account_id, client, salt)
) {{clustered}};
