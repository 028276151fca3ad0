DROP TABLE ceph_owner;
