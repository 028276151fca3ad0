ALTER TABLE instances DROP COLUMN boot_floor;
DROP TABLE network_events;
