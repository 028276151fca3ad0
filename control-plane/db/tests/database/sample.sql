-- At least one row in every table, in SQL that both databases read.
INSERT INTO projects (id, name, description, created_at, version) VALUES
  ('00000000-0000-7000-8000-000000000001', 'lab', 'with ''quotes'', ünïcödé and 漢字', 1000001, 3),
  ('00000000-0000-7000-8000-000000000002', 'other', '', 1000002, 1);
INSERT INTO networks (id, name, plan, first_address, last_address, dhcp, segment, generation, created_at, version, relays, access) VALUES
  ('00000000-0000-7000-8000-000000000011', 'provisioning', '{"cidr":"10.77.0.0/24"}', 172818432, 172818687, 'authoritative', '{}', 41, 1000003, 2, '["10.0.0.1"]', 'named');
INSERT INTO agents (network_id, agent_version, generation_observed, netboot_state, netboot_reason, last_seen, dropped) VALUES
  ('00000000-0000-7000-8000-000000000011', '0.1.0', 40, 'listening', NULL, 1000004, '[{"by":"bridge","packets":7}]');
INSERT INTO authorities (id, certificate, key_sealed, spki_sha256, created_at, expires_at) VALUES
  ('00000000-0000-7000-8000-0000000000a1', '-----BEGIN CERTIFICATE-----', 'v1:FFFF', 'abc', 1000004, 9000004);
INSERT INTO enrolled_agents (id, network_id, state, key_sha256, previous_key_sha256, previous_until, pending_key_sha256, authority_id, certificate_until, agent_version, clock_ahead_ms, enrolled_at, last_seen, version) VALUES
  ('00000000-0000-7000-8000-0000000000a2', '00000000-0000-7000-8000-000000000011', 'active', 'key', 'before', 2000004, 'next', '00000000-0000-7000-8000-0000000000a1', 3000004, '0.1.0', -600000, 1000004, 1000005, 2),
  ('00000000-0000-7000-8000-0000000000a3', '00000000-0000-7000-8000-000000000011', 'revoked', 'key-2', NULL, NULL, NULL, '00000000-0000-7000-8000-0000000000a1', 3000004, '', NULL, 1000004, 1000005, 1);
INSERT INTO join_tokens (id, network_id, sha256, created_by, created_at, expires_at, agent_id, used_key_sha256, used_at, certificate, answer_until) VALUES
  ('00000000-0000-7000-8000-0000000000a4', '00000000-0000-7000-8000-000000000011', 'hash', 'local-admin', 1000003, 1000009, '00000000-0000-7000-8000-0000000000a2', 'key', 1000004, '-----BEGIN CERTIFICATE-----', 1000008),
  ('00000000-0000-7000-8000-0000000000a5', '00000000-0000-7000-8000-000000000011', 'hash-2', 'local-admin', 1000003, 1000009, NULL, NULL, NULL, NULL, NULL);
INSERT INTO nodes (id, name, architecture, power, state, project_id, created_at, version) VALUES
  ('00000000-0000-7000-8000-000000000021', 'node-1', 'x86_64', 'manual', 'in-use', '00000000-0000-7000-8000-000000000001', 1000005, 5),
  ('00000000-0000-7000-8000-000000000022', 'node-2', 'aarch64', 'manual', 'free', NULL, 1000006, 1);
INSERT INTO nics (mac, node_id, position) VALUES
  ('52:54:00:00:00:02', '00000000-0000-7000-8000-000000000021', 0),
  ('52:54:00:00:00:01', '00000000-0000-7000-8000-000000000021', 1);
INSERT INTO images (id, project_id, name, state, virtual_size, sha256, upload_offset, import_file, created_at, version, format, file_size, visibility, used_bytes, upload_holder, upload_until, import_stored) VALUES
  ('00000000-0000-7000-8000-000000000031', '00000000-0000-7000-8000-000000000001', 'golden', 'sealed', 9223372036854775807, 'abc', 512, 'golden.raw', 1000007, 9, 'qcow2', 4096, 'shared', 77, NULL, 0, 'debian@v1'),
  ('00000000-0000-7000-8000-000000000032', '00000000-0000-7000-8000-000000000001', 'open', 'open', 512, NULL, 0, NULL, 1000008, 1, 'raw', 512, 'private', 0, 'somebody', 9000000000000000, NULL);
