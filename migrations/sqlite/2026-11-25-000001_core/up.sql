-- Projects, networks, nodes, images, instances, operations and what the API keeps about requests.

CREATE TABLE projects (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    version INTEGER NOT NULL
) STRICT;

CREATE TABLE networks (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    plan TEXT NOT NULL,
    first_address INTEGER NOT NULL,
    last_address INTEGER NOT NULL,
    dhcp TEXT NOT NULL CHECK (dhcp IN ('authoritative', 'proxy', 'off')),
    segment TEXT NOT NULL,
    generation INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    version INTEGER NOT NULL
) STRICT;

CREATE TABLE agents (
    network_id TEXT NOT NULL PRIMARY KEY REFERENCES networks (id) ON DELETE CASCADE,
    agent_version TEXT NOT NULL,
    generation_observed INTEGER NOT NULL,
    netboot_state TEXT NOT NULL CHECK (netboot_state IN ('absent', 'starting', 'listening', 'failed')),
    netboot_reason TEXT,
    last_seen INTEGER NOT NULL
) STRICT;

CREATE TABLE nodes (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    architecture TEXT NOT NULL CHECK (architecture IN ('x86_64', 'aarch64')),
    power TEXT NOT NULL CHECK (power IN ('manual')),
    state TEXT NOT NULL CHECK (state IN ('free', 'assigned', 'in-use')),
    project_id TEXT REFERENCES projects (id),
    created_at INTEGER NOT NULL,
    version INTEGER NOT NULL,
    CHECK ((state = 'free') = (project_id IS NULL))
) STRICT;
CREATE INDEX nodes_by_project ON nodes (project_id);

CREATE TABLE nics (
    mac TEXT NOT NULL PRIMARY KEY,
    node_id TEXT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    UNIQUE (node_id, position)
) STRICT;

CREATE TABLE images (
    id TEXT NOT NULL PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id),
    name TEXT NOT NULL,
    visibility TEXT NOT NULL CHECK (visibility IN ('private')),
    state TEXT NOT NULL CHECK (state IN ('open', 'sealing', 'sealed', 'deleting')),
    virtual_size INTEGER NOT NULL CHECK (virtual_size > 0),
    sha256 TEXT,
    upload_offset INTEGER NOT NULL,
    import_file TEXT,
    created_at INTEGER NOT NULL,
    version INTEGER NOT NULL,
    UNIQUE (project_id, name)
) STRICT;

CREATE TABLE instances (
    id TEXT NOT NULL PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id),
    name TEXT NOT NULL,
    node_id TEXT NOT NULL UNIQUE REFERENCES nodes (id),
    image_id TEXT NOT NULL REFERENCES images (id),
    network_id TEXT NOT NULL REFERENCES networks (id),
    state TEXT NOT NULL CHECK (state IN ('provisioning', 'ready', 'running', 'deprovisioning')),
    node_address INTEGER NOT NULL,
    target_address INTEGER NOT NULL,
    boot_volume TEXT NOT NULL,
    config_volume TEXT NOT NULL,
    boot_key_sealed TEXT NOT NULL,
    user_data_sealed TEXT NOT NULL,
    published_generation INTEGER,
    withdrawn_generation INTEGER,
    target_state TEXT NOT NULL CHECK (target_state IN ('absent', 'starting', 'listening', 'failed')),
    target_reason TEXT,
    read_bytes INTEGER NOT NULL,
    written_bytes INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    version INTEGER NOT NULL,
    UNIQUE (project_id, name),
    UNIQUE (network_id, node_address),
    UNIQUE (network_id, target_address)
) STRICT;
CREATE INDEX instances_by_image ON instances (image_id);

CREATE TABLE operations (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('provision', 'deprovision', 'image-import', 'image-seal', 'image-delete')),
    state TEXT NOT NULL CHECK (state IN ('pending', 'running', 'unwinding', 'stuck', 'succeeded', 'failed')),
    project_id TEXT NOT NULL,
    subject_kind TEXT NOT NULL,
    subject_id TEXT NOT NULL,
    subject_name TEXT NOT NULL,
    error TEXT,
    progress_done INTEGER,
    progress_total INTEGER,
    requested_by TEXT NOT NULL,
    lease_owner TEXT,
    lease_until INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    due_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX operations_due ON operations (due_at);
CREATE INDEX operations_by_subject ON operations (subject_id);

CREATE TABLE journal (
    operation_id TEXT NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    at INTEGER NOT NULL,
    entry TEXT NOT NULL,
    PRIMARY KEY (operation_id, position)
) STRICT;

CREATE TABLE stages (
    id TEXT NOT NULL PRIMARY KEY,
    instance_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    stage TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX stages_by_instance ON stages (instance_id, id);

CREATE TABLE idempotency (
    id TEXT NOT NULL PRIMARY KEY,
    caller TEXT NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    key TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    answer TEXT,
    created_at INTEGER NOT NULL,
    UNIQUE (caller, method, path, key)
) STRICT;
CREATE INDEX idempotency_by_age ON idempotency (created_at);
