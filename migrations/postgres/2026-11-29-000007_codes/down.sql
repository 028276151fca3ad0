ALTER TABLE images DROP COLUMN import_stored;
ALTER TABLE operations DROP COLUMN code;
