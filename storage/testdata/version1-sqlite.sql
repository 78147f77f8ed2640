-- A database of version 1 (migration 0001_account.sql only), as sqlite3's .dump writes it.
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE migration (name TEXT NOT NULL PRIMARY KEY, applied BIGINT NOT NULL);
INSERT INTO migration VALUES('0001_account.sql',1795000000000000);
CREATE TABLE account (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	domain TEXT NOT NULL,
	localpart TEXT NOT NULL,
	disabled BOOLEAN NOT NULL DEFAULT FALSE,
	created BIGINT NOT NULL,
	UNIQUE (domain, localpart)
);
INSERT INTO account VALUES(1,'localhost','romeo',0,1795000001000000);
INSERT INTO account VALUES(3,'localhost','tybalt',1,1795000002000000);
CREATE TABLE verifier (
	account_id BIGINT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
	mechanism TEXT NOT NULL,
	salt BLOB NOT NULL,
	iterations INTEGER NOT NULL,
	stored_key BLOB NOT NULL,
	server_key BLOB NOT NULL,
	PRIMARY KEY (account_id, mechanism)
) WITHOUT ROWID;
INSERT INTO verifier VALUES(1,'SCRAM-SHA-256',X'0001feff',10000,X'aa00',X'bb00');
CREATE TABLE secret (
	name TEXT NOT NULL PRIMARY KEY,
	value BLOB NOT NULL
);
INSERT INTO secret VALUES('fixture',X'deadbeef');
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('account',3);
COMMIT;