INSERT INTO image_shares (image_id, project_id, created_at) VALUES
  ('00000000-0000-7000-8000-000000000031', '00000000-0000-7000-8000-000000000002', 1000009);
INSERT INTO network_projects (network_id, project_id) VALUES
  ('00000000-0000-7000-8000-000000000011', '00000000-0000-7000-8000-000000000001');
INSERT INTO quotas (project_id, instances, nodes, images, virtual_bytes, used_bytes, version) VALUES
  ('00000000-0000-7000-8000-000000000001', 5, NULL, 0, 1099511627776, NULL, 4);
INSERT INTO instances (id, project_id, name, node_id, image_id, network_id, state, node_address, target_address, boot_volume, config_volume, boot_key_sealed, user_data_sealed, published_generation, withdrawn_generation, target_state, target_reason, read_bytes, written_bytes, created_at, version, address_giver, address_seen, boot_condition, used_bytes, boot_floor) VALUES
  ('00000000-0000-7000-8000-000000000041', '00000000-0000-7000-8000-000000000001', 'node-1', '00000000-0000-7000-8000-000000000021', '00000000-0000-7000-8000-000000000031', '00000000-0000-7000-8000-000000000011', 'provisioning', 172818442, 172818443, '00000000-0000-7000-8000-000000000051', '00000000-0000-7000-8000-000000000052', 'v1:AAAA', 'v1:BBBB', 40, NULL, 'starting', 'because', 1, 2, 1000010, 6, 'other', NULL, 'boot.loop', 4096, 1764500000);
INSERT INTO sessions (instance_id, began_at, statistics) VALUES
  ('00000000-0000-7000-8000-000000000041', 1000011, '{"reads":1}');
INSERT INTO operations (id, kind, state, project_id, subject_kind, subject_id, subject_name, error, progress_done, progress_total, requested_by, lease_owner, lease_until, epoch, due_at, created_at, updated_at, code) VALUES
  ('00000000-0000-7000-8000-000000000061', 'provision', 'running', '00000000-0000-7000-8000-000000000001', 'instance', '00000000-0000-7000-8000-000000000041', 'node-1', NULL, 1, 2, 'user:a', 'server 1', 9000000000000000, 3, 1000012, 1000012, 1000013, NULL),
  ('00000000-0000-7000-8000-000000000062', 'image-seal', 'succeeded', '00000000-0000-7000-8000-000000000001', 'image', '00000000-0000-7000-8000-000000000031', 'golden', NULL, NULL, NULL, 'user:a', NULL, 0, 1, NULL, 1000014, 1000015, 'store-full');
INSERT INTO journal (operation_id, position, at, entry) VALUES
  ('00000000-0000-7000-8000-000000000061', 0, 1000016, '{"step_started":{"step":0}}'),
  ('00000000-0000-7000-8000-000000000061', 1, 1000017, '{"step_done":{"step":0}}');
INSERT INTO stages (id, instance_id, at, stage, detail) VALUES
  ('00000000-0000-7000-8000-000000000071', '00000000-0000-7000-8000-000000000041', 1000018, 'dhcp', '{}');
INSERT INTO network_events (id, network_id, at, event, detail) VALUES
  ('00000000-0000-7000-8000-000000000072', '00000000-0000-7000-8000-000000000011', 1000018, 'fault', '{"about":"network"}');
