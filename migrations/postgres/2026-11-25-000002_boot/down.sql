DROP INDEX stages_by_time;
ALTER TABLE instances DROP COLUMN boot_condition;
ALTER TABLE instances DROP COLUMN address_seen;
ALTER TABLE instances DROP COLUMN address_giver;
ALTER TABLE networks DROP COLUMN relays;
