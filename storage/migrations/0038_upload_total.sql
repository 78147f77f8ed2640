-- What all files of a bucket count that an account has, those included that have expired and are about to be removed: asking for it does not
-- read a row a file.

CREATE TABLE upload_total (
	account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
	bucket INTEGER NOT NULL,
	charge BIGINT NOT NULL,
	PRIMARY KEY (account_id, bucket)
) {{clustered}};

INSERT INTO upload_total (account_id, bucket, charge) SELECT account_id, bucket, sum(charge) FROM upload GROUP BY account_id, bucket;

-- With what they count, so that what has expired is summed up from the index alone.
DROP INDEX upload_account;
CREATE INDEX upload_account ON upload (account_id, bucket, expires, charge);