INSERT INTO idempotency (id, caller, method, path, key, body_sha256, answer, created_at, running_until, decisions) VALUES
  ('00000000-0000-7000-8000-000000000081', 'user:a', 'POST', '/v1/projects', 'one', 'hash', '{"answer":1}', 1000019, 0, '[]'),
  ('00000000-0000-7000-8000-000000000082', 'user:a', 'POST', '/v1/projects', 'two', 'hash', NULL, 1000020, 9000000000000000, '[]');
INSERT INTO roles (name, description, permissions, created_at, version) VALUES ('builder', 'builds', '["image:write"]', 1000021, 2);
INSERT INTO bindings (id, subject, role, project_id, created_at, created_by) VALUES
  ('00000000-0000-7000-8000-000000000091', 'user:a', 'builder', '00000000-0000-7000-8000-000000000001', 1000022, 'local:admin'),
  ('00000000-0000-7000-8000-000000000092', 'user:b', 'platform-admin', NULL, 1000023, 'local:admin');
UPDATE policy_version SET version = 17;
INSERT INTO service_accounts (id, project_id, name, description, scopes, created_at, created_by, version) VALUES
  ('00000000-0000-7000-8000-0000000000a1', '00000000-0000-7000-8000-000000000001', 'ci', '', '["all"]', 1000024, 'user:a', 1);
INSERT INTO service_tokens (id, account_id, sha256, created_at, expires_at, last_used_at) VALUES
  ('00000000-0000-7000-8000-0000000000b1', '00000000-0000-7000-8000-0000000000a1', 'aa', 1000025, 2000025, NULL);
INSERT INTO sign_ins (id, kind, provider, handle_sha256, browser_sha256, secrets_sealed, return_to, poll_after, created_at, expires_at) VALUES
  ('00000000-0000-7000-8000-0000000000c1', 'browser', 'idp', 'bb', NULL, 'v1:CCCC', '/ui', 0, 1000026, 2000026);
INSERT INTO logins (id, kind, sha256, provider, subject, display, grants, created_at, last_seen_at, expires_at) VALUES
  ('00000000-0000-7000-8000-0000000000d1', 'device', 'cc', 'idp', 'user:a', 'A', '{}', 1000027, 1000028, 2000028);
INSERT INTO revoked_tokens (sha256, expires_at) VALUES ('dd', 2000029);
INSERT INTO audit (id, at, actor, project_id, action, outcome, text, position, hash) VALUES
  ('00000000-0000-7000-8000-0000000000e1', 1000030, 'user:a', '00000000-0000-7000-8000-000000000001', 'image.write', 'allowed', '{"a":1}', 1, 'ee'),
  ('00000000-0000-7000-8000-0000000000e2', 1000031, 'user:a', NULL, 'node.read', 'denied', '{"b":2}', NULL, NULL);
INSERT INTO audit_heads (position, kind, hash, signed_at, public_key, signature) VALUES (1, 'head', 'ee', 1000032, 'ff', '00');
INSERT INTO leases (name, holder, held_until) VALUES ('reconciler', 'server 1', 9000000000000000);
INSERT INTO ceph_keys (volume_id, user_name, key_sealed, caps, image, header) VALUES
  ('00000000-0000-7000-8000-0000000000e1', 'bmi-00000000-0000-7000-8000-0000000000e1', 'v1:EEEE',
    'allow rwx namespace=a object_prefix rbd_data.1.', '1', 'ab');
INSERT INTO ceph_fences (address, volume_id, fenced_at) VALUES
  ('10.0.0.1:0/7', '00000000-0000-7000-8000-0000000000e1', 1000027);
INSERT INTO ceph_owner (position, id) VALUES (1, '00000000-0000-7000-8000-0000000000f1');
INSERT INTO bridge_ports (node_id, interface, network_id, wanted, generation, state, reason, reported_generation) VALUES
  ('00000000-0000-7000-8000-000000000021', 'enp3s0', '00000000-0000-7000-8000-000000000011', 1, 3, 'failed', 'gone', 4),
  ('00000000-0000-7000-8000-000000000022', 'enp4s0', '00000000-0000-7000-8000-000000000011', 0, 2, NULL, NULL, NULL);
