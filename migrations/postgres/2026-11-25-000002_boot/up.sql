-- Relays of a network; where a node's address comes from, and what is wrong with its boot.

ALTER TABLE networks ADD COLUMN relays TEXT NOT NULL DEFAULT '[]';
ALTER TABLE instances ADD COLUMN address_giver TEXT NOT NULL DEFAULT 'bmi' CHECK (address_giver IN ('bmi', 'other'));
ALTER TABLE instances ADD COLUMN address_seen BIGINT;
ALTER TABLE instances ADD COLUMN boot_condition TEXT CHECK (boot_condition IN ('boot.never', 'boot.loop'));
CREATE INDEX stages_by_time ON stages (at);
