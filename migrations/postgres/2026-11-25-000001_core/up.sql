-- Projects, networks, nodes, images, instances, operations and what the API keeps about requests.

CREATE TABLE projects (
    id UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL
);

CREATE TABLE networks (
    id UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    plan TEXT NOT NULL,
    first_address BIGINT NOT NULL,
    last_address BIGINT NOT NULL,
    dhcp TEXT NOT NULL CHECK (dhcp IN ('authoritative', 'proxy', 'off')),
    segment TEXT NOT NULL,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL
);

CREATE TABLE agents (
    network_id UUID NOT NULL PRIMARY KEY REFERENCES networks (id) ON DELETE CASCADE,
    agent_version TEXT NOT NULL,
    generation_observed BIGINT NOT NULL,
    netboot_state TEXT NOT NULL CHECK (netboot_state IN ('absent', 'starting', 'listening', 'failed')),
    netboot_reason TEXT,
    last_seen BIGINT NOT NULL
);

CREATE TABLE nodes (
    id UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    architecture TEXT NOT NULL CHECK (architecture IN ('x86_64', 'aarch64')),
    power TEXT NOT NULL CHECK (power IN ('manual')),
    state TEXT NOT NULL CHECK (state IN ('free', 'assigned', 'in-use')),
    project_id UUID REFERENCES projects (id),
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL,
    CHECK ((state = 'free') = (project_id IS NULL))
);
CREATE INDEX nodes_by_project ON nodes (project_id);

CREATE TABLE nics (
    mac TEXT NOT NULL PRIMARY KEY,
    node_id UUID NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    UNIQUE (node_id, position)
);

CREATE TABLE images (
    id UUID NOT NULL PRIMARY KEY,
    project_id UUID NOT NULL REFERENCES projects (id),
    name TEXT NOT NULL,
    visibility TEXT NOT NULL CHECK (visibility IN ('private')),
    state TEXT NOT NULL CHECK (state IN ('open', 'sealing', 'sealed', 'deleting')),
    virtual_size BIGINT NOT NULL CHECK (virtual_size > 0),
    sha256 TEXT,
    upload_offset BIGINT NOT NULL,
    import_file TEXT,
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL,
    UNIQUE (project_id, name)
);

CREATE TABLE instances (
    id UUID NOT NULL PRIMARY KEY,
    project_id UUID NOT NULL REFERENCES projects (id),
    name TEXT NOT NULL,
    node_id UUID NOT NULL UNIQUE REFERENCES nodes (id),
    image_id UUID NOT NULL REFERENCES images (id),
    network_id UUID NOT NULL REFERENCES networks (id),
    state TEXT NOT NULL CHECK (state IN ('provisioning', 'ready', 'running', 'deprovisioning')),
    node_address BIGINT NOT NULL,
    target_address BIGINT NOT NULL,
    boot_volume UUID NOT NULL,
    config_volume UUID NOT NULL,
    boot_key_sealed TEXT NOT NULL,
    user_data_sealed TEXT NOT NULL,
    published_generation BIGINT,
    withdrawn_generation BIGINT,
    target_state TEXT NOT NULL CHECK (target_state IN ('absent', 'starting', 'listening', 'failed')),
    target_reason TEXT,
    read_bytes BIGINT NOT NULL,
    written_bytes BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL,
    UNIQUE (project_id, name),
    UNIQUE (network_id, node_address),
    UNIQUE (network_id, target_address)
);
CREATE INDEX instances_by_image ON instances (image_id);

CREATE TABLE operations (
    id UUID NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('provision', 'deprovision', 'image-import', 'image-seal', 'image-delete')),
    state TEXT NOT NULL CHECK (state IN ('pending', 'running', 'unwinding', 'stuck', 'succeeded', 'failed')),
    project_id UUID NOT NULL,
    subject_kind TEXT NOT NULL,
    subject_id UUID NOT NULL,
    subject_name TEXT NOT NULL,
    error TEXT,
    progress_done BIGINT,
    progress_total BIGINT,
    requested_by TEXT NOT NULL,
    lease_owner TEXT,
    lease_until BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    due_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX operations_due ON operations (due_at);
CREATE INDEX operations_by_subject ON operations (subject_id);

CREATE TABLE journal (
    operation_id UUID NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    at BIGINT NOT NULL,
    entry TEXT NOT NULL,
    PRIMARY KEY (operation_id, position)
);

CREATE TABLE stages (
    id UUID NOT NULL PRIMARY KEY,
    instance_id UUID NOT NULL,
    at BIGINT NOT NULL,
    stage TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX stages_by_instance ON stages (instance_id, id);

CREATE TABLE idempotency (
    id UUID NOT NULL PRIMARY KEY,
    caller TEXT NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    key TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    answer TEXT,
    created_at BIGINT NOT NULL,
    UNIQUE (caller, method, path, key)
);
CREATE INDEX idempotency_by_age ON idempotency (created_at);
