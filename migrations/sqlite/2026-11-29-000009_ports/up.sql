-- The `bridge` isolator's own: which ports of agents' hosts lead to a node, on which network they are wanted, and what
-- that network's agent said last. Ports outlive their nodes, so nothing is referred to.

CREATE TABLE bridge_ports (
    node_id TEXT NOT NULL,
    interface TEXT NOT NULL,
    network_id TEXT NOT NULL,
    wanted INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    state TEXT,
    reason TEXT,
    reported_generation INTEGER,
    PRIMARY KEY (node_id, interface)
) STRICT;
CREATE INDEX bridge_ports_network ON bridge_ports (network_id);
