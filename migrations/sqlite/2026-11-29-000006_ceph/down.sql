DROP TABLE ceph_fences;
DROP TABLE ceph_keys;
