-- XEP-0357: who wants to hear of an account's messages. digest is the SHA-256 of service and node, separated by a zero byte; id grows with
-- every request of an account, and options is empty when there are none.

CREATE TABLE push_registration (
	account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
	digest {{bytes}} NOT NULL,
	id BIGINT NOT NULL,
	service TEXT NOT NULL,
	node TEXT NOT NULL,
	resource TEXT NOT NULL,
	options {{bytes}} NOT NULL,
	PRIMARY KEY (account_id, digest)
) {{clustered}};
