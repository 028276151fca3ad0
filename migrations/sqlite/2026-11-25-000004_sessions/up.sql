-- The session that began last at each instance's target, and what it asked of the disk (a document).

CREATE TABLE sessions (
    instance_id TEXT NOT NULL PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE,
    began_at INTEGER NOT NULL,
    statistics TEXT NOT NULL
) STRICT;
