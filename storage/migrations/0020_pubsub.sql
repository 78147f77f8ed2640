-- XEP-0060. service is the SHA-256 of the JID whose node it is, digest that of the node's name: names of several kilobytes do not fit into a
-- PostgreSQL index. account_id is set for the nodes of an account (XEP-0163), and NULL for those of a service.

CREATE TABLE pubsub_node (
	id {{id}},
	account_id BIGINT REFERENCES account (id) ON DELETE CASCADE,
	service {{bytes}} NOT NULL,
	digest {{bytes}} NOT NULL,
	name TEXT NOT NULL,
	config {{bytes}} NOT NULL,
	creator TEXT NOT NULL,
	created BIGINT NOT NULL,
	sequence BIGINT NOT NULL DEFAULT 0,
	items BIGINT NOT NULL DEFAULT 0,
	bytes BIGINT NOT NULL DEFAULT 0,
	UNIQUE (service, digest)
);

CREATE INDEX pubsub_node_account ON pubsub_node (account_id);

-- digest is the SHA-256 of the item's id, sequence the order of publishing; publisher_digest is NULL where the node's account published itself.
CREATE TABLE pubsub_item (
	node_id BIGINT NOT NULL REFERENCES pubsub_node (id) ON DELETE CASCADE,
	digest {{bytes}} NOT NULL,
	id TEXT NOT NULL,
	sequence BIGINT NOT NULL,
	publisher TEXT NOT NULL,
	publisher_digest {{bytes}},
	published BIGINT NOT NULL,
	payload {{bytes}} NOT NULL,
	PRIMARY KEY (node_id, digest)
);

CREATE UNIQUE INDEX pubsub_item_sequence ON pubsub_item (node_id, sequence);
CREATE INDEX pubsub_item_publisher ON pubsub_item (publisher_digest) WHERE publisher_digest IS NOT NULL;

-- digest is the SHA-256 of the bare JID; affiliation 1 outcast, 2 member, 3 publish-only, 4 publisher, 5 owner.
CREATE TABLE pubsub_affiliation (
	node_id BIGINT NOT NULL REFERENCES pubsub_node (id) ON DELETE CASCADE,
	digest {{bytes}} NOT NULL,
	jid TEXT NOT NULL,
	affiliation INTEGER NOT NULL,
	PRIMARY KEY (node_id, digest)
) {{clustered}};

CREATE INDEX pubsub_affiliation_jid ON pubsub_affiliation (digest);

-- digest is the SHA-256 of the JID that is subscribed, bare that of its bare JID; state 1 pending, 2 subscribed.
CREATE TABLE pubsub_subscription (
	node_id BIGINT NOT NULL REFERENCES pubsub_node (id) ON DELETE CASCADE,
	digest {{bytes}} NOT NULL,
	bare {{bytes}} NOT NULL,
	jid TEXT NOT NULL,
	state INTEGER NOT NULL,
	options {{bytes}} NOT NULL,
	PRIMARY KEY (node_id, digest)
) {{clustered}};

CREATE INDEX pubsub_subscription_bare ON pubsub_subscription (bare);
