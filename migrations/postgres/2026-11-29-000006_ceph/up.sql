-- The `ceph` store's own: each boot volume's cephx user with its sealed key, its rights and what its header said before
-- anybody had the key; and the clients that were fenced. Volumes
-- outlive their instances for a while, so nothing is referred to.

CREATE TABLE ceph_keys (
    volume_id UUID NOT NULL PRIMARY KEY,
    user_name TEXT NOT NULL,
    key_sealed TEXT NOT NULL,
    caps TEXT NOT NULL,
    image TEXT NOT NULL,
    header TEXT NOT NULL
);

CREATE TABLE ceph_fences (
    address TEXT NOT NULL PRIMARY KEY,
    volume_id UUID NOT NULL,
    fenced_at BIGINT NOT NULL
);
