ALTER TABLE images DROP COLUMN file_size;
ALTER TABLE images DROP COLUMN format;
