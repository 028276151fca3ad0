-- Who this database is for a Ceph pool, which belongs to one.

CREATE TABLE ceph_owner (
    position INTEGER NOT NULL PRIMARY KEY CHECK (position = 1),
    id TEXT NOT NULL
) STRICT;
