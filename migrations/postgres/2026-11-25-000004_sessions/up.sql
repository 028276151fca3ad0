-- The session that began last at each instance's target, and what it asked of the disk (a document).

CREATE TABLE sessions (
    instance_id UUID NOT NULL PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE,
    began_at BIGINT NOT NULL,
    statistics TEXT NOT NULL
);
