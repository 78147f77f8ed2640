-- XEP-0363: uploaded files. charge is what a file counts against the account's quota of its bucket. A file that is not finished expires at the
-- time by which its upload must have ended. Times are Unix time in microseconds; 9223372036854775807 is never.

CREATE TABLE upload (
	id {{text}} NOT NULL PRIMARY KEY,
	account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
	bucket INTEGER NOT NULL,
	size BIGINT NOT NULL,
	charge BIGINT NOT NULL,
	type TEXT NOT NULL,
	stored BIGINT NOT NULL,
	finished BOOLEAN NOT NULL DEFAULT FALSE,
	expires BIGINT NOT NULL
);

CREATE INDEX upload_account ON upload (account_id, bucket, expires);
CREATE INDEX upload_expires ON upload (expires);

-- Files of accounts that were deleted, until their contents are removed.
CREATE TABLE removed_upload (
	id {{text}} NOT NULL PRIMARY KEY
);
