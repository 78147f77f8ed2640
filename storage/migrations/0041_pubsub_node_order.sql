-- A page of a service's nodes in the order of their creation (XEP-0060 §5.2) reads these nodes and no others.

CREATE INDEX pubsub_node_order ON pubsub_node (service, id);
