-- By its tag the message that a retraction names is found among those with its sender (XEP-0424) without reading them: 15 bits of a keyed digest of its id and, shifted
-- by 15, of the id of the message that it corrects (XEP-0308); 1 shifted by 30 without any. Of what was there before it is 0, and that is read.

ALTER TABLE archive_entry ADD COLUMN tag INTEGER NOT NULL DEFAULT 0;

DROP INDEX archive_entry_peer;
CREATE INDEX archive_entry_peer ON archive_entry (account_id, peer, id, flags, tag);
