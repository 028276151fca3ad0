-- How an image's file holds its disk, and how many bytes an upload of it has.

ALTER TABLE images ADD COLUMN format TEXT NOT NULL DEFAULT 'raw' CHECK (format IN ('raw', 'qcow2'));
ALTER TABLE images ADD COLUMN file_size INTEGER NOT NULL DEFAULT 0;
UPDATE images SET file_size = virtual_size;
