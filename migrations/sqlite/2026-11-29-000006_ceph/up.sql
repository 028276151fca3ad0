-- The `ceph` store's own: each boot volume's cephx user with its sealed key, and the clients that were fenced. Volumes
-- outlive their instances for a while, so nothing is referred to.

CREATE TABLE ceph_keys (
    volume_id TEXT NOT NULL PRIMARY KEY,
    user_name TEXT NOT NULL,
    key_sealed TEXT NOT NULL
) STRICT;

CREATE TABLE ceph_fences (
    address TEXT NOT NULL PRIMARY KEY,
    volume_id TEXT NOT NULL,
    fenced_at INTEGER NOT NULL
) STRICT;
