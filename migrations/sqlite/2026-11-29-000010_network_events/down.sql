ALTER TABLE agents DROP COLUMN dropped;
ALTER TABLE instances DROP COLUMN boot_floor;
DROP TABLE network_events;
