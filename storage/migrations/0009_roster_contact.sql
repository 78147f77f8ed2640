-- Who has an account in the roster, for the deletion of that account.

CREATE INDEX roster_item_contact ON roster_item (contact, account_id);
