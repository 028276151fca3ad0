-- Who this database is for a Ceph pool, which belongs to one.

CREATE TABLE ceph_owner (
    position BIGINT NOT NULL PRIMARY KEY CHECK (position = 1),
    id UUID NOT NULL
);
