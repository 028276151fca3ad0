-- What happened to a network as a whole, told by its agents and noted of them, kept as history. And the highest boot number
-- that has logged in, so that an agent that takes a network over knows it. And what an agent's firewalls dropped.

CREATE TABLE network_events (
    id UUID NOT NULL PRIMARY KEY,
    network_id UUID NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    at BIGINT NOT NULL,
    event TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX network_events_by_network ON network_events (network_id, event, id);
ALTER TABLE instances ADD COLUMN boot_floor BIGINT NOT NULL DEFAULT 0;
ALTER TABLE agents ADD COLUMN dropped TEXT NOT NULL DEFAULT '[]';
