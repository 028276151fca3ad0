-- Who may do what: roles, bindings, service accounts, sign-ins; what projects share; quotas; the audit log.

CREATE TABLE roles (
    name TEXT NOT NULL PRIMARY KEY,
    description TEXT NOT NULL,
    permissions TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL
);

-- A role of a subject in one project, or everywhere.
CREATE TABLE bindings (
    id UUID NOT NULL PRIMARY KEY,
    subject TEXT NOT NULL,
    role TEXT NOT NULL,
    project_id UUID REFERENCES projects (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
);
CREATE UNIQUE INDEX bindings_in_project ON bindings (project_id, subject, role) WHERE project_id IS NOT NULL;
CREATE UNIQUE INDEX bindings_everywhere ON bindings (subject, role) WHERE project_id IS NULL;

-- Grows with each change of roles, bindings or projects, so that every replica notices.
CREATE TABLE policy_version (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    version BIGINT NOT NULL
);
INSERT INTO policy_version (id, version) VALUES (1, 1);

CREATE TABLE service_accounts (
    id UUID NOT NULL PRIMARY KEY,
    project_id UUID NOT NULL REFERENCES projects (id),
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    scopes TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    version BIGINT NOT NULL,
    UNIQUE (project_id, name)
);

CREATE TABLE service_tokens (
    id UUID NOT NULL PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES service_accounts (id) ON DELETE CASCADE,
    sha256 TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    last_used_at BIGINT
);
CREATE INDEX service_tokens_by_account ON service_tokens (account_id);

-- Sign-ins that have begun: what the callback or the device must bring is known by its hash only.
CREATE TABLE sign_ins (
    id UUID NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('browser', 'device')),
    provider TEXT NOT NULL,
    handle_sha256 TEXT NOT NULL UNIQUE,
    browser_sha256 TEXT,
    secrets_sealed TEXT NOT NULL,
    return_to TEXT,
    poll_after BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- Sessions of people who signed in; `sessions` are those of iSCSI.
CREATE TABLE logins (
    id UUID NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('browser', 'device')),
    sha256 TEXT NOT NULL UNIQUE,
    provider TEXT NOT NULL,
    subject TEXT NOT NULL,
    display TEXT NOT NULL,
    grants TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_seen_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- Access tokens of a provider that were signed out before they expired.
CREATE TABLE revoked_tokens (
    sha256 TEXT NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL
);

-- Without a reference to projects: whether an id is that of a project is not for the owner of an image to learn.
CREATE TABLE image_shares (
    image_id UUID NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    project_id UUID NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (image_id, project_id)
);
CREATE INDEX image_shares_by_project ON image_shares (project_id);

-- Every image was private so far.
ALTER TABLE images DROP COLUMN visibility;
ALTER TABLE images ADD COLUMN visibility TEXT NOT NULL DEFAULT 'private' CHECK (visibility IN ('private', 'shared', 'public'));
CREATE INDEX images_public ON images (visibility) WHERE visibility = 'public';
-- Bytes really used, as last measured; and who writes an upload now.
ALTER TABLE images ADD COLUMN used_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE images ADD COLUMN upload_holder TEXT;
ALTER TABLE images ADD COLUMN upload_until BIGINT NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN used_bytes BIGINT NOT NULL DEFAULT 0;
CREATE INDEX instances_by_project ON instances (project_id, id);
-- A page of a project's nodes is read in its order, however many the project has.
DROP INDEX nodes_by_project;
CREATE INDEX nodes_by_project ON nodes (project_id, id);
CREATE INDEX operations_by_project ON operations (project_id, id);

-- The projects that may use a network, unless all may.
ALTER TABLE networks ADD COLUMN access TEXT NOT NULL DEFAULT 'all' CHECK (access IN ('all', 'named'));
CREATE TABLE network_projects (
    network_id UUID NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    project_id UUID NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    PRIMARY KEY (network_id, project_id)
);
CREATE INDEX network_projects_by_project ON network_projects (project_id);

-- What a project may have at most; nothing means the default of the configuration.
CREATE TABLE quotas (
    project_id UUID NOT NULL PRIMARY KEY REFERENCES projects (id) ON DELETE CASCADE,
    instances BIGINT,
    nodes BIGINT,
    images BIGINT,
    virtual_bytes BIGINT,
    used_bytes BIGINT,
    version BIGINT NOT NULL
);

-- What was refused and what was done. `text` is canonical, `position` and `hash` come from the chain.
CREATE TABLE audit (
    id UUID NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    project_id UUID,
    action TEXT NOT NULL,
    outcome TEXT NOT NULL,
    text TEXT NOT NULL,
    position BIGINT UNIQUE,
    hash TEXT
);
CREATE INDEX audit_by_project ON audit (project_id, id);
CREATE INDEX audit_not_chained ON audit (id) WHERE position IS NULL;

-- Signed heads of the chain; a checkpoint stands for the rows before it that retention removed.
CREATE TABLE audit_heads (
    position BIGINT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('head', 'checkpoint')),
    hash TEXT NOT NULL,
    signed_at BIGINT NOT NULL,
    public_key TEXT NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (position, kind)
);

-- What only one replica does at a time.
CREATE TABLE leases (
    name TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    held_until BIGINT NOT NULL
);

-- A request that is running counts as lost after this time; what was decided for it is decided again for a repeat.
ALTER TABLE idempotency ADD COLUMN running_until BIGINT NOT NULL DEFAULT 0;
ALTER TABLE idempotency ADD COLUMN decisions TEXT NOT NULL DEFAULT '[]';

-- The oldest release (number of its newest migration) that works with this schema.
CREATE TABLE compatibility (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    oldest BIGINT NOT NULL
);
INSERT INTO compatibility (id, oldest) VALUES (1, 5);
