-- Who agents are: the authorities that issue certificates (their keys sealed), tokens to join a network with (known by
-- their hash only), and the agents that joined. `agents` is what the agent of a network last reported, whoever it is.

CREATE TABLE authorities (
    id TEXT NOT NULL PRIMARY KEY,
    certificate TEXT NOT NULL,
    key_sealed TEXT NOT NULL,
    spki_sha256 TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE enrolled_agents (
    id TEXT NOT NULL PRIMARY KEY,
    network_id TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    state TEXT NOT NULL CHECK (state IN ('active', 'standby', 'revoked')),
    key_sha256 TEXT NOT NULL,
    previous_key_sha256 TEXT,
    previous_until INTEGER,
    pending_key_sha256 TEXT,
    authority_id TEXT NOT NULL,
    certificate_until INTEGER NOT NULL,
    agent_version TEXT NOT NULL,
    clock_ahead_ms INTEGER,
    enrolled_at INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    version INTEGER NOT NULL
) STRICT;
CREATE INDEX enrolled_agents_by_network ON enrolled_agents (network_id, id);
-- One agent at a time has the network.
CREATE UNIQUE INDEX enrolled_agents_active ON enrolled_agents (network_id) WHERE state = 'active';

-- A token that was used stays for a while: whoever lost the answer is told the same again.
CREATE TABLE join_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    network_id TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    sha256 TEXT NOT NULL UNIQUE,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    agent_id TEXT,
    used_key_sha256 TEXT,
    used_at INTEGER,
    certificate TEXT,
    answer_until INTEGER
) STRICT;
CREATE INDEX join_tokens_by_network ON join_tokens (network_id, id);
