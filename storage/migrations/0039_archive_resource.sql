-- Pages for a full JID need not pass everything of its bare one. The indexes have the flags, so that messages are counted without reading the entries.

DROP INDEX archive_entry_peer;
CREATE INDEX archive_entry_peer ON archive_entry (account_id, peer, id, flags);
CREATE INDEX archive_entry_resource ON archive_entry (account_id, resource, id, flags) WHERE resource <> 0;
